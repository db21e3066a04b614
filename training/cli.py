"""`perception train`: labelled street pictures → a checkpoint.

Several processes: `torchrun --nproc-per-node 2 -m perception.cli.main train …`.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any


def main(argv: Sequence[str]) -> int:
    """Parse the options, train, name the next command."""
    from perception.errors import MissingDependencyError, UserError

    try:
        from training.config import PRESETS, TrainConfig
        from training.distributed import launched, launched_rank
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
        """Run folder to go on with, with the options it began with. The machine's own may change: --data.root,
        workers, cache and cache-gb, threads, device, compile, checkpoint-every, skip-nonfinite."""
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

    resumed = _given(argv, "--resume")
    if resumed is not None:
        began = _began(Options, Path(resumed))
        defaults, rest = replace(began, training=_from_toml(began.training, argv)), list(argv)
    else:
        preset, rest = _take_preset(list(argv), PRESETS)
        defaults = Options(out=Path("runs") / preset, training=_from_toml(PRESETS[preset](), rest))
    options = tyro.cli(
        Options,
        args=rest,
        default=defaults,
        prog="perception train [--preset nano|small|medium|large]",
        description=Options.__doc__,
    )
    config, run, init, folds = options.training, options.out, options.init, options.folds
    if folds == 1 or folds < 0:
        raise UserError(f"--folds {folds}", "at least 2, or 0 for one run", "--folds 5")
    if resumed is not None:
        _check_resumed(began, options)
    elif (run / "config.json").exists():
        raise UserError(
            f"{run}: holds a run already",
            "an empty folder",
            f"perception train --resume {run}, or --out ANOTHER",
        )
    if folds:
        config = replace(config, data=replace(config.data, folds=folds))
    if not config.data.root.is_dir() and config.data.real:
        raise UserError(
            f"{config.data.root}: no such folder",
            "a folder with KITTI or the other sets",
            "--data.root FOLDER, perception data fetch kitti-object --root FOLDER, or --data.no-real",
        )
    try:
        with nullcontext() if launched() else _sigterm_is_ctrl_c():  # torchrun's is final, and may find us in C++
            if folds:
                done, next_command = cross_validate(config, run, init), ""
            else:
                done = train(config, run, resume=resumed is not None, init=init)
                next_command = f"\nnext: perception export {done}"
    except KeyboardInterrupt:
        if launched_rank() == 0 and (run / "config.json").exists():
            command = "torchrun … -m perception.cli.main" if launched() else "perception"
            print(f"go on with: {command} train --resume {run}", file=sys.stderr)
        raise
    if launched_rank() == 0:
        print(f"done: {done}{next_command}")
        if not folds:
            print(f"curves: tensorboard --logdir {run}", file=sys.stderr)
    return 0


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """A scheduler's SIGTERM ends a run in order, too, and the command that goes on is told."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        # sent to the whole group, it ends the loader processes too, which torch's handler would call a crash
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _given(argv: Sequence[str], option: str) -> str | None:
    """The last value of an option, as `--option VALUE` or `--option=VALUE`."""
    value = None
    for i, token in enumerate(argv):
        if token == option and i + 1 < len(argv):
            value = argv[i + 1]
        elif token.startswith(option + "="):
            value = token.split("=", 1)[1]
    return value


def _began(kind: Any, run: Path) -> Any:
    """The options that a run folder was started with."""
    config, init, folds = stored_run(run)
    return kind(out=run, resume=run, init=init, folds=folds, training=config)


MACHINE = (
    "data.root",
    "data.workers",
    "data.cache",
    "data.cache_gb",
    "threads",
    "device",
    "compile",
    "checkpoint_every",
    "skip_nonfinite",
)
"""Fields that a resumed run may change: they say where it runs, not what is learnt."""


def _check_resumed(began: Any, now: Any) -> None:
    """Raise where a run is to go on with other options than it began with."""
    from perception.errors import UserError

    changed = [*_changes(replace(began, config=now.config), now)]
    changed = [name.removeprefix("training.") for name in changed]
    if other := [name for name in changed if name not in MACHINE]:
        raise UserError(
            f"--resume {began.resume} with another {', '.join(other)}",
            f"what it began with; only {', '.join(MACHINE)} may change",
            f"perception train --init {began.resume / 'last.pt'} --out ANOTHER, with the new options",
        )


def _changes(a: Any, b: Any, prefix: str = "") -> Iterator[str]:
    """Names of the fields in which two configs differ."""
    for name in (f.name for f in fields(a)):
        x, y = getattr(a, name), getattr(b, name)
        if is_dataclass(x):
            yield from _changes(x, y, f"{prefix}{name}.")
        elif x != y:
            yield prefix + name


def _take_preset(argv: list[str], presets: dict[str, Any]) -> tuple[str, list[str]]:
    """The preset decides the defaults that --help shows, so it is read first."""
    from perception.errors import UserError

    name = _given(argv, "--preset") or _preset_of_toml(argv)
    rest, skip = [], False
    for i, token in enumerate(argv):
        if skip or token.startswith("--preset="):
            skip = False
        elif token == "--preset" and i + 1 < len(argv):
            skip = True
        else:
            rest.append(token)
    if name not in presets:
        raise UserError(f"unknown preset '{name}'", "one of " + ", ".join(presets), "--preset nano")
    return name, rest


def _preset_of_toml(argv: Sequence[str]) -> str:
    """`preset` of a --config file, as it was written; "nano" where there is none."""
    return str(_read_toml(argv)[1].get("preset", "nano"))


def _from_toml(config: Any, argv: Sequence[str]) -> Any:
    """The fields of a --config file over a preset's."""
    path, values = _read_toml(argv)
    values.pop("preset", None)  # it has chosen what the others lie over
    return overlay(config, values, path)


def _read_toml(argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Path and values of the --config file; nothing where there is none."""
    import tomllib

    from perception.errors import UserError

    path = _given(argv, "--config")
    if path is None:
        return "", {}
    try:
        return path, tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "a TOML file", "--config FILE") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}", "a TOML file") from None


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
    for k in kinds:
        if get_origin(k) is tuple and isinstance(value, list):
            inside = get_args(k)
            inside = inside[:1] * len(value) if inside[-1:] == (...,) else inside
            if len(inside) != len(value):
                raise UserError(f"{where} has {len(value)} values", f"{len(inside)}")
            return tuple(_value(v, one, where) for v, one in zip(value, inside, strict=True))
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
            f"{run}: holds no config.json that can be read", "a run folder of `perception train`", "--resume RUN"
        ) from None
    config = overlay(preset(), stored["config"], str(run / "config.json"))
    init, folds = stored.get("init"), stored.get("folds", 0)
    if not isinstance(init, str | None) or not isinstance(folds, int):
        raise UserError(f"{run / 'config.json'}: init is {init!r}, folds is {folds!r}", "a path or null, a number")
    return config, Path(init) if init else None, folds
