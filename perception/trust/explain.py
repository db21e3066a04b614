"""Why a network said so: saliency maps for any model file, and checks that a map means something.

D-RISE (Petsiuk et al., CVPR 2021), through `xaitk-saliency`: parts of the image are hidden at random many times, and
a pixel counts by how well the network still reports the object while the pixel is shown. A missed object is explained
in the same way: what keeps the weak box that the network has there? The road at a point counts by its confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import cv2
import numpy as np

from perception.arrays import F32, F64, U8
from perception.boxes import iou
from perception.detector import Detector
from perception.errors import MissingDependencyError
from perception.types import Detections, RoadMask

REDUCED = 4
"""Maps are computed at a quarter of the image's size: a cell of the masks is larger than that."""
SHOWN = 0.5
"""Share of the cells that a mask shows, as in the paper."""
MOST_BOXES = 60
"""Boxes of a masked image that are compared with the explained one, by score."""
STEPS = 12
"""Of a deletion or insertion curve."""
MEANINGLESS = 0.5
"""A map that correlates this much with the one of shuffled weights says nothing about the network."""

Kind = Literal["found", "missed", "false", "road"]


@dataclass(frozen=True, eq=False)
class Target:
    """What is explained: a box of a class, or a point of the road."""

    kind: Kind
    class_id: int
    """-1 for the road."""
    box_xyxy: F64
    """(4,) pixels; of the road a point without extent."""
    score: float
    """The network's; 0 for a missed object."""

    def strength(self, found: Detections, road: RoadMask | None) -> float:
        """How much of the target a network reports, 0..1: overlap times score of the best box, or road confidence."""
        if self.kind == "road":
            return 0.0 if road is None else _road_at(road, self.box_xyxy)
        own = found.class_ids == self.class_id
        if not own.any():
            return 0.0
        overlaps = iou(self.box_xyxy[None], found.boxes_xyxy[own].astype(np.float64))[0]
        return float((overlaps * found.scores[own]).max())


@dataclass(frozen=True)
class Checks:
    """Whether a map means something."""

    deletion: float
    """Area under the strength while the most salient pixels are blurred first; lower is better."""
    insertion: float
    """While they are shown first in a blurred image; higher is better."""
    pointing: bool
    """The highest value lies inside the box (for the road: within a tenth of the image's height)."""
    shuffled: float
    """Rank correlation with the map of shuffled weights; NaN where it was not computed."""

    @property
    def meaningless(self) -> bool:
        return self.shuffled >= MEANINGLESS


def require_xaitk() -> None:
    """Check that the package is there.

    Raises:
        MissingDependencyError: the extra `explain` is not installed.
    """
    if find_spec("xaitk_saliency") is None:
        raise MissingDependencyError("xaitk-saliency", "explain", "perception explain")


