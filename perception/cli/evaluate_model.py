"""`perception evaluate --model`: choose the frames, load the model, write the results that are then evaluated."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perception.arrays import I64
from perception.backends import load_model
from perception.detector import Detector, Finder
from perception.errors import UserError
from perception.evaluation.folders import LAYOUT, find_images, find_labels, find_split, read_names, stems
from perception.evaluation.predictions import (
    find_all_images,
    find_sequences,
    predict_objects,
    predict_roads,
    predict_tracks,
)
from perception.evaluation.road_folders import find_road_calibrations
from perception.files import write_atomically
from perception.provenance import record

if TYPE_CHECKING:
    from perception.cli.evaluate_options import ObjectOptions, RoadOptions, SharedOptions, TrackingOptions


def run_objects(options: ObjectOptions, gt: Path, out: Path) -> Path:
    """Detect objects in every frame that is evaluated; returns the folder of result files."""
    labels = find_labels(gt, "object")
    if options.split is None:
        names = stems(labels, ".txt")
    else:
        names = list(read_names(find_split(options.split, gt, labels)))
    folder_of_images = _image_folder(options, "object")
    images = find_all_images(folder_of_images, names)
    detector = _load_detector(options, options.minimum_score)
    folder = _start(options, detector, out, labels)
    predict_objects(detector, images, folder, options.calib or folder_of_images.parent / "calib")
    return folder


def run_roads(options: RoadOptions, gt: Path, out: Path) -> Path:
    """Segment the road in every image that is evaluated; returns the folder of confidence maps."""
    labels = find_labels(gt, "road")
    names = stems(labels, ".png") if options.split is None else read_names(options.split)
    names = [name for name in names if "_lane_" not in name]  # the network finds the road, not the ego-lane
    if options.space == "bev":  # a missing calibration is reported before the network runs
        find_road_calibrations(labels, options.calib, names)
    image_names = {name: name.replace("_road_", "_") for name in names}
    paths = dict(find_all_images(_image_folder(options, "road"), list(image_names.values())))
    detector = _load_detector(options, 1.0)
    folder = _start(options, detector, out, labels)
    predict_roads(detector, [(name, paths[image_names[name]]) for name in names], folder)
    return folder


def run_tracks(options: TrackingOptions, gt: Path, out: Path) -> tuple[Path, dict[str, I64]]:
    """Detect and track in every sequence that has images.

    Returns:
        The folder of result files, and the frames with images of each sequence.
    """
    labels = find_labels(gt, "tracking")
    sequences = find_sequences(_image_folder(options, "tracking"), labels)
    detector = _load_detector(options)
    folder = _start(options, detector, out, labels)
    predict_tracks(detector, options.tracker, sequences, folder)
    return folder, {name: np.array(list(images), np.int64) for name, images in sequences.items()}


def _image_folder(options: SharedOptions, task: str) -> Path:
    assert options.data is not None
    folder = find_images(options.data, task)
    if folder is None:
        wanted = f"training/{LAYOUT[task][3]}"
        raise UserError(f"{options.data}: no {wanted}", "KITTI's root, with the images", "--data ROOT")
    return folder


def _load_detector(options: SharedOptions, minimum_score: float | None = None) -> Finder:
    """Load the model files; without a score, keep the detections that a tracker uses."""
    assert options.model is not None
    paths = (options.model, *options.ensemble)
    models = [load_model(path, options.device, options.threads, precision=options.precision) for path in paths]
    least = models[0].spec.track_threshold if minimum_score is None else minimum_score
    detectors = [Detector(model, least) for model in models]
    if not (options.ensemble or options.flip or options.scales):
        return detectors[0]
    from perception.trust.ensemble import Ensemble, make_views

    return Ensemble(detectors, make_views(options.flip, options.scales))


def _start(options: SharedOptions, detector: Finder, out: Path, labels: Path) -> Path:
    """Make the folder for results, and beside it `run.json`, which says how they were made."""
    folder = out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    assert options.model is not None
    made = record(
        "perception evaluate",
        options,
        (options.model, *options.ensemble, labels),
        provider=detector.provider,
        model=asdict(detector.spec),
    )
    write_atomically(out / "run.json", json.dumps(made, indent=1, default=str) + "\n")
    return folder
