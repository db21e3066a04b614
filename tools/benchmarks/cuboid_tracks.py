"""What filtering makes of a network's headings and sizes: single frames against tracks, on KITTI's tracking images.

    python -m tools.benchmarks.cuboid_tracks MODEL --root KITTI_TRACKING --sequences 0005

A label counts where a detection and a track of its class both overlap it by half. The filter's constants are those
of `perception.ranging.shape.ShapeConfig`; `--set persistent_share=0.3` tries another.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from perception.arrays import F64
from perception.backends import load_model
from perception.boxes import iou
from perception.cameras.cuboids import cuboids_to_boxes
from perception.cameras.pinhole import PinholeCamera
from perception.detector import Detector
from perception.errors import UserError
from perception.evaluation.box_errors import heading_error_deg
from perception.formats.images import read_image
from perception.formats.kitti import TrackingRows, read_calibration, read_tracking
from perception.ranging.config import RangingConfig
from perception.ranging.network import network_of_tracks
from perception.ranging.ranger import Ranger
from perception.ranging.shape import ShapeConfig
from perception.trackers import tracker_for_model
from perception.types import Detections, Tracks

STEP_NS = 100_000_000
COLUMNS = ("single", "track", "track_std_deg", "size_single", "size_track", "seen")
"""Heading error of the single frame and of the track, degrees; its standard deviation; mean size errors, metres; how
many frames the track has been followed."""


@dataclass(frozen=True)
class Options:
    """Compare single frames with tracks."""

    model: Annotated[Path, tyro.conf.Positional]
    """Model file with the outputs `distances` and `cuboids`."""
    root: Path = Path("../shared/data/kitti/tracking/training")
    """KITTI's tracking folder, with image_02, label_02 and calib."""
    sequences: tuple[str, ...] = ("0005",)
    """Names of sequences; 0005 is of a drive that the shipped networks were not trained on."""
    classes: tuple[str, ...] = ("Car", "Pedestrian")
    """Classes to measure."""
    set: tuple[str, ...] = field(default=())
    """NAME=VALUE of fields of `ShapeConfig`."""
    threads: int = 1
    """CPU threads of the network."""


def measure(options: Options, sequence: str, config: RangingConfig) -> dict[str, list[tuple[float, ...]]]:
    """Return a row of `COLUMNS` for every labelled object that was found, by class."""
    backend, spec = load_model(options.model, "cpu", options.threads)
    detector = Detector((backend, spec), 0.1)
    labels = read_tracking(options.root / "label_02" / f"{sequence}.txt")
    camera = PinholeCamera(read_calibration(options.root / "calib" / f"{sequence}.txt")["P2"])
    tracker = tracker_for_model("drivetrack", spec.confirm_thresholds)
    ranger = Ranger(camera, spec.class_names, config)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in options.classes}
    for path in sorted((options.root / "image_02" / sequence).iterdir()):
        image, stamp = read_image(path), int(path.stem) * STEP_NS
        detections, _ = detector(image)
        if detections.cuboids is None:
            raise UserError(f"{options.model}: no output 'cuboids'", "a network with 3-D boxes")
        tracks = tracker.update(detections, stamp)
        tracks = ranger.update(tracks, stamp, image.shape[:2], *network_of_tracks(tracks, detections))
        mine = labels[np.flatnonzero(labels.frame_ids == int(path.stem))]
        for name in options.classes:
            class_id = spec.class_names.index(name)
            found[name] += _rows(mine, name, detections, tracks, class_id, camera)
    return found


def _rows(
    labels: TrackingRows, name: str, detections: Detections, tracks: Tracks, class_id: int, camera: PinholeCamera
) -> list[tuple[float, ...]]:
    rows: list[tuple[float, ...]] = []
    theirs, followed = detections[detections.class_ids == class_id], tracks[tracks.class_ids == class_id]
    if not len(theirs) or not len(followed) or followed.heading_rad is None:
        return rows
    assert theirs.cuboids is not None and theirs.depths is not None
    assert followed.heading_std_rad is not None and followed.size_m is not None
    boxes = cuboids_to_boxes(theirs.cuboids, theirs.depths, camera)
    objects = labels.objects
    for i in (i for i, label in enumerate(objects.names) if label == name):
        box = objects.boxes_xyxy[i : i + 1]
        one, two = iou(box, theirs.boxes_xyxy)[0], iou(box, followed.boxes_xyxy)[0]
        j, k = int(one.argmax()), int(two.argmax())
        if one[j] < 0.5 or two[k] < 0.5 or not np.isfinite(followed.heading_rad[k]):
            continue
        truth, size = objects.rotation_y[i], objects.dimensions_hwl[i]
        rows.append(
            (
                float(heading_error_deg(boxes[j, 6], truth)),
                float(heading_error_deg(followed.heading_rad[k], truth)),
                float(np.degrees(followed.heading_std_rad[k])),
                float(np.abs(boxes[j, (4, 5, 3)] - size).mean()),
                float(np.abs(followed.size_m[k, [2, 1, 0]] - size).mean()),
                float(followed.ages[k]),
            )
        )
    return rows


def summary(rows: F64) -> dict[str, float]:
    """Return medians, shares within 15°, reversed headings and the share within two standard deviations."""
    single, track, std, size_single, size_track, _ = rows.T
    return {
        "objects": len(rows),
        "heading single": float(np.median(single)),
        "heading track": float(np.median(track)),
        "within 15° single": float((single <= 15).mean()),
        "within 15° track": float((track <= 15).mean()),
        "reversed single": float((single > 90).mean()),
        "reversed track": float((track > 90).mean()),
        "track within 2σ": float((track <= 2 * std).mean()),
        "size single": float(np.median(size_single)),
        "size track": float(np.median(size_track)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = tyro.cli(Options, args=argv, prog="python -m tools.benchmarks.cuboid_tracks", description=__doc__)
    logging.basicConfig(level=logging.WARNING)
    changes = {name: float(value) for name, _, value in (text.partition("=") for text in options.set)}
    try:
        config = RangingConfig(shape=replace(ShapeConfig(), **changes))
        parts = [measure(options, sequence, config) for sequence in options.sequences]
    except (UserError, ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return 2
    for name in options.classes:
        rows = np.array([row for part in parts for row in part[name]]).reshape(-1, len(COLUMNS))
        for part, title in ((rows, "all"), (rows[rows[:, -1] > 5], "from the 6th frame")):
            numbers = ", ".join(f"{key} {value:.3g}" for key, value in summary(part).items()) if len(part) else "none"
            print(f"{name}, {title}: {numbers}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
