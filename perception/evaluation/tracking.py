"""KITTI's tracking scores: HOTA, CLEAR and Identity of 2D boxes, equal to TrackEval's.

Metrics: HOTA (Luiten et al., IJCV 2020), CLEAR MOT (Bernardin and Stiefelhagen, 2008), Identity (Ristani et al.,
2016). Rules: KITTI's tracking benchmark, as TrackEval 1.3.0 applies them (`Kitti2DBox`), whose numbers are recorded.

A sequence's boxes are kept as columns over all frames, and only pairs that overlap are ever looked at; so cost and
memory grow with the number of boxes, not with tracks squared. The assignment problem is solved only in frames where
somebody has a choice, and there over the whole frame, as TrackEval does.

What TrackEval does that surprises, and is followed here:

- Car and Pedestrian alone are scored. Boxes matched to a Van (for Car), a sitting person (for Pedestrian), an
  occluded (> 2) or truncated (> 0) ground truth are taken away, as are those ground truths; unmatched boxes are
  taken away where they are at most 25 pixels high, or more than half in a DontCare region. This is decided before,
  and apart from, the matching that is scored.
- CLEAR continues a track from the last frame that had both ground truth and tracker boxes, however long ago. A
  track that was not matched in that frame starts a new fragment: so perfect results have fragmentations.
- A sequence without ground truth, or without tracker boxes, counts no frames for CLEAR, and its own MLR is 1 and
  its other ratios 0, whatever its counts say. Its localisation accuracy LocA is 1.
- Identity takes an overlap of exactly 0.5 without the tolerance of one rounding step that CLEAR and HOTA grant.
- Ids must be unique in a frame over all classes together, and rows with a negative id are dropped first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from perception.errors import UserError
from perception.evaluation.pairs import class_indices, concatenate, intersections, same_frame_pairs, signed_areas
from perception.evaluation.results import (
    ALPHAS,
    TRACKING_CLASSES_SCORED,
    ClearCounts,
    HotaCounts,
    IdentityCounts,
    TrackingEvaluation,
    TrackingScore,
    TrackingSequence,
    TrackingSizes,
    TrackingTimeline,
)
from perception.formats.kitti import TrackingRows
from perception.types import F64, I64

DISTRACTORS = {"Car": ("Van",), "Pedestrian": ("Person", "Person_sitting")}
MAXIMUM_OCCLUSION = 2
MAXIMUM_TRUNCATION = 0
MINIMUM_HEIGHT = 25
OVERLAP = 0.5
_EPS = float(np.finfo("float").eps)

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
        some = (shared > 0) & (gt_area[i] > _EPS) & (tracker_area[j] > _EPS)
        i, j, shared = i[some], j[some], shared[some]
        found.append((i, j, shared / (gt_area[i] + tracker_area[j] - shared)))
    pair_gt, pair_tracker, pair_iou = concatenate(found, (int, int, float))
    return Overlaps(gt_frames, gt_ids, tracker_frames, tracker_ids, pair_gt, pair_tracker, pair_iou)


def _assign(data: Overlaps, pairs: I64, scores: F64) -> I64:
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
        matched_columns = np.full(len(matrix), -1)
        matched_rows, found = linear_sum_assignment(matrix, maximize=True)
        matched_columns[matched_rows] = found
        chosen[part] = matched_columns[rows] == columns
    return pairs[chosen]


def _frame_matrices(data: Overlaps, contested: I64, frames: I64, gt: I64, tracker: I64, scores: F64):
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


def hota(data: Overlaps) -> HotaCounts:
    """HOTA's sums: match by overlap and by how well the two identities agree over the whole sequence."""
    links = _links(data)
    gt_total, tracker_total = len(data.gt_frames), len(data.tracker_frames)
    alpha_count = len(ALPHAS)
    iou = data.pair_iou
    by_gt = np.bincount(data.pair_gt, iou, minlength=gt_total)
    by_tracker = np.bincount(data.pair_tracker, iou, minlength=tracker_total)
    share = iou / (by_gt[data.pair_gt] + by_tracker[data.pair_tracker] - iou)
    potential = np.bincount(links.index, share, minlength=len(links.gt))
    lives = links.gt_count[links.gt] + links.tracker_count[links.tracker]
    alignment = potential / (lives - potential)
    matched = _assign(data, np.arange(len(iou)), alignment[links.index] * iou)

    # a match counts at all alphas up to its overlap
    reach = np.searchsorted(ALPHAS - _EPS, iou[matched], side="right")  # number of alphas
    at = links.index[matched] * (alpha_count + 1) + reach
    by_reach = np.bincount(at, minlength=len(links.gt) * (alpha_count + 1)).reshape(-1, alpha_count + 1)
    counts = np.cumsum(by_reach[:, ::-1], axis=1)[:, ::-1][:, 1:]  # (L, 19) matches of each link by alpha
    tp = counts.sum(axis=0)
    iou_by_reach: F64 = np.bincount(reach, iou[matched], minlength=alpha_count + 1).astype(np.float64)
    union = lives[:, None] - counts
    return HotaCounts(
        tp=tp.astype(float),
        fn=(gt_total - tp).astype(float),
        fp=(tracker_total - tp).astype(float),
        iou_sum=np.cumsum(iou_by_reach[::-1])[::-1][1:],
        ass_a_sum=(counts * counts / np.maximum(union, 1)).sum(axis=0),
        ass_re_sum=(counts * counts / links.gt_count[links.gt][:, None]).sum(axis=0),
        ass_pr_sum=(counts * counts / links.tracker_count[links.tracker][:, None]).sum(axis=0),
    )


