"""Confirmation thresholds: matching and F1 by hand, classes with few objects, and names in older files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datasets.sample import Sample
from perception.evaluation.detection import Matches
from perception.types import Detections
from training.checkpoint import load_checkpoint
from training.curves import draw_curves, read_records
from training.operating_point import (
    MIN_FOUND,
    SHARE_OF_BEST_F1,
    confirm_threshold,
    confirm_thresholds,
    match_sample,
    of_exported_head,
    proposed,
)
from training.results import Progress


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


def test_the_confirmation_threshold_follows_the_best_f1() -> None:
    """10 objects. Down to 0.6: 8 of 8 right, F1 = 16/18. Down to 0.3: 10 of 11, F1 = 20/21, but of 18: 20/28."""
    for wrong, expected in ((1, 0.3), (8, 0.6)):
        scored = many(0.6, True, 8) + many(0.4, False, wrong) + many(0.3, True, 2) + many(0.2, False, 9)
        assert confirm_threshold(matches(scored, 10)) == pytest.approx(SHARE_OF_BEST_F1 * expected)


def test_a_class_with_too_few_takes_the_lowest_of_the_others() -> None:
    enough, low = (
        matches(many(0.4567 / SHARE_OF_BEST_F1, True, MIN_FOUND), 10),
        matches(many(0.25 / SHARE_OF_BEST_F1, True, MIN_FOUND), 10),
    )
    few = matches(many(0.9, True, MIN_FOUND - 1), 10)
    assert confirm_thresholds([enough, low, few]) == (0.457, 0.25, 0.25)
    assert confirm_thresholds([few, Matches()]) == confirm_thresholds([]) == ()
    assert confirm_thresholds([matches(many(0.01, True, 9), 9)]) == (0.1,), "what the tracker can use"


def test_a_checkpoint_proposes_for_all_its_classes_or_none() -> None:
    scores = {"confirm_threshold_car": 0.3, "confirm_threshold_pedestrian": 0.2, "score": 50.0}
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
    assert confirm_threshold(matches(tuple(scored), 50)) == pytest.approx(0.7 * 0.4)


def test_a_checkpoint_with_former_names_still_loads(tmp_path: Path) -> None:
    state = {
        "format": 1,
        "scores": {"even_score_car": 0.3, "many_even_score_car": 0.2, "car_easy": 50.0},
        "progress": {"step": 4, "best": 1.0, "scorings_since": 2},
    }
    torch.save(state, tmp_path / "last.pt")
    found = load_checkpoint(tmp_path / "last.pt")
    assert found["scores"] == {"confirm_threshold_car": 0.3, "many_confirm_threshold_car": 0.2, "car_easy": 50.0}
    assert Progress(**found["progress"]).evaluations_since_best == 2


def test_curves_of_a_run_with_former_names(tmp_path: Path) -> None:
    records = [
        {"step": 50, "class": 2.0, "rate": 0.1, "pictures_per_s": 9.0},
        {"step": 100, "class": 1.0, "learning_rate": 0.1, "images_per_s": 9.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert [r["learning_rate"] for r in read_records(tmp_path)] == [0.1, 0.1]
    assert cv2.imread(str(draw_curves(tmp_path))) is not None
