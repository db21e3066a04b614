"""AP and AOS of many re-weightings of the frames at once: `score_curve` with a leading axis of draws.

`score_curve` with weights gives the same numbers for one draw. A comparison needs some thirty thousand, and one at a
time Python's own overhead would dominate.
"""

from __future__ import annotations

import numpy as np

from perception.arrays import F64, I64
from perception.evaluation.object import RECALL_STEPS
from perception.evaluation.results import ObjectCurve

_CACHED = 30_000
"""Numbers handled at a time, so that they stay in a core's cache."""


def recall_positions(found: I64, truths: I64) -> I64:
    """`recall_thresholds` as places: which true positive, from the highest score down, sets each threshold.

    Args:
        found: (R,) true positives of each draw.
        truths: (R,) valid ground truths of each draw.

    Returns:
        (R, 41) places counted from 0, -1 where there is no such threshold.
    """
    n, last = np.maximum(truths, 1)[:, None].astype(np.float64), found[:, None] - 1
    # summed up step by step, as the devkit does: the rounding decides ties
    wanted = np.concatenate([[0.0], np.cumsum(np.full(RECALL_STEPS, 1 / RECALL_STEPS))])  # (41,)
    place = np.maximum((wanted * n).astype(np.int64) - 3, 0)  # (R, 41)
    while (skipped := (place + 2) / n - wanted < wanted - (place + 1) / n).any():
        place += skipped
    # each true positive serves once, and the last one serves whoever asks for more
    steps = np.arange(RECALL_STEPS + 1)
    place = np.maximum.accumulate(place - steps, axis=1) + steps
    before = np.concatenate([np.full((len(place), 1), -1), place[:, :-1]], axis=1)
    return np.where(place <= last, place, np.where(before < last, last, -1))


class PrecisionAreas:
    """AP R40 and AOS R40 of one class and level as a function of the weights of frames."""

    def __init__(self, curve: ObjectCurve) -> None:
        self._n_gt = curve.n_gt
        order = np.argsort(-curve.tp_scores, kind="stable")
        self._hit_frames = curve.tp_frames[order]  # (K,)
        some = (curve.event_tp != 0) | (curve.event_fp != 0) | (curve.event_similarity != 0)
        self._frames = curve.event_frames[some]  # (E,)
        scores = curve.event_scores[some]
        self._event = np.searchsorted(-scores, -curve.tp_scores[order], side="right") - 1  # (K,) last at or above it
        self._tp = curve.event_tp[some].astype(np.int32)
        self._found = (curve.event_tp + curve.event_fp)[some].astype(np.int32)
        self._similarity = curve.event_similarity[some]

    def __call__(self, weights: I64) -> F64:
        """Areas in per cent, (R, F) → (R, 2); NaN for a draw without valid ground truth."""
        weights = weights.astype(np.int32)
        rows = max(1, _CACHED // max(len(self._frames), 1))
        parts = [self._areas(weights[start : start + rows]) for start in range(0, len(weights), rows)]
        return np.concatenate(parts) if parts else np.zeros((0, 2))

    def _areas(self, weights: np.ndarray) -> F64:
        draws, hit_count = len(weights), len(self._hit_frames)
        truths = weights @ self._n_gt  # (R,)
        curves = np.zeros((2, draws, RECALL_STEPS + 1))
        if hit_count:
            hits = np.cumsum(weights[:, self._hit_frames], axis=1, dtype=np.int64)  # (R, K)
            places = recall_positions(hits[:, -1], truths)
            # all rows in one search: row r lies between r·stride and (r + 1)·stride
            row = np.arange(draws)[:, None]
            stride = int(hits[:, -1].max()) + 1
            which = np.searchsorted((hits + row * stride).ravel(), (places + 1 + row * stride).ravel())
            which = np.clip(which.reshape(places.shape) - row * hit_count, 0, hit_count - 1)  # (R, 41)
            at = self._event[which]
            drawn = weights[:, self._frames]  # (R, E)
            tp, found, similarity = (
                np.take_along_axis(np.cumsum(drawn * steps, axis=1), at, axis=1)
                for steps in (self._tp, self._found, self._similarity)
            )
            usable = (places >= 0) & (found > 0)
            np.divide(tp, found, out=curves[0], where=usable)
            np.divide(similarity, found, out=curves[1], where=usable)
        best = np.maximum.accumulate(curves[:, :, ::-1], axis=2)[:, :, ::-1]
        areas = 100 * best[:, :, 1:].mean(axis=2).T
        areas[truths == 0] = np.nan
        return areas
