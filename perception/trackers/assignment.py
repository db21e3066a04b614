"""Which detection belongs to which track: the one-to-one pairing with the largest total gain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np

from perception.boxes import Floats
from perception.lsap import solver

Pair = tuple[int, int, float]
"""Row, column, and what pairing them gains."""


def assign(gain: Floats) -> dict[int, int]:
    """Pair rows with columns so that the summed gain (N, M) is largest; the column of each row that gets one.

    Leaving a row or a column alone gains nothing, so a pair is made only where its gain is positive.
    """
    rows, columns = (gain > 0).nonzero()
    return assign_pairs(zip(rows.tolist(), columns.tolist(), gain[rows, columns].tolist(), strict=True))


def assign_pairs(pairs: Iterable[Pair], later: Collection[int] = ()) -> dict[int, int]:
    """`assign` where only some pairs are possible at all, each given once.

    Args:
        pairs: those that are possible.
        later: rows that choose after the others, from what is left.
    """
    pairs = list(pairs)
    best_gain: dict[int, float] = {}
    match: dict[int, int] = {}
    for row, column, gain in pairs:
        if gain > best_gain.get(row, 0.0):
            best_gain[row], match[row] = gain, column
    # streets are mostly clear: where no two rows like one column best, each gets its best
    if len(set(match.values())) == len(match):
        return match
    if later:
        match = assign_pairs(pair for pair in pairs if pair[0] not in later)
        taken = set(match.values())
        return match | assign_pairs(pair for pair in pairs if pair[0] in later and pair[1] not in taken)

    # who alone wants what it likes best gets it; the rest is solved together
    wanted = Counter(column for _, column, gain in pairs if gain > 0)
    match = {row: column for row, column in match.items() if wanted[column] == 1}
    open_pairs = [pair for pair in pairs if pair[2] > 0 and pair[0] not in match]
    rows, columns = sorted({pair[0] for pair in open_pairs}), sorted({pair[1] for pair in open_pairs})
    row_at, column_at = ({value: i for i, value in enumerate(values)} for values in (rows, columns))
    block = np.zeros((len(rows), len(columns)))
    for row, column, gain in open_pairs:
        block[row_at[row], column_at[column]] = gain
    for i, j in zip(*(index.tolist() for index in solver()(block, True)), strict=True):  # True: maximise
        if block[i, j] > 0:
            match[rows[i]] = columns[j]
    return match