def clear_matches(data: Overlaps) -> tuple[I64, np.ndarray, np.ndarray]:
    """CLEAR's matching: keep to the partner of the frame before, then the largest overlap.

    Returns:
        Indices of the matched pairs (M,), in order of frame; whether each is an identity switch, and whether each
        starts a fragment, (M,) bool.
    """
    pairs = np.flatnonzero(data.pair_iou >= OVERLAP - _EPS)
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
        matched_columns = np.full(len(matrix), -1)
        matched_rows, found = linear_sum_assignment(matrix, maximize=True)
        matched_columns[matched_rows] = found
        chosen[part] = matched_columns[rows] == columns

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
    return pairs[matched], is_switch, is_start


def clear(data: Overlaps, n_frames: int, matches: tuple[I64, np.ndarray, np.ndarray] | None = None) -> ClearCounts:
    """CLEAR's sums; `matches` as `clear_matches` gives them, if they are there already."""
    gt_ids, gt = np.unique(data.gt_ids, return_inverse=True)
    if not len(data.tracker_frames):
        return ClearCounts(fn=len(gt), ml=len(gt_ids))
    if not len(gt):
        return ClearCounts(fp=len(data.tracker_frames))
    matched, is_switch, is_start = clear_matches(data) if matches is None else matches
    of_matched = gt[data.pair_gt[matched]]
    tracked = np.bincount(of_matched, minlength=len(gt_ids)) / np.bincount(gt)
    mostly, partly = int((tracked > 0.8).sum()), int((tracked >= 0.2).sum())
    return ClearCounts(
        tp=len(matched),
        fn=len(gt) - len(matched),
        fp=len(data.tracker_frames) - len(matched),
        idsw=int(is_switch.sum()),
        mt=mostly,
        pt=partly - mostly,
        ml=len(gt_ids) - partly,
        frag=int(is_start.sum()) - len(np.unique(of_matched)),
        frames=n_frames,
        iou_sum=float(data.pair_iou[matched].sum()),
    )


def identity(data: Overlaps) -> IdentityCounts:
    """Identity's sums: one partner for each identity over the whole sequence, with the most boxes in common."""
    links = _links(data)
    common = np.bincount(links.index, data.pair_iou >= OVERLAP, minlength=len(links.gt))
    useful = np.flatnonzero(common > 0)
    gt, tracker, common = links.gt[useful], links.tracker[useful], common[useful]
    n_gt, n_tracker = len(links.gt_count), len(links.tracker_count)
    graph = coo_array((common, (gt, n_gt + tracker)), shape=(n_gt + n_tracker,) * 2)
    group = connected_components(graph, directed=False)[1][gt] if len(gt) else gt
    idtp = 0.0
    for part in np.split(np.argsort(group, kind="stable"), np.flatnonzero(np.diff(np.sort(group))) + 1):
        if len(part) < 2:
            idtp += common[part].sum()
            continue
        _, rows = np.unique(gt[part], return_inverse=True)
        _, columns = np.unique(tracker[part], return_inverse=True)
        matrix = np.zeros((rows.max() + 1, columns.max() + 1))
        matrix[rows, columns] = common[part]
        idtp += matrix[linear_sum_assignment(matrix, maximize=True)].sum()
    return IdentityCounts(int(idtp), len(data.gt_frames) - int(idtp), len(data.tracker_frames) - int(idtp))


