"""Trackers are found by file name; a wrong name or option is a sentence."""

import pytest

from perception.errors import UserError
from perception.trackers import DEFAULT_TRACKER, create_tracker, tracker_names


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
