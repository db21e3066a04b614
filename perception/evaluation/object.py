"""KITTI's object scores, equal to the devkit's: average precision (AP) and orientation similarity (AOS) of 2D boxes.

The devkit (`evaluate_object.cpp`, KITTI object development kit) matches every image again for each of up to 41 score
thresholds. Here all frames and thresholds are matched at once: within a frame the matching changes only where the
falling threshold admits another detection. So counts are kept as steps at those scores (`ObjectCurve`), and the count
at any threshold, with any weights of the frames, is a sum of steps.

Surprising rules of the devkit, which hold here too:

- A detection's height is cut to an integer and tested before its class: a too small detection of any class is
  "ignored", and an ignored detection can absorb a ground truth, which is then neither hit nor miss.
- A ground truth is ignored where its height is less than or *equal to* the minimum, as in the recorded evaluator.
- The pass that collects thresholds matches a ground truth with the highest score, the counting pass with the largest
  overlap; so a threshold may find other true positives than those it was taken from.
- A detection that a ground truth has taken is never forgiven by DontCare, and DontCare compares the overlap
  with the detection's own area against the class's threshold, 0.7 for cars.
- Recall entries that are never reached count as precision 0, so even a perfect result scores 100 only with 41 or
  more ground truths.
- One alpha of -10 among the results switches AOS off for all classes.
- A class is scored if one of its result rows has its left edge at 0 or more; otherwise it is absent, not 0.

Where a threshold has neither true nor false positives the devkit divides 0 by 0 and prints NaN; here it counts as 0.
"""

from __future__ import annotations

import numpy as np

from perception.arrays import F64
from perception.evaluation.object3d import METRICS, find_overlaps_3d, has_box
from perception.evaluation.object_matching import (
    Roles,
    count_steps,
    counting_priority,
    find_overlaps,
    find_roles,
    greedy,
    take_part,
)
from perception.evaluation.results import (
    LEVELS,
    OBJECT_CLASSES_SCORED,
    ObjectCurve,
    ObjectEvaluation,
    ObjectMatches,
    ObjectScore,
)
from perception.formats.kitti import UNKNOWN_ALPHA, ObjectRows
from perception.formats.kitti_table import ObjectTable

RECALL_STEPS = 40

# ---------------------------------------------------------------- numbers from counts


def recall_thresholds(tp_scores: F64, n_gt: int) -> F64:
    """The scores at which recall comes nearest to 0, 1/40, 2/40 … 1; falling, at most 41.

    Args:
        tp_scores: (K,) scores of true positives over all frames.
        n_gt: number of valid ground truths.

    A score is skipped where the next one's recall is closer to the wanted recall; the last one is always taken.
    """
    falling = np.sort(tp_scores)[::-1]
    chosen: list[float] = []
    wanted, i, last = 0.0, 0, len(falling) - 1
    while i <= last:
        i = max(i, min(int(wanted * n_gt) - 3, last))  # all before are skipped: their recall is too low
        while i < last and (i + 2) / n_gt - wanted < wanted - (i + 1) / n_gt:
            i += 1
        chosen.append(falling[i])
        wanted += 1 / RECALL_STEPS
        i += 1
    return np.array(chosen, np.float64)


def precision_at_recall(hits: F64, found: F64) -> F64:
    """(41,) `hits / found` for each recall entry, then the maximum from each entry on; missing entries are 0.

    Args:
        hits: (T,) true positives at each threshold, or their summed orientation similarity.
        found: (T,) true and false positives at each threshold.
    """
    values = np.zeros(RECALL_STEPS + 1)
    np.divide(hits, found, out=values[: len(hits)], where=found > 0)
    return np.maximum.accumulate(values[::-1])[::-1]


def average_precision(precision41: F64, recall_positions: int = 40) -> float:
    """AP in per cent from 41 precisions: 40 is the mean of entries 1…40 (R40), 11 that of 0, 4 … 40 (R11)."""
    if recall_positions not in (40, 11):
        raise ValueError(f"recall_positions: found {recall_positions}, expected 40 or 11")
    return float(100 * np.mean(precision41[1:] if recall_positions == 40 else precision41[::4]))


def score_curve(curve: ObjectCurve, has_orientation: bool, weights: np.ndarray | None = None) -> ObjectScore:
    """Score one class and level officially.

    Args:
        curve: the counts as steps.
        has_orientation: whether AOS is scored.
        weights: (F,) whole numbers, how often each frame counts; a bootstrap draws them. Equal to evaluating a set
            in which frames are repeated that often.
    """
    if weights is None:
        tp_scores, n_gt = curve.tp_scores, int(curve.n_gt.sum())
        scale: np.ndarray | int = 1
    else:
        tp_scores = np.repeat(curve.tp_scores, weights[curve.tp_frames])
        n_gt, scale = int((curve.n_gt * weights).sum()), weights[curve.event_frames]
    thresholds = recall_thresholds(tp_scores, n_gt)
    reached = np.searchsorted(-curve.event_scores, -thresholds, side="right")  # number of events at or above

    def count(steps: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros(1, steps.dtype), np.cumsum(steps * scale)])[reached]

    tp, fp, absorbed = count(curve.event_tp), count(curve.event_fp), count(curve.event_absorbed)
    similarity = count(curve.event_similarity)
    precision41 = precision_at_recall(tp, tp + fp)
    aos41 = precision_at_recall(similarity, tp + fp) if has_orientation else None
    return ObjectScore(
        class_name=curve.class_name,
        level=curve.level,
        n_gt=n_gt,
        thresholds=thresholds,
        tp=tp,
        fp=fp,
        fn=n_gt - tp - absorbed,
        similarity=similarity,
        precision41=precision41,
        aos41=aos41,
        ap_r40=average_precision(precision41, 40),
        ap_r11=average_precision(precision41, 11),
        aos_r40=None if aos41 is None else average_precision(aos41, 40),
        aos_r11=None if aos41 is None else average_precision(aos41, 11),
    )


