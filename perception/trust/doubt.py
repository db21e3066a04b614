"""Calibrate scores and boxes of a network on labelled frames.

Scores: Platt's logistic scaling of the logit (Platt 1999; with the offset at 0 it is temperature scaling, Guo et al.
2017), one pair of numbers a class. Two numbers hold on a few dozen frames, where isotonic regression does not.

Boxes: split conformal prediction. The margin of a class and size is a quantile of how far true boxes reach beyond the
found ones, so that the widened box holds the true one with the chosen probability, whatever the errors' distribution
(Vovk et al.; for boxes: Andéol et al. 2023). That is true for frames like those it was measured on, and for
detections that mean an object at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from perception.arrays import F64
from perception.boxes import intersection_over_area, iou
from perception.doubt import Doubt, scaled
from perception.evaluation.calibration import calibration_of
from perception.formats.kitti import ObjectRows
from perception.types import Detections

MIN_IOU = 0.5
"""A detection is true from this overlap on: does the object exist? KITTI's 0.7 for cars asks how good a box is."""
SMALLEST_PX = 25.0
LEAST_SCORE = 0.05
"""Weaker detections are left out of the calibration error: thousands of them are trivially false."""
HEIGHTS_PX = (25.0, 50.0, 100.0)
FEWEST = 30
"""Detections that a class needs for a scaling of its own, and a tenth of it of each outcome."""
NEIGHBOURS = {"car": "van", "pedestrian": "person_sitting"}
"""Detections of a neighbour class count neither way, as in KITTI's rules."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Detections of many frames that can be judged; N of them."""

    scores: F64
    """(N,)"""
    class_ids: np.ndarray
    """(N,)"""
    is_true: np.ndarray
    """(N,) bool"""
    reach: F64
    """(N,) how far the true box reaches beyond the found one: the largest of its four sides, as a share of width or
    height; negative inside, NaN where there is no true box."""
    heights: F64
    """(N,) of the found boxes, pixels."""
    groups: np.ndarray
    """(N,) drive of the frame, as a number."""

    def __getitem__(self, index: np.ndarray) -> Seen:
        return Seen(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def judge(detections: Detections, labels: ObjectRows, class_names: Sequence[str], group: int) -> Seen:
    """Compare the detections of one frame with its labels.

    Objects below `SMALLEST_PX`, neighbour classes and DontCare regions count neither way.
    """
    names = np.array([name.lower() for name in labels.names], dtype=object)
    regions = labels.boxes_xyxy[names == "dontcare"]
    parts = []
    for class_id, class_name in enumerate(class_names):
        own = detections[(detections.class_ids == class_id) & (detections.scores >= LEAST_SCORE)]
        boxes = own.boxes_xyxy.astype(np.float64)
        is_own = names == class_name.lower()
        truth = labels.boxes_xyxy[is_own | (names == NEIGHBOURS.get(class_name.lower(), ""))]
        counts = is_own[is_own | (names == NEIGHBOURS.get(class_name.lower(), ""))]
        counts &= truth[:, 3] - truth[:, 1] >= SMALLEST_PX
        overlaps = iou(boxes, truth)  # (N, M)
        match = np.full(len(boxes), -1)
        for row in range(len(boxes)):  # by falling score; each takes the free object that it overlaps most
            best = int(overlaps[row].argmax()) if len(truth) else -1
            if best >= 0 and overlaps[row, best] >= MIN_IOU:
                match[row] = best
                overlaps[row + 1 :, best] = 0
        found = match >= 0
        ignored = ~found & (intersection_over_area(boxes, regions) > 0.5).any(axis=1)
        ignored |= ~found & (boxes[:, 3] - boxes[:, 1] < SMALLEST_PX)
        ignored[found] = ~counts[match[found]]
        reach = np.full(len(boxes), math.nan)
        reach[found] = reach_beyond(boxes[found], truth[match[found]])
        keep = ~ignored
        parts.append(
            Seen(
                own.scores.astype(np.float64)[keep],
                np.full(int(keep.sum()), class_id),
                found[keep],
                reach[keep],
                (boxes[:, 3] - boxes[:, 1])[keep],
                np.full(int(keep.sum()), group),
            )
        )
    return pool(parts)


def pool(parts: Iterable[Seen]) -> Seen:
    """Join the detections of several frames."""
    columns = list(zip(*([getattr(part, name) for name in Seen.__dataclass_fields__] for part in parts), strict=True))
    return Seen(*(np.concatenate(column) for column in columns))


def reach_beyond(boxes: F64, truth: F64) -> F64:
    """How far each true box reaches beyond the found one, (N,), see `Seen.reach`."""
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    out = np.concatenate([(boxes[:, :2] - truth[:, :2]) / size, (truth[:, 2:] - boxes[:, 2:]) / size], axis=1)
    return np.asarray(out.max(axis=1, initial=-math.inf))


def fit_scaling(seen: Seen, classes: int) -> tuple[tuple[float, float], ...]:
    """Fit slope and offset of each class; a class with too few detections takes those of all together."""
    everything = _fit_one(seen.scores, seen.is_true) if len(seen.scores) else (1.0, 0.0)
    pairs = []
    for class_id in range(classes):
        own = seen[seen.class_ids == class_id]
        least = min(int(own.is_true.sum()), int((~own.is_true).sum()))
        enough = len(own.scores) >= FEWEST and least >= FEWEST // 10
        pairs.append(_fit_one(own.scores, own.is_true) if enough else everything)
    return tuple(pairs)


def _fit_one(scores: F64, is_true: np.ndarray) -> tuple[float, float]:
    """Maximise the likelihood, with a weak pull (of one detection) towards no change."""

    def loss(values: np.ndarray) -> float:
        p = np.clip(scaled(scores, math.exp(values[0]), values[1]), 1e-9, 1 - 1e-9)
        likelihood = np.where(is_true, np.log(p), np.log(1 - p)).sum()
        return float(-likelihood + 0.5 * (values**2).sum())

    log_slope, offset = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return round(float(np.clip(math.exp(log_slope), 0.05, 20)), 4), round(float(np.clip(offset, -20, 20)), 4)


def conformal_margin(reach: F64, coverage: float) -> float | None:
    """The ⌈(n + 1) · coverage⌉-th smallest of n values: the split-conformal quantile; None where n is too small."""
    rank = math.ceil((len(reach) + 1) * coverage)
    if not len(reach) or rank > len(reach):
        return None
    return round(float(np.sort(reach)[rank - 1]), 4)


def fit_margins(seen: Seen, classes: int, coverage: float) -> tuple[tuple[float | None, ...], ...]:
    """Margins by class and height. A bin with too few objects takes its class's."""
    rows = []
    for class_id in range(classes):
        own = seen[(seen.class_ids == class_id) & seen.is_true]
        whole = conformal_margin(own.reach, coverage)
        bins = np.searchsorted(HEIGHTS_PX, own.heights, side="right") - 1
        found = [conformal_margin(own.reach[bins == b], coverage) for b in range(len(HEIGHTS_PX))]
        rows.append(tuple(whole if margin is None else margin for margin in found))
    return tuple(rows)


@dataclass(frozen=True)
class Check:
    """What the calibration is worth on frames that were not used for it."""

    ece_before: Mapping[str, float]
    """By class and 'all'."""
    ece_after: Mapping[str, float]
    covered: Mapping[str, tuple[int, int]]
    """By class and 'all': true boxes inside the widened ones, and all that have a margin."""


def fit(seen: Seen, class_names: Sequence[str], coverage: float, frames: int) -> tuple[Doubt, Check]:
    """Fit on everything, and check by leaving out one group of drives at a time."""
    check = cross_check(seen, class_names, coverage)
    doubt = Doubt(
        scaling=fit_scaling(seen, len(class_names)),
        coverage=coverage,
        heights_px=HEIGHTS_PX,
        margins=fit_margins(seen, len(class_names), coverage),
        frames=frames,
        ece_before=round(check.ece_before["all"], 4),
        ece_after=round(check.ece_after["all"], 4),
    )
    return doubt, check


def cross_check(seen: Seen, class_names: Sequence[str], coverage: float, parts: int = 5) -> Check:
    """Fit without the drives of each part in turn, and judge that part."""
    probability = np.full(len(seen.scores), math.nan)
    inside, has_margin = np.zeros(len(seen.scores), bool), np.zeros(len(seen.scores), bool)
    numbers = np.unique(seen.groups)
    for part in range(min(parts, len(numbers))):
        held = np.isin(seen.groups, numbers[part::parts])
        rest, judged = seen[~held], seen[held]
        doubt = Doubt(
            fit_scaling(rest, len(class_names)),
            coverage,
            HEIGHTS_PX,
            fit_margins(rest, len(class_names), coverage),
        )
        probability[held] = doubt.probability(judged.scores.astype(np.float32), judged.class_ids)
        unit = np.stack(
            [np.zeros(len(judged.scores)), np.zeros(len(judged.scores)), judged.heights, judged.heights], 1
        )
        margin = -doubt.outer_boxes(unit.astype(np.float32), judged.class_ids)[:, 0] / judged.heights
        has_margin[held] = np.isfinite(margin) & judged.is_true
        inside[held] = has_margin[held] & (judged.reach <= margin + 1e-6)
    before, after, covered = {}, {}, {}
    for class_id, name in [*enumerate(class_names), (-1, "all")]:
        own = seen.class_ids == class_id if class_id >= 0 else np.ones(len(seen.scores), bool)
        before[name] = calibration_of(seen.scores[own], seen.is_true[own]).error
        after[name] = calibration_of(probability[own], seen.is_true[own]).error
        covered[name] = int(inside[own].sum()), int(has_margin[own].sum())
    return Check(before, after, covered)
