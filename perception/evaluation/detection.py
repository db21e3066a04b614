"""Average precision and F1 at any overlap: what KITTI's fixed protocol does not answer.

Detections are matched greedily by falling score, as in PASCAL VOC; each takes the free object that it overlaps most.
Ignored objects and regions count as nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from perception.arrays import F64
from perception.boxes import intersection_over_area, iou


@dataclass(frozen=True, eq=False)
class Matches:
    """Scored detections of one class, of one frame or of many."""

    scores: F64 = field(default_factory=lambda: np.zeros(0))
    """(N,) of the detections that count, falling."""
    is_true: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """(N,) bool: matched with an object that counts."""
    n_objects: int = 0
    """Objects that count."""


def match(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    truth_xyxy: np.ndarray,
    counted: np.ndarray,
    ignored_xyxy: np.ndarray,
    min_iou: float = 0.5,
) -> Matches:
    """Match the detections of one class in one frame.

    Args:
        boxes_xyxy: (N, 4) detections, pixels.
        scores: (N,) their scores.
        truth_xyxy: (M, 4) objects.
        counted: (M,) bool; a detection of an object that is not counted is dropped.
        ignored_xyxy: (R, 4) regions; an unmatched detection is dropped if over half of its area lies in one of them.
        min_iou: IoU from which a detection matches an object.
    """
    shared = iou(boxes_xyxy, truth_xyxy)  # (N, M)
    ignored = np.any(intersection_over_area(boxes_xyxy, ignored_xyxy) > 0.5, axis=1)  # (N,)
    free = np.ones(len(truth_xyxy), bool)
    kept_scores, kept_true = [], []
    for k in np.argsort(-scores, kind="stable"):
        candidates = np.where(free, shared[k], 0)
        best = int(candidates.argmax()) if len(truth_xyxy) else -1
        if best >= 0 and candidates[best] >= min_iou:
            free[best] = False
            if counted[best]:
                kept_scores.append(float(scores[k]))
                kept_true.append(True)
        elif not ignored[k]:
            kept_scores.append(float(scores[k]))
            kept_true.append(False)
    return Matches(np.array(kept_scores, np.float64), np.array(kept_true, bool), int(counted.sum()))


def pool(parts: Iterable[Matches]) -> Matches:
    """Join the matches of several frames, by falling score."""
    parts = list(parts)
    if not parts:
        return Matches()
    scores = np.concatenate([part.scores for part in parts])
    order = np.argsort(-scores, kind="stable")
    is_true = np.concatenate([part.is_true for part in parts])
    return Matches(scores[order], is_true[order], sum(part.n_objects for part in parts))


def precision_recall(matches: Matches) -> tuple[F64, F64]:
    """Return precision and recall, (N,) each, with each detection's score as the threshold."""
    hits = np.cumsum(matches.is_true)
    return hits / np.arange(1, len(hits) + 1), hits / max(1, matches.n_objects)


def f1_scores(matches: Matches) -> F64:
    """Return F1, (N,), with each detection's score as the threshold."""
    precision, recall = precision_recall(matches)
    return 2 * precision * recall / np.maximum(precision + recall, 1e-9)


def average_precision(matches: Matches) -> float:
    """Return the area under the interpolated precision-recall curve, 0..1; 0 without objects or detections."""
    if not matches.n_objects or not len(matches.scores):
        return 0.0
    precision, _ = precision_recall(matches)
    best_after = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best_after * matches.is_true).sum() / matches.n_objects)


def best_f1(matches: Matches) -> float:
    """Return the highest F1 over all thresholds, 0..1; 0 without objects or detections."""
    return float(f1_scores(matches).max()) if matches.n_objects and len(matches.scores) else 0.0
