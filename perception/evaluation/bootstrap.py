"""The paired bootstrap: draw frames with repetition and score both runs on the same draws.

Drawing a frame twice equals giving it weight 2, so every score is a function of weights and nothing is matched again.
Both runs get the same weights, which removes the effect that hard and easy frames have on both.

Source: Efron & Tibshirani, An Introduction to the Bootstrap, ch. 13 and 16 (percentile interval); Holm 1979 for
several comparisons at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from perception.arrays import F64, I64

SEED = 0
RESAMPLES = 2000

Verdict = Literal["real", "perhaps", "not shown", "equal"]
Score = Callable[[I64], F64]
"""Weights of frames (R, F) → scores (R, M); NaN where a draw has no score."""
CHUNK = 64
"""Draws scored at a time."""


@dataclass(frozen=True)
class Difference:
    """One score of two runs, and whether they differ by more than the choice of frames explains."""

    name: str
    a: float
    b: float
    low: float
    """95 % interval of B − A."""
    high: float
    p: float
    """Two-sided: the share of draws that contradict the sign of the difference, doubled."""
    p_holm: float
    """`p` after Holm's correction for the number of comparisons."""
    verdict: Verdict
    """`real`: p_holm < 0.05. `perhaps`: the interval excludes zero, but p_holm does not confirm it. `not shown`: the
    interval contains zero. `equal`: no draw differs."""

    @property
    def difference(self) -> float:
        return self.b - self.a


def blocks(frame_counts: Sequence[int], length: int) -> I64:
    """Return the unit of each frame, (F,): blocks of `length` consecutive frames that never cross a sequence.

    Neighbouring frames of a video look alike; drawn one by one they would make every interval too narrow.
    """
    if length < 1:
        raise ValueError(f"length: found {length}, expected at least 1")
    units: list[np.ndarray] = []
    first = 0
    for count in frame_counts:
        unit = first + np.arange(count) // length
        units.append(unit)
        first = int(unit[-1]) + 1 if count else first
    return np.concatenate(units).astype(np.int64) if units else np.zeros(0, np.int64)


def paired_draws(
    score_a: Score,
    score_b: Score,
    units: I64,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[F64, F64]:
    """Score both runs on the same draws, two (R, M).

    Args:
        units: (F,) unit of each frame, 0, 1, …; the frames of a unit are drawn together.
        progress: called with how many draws are done, and of how many.
    """
    count = int(units.max()) + 1
    random = np.random.default_rng(seed)
    draws_a, draws_b = [], []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        weights = random.multinomial(count, np.full(count, 1.0 / count), size=size)[:, units]  # (R, F)
        draws_a.append(score_a(weights))
        draws_b.append(score_b(weights))
        progress(start + size, resamples)
    return np.concatenate(draws_a), np.concatenate(draws_b)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down correction, in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected, running = np.ones(len(p_values)), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return [float(p) for p in corrected]


def judge(
    names: Sequence[str], a: Sequence[float], b: Sequence[float], draws_a: F64, draws_b: F64
) -> list[Difference]:
    """Return differences with intervals and verdicts.

    Args:
        names, a, b: one entry for each of M numbers: the scores of the whole set.
        draws_a, draws_b: (R, M) the scores on the same R draws.
    """
    lows, highs, p_values = np.full(len(names), np.nan), np.full(len(names), np.nan), np.ones(len(names))
    for column in range(len(names)):
        delta = draws_b[:, column] - draws_a[:, column]
        delta = delta[np.isfinite(delta)]
        if not len(delta) or not np.isfinite([a[column], b[column]]).all():
            continue
        lows[column], highs[column] = np.percentile(delta, [2.5, 97.5])
        least = min(int((delta <= 0).sum()), int((delta >= 0).sum()))
        p_values[column] = min(1.0, 2 * (least + 1) / (len(delta) + 1))
    found = []
    for i, corrected in enumerate(holm(p_values.tolist())):
        verdict: Verdict = "not shown"
        if lows[i] == highs[i] == 0 and a[i] == b[i]:
            verdict = "equal"
        elif lows[i] > 0 or highs[i] < 0:
            verdict = "real" if corrected < 0.05 else "perhaps"
        found.append(
            Difference(
                names[i],
                float(a[i]),
                float(b[i]),
                float(lows[i]),
                float(highs[i]),
                float(p_values[i]),
                corrected,
                verdict,
            )
        )
    return found
