"""Label a folder of frames with teachers: fused detections as KITTI result rows, one file per image.

Each teacher runs on the frame and on its mirror image. Overlapping boxes of a class are fused into one object
(weighted boxes fusion, Solovyev et al. 2021). The fused box is the mean of the boxes, weighted by score. The fused
score is the sum of the scores divided by the number of runs that detect the class, so an object found in one of four
runs scores low.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from datasets.sample import image_stems
from perception.arrays import U8
from perception.boxes import iou
from perception.errors import UserError
from perception.files import write_atomically
from perception.formats.images import find_image, read_image
from perception.formats.kitti import ObjectRows, format_objects
from perception.progress import Progress
from perception.types import CLASS_NAMES, Detections
from training.config import DataConfig, TrainConfig
from training.distributed import from_first, rank
from training.teachers import load_teacher


class Look(Protocol):
    """A teacher, as labelling uses it."""

    class_ids: tuple[int, ...]

    def __call__(self, image_bgr: U8) -> Detections: ...


SAME = 0.55
"""IoU from which boxes of a class are fused, as in the paper."""
LOWEST_SCORE = 0.05
"""Lowest score of detections that are fused."""
KEPT = 0.15
"""Fused score from which a row is written."""


def with_teachers(config: TrainConfig, run: Path) -> DataConfig:
    """Label a run's frames with its teachers, and return the data config with the labels.

    The process of rank 0 labels; the others wait for it.

    Raises:
        UserError: see `load_teacher` and `label_frames`; or the labels are in an archive.
    """
    data = config.data
    if not config.teachers.teacher or data.unlabelled is None:
        return data
    labels = data.teacher_labels or run / "teacher_labels"
    if labels.is_file():
        raise UserError(
            f"{labels}: an archive, which --teacher cannot add to",
            "a folder",
            "unpack it, --data.teacher-labels FOLDER",
        )
    if rank() == 0:
        size_hw, threads = config.teachers.teacher_hw, config.hardware.threads
        teachers = [load_teacher(path, size_hw, threads) for path in config.teachers.teacher]
        label_frames(data.unlabelled, teachers, labels / data.unlabelled.resolve().name)
    from_first(None)
    return replace(data, teacher_labels=labels)


def label_frames(images: Path, teachers: Sequence[Look], out: Path) -> int:
    """Write rows for every image of a folder that has none, and return the number of images.

    Existing files are kept, so an interrupted run continues.

    Raises:
        UserError: there are no images, one is unreadable, or the folder is not writable.
    """
    stems = image_stems(images)
    if not stems:
        raise UserError(f"{images}: no images", "a folder of .jpg or .png frames")
    missing = [stem for stem in stems if not (out / f"{stem}.txt").is_file()]
    out.mkdir(parents=True, exist_ok=True)
    progress = Progress("frames labelled", len(missing))
    for done, stem in enumerate(missing, 1):
        path = find_image(images, stem)
        assert path is not None
        found = look(read_image(path), teachers)
        found = found[found.scores >= KEPT]
        names = [CLASS_NAMES[i] for i in found.class_ids]
        rows = ObjectRows.from_boxes(names, found.boxes_xyxy, found.scores)
        write_atomically(out / f"{stem}.txt", format_objects(rows))
        progress.update(done)
    progress.close()
    return len(stems)


def look(image_bgr: U8, teachers: Sequence[Look]) -> Detections:
    """Return the fused detections of all teachers in an image and its mirror image."""
    width = image_bgr.shape[1]
    looks: list[Detections] = []
    for teacher in teachers:
        looks.append(teacher(image_bgr))
        mirrored = teacher(np.ascontiguousarray(image_bgr[:, ::-1]))
        boxes = mirrored.boxes_xyxy
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        looks.append(Detections(boxes, mirrored.scores, mirrored.class_ids))
    counts = {c: 2 * sum(c in teacher.class_ids for teacher in teachers) for c in range(len(CLASS_NAMES))}
    return fuse(looks, counts)


def fuse(looks: Sequence[Detections], counts: dict[int, int]) -> Detections:
    """Fuse the detections of several runs on one image.

    Args:
        looks: detections of each run.
        counts: number of runs that detect each class.

    Returns:
        One detection per object, by descending score.
    """
    boxes = np.concatenate([d.boxes_xyxy for d in looks])
    scores = np.concatenate([d.scores for d in looks])
    classes = np.concatenate([d.class_ids for d in looks])
    source = np.concatenate([np.full(len(d.scores), k) for k, d in enumerate(looks)])
    overlap = iou(boxes, boxes)
    free = scores >= LOWEST_SCORE
    rows: list[tuple[np.ndarray, float, int]] = []
    for i in np.argsort(-scores, kind="stable"):
        if not free[i]:
            continue
        group = np.flatnonzero(free & (overlap[i] >= SAME) & (classes == classes[i]))
        # each run contributes its best box to an object
        best = group[np.argsort(-scores[group], kind="stable")]
        best = best[np.unique(source[best], return_index=True)[1]]
        free[group] = False
        box = np.average(boxes[best], axis=0, weights=scores[best])
        rows.append((box, float(scores[best].sum()) / counts[int(classes[i])], int(classes[i])))
    rows.sort(key=lambda row: -row[1])
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
    )
