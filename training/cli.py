"""`perception train`: train a network on labelled street images.

Several processes: `torchrun --nproc-per-node 2 -m perception.cli.main train …`.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from perception.classes import read_classes
from perception.cli.options import FLAT, CommandOptions, differences, overlay, parse_options
from perception.errors import UserError
from training.checkpoint import with_current_names
from training.config import PRESETS, TrainConfig
from training.distributed import launched, launched_rank
from training.folds import cross_validate
from training.loop import train

EVERYDAY = (
    "preset", "data.root", "out", "resume", "init", "config", "folds", "steps", "batch", "learning-rate", "seed",
    "classes", "evaluate-every", "device", "threads", "data.workers", "data.synthetic-share", "data.real",
    "model.pretrained",
)  # fmt: skip
"""Options that `perception train --help` shows."""


@dataclass(frozen=True)
class TrainOptions(CommandOptions):
    """Train a network: choose --preset, --data.root and --out, or continue a run with --resume RUN."""

    out: Path = Path("runs/nano")
    """Run directory for config, metrics, curves and checkpoints."""
    resume: Path | None = None
    """Run directory to continue. Only options that describe the machine may change."""
    init: Path | None = None
    """Checkpoint to start from. Tensors of the same shape are copied."""
    classes: Path | None = None
    """Classes in a TOML file: labels, size, colour (docs/guides/own-data.md)."""
    folds: int = 0
    """Cross-validate over this many folds, each trained in OUT/fold-i. --data.fold trains one of them."""
    training: Annotated[TrainConfig, FLAT] = field(default_factory=TrainConfig)


def main(argv: list[str]) -> int:
    """Train, evaluate, and print the next command."""
    options = train_options(argv)
    config, run = options.training, options.out
    try:
        with (
            nullcontext() if launched() else sigterm_is_ctrl_c()
        ):  # torchrun's SIGTERM is final and may arrive in C++ code
            if options.folds:
                done = cross_validate(config, run, options.folds, options.init)
            else:
                done = train(config, run, resume=options.resume is not None, init=options.init)
    except KeyboardInterrupt:
        if launched_rank() == 0 and (run / "config.json").exists():
            command = "torchrun OPTIONS -m perception.cli.main" if launched() else "perception"
            print(f"continue with: {command} train --resume {run}", file=sys.stderr)
        raise
    if launched_rank() == 0:
        print(f"done: {done}")
        if not options.folds:
            print(f"next: perception export {done}")
            print(f"curves: tensorboard --logdir {run}", file=sys.stderr)
    return 0


def train_options(argv: list[str]) -> TrainOptions:
    """Return the checked options of a run from the words after `perception train`."""
    options = parse_options(
        TrainOptions, list(argv), "perception train", everyday=EVERYDAY, begin=_begin, early=("preset", "resume")
    )
    options = _with_classes(options)
    _check(options)
    return options


def _begin(given: dict[str, Any]) -> TrainOptions:
    """Return the defaults: those of the preset, or the options of a resumed run."""
    if given["resume"] is not None:
        return _began(Path(given["resume"]))
    preset = given["preset"] or "nano"
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}'", "one of " + ", ".join(PRESETS), "--preset nano")
    return TrainOptions(out=Path("runs") / preset, training=PRESETS[preset]())


def _with_classes(options: TrainOptions) -> TrainOptions:
    """Return the options with the classes of `--classes` in the network's config, which the checkpoints keep."""
    if options.classes is None:
        return options
    classes = read_classes(options.classes)
    model = replace(options.training.model, class_names=tuple(info.name for info in classes), classes=classes)
    return replace(options, classes=None, training=replace(options.training, model=model))


def _check(options: TrainOptions) -> None:
    """Raise `UserError` for invalid options, before a folder is created."""
    if options.folds == 1 or options.folds < 0:
        raise UserError(f"--folds {options.folds}", "at least 2, or 0 for one run", "--folds 5")
    if options.folds and options.training.data.fold:
        raise UserError("--folds with --data.fold", "all folds, or one of them", f"--folds {options.folds}")
    if options.resume is not None:
        _check_resumed(options.resume, options)
    elif (options.out / "config.json").exists():
        raise UserError(
            f"{options.out}: already holds a run",
            "an empty folder",
            f"perception train --resume {options.out}, or --out ANOTHER",
        )
    data = options.training.data
    if not data.root.is_dir() and data.real and data.unlabelled is None:
        raise UserError(
            f"{data.root}: no such folder",
            "a folder with KITTI or the other data sets",
            "--data.root FOLDER, perception data fetch kitti-object --root FOLDER, or --data.no-real",
        )


@contextmanager
def sigterm_is_ctrl_c() -> Iterator[None]:
    """Handle a scheduler's SIGTERM as Ctrl-C: end the run cleanly and print the command that resumes it."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set handlers
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        # a signal to the process group also ends the loader processes, which torch's handler would report as a crash
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _began(run: Path) -> TrainOptions:
    """Return the options that a run was started with."""
    config, init, folds = stored_run(run)
    return TrainOptions(out=run, resume=run, init=init, folds=folds, training=config)


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
"""Fields that a resumed run may change, because they describe the machine."""


def _check_resumed(run: Path, now: TrainOptions) -> None:
    """Raise `UserError` where a run is resumed with other options."""
    began = _began(run)
    changed = differences(replace(began, config=now.config), now)
    if other := [name for name in changed if name not in MACHINE]:
        raise UserError(
            f"--resume {run} with another {', '.join(other)}",
            f"the options of its start; only {', '.join(MACHINE)} may change",
            f"perception train --init {run / 'last.pt'} --out ANOTHER, with the new options",
        )


def stored_run(run: Path) -> tuple[Any, Path | None, int]:
    """Read the config, initial weights and number of folds (0: none) that a run directory was started with."""
    try:
        stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
        preset = PRESETS[stored["config"]["preset"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{run}: holds no config.json that can be read", "a run directory of `perception train`", "--resume RUN"
        ) from None
    config = overlay(preset(), with_current_names(_of_today(stored["config"])), str(run / "config.json"))
    init, folds = stored.get("init"), stored.get("folds", 0)
    if not isinstance(init, str | None) or not isinstance(folds, int):
        raise UserError(f"{run / 'config.json'}: init is {init!r}, folds is {folds!r}", "a path or null, a number")
    return config, Path(init) if init else None, folds


def _of_today(config: dict[str, Any]) -> dict[str, Any]:
    """A stored config in which a fold is three numbers, as runs of 0.1.0 wrote it, with the one text of today."""
    data = config.get("data", {})
    if not isinstance(data.get("fold"), int):
        return config
    kept = {key: value for key, value in data.items() if key not in ("fold", "folds", "road_fold")}
    fold = f"{data['fold']}/{data.get('folds', 5)}" if data["fold"] >= 0 else ""
    return {**config, "data": {**kept, "fold": fold}}
