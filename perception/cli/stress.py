"""`perception stress`: how much a network loses under noise, weather, dirt, night and broken video."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.progress import Progress, duration

if TYPE_CHECKING:
    from perception.detector import Detector
    from perception.trust.stress import StressFrames

EVERYDAY = (
    "data", "model", "split", "road_split", "sequence", "frames", "kinds", "severities", "budget", "out", "json",
)  # fmt: skip


@dataclass(frozen=True)
class StressOptions(CommandOptions):
    """Score a model under 27 disturbances at 5 severities: official AP, road MaxF, HOTA, and whether it is noticed.

    The default takes under two minutes on two cores and covers the most telling cells. The same command again goes on
    where it stopped. --frames 0 --budget 0 is thorough: about 40 minutes for KITTI's 27 sample frames.
    """

    data: Path | None = None
    """KITTI's root, or a folder that holds object, road and tracking."""
    model: Path | None = None
    """Model file, or the bare name of a shipped one. Default: the shipped one that fits best."""
    split: Path | None = None
    """Object frames: a file with names, or a name in ImageSets, such as val."""
    road_split: Path | None = None
    """File with road ground truths, such as um_road_000012, one on a line."""
    sequence: str = ""
    """Tracking sequence to score as well, such as 0000."""
    frames: int = 12
    """Object frames, half as many road frames, four times as many of the sequence; 0 takes all."""
    kinds: tuple[str, ...] = ()
    """Disturbances. Default: all that can run."""
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Severities, 1 to 5."""
    budget_s: float = 90.0
    """Begin no new cell after this many seconds; 0 for no limit."""
    seed: int = 0
    """Random seed of the disturbances."""
    out: Path = Path("runs/stress")
    """Folder of finished cells and the report. A folder with cells of the same call is continued."""
    page: bool = True
    """Write the report's page with curves and images (extra 'report')."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """What runs the network."""
    threads: int = 0
    """CPU threads for the network, 0 for one a core."""
    json: bool = False
    """Print everything as JSON."""


def main(argv: list[str]) -> int:
    """Run the cells that the budget allows, and report all that are finished."""
    options = parse_options(StressOptions, argv, "perception stress", everyday=EVERYDAY, names={"budget_s": "budget"})
    kinds = _check(options)
    from perception.backends import load_model
    from perception.detector import Detector
    from perception.files import make_folder
    from perception.formats.images import read_image
    from perception.lock import alone_in
    from perception.model import default_model
    from perception.trust.stress_frames import choose_frames

    assert options.data is not None
    frames, notes = choose_frames(options.data, options.split, options.road_split, options.sequence, options.frames)
    first = next(image for _, image, _ in (*frames.objects, *frames.roads))
    model_path = options.model or default_model(read_image(first).shape[:2])
    detector = Detector(load_model(model_path, options.device, options.threads), 0.01)
    made = make_folder(options.out)
    with alone_in(options.out, "writing", made):
        _claim(options, model_path, frames)
        left = _run(options, kinds, detector, frames)
        return _tell(options, detector, frames, notes, left)


def _check(options: StressOptions) -> list[str]:
    """Refuse what cannot be meant; returns the disturbances."""
    if options.data is None:
        raise UserError("no --data", "KITTI's root, with the images", "perception stress --data KITTI")
    if options.page:
        from perception.reports.write import require_page_packages

        require_page_packages()
    from perception.trust.corruptions import CORRUPTIONS, GENERIC, SEVERITIES, require_generic

    for kind in options.kinds:
        if kind not in CORRUPTIONS:
            raise UserError(f"unknown disturbance '{kind}'", "one of " + ", ".join(CORRUPTIONS), "--kinds fog drops")
    if not options.severities or not set(options.severities) <= set(SEVERITIES):
        raise UserError(f"--severities {' '.join(map(str, options.severities))}", "1 to 5", "--severities 1 3 5")
    if not 0 <= options.frames <= 100_000:
        raise UserError(f"--frames {options.frames}", "0 for all, or a number of frames", "--frames 12")
    if not 0 <= options.budget_s < math.inf:
        raise UserError(f"--budget {options.budget_s:g}", "seconds, 0 for no limit", "--budget 90")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {options.seed}", "a number from 0", "--seed 0")
    kinds = list(dict.fromkeys(options.kinds or CORRUPTIONS))
    if GENERIC & set(kinds):
        require_generic()
    return kinds


def _claim(options: StressOptions, model_path: Path, frames: StressFrames) -> None:
    """Write what this run is, or refuse a folder with cells of another one: they would be mixed."""
    from perception.files import read_json, write_atomically
    from perception.model import shipped_or
    from perception.provenance import data_hash, record

    identity: dict[str, Any] = {
        "model": data_hash(shipped_or(model_path)),
        "objects": [name for name, _, _ in frames.objects],
        "roads": [name for name, _, _ in frames.roads],
        "sequence": [options.sequence, list(frames.sequence)],
        "seed": options.seed,
    }
    path = options.out / "run.json"
    if path.exists():
        values = read_json(path, "the record of a run of perception stress", "--out ANOTHER")
        if not isinstance(values, dict) or values.get("identity") != identity:
            raise UserError(
                f"{options.out}: holds a run with another model, other frames or another seed",
                "the same call, which is continued",
                "--out ANOTHER",
            )
        return
    made = record("perception stress", options, identity=identity)
    write_atomically(path, json.dumps(made, indent=1, default=str) + "\n")


def _run(options: StressOptions, kinds: list[str], detector: Detector, frames: StressFrames) -> int:
    """Run cells in order until the budget is spent; returns how many are left."""
    from perception.trust.stress import cells_in_order, load_cells, run_cell, save_cell

    folder, start = options.out / "cells", time.monotonic()
    wanted = cells_in_order(kinds, options.severities)
    done = load_cells(folder)
    todo = [key for key in wanted if key not in done]
    with Progress("cells", total=len(wanted), done=len(wanted) - len(todo)) as progress:
        for i, (kind, severity) in enumerate(todo):
            if options.budget_s and i and time.monotonic() - start > options.budget_s:
                return len(todo) - i
            save_cell(folder, run_cell(detector, frames, kind, severity, options.seed))
            progress.update(len(wanted) - len(todo) + i + 1, note=f", {kind} {severity}")
    return 0


def _tell(options: StressOptions, detector: Detector, frames: StressFrames, notes: list[str], left: int) -> int:
    """Print the table and write the page."""
    from perception.trust.stress import load_cells

    cells = list(load_cells(options.out / "cells").values())
    if left:
        each = sum(cell.seconds for cell in cells) / len(cells)
        notes = [*notes, f"{left} cells are left (about {duration(each * left)}): run the same command again"]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    from perception.reports.stress import stress_report, stress_text
    from perception.reports.write import render_json, write_report

    report = stress_report(cells, detector if options.page else None, frames, tuple(notes), options.seed)
    if options.page:
        print(f"report: {write_report(report, options.out / 'report')}", file=sys.stderr)
    print(render_json(report) if options.json else stress_text(cells))
    return 0
