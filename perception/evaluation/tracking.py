"""KITTI's tracking scores: HOTA, CLEAR and Identity of 2D boxes, equal to TrackEval's.

Metrics: HOTA (Luiten et al., IJCV 2020), CLEAR MOT (Bernardin and Stiefelhagen, 2008), Identity (Ristani et al.,
2016). Rules: KITTI's tracking benchmark, as TrackEval 1.3.0 applies them (`Kitti2DBox`), whose numbers are recorded.

Surprising rules of TrackEval, which hold here too:

- Car and Pedestrian alone are scored. A Van (for Car), a sitting person (for Pedestrian), and an occluded (> 2) or
  truncated (> 0) ground truth are dropped, as are the boxes matched to them. An unmatched box is dropped if it is at
  most 25 pixels high, or more than half in a DontCare region. This matching precedes the one that is scored.
- CLEAR continues a track from the last frame that had both ground truth and tracker boxes, however long ago. A
  track that was not matched in that frame starts a new fragment: so perfect results have fragmentations.
- A sequence without ground truth, or without tracker boxes, counts no frames for CLEAR, and its own MLR is 1 and
  its other ratios 0, whatever its counts say. Its localisation accuracy LocA is 1.
- Identity takes an overlap of exactly 0.5 without the tolerance of one rounding step that CLEAR and HOTA grant.
- Ids must be unique in a frame over all classes together, and rows with a negative id are dropped first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perception.arrays import I64
from perception.errors import UserError
from perception.evaluation.pairs import class_indices, intersections, same_frame_pairs, signed_areas
from perception.evaluation.results import (
    TRACKING_CLASSES_SCORED,
    TrackingEvaluation,
    TrackingFrames,
    TrackingScore,
    TrackingSequence,
    TrackingSizes,
    TrackingTimeline,
)
from perception.evaluation.tracking_metrics import (
    EPS,
    OVERLAP,
    ClearMatches,
    Overlaps,
    assign,
    clear,
    clear_matches,
    frame_shares,
    hota,
    hota_matches,
    identity,
    identity_matches,
    overlaps,
    score,
    total,
)
from perception.files import read_text
from perception.formats.kitti import TrackingRows

DISTRACTORS = {"Car": ("Van",), "Pedestrian": ("Person", "Person_sitting")}
MAXIMUM_OCCLUSION = 2
MAXIMUM_TRUNCATION = 0
MINIMUM_HEIGHT = 25
LENGTH = "the sequence's length"


def combine(sequences: Sequence[TrackingSequence]) -> TrackingScore:
    """The numbers of several sequences of one class together; a sequence that is given twice counts twice."""
    return score(
        total([s.hota for s in sequences]),
        total([s.clear for s in sequences]),
        total([s.identity for s in sequences]),
        total([s.sizes for s in sequences]),
        combined=True,
    )


# ---------------------------------------------------------------- KITTI's rules


def check_rows(rows: TrackingRows, n_frames: int, where: str, basis: str = LENGTH) -> I64:
    """The rows that count, sorted by frame and within a frame as in the file.

    Args:
        basis: what gives `n_frames`, for messages.

    Raises:
        UserError: a frame that the sequence does not have, or an id twice in a frame.
    """
    kept = np.flatnonzero(rows.track_ids >= 0)
    frames, ids = rows.frame_ids[kept], rows.track_ids[kept]
    beyond = kept[frames >= n_frames]
    if len(beyond):
        raise UserError(
            f"{where}:{line_of(where, beyond[0])}: column 'frame': found {rows.frame_ids[beyond[0]]} "
            f"({len(beyond)} such row(s))",
            f"frames 0 to {n_frames - 1}, by {basis}",
            "number frames from 0, or give the length with --seqmap FILE",
        )
    by_id = np.lexsort((ids, frames))
    twice = (np.diff(frames[by_id]) == 0) & (np.diff(ids[by_id]) == 0)
    if twice.any():
        row = kept[by_id[1:][twice]].min()
        raise UserError(
            f"{where}:{line_of(where, row)}: column 'track_id': {rows.track_ids[row]} for the second time in frame "
            f"{rows.frame_ids[row]} ({int(twice.sum())} such row(s))",
            "every id at most once in a frame, over all classes together",
        )
    return kept[np.argsort(frames, kind="stable")]


def line_of(where: str, row: int) -> int:
    """The line of a file in which a row stands; without the file, blank lines are not known of."""
    if not Path(where).is_file():
        return int(row) + 1
    lines = read_text(Path(where)).split("\n")
    return [i for i, line in enumerate(lines, 1) if line.split()][row]


def _prepare(
    gt: TrackingRows, gt_rows: I64, results: TrackingRows, result_rows: I64, class_name: str
) -> tuple[Overlaps, I64, I64]:
    """Drop the boxes of one class that KITTI's rules leave out; return the rest and their rows in the files."""
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
    valid = (
        (wanted[gt_rows] == 0)
        & (gt.objects.occlusion[gt_rows] <= MAXIMUM_OCCLUSION)
        & (np.trunc(gt.objects.truncation[gt_rows]) <= MAXIMUM_TRUNCATION)
    )
    close = np.flatnonzero(data.pair_iou >= OVERLAP - EPS)
    matched = assign(data, close, data.pair_iou[close])
    partner = np.full(len(result_rows), -1)
    partner[data.pair_tracker[matched]] = data.pair_gt[matched]
    is_matched = partner >= 0
    unwanted = np.zeros(len(result_rows), bool)
    unwanted[is_matched] = ~valid[partner[is_matched]]

    small = boxes[:, 3] - boxes[:, 1] <= MINIMUM_HEIGHT + EPS
    covered = np.zeros(len(result_rows), bool)
    region_rows = np.flatnonzero(class_indices(gt.objects.names, ("DontCare",)) >= 0)
    region_rows = region_rows[np.argsort(gt.frame_ids[region_rows], kind="stable")]
    areas = signed_areas(boxes)
    for region, box in same_frame_pairs(gt.frame_ids[region_rows], data.tracker_frames):
        shared = intersections(gt.objects.boxes_xyxy[region_rows[region]], boxes[box])
        inside = (areas[box] > EPS) & (shared > (OVERLAP + EPS) * areas[box])
        covered[box[inside]] = True
    unwanted |= ~is_matched & (small | covered)
    return data.keep(valid, ~unwanted), gt_rows[valid], result_rows[~unwanted]


