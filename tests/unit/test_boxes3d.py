"""Overlaps of 3-D boxes: by hand, by property, and against the official tool's recorded pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.boxes3d import (
    areas_bev,
    corners_bev,
    intersections_bev,
    iou_3d,
    iou_bev,
    shared_heights,
    volumes,
)

PI = np.pi
UNIT = (0.0, 0.0, 0.0, 2.0, 1.0, 2.0, 0.0)
"""x, y, z, length, height, width, rotation: 2 m square, 1 m high."""


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 7)


def moved(box: tuple[float, ...], **changes: float) -> tuple[float, ...]:
    names = ("x", "y", "z", "length", "height", "width", "rotation")
    return tuple({**dict(zip(names, box, strict=True)), **changes}.values())


# ---------------------------------------------------------------- by hand


def test_length_lies_along_x_and_turns_towards_the_camera() -> None:
    """KITTI's rotation_y is about y, which points down: a quarter turn takes +x to -z."""
    car = (10.0, 1.5, 20.0, 4.0, 1.5, 2.0, 0.0)
    corners = corners_bev(boxes(car, moved(car, rotation=PI / 2)))
    assert corners[0] == pytest.approx(np.array([[12, 21], [12, 19], [8, 19], [8, 21]]))
    assert corners[1] == pytest.approx(np.array([[11, 18], [9, 18], [9, 22], [11, 22]]))


@pytest.mark.parametrize(
    ("other", "area"),
    [
        (UNIT, 4.0),
        (moved(UNIT, x=1.0), 2.0),
        (moved(UNIT, x=1.0, z=1.0), 1.0),
        (moved(UNIT, x=2.0), 0.0),  # they touch
        (moved(UNIT, x=3.0), 0.0),
        (moved(UNIT, rotation=PI / 2), 4.0),
        (moved(UNIT, rotation=PI), 4.0),
        (moved(UNIT, rotation=PI / 4), 8 * (np.sqrt(2) - 1)),  # a regular octagon of width 2
        (moved(UNIT, length=1.0, width=1.0), 1.0),  # inside
        (moved(UNIT, length=1.0, width=1.0, rotation=PI / 4), 1.0),
        (moved(UNIT, length=9.0, width=9.0, rotation=0.3), 4.0),  # outside
        (moved(UNIT, length=9.0, width=1.0), 2.0),  # a cross
        (moved(UNIT, x=np.sqrt(2), rotation=PI / 4), (np.sqrt(2) - (np.sqrt(2) - 1)) ** 2),  # a corner cut off
        (moved(UNIT, length=-2.0, width=-2.0), 4.0),
        (moved(UNIT, length=-2.0), 0.0),
        (moved(UNIT, width=0.0), 0.0),
    ],
)
def test_shared_area_by_hand(other: tuple[float, ...], area: float) -> None:
    for a, b in ((UNIT, other), (other, UNIT)):
        assert intersections_bev(boxes(a), boxes(b)) == pytest.approx([area], abs=1e-12)


def test_overlaps_in_space_by_hand() -> None:
    """Half a metre of a metre in common: 2 m³ of 6 m³. Heights of 0 or less share nothing."""
    below = moved(UNIT, y=0.5)
    assert iou_bev(boxes(UNIT), boxes(below)) == pytest.approx([1.0])
    assert shared_heights(boxes(UNIT), boxes(below)) == pytest.approx([0.5])
    assert iou_3d(boxes(UNIT), boxes(below)) == pytest.approx([1 / 3])
    assert iou_3d(boxes(UNIT), boxes(moved(UNIT, y=1.0))) == [0.0], "one stands on the other"
    for height in (0.0, -1.0):
        flat = boxes(moved(UNIT, height=height))
        assert iou_bev(flat, boxes(UNIT)) == pytest.approx([1.0]) and iou_3d(flat, boxes(UNIT)) == [0.0]


def test_nothing_against_nothing() -> None:
    empty = boxes(moved(UNIT, length=0.0, height=0.0, width=0.0))
    assert iou_bev(empty, empty) == iou_3d(empty, empty) == [0.0]
    assert iou_bev(boxes(), boxes()).shape == (0,)


def test_boxes_that_almost_share_an_edge() -> None:
    """The official tool's polygon library gives 1 and 0 for these two."""
    touching = boxes((17.38221678232589, 1.7, 30.944958545307177, 3.61, 1.5, 1.9, -1.68))
    assert iou_bev(touching, boxes((18.72, 1.7, 27.46, 3.61, 1.5, 1.9, -1.68))) == pytest.approx([0.0], abs=1e-12)
    shorter = boxes((25.47, 1.7, 10.65, 3.5899948926773972, 1.64, 0.68, -2.86))
    same = boxes((25.47, 1.7, 10.65, 3.59, 1.64, 0.68, -2.86))
    assert iou_bev(shorter, same) == pytest.approx([0.9999985773474644], abs=1e-12)


