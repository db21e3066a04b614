"""KITTI's road scores: maximum F and average precision of a confidence map, in the image or seen from above.

Ground truth colours: red marks the valid area, blue the road in it. A pixel is road where the 8-bit confidence is
at or above a threshold 0…255. Counts are pooled over all images of a category, never averaged over images; URBAN
pools um, umm and uu. Source: readme of the KITTI road development kit, and its recorded numbers.

Surprising rules of the official tool, which hold here too:

- Among equal F values the lowest threshold wins.
- Average precision is PASCAL VOC's of 2007: the mean, over recall 0, 0.1 … 1, of the highest precision at that
  recall or above. Threshold 0 calls everything road, so recall 1 is always reached.
- Seen from above, cell centres are projected into the image by P2 · R0_rect · inverse(Tr_cam_to_road) and read the
  pixel *above and to the left* of the one they fall on: floor(u) - 1, floor(v) - 1, counted from 0, as the original
  counted from 1. Cells whose u or v lies below 1 or beyond the width or height are not valid.
- The ground truth is taken through the same nearest-neighbour view, so both move together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.arrays import F64, I64, U8
from perception.errors import UserError
from perception.evaluation.results import RoadEvaluation, RoadImage, RoadScore
from perception.formats.images import read_image, read_unchanged
from perception.formats.kitti import read_calibration

SPACES = ("bev", "perspective")
URBAN = ("um_road", "umm_road", "uu_road")
LEVELS_8BIT = 256


@dataclass(frozen=True)
class BirdsEye:
    """The patch of road seen from above, in road coordinates: x to the right, z ahead."""

    x_m: tuple[float, float] = (-10.0, 10.0)
    z_m: tuple[float, float] = (6.0, 46.0)
    cell_m: float = 0.05

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows (far to near) and columns (left to right): 800 × 400."""
        return round((self.z_m[1] - self.z_m[0]) / self.cell_m), round((self.x_m[1] - self.x_m[0]) / self.cell_m)

    def pixels(self, calibration: dict[str, F64]) -> F64:
        """Where the cell centres lie in the image: (2, rows, columns) of u, v.

        Args:
            calibration: with P2, R0_rect and Tr_cam_to_road.
        """
        rows, columns = self.size_hw
        x = self.x_m[0] + self.cell_m * (np.arange(columns) + 0.5)
        z = self.z_m[1] - self.cell_m * (np.arange(rows) + 0.5)
        road_from_cam = np.vstack([calibration["Tr_cam_to_road"], [0, 0, 0, 1]])
        rect = np.eye(4)
        rect[:3, :3] = calibration["R0_rect"]
        P_road = calibration["P2"] @ rect @ np.linalg.inv(road_from_cam)  # (3, 4)
        # cells lie on the road, y = 0
        homogeneous = (
            P_road[:, 0, None, None] * x[None, None, :]
            + P_road[:, 2, None, None] * z[None, :, None]
            + P_road[:, 3, None, None]
        )
        return homogeneous[:2] / homogeneous[2]

    def view(self, image: U8, pixels: F64) -> U8:
        """An image (H, W) or (H, W, C) seen from above, nearest neighbour; 0 where the camera sees nothing."""
        height, width = image.shape[:2]
        u, v = pixels
        seen = (u >= 1) & (u <= width) & (v >= 1) & (v <= height)
        out = np.zeros((*self.size_hw, *image.shape[2:]), np.uint8)
        out[seen] = image[np.floor(v[seen]).astype(int) - 1, np.floor(u[seen]).astype(int) - 1]
        return out


BIRDS_EYE = BirdsEye()

# ---------------------------------------------------------------- numbers from counts


def confidence_histograms(valid: np.ndarray, road: np.ndarray, confidence: U8) -> tuple[I64, I64]:
    """Pixels of road and of anything else by confidence, two (256,).

    Args:
        valid: (H, W) non-zero where a pixel counts.
        road: (H, W) non-zero where it is road.
        confidence: (H, W) uint8.
    """
    valid, road = valid.astype(bool), road.astype(bool)
    return (
        np.bincount(confidence[valid & road], minlength=LEVELS_8BIT),
        np.bincount(confidence[valid & ~road], minlength=LEVELS_8BIT),
    )


