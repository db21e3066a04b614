"""KITTI's tracking sequences as ranging sees them: boxes going in, places that should come out."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from perception.arrays import F64, I64
from perception.backends import load_model
from perception.boxes import iou
from perception.cameras.pinhole import PinholeCamera
from perception.detector import Detector
from perception.errors import UserError
from perception.formats.images import read_image
from perception.formats.kitti import parse_objects, read_calibration, read_tracking
from perception.model import default_model
from perception.ranging.size_priors import SIZE_PRIORS
from perception.types import CLASS_NAMES, Track, Tracks

STEP_NS = 100_000_000
MEASURED = ("Car", "Pedestrian")
SLOPE_FRAMES = 5
"""The true closing speed is the slope of a line through the labelled distances of up to this many frames each way."""


WITH_DISTANCES = "network, its distances too"
"""The network's boxes, with the ranger told what the network says of distances."""


@dataclass(frozen=True, eq=False)
class Sequence3D:
    """One sequence: boxes going in, places that should come out."""

    name: str
    camera: PinholeCamera
    size_hw: tuple[int, int]
    frame_ids: I64
    """(N,) ascending."""
    track_ids: I64
    class_ids: I64
    location: F64
    """(N, 2) x right and z ahead."""
    boxes: dict[str, F64]
    """'truth', 'detections', 'visible', and where there are images 'network' and `WITH_DISTANCES` → (N, 4), NaN
    where not detected."""
    cut_by_others: np.ndarray
    """(N,) whose lower edge in 'visible' is the upper edge of something in front."""
    depths: dict[str, F64] = field(default_factory=dict)
    """For boxes of a network that tells distances: (N, 2) as `Detections.depths`."""

    def frames(self, boxes: str) -> list[tuple[I64, Tracks]]:
        """Rows and tracks of each frame, empty frames included."""
        rows_of = [np.flatnonzero(self.frame_ids == f) for f in range(int(self.frame_ids.max()) + 1)]
        given = self.boxes[boxes]
        usable = np.isfinite(given[:, 0])
        return [
            (
                chosen := rows[usable[rows]],
                Tracks.from_rows(
                    Track(int(self.track_ids[i]) + 1, int(self.class_ids[i]), given[i].astype(np.float32), 1.0)
                    for i in chosen
                ),
            )
            for rows in rows_of
        ]


def load_sequences(data: Path) -> list[Sequence3D]:
    """All labelled sequences.

    Raises:
        UserError: the sample data is not there.
    """
    root = data / "kitti" / "tracking" / "training"
    names = sorted(path.stem for path in (root / "label_02").glob("*.txt"))
    detections = data / "kitti" / "tracking_detections.zip"
    if not names or not detections.exists():
        raise UserError(f"{root}: no labels, or no {detections.name}", "the sample data", "--data FOLDER")
    with zipfile.ZipFile(detections) as archive:
        return [load_sequence(root, name, archive) for name in names]


def load_sequence(root: Path, name: str, archive: zipfile.ZipFile) -> Sequence3D:
    rows = read_tracking(root / "label_02" / f"{name}.txt")
    corner = rows.objects.boxes_xyxy[:, 2:].max(axis=0)  # the labels reach the last row and column of pixels
    known = [label in CLASS_NAMES for label in rows.objects.names]
    rows = rows[np.flatnonzero(known)]
    rows = rows[np.argsort(rows.frame_ids, kind="stable")]
    class_ids = np.array([CLASS_NAMES.index(label) for label in rows.objects.names], np.int64)
    found = np.full((len(rows), 4), np.nan)
    for class_name in MEASURED:
        table = _detections(archive, class_name, name)
        for frame in np.unique(rows.frame_ids):
            mine = np.flatnonzero((rows.frame_ids == frame) & (class_ids == CLASS_NAMES.index(class_name)))
            found[mine] = _matched(rows.objects.boxes_xyxy[mine], table[table[:, 0] == frame, 1:5])
    visible, cut = visible_parts(rows.frame_ids, rows.objects.boxes_xyxy)
    return Sequence3D(
        name=name,
        camera=PinholeCamera(read_calibration(root / "calib" / f"{name}.txt")["P2"]),
        size_hw=(int(np.ceil(corner[1])) + 1, int(np.ceil(corner[0])) + 1),
        frame_ids=rows.frame_ids,
        track_ids=rows.track_ids,
        class_ids=class_ids,
        location=rows.objects.location_cam2[:, [0, 2]],
        boxes={"truth": rows.objects.boxes_xyxy, "detections": found, "visible": visible},
        cut_by_others=cut,
    )


def _matched(labelled: F64, detected: F64) -> F64:
    """For each labelled box (N, 4) the detected one (M, 4) that is it, by an overlap of 0.5; else NaN."""
    result = np.full(labelled.shape, np.nan)
    for i, j in _pairs(labelled, detected):
        result[i] = detected[j]
    return result


def _pairs(labelled: F64, detected: F64) -> list[tuple[int, int]]:
    """Which labelled box (N, 4) is which detected one (M, 4), by an overlap of 0.5."""
    overlap = iou(labelled, detected)
    return [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(-overlap), strict=True) if overlap[i, j] >= 0.5]


