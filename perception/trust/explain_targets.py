"""Choose what is worth explaining: the worst misses and false alarms of a labelled set, and found objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.arrays import F64
from perception.boxes import intersection_over_area, iou
from perception.formats.kitti import ObjectRows
from perception.trust.explain import Kind, Target
from perception.types import Detections

MIN_IOU = 0.5
SMALLEST_PX = 25.0
MOST_OCCLUDED = 1
"""Largely hidden objects are missed for a plain reason."""


@dataclass(frozen=True, eq=False)
class Case:
    """A target in its image."""

    frame: str
    image: Path
    target: Target
    weight: float
    """The higher, the worse the mistake: height of a missed object, score of a false alarm or a found object."""


def cases_of_frame(
    frame: str, image: Path, labels: ObjectRows, found: Detections, class_names: Sequence[str], threshold: float
) -> list[Case]:
    """List what was found, missed and falsely reported in one frame, at one score threshold."""
    names = np.array([name.lower() for name in labels.names], dtype=object)
    sure = found[found.scores >= threshold]
    boxes = sure.boxes_xyxy.astype(np.float64)
    overlaps = iou(boxes, labels.boxes_xyxy)  # (N, M)
    known = (overlaps >= MIN_IOU).any(axis=1)  # of any class: a van taken for a car is no invention
    in_region = (intersection_over_area(boxes, labels.boxes_xyxy[names == "dontcare"]) > 0.5).any(axis=1)
    cases = []

    def add(kind: Kind, class_id: int, box: F64, score: float, weight: float) -> None:
        if box[3] - box[1] >= SMALLEST_PX:
            cases.append(Case(frame, image, Target(kind, class_id, box, score), weight))

    for class_id, name in enumerate(class_names):
        own = sure.class_ids == class_id
        for row in np.flatnonzero(names == name.lower()):
            box = labels.boxes_xyxy[row]
            if (overlaps[own, row] >= MIN_IOU).any():
                best = int(np.argmax(np.where(own, overlaps[:, row], -1)))
                add("found", class_id, boxes[best], float(sure.scores[best]), float(sure.scores[best]))
            elif labels.occlusion[row] <= MOST_OCCLUDED:
                add("missed", class_id, box, 0.0, float(box[3] - box[1]))
        for row in np.flatnonzero(own & ~known & ~in_region):
            add("false", class_id, boxes[row], float(sure.scores[row]), float(sure.scores[row]))
    return cases


def worst(cases: Sequence[Case], count: int) -> list[Case]:
    """Choose the worst of each kind, and of the found ones as many of each class; at most `count` each."""
    ranked = sorted(cases, key=lambda case: -case.weight)
    chosen: list[Case] = []
    for kind in ("missed", "false"):
        chosen += [case for case in ranked if case.target.kind == kind][:count]
    found = [case for case in ranked if case.target.kind == "found"]
    for class_id in sorted({case.target.class_id for case in found}):
        chosen += [case for case in found if case.target.class_id == class_id][:count]
    return chosen
