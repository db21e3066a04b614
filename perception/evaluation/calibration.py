"""Reliability of scores: the share of true detections by score, and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perception.arrays import F64, I64
from perception.evaluation.results import ratio


@dataclass(frozen=True, eq=False)
class Calibration:
    """The share of true detections by score: a reliability diagram."""

    edges: F64
    """(B + 1,) of the bins: tenths of 0..1, or of the range of the scores where they leave it."""
    true: I64
    """(B,) true positives."""
    false: I64
    """(B,) false positives."""
    mean_score: F64
    """(B,) NaN where a bin is empty."""
    share_true: F64
    """(B,)"""
    error: float
    """Expected calibration error: |share − mean score| averaged over detections; NaN where scores leave 0..1."""

    @property
    def is_probability(self) -> bool:
        return bool(self.edges[0] >= 0 and self.edges[-1] <= 1)


def calibration_of(scores: F64, is_true: np.ndarray, bins: int = 10) -> Calibration:
    """Bin scores (N,) and compare each bin's mean with its share of true ones (Guo et al. 2017)."""
    inside = not len(scores) or (scores.min() >= 0 and scores.max() <= 1)
    low, high = (0.0, 1.0) if inside else (float(scores.min()), float(scores.max()))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    index = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    true = np.bincount(index, weights=is_true.astype(np.float64), minlength=bins).astype(np.int64)
    mean_score = ratio(np.bincount(index, weights=scores, minlength=bins), count)
    share = ratio(true, count)
    gap = np.nansum(np.abs(share - mean_score) * count)
    error = float(gap / len(scores)) if len(scores) and inside else float("nan")
    return Calibration(edges, true, count - true, mean_score, share, error)
