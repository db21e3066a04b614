"""The evaluator's assignments are SciPy's; the tracker runs without it."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perception.evaluation.tracking_metrics import best_columns


def scipys(gains: np.ndarray) -> np.ndarray:
    from scipy.optimize import linear_sum_assignment

    columns = np.full(len(gains), -1)
    rows, found = linear_sum_assignment(gains, maximize=True)
    columns[rows] = found
    return columns


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 1000))
def test_equals_scipy_ties_included(rows: int, columns: int, seed: int) -> None:
    gains = np.random.default_rng(seed).integers(0, 4, (rows, columns)).astype(float)
    assert best_columns(gains).tolist() == scipys(gains).tolist()


def test_by_hand() -> None:
    assert best_columns(np.array([[3.0, 2.0], [2.0, 0.0]])).tolist() == [1, 0]  # 2 + 2 beats 3 + 0
    assert best_columns(np.array([[1.0], [2.0], [0.0]])).tolist() == [-1, 0, -1]
    assert best_columns(np.zeros((0, 3))).tolist() == []


def test_the_tracker_does_not_load_scipy() -> None:
    check = "import sys, perception.trackers.drivetrack, perception.cli.main; print('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "False"
