"""HOTA, CLEAR and Identity over arrays of boxes, frames and ids, without KITTI's rules.

HOTA: Luiten et al., IJCV 2020. CLEAR MOT: Bernardin and Stiefelhagen, 2008. Identity: Ristani et al., 2016. Details
that the papers leave open follow TrackEval 1.3.0; `tracking.py` lists the surprising ones.

The boxes of a sequence are columns over all frames, and only overlapping pairs are kept. So cost and memory grow with
the number of boxes, not with the square of the number of tracks. The assignment problem is solved only in frames with
a choice, and there over the whole frame, as TrackEval does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from perception.arrays import F64, I64
from perception.evaluation.pairs import components, concatenate, intersections, same_frame_pairs, signed_areas
from perception.evaluation.results import (
    ALPHAS,
    ClearCounts,
    HotaCounts,
    IdentityCounts,
    TrackingFrames,
    TrackingScore,
    TrackingSizes,
)

OVERLAP = 0.5
"""IoU from which CLEAR and Identity take a pair for the same object."""
EPS = float(np.finfo("float").eps)

# ---------------------------------------------------------------- one sequence as columns


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Two sets of boxes over the frames of one sequence, and the pairs of them that overlap.

    Both sets are sorted by frame. All metrics are functions of this.
    """

    gt_frames: I64
    """(G,) frame of each ground truth box."""
    gt_ids: I64
    """(G,) identity."""
    tracker_frames: I64
    """(T,)"""
    tracker_ids: I64
    pair_gt: I64
    """(P,) index of the ground truth box of each pair with IoU > 0; pairs are sorted by it."""
    pair_tracker: I64
    pair_iou: F64

    def keep(self, gt: np.ndarray, tracker: np.ndarray) -> Overlaps:
        """Only the boxes that two masks, (G,) and (T,), choose."""
        pairs = gt[self.pair_gt] & tracker[self.pair_tracker]
        return Overlaps(
            gt_frames=self.gt_frames[gt],
            gt_ids=self.gt_ids[gt],
            tracker_frames=self.tracker_frames[tracker],
            tracker_ids=self.tracker_ids[tracker],
            pair_gt=(np.cumsum(gt) - 1)[self.pair_gt[pairs]],
            pair_tracker=(np.cumsum(tracker) - 1)[self.pair_tracker[pairs]],
            pair_iou=self.pair_iou[pairs],
        )


def overlaps(
    gt_frames: I64, gt_ids: I64, gt_boxes: F64, tracker_frames: I64, tracker_ids: I64, tracker_boxes: F64
) -> Overlaps:
    """Overlap the boxes of each frame; both sides sorted by frame, boxes (N, 4)."""
    gt_area, tracker_area = signed_areas(gt_boxes), signed_areas(tracker_boxes)
    found = []
    for i, j in same_frame_pairs(gt_frames, tracker_frames):
        shared = intersections(gt_boxes[i], tracker_boxes[j])
        some = (shared > 0) & (gt_area[i] > EPS) & (tracker_area[j] > EPS)
        i, j, shared = i[some], j[some], shared[some]
        found.append((i, j, shared / (gt_area[i] + tracker_area[j] - shared)))
    pair_gt, pair_tracker, pair_iou = concatenate(found, (int, int, float))
    return Overlaps(gt_frames, gt_ids, tracker_frames, tracker_ids, pair_gt, pair_tracker, pair_iou)


def assign(data: Overlaps, pairs: I64, scores: F64) -> I64:
    """The pairs of a one-to-one matching with the highest sum of scores in every frame.

    Args:
        pairs: (Q,) indices of the pairs that may be matched, in order.
        scores: (Q,) positive.

    Returns:
        Indices of the matched pairs, in order.
    """
    gt, tracker = data.pair_gt[pairs], data.pair_tracker[pairs]
    rivals = (np.bincount(gt, minlength=1)[gt] > 1) | (np.bincount(tracker, minlength=1)[tracker] > 1)
    frames = data.gt_frames[gt]
    contested = np.unique(frames[rivals])
    chosen = ~np.isin(frames, contested)
    for matrix, rows, columns, part in _frame_matrices(data, contested, frames, gt, tracker, scores):
        chosen[part] = best_columns(matrix)[rows] == columns
    return pairs[chosen]


