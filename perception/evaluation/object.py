"""KITTI's object scores: average precision of 2D boxes (AP) and orientation similarity (AOS), equal to the devkit's.

The devkit (`evaluate_object.cpp`, KITTI object development kit) walks through every image once for each of up to 41
score thresholds. Here the walk is done once, for all frames and thresholds together: within a frame the outcome
changes only where the falling threshold lets another detection in, so the counts are kept as steps at those scores
(`ObjectCurve`), and any threshold, and any re-weighting of frames, is a sum of steps.

What the devkit does that surprises, and is followed here:

- A detection's height is cut to an integer and tested before its class: a too small detection of any class is
  "ignored", and an ignored detection can absorb a ground truth, which is then neither hit nor miss.
- A ground truth is ignored where its height is less than or *equal to* the minimum, as in the recorded evaluator.
- The pass that collects thresholds matches a ground truth with the highest score, the counting pass with the largest
  overlap; so a threshold may find other true positives than those it was taken from.
- A detection that a ground truth has taken is never forgiven by DontCare, and DontCare compares the overlap
  with the detection's own area against the class's threshold, 0.7 for cars.
- Recall entries that are never reached count as precision 0, so even a perfect result scores 100 only with 40 or
  more ground truths.
- One alpha of -10 among the results switches AOS off for all classes; a class nobody detected is not scored at all.

Where a threshold has neither true nor false positives the devkit divides 0 by 0 and prints NaN; here it counts as 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perception.evaluation.pairs import (
    class_indices,
    concatenate,
    intersections,
    same_frame_pairs,
    signed_areas,
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
from perception.types import F64, I64

MINIMUM_HEIGHT = {"easy": 40, "moderate": 25, "hard": 25}
MAXIMUM_OCCLUSION = {"easy": 0, "moderate": 1, "hard": 2}
MAXIMUM_TRUNCATION = {"easy": 0.15, "moderate": 0.30, "hard": 0.50}
MINIMUM_OVERLAP = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
NEIGHBOUR = {"Car": "Van", "Pedestrian": "Person_sitting", "Cyclist": None}
RECALL_STEPS = 40
_NO_DETECTION = -1e7
"""The devkit's mark for 'nothing found yet': scores at or below it are never taken as thresholds."""

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
    """The official numbers of one class and level.

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


# ---------------------------------------------------------------- overlaps


@dataclass(frozen=True, eq=False)
class _Overlaps:
    """What matching needs to know of two tables, worked out once for all classes and levels."""

    gt_class: I64
    """(N,) index into the scored classes, a neighbour under its class; -1 for all others."""
    gt_neighbour: np.ndarray
    """(N,) bool."""
    det_class: I64
    """(M,) index into the scored classes, -1 for others."""
    det_height: I64
    """(M,) cut to whole pixels."""
    det_dontcare: np.ndarray
    """(M,) bool: in a DontCare region by more than its class's overlap."""
    pair_gt: I64
    """(P,) rows that overlap by more than the class asks, sorted by gt row, then detection row."""
    pair_det: I64
    pair_iou: F64
    pair_similarity: F64
    """(P,) (1 + cos Δalpha) / 2."""


def _class_indices(table: ObjectTable, wanted: tuple[str | None, ...]) -> I64:
    """(N,) which of `wanted` each row's class is, -1 for none."""
    return class_indices(table.class_names, wanted)[table.class_ids] if len(table) else np.zeros(0, np.int64)


