"""Which frames a person should label next: valuable ones, far from each other, from all recordings, no near-copies.

Greedy k-centres (Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR
2018), with each frame's distance weighted by what speaks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datasets.checks.similar import NEAR_BITS, Hash
from datasets.labelling.signals import Signals
from perception.arrays import F64

STRONG = 0.8
"""Rank from which a signal is a reason."""
WORDS: Mapping[str, str] = {
    "doubt": "doubtful boxes",
    "models disagree": "the networks disagree",
    "tracker disagrees": "tracker and detector disagree",
    "unusual": "unlike the other frames",
}


@dataclass(frozen=True)
class Choice:
    """One chosen frame."""

    index: int
    value: float
    """0..1, the mean of its ranks."""
    distance: float
    """To the nearest frame that was chosen before; infinite for the first."""
    reason: str


@dataclass(frozen=True)
class Selection:
    """What was chosen, in order."""

    choices: tuple[Choice, ...]
    near_copies: int
    """Frames that are near-copies of chosen ones."""


def value_of(ranks: Mapping[str, F64], count: int) -> F64:
    """Return the mean of the ranks of each frame, (N,)."""
    return np.mean(list(ranks.values()), axis=0) if ranks else np.ones(count)


def choose(signals: Signals, hashes: Sequence[Hash], drives: Sequence[str], count: int) -> Selection:
    """Choose frames.

    Args:
        signals: what speaks for each frame, and features that tell how alike two are.
        hashes: of the images; near-copies of a chosen frame are not chosen.
        drives: recording of each frame. Each gives the same number, as far as it has so many.
        count: frames to choose; fewer where near-copies leave no more.
    """
    ranks, features = signals.ranks(), signals.features
    values = value_of(ranks, len(features))
    quota = quota_of(Counter(drives), count)
    names, table = np.array(drives), np.stack(hashes) if len(hashes) else np.zeros((0, 4), np.uint64)
    open_, copies = np.ones(len(features), bool), np.zeros(len(features), bool)
    nearest = np.full(len(features), np.inf)
    taken: Counter[str] = Counter()
    choices: list[Choice] = []
    while len(choices) < count and open_.any():
        allowed = open_ & np.array([taken[name] < quota for name in drives])
        allowed = allowed if allowed.any() else open_  # near-copies have emptied a recording: others fill up
        worth = values * (1.0 if not choices else nearest)
        i = int(np.where(allowed, worth, -1.0).argmax())
        choices.append(Choice(i, float(values[i]), float(nearest[i]), _reason(signals, ranks, i, nearest, open_)))
        taken[str(names[i])] += 1
        open_[i] = False
        near = open_ & (np.bitwise_count(table ^ table[i]).sum(axis=1) <= NEAR_BITS)
        copies |= near
        open_ &= ~near
        nearest = np.minimum(nearest, np.linalg.norm(features - features[i], axis=1))
    return Selection(tuple(choices), int(copies.sum()))


def quota_of(sizes: Mapping[str, int], count: int) -> int:
    """Return the least number of frames from each recording that together gives enough."""
    most = max(sizes.values(), default=0)
    enough = (q for q in range(1, most + 1) if sum(min(size, q) for size in sizes.values()) >= count)
    return next(enough, most)


def _reason(signals: Signals, ranks: Mapping[str, F64], i: int, nearest: F64, left: np.ndarray) -> str:
    """Return in words why a frame is chosen, the strongest signal first."""
    own = sorted(((float(values[i]), name) for name, values in ranks.items()), reverse=True)
    strong = [name for rank, name in own if rank >= STRONG] or [name for _, name in own[:1]]
    words = [signals.words[name][i] if name in signals.words else WORDS.get(name, name) for name in strong[:3]]
    if np.isfinite(nearest[i]) and nearest[i] >= np.quantile(nearest[left], STRONG):
        words.append("far from all chosen")
    return "; ".join(words) or "far from all chosen"
