"""`perception pretrain`: train a backbone on frames without labels."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from perception.cli.options import FLAT, CommandOptions, differences, overlay, parse_options
from perception.errors import UserError
from perception.files import make_folder, read_json
from perception.formats.images import SUFFIXES
from perception.lock import alone_in
from perception.provenance import commit
from training.cli import sigterm_is_ctrl_c
from training.config import DataConfig
from training.loop import writes_to
from training.pretrain import PretrainConfig, make_loss, pretrain
from training.results import write_json
from training.sets import find_sets

EVERYDAY = (
    "frames", "data-root", "out", "resume", "backbone", "weights", "steps", "batch", "seed", "device", "threads",
    "workers",
)  # fmt: skip
MACHINE = ("frames", "data_root", "device", "threads", "workers", "checkpoint_every")
"""Fields that a resumed run may change. Frames may have moved, and must be as many."""


@dataclass(frozen=True)
class PretrainOptions(CommandOptions):
    """Train a backbone on frames without labels. `perception train --model.backbone-weights OUT/backbone.pt` starts
    from it. Take frames from videos with `perception data frames`."""

    frames: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = ()
    """Folders of images, searched with all folders below."""
    data_root: Path | None = None
    """Dataset root: also use the training images of its data sets, without their labels. Held-out images are not
    used."""
    out: Path = Path("runs/pretrain")
    """Run directory."""
    resume: Path | None = None
    """Run directory to continue. Only options that describe the machine may change."""
    training: Annotated[PretrainConfig, FLAT] = field(default_factory=PretrainConfig)


def main(argv: list[str]) -> int:
    """Train, and print the next command."""
    options = parse_options(
        PretrainOptions, list(argv), "perception pretrain", everyday=EVERYDAY, begin=_begin, early=("resume",)
    )
    config, run = options.training, options.out
    make_loss(config)  # a missing package is reported before anything is read
    if options.resume is not None:
        _check_resumed(options)
    elif (run / "config.json").exists():
        raise UserError(
            f"{run}: already holds a run", "an empty folder", f"perception pretrain --resume {run}, or --out ANOTHER"
        )
    frames = find_frames(options)
    print(f"{len(frames)} frames", file=sys.stderr)
    try:
        with sigterm_is_ctrl_c(), writes_to(run):
            made = make_folder(run)
            with alone_in(run, "training", made) if made or run.is_dir() else nullcontext():
                _check_count(run, len(frames))
                stored = {"options": _stored(options), "frames": len(frames), "commit": commit()}
                write_json(run / "config.json", stored)
                weights = pretrain(config, frames, run)
    except KeyboardInterrupt:
        print(f"continue with: perception pretrain --resume {run}", file=sys.stderr)
        raise
    print(f"done: {weights}")
    print(f"next: perception train --model.backbone {config.backbone} --model.backbone-weights {weights}")
    print(f"curves: {run / 'curves.png'}", file=sys.stderr)
    return 0


def find_frames(options: PretrainOptions) -> list[Path]:
    """Return the image files of the folders and of the data sets, sorted, each once.

    Raises:
        UserError: a folder is missing, or there are fewer than two images.
    """
    found: set[Path] = set()
    for folder in options.frames:
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder", "a folder of images", "perception data frames VIDEO --out FOLDER"
            )
        found |= {p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")}
    if options.data_root is not None:
        sets = find_sets(DataConfig(root=options.data_root))
        found |= {subset.source.files(i)[0] for subset in sets.train for i in subset.indices}
    if len(found) < 2:
        raise UserError(f"{len(found)} images", "at least two", "perception pretrain FOLDER, or --data-root ROOT")
    return sorted(found)


def _begin(given: dict[str, Any]) -> PretrainOptions:
    """Return the defaults, or the options of a resumed run."""
    if given["resume"] is None:
        return PretrainOptions()
    run = Path(given["resume"])
    expected = "config.json of a perception pretrain run"
    stored = read_json(run / "config.json", expected, "--resume RUN")
    if not isinstance(stored, dict) or not isinstance(stored.get("options"), dict):
        raise UserError(f"{run}: holds no run of perception pretrain", expected, "--resume RUN")
    began = overlay(PretrainOptions(), stored["options"], str(run / "config.json"))
    return replace(began, out=run, resume=run)


def _check_resumed(options: PretrainOptions) -> None:
    """Raise `UserError` where a run is resumed with other options."""
    began = _begin({"resume": options.resume})
    other = [name for name in differences(replace(began, config=options.config), options) if name not in MACHINE]
    if other:
        raise UserError(
            f"--resume {options.resume} with another {', '.join(other)}",
            f"the options of its start; only {', '.join(MACHINE)} may change",
            "a new run with --weights RUN/backbone.pt",
        )


def _check_count(run: Path, count: int) -> None:
    """Raise `UserError` where a resumed run finds another number of frames, and so would see other images."""
    if not (run / "config.json").exists():
        return
    before = read_json(run / "config.json", "config.json of a run", "--resume RUN").get("frames")
    if before != count:
        raise UserError(f"{count} frames", f"{before}, as at the start of the run", "the same folders, or a new run")


def _stored(options: PretrainOptions) -> dict[str, Any]:
    """Return the options as they are read back: the flat config among the others, without what names this call."""
    values = dataclasses.asdict(replace(options, config=None, resume=None))
    values |= values.pop("training")
    return {
        name: [str(v) for v in value] if name == "frames" else str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if value is not None
    }
