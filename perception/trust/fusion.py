"""Weighted boxes fusion: one set of detections from several, each box the mean of those that mean the same object.

Solovyev, Wang and Gabruseva, "Weighted boxes fusion: ensembling boxes from different object detection models" (Image
and Vision Computing 2021). Their package `ensemble-boxes` needs numba and pandas for these lines, and divides a score
by the number of all models; here it is divided by the number of views that can see the box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perception.arrays import F32, F64
from perception.boxes import intersection_over_area, iou
from perception.types import Detections

MIN_IOU = 0.55
"""Overlap from which two boxes mean the same object, as in the paper."""
SEEN = 0.9
"""A view can see a box of which this share lies in its window."""


@dataclass(frozen=True, eq=False)
class Opinion:
    """What one view of an image found, in pixels of the whole image."""

    detections: Detections
    window_xyxy: F32
    """(4,) the part of the image that it saw."""
    weight: float = 1.0


def fuse(opinions: Sequence[Opinion], min_iou: float = MIN_IOU) -> Detections:
    """Fuse what several views found.

    A box joins the cluster of its class whose mean box it overlaps most, from `min_iou` on. A cluster's box is the
    mean of its members weighted by score; its score is the sum of the best score of each view over the weight of all
    views that can see it, so a box that only one of three finds keeps a third of its score.

    Returns:
        Detections by falling score. Distances are fused where all members have one.
    """
    if not any(len(one.detections) for one in opinions):
        return Detections.empty()
    boxes = np.concatenate([one.detections.boxes_xyxy for one in opinions]).astype(np.float64)
    scores = np.concatenate([one.detections.scores for one in opinions]).astype(np.float64)
    class_ids = np.concatenate([one.detections.class_ids for one in opinions])
    views = np.repeat(np.arange(len(opinions)), [len(one.detections) for one in opinions])
    weights = np.array([one.weight for one in opinions], np.float64)
    depths = _depths(opinions)
    order = np.argsort(-scores, kind="stable")
    clusters = [
        cluster
        for class_id in np.unique(class_ids)
        for cluster in _clusters(order[class_ids[order] == class_id], boxes, scores * weights[views], min_iou)
    ]
    means = np.array([_mean(boxes[rows], (scores * weights[views])[rows]) for rows in clusters])
    windows = np.stack([one.window_xyxy for one in opinions]).astype(np.float64)
    sees = intersection_over_area(means, windows) >= SEEN  # (C, V)
    fused_scores = np.zeros(len(clusters))
    for c, rows in enumerate(clusters):
        best = np.zeros(len(opinions))
        np.maximum.at(best, views[rows], scores[rows])
        able = sees[c] | (best > 0)
        fused_scores[c] = float((best * weights).sum() / weights[able].sum())
    by_score = np.argsort(-fused_scores, kind="stable")
    return Detections(
        means[by_score].astype(np.float32),
        fused_scores[by_score].astype(np.float32),
        np.array([class_ids[clusters[c][0]] for c in by_score], np.int64),
        None if depths is None else np.array([_mean_depth(depths[clusters[c]]) for c in by_score], np.float32),
    )


def _clusters(rows: np.ndarray, boxes: F64, weights: F64, min_iou: float) -> list[list[int]]:
    """Group the rows of one class, which come by falling score."""
    clusters: list[list[int]] = []
    means = np.zeros((0, 4))
    for row in rows.tolist():
        overlaps = iou(boxes[row : row + 1], means)[0]
        best = int(overlaps.argmax()) if len(overlaps) else -1
        if best >= 0 and overlaps[best] >= min_iou:
            clusters[best].append(row)
            means[best] = _mean(boxes[clusters[best]], weights[clusters[best]])
        else:
            clusters.append([row])
            means = np.concatenate([means, boxes[row : row + 1]])
    return clusters


def _mean(boxes: F64, weights: F64) -> F64:
    """Mean box (4,) of several, by weight."""
    return np.asarray((boxes * weights[:, None]).sum(axis=0) / max(float(weights.sum()), 1e-12))


def _depths(opinions: Sequence[Opinion]) -> F32 | None:
    """(N, 2) of all detections; None where a view has none."""
    known = [one.detections.depths for one in opinions if len(one.detections)]
    parts = [part for part in known if part is not None]
    return np.concatenate(parts) if len(parts) == len(known) else None


def _mean_depth(depths: F32) -> tuple[float, float]:
    """Mean of the members weighted by 1 / variance. The views share errors, so the deviation is the smallest one."""
    weight = 1 / np.maximum(depths[:, 1], 1e-3) ** 2
    return float((depths[:, 0] * weight).sum() / weight.sum()), float(depths[:, 1].min())
