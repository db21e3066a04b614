"""Small quick draws: numpy's `choice` costs as much as drawing a car's door."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pick(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """Index drawn with the given weights, which need not sum to one."""
    left = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1


def sign(rng: np.random.Generator) -> int:
    """−1 or 1, evenly."""
    return 1 if rng.random() < 0.5 else -1


def stable_seed(*parts: int) -> tuple[int, ...]:
    """Non-negative integers for numpy's seeding from any integers."""
    return tuple(int(part) & 0x7FFFFFFF for part in parts)
