"""Which detection belongs to which track: the one-to-one pairing with the largest total gain.

The general case goes to `lap` (Jonker and Volgenant's algorithm), which loads in a millisecond. `scipy.optimize`
takes half a second, too much for the start of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from operator import itemgetter

import lap
import numpy as np

from perception.boxes import Floats

Pair = tuple[int, int, float]
"""Row, column, and what pairing them gains."""
FEW_PAIRINGS = 40
"""Up to so many possible pairings are all tried."""


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
    pairs = [pair for pair in pairs if pair[2] > 0]
    match: dict[int, int] = {}
    best_gain: dict[int, float] = {}
    for row, column, gain in pairs:
        if row not in match or gain > best_gain[row]:
            match[row], best_gain[row] = column, gain
    # streets are mostly clear: where no two rows gain most from one column, each gets its best
    if len(set(match.values())) == len(match):
        return match

    # a row whose best column no other row can take gets it; the rest is solved together
    wanted: dict[int, int] = {}
    for _, column, _ in pairs:
        wanted[column] = wanted.get(column, 0) + 1
    open_rows = {row for row, column in match.items() if wanted[column] > 1}
    match = {row: column for row, column in match.items() if row not in open_rows}
    if is_later is None:
        return match | _solve([pair for pair in pairs if pair[0] in open_rows])
    later = {row for row in open_rows if is_later(row)}
    match |= _solve([pair for pair in pairs if pair[0] in open_rows and pair[0] not in later])
    if later:
        taken = set(match.values())
        match |= assign_pairs([pair for pair in pairs if pair[0] in later and pair[1] not in taken])
    return match


def _solve(pairs: list[Pair]) -> dict[int, int]:
    """The pairing of largest gain, for each group of rows that share columns by itself."""
    offers: dict[int, list[tuple[int, float]]] = {}
    for row, column, gain in pairs:
        offers.setdefault(row, []).append((column, gain))
    groups: list[tuple[list[int], set[int]]] = []
    for row, own in offers.items():
        rows, columns = [row], {column for column, _ in own}
        apart = []
        for group in groups:
            if columns.isdisjoint(group[1]):
                apart.append(group)
            else:
                rows, columns = group[0] + rows, columns | group[1]
        groups = [*apart, (rows, columns)]
    match: dict[int, int] = {}
    for rows, _ in groups:
        best = {row: max(offers[row], key=itemgetter(1))[0] for row in rows}
        if len(set(best.values())) == len(best):
            match |= best
        elif prod([len(offers[row]) + 1 for row in rows]) <= FEW_PAIRINGS:
            match |= _best([(row, offers[row]) for row in rows], frozenset())[1]
        else:
            match |= _solve_by_matrix([(row, column, gain) for row in rows for column, gain in offers[row]])
    return match


def _best(offers: list[tuple[int, list[tuple[int, float]]]], taken: frozenset[int]) -> tuple[float, dict[int, int]]:
    """The largest gain and its pairing, of all there are: few rows are quicker so than by the general method."""
    if not offers:
        return 0.0, {}
    (row, own), *others = offers
    best = _best(others, taken)
    for column, gain in own:
        if column not in taken:
            total, match = _best(others, taken | {column})
            if gain + total > best[0]:
                best = gain + total, match | {row: column}
    return best


def _solve_by_matrix(pairs: list[Pair]) -> dict[int, int]:
    """The pairing of largest gain by the general method."""
    rows, columns = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})
    row_at, column_at = ({value: i for i, value in enumerate(values)} for values in (rows, columns))
    block = np.zeros((len(rows), len(columns)))
    for row, column, gain in pairs:
        block[row_at[row], column_at[column]] = gain
    chosen = enumerate(lap.lapjv(-block, extend_cost=True)[1].tolist())  # -1: no column
    return {rows[i]: columns[j] for i, j in chosen if j >= 0 and block[i, j] > 0}
