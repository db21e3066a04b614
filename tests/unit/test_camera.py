"""The camera: ranging by right triangles, and a frame's way into the network and back."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.cameras.letterbox import PAD_VALUE, letterbox, plan_letterbox, resize
from perception.cameras.pinhole import PinholeCamera
from perception.types import RoadMask

KITTI_P2 = np.array(
    [
        [721.5377, 0, 609.5593, 44.85728],
        [0, 721.5377, 172.854, 0.2163791],
        [0, 0, 1, 0.002745884],
    ]
)


def unit_camera(height_m: float = 3.0, pitch_rad: float = 0.0, **offset: float) -> PinholeCamera:
    """Focal length 1, centre at the origin: a pixel (u, v) is the ray (u, v, 1)."""
    projection = np.eye(3, 4)
    projection[0, 3] = offset.get("x", 0.0)
    return PinholeCamera(projection, height_m=height_m, pitch_rad=pitch_rad)


# ---------------------------------------------------------------- calibration and ranging


def test_a_point_four_ahead_and_three_below_is_seen_at_three_quarters():
    camera = unit_camera()
    assert camera.project(np.array([[0.0, 3, 4]])).tolist() == [[0, 0.75]]
    assert camera.ground_position(np.array([[0, 0.75]])) == pytest.approx(np.array([[0, 4]]))


def test_sideways_three_and_ahead_four_is_five_away():
    # height 1: the ray (3/4, 1/4, 1) meets the road at x = 3, z = 4
    x, z = unit_camera(height_m=1.0).ground_position(np.array([[0.75, 0.25]]))[0]
    assert (x, z) == pytest.approx((3, 4))
    assert math.hypot(x, z) == pytest.approx(5)


def test_twice_the_height_is_twice_the_distance():
    pixel = np.array([[0.5, 0.25]])
    assert unit_camera(2.0).ground_position(pixel) == pytest.approx(2 * unit_camera(1.0).ground_position(pixel))


def test_looking_down_by_a_3_4_5_triangle():
    # pitched by atan(3/4), the optical axis itself meets the road 4 ahead of a camera 3 above it
    camera = unit_camera(height_m=3.0, pitch_rad=math.atan2(3, 4))
    assert camera.ground_position(np.array([[0.0, 0.0]])) == pytest.approx(np.array([[0, 4]]))


def test_the_horizon_rises_in_the_picture_when_the_camera_looks_down():
    level, down = PinholeCamera(KITTI_P2), PinholeCamera(KITTI_P2, pitch_rad=0.01)
    assert level.horizon_y == pytest.approx(172.854)
    assert down.horizon_y == pytest.approx(172.854 - 721.5377 * math.tan(0.01))
    assert down.horizon_y < level.horizon_y


@pytest.mark.parametrize("pitch_rad", [-0.05, 0.0, 0.1])
def test_pixels_on_or_above_the_horizon_have_no_place_on_the_road(pitch_rad):
    camera = PinholeCamera(KITTI_P2, pitch_rad=pitch_rad)
    rows = camera.horizon_y + np.array([-50.0, -1e-9, 0.5])
    positions = camera.ground_position(np.stack([np.full(3, 609.5593), rows], axis=1))
    assert np.isnan(positions[:2]).all()
    assert np.isfinite(positions[2]).all() and positions[2, 1] > 500


def test_the_fourth_column_moves_the_origin_to_camera_zero():
    # the camera sits 2 m to the left of the reference: what it sees straight ahead lies at x = -2
    assert unit_camera(height_m=3.0, x=2.0).ground_position(np.array([[0, 0.75]])) == pytest.approx(
        np.array([[-2, 4]])
    )


@given(st.floats(-20, 20), st.floats(4, 80))
def test_a_point_of_the_road_is_found_where_it_was_projected_from(x, z):
    camera = PinholeCamera(KITTI_P2)
    below = camera.height_m - np.linalg.solve(camera.K_cam2, camera.P_cam2[:, 3])[1]
    pixel = camera.project(np.array([[x, below, z]]))
    assert camera.ground_position(pixel) == pytest.approx(np.array([[x, z]]), abs=1e-6)


def test_intrinsics_are_the_left_of_the_projection():
    assert PinholeCamera(KITTI_P2).K_cam2.tolist() == KITTI_P2[:, :3].tolist()


@pytest.mark.parametrize(
    ("projection", "height_m"),
    [
        (np.eye(3), 1.65),
        (np.full((3, 4), np.nan), 1.65),
        (np.zeros((3, 4)), 1.65),
        (-np.eye(3, 4), 1.65),
        (np.eye(3, 4), 0.0),
        (np.eye(3, 4), math.nan),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(projection, height_m):
    with pytest.raises(ValueError):
        PinholeCamera(projection, height_m=height_m)


# ---------------------------------------------------------------- where a frame lands

sizes = st.tuples(st.integers(40, 1200), st.integers(40, 2000))
network_sizes = st.sampled_from([(384, 1248), (192, 640), (256, 832), (96, 320)])


def test_plan_by_hand():
    placed = plan_letterbox((360, 640), (192, 640))  # the height binds: 192/360 = 0.5333, 341 columns wide, centred
    assert placed.placed_hw == (192, 341)
    assert placed.offset_xy == (149, 0)
    assert placed.scale_xy == pytest.approx((341 / 640, 192 / 360))


def test_a_kitti_frame_goes_into_its_native_input_untouched():
    image = np.random.default_rng(0).integers(0, 256, (375, 1242, 3), np.uint8)
    network_image, placed = letterbox(image, (384, 1248))
    assert placed.scale_xy == (1.0, 1.0) and placed.offset_xy == (3, 0)
    np.testing.assert_array_equal(network_image[:375, 3 : 3 + 1242], image)
    assert (
        (network_image[375:] == PAD_VALUE).all()
        and (network_image[:, :3] == PAD_VALUE).all()
        and (network_image[:, 1245:] == PAD_VALUE).all()
    )


def test_a_frame_of_the_networks_size_is_a_copy():
    image = np.random.default_rng(1).integers(0, 256, (192, 640, 3), np.uint8)
    network_image, placed = letterbox(image, (192, 640))
    np.testing.assert_array_equal(network_image, image)
    network_image[:] = 0
    assert image.any()
    assert placed.boxes_to_frame(np.array([[1, 2, 3, 4]], np.float32)).tolist() == [[1, 2, 3, 4]]


def test_fitting_into_a_given_buffer_overwrites_all_of_it():
    image = np.full((300, 900, 3), 7, np.uint8)
    buffer = np.full((192, 640, 3), 255, np.uint8)
    network_image, _ = letterbox(image, (192, 640), out=buffer)
    assert network_image is buffer
    np.testing.assert_array_equal(buffer, letterbox(image, (192, 640))[0])


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 4000), (4000, 1), (3, 2)])
def test_odd_shapes_still_fit(size_hw):
    network_image, placed = letterbox(np.full((*size_hw, 3), 9, np.uint8), (192, 640))
    assert network_image.shape == (192, 640, 3)
    assert (network_image == 9).any()
    assert min(placed.placed_hw) >= 1


def test_an_empty_frame_is_refused():
    with pytest.raises(ValueError, match="at least one pixel"):
        plan_letterbox((0, 640), (192, 640))


@given(sizes, network_sizes)
def test_the_whole_frame_lies_inside_and_keeps_its_shape(source_hw, network_hw):
    placed = plan_letterbox(source_hw, network_hw)
    (height, width), (left, top) = placed.placed_hw, placed.offset_xy
    assert left >= 0 and top >= 0 and left + width <= network_hw[1] and top + height <= network_hw[0]
    assert abs(left - (network_hw[1] - width - left)) <= 1  # centred to the pixel
    # the two scales differ by no more than the rounding of each side to whole pixels
    bound = 0.5 / source_hw[0] + 0.5 / source_hw[1]
    assert abs(placed.scale_xy[0] - placed.scale_xy[1]) <= bound * (1 + 1e-9)


@given(sizes, network_sizes, st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5))
def test_boxes_come_back_from_the_network(source_hw, network_hw, corners):
    placed = plan_letterbox(source_hw, network_hw)
    unit = np.array(corners, np.float32).reshape(-1, 4)
    boxes = np.concatenate([np.minimum(unit[:, :2], unit[:, 2:]), np.maximum(unit[:, :2], unit[:, 2:])], axis=1)
    boxes *= np.array([source_hw[1], source_hw[0]] * 2, np.float32)
    there = placed.boxes_to_network(boxes)
    assert (there >= -1e-3).all() and (there[:, 0::2] <= network_hw[1] + 1e-3).all()
    np.testing.assert_allclose(placed.boxes_to_frame(there), boxes, atol=2e-2)
    np.testing.assert_allclose(placed.points_to_frame(there[:, :2]), boxes[:, :2], atol=2e-2)


def test_boxes_on_the_border_are_cut_to_the_frame():
    placed = plan_letterbox((360, 640), (192, 640))
    outside = np.array([[0, -50, 640, 500]], np.float32)
    assert placed.boxes_to_frame(outside).tolist() == [[0, 0, 640, 360]]
    assert placed.boxes_to_frame(np.zeros((0, 4), np.float32)).shape == (0, 4)


# ---------------------------------------------------------------- masks come back where they were


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(150, 800), st.integers(300, 1400)),
    network_sizes,
    st.sampled_from([1, 4, 8]),
    st.floats(0.2, 0.8),
    st.floats(0.2, 0.8),
)
def test_an_edge_in_the_mask_returns_to_its_place_in_the_frame(source_hw, network_hw, stride, at_x, at_y):
    placed = plan_letterbox(source_hw, network_hw)
    height, width = network_hw[0] // stride, network_hw[1] // stride
    column = round((placed.offset_xy[0] + at_x * placed.placed_hw[1]) / stride)
    row = round((placed.offset_xy[1] + at_y * placed.placed_hw[0]) / stride)
    mask = np.zeros((height, width), np.uint8)
    mask[:, column:] = 255  # the step lies at x = column · stride of the network's input
    found = placed.mask_to_frame(mask)
    assert found.shape == source_hw
    expected = (column * stride - placed.offset_xy[0]) / placed.scale_xy[0]
    # the row's light, read as a length, is where the step lies; cv2 places pixels to 1/32 of a mask cell
    step = width_of_dark(found[source_hw[0] // 2])
    tolerance = 0.5 + stride / placed.scale_xy[0] / 16
    assert abs(step - expected) < tolerance
    mask = np.zeros((height, width), np.uint8)
    mask[row:] = 255
    expected = (row * stride - placed.offset_xy[1]) / placed.scale_xy[1]
    assert abs(width_of_dark(placed.mask_to_frame(mask)[:, source_hw[1] // 2]) - expected) < tolerance


def width_of_dark(line: np.ndarray) -> float:
    return float((255 - line.astype(np.float64)).sum() / 255)


def test_mask_at_the_frames_own_size_comes_back_to_the_bit():
    mask = np.random.default_rng(2).integers(0, 256, (384, 1248)).astype(np.uint8)
    placed = plan_letterbox((375, 1242), (384, 1248))
    np.testing.assert_array_equal(placed.mask_to_frame(mask), mask[:375, 3:1245])


def test_border_of_the_mask_does_not_bleed_into_the_frame():
    placed = plan_letterbox((375, 1242), (192, 640))
    mask = np.full((48, 160), 200, np.uint8)
    assert (placed.mask_to_frame(mask) == 200).all()


def test_road_mask_goes_through_its_letterbox():
    placed = plan_letterbox((100, 400), (96, 320))
    road = RoadMask(np.full((24, 80), 77, np.uint8), placed)
    assert road.at_frame_size().shape == (100, 400)
    assert (road.at_frame_size() == 77).all()


# ---------------------------------------------------------------- the resize


@pytest.mark.parametrize("size_hw", [(375, 1242), (374, 1238), (540, 960), (1080, 1920), (721, 1283), (2160, 3840)])
def test_a_marked_square_lands_where_the_letterbox_says(size_hw):
    image = np.zeros((*size_hw, 3), np.uint8)
    top, left = size_hw[0] * 2 // 3, size_hw[1] * 3 // 4
    image[top : top + 60, left : left + 60] = 255
    network_image, placed = letterbox(image, (192, 640))
    bright = (network_image[: placed.placed_hw[0], :, 0] > 127) & (
        network_image[: placed.placed_hw[0], :, 0] != PAD_VALUE
    )
    rows, columns = np.nonzero(bright)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    expected = placed.boxes_to_network(np.array([[left, top, left + 60, top + 60]], np.float32))[0]
    assert np.abs(found - expected).max() <= 1.0


@pytest.mark.parametrize("factor", [2, 3, 4.5, 6, 9])
def test_fine_stripes_turn_grey_and_do_not_alias(factor):
    height, width = round(96 * factor), round(160 * factor)
    image = np.zeros((height, width, 3), np.uint8)
    image[:, ::2] = 255
    small = resize(image, (96, 160)).astype(float)
    assert small.mean() == pytest.approx(127.5, abs=3)
    assert small[:, 2:-2].std() < 20


def test_resize_to_the_same_size_returns_the_picture_itself():
    image = np.zeros((10, 20, 3), np.uint8)
    assert resize(image, (10, 20)) is image


def test_a_flat_picture_stays_flat():
    for source in [(375, 1242), (1080, 1920), (81, 333)]:
        assert (resize(np.full((*source, 3), 93, np.uint8), (64, 200)) == 93).all()


def test_halving_is_the_mean_of_four():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2] = np.array([[0, 100], [200, 100]], np.uint8)[..., None]
    assert resize(image, (2, 2))[0, 0].tolist() == [100, 100, 100]
    assert cv2.mean(resize(image, (2, 2)))[0] == pytest.approx(25)
