"""Average precision and F1 at any overlap, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perception.evaluation.detection import (
    Matches,
    average_precision,
    best_f1,
    f1_scores,
    match,
    pool,
    precision_recall,
)

NO_BOXES = np.zeros((0, 4))


def matches(*scored: tuple[float, bool], objects: int) -> Matches:
    scores, hits = zip(*scored, strict=True) if scored else ((), ())
    return Matches(np.array(scores, np.float64), np.array(hits, bool), objects)


def pairs(found: Matches) -> list[tuple[float, bool]]:
    return list(zip(found.scores.tolist(), found.is_true.tolist(), strict=True))


def test_a_detection_takes_the_free_object_that_it_overlaps_most() -> None:
    truth = np.array([[0, 0, 40, 30], [100, 0, 140, 30], [0, 50, 40, 70]], np.float64)
    boxes = np.array([truth[0], truth[0], truth[2], [155, 55, 195, 95], [60, 60, 90, 90]])
    regions = np.array([[150, 50, 200, 100]], np.float64)
    counted = np.array([True, True, False])
    found = match(boxes, np.array([0.9, 0.8, 0.7, 0.6, 0.5]), truth, counted, regions)
    # 0.7 lies on the object that does not count, 0.6 in the region
    assert found.n_objects == 2 and pairs(found) == [(0.9, True), (0.8, False), (0.5, False)]


def test_the_overlap_decides() -> None:
    truth, boxes = np.array([[0, 0, 10, 10.0]]), np.array([[0, 0, 10, 6.0]])  # IoU 0.6
    for min_iou, hit in ((0.6, True), (0.61, False)):
        found = match(boxes, np.array([0.5]), truth, np.array([True]), NO_BOXES, min_iou)
        assert pairs(found) == [(0.5, hit)]


def test_nothing_found_and_nothing_there() -> None:
    nobody = match(NO_BOXES, np.zeros(0), np.array([[0, 0, 10, 10.0]]), np.array([True]), NO_BOXES)
    assert (nobody.n_objects, average_precision(nobody), best_f1(nobody)) == (1, 0.0, 0.0)
    nothing = match(np.array([[0, 0, 10, 10.0]]), np.array([0.5]), NO_BOXES, np.zeros(0, bool), NO_BOXES)
    assert (pairs(nothing), average_precision(nothing), best_f1(nothing)) == ([(0.5, False)], 0.0, 0.0)
    assert pool([]).n_objects == 0


def test_curves_by_hand() -> None:
    both = pool([matches((0.9, True), (0.7, True), objects=3), matches((0.8, False), objects=1)])
    assert pairs(both) == [(0.9, True), (0.8, False), (0.7, True)] and both.n_objects == 4
    precision, recall = precision_recall(both)
    assert precision == pytest.approx([1, 1 / 2, 2 / 3]) and recall == pytest.approx([1 / 4, 1 / 4, 1 / 2])
    assert f1_scores(both) == pytest.approx([2 / 5, 1 / 3, 4 / 7])
    assert best_f1(both) == pytest.approx(4 / 7)
    assert average_precision(both) == pytest.approx((1 + 2 / 3) / 4)
