"""What to label next: hand-checkable signals, and choices that are valuable, apart, balanced and no near-copies."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from datasets.labelling.selecting import choose, quota_of
from datasets.labelling.signals import Signals, doubt, unmatched
from perception.types import Detections


def found(*rows: tuple[float, ...]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


def hashes(*numbers: int) -> list[np.ndarray]:
    """Hashes that differ in 128 bits where the numbers differ."""
    return [np.array([(1 << 64) - 1 if n >> k & 1 else 0 for k in range(4)], np.uint64) for n in numbers]


def test_doubt_is_entropy() -> None:
    """A score of 0.5 is one bit, a certain one none, and what is hardly seen does not count."""
    assert doubt(found((0, 0, 9, 9, 0.5, 0), (0, 0, 9, 9, 1, 0), (0, 0, 9, 9, 0.09, 0))) == pytest.approx(1, abs=1e-6)
    assert doubt(found(*[(0, 0, 9, 9, 0.5, 0)] * 20)) == pytest.approx(8)
    assert doubt(found()) == 0


def test_disagreement_counts_what_the_other_does_not_see() -> None:
    firm = found((0, 0, 10, 10, 0.8, 0), (20, 0, 30, 10, 0.6, 0), (40, 0, 50, 10, 0.4, 0))
    faint = found((0, 0, 10, 9, 0.1, 0), (20, 0, 30, 10, 0.9, 1))  # the second is of another class
    assert unmatched(firm, faint) == pytest.approx(0.6)
    assert unmatched(found(), firm) == 0


def test_ranks_leave_out_what_never_differs() -> None:
    signals = Signals({"doubt": np.array([3.0, 1.0, 2.0]), "unusual": np.ones(3)}, np.zeros((3, 1)))
    ranks = signals.ranks()
    assert signals.of([2]).values["doubt"].tolist() == [2.0]
    assert list(ranks) == ["doubt"] and ranks["doubt"].tolist() == [1, 0, 0.5]


def test_the_most_valuable_first_then_what_lies_apart() -> None:
    """On a line: 0 is the best; 10 is far from it, 1 is near; all others are worth little."""
    features = np.array([[0.0], [1.0], [10.0], [5.0]])
    ranks = {"doubt": np.array([9.0, 8.0, 7.0, 6.0])}  # ranks 1, 2/3, 1/3, 0
    words = {"doubt": tuple(f"{i} doubtful boxes" for i in range(4))}
    chosen = choose(Signals(ranks, features, words), hashes(0, 1, 3, 7), ["a"] * 4, 3)
    assert [one.index for one in chosen.choices] == [0, 2, 1]
    assert [one.distance for one in chosen.choices] == [np.inf, 10, 1]
    assert chosen.choices[0].reason == "0 doubtful boxes"
    assert "far from all chosen" in chosen.choices[1].reason


def test_near_copies_are_not_chosen_and_counted() -> None:
    chosen = choose(Signals({"doubt": np.array([1.0, 0.9, 0.1])}, np.eye(3)), hashes(0, 0, 1), ["a"] * 3, 3)
    assert [one.index for one in chosen.choices] == [0, 2] and chosen.near_copies == 1


def test_recordings_give_the_same_number() -> None:
    """Of 8 frames of one recording and 2 of another, 6 are chosen: 4 and 2."""
    drives = ["a"] * 8 + ["b"] * 2
    ranks = {"doubt": np.linspace(1, 0, 10)}
    chosen = choose(Signals(ranks, np.random.default_rng(0).normal(size=(10, 3))), hashes(*range(10)), drives, 6)
    assert Counter(drives[one.index] for one in chosen.choices) == {"a": 4, "b": 2}
    assert len({one.index for one in chosen.choices}) == 6


@pytest.mark.parametrize(
    ("sizes", "count", "quota"),
    [({"a": 8, "b": 2}, 6, 4), ({"a": 3, "b": 3}, 6, 3), ({"a": 3}, 9, 3), ({"a": 5, "b": 5, "c": 1}, 5, 2)],
)
def test_quota(sizes: dict[str, int], count: int, quota: int) -> None:
    assert quota_of(sizes, count) == quota


def test_a_pool_without_differences() -> None:
    chosen = choose(Signals({}, np.zeros((3, 2))), hashes(0, 1, 2), ["a"] * 3, 2)
    assert len(chosen.choices) == 2 and all(one.reason for one in chosen.choices)