def average_precision_11(precision: F64, recall: F64) -> float:
    """PASCAL VOC's 11-point average precision, 0..1; a recall that is never reached counts as precision 0."""
    best = [precision[recall >= wanted].max(initial=0.0) for wanted in np.arange(0, 1.1, 0.1)]
    return float(np.mean(best))


def pr_curve(images: Sequence[RoadImage], category: str, weights: np.ndarray | None = None) -> RoadScore:
    """Pool the counts of images and score them.

    Args:
        images: what is pooled; the caller chooses by category.
        category: name of the pool.
        weights: (len(images),) how often each counts; a bootstrap draws them.
    """
    weight = np.ones(len(images), np.int64) if weights is None else weights
    tp, fp, fn, tn = (
        sum((w * getattr(image, name) for w, image in zip(weight, images, strict=True)), np.zeros(LEVELS_8BIT, int))
        for name in ("tp", "fp", "fn", "tn")
    )
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    f = _ratio(2 * precision * recall, precision + recall)
    best = int(np.argmax(f))
    return RoadScore(
        category=category,
        n_images=int(weight.sum()),
        max_f=float(f[best]),
        ap=average_precision_11(precision, recall),
        threshold=best,
        precision=float(precision[best]),
        recall=float(recall[best]),
        fpr=float(_ratio(fp, fp + tn)[best]),
        fnr=float(_ratio(fn, tp + fn)[best]),
        tp=int(tp[best]),
        fp=int(fp[best]),
        fn=int(fn[best]),
        tn=int(tn[best]),
        precision_curve=precision,
        recall_curve=recall,
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> F64:
    """part / whole, 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


# ---------------------------------------------------------------- images


def category_of(name: str) -> str:
    """'um_road_000012' → 'um_road'; names of other data give what stands before their number."""
    return re.sub(r"_?\d+$", "", name) or "road"


def read_ground_truth(path: Path) -> tuple[U8, U8]:
    """Read a ground truth image: (valid, road), (H, W) each, 0 or 1; road lies within valid."""
    image = read_image(path, expected="a ground truth PNG: red marks the valid area, blue the road")
    valid = image[:, :, 2] > 0
    return valid.astype(np.uint8), (valid & (image[:, :, 0] > 0)).astype(np.uint8)


def read_confidence(path: Path) -> U8:
    """Read a confidence map, (H, W) uint8, 255 = certainly road."""
    expected = "one channel of 8-bit confidence, 255 = certainly road"
    image = read_unchanged(path, expected)
    if image.dtype != np.uint8 or image.ndim != 2:
        channels = 1 if image.ndim == 2 else image.shape[2]
        raise UserError(f"{path}: found {channels} channel(s) of {image.dtype}", expected)
    return image


def read_road_calibration(path: Path) -> dict[str, F64]:
    """A road calibration, which has R0_rect and Tr_cam_to_road beside P2."""
    try:
        return read_calibration(path, needed=("P2", "R0_rect", "Tr_cam_to_road"))
    except UserError as error:
        raise UserError(
            error.found,
            "a calibration file of the road benchmark",
            "--calib FOLDER of data_road, or --space perspective",
        ) from None


def planes(
    name: str, valid: U8, road: U8, confidence: U8, space: str, calibration: dict[str, F64] | None
) -> tuple[U8, U8, U8]:
    """Bring ground truth and confidence to the space in which they are scored.

    An input that already has the size of the bird's-eye view is taken for one.

    Raises:
        UserError: sizes that do not fit.
    """
    if space == "bev":
        size = BIRDS_EYE.size_hw
        if valid.shape != size or confidence.shape != size:
            if calibration is None:
                raise UserError(f"{name}: no calibration", "one for the bird's-eye view", "--space perspective")
            pixels = BIRDS_EYE.pixels(calibration)
            if confidence.shape not in (size, valid.shape):
                raise UserError(
                    f"{name}: the result is {confidence.shape[1]}x{confidence.shape[0]} pixels",
                    f"{valid.shape[1]}x{valid.shape[0]} as the ground truth, or {size[1]}x{size[0]} from above",
                )
            if confidence.shape != size:
                confidence = BIRDS_EYE.view(confidence, pixels)
            if valid.shape != size:
                valid, road = BIRDS_EYE.view(valid, pixels), BIRDS_EYE.view(road, pixels)
    elif confidence.shape != valid.shape:
        raise UserError(
            f"{name}: the result is {confidence.shape[1]}x{confidence.shape[0]} pixels",
            f"{valid.shape[1]}x{valid.shape[0]}, as the ground truth",
        )
    return valid, road, confidence


def road_planes(image: RoadImage, space: str) -> tuple[U8, U8, U8]:
    """Read an evaluated image again for drawing: (valid, road, confidence), (H, W) uint8 each.

    Valid and road are 0 or 1. A missing result has confidence 0 everywhere.
    """
    if image.gt_path is None:
        raise ValueError(f"{image.name}: was not read from a file")
    valid, road = read_ground_truth(image.gt_path)
    confidence = np.zeros_like(valid) if image.result_path is None else read_confidence(image.result_path)
    calibration = read_road_calibration(image.calibration_path) if image.calibration_path else None
    return planes(image.name, valid, road, confidence, space, calibration)


def colour_errors(valid: U8, road: U8, confidence: U8, threshold: int, backdrop_bgr: U8 | None = None) -> U8:
    """Paint true positives green, false negatives red, false positives blue and the rest darker; (H, W, 3) BGR."""
    out = np.full((*road.shape, 3), 96, np.uint8) if backdrop_bgr is None else backdrop_bgr.copy()
    found, true, counts = confidence >= threshold, road > 0, valid > 0
    for chosen, colour in (
        (counts & true & found, (60, 180, 60)),
        (counts & true & ~found, (50, 50, 230)),
        (counts & ~true & found, (240, 120, 30)),
    ):
        out[chosen] = (out[chosen] * 0.4 + np.array(colour) * 0.6).astype(np.uint8)
    out[~counts] = out[~counts] // 2
    return out


# ---------------------------------------------------------------- the evaluator


class RoadEvaluator:
    """Collect images one by one and score them all."""

    def __init__(self, space: str = "bev") -> None:
        """Args: space: 'bev' as the server scores, or 'perspective'. It must match what `process` is given."""
        if space not in SPACES:
            raise ValueError(f"space: found {space!r}, expected one of {SPACES}")
        self.space = space
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._images: list[RoadImage] = []

    def process(
        self,
        name: str,
        valid: np.ndarray,
        road: np.ndarray,
        confidence: U8,
        calibration: dict[str, F64] | None = None,
        *,
        gt_path: Path | None = None,
        result_path: Path | None = None,
        calibration_path: Path | None = None,
    ) -> None:
        """Add one image.

        Args:
            name: such as 'um_road_000012'; its start is the category.
            valid: (H, W) non-zero where a pixel counts.
            road: (H, W) non-zero where it is road.
            confidence: (H, W) uint8.
            calibration: needed for the bird's-eye view, unless both are in it already.
            gt_path: kept for `road_planes`.
            result_path: likewise.
            calibration_path: likewise.

        Raises:
            UserError: sizes that do not fit, or no calibration.
        """
        valid8, road8 = (np.asarray(valid) > 0).astype(np.uint8), (np.asarray(road) > 0).astype(np.uint8)
        valid8, road8, confidence = planes(name, valid8, road8, confidence, self.space, calibration)
        road_histogram, other_histogram = confidence_histograms(valid8, road8, confidence)
        self._images.append(
            RoadImage(
                name=name,
                category=category_of(name),
                road_histogram=road_histogram,
                other_histogram=other_histogram,
                gt_path=gt_path,
                result_path=result_path,
                calibration_path=calibration_path,
            )
        )

    def evaluate(self) -> RoadEvaluation:
        """Score all images since `reset`."""
        scores = {
            category: pr_curve([image for image in self._images if image.category == category], category)
            for category in sorted({image.category for image in self._images})
        }
        urban = [image for image in self._images if image.category in URBAN]
        if urban:
            scores["URBAN"] = pr_curve(urban, "URBAN")
        return RoadEvaluation(space=self.space, images=tuple(self._images), scores=scores)
