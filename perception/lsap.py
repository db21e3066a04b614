"""The linear sum assignment problem, by SciPy.

`scipy.optimize` takes half a second to import, so it is imported at the first assignment that needs a solver.
`perception run` imports it in the background while the network loads.
"""

from __future__ import annotations

import numpy as np

from perception.types import F64, I64


def best_columns(gains: F64) -> I64:
    """The column of each row in the one-to-one assignment with the highest sum, -1 for none.

    Args:
        gains: (N, M), finite.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(gains, maximize=True)
    if len(rows) == len(gains):  # rows come sorted
        return columns
    found = np.full(len(gains), -1)
    found[rows] = columns
    return found
