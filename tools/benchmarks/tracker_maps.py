"""What DriveTrack learns of a detector's scores, beside the truth from labels.

    python -m tools.benchmarks.tracker_maps --kitti KITTI --detections rrc=DIR yolov3=DIR --out DIR

Writes DIR/score_maps.png: a panel for each set and class. Thin lines: what was learned in each sequence. Thick lines:
the share of detections that labels confirm, as log-odds. KITTI does not judge small and far objects: the black line
leaves such detections out, the grey one counts them as real, as most are.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.arrays import F64
from perception.boxes import intersection_over_area, iou
from perception.trackers.drivetrack import DriveTracker
from perception.types import CLASS_NAMES
from tools.benchmarks.tracker_runs import CLASSES, Recording, load_sets

DISTRACTORS = {"Car": ("van",), "Pedestrian": ("person_sitting", "cyclist")}
"""Classes that KITTI counts neither for nor against a class, lower case."""
LEAST_RESOLVED = 100
"""Resolved detections from which a sequence's map is drawn."""
BIN_SIZE = 400
"""Detections in one bin of the true map."""


@dataclass(frozen=True)
class Options:
    """What to draw."""

    kitti: Path
    """KITTI's folder, with tracking/training/label_02 and the sequence map."""
    detections: tuple[str, ...]
    """Sets as NAME=DIR, rows frame,x1,y1,x2,y2,score in folders named after classes."""
    out: Path
    """Output folder."""


def confirmed(recording: Recording, class_name: str) -> tuple[F64, np.ndarray, np.ndarray]:
    """Scores of a class's detections, whether a label confirms each, and whether KITTI judges it."""
    class_id = CLASS_NAMES.index(class_name)
    names = np.array([name.lower() for name in recording.gt.objects.names])
    all_scores, all_real, all_judged = [], [], []
    for frame_id, detections in recording.frames:
        own = detections[detections.class_ids == class_id]
        boxes, here = own.boxes_xyxy.astype(np.float64), recording.gt.frame_ids == frame_id
        labels, near, ignored = (
            recording.gt.objects.boxes_xyxy[here & np.isin(names, wanted)]
            for wanted in ((class_name.lower(),), DISTRACTORS[class_name], ("dontcare",))
        )
        overlap = iou(boxes, labels)
        real = np.zeros(len(own), bool)
        for row in np.argsort(-own.scores, kind="stable").tolist():
            if len(labels) and overlap[row].max() >= 0.5:
                column = int(overlap[row].argmax())
                overlap[:, column] = 0.0
                real[row] = True
        unjudged = (iou(boxes, near) >= 0.5).any(axis=1) | (intersection_over_area(boxes, ignored) >= 0.5).any(axis=1)
        all_scores.append(own.scores)
        all_real.append(real)
        all_judged.append(real | ~unjudged)
    return np.concatenate(all_scores).astype(np.float64), np.concatenate(all_real), np.concatenate(all_judged)


def true_map(scores: F64, real: np.ndarray) -> tuple[F64, F64]:
    """Mean score and log-odds of being real, in bins of equal size."""
    order = np.argsort(scores, kind="stable")
    bins = np.array_split(order, max(1, len(order) // BIN_SIZE))
    share = np.array([(real[part].sum() + 0.5) / (len(part) + 1) for part in bins])
    return np.array([scores[part].mean() for part in bins]), np.log(share / (1 - share))


def main(argv: list[str]) -> int:
    """Draw all sets."""
    import matplotlib
    import tyro

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    options = tyro.cli(Options, args=argv, prog="python -m tools.benchmarks.tracker_maps")
    sets = load_sets(options.kitti, options.detections)
    panels = [
        (name, class_name, recordings)
        for name, recordings in sets.items()
        for class_name in CLASSES
        if any((d.class_ids == CLASS_NAMES.index(class_name)).any() for r in recordings for _, d in r.frames)
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.6), squeeze=False, sharey=True)
    for axis, (name, class_name, recordings) in zip(axes[0], panels, strict=True):
        for recording in recordings:
            tracker = DriveTracker()
            for frame_id, detections in recording.frames:
                tracker.update(detections, round(frame_id * 1e9 / recording.fps))
            calibration = tracker.calibrations[CLASS_NAMES.index(class_name)]
            if calibration.resolved >= LEAST_RESOLVED:
                axis.plot(*calibration.map(), color="tab:blue", alpha=0.35, linewidth=1)
        parts = [confirmed(recording, class_name) for recording in recordings]
        scores, real, judged = (np.concatenate(column) for column in zip(*parts, strict=True))
        axis.plot(*true_map(scores, real | ~judged), color="gray", linewidth=2)
        axis.plot(*true_map(scores[judged], real[judged]), color="black", linewidth=2)
        axis.axhline(0, color="gray", linewidth=0.8)
        axis.set(title=f"{name}, {class_name}", xlabel="score", xlim=(0, 1), ylim=(-5.2, 5.2))
    axes[0][0].set_ylabel("log-odds: learned (blue), true (black, grey)")
    figure.tight_layout()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "score_maps.png", dpi=110)
    print(options.out / "score_maps.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