# ---------------------------------------------------------------- numbers from sums


def _total(parts: Sequence, kind: type):
    """Field by field sum of dataclasses of one kind."""
    return kind(*(sum((getattr(p, f.name) for p in parts[1:]), getattr(parts[0], f.name)) for f in fields(kind)))


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
    hota_counts: HotaCounts, clear_counts: ClearCounts, identity_counts: IdentityCounts, sizes: TrackingSizes
) -> TrackingScore:
    """All numbers from the sums."""
    by_alpha = hota_values(hota_counts)
    clear_numbers = clear_values(clear_counts)
    if clear_counts.frames == 0:  # one side is empty: TrackEval stops before the ratios
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


def combine(sequences: Sequence[TrackingSequence]) -> TrackingScore:
    """The numbers of several sequences of one class together; a sequence that is given twice counts twice."""
    return score(
        _total([s.hota for s in sequences], HotaCounts),
        _total([s.clear for s in sequences], ClearCounts),
        _total([s.identity for s in sequences], IdentityCounts),
        _total([s.sizes for s in sequences], TrackingSizes),
    )


# ---------------------------------------------------------------- KITTI's rules


def check_rows(rows: TrackingRows, n_frames: int, where: str) -> I64:
    """The rows that count, sorted by frame and within a frame as in the file.

    Raises:
        UserError: a frame that the sequence does not have, or an id twice in a frame.
    """
    kept = np.flatnonzero(rows.track_ids >= 0)
    frames, ids = rows.frame_ids[kept], rows.track_ids[kept]
    beyond = kept[frames >= n_frames]
    if len(beyond):
        raise UserError(
            f"{where}: {len(beyond)} row(s) of frames that are not there; the first is row {beyond[0] + 1}, frame "
            f"{rows.frame_ids[beyond[0]]}",
            f"frames 0 to {n_frames - 1}, as the sequence map says",
        )
    by_id = np.lexsort((ids, frames))
    twice = (np.diff(frames[by_id]) == 0) & (np.diff(ids[by_id]) == 0)
    if twice.any():
        row = kept[by_id[1:][twice]].min()
        raise UserError(
            f"{where}: row {row + 1}: id {rows.track_ids[row]} for the second time in frame {rows.frame_ids[row]} "
            f"({int(twice.sum())} such row(s))",
            "every id at most once in a frame, over all classes together",
        )
    return kept[np.argsort(frames, kind="stable")]


def _prepare(
    gt: TrackingRows, gt_rows: I64, results: TrackingRows, result_rows: I64, class_name: str
) -> tuple[Overlaps, I64, I64]:
    """Boxes of one class that are judged, after KITTI's rules; with their rows in the files."""
    wanted = class_indices(gt.objects.names, (class_name, *DISTRACTORS[class_name]))
    gt_rows = gt_rows[wanted[gt_rows] >= 0]
    result_rows = result_rows[class_indices(results.objects.names, (class_name,))[result_rows] >= 0]
    boxes = results.objects.boxes_xyxy[result_rows]
    data = overlaps(
        gt.frame_ids[gt_rows],
        gt.track_ids[gt_rows],
        gt.objects.boxes_xyxy[gt_rows],
        results.frame_ids[result_rows],
        results.track_ids[result_rows],
        boxes,
    )
    judged = (
        (wanted[gt_rows] == 0)
        & (gt.objects.occlusion[gt_rows] <= MAXIMUM_OCCLUSION)
        & (np.trunc(gt.objects.truncation[gt_rows]) <= MAXIMUM_TRUNCATION)
    )
    close = np.flatnonzero(data.pair_iou >= OVERLAP - _EPS)
    matched = _assign(data, close, data.pair_iou[close])
    partner = np.full(len(result_rows), -1)
    partner[data.pair_tracker[matched]] = data.pair_gt[matched]
    is_matched = partner >= 0
    unwanted = np.zeros(len(result_rows), bool)
    unwanted[is_matched] = ~judged[partner[is_matched]]

    small = boxes[:, 3] - boxes[:, 1] <= MINIMUM_HEIGHT + _EPS
    covered = np.zeros(len(result_rows), bool)
    region_rows = np.flatnonzero(class_indices(gt.objects.names, ("DontCare",)) >= 0)
    region_rows = region_rows[np.argsort(gt.frame_ids[region_rows], kind="stable")]
    areas = signed_areas(boxes)
    for region, box in same_frame_pairs(gt.frame_ids[region_rows], data.tracker_frames):
        shared = intersections(gt.objects.boxes_xyxy[region_rows[region]], boxes[box])
        inside = (areas[box] > _EPS) & (shared > (OVERLAP + _EPS) * areas[box])
        covered[box[inside]] = True
    unwanted |= ~is_matched & (small | covered)
    return data.keep(judged, ~unwanted), gt_rows[judged], result_rows[~unwanted]


