"""SciPy's solver of the linear sum assignment problem, without the half second that importing `scipy.optimize` takes.

The solver is one compiled file that needs nothing else of SciPy; it is loaded from there by itself. Where SciPy keeps
it elsewhere, the ordinary import does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from perception.types import F64, I64


@cache
def solver() -> Callable[..., Any]:
    """`scipy.optimize.linear_sum_assignment`."""
    package = importlib.util.find_spec("scipy")  # finds it, does not import it
    for folder in (package.submodule_search_locations or ()) if package else ():
        for suffix in EXTENSION_SUFFIXES:
            path = Path(folder) / "optimize" / f"_lsap{suffix}"
            spec = importlib.util.spec_from_file_location("_lsap", path) if path.is_file() else None
            if spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                if hasattr(module, "linear_sum_assignment"):
                    return module.linear_sum_assignment
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment


def best_columns(gains: F64) -> I64:
    """The column of each row in the one-to-one assignment with the highest sum, -1 for none.

    Args:
        gains: (N, M), finite.
    """
    rows, columns = solver()(gains, True)
    if len(rows) == len(gains):  # rows come sorted
        return columns
    found = np.full(len(gains), -1)
    found[rows] = columns
    return found
