"""How far a frame lies from those that a network was trained on: night, fog, another camera, another continent.

A frame is described by a few numbers of its image (light, contrast, colour, haze, sharpness, noise) and of what the
network made of it (sure and unsure detections, road). Their Mahalanobis distance from the training set's mean is high
for frames that are unlike it (Lee et al. 2018 measure features inside a network in this way; here nothing inside is
needed, so any model file can be watched).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from perception.arrays import F64, U8
from perception.types import Detections, RoadMask

FEATURES = (
    "light", "contrast", "dark_tail", "bright_tail", "saturation", "blue_to_red", "green_excess", "haze", "sharpness",
    "noise", "light_above_to_below", "contrast_above_to_below", "sure", "unsure", "best_score", "road_share",
    "road_doubt",
)  # fmt: skip
"""Names of the numbers, in their order."""
SMALL_WIDTH = 320
"""Width to which an image is reduced for most numbers; a frame takes about a millisecond."""


@dataclass(frozen=True)
class Familiarity:
    """Mean and spread of the numbers on the training set, and the distance from which a frame is unfamiliar."""

    mean: tuple[float, ...]
    """(D,) by `FEATURES`."""
    precision: tuple[tuple[float, ...], ...]
    """(D, D) inverse covariance."""
    threshold: float
    """Distance that one in a hundred familiar frames exceeds."""
    frames: int = 0
    """Frames that it was measured on."""

    def distance(self, features: F64) -> float:
        """Mahalanobis distance of one frame, divided by the square root of D; 1 is usual."""
        away = features - np.array(self.mean, np.float64)
        squared = float(away @ np.array(self.precision, np.float64) @ away) / len(away)
        return math.sqrt(max(0.0, squared))

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with values that come from a file, as found and expected."""
        size = len(FEATURES)
        rows = self.precision if isinstance(self.precision, tuple) else ()
        if not _are_numbers(self.mean, size):
            yield "familiar.mean", f"{size} numbers"
        if len(rows) != size or not all(_are_numbers(row, size) for row in rows):
            yield "familiar.precision", f"{size} rows of {size} numbers"
        if not (_are_numbers((self.threshold,), 1) and self.threshold > 0):
            yield "familiar.threshold", "a positive number"

    @staticmethod
    def from_json(values: Any) -> Familiarity | None:
        """Read what `asdict` made of it; None where the text has another form."""
        if not isinstance(values, Mapping):
            return None
        known = {name: values[name] for name in Familiarity.__dataclass_fields__ if name in values}
        try:
            known["mean"] = tuple(known["mean"])
            known["precision"] = tuple(map(tuple, known["precision"]))
            return Familiarity(**known)
        except (KeyError, TypeError):
            return None


def _are_numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    )


def frame_features(image_bgr: U8, detections: Detections, road: RoadMask | None, threshold: float) -> F64:
    """Describe a frame, (D,) by `FEATURES`.

    Args:
        image_bgr: (H, W, 3) uint8.
        detections: what the network found, down to a score of 0.1 or less.
        road: its road mask, where there is one.
        threshold: score from which a detection is sure.
    """
    return np.array([*_image_features(image_bgr), *_output_features(detections, road, threshold)], np.float64)


def _image_features(image_bgr: U8) -> list[float]:
    height, width = image_bgr.shape[:2]
    step = max(1, width // SMALL_WIDTH)
    small = image_bgr[step // 2 :: step, step // 2 :: step].astype(np.float32)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    low, high = (float(v) for v in np.percentile(grey, (5, 95)))
    blue, green, red = (float(v) + 1 for v in small.mean(axis=(0, 1)))
    darkest, brightest = small.min(axis=2), small.max(axis=2)
    # the dark channel (He et al. 2009): haze lifts the darkest value of every neighbourhood
    haze = float(cv2.erode(darkest, np.ones((7, 7), np.uint8)).mean())
    # neighbours in the full image: a blurred and a noisy image differ only there
    rows = np.ascontiguousarray(image_bgr[:: max(1, height // 24), :, 1])
    second = np.abs(cv2.Sobel(rows, cv2.CV_16S, 2, 0, ksize=1))
    half = len(grey) // 2
    above, below = grey[:half], grey[half:]
    return [
        float(grey.mean()) / 64,
        float(np.log1p(grey.std())),
        math.log1p(low),
        math.log1p(255 - min(high, 255.0)),
        float(((brightest - darkest) / (brightest + 1)).mean()) * 4,
        math.log(blue / red) * 4,
        math.log(green * green / (blue * red)) * 4,
        math.log1p(haze),
        math.log1p(float(np.sqrt((second.astype(np.float32) ** 2).mean()))),
        math.log1p(float(np.median(second))),
        math.log((float(above.mean()) + 1) / (float(below.mean()) + 1)),
        math.log((float(above.std()) + 1) / (float(below.std()) + 1)),
    ]


def _output_features(detections: Detections, road: RoadMask | None, threshold: float) -> list[float]:
    sure = int((detections.scores >= threshold).sum())
    unsure = int(((detections.scores >= 0.1) & (detections.scores < threshold)).sum())
    share, doubt = 0.0, 0.0
    if road is not None and road.confidence.size:
        confidence = road.confidence.astype(np.float32) / 255
        share, doubt = float(confidence.mean()), float(np.minimum(confidence, 1 - confidence).mean())
    best = float(detections.scores.max(initial=0.0))
    return [math.log1p(sure), math.log1p(unsure), best * 2, share * 4, math.log(doubt + 0.005)]