def _timeline(
    data: Overlaps, matches: tuple[I64, np.ndarray, np.ndarray], gt_rows: I64, result_rows: I64
) -> TrackingTimeline:
    matched, is_switch, _ = matches
    of_gt, of_tracker = data.pair_gt[matched], data.pair_tracker[matched]
    tracker = np.full(len(gt_rows), -1)
    tracker[of_gt] = of_tracker
    iou, switch = np.zeros(len(gt_rows)), np.zeros(len(gt_rows), bool)
    iou[of_gt], switch[of_gt] = data.pair_iou[matched], is_switch
    free = np.setdiff1d(np.arange(len(result_rows)), of_tracker)
    hit = tracker >= 0

    def of(values: I64) -> I64:
        out = np.full(len(tracker), -1)
        out[hit] = values[tracker[hit]]
        return out

    return TrackingTimeline(
        frames=data.gt_frames,
        gt_ids=data.gt_ids,
        tracker_ids=of(data.tracker_ids),
        iou=iou,
        is_switch=switch,
        gt_rows=gt_rows,
        tracker_rows=of(result_rows),
        fp_frames=data.tracker_frames[free],
        fp_tracker_ids=data.tracker_ids[free],
        fp_rows=result_rows[free],
    )


def evaluate_sequence(
    name: str, gt: TrackingRows, results: TrackingRows, n_frames: int, where: str = ""
) -> list[TrackingSequence]:
    """Score one sequence, every class.

    Args:
        name: of the sequence.
        gt: label rows, DontCare included.
        results: result rows.
        n_frames: of the sequence.
        where: the result file, named in errors.

    Raises:
        UserError: frames out of range, or an id twice in a frame.
    """
    gt_rows = check_rows(gt, n_frames, f"labels of sequence {name}")
    result_rows = check_rows(results, n_frames, where or f"results of sequence {name}")
    scored = []
    for class_name in TRACKING_CLASSES_SCORED:
        data, own_gt, own_results = _prepare(gt, gt_rows, results, result_rows, class_name)
        matches = clear_matches(data)
        hota_counts, clear_counts, identity_counts = hota(data), clear(data, n_frames, matches), identity(data)
        sizes = TrackingSizes(
            dets=len(own_results),
            gt_dets=len(own_gt),
            ids=len(np.unique(data.tracker_ids)),
            gt_ids=len(np.unique(data.gt_ids)),
            frames=n_frames,
        )
        scored.append(
            TrackingSequence(
                name=name,
                class_name=class_name,
                hota=hota_counts,
                clear=clear_counts,
                identity=identity_counts,
                sizes=sizes,
                score=score(hota_counts, clear_counts, identity_counts, sizes),
                timeline=_timeline(data, matches, own_gt, own_results),
            )
        )
    return scored


class TrackingEvaluator:
    """Collects sequences one by one and scores them all."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all sequences."""
        self._sequences: dict[tuple[str, str], TrackingSequence] = {}
        self._gt: dict[str, TrackingRows] = {}
        self._results: dict[str, TrackingRows] = {}
        self._n_frames: dict[str, int] = {}

    def process(self, sequence: str, gt: TrackingRows, results: TrackingRows, n_frames: int, where: str = "") -> None:
        """Add and score one sequence; see `evaluate_sequence`."""
        for scored in evaluate_sequence(sequence, gt, results, n_frames, where):
            self._sequences[sequence, scored.class_name] = scored
        self._gt[sequence], self._results[sequence], self._n_frames[sequence] = gt, results, n_frames

    def evaluate(self) -> TrackingEvaluation:
        """Score all sequences since `reset` together."""
        combined = {
            class_name: combine([s for (_, name), s in self._sequences.items() if name == class_name])
            for class_name in TRACKING_CLASSES_SCORED
            if self._sequences
        }
        return TrackingEvaluation(
            sequences=dict(self._sequences),
            combined=combined,
            gt=dict(self._gt),
            results=dict(self._results),
            n_frames=dict(self._n_frames),
        )
