"""Which detection belongs to which track: the one-to-one pairing with the largest total gain."""

from __future__ import annotations

import numpy as np

from perception.boxes import Floats
from perception.lsap import solver
from perception.types import I64


def assign(gain: Floats) -> tuple[I64, I64]:
    """Pair rows with columns so that the summed gain is largest.

    Leaving a row or a column alone gains nothing, so a pair is made only where its gain is positive.

    Args:
        gain: (N, M) finite numbers.

    Returns:
        Matched rows (K,) ascending and their columns (K,).
    """
    useful = gain > 0
    rows, columns = np.nonzero(useful)
    if not len(rows):
        return rows, columns
    # streets are mostly clear: a row and a column that want only each other need no optimisation
    alone = (useful.sum(axis=1)[rows] == 1) & (useful.sum(axis=0)[columns] == 1)
    if alone.all():
        return rows, columns
    open_rows, open_columns = np.unique(rows[~alone]), np.unique(columns[~alone])
    block = np.maximum(gain[np.ix_(open_rows, open_columns)], 0.0)
    i, j = solver()(block, True)  # True: maximise
    made = block[i, j] > 0
    rows = np.concatenate([rows[alone], open_rows[i[made]]])
    columns = np.concatenate([columns[alone], open_columns[j[made]]])
    order = np.argsort(rows)
    return rows[order], columns[order]
