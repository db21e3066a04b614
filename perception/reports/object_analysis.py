"""Analysis of object scores: operating point, confusion, splits, calibration and errors by frame.

None of this is part of the official protocol. It rests on the official matching (`match_objects`), so the counts
agree with the evaluator's. Only `confusion` matches across classes, by its own rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perception.arrays import F64, I64
from perception.boxes import intersection_over_area, iou
from perception.evaluation.calibration import Calibration, calibration_of
from perception.evaluation.object import match_objects
from perception.evaluation.results import ObjectCurve, ObjectEvaluation, ObjectMatches, ratio
from perception.formats.kitti import OBJECT_CLASSES

LEVEL = "moderate"
"""The level KITTI ranks by; operating points, calibration and the gallery use it."""
SPLIT_LEVEL = "hard"
"""Splits need the far, occluded and truncated objects that `moderate` leaves out."""


@dataclass(frozen=True, eq=False)
class FullCurve:
    """Counts at every score at which they change, (S,) each, thresholds falling."""

    thresholds: F64
    tp: I64
    fp: I64
    fn: I64

    @property
    def precision(self) -> F64:
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> F64:
        return ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> F64:
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


@dataclass(frozen=True)
class OperatingPoint:
    """One class at one score threshold."""

    class_name: str
    threshold: float
    """NaN where nothing was detected."""
    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float


def full_curve(curve: ObjectCurve) -> FullCurve:
    """Return the counts at each distinct score of a curve's events."""
    scores = curve.event_scores
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, np.int64)
    tp = np.cumsum(curve.event_tp)[ends]
    absorbed = np.cumsum(curve.event_absorbed)[ends]
    return FullCurve(
        thresholds=scores[ends],
        tp=tp,
        fp=np.cumsum(curve.event_fp)[ends],
        fn=curve.n_gt.sum() - absorbed - tp,
    )