# ---------------------------------------------------------------- the evaluator


def _check(gt: ObjectTable, detections: ObjectTable) -> None:
    if gt.frame_names != detections.frame_names:
        raise ValueError("labels and results are of different frames")
    if detections.scores is None:
        raise ValueError("results without scores")


def evaluate_objects(gt: ObjectTable, detections: ObjectTable) -> ObjectEvaluation:
    """Score the results of a set of frames.

    Args:
        gt: labels of F frames, all classes, DontCare included.
        detections: results of the same frames, with scores.

    Returns:
        Numbers and counts for every class that the devkit scores, at every level; BEV and 3D where results carry
        3-D boxes.
    """
    _check(gt, detections)
    roles = find_roles(gt, detections)
    overlaps = find_overlaps(gt, detections, roles)
    has_orientation = not bool((detections.alpha == UNKNOWN_ALPHA).any())
    curves = {
        (class_name, level): count_steps(gt, detections, overlaps, class_name, level)
        for class_name in _scored_classes(detections, detections.boxes_xyxy[:, 0] >= 0)
        for level in LEVELS
    }
    curves_3d = _curves_3d(gt, detections, roles)
    return ObjectEvaluation(
        gt=gt,
        detections=detections,
        curves=curves,
        scores={key: score_curve(curve, has_orientation) for key, curve in curves.items()},
        has_orientation=has_orientation,
        curves_3d=curves_3d,
        scores_3d={key: score_curve(curve, False) for key, curve in curves_3d.items()},
    )


def _scored_classes(detections: ObjectTable, opens: np.ndarray) -> list[str]:
    """The classes of which at least one row opens the metric."""
    return [name for name in OBJECT_CLASSES_SCORED if (detections.is_class(name) & opens).any()]


def _curves_3d(gt: ObjectTable, detections: ObjectTable, roles: Roles) -> dict[tuple[str, str, str], ObjectCurve]:
    """BEV and 3D, where results carry 3-D boxes."""
    classes = {
        name: _scored_classes(detections, has_box(detections, metric.kind)) for name, metric in METRICS.items()
    }
    if not any(classes.values()):
        return {}
    overlaps = find_overlaps_3d(gt, detections, roles)
    return {
        (metric, class_name, level): count_steps(gt, detections, overlaps[metric], class_name, level)
        for metric in METRICS
        for class_name in classes[metric]
        for level in LEVELS
    }


def match_objects(
    gt: ObjectTable,
    detections: ObjectTable,
    class_name: str,
    level: str,
    score_threshold: float = -np.inf,
    metric: str | None = None,
) -> ObjectMatches:
    """Return the matches of the devkit's counting pass at one score threshold.

    Args:
        gt: labels.
        detections: results of the same frames.
        class_name: class to match.
        level: difficulty of the labels that count.
        score_threshold: least score of a result.
        metric: one of `METRICS_3D`; by default 2D.
    """
    _check(gt, detections)
    assert detections.scores is not None
    roles = find_roles(gt, detections)
    if metric is None:
        overlaps = find_overlaps(gt, detections, roles)
    else:
        overlaps = find_overlaps_3d(gt, detections, roles)[metric]
    case = take_part(gt, overlaps, class_name, level)
    above = detections.scores >= score_threshold
    kept = np.flatnonzero(above[overlaps.pair_det[case.pair]])
    pair = case.pair[kept]
    chosen = pair[greedy(overlaps.pair_gt[pair], overlaps.pair_det[pair], counting_priority(overlaps, case)[kept])]
    gt_det, det_gt = np.full(len(gt), -1), np.full(len(detections), -1)
    iou = np.zeros(len(gt))
    gt_det[overlaps.pair_gt[chosen]] = overlaps.pair_det[chosen]
    det_gt[overlaps.pair_det[chosen]] = overlaps.pair_gt[chosen]
    iou[overlaps.pair_gt[chosen]] = overlaps.pair_iou[chosen]
    det_rows = np.flatnonzero((case.det_valid | case.det_ignored) & above)
    return ObjectMatches(
        class_name=class_name,
        level=level,
        score_threshold=score_threshold,
        gt_rows=case.gt_rows,
        gt_ignored=~case.gt_valid[case.gt_rows],
        gt_det_rows=gt_det[case.gt_rows],
        gt_iou=iou[case.gt_rows],
        det_rows=det_rows,
        det_ignored=case.det_ignored[det_rows],
        det_gt_rows=det_gt[det_rows],
        det_dontcare=overlaps.det_dontcare[det_rows],
    )


class ObjectEvaluator:
    """Collect frames one by one and score them all."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._names: list[str] = []
        self._gt: list[ObjectRows] = []
        self._detections: list[ObjectRows] = []

    def process(self, frame_name: str, gt: ObjectRows, detections: ObjectRows) -> None:
        """Add one frame: its label rows, DontCare included, and its result rows with scores."""
        if len(detections) and detections.scores is None:
            raise ValueError(f"frame {frame_name}: results without scores")
        self._names.append(frame_name)
        self._gt.append(gt)
        self._detections.append(detections)

    def evaluate(self) -> ObjectEvaluation:
        """Score all frames since `reset`."""
        return evaluate_objects(
            ObjectTable.from_rows(self._names, self._gt, scores=False),
            ObjectTable.from_rows(self._names, self._detections, scores=True),
        )
