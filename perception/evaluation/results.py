"""What the evaluators return: scores, and the counts from which the scores of any subset follow.

Counts are kept per frame, image or sequence. So a total is a sum, and a bootstrap over frames weights the sum instead
of evaluating again. Matches hold row numbers of the evaluated tables, from which a report reads box, occlusion,
distance and score of every true positive and miss.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perception.arrays import F64, I64

if TYPE_CHECKING:
    from perception.formats.kitti import TrackingRows
    from perception.formats.kitti_table import ObjectTable

LEVELS = ("easy", "moderate", "hard")
METRICS_3D = ("bev", "3d", "bev_loose", "3d_loose")
"""Bird's-eye view and 3D at KITTI's overlaps and at looser ones, see `object3d.py`."""
OBJECT_CLASSES_SCORED = ("Car", "Pedestrian", "Cyclist")
TRACKING_CLASSES_SCORED = ("Car", "Pedestrian")
ALPHAS: F64 = np.arange(0.05, 0.99, 0.05)
"""The 19 localisation thresholds over which HOTA is averaged."""

# ---------------------------------------------------------------- objects


@dataclass(frozen=True, eq=False)
class ObjectCurve:
    """One class at one level: how the counts change as the score threshold falls.

    The matching at a threshold depends on the detections at or above it, frame by frame. So the counts are step
    functions: the count at threshold t is the sum of the steps of all events with score >= t.
    """

    class_name: str
    level: str
    n_gt: I64
    """(F,) valid ground truths of each frame."""
    tp_frames: I64
    """(K,) frame of each true positive of the pass that collects thresholds."""
    tp_scores: F64
    """(K,) its score."""
    event_frames: I64
    """(E,) frame of each step; events are sorted by falling score."""
    event_scores: F64
    """(E,)"""
    event_tp: I64
    """(E,) steps of true positives."""
    event_fp: I64
    """(E,) steps of false positives."""
    event_absorbed: I64
    """(E,) steps of valid ground truths taken by an ignored detection: neither hit nor miss."""
    event_similarity: F64
    """(E,) steps of the sum of (1 + cos Δalpha) / 2 over true positives."""


@dataclass(frozen=True, eq=False)
class ObjectScore:
    """The official numbers of one class at one level; AP and AOS in per cent."""

    class_name: str
    level: str
    n_gt: int
    """Valid ground truths."""
    thresholds: F64
    """(T,) falling, T at most 41."""
    tp: I64
    """(T,) counts at each threshold."""
    fp: I64
    fn: I64
    similarity: F64
    """(T,) sum of orientation similarity over true positives."""
    precision41: F64
    """(41,) precision at recall 0, 1/40 … 1, after the maximum from each entry on; missing entries are 0."""
    aos41: F64 | None
    """(41,) likewise for orientation; None where a result has no alpha."""
    ap_r40: float
    ap_r11: float
    aos_r40: float | None
    aos_r11: float | None


@dataclass(frozen=True, eq=False)
class ObjectMatches:
    """One class at one level, matched with all detections at or above one score threshold."""

    class_name: str
    level: str
    score_threshold: float
    gt_rows: I64
    """(G,) rows of the ground truth table: the class and its neighbour (Van, Person_sitting)."""
    gt_ignored: np.ndarray
    """(G,) bool: neighbour, too small, too occluded or too truncated."""
    gt_det_rows: I64
    """(G,) row of the matched detection, -1 for none. Not ignored and -1: a false negative."""
    gt_iou: F64
    """(G,) overlap with it, 0 for none."""
    det_rows: I64
    """(D,) rows of the detection table at or above the threshold: the class, and too small ones of any class."""
    det_ignored: np.ndarray
    """(D,) bool: too small."""
    det_gt_rows: I64
    """(D,) row of the matched ground truth, -1 for none."""
    det_dontcare: np.ndarray
    """(D,) bool: lies in a DontCare region, so that it is no false positive where it is not matched."""

    @property
    def is_fn(self) -> np.ndarray:
        """(G,) bool."""
        return ~self.gt_ignored & (self.gt_det_rows < 0)

    @property
    def is_fp(self) -> np.ndarray:
        """(D,) bool."""
        return ~self.det_ignored & (self.det_gt_rows < 0) & ~self.det_dontcare

    @cached_property
    def is_tp(self) -> np.ndarray:
        """(G,) bool: a valid ground truth with a valid detection."""
        ignored_rows = self.det_rows[self.det_ignored]
        return ~self.gt_ignored & (self.gt_det_rows >= 0) & ~np.isin(self.gt_det_rows, ignored_rows)


@dataclass(frozen=True, eq=False)
class ObjectEvaluation:
    """The result of an object evaluation."""

    gt: ObjectTable
    """The labels; row numbers elsewhere point into it. `gt.frame_names` are the frames."""
    detections: ObjectTable
    """The results, of the same frames."""
    curves: dict[tuple[str, str], ObjectCurve]
    """By (class, level), for the classes with a result row that starts inside the image (left edge at 0 or more)."""
    scores: dict[tuple[str, str], ObjectScore]
    """By (class, level), likewise."""
    has_orientation: bool
    """False where any result has alpha -10: then AOS is not scored, as in the official tool."""
    curves_3d: dict[tuple[str, str, str], ObjectCurve] = field(default_factory=dict)
    """By (metric of `METRICS_3D`, class, level), for the classes with a 3-D box in a result row."""
    scores_3d: dict[tuple[str, str, str], ObjectScore] = field(default_factory=dict)
    """By (metric, class, level), likewise. There is no AOS."""
    warnings: tuple[str, ...] = ()
    missing_frames: tuple[str, ...] = ()
    """Frames without a result file, counted as empty."""


# ---------------------------------------------------------------- road


@dataclass(frozen=True, eq=False)
class RoadImage:
    """One image: the confidences of its valid pixels, as two histograms."""

    name: str
    """Such as 'um_road_000012'."""
    category: str
    """'um_lane', 'um_road', 'umm_road', 'uu_road', or the name's own start for other data."""
    road_histogram: I64
    """(256,) pixels of true road by confidence."""
    other_histogram: I64
    """(256,) valid pixels that are not road, by confidence."""
    gt_path: Path | None = None
    result_path: Path | None = None
    calibration_path: Path | None = None

    @cached_property
    def tp(self) -> I64:
        """(256,) at threshold k: road pixels with confidence >= k."""
        return np.cumsum(self.road_histogram[::-1])[::-1]

    @cached_property
    def fp(self) -> I64:
        """(256,) other pixels with confidence >= k."""
        return np.cumsum(self.other_histogram[::-1])[::-1]

    @property
    def fn(self) -> I64:
        return self.road_histogram.sum() - self.tp

    @property
    def tn(self) -> I64:
        return self.other_histogram.sum() - self.fp