def add_network_boxes(sequences: Sequence[Sequence3D], data: Path) -> list[Sequence3D]:
    """Those sequences that have images, with the boxes that the shipped wide network finds in them."""
    folder, result = data / "kitti" / "tracking" / "training" / "image_02", []
    detect = Detector(load_model(default_model((375, 1242)), "cpu"), minimum_score=0.3)
    for sequence in sequences:
        found, depths = np.full_like(sequence.boxes["truth"], np.nan), np.full((len(sequence.frame_ids), 2), np.nan)
        for path in sorted(folder.glob(f"{sequence.name}/*")):
            detections, _ = detect(read_image(path))
            for class_id in range(len(CLASS_NAMES)):
                mine = np.flatnonzero((sequence.frame_ids == int(path.stem)) & (sequence.class_ids == class_id))
                theirs = detections[detections.class_ids == class_id]
                labelled = sequence.boxes["truth"][mine]
                for i, j in _pairs(labelled, theirs.boxes_xyxy.astype(np.float64)):
                    found[mine[i]] = theirs.boxes_xyxy[j]
                    if theirs.depths is not None:
                        depths[mine[i]] = theirs.depths[j]
        if np.isfinite(found).any():
            boxes = {**sequence.boxes, "network": found}
            if np.isfinite(depths).any():
                boxes[WITH_DISTANCES] = found
            result.append(replace(sequence, boxes=boxes, depths={WITH_DISTANCES: depths}))
    return result


def _detections(archive: zipfile.ZipFile, class_name: str, sequence: str) -> F64:
    """Rows frame, left, top, right, bottom, score."""
    try:
        text = archive.read(f"rrc_2d/training/{class_name}/{sequence}.txt").decode()
    except KeyError:
        return np.zeros((0, 6))
    return np.array([line.split(",") for line in text.split()], np.float64).reshape(-1, 6)


def visible_parts(frame_ids: I64, boxes: F64) -> tuple[F64, np.ndarray]:
    """Boxes that end where a nearer box hides most of their foot, give or take 1.5 px, and which those are.

    NaN where less than 30 % would be left: nobody would detect that.
    """
    visible, cut, rng = boxes.copy(), np.zeros(len(boxes), bool), np.random.default_rng(0)
    for frame in np.unique(frame_ids):
        rows = np.flatnonzero(frame_ids == frame)
        left, top, right, bottom = boxes[rows].T
        shared = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)  # (n, n)
        hides = (bottom > bottom[:, None] + 1) & (top < bottom[:, None]) & (shared > 0.7 * (right - left)[:, None])
        ends = np.where(hides, top, np.inf).min(axis=1, initial=np.inf)
        cut[rows] = hides.any(axis=1)
        visible[rows, 3] = np.where(cut[rows], ends + rng.normal(0, 1.5, len(rows)), bottom)
    visible[visible[:, 3] - visible[:, 1] < 0.3 * (boxes[:, 3] - boxes[:, 1])] = np.nan
    return visible, cut & np.isfinite(visible[:, 0])


def true_closing(sequence: Sequence3D) -> F64:
    """(N,) closing speed from the labels alone, by a least-squares line over a second around each frame."""
    distance, speeds = np.hypot(*sequence.location.T), np.full(len(sequence.location), np.nan)
    for track_id in np.unique(sequence.track_ids):
        rows = np.flatnonzero(sequence.track_ids == track_id)
        frames = sequence.frame_ids[rows]
        for row, frame in zip(rows, frames, strict=True):
            near = np.abs(frames - frame) <= SLOPE_FRAMES
            if near.sum() > SLOPE_FRAMES:
                speeds[row] = -np.polyfit((frames[near] - frame) * STEP_NS * 1e-9, distance[rows[near]], 1)[0]
    return speeds


def measured_sizes(archive: Path) -> list[dict[str, Any]]:
    """Sizes of the classes over the training split: whole objects at 5 to 60 m, depths seen from behind or beside."""
    with zipfile.ZipFile(archive) as labels:
        names = labels.read("ImageSets/train.txt").decode().split()
        tables = [parse_objects(labels.read(f"training/label_2/{name}.txt").decode(), name) for name in names]
    result = []
    for class_name in SIZE_PRIORS:
        columns = []
        for table in tables:
            ahead = table.location_cam2[:, 2]
            whole = (table.truncation < 0.01) & (ahead > 5) & (ahead < 60)
            whole &= np.array([name == class_name for name in table.names], bool).reshape(-1)
            columns.append(np.column_stack([table.dimensions_hwl, table.rotation_y])[whole])
        height, width, length, yaw = np.concatenate(columns).T
        along, across = np.abs(np.sin(yaw)), np.abs(np.cos(yaw))
        depth = (length * along + width * across) / 2
        behind, beside = along > np.cos(np.radians(30)), across > np.cos(np.radians(30))
        log = np.log(height)
        result.append(
            {
                "class": class_name,
                "count": len(height),
                "height_m": float(np.exp(log.mean())),
                "height_spread": float(log.std()),
                "half_width_m": float(np.median(width) / 2),
                "half_depth_m": float(np.median(depth[behind])),
                "half_depth_std_m": float(depth[behind].std()),
                "half_depth_side_m": float(np.median(depth[beside])) if beside.any() else float("nan"),
            }
        )
    return result
