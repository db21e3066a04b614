"""Trackers are found by file name; a wrong name or option is a sentence."""

import pytest

from perception import trackers
from perception.errors import UserError
from perception.model import METADATA_KEY, ModelSpec
from perception.trackers import DEFAULT_TRACKER, create_tracker, tracker_for_model, tracker_names


def test_files_of_shared_parts_are_no_trackers() -> None:
    assert DEFAULT_TRACKER in tracker_names()
    assert not {"base", "kalman", "assignment"} & set(tracker_names())


def test_overrides_reach_the_config() -> None:
    assert create_tracker("bytetrack", low_score=0.2).config.low_score == 0.2


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match="try: --tracker bytetrack"):
        create_tracker("bytetrak")
    with pytest.raises(UserError, match="try: --set lost_s="):
        create_tracker("bytetrack", lostt_s=1.0)


def test_a_tracker_that_asks_is_told_what_the_models_scores_mean() -> None:
    assert tracker_for_model("drivetrack", (0.3, 0.2, 0.2)).config.confirm_thresholds == (0.3, 0.2, 0.2)
    own = create_tracker("drivetrack").config.confirm_thresholds
    assert tracker_for_model("drivetrack", ()).config.confirm_thresholds == own
    assert tracker_for_model("sort", (0.3, 0.2, 0.2)).config.low_score == 0.3


@pytest.mark.parametrize("scores", [(0.0,), (1.0,), (float("nan"),), (0.3, -1.0)])
def test_confirm_thresholds_that_cannot_be_are_refused_by_the_models_description(scores: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="confirmation thresholds"):
        ModelSpec(("Car",), (64, 64), confirm_thresholds=scores)


@pytest.mark.parametrize("argument", ["", "config=None", "config=dict()"])
def test_a_tracker_without_a_config_is_named(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scope: dict = {}
    exec(f"class BareTracker:\n    def __init__(self, {argument}): pass", scope)
    monkeypatch.setattr(trackers, "tracker_class", lambda name: scope["BareTracker"])
    for make in (lambda: create_tracker("bare"), lambda: tracker_for_model("bare", (0.5,))):
        with pytest.raises(UserError, match=r"(?s)BareTracker takes no config.*a dataclass"):
            make()


def test_model_files_of_earlier_versions_keep_their_thresholds() -> None:
    spec = ModelSpec(("Car",), (64, 64), confirm_thresholds=(0.3,))
    old = spec.to_json().replace("confirm_thresholds", "even_scores")
    assert "even_scores" in old
    for text in (old, spec.to_json()):
        assert ModelSpec.from_metadata({METADATA_KEY: text}, "m.onnx").confirm_thresholds == (0.3,)
