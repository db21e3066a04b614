"""Which detection belongs to which track: the one-to-one pairing with the largest total gain."""

from __future__ import annotations

import numpy as np

from perception.boxes import Floats
from perception.lsap import solver
from perception.types import I64


def assign(gain: Floats, first: np.ndarray | None = None) -> I64:
    """Pair rows with columns so that the summed gain is largest.

    Leaving a row or a column alone gains nothing, so a pair is made only where its gain is positive.

    Args:
        gain: (N, M) finite numbers.
        first: (N,) mask of rows that choose before the others do, who get what is left; None: all at once.

    Returns:
        The column of each row (N,), -1 for none.
    """
    match = np.empty(len(gain), np.int64)
    match.fill(-1)
    if not gain.size:
        return match
    rows = (np.maximum.reduce(gain, axis=1) > 0).nonzero()[0]
    best = gain.argmax(axis=1).take(rows)
    # streets are mostly clear: where no two rows like one column best, each gets its best
    if len(set(best.tolist())) == len(best):
        match[rows] = best
    elif first is None or all(first[rows].tolist()):
        match[rows] = _solve(gain.take(rows, axis=0), best)
    else:
        match[first] = assign(gain[first])
        left = gain[~first]
        left[:, match[match >= 0]] = 0.0
        match[~first] = assign(left)
    return match


def _solve(gain: Floats, best: I64) -> I64:
    """`assign` where rows compete; each has a positive gain somewhere, and the largest in the column `best`."""
    wanted = gain > 0
    # who alone wants what it likes best gets it; the solver sees the rest
    competing = (wanted.sum(axis=0).take(best) > 1).nonzero()[0]
    columns = np.logical_or.reduce(wanted.take(competing, axis=0), axis=0).nonzero()[0]
    block = np.maximum(gain.take(competing, axis=0).take(columns, axis=1), 0.0)
    i, j = solver()(block, True)  # True: maximise
    made = block[i, j] > 0
    best[competing] = -1
    best[competing[i[made]]] = columns[j[made]]
    return best