def make_masks(size_hw: tuple[int, int], count: int, cell_px: float, seed: int) -> F32:
    """Draw masks (count, h, w) at a reduced size, 1 where the image is shown; cells are square."""
    from xaitk_saliency.impls.perturb_image.random_grid import RandomGrid

    cell = max(2, round(cell_px / REDUCED))
    small = np.zeros((max(cell, size_hw[0] // REDUCED), max(cell, size_hw[1] // REDUCED)), np.uint8)
    return np.asarray(RandomGrid(n=count, s=(cell, cell), p1=SHOWN, seed=seed).perturb(small), np.float32)


def saliency(
    detector: Detector,
    image_bgr: U8,
    targets: Sequence[Target],
    masks: F32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[F32]:
    """Map each target, (h, w) at the masks' size, from -1 to 1.

    Args:
        detector: the network, with a low least score, so that weak boxes are seen.
        image_bgr: (H, W, 3) uint8.
        targets: what to explain.
        masks: (n, h, w) from `make_masks`.
        progress: called with masked images done and their number.
    """
    from xaitk_saliency.impls.gen_detector_prop_sal.drise_scoring import DRISEScoring
    from xaitk_saliency.utils.masking import weight_regions_by_scalar

    classes = len(detector.spec.class_names)
    rows = np.zeros((len(masks), MOST_BOXES, 5 + classes), np.float32)
    rows[:, :, 5] = 1e-6  # the cosine of nothing is no number
    points = [target for target in targets if target.kind == "road"]
    confidence = np.zeros((len(masks), len(points)), np.float32)
    fill = np.full_like(image_bgr, image_bgr.mean(axis=(0, 1)).astype(np.uint8))
    for start in range(0, len(masks), detector.batch):
        part = masks[start : start + detector.batch]
        for i, (found, road) in enumerate(detector.run([blend(image_bgr, fill, mask) for mask in part]), start):
            best = found[:MOST_BOXES]
            rows[i, : len(best), :4], rows[i, : len(best), 4] = best.boxes_xyxy, best.scores
            rows[i, : len(best), 5:] = np.eye(classes)[best.class_ids]
            confidence[i] = [0.0 if road is None else _road_at(road, one.box_xyxy) for one in points]
        progress(min(len(masks), start + detector.batch), len(masks))
    boxes = [target for target in targets if target.kind != "road"]
    maps: dict[int, F32] = {}
    if boxes:
        wanted = np.zeros((len(boxes), 5 + classes), np.float32)
        for row, target in zip(wanted, boxes, strict=True):
            row[:4], row[4], row[5 + target.class_id] = target.box_xyxy, 1, 1
        found_maps = DRISEScoring().generate(wanted, rows, masks)
        maps |= {id(target): one for target, one in zip(boxes, found_maps, strict=True)}
    if points:
        found_maps = weight_regions_by_scalar(confidence, masks, inv_masks=False)
        maps |= {id(target): one for target, one in zip(points, found_maps, strict=True)}
    return [np.asarray(maps[id(target)], np.float32) for target in targets]


def blend(image_bgr: U8, fill: U8, mask: F32) -> U8:
    """Show the image where a mask (h, w) is 1 and the fill where it is 0."""
    share = cv2.resize(mask, image_bgr.shape[1::-1], interpolation=cv2.INTER_LINEAR)[..., None]
    mixed = image_bgr.astype(np.float32) * share + fill.astype(np.float32) * (1 - share)
    return mixed.astype(np.uint8)


def _road_at(road: RoadMask, box_xyxy: F64) -> float:
    mask = road.at_frame_size()
    x, y = int(np.clip(box_xyxy[0], 0, mask.shape[1] - 1)), int(np.clip(box_xyxy[1], 0, mask.shape[0] - 1))
    return float(mask[y, x]) / 255


# ---------------------------------------------------------------- checks


def curves(detector: Detector, image_bgr: U8, target: Target, found_map: F32) -> tuple[F64, F64]:
    """The target's strength while the most salient share of the image is deleted, and inserted, (STEPS + 1,) each.

    Petsiuk et al. 2018. Steps are finest at the start, where the object goes: shares grow with the square.
    """
    blurred = cv2.GaussianBlur(image_bgr, (0, 0), max(8.0, image_bgr.shape[0] / 20))
    order = np.argsort(np.argsort(-found_map.ravel(), kind="stable")).reshape(found_map.shape)
    shares = shares_of_curve()
    masks = [(order < share * order.size).astype(np.float32) for share in shares]
    images = [blend(blurred, image_bgr, mask) for mask in masks] + [blend(image_bgr, blurred, mask) for mask in masks]
    strengths = np.array([target.strength(found, road) for found, road in detector.run(images)])
    return strengths[: len(shares)], strengths[len(shares) :]


def shares_of_curve() -> F64:
    """Shares of the image at the steps of a curve."""
    return np.linspace(0, 1, STEPS + 1) ** 2


def area_under(strengths: F64) -> float:
    """Area under a deletion or insertion curve, 0..1."""
    return float(np.trapezoid(strengths, shares_of_curve()))


def points_at(found_map: F32, target: Target, size_hw: tuple[int, int]) -> bool:
    """The pointing game: does the highest value lie inside the box (Zhang et al. 2016)?"""
    row, column = np.unravel_index(int(found_map.argmax()), found_map.shape)
    y = (int(row) + 0.5) * size_hw[0] / found_map.shape[0]
    x = (int(column) + 0.5) * size_hw[1] / found_map.shape[1]
    slack = size_hw[0] / 10 if target.kind == "road" else REDUCED
    left, top, right, bottom = target.box_xyxy
    return bool(left - slack <= x <= right + slack and top - slack <= y <= bottom + slack)


def rank_correlation(a: F32, b: F32) -> float:
    """Spearman's correlation of two maps; 0 where one of them is flat."""
    from scipy.stats import spearmanr

    if a.std() == 0 or b.std() == 0:
        return 0.0
    value = float(spearmanr(a.ravel(), b.ravel()).statistic)
    return 0.0 if math.isnan(value) else value


def check(
    detector: Detector, image_bgr: U8, target: Target, found_map: F32, shuffled_map: F32 | None = None
) -> Checks:
    """All checks of one map."""
    deletion, insertion = curves(detector, image_bgr, target, found_map)
    return Checks(
        area_under(deletion),
        area_under(insertion),
        points_at(found_map, target, image_bgr.shape[:2]),
        math.nan if shuffled_map is None else rank_correlation(found_map, shuffled_map),
    )


# ---------------------------------------------------------------- where the evidence lies

WINDOW = 3.0
"""Side of the window round a box, in boxes, in which evidence is counted."""
PARTS = ("inside", "below", "above", "beside")


def evidence_shares(found_map: F32, box_xyxy: F64, size_hw: tuple[int, int]) -> dict[str, float] | None:
    """Share of the positive evidence near a box that lies inside it, below, above and beside it.

    Evidence is what exceeds the map's median. A car that is known by its shadow has its evidence below the box. None
    where there is no evidence.
    """
    scale_y, scale_x = found_map.shape[0] / size_hw[0], found_map.shape[1] / size_hw[1]
    left, top, right, bottom = box_xyxy * np.array([scale_x, scale_y, scale_x, scale_y])
    y, x = np.mgrid[: found_map.shape[0], : found_map.shape[1]] + 0.5
    evidence = np.maximum(found_map - np.median(found_map), 0)
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    near = (np.abs(x - centre_x) <= WINDOW / 2 * (right - left)) & (
        np.abs(y - centre_y) <= WINDOW / 2 * (bottom - top)
    )
    total = float(evidence[near].sum())
    if total <= 0:
        return None
    across = (x >= left) & (x <= right)
    parts = {
        "inside": across & (y >= top) & (y <= bottom),
        "below": y > bottom,
        "above": y < top,
    }
    parts["beside"] = ~(parts["inside"] | parts["below"] | parts["above"])
    return {name: float(evidence[near & mask].sum()) / total for name, mask in parts.items()}
