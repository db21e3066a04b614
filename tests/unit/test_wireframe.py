"""3-D boxes in the image and from above, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perception.boxes3d import corners_3d, corners_bev
from perception.cameras.letterbox import plan_letterbox
from perception.cameras.level import boxes_of_tracks, camera_from_level
from perception.cameras.pinhole import PinholeCamera
from perception.model import ModelSpec
from perception.overlay import Overlay, shrunk
from perception.types import CLASS_NAMES, Detections, Frame, Result, RoadMask, Track, Tracks
from perception.wireframe import NEAR_M, cuboids_in_camera, lines_of_cuboid, outlines_from_above

CAMERA = PinholeCamera(np.array([[100.0, 0, 200, 0], [0, 100, 50, 0], [0, 0, 1, 0]]), 1.5)
BOX = np.array([100, 40, 120, 60], np.float32)
CAR = Track(
    3, 0, BOX, 0.9, position_m=(0.0, 10.0), position_std_m=(0.2, 0.8), distance_m=10.0, bottom_m=1.5,
    size_m=(4.0, 2.0, 1.5), size_std_m=(0.2, 0.1, 0.1), heading_rad=-np.pi / 2, heading_std_rad=0.1,
)  # fmt: skip
FLAT = Track(4, 0, BOX, 0.9, position_m=(5.0, 20.0), position_std_m=(0.5, 1.0), distance_m=20.6, bottom_m=1.5)


def test_corners_stand_on_the_ground_and_above_it() -> None:
    boxes = np.array([[1.0, 1.5, 10, 4, 1.5, 2, 0.3]])
    (corners,) = corners_3d(boxes)
    assert corners[:4, ::2] == pytest.approx(corners_bev(boxes)[0]) and corners[4:, ::2] == pytest.approx(
        corners[:4, ::2]
    )
    assert corners[:4, 1].tolist() == [1.5] * 4 and corners[4:, 1].tolist() == [0.0] * 4
    assert corners[:2].mean(axis=0) == pytest.approx([1 + 2 * np.cos(0.3), 1.5, 10 - 2 * np.sin(0.3)])  # the front


def test_a_camera_that_looks_down_sees_the_road_higher() -> None:
    """Looking down by 45°, a point as far ahead as below lies straight ahead of the camera."""
    down = replace(CAMERA, pitch_rad=np.pi / 4)
    assert camera_from_level(np.array([2.0, 5, 5]), down) == pytest.approx([2, 0, np.hypot(5, 5)])
    pixels = down.project(camera_from_level(np.array([[0.0, 1.5, 10]]), down))
    assert down.ground_position(pixels)[0] == pytest.approx([0, 10])  # the way back


def test_a_box_is_whole_or_unknown() -> None:
    known, flat = boxes_of_tracks(Tracks.from_rows([CAR, FLAT]))
    assert known == pytest.approx([0, 1.5, 10, 4, 1.5, 2, -np.pi / 2]) and np.isnan(flat).all()
    assert np.isnan(boxes_of_tracks(Tracks.from_rows([FLAT]))).all()
    assert list(cuboids_in_camera(Tracks.from_rows([CAR, FLAT]), CAMERA)) == [3]
    assert cuboids_in_camera(Tracks.from_rows([CAR]), None) == {}


def test_lines_of_a_car_straight_ahead() -> None:
    """2 m wide, its rear at 8 m: 25 px wide; its front at 12 m: 16.7 px; feet 18.75 and 12.5 px under the horizon."""
    corners = cuboids_in_camera(Tracks.from_rows([CAR]), CAMERA)[3]
    lines = lines_of_cuboid(corners, CAMERA, show_front=False)
    assert lines.shape == (12, 2, 2)
    assert lines[..., 0].min() == pytest.approx(187.5) and lines[..., 0].max() == pytest.approx(212.5)
    assert lines[..., 1].max() == pytest.approx(68.75) and lines[..., 1].min() == pytest.approx(50)
    pointer = lines_of_cuboid(corners, CAMERA, show_front=True)[12]
    assert pointer == pytest.approx(np.array([[200, 62.5], [200, 50 + 150 / 13.6]]))


def test_what_is_behind_the_camera_is_cut_off() -> None:
    beside = CAR._replace(position_m=(3.0, 0.5))  # from 1.5 m behind us to 2.5 m ahead
    lines = lines_of_cuboid(cuboids_in_camera(Tracks.from_rows([beside]), CAMERA)[3], CAMERA, show_front=True)
    assert len(lines) == 4 + 4 + 1  # the front, four sides up to the camera, the pointer
    assert lines[..., 0].max() == pytest.approx(200 + 100 * 4 / NEAR_M)
    behind = CAR._replace(position_m=(3.0, -9.0))
    assert not len(lines_of_cuboid(cuboids_in_camera(Tracks.from_rows([behind]), CAMERA)[3], CAMERA, show_front=True))


def test_from_above_a_footprint_or_a_standard_deviation() -> None:
    footprint, ellipse = outlines_from_above(Tracks.from_rows([CAR, FLAT]))
    assert footprint[0] == pytest.approx(footprint[-1]) and len(footprint) == 5
    assert footprint.min(axis=0) == pytest.approx([-1, 8]) and footprint.max(axis=0) == pytest.approx([1, 12])
    assert ellipse.min(axis=0) == pytest.approx([4.5, 19]) and ellipse.max(axis=0) == pytest.approx([5.5, 21])
    assert outlines_from_above(Tracks.from_rows([Track(1, 0, BOX, 0.9)])) == []


def drawn(track: Track, camera: PinholeCamera | None, size_hw: tuple[int, int] = (100, 400)) -> np.ndarray:
    """Which pixels the overlay changes, (H, W) bool."""
    spec = ModelSpec(CLASS_NAMES, (96, 320))
    frame = Frame(np.full((100, 400, 3), 100, np.uint8), 0, 0, camera=camera)
    road = RoadMask(np.zeros((24, 80), np.uint8), plan_letterbox((100, 400), spec.size_hw))
    result = Result(frame, Detections.empty(), Tracks.from_rows([track]), road)
    overlay, small = Overlay(spec), shrunk(result, max(size_hw))
    bare = overlay.draw(replace(small, tracks=Tracks.empty()))
    return np.any(overlay.draw(small) != bare, axis=2)


def test_the_overlay_draws_the_cuboid_where_it_stands() -> None:
    towards = CAR._replace(heading_rad=np.pi / 2, box_xyxy=np.array([300, 80, 340, 95], np.float32))
    shown = drawn(towards, CAMERA)
    _, columns = np.nonzero(shown[:75, 150:260])
    assert abs(columns.min() + 150 - 187) <= 1 and abs(columns.max() + 150 - 213) <= 1
    assert shown[60, 196]  # the front that faces us is tinted
    assert not shown[81:95, 301:339].any()  # no 2-D box beside it
    undecided = drawn(towards._replace(heading_std_rad=2.0), CAMERA)
    assert undecided.any() and not undecided[60, 196]
    for unknown in (drawn(towards, None), drawn(towards._replace(size_m=None), CAMERA)):
        assert unknown[80:95, 300].all() and not unknown[:75, 150:260].any()  # the 2-D box as ever


def test_a_shrunk_frame_takes_its_calibration_along() -> None:
    half = drawn(CAR._replace(box_xyxy=np.array([300, 80, 340, 95], np.float32)), CAMERA, (50, 200))
    assert half.shape == (50, 200)
    _, columns = np.nonzero(half[:38, 75:130])
    assert abs(columns.min() + 75 - 93) <= 1 and abs(columns.max() + 75 - 107) <= 1