def best_columns(gains: F64) -> I64:
    """The column of each row in the one-to-one assignment with the highest sum, -1 for none.

    SciPy's solver, as TrackEval uses it, so that ties fall alike. Its import takes half a second.

    Args:
        gains: (N, M), finite.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(gains, maximize=True)
    if len(rows) == len(gains):  # rows come sorted
        return columns
    found = np.full(len(gains), -1)
    found[rows] = columns
    return found


def _frame_matrices(
    data: Overlaps, contested: I64, frames: I64, gt: I64, tracker: I64, scores: F64
) -> Iterator[tuple[F64, I64, I64, slice]]:
    """For each contested frame: the score matrix of all its boxes, and row, column and slice of its pairs."""
    starts, stops = np.searchsorted(frames, contested), np.searchsorted(frames, contested, side="right")
    gt_start = np.searchsorted(data.gt_frames, contested)
    gt_count = np.searchsorted(data.gt_frames, contested, side="right") - gt_start
    tracker_start = np.searchsorted(data.tracker_frames, contested)
    tracker_count = np.searchsorted(data.tracker_frames, contested, side="right") - tracker_start
    for start, stop, first_gt, n_gt, first_tracker, n_tracker in zip(
        *(a.tolist() for a in (starts, stops, gt_start, gt_count, tracker_start, tracker_count)), strict=True
    ):
        part = slice(start, stop)
        rows, columns = gt[part] - first_gt, tracker[part] - first_tracker
        matrix = np.zeros((n_gt, n_tracker))
        matrix[rows, columns] = scores[part]
        yield matrix, rows, columns, part


# ---------------------------------------------------------------- the three families of metrics


@dataclass(frozen=True, eq=False)
class _Links:
    """Pairs of identities that ever overlap, and how long each identity lives."""

    index: I64
    """(P,) link of each pair of boxes."""
    gt: I64
    """(L,) identity of each link, counted from 0."""
    tracker: I64
    gt_count: I64
    """(number of gt ids,) boxes of each identity."""
    tracker_count: I64


def _links(data: Overlaps) -> _Links:
    gt_ids, gt = np.unique(data.gt_ids, return_inverse=True)
    tracker_ids, tracker = np.unique(data.tracker_ids, return_inverse=True)
    keys, index = np.unique(
        gt[data.pair_gt] * max(len(tracker_ids), 1) + tracker[data.pair_tracker], return_inverse=True
    )
    return _Links(
        index=index,
        gt=keys // max(len(tracker_ids), 1),
        tracker=keys % max(len(tracker_ids), 1),
        gt_count=np.bincount(gt, minlength=len(gt_ids)),
        tracker_count=np.bincount(tracker, minlength=len(tracker_ids)),
    )


@dataclass(frozen=True, eq=False)
class HotaMatches:
    """HOTA's one matching, which holds for all alphas: a match counts at every alpha up to its overlap."""

    pairs: I64
    """(M,) matched pairs of `Overlaps`, in order of frame."""
    links: I64
    """(M,) link of each match."""
    reach: I64
    """(M,) number of alphas at which each match counts."""
    counts: I64
    """(L, 19) matches of each link by alpha."""
    ass_a: F64
    """(L, 19) association accuracy of each link."""
    ass_re: F64
    ass_pr: F64


def hota_matches(data: Overlaps) -> HotaMatches:
    """Match by overlap, and by how well the two identities agree over the whole sequence."""
    links = _links(data)
    iou = data.pair_iou
    by_gt = np.bincount(data.pair_gt, iou, minlength=len(data.gt_frames))
    by_tracker = np.bincount(data.pair_tracker, iou, minlength=len(data.tracker_frames))
    share = iou / (by_gt[data.pair_gt] + by_tracker[data.pair_tracker] - iou)
    potential = np.bincount(links.index, share, minlength=len(links.gt))
    gt_lives, tracker_lives = links.gt_count[links.gt], links.tracker_count[links.tracker]
    alignment = potential / (gt_lives + tracker_lives - potential)
    matched = assign(data, np.arange(len(iou)), alignment[links.index] * iou)

    reach = np.searchsorted(ALPHAS - EPS, iou[matched], side="right")
    steps = len(ALPHAS) + 1
    at = links.index[matched] * steps + reach
    by_reach = np.bincount(at, minlength=len(links.gt) * steps).reshape(-1, steps)
    counts = _at_least(by_reach)
    return HotaMatches(
        pairs=matched,
        links=links.index[matched],
        reach=reach,
        counts=counts,
        ass_a=counts / np.maximum(1, (gt_lives + tracker_lives)[:, None] - counts),
        ass_re=counts / gt_lives[:, None],
        ass_pr=counts / tracker_lives[:, None],
    )


