"""What is learned of a detector, from counts small enough to follow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.trackers.calibration import MOST_EVIDENCE, NEW_EVIDENCE, STEPS, SUREST, Calibration


def worth(calibration: Calibration, score: float) -> float:
    return calibration.worth[int(score * STEPS)]


def taught(*lessons: tuple[float, bool, int], threshold: float = 0.5) -> Calibration:
    """Lessons of (score, real, how often), each told as tracks of four detections, in turns."""
    calibration = Calibration(threshold)
    for i in range(max(count for _, _, count in lessons)):
        for score, real, count in lessons:
            if i < count:
                calibration.resolve([score] * 4, real)
    return calibration


def test_the_prior_is_the_scores_own_log_odds_around_the_threshold() -> None:
    calibration = Calibration(0.3)
    assert worth(calibration, 0.3) == pytest.approx(0, abs=0.05)
    assert worth(calibration, 0.6) == pytest.approx(np.log(0.6 / 0.4) - np.log(0.3 / 0.7), abs=0.05)
    assert worth(calibration, 1.0) == SUREST and worth(calibration, 0.0) == -SUREST


def test_little_evidence_changes_nothing() -> None:
    calibration = Calibration(0.3)
    before = calibration.worth
    calibration.resolve([0.4] * (NEW_EVIDENCE - 1), False)
    assert calibration.worth == before
    calibration.resolve([0.4] * 20, False)
    assert worth(calibration, 0.4) < 0


def test_scores_that_come_back_are_worth_something_and_others_are_not() -> None:
    calibration = taught((0.9, True, 60), (0.5, False, 60), threshold=0.3)
    assert worth(calibration, 0.5) < -2 and worth(calibration, 0.9) > 2


@pytest.mark.parametrize("score", [0.1, 0.25, 0.5, 1.0])
def test_where_everything_comes_back_any_score_is_sure(score: float) -> None:
    assert worth(taught((score, True, 60), threshold=0.6), score) > 2


def test_where_nothing_comes_back_no_score_is_worth_anything() -> None:
    assert worth(taught((0.95, False, 60), threshold=0.3), 0.95) < -1.5


def test_a_third_of_false_tracks_lasts_by_chance_and_proves_nothing() -> None:
    assert worth(taught((0.6, True, 30), (0.6, False, 60)), 0.6) < -1


def test_old_evidence_fades() -> None:
    calibration = taught((0.5, False, 5000))
    assert worth(calibration, 0.5) < -2
    assert calibration.resolved <= 1.5 * MOST_EVIDENCE
    for _ in range(1000):
        calibration.resolve([0.5], True)
    assert worth(calibration, 0.5) > 1


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(1, 60)), min_size=1, max_size=12))
def test_a_higher_score_is_never_worth_less(lessons: list[tuple[float, bool, int]]) -> None:
    calibration = taught(*lessons)
    assert np.all(np.diff(calibration.worth) >= -1e-9)
    assert max(map(abs, calibration.worth)) <= SUREST
    assert calibration.worth == taught(*lessons).worth


def test_without_learning_nothing_changes() -> None:
    calibration = Calibration(0.3, learn=False)
    before = list(calibration.worth)
    calibration.resolve([0.9] * 500, False)
    calibration.see_hidden(False)
    assert calibration.worth == before and calibration.reports_hidden and calibration.see_steady(0.2) == 1.0


def test_hidden_tracks_are_reported_while_most_are_found_where_predicted() -> None:
    calibration = Calibration(0.5)
    assert calibration.reports_hidden
    calibration.see_hidden(False)
    assert not calibration.reports_hidden
    for _ in range(5):
        calibration.see_hidden(True)
    assert calibration.reports_hidden


def test_spread_follows_the_errors_of_each_coordinate() -> None:
    calibration, rng = Calibration(0.5), np.random.default_rng(0)
    for _ in range(400):
        calibration.see_errors(np.square(rng.normal(0, [[1], [1], [2], [0.5]], (4, 5))))
    # the square root of the factor on the variance: standard deviations of 1, 1, 2, 0.5
    assert calibration.spread == pytest.approx([1, 1, 2, 0.5], rel=0.25)


def test_the_map_can_be_read() -> None:
    scores, values = taught((0.9, True, 60), (0.5, False, 60)).map()
    assert len(scores) == len(values) and scores[0] < 0.01 and scores[-1] > 0.99 and np.all(np.diff(values) >= 0)


def test_a_further_match_is_worth_more_where_false_detections_are_seldom_found_again() -> None:
    fleeting, lasting = Calibration(0.5), Calibration(0.5)
    assert fleeting.again_log_odds == 0
    for _ in range(40):
        fleeting.resolve([0.4], False)
        lasting.resolve([0.4] * 4, False)
    assert fleeting.again_log_odds == pytest.approx(np.log(0.5 / (3 / 46)), abs=0.1)  # 3 of 46, the prior's own
    assert lasting.again_log_odds == 0
