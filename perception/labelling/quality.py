"""How good labels by machine are against labels by people: precision, recall, and the corrections that they save.

Starting from nothing, a person draws every object. Starting from labels by machine, the person adds what is missing,
moves what fits badly, renames what has the wrong class and deletes what is no object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from perception.arrays import F64, I64
from perception.boxes import Floats, intersection_over_area, iou
from perception.labelling.verdict import Labels

RIGHT_IOU = 0.5
"""A label that overlaps an object of its class by this much is right."""
FITS_IOU = 0.7
"""A right label that overlaps by less is moved."""
NEAR_IOU = 0.3
"""A wrong label that overlaps a missed object of its class by this much is moved; by less, deleted and drawn anew."""
COVERED = 0.5
"""A box of which this share lies in a region is in it."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What people labelled in one image."""

    boxes_xyxy: F64
    """(N, 4)"""
    class_ids: I64
    """(N,)"""
    ignored_xyxy: F64
    """(M, 4) regions that nobody judges."""
    ignored_class_ids: I64
    """(M,) -1 for all classes."""


@dataclass
class Quality:
    """Counts over images; they add up."""

    objects: int = 0
    right: int = 0
    """Labels that are right, and so objects that are found."""
    wrong: int = 0
    """Labels that are not."""
    in_doubt: int = 0
    """Objects without a label that lie in a region to ignore."""
    add: int = 0
    move: int = 0
    rename: int = 0
    delete: int = 0

    def __add__(self, other: Quality) -> Quality:
        return Quality(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def precision(self) -> float:
        """Share of labels that are right; NaN without labels."""
        labels = self.right + self.wrong
        return self.right / labels if labels else float("nan")

    @property
    def recall(self) -> float:
        """Share of objects that are found; NaN without objects."""
        return self.right / self.objects if self.objects else float("nan")

    @property
    def corrections(self) -> int:
        """What a person does to make the labels right."""
        return self.add + self.move + self.rename + self.delete

    @property
    def saved(self) -> float:
        """Share of a person's actions that the labels save, against drawing every object; NaN without objects."""
        return 1 - self.corrections / self.objects if self.objects else float("nan")


def compare(labels: Labels, truth: Truth, class_count: int, judged: Sequence[bool]) -> list[Quality]:
    """Compare the labels of one image with the truth, class by class. A renamed object counts for its true class.

    Args:
        labels: by machine, the most confident first.
        truth: by people.
        class_count: of the numbering that both use.
        judged: whether the truth labels each class at all; labels of other classes are not judged.
    """
    sure, doubt = labels[labels.sure], labels[~labels.sure]
    boxes = sure.boxes_xyxy.astype(np.float64)
    overlap = iou(boxes, truth.boxes_xyxy)  # (N, M)
    same = sure.class_ids[:, None] == truth.class_ids
    counted = np.array(judged, bool)[sure.class_ids] if len(sure) else np.zeros(0, bool)
    free, missed = counted.copy(), np.ones(len(truth.class_ids), bool)
    found = [Quality() for _ in range(class_count)]

    for row, column in _pairs(overlap * same, RIGHT_IOU, free, missed):
        one = found[truth.class_ids[column]]
        one.right += 1
        one.move += bool(overlap[row, column] < FITS_IOU)
    free &= ~_ignored(boxes, sure.class_ids, truth)
    for row in np.flatnonzero(free).tolist():
        found[sure.class_ids[row]].wrong += 1
    covered = intersection_over_area(truth.boxes_xyxy, doubt.boxes_xyxy.astype(np.float64)).max(axis=1, initial=0)
    for column in np.flatnonzero(missed & (covered >= COVERED)).tolist():
        found[truth.class_ids[column]].in_doubt += 1

    for _, column in _pairs(overlap * same, NEAR_IOU, free, missed):
        found[truth.class_ids[column]].move += 1
    for _, column in _pairs(overlap, RIGHT_IOU, free, missed):
        found[truth.class_ids[column]].rename += 1
    for row in np.flatnonzero(free).tolist():
        found[sure.class_ids[row]].delete += 1
    for column in np.flatnonzero(missed).tolist():
        found[truth.class_ids[column]].add += 1
    for class_id in truth.class_ids.tolist():
        found[class_id].objects += 1
    return found


def _pairs(
    overlap: Floats, least: float, free: NDArray[np.bool_], missed: NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """Pair free labels, in their order, each with the missed object that it overlaps most; both are then taken."""
    pairs = []
    for row in np.flatnonzero(free).tolist():
        left = np.where(missed, overlap[row], 0.0)
        column = int(left.argmax()) if len(left) else -1
        if column >= 0 and left[column] >= least:
            free[row] = missed[column] = False
            pairs.append((row, column))
    return pairs


def _ignored(boxes: F64, class_ids: I64, truth: Truth) -> NDArray[np.bool_]:
    """Whether each label lies in a region that nobody judges."""
    applies = (truth.ignored_class_ids < 0) | (class_ids[:, None] == truth.ignored_class_ids)  # (N, M)
    inside = np.maximum(intersection_over_area(boxes, truth.ignored_xyxy), iou(boxes, truth.ignored_xyxy))
    return np.asarray((applies & (inside >= COVERED)).any(axis=1), bool)
