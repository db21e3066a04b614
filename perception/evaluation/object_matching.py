"""The matching of KITTI's object evaluation: overlaps, the devkit's two greedy passes, and their steps.

All frames are matched at once. Ground truths that share no detection do not influence one another, so only those that
do are matched in turn. `object.py` lists the surprising rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from perception.arrays import F64, I64
from perception.evaluation.pairs import (
    class_indices,
    concatenate,
    intersections,
    same_frame_pairs,
    signed_areas,
)
from perception.evaluation.results import OBJECT_CLASSES_SCORED, ObjectCurve
from perception.formats.kitti_table import ObjectTable

MINIMUM_HEIGHT = {"easy": 40, "moderate": 25, "hard": 25}
MAXIMUM_OCCLUSION = {"easy": 0, "moderate": 1, "hard": 2}
MAXIMUM_TRUNCATION = {"easy": 0.15, "moderate": 0.30, "hard": 0.50}
MINIMUM_OVERLAP = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
NEIGHBOUR = {"Car": "Van", "Pedestrian": "Person_sitting", "Cyclist": None}
_NO_DETECTION = -1e7
"""The devkit's initial best score: scores at or below it never become thresholds."""

# ---------------------------------------------------------------- overlaps


@dataclass(frozen=True, eq=False)
class Roles:
    """What a label or a result can be in the matching, equal for all metrics and levels."""

    gt_class: I64
    """(N,) index into the scored classes, a neighbour under its class; -1 for all others."""
    gt_neighbour: np.ndarray
    """(N,) bool."""
    det_class: I64
    """(M,) index into the scored classes, -1 for others."""
    det_height: I64
    """(M,) of the 2D box, cut to whole pixels."""

    @property
    def det_small(self) -> np.ndarray:
        """(M,) bool: too small at some level, so that it can match a label of any class there."""
        return self.det_height < max(MINIMUM_HEIGHT.values())


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The pairs that can match in one metric."""

    roles: Roles
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


def find_roles(gt: ObjectTable, detections: ObjectTable) -> Roles:
    """Sort labels and results by class and height."""
    own = _class_indices(gt, OBJECT_CLASSES_SCORED)
    neighbour = _class_indices(gt, tuple(NEIGHBOUR[name] for name in OBJECT_CLASSES_SCORED))
    return Roles(
        gt_class=np.maximum(own, neighbour),
        gt_neighbour=neighbour >= 0,
        det_class=_class_indices(detections, OBJECT_CLASSES_SCORED),
        det_height=np.abs(detections.heights).astype(np.int64),
    )


def possible_pairs(gt: ObjectTable, detections: ObjectTable, roles: Roles) -> Iterator[tuple[I64, I64]]:
    """Yield the rows of one frame that may match, in chunks: of one class, or with a result that is too small."""
    scored = np.flatnonzero(roles.gt_class >= 0)
    usable = np.flatnonzero((roles.det_class >= 0) | roles.det_small)
    for index_gt, index_det in same_frame_pairs(gt.frames[scored], detections.frames[usable]):
        i, j = scored[index_gt], usable[index_det]
        legal = (roles.gt_class[i] == roles.det_class[j]) | roles.det_small[j]
        yield i[legal], j[legal]


def dontcare_pairs(gt: ObjectTable, detections: ObjectTable, roles: Roles) -> Iterator[tuple[I64, I64]]:
    """Yield the DontCare rows and the results of the scored classes of one frame, in chunks."""
    dontcare, scored = np.flatnonzero(gt.is_class("DontCare")), np.flatnonzero(roles.det_class >= 0)
    for index_gt, index_det in same_frame_pairs(gt.frames[dontcare], detections.frames[scored]):
        yield dontcare[index_gt], scored[index_det]


def minimum_overlaps(by_class: Mapping[str, float]) -> F64:
    """Overlaps by index into the scored classes."""
    return np.array([by_class[name] for name in OBJECT_CLASSES_SCORED])


def find_overlaps(gt: ObjectTable, detections: ObjectTable, roles: Roles) -> Overlaps:
    """Overlap the 2D boxes of labels and results, frame by frame."""
    minimum = minimum_overlaps(MINIMUM_OVERLAP)
    gt_area, det_area = signed_areas(gt.boxes_xyxy), signed_areas(detections.boxes_xyxy)
    found = []
    for i, j in possible_pairs(gt, detections, roles):
        shared = intersections(detections.boxes_xyxy[j], gt.boxes_xyxy[i])
        some = shared > 0
        i, j, shared = i[some], j[some], shared[some]
        iou = shared / (det_area[j] + gt_area[i] - shared)
        enough = iou > minimum[roles.gt_class[i]]
        found.append((i[enough], j[enough], iou[enough]))
    pair_gt, pair_det, pair_iou = concatenate(found, (int, int, float))

    det_dontcare = np.zeros(len(detections), bool)
    for i, j in dontcare_pairs(gt, detections, roles):
        shared = intersections(detections.boxes_xyxy[j], gt.boxes_xyxy[i])
        some = shared > 0
        j, shared = j[some], shared[some]
        det_dontcare[j[shared / det_area[j] > minimum[roles.det_class[j]]]] = True

    similarity = (1 + np.cos(gt.alpha[pair_gt] - detections.alpha[pair_det])) / 2
    return Overlaps(roles, det_dontcare, pair_gt, pair_det, pair_iou, similarity)


# ---------------------------------------------------------------- one class, one level


@dataclass(frozen=True, eq=False)
class Case:
    """One class at one level: the valid and ignored rows, and the pairs that can match."""

    gt_rows: I64
    gt_valid: np.ndarray
    """(N,) bool by row of the table."""
    det_ignored: np.ndarray
    """(M,) bool by row: too small, of whatever class."""
    det_valid: np.ndarray
    """(M,) bool by row: of the class and not too small."""
    pair: I64
    """(P,) index into the pairs of `Overlaps`, in their order."""


def take_part(gt: ObjectTable, overlaps: Overlaps, class_name: str, level: str) -> Case:
    """Sort labels and detections into valid, ignored and neither, for one class and level."""
    index, roles = OBJECT_CLASSES_SCORED.index(class_name), overlaps.roles
    of_class = roles.gt_class == index
    within = (
        (gt.occlusion <= MAXIMUM_OCCLUSION[level])
        & (gt.truncation <= MAXIMUM_TRUNCATION[level])
        & (gt.heights > MINIMUM_HEIGHT[level])
    )
    det_ignored = roles.det_height < MINIMUM_HEIGHT[level]
    det_valid = (roles.det_class == index) & ~det_ignored
    return Case(
        gt_rows=np.flatnonzero(of_class),
        gt_valid=of_class & ~roles.gt_neighbour & within,
        det_ignored=det_ignored,
        det_valid=det_valid,
        pair=np.flatnonzero(of_class[overlaps.pair_gt] & (det_valid | det_ignored)[overlaps.pair_det]),
    )


def greedy(gt: I64, det: I64, priority: I64) -> I64:
    """Match greedily: each ground truth, lowest number first, takes the free detection of highest priority.

    Args:
        gt: (P,) of each pair, non-decreasing.
        det: (P,) of each pair. Only pairs that share a detection influence one another.
        priority: (P,) different numbers.

    Returns:
        Indices of the pairs that were chosen, at most one for each ground truth.

    All ground truths whose detections no earlier, unmatched one wants are matched at once.
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


