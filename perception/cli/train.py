"""`perception train`: labelled street pictures → a checkpoint.

Several processes: `torchrun --nproc-per-node 2 -m perception.cli.main train …`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any


def main(argv: Sequence[str]) -> int:
    """Parse the options, train, name the next command."""
    from perception.errors import MissingDependencyError, UserError

    try:
        from training.config import PRESETS, TrainConfig
        from training.distributed import launched_rank
        from training.folds import cross_validate
        from training.loop import train
    except ModuleNotFoundError as error:
        raise MissingDependencyError(str(error.name), "train", "training") from None
    import tyro

    @dataclass(frozen=True)
    class Options:
        """Train a network. Start with --preset, change any field, or go on with --resume RUN."""

        out: Path = Path("runs/nano")
        """Run folder: config, metrics, curves, checkpoints."""
        resume: Path | None = None
        """Run folder to go on with; every other option comes from it."""
        init: Path | None = None
        """Checkpoint to start from; tensors that fit are taken over."""
        folds: int = 0
        """Cross-validate in so many parts, each trained in OUT/fold-i: KITTI objects by drive, road by category.
        0: one run."""
        config: Path | None = None
        """TOML file with any of the fields below, as `steps = 6000` or `[data]` `synthetic_share = 0.3`."""
        training: Annotated[TrainConfig, tyro.conf.arg(name="", prefix_name=False)] = field(
            default_factory=TrainConfig
        )

    preset, rest = _take_preset(list(argv), PRESETS)
    options = tyro.cli(
        Options,
        args=rest,
        default=Options(out=Path("runs") / preset, training=_from_toml(PRESETS[preset](), rest)),
        prog="perception train [--preset nano|small|medium|large]",
        description=Options.__doc__,
    )
    config, run, init, folds = options.training, options.out, options.init, options.folds
    if folds == 1 or folds < 0:
        raise UserError(f"--folds {folds}", "at least 2, or 0 for one run", "--folds 5")
    if folds:
        config = replace(config, data=replace(config.data, folds=folds))
    resume = options.resume is not None
    if options.resume is not None:
        run = options.resume
        config, init, folds = stored_run(run)
    elif (run / "config.json").exists():
        raise UserError(
            f"{run}: holds a run already",
            "an empty folder",
            f"perception train --resume {run}, or --out ANOTHER",
        )
    if not config.data.root.is_dir() and config.data.real:
        raise UserError(
            f"{config.data.root}: no such folder",
            "a folder with KITTI or the other sets",
            "--data.root FOLDER, perception data fetch kitti-object --root FOLDER, or --data.no-real",
        )
    if folds:
        results = cross_validate(config, run, init)
        if launched_rank() == 0:
            print(f"done: {results}")
        return 0
    best = train(config, run, resume=resume, init=init)
    if launched_rank() == 0:
        print(f"done: {best}\nnext: perception export {best}")
        print(f"curves: tensorboard --logdir {run}", file=sys.stderr)
    return 0


def _take_preset(argv: list[str], presets: dict[str, Any]) -> tuple[str, list[str]]:
    """The preset decides the defaults that --help shows, so it is read first."""
    from perception.errors import UserError

    name = "nano"
    for i, token in enumerate(argv):
        if token == "--preset" and i + 1 < len(argv):
            name = argv[i + 1]
            argv = argv[:i] + argv[i + 2 :]
            break
        if token.startswith("--preset="):
            name = token.split("=", 1)[1]
            argv = argv[:i] + argv[i + 1 :]
            break
    if name not in presets:
        raise UserError(f"unknown preset '{name}'", "one of " + ", ".join(presets))
    return name, argv


def _from_toml(config: Any, argv: list[str]) -> Any:
    """The fields of a --config file over a preset's."""
    import tomllib

    from perception.errors import UserError

    if "--config" not in argv:
        return config
    path = Path(argv[argv.index("--config") + 1]) if argv.index("--config") + 1 < len(argv) else Path()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}", "a TOML file") from None
    return overlay(config, values, str(path))


def overlay(config: Any, values: dict[str, Any], where: str) -> Any:
    """A config with some fields replaced; an unknown name is an error that names the nearest one."""
    import difflib
    from typing import get_type_hints

    from perception.errors import UserError

    known = get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(f"{where}: unknown field '{name}'", "one of " + ", ".join(sorted(known)), *near)
        current = getattr(config, name)
        changes[name] = (
            overlay(current, value, f"{where} [{name}]")
            if is_dataclass(current) and isinstance(value, dict)
            else _value(value, known[name], f"{where}: {name}")
        )
    return replace(config, **changes)


def _value(value: Any, kind: Any, where: str) -> Any:
    """A value of JSON or TOML as a field of this type wants it."""
    from types import UnionType
    from typing import Literal, get_args, get_origin

    from perception.errors import UserError

    kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, list) and any(get_origin(k) is tuple for k in kinds):
        return tuple(value)
    if isinstance(value, str) and Path in kinds:
        return Path(value)
    if type(value) is int and float in kinds:
        return float(value)
    if any(value in get_args(k) if get_origin(k) is Literal else type(value) is k for k in kinds):
        return value
    expected = " or ".join(
        " or ".join(get_args(k)) if get_origin(k) is Literal else getattr(k, "__name__", str(k)) for k in kinds
    )
    raise UserError(f"{where} is {value!r}", expected)


def stored_run(run: Path) -> tuple[Any, Path | None, int]:
    """Config, first weights and number of folds (0: none) that a run folder was started with."""
    import json

    from perception.errors import UserError
    from training.config import PRESETS

    try:
        stored = json.loads((run / "config.json").read_text())
        preset = PRESETS[stored["config"]["preset"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{run}: holds no config.json that can be read", "a run folder of `perception train`"
        ) from None
    config = overlay(preset(), stored["config"], str(run / "config.json"))
    init = stored.get("init")
    return config, Path(init) if init else None, stored.get("folds", 0)
