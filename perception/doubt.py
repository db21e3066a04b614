"""What a model file says about its own doubt: scores as probabilities, and margins that hold the true box.

`perception export doubt` measures both on held-out frames and writes them into the file's description.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.arrays import F32, F64, I64

MOST_SLOPE = 100.0
MOST_MARGIN = 10.0


@dataclass(frozen=True)
class Doubt:
    """Calibration of one network on the frames of one data set."""

    scaling: tuple[tuple[float, float], ...]
    """For each class slope and offset: the probability is sigmoid(slope · logit(score) + offset)."""
    coverage: float
    """Share of true boxes that the margins hold, such as 0.9."""
    heights_px: tuple[float, ...]
    """Rising lower ends of the height bins, pixels of the frame."""
    margins: tuple[tuple[float | None, ...], ...]
    """For each class and height bin: share of the box's width and height by which each side moves out. None where
    too few objects were seen to tell."""
    frames: int = 0
    """Frames that it was measured on."""
    ece_before: float = math.nan
    """Expected calibration error of the scores on those frames."""
    ece_after: float = math.nan
    """Of the probabilities, cross-validated over drives."""

    def probability(self, scores: F32, class_ids: I64) -> F32:
        """Convert scores (N,) to the probability that a detection is an object of its class, (N,)."""
        slope, offset = np.array(self.scaling, np.float64)[class_ids].reshape(-1, 2).T
        return scaled(np.asarray(scores, np.float64), slope, offset).astype(np.float32)

    def outer_boxes(self, boxes_xyxy: F32, class_ids: I64) -> F32:
        """Widen boxes (N, 4) to hold the true one with probability `coverage`; NaN where nobody can tell."""
        size = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]  # (N, 2)
        bins = np.searchsorted(self.heights_px, size[:, 1], side="right") - 1
        table = np.array([[math.nan if m is None else m for m in row] for row in self.margins], np.float64)
        share = np.where(bins >= 0, table[class_ids, np.maximum(bins, 0)], math.nan) if len(size) else np.zeros(0)
        out = size * share[:, None]
        return np.concatenate([boxes_xyxy[:, :2] - out, boxes_xyxy[:, 2:] + out], axis=1).astype(np.float32)

    def problems(self, classes: int) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with values that come from a file, as found and expected."""
        pairs = self.scaling
        if not (isinstance(pairs, tuple) and len(pairs) == classes and all(map(_is_scaling, pairs))):
            yield "doubt.scaling", "a positive slope and an offset for each class"
        if not (_is_number(self.coverage) and 0 < self.coverage < 1):
            yield "doubt.coverage", "a number between 0 and 1"
        edges = self.heights_px
        if not (isinstance(edges, tuple) and 1 <= len(edges) <= 20 and all(map(_is_number, edges))):
            yield "doubt.heights_px", "1 to 20 heights in pixels"
        elif list(edges) != sorted(set(edges)):
            yield "doubt.heights_px", "rising heights"
        rows = self.margins
        if not (
            isinstance(rows, tuple)
            and len(rows) == classes
            and all(isinstance(row, tuple) and len(row) == len(edges) and all(map(_is_margin, row)) for row in rows)
        ):
            yield "doubt.margins", f"for each class and height a share from -1 to {MOST_MARGIN:g}, or null"

    @staticmethod
    def from_json(values: Any) -> Doubt | None:
        """Read what `asdict` made of it; None where the text has another form."""
        if not isinstance(values, Mapping):
            return None

        def nested(value: Any) -> Any:
            return tuple(map(nested, value)) if isinstance(value, list) else value

        known = {name: nested(values[name]) for name in Doubt.__dataclass_fields__ if name in values}
        try:
            return Doubt(**known)
        except TypeError:
            return None


def scaled(scores: F64, slope: F64 | float, offset: F64 | float) -> F64:
    """sigmoid(slope · logit(score) + offset)."""
    inside = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.asarray(1 / (1 + np.exp(-(slope * np.log(inside / (1 - inside)) + offset))))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_scaling(pair: object) -> bool:
    return (
        isinstance(pair, tuple)
        and len(pair) == 2
        and all(map(_is_number, pair))
        and 0 < pair[0] <= MOST_SLOPE
        and abs(pair[1]) <= MOST_SLOPE
    )


def _is_margin(value: object) -> bool:
    return value is None or (_is_number(value) and -1 <= value <= MOST_MARGIN)  # type: ignore[operator]