def _at_least(by_reach: np.ndarray) -> np.ndarray:
    """(…, 20) sums by reach → (…, 19) sums over all that reach each alpha."""
    return np.cumsum(by_reach[..., ::-1], axis=-1)[..., ::-1][..., 1:]


def hota(data: Overlaps, matches: HotaMatches | None = None) -> HotaCounts:
    """HOTA's sums; `matches` as `hota_matches` gives them, if they are there already."""
    found = hota_matches(data) if matches is None else matches
    tp = found.counts.sum(axis=0)
    iou_by_reach = np.bincount(found.reach, data.pair_iou[found.pairs], minlength=len(ALPHAS) + 1)
    return HotaCounts(
        tp=tp.astype(float),
        fn=(len(data.gt_frames) - tp).astype(float),
        fp=(len(data.tracker_frames) - tp).astype(float),
        iou_sum=_at_least(iou_by_reach).astype(float),
        ass_a_sum=(found.counts * found.ass_a).sum(axis=0),
        ass_re_sum=(found.counts * found.ass_re).sum(axis=0),
        ass_pr_sum=(found.counts * found.ass_pr).sum(axis=0),
    )


@dataclass(frozen=True, eq=False)
class ClearMatches:
    """CLEAR's matching, frame after frame."""

    pairs: I64
    """(M,) matched pairs of `Overlaps`, in order of frame."""
    is_switch: np.ndarray
    """(M,) bool: another tracker id than when this ground truth was last matched."""
    is_start: np.ndarray
    """(M,) bool: the ground truth was not matched in the frame before, so that a fragment starts."""


def clear_matches(data: Overlaps) -> ClearMatches:
    """Keep to the partner of the frame before where it still overlaps by half, then take the largest overlap."""
    pairs = np.flatnonzero(data.pair_iou >= OVERLAP - EPS)
    gt, tracker, iou = data.pair_gt[pairs], data.pair_tracker[pairs], data.pair_iou[pairs]
    frames, gt_ids, tracker_ids = data.gt_frames[gt], data.gt_ids[gt], data.tracker_ids[tracker]
    active = np.intersect1d(data.gt_frames, data.tracker_frames)  # frames with both sides; others are skipped
    rivals = (np.bincount(gt, minlength=1)[gt] > 1) | (np.bincount(tracker, minlength=1)[tracker] > 1)
    contested = np.unique(frames[rivals])
    chosen = ~np.isin(frames, contested)
    before = active[np.maximum(np.searchsorted(active, contested) - 1, 0)]
    before_parts = zip(
        np.searchsorted(frames, before).tolist(), np.searchsorted(frames, before, side="right").tolist(), strict=True
    )
    matrices = _frame_matrices(data, contested, frames, gt, tracker, iou)
    for (matrix, rows, columns, part), (start, stop) in zip(matrices, before_parts, strict=True):
        if start < part.start:  # not the first frame of all
            old = slice(start, stop)
            partner = dict(
                zip(gt_ids[old][chosen[old]].tolist(), tracker_ids[old][chosen[old]].tolist(), strict=True)
            )
            stay = [
                partner.get(g) == t for g, t in zip(gt_ids[part].tolist(), tracker_ids[part].tolist(), strict=True)
            ]
            matrix[rows, columns] += 1000.0 * np.array(stay)
        chosen[part] = best_columns(matrix)[rows] == columns

    matched = np.flatnonzero(chosen)
    order = np.lexsort((frames[matched], gt_ids[matched]))
    own = matched[order]  # by identity, then time
    same = np.concatenate([np.zeros(min(1, len(own)), bool), gt_ids[own][1:] == gt_ids[own][:-1]])
    changed = np.concatenate([np.zeros(min(1, len(own)), bool), tracker_ids[own][1:] != tracker_ids[own][:-1]])
    places = np.searchsorted(active, frames[own])
    adjacent = np.concatenate([np.zeros(min(1, len(own)), bool), places[1:] == places[:-1] + 1])
    is_switch, is_start = np.zeros(len(own), bool), np.zeros(len(own), bool)
    is_switch[order] = same & changed
    is_start[order] = ~(same & adjacent)
    return ClearMatches(pairs[matched], is_switch, is_start)


