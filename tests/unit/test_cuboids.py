"""Pixels, sizes and observation angles against 3-D boxes, by hand and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perception.arrays import F64
from perception.backends.replay import ReplayBackend
from perception.boxes3d import corners_bev
from perception.cameras.cuboids import boxes_to_image, cuboids_to_boxes, heading_variance, wrap
from perception.cameras.letterbox import letterbox
from perception.cameras.pinhole import PinholeCamera
from perception.detector import Detector, read_outputs
from perception.model import ModelSpec
from perception.types import Detections

PLAIN = PinholeCamera(np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]]))
KITTI = PinholeCamera(
    np.array([[721.5377, 0, 609.5593, 44.85728], [0, 721.5377, 172.854, 0.2163791], [0, 0, 1, 0.002745884]])
)


def cuboid(u: float, v: float, alpha: float, size: tuple[float, float, float] = (4, 1.6, 1.5)) -> np.ndarray:
    return np.array([[u, v, *size, alpha, 0.05, 0.1]], np.float32)


def depth(z: float, camera: PinholeCamera) -> np.ndarray:
    return np.array([[z / camera.P_cam2[1, 1], 0.1]], np.float32)


def test_a_car_straight_ahead() -> None:
    (box,) = cuboids_to_boxes(cuboid(600, 215, -np.pi / 2), depth(20, PLAIN), PLAIN)
    # 35 px below the principal point at 20 m is 1 m down; the bottom is half a height lower
    assert box == pytest.approx([0, 1.75, 20, 4, 1.5, 1.6, -np.pi / 2], abs=1e-5)


def test_the_heading_turns_with_the_direction_to_the_object() -> None:
    (box,) = cuboids_to_boxes(cuboid(1300, 180, -np.pi / 2), depth(10, PLAIN), PLAIN)
    assert box[:3] == pytest.approx([10, 0.75, 10], abs=1e-5)
    assert box[6] == pytest.approx(-np.pi / 4, abs=1e-6)  # 45° to the right of straight ahead


def test_the_fourth_column_of_kittis_projection_counts() -> None:
    truth = np.array([[-3.2, 1.7, 12.5, 3.9, 1.5, 1.6, 0.4]])
    pixels, alpha = boxes_to_image(truth, KITTI)
    found = cuboids_to_boxes(cuboid(*pixels[0], alpha[0], (3.9, 1.6, 1.5)), depth(12.5, KITTI), KITTI)
    assert found == pytest.approx(truth, abs=1e-4)


def test_a_crop_and_a_resize_change_the_pixels_and_not_the_box() -> None:
    truth = np.array([[4.0, 1.6, 18.0, 4.2, 1.5, 1.7, 2.5]])
    move: F64 = np.diag([0.5, 0.5, 1.0]) @ np.array([[1.0, 0, -300], [0, 1, -40], [0, 0, 1]])
    half = replace(KITTI, P_cam2=move @ KITTI.P_cam2)
    (whole_px,), (whole_alpha,) = boxes_to_image(truth, KITTI)
    (part_px,), (part_alpha,) = boxes_to_image(truth, half)
    assert part_px == pytest.approx((whole_px - (300, 40)) / 2) and part_alpha == whole_alpha
    found = cuboids_to_boxes(cuboid(*part_px, part_alpha, (4.2, 1.7, 1.5)), depth(18.0, half), half)
    assert found == pytest.approx(truth, abs=1e-4)
    wrong = cuboids_to_boxes(cuboid(*part_px, part_alpha, (4.2, 1.7, 1.5)), depth(18.0, half), KITTI)
    assert np.abs(wrong - truth).max() > 1, "with the calibration of another image it stands elsewhere"


def test_the_front_of_an_oncoming_car_is_nearer() -> None:
    """Alpha is +π/2 for a car that comes towards the camera: the middle of its front lies nearer than its centre."""
    (box,) = cuboids_to_boxes(cuboid(600, 215, np.pi / 2), depth(20, PLAIN), PLAIN)
    front = corners_bev(box[None])[0, :2].mean(0)
    assert front == pytest.approx([0, 18], abs=1e-4)


def test_nothing_and_what_is_behind() -> None:
    assert cuboids_to_boxes(np.zeros((0, 8), np.float32), np.zeros((0, 2), np.float32), PLAIN).shape == (0, 7)
    pixels, alpha = boxes_to_image(np.array([[0.0, 1, -5, 4, 1.5, 1.6, 0]]), PLAIN)
    assert np.isnan(pixels).all() and np.isfinite(alpha).all()
    assert wrap(np.array([np.pi, -np.pi, 3 * np.pi, 0.5])) == pytest.approx([-np.pi, -np.pi, -np.pi, 0.5])


def test_detections_carry_cuboids_in_frame_pixels() -> None:
    """A frame of twice the network's size: pixels double, sizes and angles stay, the centre may lie outside."""
    _, placed = letterbox(np.zeros((128, 192, 3), np.uint8), (64, 96))
    raw = np.concatenate([cuboid(30, 20, 0.3), cuboid(-8, 70, 1.0)])[None]
    outputs = {
        "boxes_xyxy": np.array([[[10, 10, 20, 20], [0, 30, 40, 40]]], np.float32),
        "scores": np.array([[0.9, 0.2]], np.float32),
        "class_ids": np.array([[0, 1]]),
        "cuboids": raw,
    }
    before = raw.copy()
    everything, _ = read_outputs(outputs, 0, placed)
    assert everything.cuboids is not None and everything.cuboids.dtype == np.float32
    assert everything.cuboids[:, :2].tolist() == [[60, 40], [-16, 140]]
    assert np.array_equal(everything.cuboids[:, 2:], raw[0, :, 2:]) and np.array_equal(raw, before)
    second = everything[np.array([False, True])].cuboids
    assert second is not None and second.tolist() == everything.cuboids[1:].tolist()
    del outputs["cuboids"]
    assert read_outputs(outputs, 0, placed)[0].cuboids is None


