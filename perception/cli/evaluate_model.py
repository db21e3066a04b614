"""Run a network, and a tracker, over a data set and keep the results in KITTI's format; then they can be scored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from perception.backends import load_model
from perception.detector import Detector
from perception.errors import UserError
from perception.evaluation.folders import LAYOUT, find_images, find_labels, find_split, first_ten, read_names
from perception.evaluation.road_folders import find_road_calibrations
from perception.files import write_atomically
from perception.formats.kitti import ObjectRows, TrackingRows, format_objects, format_tracking
from perception.progress import Progress
from perception.provenance import record
from perception.types import I64, U8

if TYPE_CHECKING:
    from perception.cli.evaluate_options import ObjectOptions, RoadOptions, SharedOptions, TrackingOptions

PICTURES = (".png", ".jpg", ".jpeg")
FRAME_NS = 100_000_000
"""KITTI's cameras take ten pictures a second."""


def _detector(options: SharedOptions, minimum_score: float | None = None) -> Detector:
    """Load the model file; without a score, the lowest one that a tracker uses."""
    assert options.model is not None
    model = load_model(options.model, options.device, options.threads)
    return Detector(model, model.spec.track_threshold if minimum_score is None else minimum_score)


def _picture(folder: Path, stem: str) -> Path | None:
    return next((path for suffix in PICTURES if (path := folder / (stem + suffix)).is_file()), None)


def _read(path: Path) -> U8:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path}: cannot be decoded as a picture", "a PNG or JPEG file", "perception data check")
    return np.asarray(image, np.uint8)


def _image_folder(options: SharedOptions, task: str) -> Path:
    assert options.data is not None
    folder = find_images(options.data, task)
    if folder is None:
        wanted = f"training/{LAYOUT[task][3]}"
        raise UserError(f"{options.data}: no {wanted}", "KITTI's root, with the pictures", "--data ROOT")
    return folder


def _pictures(folder: Path, names: list[str]) -> list[tuple[str, Path]]:
    found = [(name, path) for name in names if (path := _picture(folder, name))]
    if len(found) < len(names):
        missing = sorted(set(names) - {name for name, _ in found})
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} pictures missing: {first_ten(missing)}",
            "a picture for each frame that is scored",
            "--split FILE with the frames that are there",
        )
    return found


def _start(options: SharedOptions, detector: Detector, out: Path, labels: Path) -> Path:
    """The folder for results, with a note of how they were made beside it."""
    folder = out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    assert options.model is not None
    made = record(
        "perception evaluate",
        options,
        (options.model, labels),
        provider=detector.backend.provider,
        model=asdict(detector.spec),
    )
    write_atomically(out / "run.json", json.dumps(made, indent=1, default=str) + "\n")
    return folder


def _each(pictures: list[tuple[str, Path]], what: str) -> Iterator[tuple[str, U8]]:
    with Progress(what) as progress:
        for i, (name, path) in enumerate(pictures):
            yield name, _read(path)
            progress.update(i + 1, len(pictures))


def run_objects(options: ObjectOptions, gt: Path, out: Path) -> Path:
    """Detect objects in every frame that will be scored; returns the folder of result files."""
    labels = find_labels(gt, "object")
    if options.split is None:
        names = sorted(path.stem for path in labels.glob("*.txt"))
    else:
        names = list(read_names(find_split(options.split, gt, labels)))
    pictures = _pictures(_image_folder(options, "object"), names)
    detector = _detector(options, options.minimum_score)
    folder = _start(options, detector, out, labels)
    for name, image in _each(pictures, "detecting"):
        detections, _ = detector(image)
        rows = ObjectRows.from_boxes(
            [detector.spec.class_names[i] for i in detections.class_ids],
            np.round(detections.boxes_xyxy.astype(np.float64), 3),
            np.round(detections.scores.astype(np.float64), 6),
        )
        write_atomically(folder / f"{name}.txt", format_objects(rows))
    return folder


def run_roads(options: RoadOptions, gt: Path, out: Path) -> Path:
    """Find the road in every picture that will be scored; returns the folder of confidence maps."""
    truths = find_labels(gt, "road")
    names = (
        [path.stem for path in sorted(truths.glob("*.png"))] if options.split is None else read_names(options.split)
    )
    names = [name for name in names if "_lane_" not in name]  # the network finds the road, not the ego-lane
    if options.space == "bev":  # better said before the network has run
        find_road_calibrations(truths, options.calib, names)
    camera_names = {name: name.replace("_road_", "_") for name in names}
    paths = dict(_pictures(_image_folder(options, "road"), list(camera_names.values())))
    detector = _detector(options, 1.0)
    folder = _start(options, detector, out, truths)
    for name, image in _each([(name, paths[camera_names[name]]) for name in names], "segmenting"):
        _, road = detector(image)
        if road is None:
            raise UserError(
                f"{options.model}: the network has no road output",
                "a model that segments the road",
                "--model M.onnx of a network with a road head",
            )
        write_atomically(folder / f"{name}.png", cv2.imencode(".png", road.at_frame_size())[1].tobytes())
    return folder


def run_tracks(options: TrackingOptions, gt: Path, out: Path) -> tuple[Path, dict[str, I64]]:
    """Detect and track in every sequence that has pictures.

    Returns:
        The folder of result files, and the frames with pictures of each sequence.
    """
    from perception.sinks.kitti import seen_tracks, tracking_rows
    from perception.trackers import tracker_for_model

    labels = find_labels(gt, "tracking")
    images = _image_folder(options, "tracking")
    sequences = {}
    for name in sorted(path.stem for path in labels.glob("*.txt")):
        found = {int(p.stem): p for p in (images / name).glob("*") if p.suffix in PICTURES and p.stem.isdecimal()}
        if found:
            sequences[name] = dict(sorted(found.items()))
    if not sequences:
        raise UserError(
            f"{images}: no sequence of {labels} has pictures",
            "folders such as 0000/ of pictures",
            "--data ROOT with training/image_02",
        )
    detector = _detector(options)
    folder = _start(options, detector, out, labels)
    frames = {}
    for name, found in sequences.items():
        tracker = tracker_for_model(options.tracker, detector.spec.confirm_thresholds)
        rows: list[TrackingRows] = []
        for stem, image in _each([(str(frame), path) for frame, path in found.items()], f"tracking {name}"):
            detections, _ = detector(image)
            tracks = tracker.update(detections, int(stem) * FRAME_NS, image)
            rows.append(tracking_rows(int(stem), seen_tracks(tracks), detector.spec.class_names))
        write_atomically(folder / f"{name}.txt", "".join(map(format_tracking, rows)))
        frames[name] = np.array(list(found), np.int64)
    return folder, frames