def clear(data: Overlaps, n_frames: int, matches: ClearMatches | None = None) -> ClearCounts:
    """CLEAR's sums; `matches` as `clear_matches` gives them, if they are there already."""
    gt_ids, gt = np.unique(data.gt_ids, return_inverse=True)
    if not len(data.tracker_frames):
        return ClearCounts(fn=len(gt), ml=len(gt_ids))
    if not len(gt):
        return ClearCounts(fp=len(data.tracker_frames))
    found = clear_matches(data) if matches is None else matches
    of_matched = gt[data.pair_gt[found.pairs]]
    tracked = np.bincount(of_matched, minlength=len(gt_ids)) / np.bincount(gt)
    mostly, partly = int((tracked > 0.8).sum()), int((tracked >= 0.2).sum())
    return ClearCounts(
        tp=len(found.pairs),
        fn=len(gt) - len(found.pairs),
        fp=len(data.tracker_frames) - len(found.pairs),
        idsw=int(found.is_switch.sum()),
        mt=mostly,
        pt=partly - mostly,
        ml=len(gt_ids) - partly,
        frag=int(found.is_start.sum()) - len(np.unique(of_matched)),
        frames=n_frames,
        iou_sum=float(data.pair_iou[found.pairs].sum()),
    )


def identity_matches(data: Overlaps) -> I64:
    """The pairs that overlap enough and whose identities are partners.

    Every identity has at most one partner over the whole sequence, so that most boxes are explained.
    """
    links = _links(data)
    close = data.pair_iou >= OVERLAP
    common = np.bincount(links.index, close, minlength=len(links.gt))  # frames together
    useful = np.flatnonzero(common > 0)
    gt, tracker = links.gt[useful], links.tracker[useful]
    group = components(gt, tracker)
    partners = np.zeros(len(links.gt), bool)
    for part in np.split(np.argsort(group, kind="stable"), np.flatnonzero(np.diff(np.sort(group))) + 1):
        if len(part) == 1:
            partners[useful[part]] = True
            continue
        _, rows = np.unique(gt[part], return_inverse=True)
        _, columns = np.unique(tracker[part], return_inverse=True)
        matrix = np.zeros((rows.max(initial=-1) + 1, columns.max(initial=-1) + 1))
        matrix[rows, columns] = common[useful[part]]
        partners[useful[part]] = best_columns(matrix)[rows] == columns
    return np.flatnonzero(close & partners[links.index])


def identity(data: Overlaps, matches: I64 | None = None) -> IdentityCounts:
    """Identity's sums; `matches` as `identity_matches` gives them, if they are there already."""
    idtp = len(identity_matches(data) if matches is None else matches)
    return IdentityCounts(idtp, len(data.gt_frames) - idtp, len(data.tracker_frames) - idtp)