def _overlaps(gt: ObjectTable, detections: ObjectTable) -> _Overlaps:
    own = _class_indices(gt, OBJECT_CLASSES_SCORED)
    neighbour = _class_indices(gt, tuple(NEIGHBOUR[name] for name in OBJECT_CLASSES_SCORED))
    gt_class = np.maximum(own, neighbour)
    det_class = _class_indices(detections, OBJECT_CLASSES_SCORED)
    det_height = np.abs(detections.heights).astype(np.int64)
    minimum = np.array([MINIMUM_OVERLAP[name] for name in OBJECT_CLASSES_SCORED])

    judged = np.flatnonzero(gt_class >= 0)
    usable = np.flatnonzero((det_class >= 0) | (det_height < max(MINIMUM_HEIGHT.values())))
    gt_area, det_area = signed_areas(gt.boxes_xyxy), signed_areas(detections.boxes_xyxy)
    found = []
    for index_gt, index_det in same_frame_pairs(gt.frames[judged], detections.frames[usable]):
        i, j = judged[index_gt], usable[index_det]
        legal = (gt_class[i] == det_class[j]) | (det_height[j] < max(MINIMUM_HEIGHT.values()))
        i, j = i[legal], j[legal]
        shared = intersections(detections.boxes_xyxy[j], gt.boxes_xyxy[i])
        some = shared > 0
        i, j, shared = i[some], j[some], shared[some]
        iou = shared / (det_area[j] + gt_area[i] - shared)
        enough = iou > minimum[gt_class[i]]
        found.append((i[enough], j[enough], iou[enough]))
    pair_gt, pair_det, pair_iou = concatenate(found, (int, int, float))

    dontcare = np.flatnonzero(gt.is_class("DontCare"))
    scored = np.flatnonzero(det_class >= 0)
    det_dontcare = np.zeros(len(detections), bool)
    for index_dc, index_det in same_frame_pairs(gt.frames[dontcare], detections.frames[scored]):
        i, j = dontcare[index_dc], scored[index_det]
        shared = intersections(detections.boxes_xyxy[j], gt.boxes_xyxy[i])
        some = shared > 0
        j, shared = j[some], shared[some]
        det_dontcare[j[shared / det_area[j] > minimum[det_class[j]]]] = True

    return _Overlaps(
        gt_class=gt_class,
        gt_neighbour=neighbour >= 0,
        det_class=det_class,
        det_height=det_height,
        det_dontcare=det_dontcare,
        pair_gt=pair_gt,
        pair_det=pair_det,
        pair_iou=pair_iou,
        pair_similarity=(1 + np.cos(gt.alpha[pair_gt] - detections.alpha[pair_det])) / 2,
    )


# ---------------------------------------------------------------- one class, one level


@dataclass(frozen=True, eq=False)
class _Case:
    """One class at one level: who takes part, who is ignored, and the pairs in question."""

    gt_rows: I64
    gt_valid: np.ndarray
    """(N,) bool by row of the table."""
    det_ignored: np.ndarray
    """(M,) bool by row: too small, of whatever class."""
    det_valid: np.ndarray
    """(M,) bool by row: of the class and not too small."""
    pair: I64
    """(P,) index into the pairs of `_Overlaps`, in their order."""


def _case(gt: ObjectTable, overlaps: _Overlaps, class_name: str, level: str) -> _Case:
    index = OBJECT_CLASSES_SCORED.index(class_name)
    of_class = overlaps.gt_class == index
    within = (
        (gt.occlusion <= MAXIMUM_OCCLUSION[level])
        & (gt.truncation <= MAXIMUM_TRUNCATION[level])
        & (gt.heights > MINIMUM_HEIGHT[level])
    )
    det_ignored = overlaps.det_height < MINIMUM_HEIGHT[level]
    det_valid = (overlaps.det_class == index) & ~det_ignored
    return _Case(
        gt_rows=np.flatnonzero(of_class),
        gt_valid=of_class & ~overlaps.gt_neighbour & within,
        det_ignored=det_ignored,
        det_valid=det_valid,
        pair=np.flatnonzero(of_class[overlaps.pair_gt] & (det_valid | det_ignored)[overlaps.pair_det]),
    )


def _greedy(gt: I64, det: I64, priority: I64) -> I64:
    """Ground truths, lowest number first, each take the free detection of highest priority.

    Args:
        gt: (P,) of each pair, non-decreasing.
        det: (P,) of each pair. Only pairs that share a detection influence one another.
        priority: (P,) different numbers.

    Returns:
        Indices of the pairs that were chosen, at most one for each ground truth.

    All ground truths whose detections no earlier, undecided one wants are decided at once.
    """
    alive = np.arange(len(gt))
    first_of_det = np.empty(int(det.max()) + 1 if len(det) else 0, np.int64)
    chosen = [np.zeros(0, np.int64)]
    while len(alive):
        g, d = gt[alive], det[alive]
        first_of_det[d[::-1]] = g[::-1]  # the last to write is the lowest ground truth
        starts = np.flatnonzero(np.concatenate([[True], g[1:] != g[:-1]]))  # (U,) first pair of each ground truth
        ready = np.logical_and.reduceat(first_of_det[d] == g, starts)  # (U,)
        sizes = np.diff(np.append(starts, len(g)))
        best = np.maximum.reduceat(priority[alive], starts)
        takes = np.repeat(ready, sizes) & (priority[alive] == np.repeat(best, sizes))
        chosen.append(alive[takes])
        if ready.all():
            break
        first_of_det[d[takes]] = -1  # taken
        alive = alive[~np.repeat(ready, sizes) & (first_of_det[d] >= 0)]
    return np.concatenate(chosen)


