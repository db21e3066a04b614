"""Run a detector, and a tracker, over a data set and write what they find in KITTI's formats, for evaluation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from perception.arrays import F64, U8
from perception.cameras.cuboids import ALPHA, HEIGHT, LENGTH, WIDTH, cuboids_to_boxes
from perception.cameras.pinhole import PinholeCamera
from perception.detector import Finder
from perception.errors import UserError
from perception.evaluation.folders import first_ten, stems
from perception.files import data_files, write_atomically
from perception.formats.images import SUFFIXES, find_image, read_image
from perception.formats.kitti import ObjectRows, TrackingRows, format_objects, format_tracking, read_calibration
from perception.progress import Progress
from perception.sinks.kitti import seen_tracks, tracking_rows
from perception.trackers import tracker_for_model
from perception.types import Detections

log = logging.getLogger("perception.evaluation.predictions")
FRAME_NS = 100_000_000
"""KITTI's cameras record ten frames per second."""


def find_all_images(folder: Path, names: Sequence[str]) -> list[tuple[str, Path]]:
    """Find the image of each name.

    Raises:
        UserError: some are missing.
    """
    found = [(name, path) for name in names if (path := find_image(folder, name))]
    if len(found) < len(names):
        missing = sorted(set(names) - {name for name, _ in found})
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} images missing: {first_ten(missing)}",
            "an image for each frame that is evaluated",
            "--split FILE with the frames that are there",
        )
    return found


def find_sequences(images: Path, labels: Path) -> dict[str, dict[int, Path]]:
    """Find the images of each labelled sequence, by frame; sequences without images are left out.

    Raises:
        UserError: no sequence has images.
    """
    sequences = {}
    for name in stems(labels, ".txt"):
        found = {int(p.stem): p for p in data_files(images / name, SUFFIXES) if p.stem.isdecimal()}
        if found:
            sequences[name] = dict(sorted(found.items()))
    if not sequences:
        raise UserError(
            f"{images}: no sequence of {labels} has images",
            "folders such as 0000/ of images",
            "--data ROOT with training/image_02",
        )
    return sequences


def predict_objects(
    detector: Finder, images: Sequence[tuple[str, Path]], out: Path, calibrations: Path | None = None
) -> None:
    """Write one KITTI result file an image, `<name>.txt`.

    Args:
        detector: the network.
        images: names and paths.
        out: folder of the files.
        calibrations: folder of the images' calibrations, `<name>.txt`, which place 3-D boxes. Images without one get
            the observation angle and the size alone, and a warning counts them.
    """
    flat: list[str] = []
    for name, image in _read_all(images, "detecting"):
        detections, _ = detector(image)
        path = calibrations / f"{name}.txt" if calibrations is not None else None
        camera = None
        if detections.cuboids is not None and path is not None and path.is_file():
            camera = PinholeCamera(read_calibration(path)["P2"])
        elif detections.cuboids is not None:
            flat.append(name)
        rows = detection_rows(detections, detector.spec.result_names, camera)
        write_atomically(out / f"{name}.txt", format_objects(rows))
    if flat:
        log.warning(
            "%d of %d images have no calibration in %s, so their 3-D boxes have no place: %s",
            len(flat),
            len(images),
            calibrations or "training/calib",
            first_ten(flat),
        )


def object_rows(detections: Detections, class_names: Sequence[str], camera: PinholeCamera | None) -> ObjectRows:
    """Return detections as KITTI result rows, with all that is known of 3-D boxes.

    The observation angle and the size come from the image alone. The place and the heading need a calibration and the
    network's distances.
    """
    columns: dict[str, F64] = {}
    if detections.cuboids is not None:
        cuboids = detections.cuboids.astype(np.float64)
        columns |= {"alpha": cuboids[:, ALPHA], "dimensions_hwl": cuboids[:, (HEIGHT, WIDTH, LENGTH)]}
        if camera is not None and detections.depths is not None:
            boxes = cuboids_to_boxes(detections.cuboids, detections.depths, camera)
            columns |= {"location_cam2": boxes[:, :3], "rotation_y": boxes[:, 6]}
    return ObjectRows.from_boxes(
        [class_names[i] for i in detections.class_ids], detections.boxes_xyxy, detections.scores, **columns
    )


def detection_rows(
    detections: Detections, class_names: Sequence[str], camera: PinholeCamera | None = None
) -> ObjectRows:
    """Return `object_rows` as they are written: pixels and metres to three digits, angles to four, scores to six."""
    rows = object_rows(detections, class_names, camera)
    assert rows.scores is not None
    return replace(
        rows,
        boxes_xyxy=np.round(rows.boxes_xyxy, 3),
        scores=np.round(rows.scores, 6),
        alpha=np.round(rows.alpha, 4),
        dimensions_hwl=np.round(rows.dimensions_hwl, 3),
        location_cam2=np.round(rows.location_cam2, 3),
        rotation_y=np.round(rows.rotation_y, 4),
    )


def predict_roads(detector: Finder, images: Sequence[tuple[str, Path]], out: Path) -> None:
    """Write one confidence map an image, `<name>.png`, at the image's size.

    Raises:
        UserError: the network has no road output.
    """
    for name, image in _read_all(images, "segmenting"):
        _, road = detector(image)
        if road is None:
            raise UserError(
                f"{detector.spec.name or 'model'}: the network has no road output",
                "a model that segments the road",
                "--model M.onnx of a network with a road head",
            )
        write_atomically(out / f"{name}.png", cv2.imencode(".png", road.at_frame_size())[1].tobytes())


def predict_tracks(detector: Finder, tracker: str, sequences: Mapping[str, Mapping[int, Path]], out: Path) -> None:
    """Write one KITTI tracking file a sequence, `<name>.txt`. Each sequence starts a new tracker."""
    names = detector.spec.result_names
    for name, images in sequences.items():
        own = tracker_for_model(tracker, detector.spec.confirm_thresholds)
        rows: list[TrackingRows] = []
        frames = [(str(frame), path) for frame, path in images.items()]
        for frame, image in _read_all(frames, f"tracking {name}"):
            detections, _ = detector(image)
            tracks = own.update(detections, int(frame) * FRAME_NS, image)
            rows.append(tracking_rows(int(frame), seen_tracks(tracks), names))
        write_atomically(out / f"{name}.txt", "".join(map(format_tracking, rows)))


def _read_all(images: Sequence[tuple[str, Path]], what: str) -> Iterator[tuple[str, U8]]:
    with Progress(what) as progress:
        for i, (name, path) in enumerate(images):
            yield name, read_image(path)
            progress.update(i + 1, len(images))
