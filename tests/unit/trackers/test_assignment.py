"""Assignment against every possible pairing."""

from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perception.trackers.assignment import assign


def best_total(gain: np.ndarray) -> float:
    gain = np.maximum(gain, 0)
    if gain.shape[0] > gain.shape[1]:
        gain = gain.T
    return max(
        sum(gain[i, j] for i, j in enumerate(order)) for order in permutations(range(gain.shape[1]), len(gain))
    )


@settings(deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.integers(-3, 6).map(float)))
def test_no_other_pairing_gains_more(gain: np.ndarray) -> None:
    rows, columns = assign(gain)
    assert len(set(rows.tolist())) == len(rows) == len(set(columns.tolist()))
    assert (np.diff(rows) > 0).all()
    assert (gain[rows, columns] > 0).all()
    assert gain[rows, columns].sum() == best_total(gain)


def test_one_poor_pair_does_not_cost_a_good_one() -> None:
    rows, columns = assign(np.array([[0.9, 0.2], [0.3, -1.0]]))
    assert rows.tolist() == [0] and columns.tolist() == [0]


def test_nothing_to_pair() -> None:
    for shape in ((0, 0), (0, 3), (3, 0)):
        rows, columns = assign(np.zeros(shape))
        assert len(rows) == len(columns) == 0