def _ranks(*keys: np.ndarray) -> I64:
    """(P,) the place of each entry when sorted by the last key, then the one before it, and so on."""
    order = np.lexsort(keys)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _counting_priority(overlaps: _Overlaps, case: _Case) -> I64:
    """Largest overlap first; an ignored detection only where nothing valid matches, then the first in the file."""
    det = overlaps.pair_det[case.pair]
    valid = case.det_valid[det]
    return _ranks(-det, np.where(valid, overlaps.pair_iou[case.pair], 0.0), valid)


def _changes(gt: I64, det: I64, scores: F64, priority: I64) -> tuple[I64, I64, F64]:
    """How the counting pass's matching changes while the threshold falls from above all scores.

    Args:
        gt, det, scores, priority: (P,) pairs in order of gt.

    Returns:
        Pairs (Q,) that are matched (+1) or given up (-1) when the threshold reaches a score: pair, sign and score.
    """
    suitor = np.empty(int(det.max(initial=0)) + 1, np.int64)
    suitor[det] = gt  # one of them
    rivals = np.zeros(len(suitor), bool)
    rivals[det[suitor[det] != gt]] = True  # detections that several want
    tangled_gt = np.zeros(int(gt.max(initial=0)) + 1, bool)
    tangled_gt[gt[rivals[det]]] = True
    tangled = tangled_gt[gt]
    parts = [_changes_alone(gt, scores, priority, np.flatnonzero(~tangled))]
    parts.append(_changes_tangled(gt, det, scores, priority, np.flatnonzero(tangled)))
    pairs, signs, levels = concatenate(parts, (int, int, float))
    return pairs, signs, levels


def _changes_alone(gt: I64, scores: F64, priority: I64, part: I64) -> tuple[I64, I64, F64]:
    """Ground truths that compete with nobody: each has the best of what has come so far."""
    part = part[np.lexsort((-scores[part], gt[part]))]
    first = np.diff(gt[part], prepend=-1) != 0
    place = np.cumsum(first)
    best = np.maximum.accumulate(place * len(gt) + priority[part]) % max(len(gt), 1)  # restarts at each ground truth
    new = first | (np.diff(best, prepend=-1) != 0)
    given_up = np.flatnonzero(new & ~first)
    pair_of = np.empty(len(gt), np.int64)
    pair_of[priority] = np.arange(len(gt))
    pairs = np.concatenate([pair_of[best[new]], pair_of[best[given_up - 1]]])
    signs = np.repeat([1, -1], [int(new.sum()), len(given_up)])
    return pairs, signs, scores[np.concatenate([part[new], part[given_up]])]


def _changes_tangled(gt: I64, det: I64, scores: F64, priority: I64, part: I64) -> tuple[I64, I64, F64]:
    """Ground truths that compete: a detection that comes in goes to the first that likes it better than its own.

    That one's old detection is then free for those after it in the file (those before it have had their choice, and
    like their own better), and so on: the same matching as if all had chosen again, in order, among what is there.
    """
    suitors: dict[int, list[tuple[int, int]]] = {}  # of each detection: (gt, pair), in order of gt
    for pair, g, d in zip(part.tolist(), gt[part].tolist(), det[part].tolist(), strict=True):
        suitors.setdefault(d, []).append((g, pair))
    rank, owner = priority.tolist(), det.tolist()
    matched: dict[int, int] = {}
    changes: list[tuple[int, int, float]] = []
    for score, free in sorted(((scores[pairs[0][1]], d) for d, pairs in suitors.items()), key=lambda e: -e[0]):
        bumped = True
        while bumped:
            bumped = False
            for g, pair in suitors[free]:
                old = matched.get(g)
                if old is not None and rank[pair] < rank[old]:
                    continue
                matched[g] = pair
                changes.append((pair, 1, score))
                if old is not None:
                    changes.append((old, -1, score))
                    free, bumped = owner[old], True
                break
    pairs, signs, levels = zip(*changes, strict=True) if changes else ((), (), ())
    return np.array(pairs, np.int64), np.array(signs, np.int64), np.array(levels, np.float64)