def _timeline(data: Overlaps, matches: ClearMatches, gt_rows: I64, result_rows: I64) -> TrackingTimeline:
    of_gt, of_tracker = data.pair_gt[matches.pairs], data.pair_tracker[matches.pairs]
    tracker = np.full(len(gt_rows), -1)
    tracker[of_gt] = of_tracker
    iou, switch = np.zeros(len(gt_rows)), np.zeros(len(gt_rows), bool)
    iou[of_gt], switch[of_gt] = data.pair_iou[matches.pairs], matches.is_switch
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
    name: str,
    gt: TrackingRows,
    results: TrackingRows,
    n_frames: int,
    where: tuple[str, str] = ("", ""),
    basis: str = LENGTH,
) -> list[TrackingSequence]:
    """Score one sequence, every class.

    Args:
        name: of the sequence.
        gt: label rows, DontCare included.
        results: result rows.
        n_frames: of the sequence.
        where: files of the labels and of the results, named in errors.
        basis: what gives `n_frames`, named in errors.

    Raises:
        UserError: frames out of range, or an id twice in a frame.
    """
    gt_rows = check_rows(gt, n_frames, where[0] or f"labels of sequence {name}", basis)
    result_rows = check_rows(results, n_frames, where[1] or f"results of sequence {name}", basis)
    scored = []
    for class_name in TRACKING_CLASSES_SCORED:
        data, own_gt, own_results = _prepare(gt, gt_rows, results, result_rows, class_name)
        by_hota, by_clear, by_identity = hota_matches(data), clear_matches(data), identity_matches(data)
        hota_counts = hota(data, by_hota)
        clear_counts = clear(data, n_frames, by_clear)
        identity_counts = identity(data, by_identity)
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
                timeline=_timeline(data, by_clear, own_gt, own_results),
            )
        )
    return scored


def frames_of(evaluation: TrackingEvaluation, sequence: str, class_name: str) -> TrackingFrames:
    """What each frame of a sequence added to the sums of one class; worked out again, for those who ask."""
    gt, results = evaluation.gt[sequence], evaluation.results[sequence]
    n_frames = evaluation.n_frames[sequence]
    gt_rows, result_rows = check_rows(gt, n_frames, sequence), check_rows(results, n_frames, sequence)
    data, _, _ = _prepare(gt, gt_rows, results, result_rows, class_name)
    return frame_shares(data, n_frames, hota_matches(data), clear_matches(data), identity_matches(data))


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

    def process(
        self,
        sequence: str,
        gt: TrackingRows,
        results: TrackingRows,
        n_frames: int,
        where: tuple[str, str] = ("", ""),
        basis: str = LENGTH,
    ) -> None:
        """Add and score one sequence; see `evaluate_sequence`."""
        for scored in evaluate_sequence(sequence, gt, results, n_frames, where, basis):
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
