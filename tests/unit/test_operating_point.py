"""From which score a class is believed: matching and F-measure by hand, and what happens with few objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from datasets.sample import Sample
from perception.evaluation.detection import Matches
from perception.types import Detections
from training.operating_point import (
    LEAST_FOUND,
    SEVERAL_LOOKS,
    believed_from,
    even_scores,
    match_sample,
    of_exported_head,
    proposed,
)


def matches(scored: Sequence[tuple[float, bool]], objects: int) -> Matches:
    scores, hits = zip(*scored, strict=True)
    return Matches(np.array(scores), np.array(hits), objects)


def many(score: float, hit: bool, count: int) -> tuple[tuple[float, bool], ...]:
    return ((score, hit),) * count


def test_low_objects_and_ignore_regions_count_as_nothing() -> None:
    truth = np.array(
        [[0, 0, 40, 30], [100, 0, 140, 30], [0, 50, 40, 70]], np.float32
    )  # the last one is too low to count
    sample = Sample(
        np.zeros((100, 200, 3), np.uint8),
        "frame",
        boxes_xyxy=truth,
        class_ids=np.zeros(3, np.int64),
        ignore_boxes_xyxy=np.array([[150, 50, 200, 100]], np.float32),
        ignore_class_ids=np.array([-1]),
    )
    boxes = np.array([truth[0], truth[0], truth[2], [155, 55, 195, 95], [60, 60, 90, 90]], np.float32)
    found = Detections(boxes, np.linspace(0.9, 0.5, 5).astype(np.float32), np.zeros(5, np.int64))
    own = match_sample(sample, found, 0)
    assert own.n_objects == 2
    assert own.scores == pytest.approx([0.9, 0.8, 0.5]) and own.is_true.tolist() == [True, False, False]
    other = match_sample(sample, found, 1)
    assert (other.n_objects, len(other.scores)) == (0, 0)


def test_a_class_is_believed_from_its_best_f1() -> None:
    """10 objects. Down to 0.6: 8 of 8 right, F1 = 16/18. Down to 0.3: 10 of 11, F1 = 20/21, but of 18: 20/28."""
    for wrong, expected in ((1, 0.3), (8, 0.6)):
        scored = many(0.6, True, 8) + many(0.4, False, wrong) + many(0.3, True, 2) + many(0.2, False, 9)
        assert believed_from(matches(scored, 10)) == pytest.approx(SEVERAL_LOOKS * expected)


def test_a_class_with_too_few_takes_the_lowest_of_the_others() -> None:
    enough, low = (
        matches(many(0.4567 / SEVERAL_LOOKS, True, LEAST_FOUND), 10),
        matches(many(0.25 / SEVERAL_LOOKS, True, LEAST_FOUND), 10),
    )
    few = matches(many(0.9, True, LEAST_FOUND - 1), 10)
    assert even_scores([enough, low, few]) == (0.457, 0.25, 0.25)
    assert even_scores([few, Matches()]) == even_scores([]) == ()
    assert even_scores([matches(many(0.01, True, 9), 9)]) == (0.1,), "what the tracker can use"


def test_a_checkpoint_proposes_for_all_its_classes_or_none() -> None:
    scores = {"even_score_car": 0.3, "even_score_pedestrian": 0.2, "score": 50.0}
    assert proposed(scores, ("Pedestrian", "Car")) == (0.2, 0.3)
    assert proposed(scores, ("Car", "Cyclist")) == proposed({}, ("Car",)) == ()


def test_each_head_takes_its_own_thresholds_to_the_file() -> None:
    scores = {"score_threshold": 0.2, "many_score_threshold": 0.5, "road_threshold": 99.0}
    assert (
        of_exported_head(scores, None)["score_threshold"] == of_exported_head(scores, True)["score_threshold"] == 0.2
    )
    assert of_exported_head(scores, False)["score_threshold"] == 0.5
    assert of_exported_head(scores, False)["road_threshold"] == 99.0
    assert of_exported_head({"score_threshold": 0.3}, False)["score_threshold"] == 0.3, "a network with one head"


def test_where_f1_is_flat_the_lowest_score_counts() -> None:
    """Of 50 objects 46 are found: F1 is 0.958 at best, at 0.5; 0.939 at 0.4; 0.929 and less at 0.3."""
    scored = [(0.8, True)] * 45 + [(0.5, True), (0.5, False), (0.4, False)] + [(0.3, False)] * 5
    assert believed_from(matches(tuple(scored), 50)) == pytest.approx(0.7 * 0.4)
