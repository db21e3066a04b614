"""`perception train`: labelled street pictures → a checkpoint."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any


def main(argv: Sequence[str]) -> int:
    """Parse the options, train, name the next command."""
    from perception.errors import MissingDependencyError, UserError

    try:
        from training.config import PRESETS, TrainConfig
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
    config = options.training
    run, resume = options.out, False
    if options.resume is not None:
        run, resume = options.resume, True
        config = _stored_config(run)
    elif (run / "last.pt").exists():
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
    best = train(config, run, resume=resume, init=options.init)
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

    from perception.errors import UserError

    known = {f.name for f in fields(config)}
    changes = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(f"{where}: unknown field '{name}'", "one of " + ", ".join(sorted(known)), *near)
        current = getattr(config, name)
        if is_dataclass(current):
            changes[name] = overlay(current, value, f"{where} [{name}]")
        elif isinstance(current, Path):
            changes[name] = Path(value)
        elif isinstance(value, list):
            changes[name] = tuple(value)
        else:
            changes[name] = value
    return replace(config, **changes)


def _stored_config(run: Path) -> Any:
    """The config that a run folder was started with."""
    import json

    from perception.errors import UserError
    from training.config import PRESETS

    try:
        stored = json.loads((run / "config.json").read_text())["config"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{run}: holds no config.json", "a run folder of `perception train`") from None
    return overlay(PRESETS[stored["preset"]](), stored, str(run / "config.json"))