@dataclass(frozen=True, eq=False)
class RoadScore:
    """The road numbers of one category, as fractions 0..1."""

    category: str
    n_images: int
    max_f: float
    ap: float
    threshold: int
    """0..255; a pixel is road where its confidence is >= this. The lowest with the highest F."""
    precision: float
    recall: float
    fpr: float
    fnr: float
    tp: int
    """Counts at the threshold."""
    fp: int
    fn: int
    tn: int
    precision_curve: F64
    """(256,) by threshold."""
    recall_curve: F64
    """(256,)"""


@dataclass(frozen=True, eq=False)
class RoadEvaluation:
    """The result of a road evaluation."""

    space: str
    """'bev' or 'perspective'."""
    images: tuple[RoadImage, ...]
    scores: dict[str, RoadScore]
    """By category, and 'URBAN' for um, umm and uu pooled."""
    warnings: tuple[str, ...] = ()
    missing_images: tuple[str, ...] = ()


# ---------------------------------------------------------------- tracking


@dataclass(frozen=True, eq=False)
class HotaCounts:
    """Sums from which HOTA follows; each (19,), by `ALPHAS`."""

    tp: F64
    fn: F64
    fp: F64
    iou_sum: F64
    """IoU summed over true positives."""
    ass_a_sum: F64
    """Association accuracy summed over true positives; likewise recall and precision."""
    ass_re_sum: F64
    ass_pr_sum: F64


