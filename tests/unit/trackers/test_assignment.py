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


gains = st.tuples(st.integers(1, 4), st.integers(1, 5)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(-3, 6).map(float))
)


def pairs(match: np.ndarray) -> list[tuple[int, int]]:
    """Of row and column, checked to be one to one."""
    made = [(i, j) for i, j in enumerate(match.tolist()) if j >= 0]
    assert len({j for _, j in made}) == len(made)
    return made


def total(gain: np.ndarray, match: np.ndarray) -> float:
    assert all(gain[i, j] > 0 for i, j in pairs(match))
    return sum(gain[i, j] for i, j in pairs(match))


@settings(deadline=None)
@given(gains)
def test_no_other_pairing_gains_more(gain: np.ndarray) -> None:
    assert total(gain, assign(gain)) == best_total(gain)


@settings(deadline=None)
@given(gains, st.lists(st.booleans(), min_size=4, max_size=4))
def test_the_first_choose_as_if_alone_the_others_from_what_is_left(gain: np.ndarray, order: list[bool]) -> None:
    first = np.array(order[: len(gain)])
    match = assign(gain, first)
    taken = [j for i, j in pairs(match) if first[i]]
    assert total(gain, np.where(first, match, -1)) == (best_total(gain[first]) if first.any() else 0)
    left = np.delete(gain, taken, axis=1)[~first]
    assert total(gain, np.where(first, -1, match)) == (best_total(left) if left.size else 0)


def test_one_poor_pair_does_not_cost_a_good_one() -> None:
    assert assign(np.array([[0.9, 0.2], [0.3, -1.0]])).tolist() == [0, -1]


def test_who_competes_is_solved_together() -> None:
    """Both rows like the first column best; the third row is not in their way."""
    assert assign(np.array([[5.0, 4.0, 0.0], [5.0, 1.0, 0.0], [0.0, 2.0, 3.0]])).tolist() == [1, 0, 2]


def test_nothing_to_pair() -> None:
    for shape in ((0, 0), (0, 3), (3, 0)):
        assert assign(np.zeros(shape)).tolist() == [-1] * shape[0]
    assert assign(np.full((2, 2), -1.0), np.array([True, False])).tolist() == [-1, -1]
