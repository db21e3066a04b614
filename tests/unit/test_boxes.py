"""Boxes: areas and overlaps that can be checked in the head, and what must hold for any box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perception import boxes

SQUARE = np.array([[0, 0, 10, 10]], np.float32)


def any_boxes(max_count: int = 6):
    """(N, 4) float64 boxes whose right is not left of their left, corners in ±1000."""

    def order(corners: np.ndarray) -> np.ndarray:
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)

    counts = st.integers(0, max_count)
    numbers = st.floats(-1000, 1000, width=32)
    return counts.flatmap(lambda n: arrays(np.float64, (n, 2, 2), elements=numbers)).map(order)


def test_area_counts_inverted_boxes_as_empty():
    given_boxes = np.array([[0, 0, 10, 5], [2, 2, 2, 9], [5, 5, 1, 9], [5, 5, 1, 1]], np.float32)
    assert boxes.area(given_boxes).tolist() == [50, 0, 0, 0]


def test_intersection_of_every_pair():
    b = np.array([[5, 5, 15, 15], [10, 0, 20, 10], [-5, -5, 20, 20], [3, 4, 5, 6]], np.float32)
    assert boxes.intersection(SQUARE, b).tolist() == [[25, 0, 100, 4]]
    assert boxes.intersection(b, SQUARE).tolist() == [[25], [0], [100], [4]]


def test_iou_by_hand():
    b = np.array([[5, 0, 15, 10], [0, 0, 10, 10], [10, 10, 20, 20], [0, 0, 5, 10]], np.float32)
    assert boxes.iou(SQUARE, b)[0] == pytest.approx([50 / 150, 1, 0, 0.5])


def test_iou_of_two_empty_boxes_is_zero_not_nan():
    point = np.array([[3, 3, 3, 3]], np.float32)
    assert boxes.iou(point, point).tolist() == [[0]]
    assert boxes.iou(point, SQUARE).tolist() == [[0]]


def test_intersection_over_area_asks_how_much_of_a_lies_in_b():
    half_outside = np.array([[-5, 0, 5, 10]], np.float32)
    assert boxes.intersection_over_area(half_outside, SQUARE).tolist() == [[0.5]]
    inside = np.array([[1, 1, 2, 2]], np.float32)
    assert boxes.intersection_over_area(inside, SQUARE).tolist() == [[1]]
    assert boxes.intersection_over_area(SQUARE, inside)[0, 0] == pytest.approx(0.01)
    empty = np.array([[4, 4, 4, 8]], np.float32)
    assert boxes.intersection_over_area(empty, SQUARE).tolist() == [[0]]


def test_clip_keeps_the_far_edge_of_the_image():
    wild = np.array([[-5, -5, 2000, 2000], [1, 2, 3, 4], [500, 500, 600, 600]], np.float32)
    assert boxes.clip(wild, (375, 1242)).tolist() == [[0, 0, 1242, 375], [1, 2, 3, 4], [500, 375, 600, 375]]


@pytest.mark.parametrize("function", [boxes.intersection, boxes.iou, boxes.intersection_over_area])
def test_no_boxes_give_an_empty_table(function):
    none = np.zeros((0, 4), np.float32)
    assert function(none, SQUARE).shape == (0, 1)
    assert function(SQUARE, none).shape == (1, 0)
    assert function(none, none).shape == (0, 0)


def test_precision_of_the_input_is_kept():
    for dtype in (np.float32, np.float64):
        given_boxes = SQUARE.astype(dtype)
        results = (
            boxes.area(given_boxes),
            boxes.iou(given_boxes, given_boxes),
            boxes.clip(given_boxes, (5, 5)),
        )
        assert {result.dtype for result in results} == {np.dtype(dtype)}


@given(any_boxes(), any_boxes())
def test_iou_is_symmetric_and_between_zero_and_one(a, b):
    overlaps = boxes.iou(a, b)
    np.testing.assert_array_equal(overlaps, boxes.iou(b, a).T)
    assert ((overlaps >= 0) & (overlaps <= 1 + 1e-9)).all()


@given(any_boxes())
def test_iou_with_itself_is_one_where_there_is_area(a):
    own = np.diagonal(boxes.iou(a, a))
    has_area = boxes.area(a) > 0
    assert own[has_area] == pytest.approx(1)
    assert (own[~has_area] == 0).all()


@given(any_boxes(), any_boxes())
def test_what_is_shared_is_never_more_than_either(a, b):
    shared = boxes.intersection(a, b)
    assert (shared <= np.minimum(boxes.area(a)[:, None], boxes.area(b)[None]) * (1 + 1e-12)).all()


@given(any_boxes(), any_boxes(), st.floats(-300, 300), st.floats(0.1, 10))
def test_iou_does_not_depend_on_place_or_scale(a, b, shift, scale):
    np.testing.assert_allclose(
        boxes.iou(np.round(a) * scale, np.round(b) * scale), boxes.iou(np.round(a), np.round(b)), atol=1e-6
    )
    np.testing.assert_allclose(
        boxes.iou(np.round(a) + round(shift), np.round(b) + round(shift)),
        boxes.iou(np.round(a), np.round(b)),
        atol=1e-9,
    )


@given(any_boxes(), st.integers(1, 500), st.integers(1, 500))
def test_clipping_twice_changes_nothing_and_never_adds_area(a, height, width):
    cut = boxes.clip(a, (height, width))
    np.testing.assert_array_equal(cut, boxes.clip(cut, (height, width)))
    assert (boxes.area(cut) <= boxes.area(a) * (1 + 1e-12)).all()
    assert (cut[:, 0::2] <= width).all() and (cut[:, 1::2] <= height).all() and (cut >= 0).all()