@dataclass(frozen=True)
class ClearCounts:
    """Sums from which CLEAR follows."""

    tp: int = 0
    fn: int = 0
    fp: int = 0
    idsw: int = 0
    mt: int = 0
    pt: int = 0
    ml: int = 0
    frag: int = 0
    frames: int = 0
    iou_sum: float = 0.0


@dataclass(frozen=True)
class IdentityCounts:
    """Sums from which Identity follows."""

    idtp: int = 0
    idfn: int = 0
    idfp: int = 0


@dataclass(frozen=True)
class TrackingSizes:
    """Numbers of boxes, ids and frames."""

    dets: int = 0
    gt_dets: int = 0
    ids: int = 0
    gt_ids: int = 0
    frames: int = 0


@dataclass(frozen=True, eq=False)
class TrackingTimeline:
    """The matches of each track over time, by CLEAR at IoU 0.5. Ids are those of the files."""

    frames: I64
    """(M,) one entry per valid ground truth, by frame."""
    gt_ids: I64
    tracker_ids: I64
    """(M,) -1 where it was missed."""
    iou: F64
    """(M,) 0 where it was missed."""
    is_switch: np.ndarray
    """(M,) bool: matched to another id than the last time it was matched."""
    gt_rows: I64
    """(M,) row of the sequence's label rows."""
    tracker_rows: I64
    """(M,) row of the sequence's result rows, -1 where it was missed."""
    fp_frames: I64
    """(P,) false positives."""
    fp_tracker_ids: I64
    fp_rows: I64
    """(P,) rows of the sequence's result rows."""


@dataclass(frozen=True, eq=False)
class TrackingFrames:
    """The share of each of T frames in the sums of a sequence, so that `compare` can weight frames.

    Association and identity depend on the whole sequence; a frame's share is that of its own matches. The sums over
    frames equal `HotaCounts`, `ClearCounts` and `IdentityCounts`.
    """

    hota_tp: F64
    """(T, 19) true positives by `ALPHAS`."""
    hota_fn: F64
    hota_fp: F64
    hota_ass: F64
    """(T, 19) association accuracy summed over the frame's true positives."""
    clear: I64
    """(T, 4) TP, FN, FP, id switches."""
    identity: I64
    """(T, 3) IDTP, IDFN, IDFP."""


@dataclass(frozen=True, eq=False)
class TrackingScore:
    """Tracking numbers by TrackEval's names, as fractions 0..1 and counts."""

    values: dict[str, float]
    """HOTA, DetA, AssA, DetRe, DetPr, AssRe, AssPr, LocA, OWTA, HOTA(0), LocA(0), HOTALocA(0); MOTA, MOTP, MODA,
    CLR_Re, CLR_Pr, CLR_F1, MTR, PTR, MLR, sMOTA, MOTAL, FP_per_frame, CLR_TP, CLR_FN, CLR_FP, IDSW, MT, PT, ML,
    Frag, CLR_Frames; IDF1, IDR, IDP, IDTP, IDFN, IDFP; Dets, GT_Dets, IDs, GT_IDs, Frames."""
    by_alpha: dict[str, F64]
    """(19,) each, by `ALPHAS`: HOTA, DetA, AssA, DetRe, DetPr, AssRe, AssPr, LocA, OWTA,
    HOTA_TP, HOTA_FN, HOTA_FP."""


@dataclass(frozen=True, eq=False)
class TrackingSequence:
    """One class in one sequence."""

    name: str
    class_name: str
    hota: HotaCounts
    clear: ClearCounts
    identity: IdentityCounts
    sizes: TrackingSizes
    score: TrackingScore
    timeline: TrackingTimeline


@dataclass(frozen=True, eq=False)
class TrackingEvaluation:
    """The result of a tracking evaluation."""

    sequences: dict[tuple[str, str], TrackingSequence]
    """By (sequence, class)."""
    combined: dict[str, TrackingScore]
    """By class, over all sequences."""
    gt: dict[str, TrackingRows]
    """Label rows by sequence."""
    results: dict[str, TrackingRows]
    """Result rows by sequence."""
    n_frames: dict[str, int]
    warnings: tuple[str, ...] = ()
    missing_sequences: tuple[str, ...] = ()


def ratio(part: np.ndarray, whole: np.ndarray) -> F64:
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)