def test_a_replayed_network_has_the_outputs_of_its_frames() -> None:
    boxes, scores = np.array([[1, 1, 9, 9], [5, 5, 20, 20]], np.float32), np.array([0.4, 0.8], np.float32)
    seen = np.concatenate([cuboid(5, 5, 0.3), cuboid(9, 9, 1.0)])
    frame = Detections(boxes, scores, np.array([0, 1]), depth(7, PLAIN).repeat(2, 0), seen)
    backend = ReplayBackend(ModelSpec(("Car", "Pedestrian"), (64, 96)), [frame], most=5)
    (found,) = Detector((backend, backend.spec)).run([np.zeros((64, 96, 3), np.uint8)])
    assert found[0].cuboids is not None and found[0].cuboids.tolist() == seen[::-1].tolist(), "by score"
    assert found[0].depths is not None and found[0].depths.tolist() == frame.depths.tolist()  # type: ignore[union-attr]
    assert "cuboids" not in ReplayBackend(backend.spec, [replace(frame, cuboids=None)]).outputs


def test_doubt_about_front_and_rear_is_part_of_a_headings_variance() -> None:
    found = heading_variance(np.array([0.01, 0.01, 0.01]), np.array([0.0, 0.05, 0.3]))
    assert found == pytest.approx([0.01, 0.01, 0.01 + 0.25 * np.pi**2]), "2σ hold the other way round from 30 %"


def test_cuboids_of_nine_columns_and_of_the_eight_of_earlier_files() -> None:
    nine = np.concatenate([cuboid(0, 0, 0), np.full((1, 1), 0.2, np.float32)], axis=1)
    one = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    assert replace(one, cuboids=nine)[np.array([0])].cuboids.shape == (1, 9)  # type: ignore[union-attr]
    assert replace(one, cuboids=nine[:, :8]).cuboids.shape == (1, 8)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"Detections.cuboids: found shape \(1, 7\)"):
        replace(one, cuboids=nine[:, :7])


def test_rows_belong_to_boxes() -> None:
    nothing = Detections.empty()
    with pytest.raises(ValueError, match=r"Detections.cuboids: found shape \(1, 8\)"):
        replace(nothing, cuboids=cuboid(0, 0, 0))
