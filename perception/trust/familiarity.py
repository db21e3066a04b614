"""Fit the mean and spread of a training set's frames, and measure how well it tells other frames apart."""

from __future__ import annotations

import math

import numpy as np

from perception.arrays import F64
from perception.familiarity import Familiarity

SHRINKAGE = 0.1
"""Share of the diagonal in the covariance: some hundred frames do not fix the 153 numbers of it."""
ALLOWED = 0.99
"""Quantile of the training set's own distances, each measured without its neighbours, that becomes the threshold."""
BLOCKS = 10


def fit_familiarity(features: F64) -> Familiarity:
    """Fit on frames (N, D) in order of capture; the threshold comes from frames that are left out in blocks."""
    left_out = np.zeros(len(features))
    blocks = np.array_split(np.arange(len(features)), min(BLOCKS, len(features)))
    for block in blocks:
        rest = np.delete(features, block, axis=0)
        one = _fit(rest if len(rest) > 1 else features, 1.0)
        left_out[block] = [one.distance(row) for row in features[block]]
    return _fit(features, round(float(np.quantile(left_out, ALLOWED)), 4))


def _fit(features: F64, threshold: float) -> Familiarity:
    covariance = np.cov(features, rowvar=False)
    diagonal = np.diag(np.maximum(np.diag(covariance), 1e-4))
    precision = np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * diagonal)
    return Familiarity(
        tuple(float(f"{v:.6g}") for v in features.mean(axis=0)),
        tuple(tuple(float(f"{v:.6g}") for v in row) for row in precision),
        threshold,
        len(features),
    )


def auroc(familiar: F64, other: F64) -> float:
    """Probability that a frame of `other` lies farther away than one of `familiar`; ties count half, NaN if empty."""
    if not len(familiar) or not len(other):
        return math.nan
    greater = (other[:, None] > familiar[None, :]).mean()
    return float(greater + 0.5 * (other[:, None] == familiar[None, :]).mean())
