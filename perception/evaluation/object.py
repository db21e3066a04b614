"""KITTI's object scores: 2D AP and AOS. (Signatures; the body follows.)"""

from __future__ import annotations

import numpy as np

from perception.evaluation.results import ObjectCurve, ObjectEvaluation, ObjectMatches, ObjectScore
from perception.formats.kitti import ObjectRows
from perception.formats.kitti_table import ObjectTable
from perception.types import F64


def evaluate_objects(gt: ObjectTable, detections: ObjectTable) -> ObjectEvaluation:
    """Score the detections of a set of frames."""
    raise NotImplementedError


def score_curve(curve: ObjectCurve, has_orientation: bool, weights: F64 | None = None) -> ObjectScore:
    """The official numbers of one class and level; `weights` (F,) counts each frame that often (bootstrap)."""
    raise NotImplementedError


def match_objects(
    gt: ObjectTable, detections: ObjectTable, class_name: str, level: str, score_threshold: float = -np.inf
) -> ObjectMatches:
    """Who is matched with whom when all detections at or above `score_threshold` take part."""
    raise NotImplementedError


class ObjectEvaluator:
    """reset / process / evaluate around `evaluate_objects`."""

    def reset(self) -> None: ...

    def process(self, frame_name: str, gt: ObjectRows, detections: ObjectRows) -> None: ...

    def evaluate(self) -> ObjectEvaluation: ...
