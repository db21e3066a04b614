"""Which detection belongs to which track: the one-to-one pairing with the largest total gain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

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


def assign_pairs(pairs: Iterable[Pair], is_later: Callable[[int], bool] | None = None) -> dict[int, int]:
    """`assign` where only some pairs are possible at all.

    Args:
        pairs: those that are possible, each once; those that gain nothing are not made.
        is_later: whether a row chooses after the others, from what is left.
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

    pairs = [pair for pair in pairs if pair[2] > 0]
    later = {row for row in match if is_later(row)} if is_later else set()
    # mostly those that compete have nothing else to choose: the strongest gets it
    choices = Counter([pair[0] for pair in pairs])
    rivals: dict[int, list[int]] = {}
    for row, column in match.items():
        rivals.setdefault(column, []).append(row)
    contests = [rows for rows in rivals.values() if len(rows) > 1]
    if all(choices[row] == 1 for rows in contests for row in rows):
        for rows in contests:
            winner = max(rows, key=lambda row: (row not in later, best_gain[row]))
            for row in rows:
                if row != winner:
                    del match[row]
        return match

    # who alone wants what it likes best gets it; the rest is solved together
    wanted = Counter([pair[1] for pair in pairs])
    match = {row: column for row, column in match.items() if wanted[column] == 1}
    pairs = [pair for pair in pairs if pair[0] not in match]
    if later:
        match |= _solve([pair for pair in pairs if pair[0] not in later])
        taken = set(match.values())
        return match | _solve([pair for pair in pairs if pair[0] in later and pair[1] not in taken])
    return match | _solve(pairs)


def _solve(pairs: list[Pair]) -> dict[int, int]:
    """The pairing of largest gain by the general method."""
    rows, columns = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})
    row_at, column_at = ({value: i for i, value in enumerate(values)} for values in (rows, columns))
    block = np.zeros((len(rows), len(columns)))
    for row, column, gain in pairs:
        block[row_at[row], column_at[column]] = gain
    i, j = solver()(block, True)  # True: maximise
    made = zip(i.tolist(), j.tolist(), block[i, j].tolist(), strict=True)
    return {rows[row]: columns[column] for row, column, gain in made if gain > 0}
