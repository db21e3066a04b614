"""What a choice of frames shows, against choices of as many frames by chance, by labels that people made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.checks.similar import near_pairs
from datasets.labelling.looking import Seen
from datasets.labelling.writing import Reference

DRAWS = 200
"""Choices by chance."""


def against_chance(
    pool: Sequence[Seen], chosen: Sequence[int], reference: Reference, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Count objects, recordings and near-copies of a choice, and of choices by chance.

    Returns:
        By what is counted: the choice's count, and the mean and standard deviation by chance.
    """
    rng = np.random.default_rng(seed)
    own = _counts(pool, chosen, reference)
    draws = [_counts(pool, rng.permutation(len(pool))[: len(chosen)].tolist(), reference) for _ in range(DRAWS)]
    return {
        name: (value, float(np.mean([one[name] for one in draws])), float(np.std([one[name] for one in draws])))
        for name, value in own.items()
    }


def _counts(pool: Sequence[Seen], chosen: Sequence[int], reference: Reference) -> dict[str, float]:
    counts = dict.fromkeys(("objects", *(f"objects: {name}" for name in reference.class_names)), 0.0)
    labelled = 0
    for i in chosen:
        numbers = reference.objects_in(pool[i].frame.name)
        if numbers is None:
            continue
        labelled += 1
        counts["objects"] += sum(numbers)
        for name, number in zip(reference.class_names, numbers, strict=True):
            counts[f"objects: {name}"] += number
    counts["recordings"] = len({reference.drive_of(pool[i].frame.name) or pool[i].frame.drive for i in chosen})
    counts["pairs of near-copies"] = len(near_pairs([pool[i].hash for i in chosen]))
    counts["frames that people labelled"] = labelled
    return counts
