"""Plot distance, closing speed and time to collision of a few KITTI cars over time, with their labels.

`python -m tools.benchmarks.plot_ranging` draws docs/images/ranging.png (needs the extra `report`).
"""

from __future__ import annotations

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.arrays import F64
from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.ranging.ranger import Ranger
from perception.types import CLASS_NAMES
from tools.benchmarks.ranging_kitti import STEP_NS, Sequence3D, load_sequence, true_closing

CARS = (
    ("parked, we drive past", "0009", 20),
    ("drives ahead of us, comes near, stops", "0018", 2),
    ("drives ahead, falls back, comes near", "0008", 13),
)
"""What it does, its sequence, and its track there. The last two are from the half the parameters were chosen on."""


@dataclass(frozen=True)
class Options(CommandOptions):
    """Draw a few cars over time."""

    data: Path = Path("../shared/data")
    """Folder with kitti/tracking and kitti/tracking_detections.zip."""
    boxes: str = "detections"
    """Input boxes: truth or detections."""
    out: Path = Path("docs/images/ranging.png")
    """Output image."""


def follow(sequence: Sequence3D, boxes: str, track_id: int) -> F64:
    """(N, 6) of one object: seconds, distance, its deviation, closing speed, ttc, row of the label; NaN for null."""
    ranger, rows = Ranger(sequence.camera, CLASS_NAMES), []
    for frame, (labels, tracks) in enumerate(sequence.frames(boxes)):
        ranged = ranger.update(tracks, frame * STEP_NS, sequence.size_hw)
        for label, track in zip(labels, ranged, strict=True):
            if track.track_id != track_id + 1 or track.position_m is None or not track.distance_m:
                continue
            std = float(np.hypot(*np.multiply(track.position_m, track.position_std_m or 0))) / track.distance_m
            speed = track.velocity_mps or (np.nan, np.nan)
            closing = -float(np.dot(track.position_m, speed)) / track.distance_m
            ttc = np.nan if track.ttc_s is None else track.ttc_s
            rows.append((frame * STEP_NS * 1e-9, track.distance_m, std, closing, ttc, label))
    return np.array(rows)


def draw(axes: Any, title: str, sequence: Sequence3D, series: F64) -> None:
    """One object: distance, closing speed, time to collision; labels dashed."""
    seconds, distance, std, closing, ttc, rows = series.T
    true_m = np.hypot(*sequence.location.T)[rows.astype(np.int64)]
    true_mps = true_closing(sequence)[rows.astype(np.int64)]
    true_s = np.where(true_mps > 0.5, true_m / np.where(true_mps > 0.5, true_mps, 1), np.nan)
    axes[0].fill_between(seconds, distance - 2 * std, distance + 2 * std, color="tab:blue", alpha=0.2, linewidth=0)
    for axis, ours, truth in zip(axes, (distance, closing, ttc), (true_m, true_mps, true_s), strict=True):
        axis.plot(seconds, truth, "k--", linewidth=1)
        axis.plot(seconds, ours, color="tab:blue", linewidth=1.5)
        axis.grid(alpha=0.3)
        axis.set_xlabel("s")
    axes[0].set_title(title, loc="left")
    axes[0].set_ylabel("distance, m (band: 2σ)")
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylabel("closing speed, m/s")
    axes[2].set_ylabel("time to collision, s")
    axes[2].set_ylim(0, 12)


def main(argv: list[str]) -> int:
    """Write the plot."""
    options = parse_options(Options, argv, "python -m tools.benchmarks.plot_ranging")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    root = options.data / "kitti" / "tracking" / "training"
    archive_path = options.data / "kitti" / "tracking_detections.zip"
    if not archive_path.exists():
        raise UserError(f"{archive_path}: no such file", "the sample data", "--data FOLDER")
    figure, axes = plt.subplots(len(CARS), 3, figsize=(13, 2.7 * len(CARS)), squeeze=False)
    with zipfile.ZipFile(archive_path) as archive:
        for row, (title, name, track_id) in zip(axes, CARS, strict=True):
            sequence = load_sequence(root, name, archive)
            draw(row, title, sequence, follow(sequence, options.boxes, track_id))
    figure.tight_layout()
    figure.savefig(options.out, dpi=70)
    print(options.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
