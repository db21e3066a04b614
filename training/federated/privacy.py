"""Differential privacy of a federated run: each round clips every client's change and adds noise to their mean.

The guarantee is for a whole client: with all its images, or with a change of zero. It covers the weights of every
round, as other clients and whoever gets the result see them. The server sees each client's change and is trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr


def private_mean(
    before: Sequence[np.ndarray],
    clients: Sequence[Sequence[np.ndarray]],
    clip_norm: float,
    noise: float,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Return the weights after a round: the mean of the clipped changes, with Gaussian noise (McMahan et al. 2018).

    Every client counts alike: by numbers of images, a large one would count for more than `clip_norm` / n. The noise
    is that of the clients that answered, not of those that were asked.

    Args:
        before: weights that the round started from.
        clients: weights of each client after the round.
        clip_norm: largest L2 norm of a client's change.
        noise: standard deviation of the noise on the sum of changes, as a multiple of `clip_norm`.
        rng: source of the noise.
    """
    total = [np.zeros_like(array, dtype=np.float64) for array in before]
    for arrays in clients:
        change = [after.astype(np.float64) - start for after, start in zip(arrays, before, strict=True)]
        norm = math.sqrt(sum(float((c**2).sum()) for c in change))
        scale = min(1.0, clip_norm / norm) if norm else 1.0
        for sum_of, c in zip(total, change, strict=True):
            sum_of += scale * c
    spread = noise * clip_norm
    return [
        (start + (sum_of + rng.normal(0.0, spread, sum_of.shape)) / len(clients)).astype(start.dtype)
        for start, sum_of in zip(before, total, strict=True)
    ]


def epsilon(noise: float, rounds: int, delta: float) -> float:
    """Return ε of a number of rounds, each with all clients, at a given δ.

    Rounds of Gaussian noise compose exactly to one with noise / √rounds (Dong, Roth, Su 2022, Corollary 3.3). Its
    δ(ε) = Φ(μ/2 - ε/μ) - e^ε Φ(-μ/2 - ε/μ), μ = √rounds / noise (Balle, Wang 2018, Theorem 8), is solved for ε.
    """
    if rounds == 0:
        return 0.0
    if noise == 0:
        return math.inf
    mu = math.sqrt(rounds) / noise

    def excess(eps: float) -> float:
        first, second = log_ndtr(mu / 2 - eps / mu), eps + log_ndtr(-mu / 2 - eps / mu)
        ratio = math.exp(min(0.0, second - first))
        return first + math.log1p(-ratio) - math.log(delta) if ratio < 1 else -math.inf

    high = 1.0
    while excess(high) > 0:
        high *= 2
    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, high, xtol=1e-9))