# ---------------------------------------------------------------- by property

places, sizes, angles = st.floats(-5, 5), st.floats(0.05, 8), st.floats(-7, 7)
any_box = st.tuples(places, places, places, sizes, sizes, sizes, angles)


@given(any_box, any_box)
def test_overlap_is_symmetric_and_bounded(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    one, other = boxes(a), boxes(b)
    for overlap in (iou_bev, iou_3d):
        assert overlap(one, other) == pytest.approx(overlap(other, one), abs=1e-9)
        assert -1e-12 <= overlap(one, other)[0] <= 1 + 1e-9
    assert intersections_bev(one, other)[0] <= min(areas_bev(one)[0], areas_bev(other)[0]) + 1e-9


@given(any_box, st.integers(-2, 2))
def test_a_box_overlaps_itself_wholly(a: tuple[float, ...], half_turns: int) -> None:
    turned = boxes(moved(a, rotation=a[6] + half_turns * PI))
    assert iou_bev(boxes(a), turned) == pytest.approx([1.0], abs=1e-9)
    assert iou_3d(boxes(a), turned) == pytest.approx([1.0], abs=1e-9)


@given(any_box, any_box, angles, places, places)
def test_turning_and_moving_the_world_changes_nothing(
    a: tuple[float, ...], b: tuple[float, ...], turn: float, x: float, z: float
) -> None:
    cos, sin = np.cos(turn), np.sin(turn)

    def elsewhere(box: tuple[float, ...]) -> tuple[float, ...]:
        return moved(
            box, x=cos * box[0] + sin * box[2] + x, z=cos * box[2] - sin * box[0] + z, rotation=box[6] + turn
        )

    for overlap in (iou_bev, iou_3d):
        before, after = overlap(boxes(a), boxes(b)), overlap(boxes(elsewhere(a)), boxes(elsewhere(b)))
        assert before == pytest.approx(after, abs=1e-9)


@given(any_box, st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0.05, 1))
def test_a_box_inside_another_is_shared_wholly(a: tuple[float, ...], x: float, y: float, z: float) -> None:
    """Same centre and rotation, smaller: the overlap is the quotient of the sizes."""
    inside = boxes(moved(a, length=a[3] * x, height=a[4] * y, width=a[5] * z))
    assert iou_bev(inside, boxes(a)) == pytest.approx(areas_bev(inside) / areas_bev(boxes(a)), abs=1e-9)
    assert iou_3d(inside, boxes(a)) == pytest.approx(volumes(inside) / volumes(boxes(a)), abs=1e-9)


def test_areas_equal_those_of_many_points() -> None:
    """Points on a grid of 2 cm, counted."""
    random = np.random.default_rng(0)
    rows = random.uniform((-1, -1, -1, 0.5, 0.5, 0.5, -4), (1, 1, 1, 3, 3, 3, 4), (20, 7))
    grid = np.stack(np.meshgrid(*[np.arange(-5, 5, 0.02) + 0.01] * 2), axis=-1).reshape(-1, 2)

    def holds(box: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(box[6]), np.sin(box[6])
        x, z = (grid - box[[0, 2]]).T
        return (abs(cos * x - sin * z) <= box[3] / 2) & (abs(sin * x + cos * z) <= box[5] / 2)

    counted = [(holds(a) & holds(b)).sum() * 0.02**2 for a, b in zip(rows[:10], rows[10:], strict=True)]
    assert intersections_bev(rows[:10], rows[10:]) == pytest.approx(counted, abs=0.06)


# ---------------------------------------------------------------- the official tool


@pytest.mark.data
def test_recorded_pairs(golden_root: Path) -> None:
    pairs = json.loads((golden_root / "object3d_overlaps.json").read_text())["pairs"]
    assert len(pairs) == 424

    def column(key: str) -> np.ndarray:
        """Rows of h w l x y z ry; or numbers, where 0/0 counts as no overlap."""
        values = [pair[key] for pair in pairs]
        if key in ("det", "gt"):
            return np.array(values, np.float64)[:, [3, 4, 5, 2, 0, 1, 6]]
        return np.array([0.0 if value is None else value for value in values])

    det, gt = column("det"), column("gt")
    for found, key in ((iou_bev(det, gt), "bev"), (iou_3d(det, gt), "3d")):
        assert found == pytest.approx(column(f"{key}_exact"), abs=1e-11)
        assert found == pytest.approx(column(key), abs=1e-6), "the tool rounds coordinates"