def frame_shares(
    data: Overlaps, n_frames: int, found: HotaMatches, clear_found: ClearMatches, identity_found: I64
) -> TrackingFrames:
    """What each frame added to the sums of the three families."""
    gt = np.bincount(data.gt_frames, minlength=n_frames)
    boxes = np.bincount(data.tracker_frames, minlength=n_frames)

    def by_frame(pairs: I64, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(data.gt_frames[data.pair_gt[pairs]], weights, minlength=n_frames)

    steps = len(ALPHAS) + 1
    frames = data.gt_frames[data.pair_gt[found.pairs]]
    hota_tp = _at_least(np.bincount(frames * steps + found.reach, minlength=n_frames * steps).reshape(-1, steps))
    reached = np.arange(len(ALPHAS)) < found.reach[:, None]  # (M, 19)
    hota_ass = np.zeros((n_frames, len(ALPHAS)))
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    if len(starts):
        hota_ass[frames[starts]] = np.add.reduceat(np.where(reached, found.ass_a[found.links], 0.0), starts)
    tp, idtp = by_frame(clear_found.pairs), by_frame(identity_found)
    switches = by_frame(clear_found.pairs, clear_found.is_switch).astype(np.int64)
    return TrackingFrames(
        hota_tp=hota_tp.astype(float),
        hota_fn=gt[:, None] - hota_tp.astype(float),
        hota_fp=boxes[:, None] - hota_tp.astype(float),
        hota_ass=hota_ass,
        clear=np.stack([tp, gt - tp, boxes - tp, switches], axis=1),
        identity=np.stack([idtp, gt - idtp, boxes - idtp], axis=1),
    )


# ---------------------------------------------------------------- numbers from sums


T = TypeVar("T", HotaCounts, ClearCounts, IdentityCounts, TrackingSizes)


def total(parts: Sequence[T]) -> T:
    """Field by field sum of counts of one kind."""
    return type(parts[0])(
        *(sum((getattr(p, f.name) for p in parts[1:]), getattr(parts[0], f.name)) for f in fields(parts[0]))
    )


def hota_values(counts: HotaCounts) -> dict[str, F64]:
    """HOTA's family by alpha, each (19,)."""
    tp = counts.tp
    values = {
        "DetA": tp / np.maximum(1, tp + counts.fn + counts.fp),
        "AssA": counts.ass_a_sum / np.maximum(1, tp),
        "DetRe": tp / np.maximum(1, tp + counts.fn),
        "DetPr": tp / np.maximum(1, tp + counts.fp),
        "AssRe": counts.ass_re_sum / np.maximum(1, tp),
        "AssPr": counts.ass_pr_sum / np.maximum(1, tp),
        "LocA": np.maximum(1e-10, counts.iou_sum) / np.maximum(1e-10, tp),
    }
    return {
        "HOTA": np.sqrt(values["DetA"] * values["AssA"]),
        **values,
        "OWTA": np.sqrt(values["DetRe"] * values["AssA"]),
    }


def clear_values(counts: ClearCounts) -> dict[str, float]:
    """CLEAR's numbers by TrackEval's names."""
    gt, boxes = max(1, counts.tp + counts.fn), max(1, counts.tp + counts.fp)
    ids = max(1, counts.mt + counts.pt + counts.ml)
    return {
        "MOTA": (counts.tp - counts.fp - counts.idsw) / gt,
        "MOTP": counts.iou_sum / max(1, counts.tp),
        "MODA": (counts.tp - counts.fp) / gt,
        "CLR_Re": counts.tp / gt,
        "CLR_Pr": counts.tp / boxes,
        "CLR_F1": counts.tp / max(1.0, counts.tp + 0.5 * counts.fn + 0.5 * counts.fp),
        "MTR": counts.mt / ids,
        "PTR": counts.pt / ids,
        "MLR": counts.ml / ids,
        "sMOTA": (counts.iou_sum - counts.fp - counts.idsw) / gt,
        "MOTAL": (counts.tp - counts.fp - (np.log10(counts.idsw) if counts.idsw else 0)) / gt,
        "FP_per_frame": counts.fp / max(1, counts.frames),
    }


def identity_values(counts: IdentityCounts) -> dict[str, float]:
    """Identity's numbers by TrackEval's names."""
    return {
        "IDF1": counts.idtp / max(1.0, counts.idtp + 0.5 * counts.idfp + 0.5 * counts.idfn),
        "IDR": counts.idtp / max(1, counts.idtp + counts.idfn),
        "IDP": counts.idtp / max(1, counts.idtp + counts.idfp),
    }


def score(
    hota_counts: HotaCounts,
    clear_counts: ClearCounts,
    identity_counts: IdentityCounts,
    sizes: TrackingSizes,
    *,
    combined: bool = False,
) -> TrackingScore:
    """Compute all numbers from the sums of one sequence, or of several together."""
    by_alpha = hota_values(hota_counts)
    clear_numbers = clear_values(clear_counts)
    if clear_counts.frames == 0 and not combined:  # one side is empty: TrackEval stops before a sequence's ratios
        clear_numbers = {name: 1.0 if name == "MLR" else 0.0 for name in clear_numbers}
    values = {name: float(np.mean(values)) for name, values in by_alpha.items()}
    values["HOTA(0)"], values["LocA(0)"] = float(by_alpha["HOTA"][0]), float(by_alpha["LocA"][0])
    values["HOTALocA(0)"] = values["HOTA(0)"] * values["LocA(0)"]
    values |= {name: float(value) for name, value in clear_numbers.items()}
    for name in ("tp", "fn", "fp"):
        values[f"CLR_{name.upper()}"] = float(getattr(clear_counts, name))
    values |= {name.upper(): float(getattr(clear_counts, name)) for name in ("idsw", "mt", "pt", "ml")}
    values |= {"Frag": float(clear_counts.frag), "CLR_Frames": float(clear_counts.frames)}
    values |= identity_values(identity_counts)
    values |= {name.upper(): float(getattr(identity_counts, name)) for name in ("idtp", "idfn", "idfp")}
    values |= {
        "Dets": float(sizes.dets),
        "GT_Dets": float(sizes.gt_dets),
        "IDs": float(sizes.ids),
        "GT_IDs": float(sizes.gt_ids),
        "Frames": float(sizes.frames),
    }
    arrays = {"HOTA_TP": hota_counts.tp, "HOTA_FN": hota_counts.fn, "HOTA_FP": hota_counts.fp}
    return TrackingScore(values=values, by_alpha=by_alpha | arrays)