def operating_point(curve: ObjectCurve, score_threshold: float | None = None) -> OperatingPoint:
    """Return the point at `score_threshold`; by default the highest score with the highest F1."""
    full = full_curve(curve)
    truths = int(curve.n_gt.sum())
    if score_threshold is None:
        f1 = np.nan_to_num(full.f1, nan=-1.0)
        index = int(np.argmax(f1)) if len(f1) else -1
    else:
        index = int(np.searchsorted(-full.thresholds, -score_threshold, side="right")) - 1
    if index < 0:
        threshold = float("nan") if score_threshold is None else score_threshold
        return OperatingPoint(curve.class_name, threshold, 0, 0, truths, float("nan"), 0.0, 0.0)
    threshold = float(full.thresholds[index]) if score_threshold is None else score_threshold
    return OperatingPoint(
        curve.class_name,
        threshold,
        int(full.tp[index]),
        int(full.fp[index]),
        int(full.fn[index]),
        float(full.precision[index]),
        float(full.recall[index]),
        float(full.f1[index]),
    )


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), for independent objects; NaN without data."""
    if not count:
        return float("nan"), float("nan")
    z, share = 1.959964, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


# ---------------------------------------------------------------- splits


@dataclass(frozen=True)
class Bin:
    """A range of one quantity, low included, high not."""

    label: str
    low: float
    high: float


BINS: dict[str, tuple[Bin, ...]] = {
    "distance": (
        Bin("0–15 m", 0, 15),
        Bin("15–30 m", 15, 30),
        Bin("30–45 m", 30, 45),
        Bin("45 m and more", 45, np.inf),
    ),
    "height": (
        Bin("25–40 px", 25, 40),
        Bin("40–60 px", 40, 60),
        Bin("60–100 px", 60, 100),
        Bin("100 px and more", 100, np.inf),
    ),
    "occlusion": (Bin("0 visible", 0, 1), Bin("1 partly", 1, 2), Bin("2 largely", 2, 3)),
    "truncation": (Bin("0–0.15", -np.inf, 0.15), Bin("0.15–0.30", 0.15, 0.30), Bin("0.30–0.50", 0.30, np.inf)),
}
"""For objects at level `hard`: none below 25 px, more than largely occluded or truncated by more than half."""


@dataclass(frozen=True)
class SplitRow:
    """One class in one bin at its operating point."""

    class_name: str
    quantity: str
    label: str
    found: int
    missed: int
    recall: float
    low: float
    """95 % interval of recall."""
    high: float
    mean_iou: float
    """Of the found ones."""
    precision: float
    """By the height of the detection; NaN for quantities that a detection does not have."""


def split_scores(evaluation: ObjectEvaluation, point: OperatingPoint) -> list[SplitRow]:
    """Return recall, overlap and (for height) precision by distance, box height, occlusion and truncation."""
    gt, det = evaluation.gt, evaluation.detections
    matches = match_objects(gt, det, point.class_name, SPLIT_LEVEL, _finite(point.threshold))
    hit, miss = matches.is_tp, matches.is_fn
    rows_of = matches.gt_rows
    quantities = {
        "distance": gt.location_cam2[rows_of, 2],
        "height": gt.boxes_xyxy[rows_of, 3] - gt.boxes_xyxy[rows_of, 1],
        "occlusion": gt.occlusion[rows_of].astype(np.float64),
        "truncation": gt.truncation[rows_of],
    }
    det_boxes = det.boxes_xyxy[matches.det_rows]
    det_height = det_boxes[:, 3] - det_boxes[:, 1]
    det_true = np.isin(matches.det_rows, matches.gt_det_rows[hit])
    rows = []
    for quantity, bins in BINS.items():
        for one in bins:
            inside = (quantities[quantity] >= one.low) & (quantities[quantity] < one.high)
            found, missed = int((hit & inside).sum()), int((miss & inside).sum())
            low, high = wilson(found, found + missed)
            precision = float("nan")
            if quantity == "height":
                of_height = (det_height >= one.low) & (det_height < one.high)
                true, false = int((det_true & of_height).sum()), int((matches.is_fp & of_height).sum())
                precision = true / (true + false) if true + false else float("nan")
            rows.append(
                SplitRow(
                    point.class_name,
                    quantity,
                    one.label,
                    found,
                    missed,
                    found / (found + missed) if found + missed else float("nan"),
                    low,
                    high,
                    float(matches.gt_iou[hit & inside].mean()) if found else float("nan"),
                    precision,
                )
            )
    return rows


def _finite(threshold: float) -> float:
    """Return infinity for a class without detections, which has no threshold: it matches nothing."""
    return threshold if np.isfinite(threshold) else float("inf")


# ---------------------------------------------------------------- calibration


def object_calibration(evaluation: ObjectEvaluation, class_name: str) -> Calibration:
    """Calibrate the detections of a class that count at `moderate`."""
    matches = match_objects(evaluation.gt, evaluation.detections, class_name, LEVEL)
    scores = evaluation.detections.scores
    assert scores is not None
    true_rows, false_rows = matches.gt_det_rows[matches.is_tp], matches.det_rows[matches.is_fp]
    flags = np.concatenate([np.ones(len(true_rows), bool), np.zeros(len(false_rows), bool)])
    return calibration_of(scores[np.concatenate([true_rows, false_rows])], flags)


# ---------------------------------------------------------------- confusion between classes


@dataclass(frozen=True, eq=False)
class Confusion:
    """Labelled classes against detected classes."""

    truths: tuple[str, ...]
    """Rows: labelled classes, then 'nothing' (false positives)."""
    found_as: tuple[str, ...]
    """Columns: detected classes, then 'missed'."""
    counts: I64
    """(rows, columns)"""


def confusion(evaluation: ObjectEvaluation, thresholds: Mapping[str, float], min_iou: float = 0.5) -> Confusion:
    """Match detections with labels of any class, best overlap first, each used once.

    Detections count from their class's threshold. Objects outside `moderate` (25 px or less, occlusion above 1,
    truncation above 0.3), detections below 25 px and false positives in a DontCare region are left out.
    """
    gt, det = evaluation.gt, evaluation.detections
    scores = det.scores
    assert scores is not None
    truths = (*(name for name in OBJECT_CLASSES if name != "DontCare"), "nothing")
    found_as = (*thresholds, "missed")
    gt_class, det_class = _class_index(gt.class_names, truths), _class_index(det.class_names, found_as)
    limit = np.array([_finite(t) for t in thresholds.values()] + [np.inf])
    gt_height, det_height = (boxes[:, 3] - boxes[:, 1] for boxes in (gt.boxes_xyxy, det.boxes_xyxy))
    counts_gt = (gt_height > 25) & (gt.occlusion <= 1) & (gt.truncation <= 0.3)
    det_of = det_class[det.class_ids] if len(det) else np.zeros(0, np.int64)
    taking_part = (det_of >= 0) & (det_height >= 25)
    taking_part &= scores >= limit[np.maximum(det_of, 0)]
    counts = np.zeros((len(truths), len(found_as)), np.int64)
    gt_first, det_first = gt.first_rows, det.first_rows
    for frame in range(len(gt.frame_names)):
        g = np.arange(gt_first[frame], gt_first[frame + 1])
        d = np.arange(det_first[frame], det_first[frame + 1])
        d = d[taking_part[d]]
        kinds = gt_class[gt.class_ids[g]] if len(g) else np.zeros(0, np.int64)
        regions, g = gt.boxes_xyxy[g[kinds < 0]], g[kinds >= 0]
        kinds = kinds[kinds >= 0]
        partner = _best_first(iou(gt.boxes_xyxy[g], det.boxes_xyxy[d]), min_iou)  # (G,) index into d, -1
        valid = counts_gt[g]
        met = partner >= 0
        np.add.at(counts, (kinds[valid & met], det_of[d[partner[valid & met]]]), 1)
        counts[:, -1] += np.bincount(kinds[valid & ~met], minlength=len(truths))
        alone = np.setdiff1d(np.arange(len(d)), partner[met])
        if len(regions) and len(alone):
            alone = alone[intersection_over_area(det.boxes_xyxy[d[alone]], regions).max(axis=1) <= min_iou]
        counts[-1] += np.bincount(det_of[d[alone]], minlength=len(found_as))
    return Confusion(truths, found_as, counts)


def _class_index(names: tuple[str, ...], wanted: tuple[str, ...]) -> I64:
    """Return the index of each name in `wanted`, compared without case; -1 for others."""
    lower = [name.lower() for name in wanted]
    return np.array([lower.index(n.lower()) if n.lower() in lower else -1 for n in names], np.int64)


def _best_first(overlaps: np.ndarray, minimum: float) -> I64:
    """Pair rows with columns, largest overlap first; return the column of each row, -1 for none."""
    partner = np.full(overlaps.shape[0], -1, np.int64)
    used = np.zeros(overlaps.shape[1], bool)
    candidates = np.argwhere(overlaps > minimum)
    for row, column in candidates[np.argsort(-overlaps[tuple(candidates.T)], kind="stable")]:
        if partner[row] < 0 and not used[column]:
            partner[row], used[column] = column, True
    return partner


# ---------------------------------------------------------------- the worst frames


@dataclass(frozen=True, eq=False)
class FrameErrors:
    """Misses and false positives of each frame, over all classes at their operating points."""

    missed: I64
    """(F,)"""
    false: I64
    """(F,)"""
    matches: tuple[ObjectMatches, ...]
    """One for each class."""

    def worst(self, count: int) -> list[int]:
        """List the frames with the most errors, worst first; frames without errors are left out."""
        errors = self.missed + self.false
        order = np.lexsort((np.arange(len(errors)), -self.missed, -errors))
        return [int(i) for i in order[:count] if errors[i]]


def frame_errors(
    evaluation: ObjectEvaluation, points: Mapping[str, OperatingPoint], metric: str | None = None
) -> FrameErrors:
    """Count errors at `moderate`, frame by frame, in 2D or in one of `METRICS_3D`."""
    frames = len(evaluation.gt.frame_names)
    missed, false = np.zeros(frames, np.int64), np.zeros(frames, np.int64)
    all_matches = []
    for class_name, point in points.items():
        threshold = _finite(point.threshold)
        matches = match_objects(evaluation.gt, evaluation.detections, class_name, LEVEL, threshold, metric)
        missed += np.bincount(evaluation.gt.frames[matches.gt_rows[matches.is_fn]], minlength=frames)
        false += np.bincount(evaluation.detections.frames[matches.det_rows[matches.is_fp]], minlength=frames)
        all_matches.append(matches)
    return FrameErrors(missed, false, tuple(all_matches))
