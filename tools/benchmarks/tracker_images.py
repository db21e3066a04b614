"""Detections of this project's network in the KITTI sequences with images, for tracker benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path

from perception.backends import load_model
from perception.detector import Detector
from perception.formats.images import read_image
from perception.formats.kitti import TrackingRows, read_tracking
from perception.model import default_model
from perception.types import Detections

FOLDERS = ("tracking", "tracking_640x192")
"""Of KITTI's folder; each holds training/image_02 and training/label_02."""


Recorded = dict[str, tuple[TrackingRows, list[tuple[int, Detections]]]]
"""Labels and detections by the name of the sequence."""


def find(kitti: Path, model: Path | None) -> tuple[Recorded, tuple[float, ...]]:
    """Return labels and detections of the frames with an image, and the model's confirmation thresholds.

    Args:
        kitti: folder that holds `FOLDERS`.
        model: ONNX file (default: the shipped model).
    """
    network = load_model(model or default_model(None), "cpu", 1)
    detect = Detector(network, network.spec.track_threshold)
    found: Recorded = {}
    for folder in FOLDERS:
        for images in sorted((kitti / folder / "training" / "image_02").glob("*")):
            frames = []
            for path in sorted(p for p in images.iterdir() if p.stem.isdecimal()):
                detections, _ = detect(read_image(path))
                frames.append((int(path.stem), detections))
            labels = kitti / folder / "training" / "label_02" / f"{images.name}.txt"
            found[images.name] = (read_tracking(labels), frames)
            print(f"{images.name}: {len(frames)} images", file=sys.stderr)
    return found, network.spec.confirm_thresholds
