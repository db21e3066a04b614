"""Assignment against every possible pairing."""

from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perception.trackers.assignment import assign, assign_pairs


def best_total(gain: np.ndarray) -> float:
    gain = np.maximum(gain, 0)
    if gain.shape[0] > gain.shape[1]:
        gain = gain.T
    return max(
        sum(gain[i, j] for i, j in enumerate(order)) for order in permutations(range(gain.shape[1]), len(gain))
    )


gains = st.tuples(st.integers(1, 4), st.integers(1, 5)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(-3, 6).map(float))
)


def total(gain: np.ndarray, match: dict[int, int]) -> float:
    """What a match gains, checked to be one to one and worth making."""
    assert len(set(match.values())) == len(match)
    assert all(gain[i, j] > 0 for i, j in match.items())
    return sum(gain[i, j] for i, j in match.items())


@settings(deadline=None)
@given(gains)
def test_no_other_pairing_gains_more(gain: np.ndarray) -> None:
    assert total(gain, assign(gain)) == best_total(gain)


@settings(deadline=None)
@given(gains, st.sets(st.integers(0, 3)))
def test_who_comes_later_gets_what_is_left(gain: np.ndarray, later: set[int]) -> None:
    every = [(i, j, gain[i, j]) for i, j in np.ndindex(gain.shape)]
    match = assign_pairs(every, later.__contains__)
    first = [i for i in range(len(gain)) if i not in later]
    others = [i for i in range(len(gain)) if i in later]
    assert total(gain, {i: j for i, j in match.items() if i in first}) == (best_total(gain[first]) if first else 0)
    left = np.delete(gain[others], [match[i] for i in first if i in match], axis=1)
    assert total(gain, {i: j for i, j in match.items() if i in later}) == (best_total(left) if left.size else 0)


def test_one_poor_pair_does_not_cost_a_good_one() -> None:
    assert assign(np.array([[0.9, 0.2], [0.3, -1.0]])) == {0: 0}


def test_who_competes_is_solved_together() -> None:
    """Both rows like the first column best; the third row is not in their way."""
    assert assign(np.array([[5.0, 4.0, 0.0], [5.0, 1.0, 0.0], [0.0, 2.0, 3.0]])) == {0: 1, 1: 0, 2: 2}


def test_nothing_to_pair() -> None:
    for shape in ((0, 0), (0, 3), (3, 0), (2, 2)):
        assert assign(np.zeros(shape)) == {}


def test_contests_that_share_no_column_are_solved_apart() -> None:
    """Both rows of a contest gain most from its first column; the first of them loses less by giving way."""
    contest = np.array([[5.0, 4.0], [5.0, 1.0]])
    gain = np.kron(np.eye(6), contest)  # 3^12 pairings in all, 9 in each contest
    assert assign(gain) == {row: row + 1 if row % 2 == 0 else row - 1 for row in range(12)}
