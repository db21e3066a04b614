"""Trackers are found by file name; a wrong name or option is a sentence."""

import pytest

from perception.errors import UserError
from perception.model import ModelSpec
from perception.trackers import DEFAULT_TRACKER, create_tracker, tracker_for_model, tracker_names
from perception.types import Detections


def test_files_of_shared_parts_are_no_trackers() -> None:
    assert DEFAULT_TRACKER in tracker_names()
    assert not {"base", "kalman", "assignment"} & set(tracker_names())


def test_overrides_reach_the_config() -> None:
    assert create_tracker("bytetrack", low_score=0.2).config.low_score == 0.2  # type: ignore[attr-defined]


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match="try: bytetrack"):
        create_tracker("bytetrak")
    with pytest.raises(UserError, match="try: lost_s"):
        create_tracker("bytetrack", lostt_s=1.0)


def test_a_tracker_that_asks_is_told_what_the_models_scores_mean() -> None:
    assert tracker_for_model("drivetrack", (0.3, 0.2, 0.2)).config.even_scores == (0.3, 0.2, 0.2)  # type: ignore[attr-defined]
    own = create_tracker("drivetrack").config.even_scores  # type: ignore[attr-defined]
    assert tracker_for_model("drivetrack", ()).config.even_scores == own  # type: ignore[attr-defined]
    assert tracker_for_model("sort", (0.3, 0.2, 0.2)).update(Detections.empty(), 0) == ()


@pytest.mark.parametrize("scores", [(0.0,), (1.0,), (float("nan"),), (0.3, -1.0)])
def test_even_scores_that_cannot_be_are_refused_by_the_models_description(scores: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="even scores"):
        ModelSpec(("Car",), (64, 64), even_scores=scores)