def _curve(gt: ObjectTable, detections: ObjectTable, overlaps: _Overlaps, class_name: str, level: str) -> ObjectCurve:
    assert detections.scores is not None
    case = _case(gt, overlaps, class_name, level)
    pair_gt, pair_det = overlaps.pair_gt[case.pair], overlaps.pair_det[case.pair]
    gt_valid, det_valid = case.gt_valid[pair_gt], case.det_valid[pair_det]
    scores = detections.scores[pair_det]

    # the pass that collects thresholds: highest score, the first in the file among equals
    heard = np.flatnonzero(scores > _NO_DETECTION)
    first = heard[_greedy(pair_gt[heard], pair_det[heard], _ranks(-pair_det[heard], scores[heard]))]
    first = first[gt_valid[first] & det_valid[first]]

    # the counting pass: what changes at every score
    pair, sign, levels = _changes(pair_gt, pair_det, scores, _counting_priority(overlaps, case))
    hit = gt_valid & det_valid
    forgiven = det_valid & ~overlaps.det_dontcare[pair_det]  # a false positive, were it not matched
    lone = np.flatnonzero(case.det_valid & ~overlaps.det_dontcare)
    event_scores = np.concatenate([levels, detections.scores[lone]])
    order = np.argsort(-event_scores, kind="stable")

    def events(of_pairs: np.ndarray, of_lone: int = 0) -> np.ndarray:
        return np.concatenate([of_pairs[pair] * sign, np.full(len(lone), of_lone, of_pairs.dtype)])[order]

    return ObjectCurve(
        class_name=class_name,
        level=level,
        n_gt=np.bincount(gt.frames[case.gt_valid], minlength=len(gt.frame_names)),
        tp_frames=gt.frames[pair_gt[first]],
        tp_scores=scores[first],
        event_frames=np.concatenate([gt.frames[pair_gt[pair]], detections.frames[lone]])[order],
        event_scores=event_scores[order],
        event_tp=events(hit.astype(np.int64)),
        event_fp=events(-forgiven.astype(np.int64), 1),
        event_absorbed=events((gt_valid & ~det_valid).astype(np.int64)),
        event_similarity=events(np.where(hit, overlaps.pair_similarity[case.pair], 0.0)),
    )


# ---------------------------------------------------------------- the evaluator


def _check(gt: ObjectTable, detections: ObjectTable) -> None:
    if gt.frame_names != detections.frame_names:
        raise ValueError("labels and results are of different frames")
    if detections.scores is None:
        raise ValueError("results without scores")


def evaluate_objects(gt: ObjectTable, detections: ObjectTable) -> ObjectEvaluation:
    """Score the detections of a set of frames.

    Args:
        gt: labels of F frames, all classes, DontCare included.
        detections: results of the same frames, with scores.

    Returns:
        Numbers and counts for every class that was detected at least once, at every level.
    """
    _check(gt, detections)
    overlaps = _overlaps(gt, detections)
    has_orientation = not bool((detections.alpha == UNKNOWN_ALPHA).any())
    curves = {
        (class_name, level): _curve(gt, detections, overlaps, class_name, level)
        for class_name in OBJECT_CLASSES_SCORED
        if detections.is_class(class_name).any()
        for level in LEVELS
    }
    return ObjectEvaluation(
        gt=gt,
        detections=detections,
        curves=curves,
        scores={key: score_curve(curve, has_orientation) for key, curve in curves.items()},
        has_orientation=has_orientation,
    )


def match_objects(
    gt: ObjectTable, detections: ObjectTable, class_name: str, level: str, score_threshold: float = -np.inf
) -> ObjectMatches:
    """Who is matched with whom in the devkit's counting pass at one score threshold."""
    _check(gt, detections)
    assert detections.scores is not None
    overlaps = _overlaps(gt, detections)
    case = _case(gt, overlaps, class_name, level)
    heard = detections.scores >= score_threshold
    kept = np.flatnonzero(heard[overlaps.pair_det[case.pair]])
    pair = case.pair[kept]
    chosen = pair[_greedy(overlaps.pair_gt[pair], overlaps.pair_det[pair], _counting_priority(overlaps, case)[kept])]
    gt_det, det_gt = np.full(len(gt), -1), np.full(len(detections), -1)
    iou = np.zeros(len(gt))
    gt_det[overlaps.pair_gt[chosen]] = overlaps.pair_det[chosen]
    det_gt[overlaps.pair_det[chosen]] = overlaps.pair_gt[chosen]
    iou[overlaps.pair_gt[chosen]] = overlaps.pair_iou[chosen]
    det_rows = np.flatnonzero((case.det_valid | case.det_ignored) & heard)
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
    """Collects frames one by one and scores them all: what a training calls each epoch."""

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
