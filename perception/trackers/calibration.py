"""What a tracker learns about its detector while it runs, without labels; one `Calibration` for each class.

- What a score is worth (`worth`). Real objects are detected again where motion predicts them, false detections
  mostly are not. So a detection counts as real where its track becomes steady, as false where the track ends before.
  The first detections of each track count, and one in eight of the others: a long track weighs hardly more than a
  short one, and the map describes new tracks, for which it is used. The share of real ones by score is made monotone
  by pooling adjacent violators (Ayer et al., 1955).
- What a further match is worth (`again_log_odds`): much where false detections are seldom found again, nothing where
  half of them are.
- What steady objects score (`typical_score`): scores count in proportion to it when boxes are matched.
- Whether a track that vanishes behind another one is where it was predicted (`reports_hidden`): it is, if it is found
  there later.
- How far detected boxes are from predicted ones (`spread`), in each coordinate.

A prior holds until there is evidence. Old evidence fades, so a change of scene or of detector is followed. Memory is
bounded, and the same input gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import numpy as np

from perception.arrays import F64

STEADY_HITS = 8
"""A track with so many matches is steady."""
STEADY_IF_REAL, STEADY_IF_FALSE = 0.9, 0.3
"""Share of real and of false detections whose track becomes steady: false ones may last, real ones may flicker."""
MOST_EVIDENCE = 500.0
"""What the number of resolved detections fades to."""
NEW_EVIDENCE, NEW_SHARE = 40, 0.2
"""Resolved detections after which the map is worked out anew, and as a share of all: working it out takes as long as
a frame."""
PRIOR_WEIGHT = 10.0
"""Pseudo-counts of the prior at each node."""
NODES_PER_UNIT, LIMIT = 2, 7.0
"""Nodes of the map for each unit of the score's own log-odds, from -LIMIT to LIMIT: so detectors whose scores crowd
at 0.99 and ones that stay below 0.3 are resolved alike."""
NODES = np.linspace(-LIMIT, LIMIT, int(2 * LIMIT * NODES_PER_UNIT) + 1)
SUREST = 5.0
"""No score is worth more log-odds than this, none less than the opposite."""
LEAST_SHARE = 1 / (1 + exp(SUREST))
STEPS = 250
"""Entries of the table from score to log-odds."""
_SCORE_LOG_ODDS = np.log((np.arange(STEPS + 1) + 0.5) / (STEPS - np.arange(STEPS + 1) + 0.5))
_NODE_OF_STEP: list[int] = np.rint((_SCORE_LOG_ODDS + LIMIT) * NODES_PER_UNIT).astype(int).tolist()

AGAIN_PRIOR, AGAIN_SHARE, MOST_AGAIN = (3.0, 3.0), 0.5, 2.5
"""Pseudo-counts of false detections that were found again, and of others; the share from which that they are proves
nothing; and the most log-odds that a further match adds."""

FIRST_TYPICAL_SCORE, LEAST_TYPICAL_SCORE = 0.9, 0.2
"""The typical score before any steady track was seen, and its lower limit."""
TYPICAL_QUANTILE, TYPICAL_STEP = 0.75, 0.1
"""The typical score is this quantile over steady tracks; each moves it by about one step."""

HIDDEN_PRIOR = (3.0, 2.0)
"""Pseudo-counts of hidden tracks found where predicted, and of others."""
HIDDEN_SHARE, HIDDEN_MEMORY = 0.6, 50.0
"""Hidden tracks are reported while at least this share is found; tracks that are remembered."""

SPREAD_QUANTILE, SPREAD_STEP = 0.9, 0.12
EXPECTED_SPREAD = 2.706
"""That quantile of a squared standard normal deviate."""
LEAST_SPREAD, MOST_SPREAD = log(0.25), log(8.0)


class Calibration:
    """What is known of one class."""

    def __init__(self, threshold: float, learn: bool = True) -> None:
        """Start from the prior.

        Args:
            threshold: score at which a detection is as likely right as wrong, by the prior.
            learn: False keeps the prior.
        """
        self._learn = learn
        self.worth: list[float] = []
        """Log-odds that a detection of a new track is real, for scores of 0, 1/STEPS, … 1."""
        self.again_log_odds = 0.0
        """What each further match adds: more where false detections are seldom found again."""
        self._again, self._gone = AGAIN_PRIOR
        self._seen, self._real = [0.0] * len(NODES), [0.0] * len(NODES)
        self._total, self._fresh = 0.0, 0
        prior = [1 / (1 + exp(log(threshold / (1 - threshold)) - node)) for node in NODES.tolist()]
        self._prior = [PRIOR_WEIGHT * share for share in prior]
        self._set_map(prior)
        self.typical_score = FIRST_TYPICAL_SCORE if learn else 1.0
        self._found, self._missed = HIDDEN_PRIOR
        self._log_spread = [0.0] * 4
        self.spread: F64 = np.ones(4)
        """(4,) for cx, cy, w, h: factor on the variance of detected around predicted boxes."""

    def map(self) -> tuple[F64, F64]:
        """The whole map: scores and their log-odds, one each node."""
        return 1 / (1 + np.exp(-NODES)), np.array(self._values)

    @property
    def resolved(self) -> float:
        """Detections that the map rests on."""
        return self._total + self._fresh

    @property
    def reports_hidden(self) -> bool:
        """Whether hidden tracks are mostly where they are predicted."""
        return self._found >= HIDDEN_SHARE * (self._found + self._missed)

    # ------------------------------------------------------------ learning

    def resolve(self, scores: Sequence[float], real: bool) -> None:
        """Count the first detections of a track that became steady, or that ended before."""
        if not self._learn:
            return
        for score in scores:
            node = _NODE_OF_STEP[int(score * STEPS)]
            self._seen[node] += 1
            self._real[node] += real
        self._fresh += len(scores)
        if not real:
            self._again += len(scores) - 1
            self._gone += 1
            share = self._again / (self._again + self._gone)
            self.again_log_odds = min(max(log(AGAIN_SHARE / share), 0.0), MOST_AGAIN)
        if self._fresh >= max(NEW_EVIDENCE, NEW_SHARE * self._total):
            self._work_out()

    def see_steady(self, score: float) -> float:
        """A steady track was matched with a detection of this score; returns the typical one."""
        if self._learn:
            moved = self.typical_score + TYPICAL_STEP * (TYPICAL_QUANTILE - (score < self.typical_score))
            self.typical_score = min(max(moved, LEAST_TYPICAL_SCORE), 1.0)
        return self.typical_score

    def see_hidden(self, found: bool) -> None:
        """A hidden track was matched where predicted, or elsewhere, or never again."""
        if not self._learn:
            return
        if found:
            self._found += 1
        else:
            self._missed += 1
        keep = min(1.0, HIDDEN_MEMORY / (self._found + self._missed))
        self._found, self._missed = keep * self._found, keep * self._missed

    def see_errors(self, squares: F64) -> F64:
        """Squared errors of predicted boxes over their variance, (4, N), of steady tracks; returns `spread`."""
        expected = (1 - SPREAD_QUANTILE) * squares.shape[1]
        for i, row in enumerate(squares.tolist()):  # few numbers, of which lists are quicker than arrays
            limit = EXPECTED_SPREAD * exp(self._log_spread[i])
            moved = self._log_spread[i] + SPREAD_STEP * (sum([square > limit for square in row]) - expected)
            self._log_spread[i] = min(max(moved, LEAST_SPREAD), MOST_SPREAD)
        # half of it: what steady tracks show holds only in part for those that were hidden or turn
        self.spread = np.array([exp(0.5 * value) for value in self._log_spread])
        return self.spread

    def _work_out(self) -> None:
        """The map from the counts."""
        self._total += self._fresh
        self._fresh = 0
        if self._total > MOST_EVIDENCE:
            keep = MOST_EVIDENCE / self._total
            self._seen = [keep * count for count in self._seen]
            self._real = [keep * count for count in self._real]
            self._again *= keep
            self._gone *= keep
            self._total = MOST_EVIDENCE
        seen, real = _smoothed(self._seen), _smoothed(self._real)
        scale = 1 / (STEADY_IF_REAL - STEADY_IF_FALSE)
        pools = _monotone(
            [scale * (r - STEADY_IF_FALSE * n) + prior for r, n, prior in zip(real, seen, self._prior, strict=True)],
            [n + PRIOR_WEIGHT for n in seen],
        )
        self._set_map([min(max(share, LEAST_SHARE), 1 - LEAST_SHARE) for share in pools])

    def _set_map(self, shares: list[float]) -> None:
        self._values = [min(max(log(share / (1 - share)), -SUREST), SUREST) for share in shares]
        self.worth = np.interp(_SCORE_LOG_ODDS, NODES, self._values).tolist()


def _smoothed(counts: list[float]) -> list[float]:
    """Each node shares half of its counts with its two neighbours."""
    padded = [counts[0], *counts, counts[-1]]
    return [0.25 * a + 0.5 * b + 0.25 * c for a, b, c in zip(padded, counts, padded[2:], strict=False)]


def _monotone(real: list[float], seen: list[float]) -> list[float]:
    """Shares real / seen that never fall, closest to the given ones: adjacent violators are pooled."""
    pools: list[tuple[float, float, int]] = []
    for r, n in zip(real, seen, strict=True):
        count = 1
        while pools and pools[-1][0] * n >= r * pools[-1][1]:
            real_before, seen_before, count_before = pools.pop()
            r, n, count = real_before + r, seen_before + n, count_before + count
        pools.append((r, n, count))
    return [r / n for r, n, count in pools for _ in range(count)]