def ranks(*keys: np.ndarray) -> I64:
    """Return the rank of each entry, (P,), sorted by the last key, then the one before it, and so on."""
    order = np.lexsort(keys)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def counting_priority(overlaps: Overlaps, case: Case) -> I64:
    """Rank pairs: largest overlap first; ignored detections after all valid ones, in the order of the file."""
    det = overlaps.pair_det[case.pair]
    valid = case.det_valid[det]
    return ranks(-det, np.where(valid, overlaps.pair_iou[case.pair], 0.0), valid)


def _changes(gt: I64, det: I64, scores: F64, priority: I64) -> tuple[I64, I64, F64]:
    """Return how the counting pass's matching changes while the threshold falls.

    Args:
        gt, det, scores, priority: (P,) pairs in order of gt.

    Returns:
        Pair, sign and score of Q changes: a pair is matched (+1) or given up (-1) when the threshold reaches a score.
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
    """Changes of ground truths without rivals: each keeps the best detection so far."""
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
    """Changes of ground truths with rivals: a new detection goes to the first that prefers it to its own.

    The detection given up is then free for the ground truths after it in the file, and so on. The matching is the
    same as if all had chosen again, in order, among all detections so far.
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


def count_steps(
    gt: ObjectTable, detections: ObjectTable, overlaps: Overlaps, class_name: str, level: str
) -> ObjectCurve:
    """Match one class at one level at all thresholds."""
    assert detections.scores is not None
    case = take_part(gt, overlaps, class_name, level)
    pair_gt, pair_det = overlaps.pair_gt[case.pair], overlaps.pair_det[case.pair]
    gt_valid, det_valid = case.gt_valid[pair_gt], case.det_valid[pair_det]
    scores = detections.scores[pair_det]

    # the pass that collects thresholds: highest score, the first in the file among equals
    usable = np.flatnonzero(scores > _NO_DETECTION)
    first = usable[greedy(pair_gt[usable], pair_det[usable], ranks(-pair_det[usable], scores[usable]))]
    first = first[gt_valid[first] & det_valid[first]]

    # the counting pass: what changes at every score
    pair, sign, levels = _changes(pair_gt, pair_det, scores, counting_priority(overlaps, case))
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
