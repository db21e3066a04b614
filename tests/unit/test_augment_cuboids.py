"""Crop, scale, mirror, rotation, mosaic and copy-paste keep 3-D boxes true: each against a hand-computed case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from datasets.sample import Sample
from datasets.synthetic_street import street_sample
from perception.cameras.cuboids import boxes_to_image, cuboids_to_boxes
from perception.cameras.pinhole import PinholeCamera
from training.augment.copy_paste import Cutout, CutoutBank, paste
from training.augment.geometry import crop_sample, mirror, rotate
from training.augment.mosaic import mosaic
from training.augment.pipeline import place
from training.example import TrainingImage, of_classes

SIZE = (128, 256)
CAMERA = PinholeCamera(np.array([[200.0, 0, 128, 0], [0, 200, 64, 0], [0, 0, 1, 0]]))
CAR = np.array([[2.0, 1.75, 10.0, 4.0, 1.5, 1.6, -np.pi / 2]], np.float32)
"""2 m to the right and 10 m ahead, and it drives away. Its centre is 1 m down: at pixel (168, 84)."""
BEARING = np.arctan2(2, 10)


def sample(**changes: object) -> Sample:
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    made = Sample(
        image,
        "one",
        boxes_xyxy=np.array([[150, 66, 186, 102], [20, 70, 40, 110]], np.float32),
        class_ids=np.array([0, 1]),
        ignore_boxes_xyxy=np.zeros((0, 4), np.float32),
        ignore_class_ids=np.zeros(0, np.int64),
        distances_m=np.array([10, np.nan], np.float32),
        boxes_xyzlhwr=np.concatenate([CAR, np.full((1, 7), np.nan, np.float32)]),
        camera=CAMERA,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def seen(u: float, v: float, alpha: float) -> list[float]:
    return [u, v, 4.0, 1.6, 1.5, alpha]


def back(example: TrainingImage, camera: PinholeCamera) -> np.ndarray:
    """The 3-D box that the runtime would place, given perfect outputs and the calibration of the image."""
    cuboids = np.concatenate([example.cuboids[:1], [[0.1, 0.1]]], axis=1).astype(np.float32)
    return cuboids_to_boxes(cuboids, np.array([[example.depths[0], 0.1]], np.float32), camera)


def test_placed_as_it_is() -> None:
    example = place(sample(), SIZE)
    assert example.cuboids[0].tolist() == pytest.approx(seen(168, 84, -np.pi / 2 - BEARING), abs=1e-4)
    assert np.isnan(example.cuboids[1]).all() and len(example.cuboids) == len(example.boxes_xyxy) == 2
    assert example.depths[0] == pytest.approx(10 / 200)
    assert np.isnan(place(sample(camera=None), SIZE).cuboids).all(), "without a calibration there is no angle"
    assert np.isnan(place(sample(boxes_xyzlhwr=None), SIZE).cuboids).all()


def test_a_crop_moves_the_centre_and_the_calibration() -> None:
    cut = crop_sample(sample(), (100, 40, 228, 104))
    assert cut.camera is not None and cut.camera.P_cam2[:2, 2].tolist() == [28, 24]
    example = place(cut, (64, 128))
    assert example.cuboids[0].tolist() == pytest.approx(seen(68, 44, -np.pi / 2 - BEARING), abs=1e-4)
    assert back(example, cut.camera) == pytest.approx(CAR, abs=1e-3)


def test_a_crop_drops_the_boxes_of_what_it_hides() -> None:
    cut = crop_sample(sample(), (0, 40, 100, 120))
    assert cut.boxes_xyzlhwr is not None and cut.boxes_xyzlhwr.shape == (1, 7) and np.isnan(cut.boxes_xyzlhwr).all()


def test_scale_changes_pixels_and_depth_over_focal_length() -> None:
    example = place(sample(), (64, 128))
    assert example.cuboids[0].tolist() == pytest.approx(seen(84, 42, -np.pi / 2 - BEARING), abs=1e-4)
    assert example.depths[0] == pytest.approx(10 / 100)
    half = PinholeCamera(CAMERA.P_cam2 * np.array([[0.5], [0.5], [1]]))
    assert back(example, half) == pytest.approx(CAR, abs=1e-3)


def test_a_mirrored_car_drives_the_mirrored_way() -> None:
    turned = CAR.copy()
    turned[0, 6] = -np.pi / 3  # it drives away and to the right
    example = mirror(place(sample(boxes_xyzlhwr=np.concatenate([turned, turned])), SIZE))
    # mirrored: 2 m to the left, and away and to the left, 120° clockwise from the camera's right
    assert example.cuboids[0].tolist() == pytest.approx(seen(256 - 168, 84, -2 * np.pi / 3 + BEARING), abs=1e-4)
    assert back(example, CAMERA)[0] == pytest.approx([-2, 1.75, 10, 4, 1.5, 1.6, -2 * np.pi / 3], abs=1e-3)
    twice = mirror(example)
    assert twice.cuboids == pytest.approx(place(sample(boxes_xyzlhwr=np.concatenate([turned, turned])), SIZE).cuboids)


def test_rotation_is_a_roll_of_the_camera() -> None:
    """The centre turns about the middle of the image; 90° anticlockwise takes (40, 20) from it to (20, -40)."""
    square = sample(image_bgr=np.zeros((256, 256, 3), np.uint8), camera=CAMERA)
    whole = place(square, (256, 256))
    whole.cuboids[0, :2] = 128 + 40, 128 + 20
    turned = rotate(whole, 90.0, (256, 256))
    assert turned.cuboids[0].tolist() == pytest.approx(seen(128 + 20, 128 - 40, -np.pi / 2 - BEARING), abs=1e-3)
    assert turned.depths[0] == whole.depths[0], "a roll about the axis brings nothing nearer"


def test_rotation_and_its_crop_follow_the_boxes() -> None:
    """By 4°, from a margin: the centre is where a rolled camera sees it, in the middle of its box."""
    big = (160, 288)
    whole = place(sample(image_bgr=np.zeros((*big, 3), np.uint8)), big)
    whole.cuboids[0, :2] = (whole.boxes_xyxy[0, :2] + whole.boxes_xyxy[0, 2:]) / 2
    turned = rotate(whole, 4.0, SIZE)
    middle = (turned.boxes_xyxy[0, :2] + turned.boxes_xyxy[0, 2:]) / 2
    assert turned.cuboids[0, :2] == pytest.approx(middle, abs=0.02)
    angle = np.radians(4.0)
    x, y = whole.cuboids[0, :2] - (144, 80)
    rolled = (x * np.cos(angle) + y * np.sin(angle) + 128, y * np.cos(angle) - x * np.sin(angle) + 64)
    assert turned.cuboids[0, :2] == pytest.approx(rolled, abs=1e-3)


def test_a_mosaic_moves_each_quarter() -> None:
    def make(one: Sample, size_hw: tuple[int, int]) -> TrainingImage:
        return place(one, size_hw)

    made = mosaic([sample()] * 4, (256, 512), np.random.default_rng(1), make)
    cars, boxes = made.cuboids[0::2], made.boxes_xyxy[0::2]
    assert len(made.cuboids) == 8 and np.isfinite(cars).all() and np.isnan(made.cuboids[1::2]).all()
    assert ((cars[:, :2] > boxes[:, :2]) & (cars[:, :2] < boxes[:, 2:])).all()
    assert cars[:, 5] == pytest.approx(np.full(4, -np.pi / 2 - BEARING))


def test_a_pasted_object_has_no_3d_box() -> None:
    patch = np.random.default_rng(1).integers(0, 255, (90, 60, 3), np.uint8)
    bank = CutoutBank(iter(()))
    bank.cutouts[1].append(Cutout(patch, np.array([10, 10, 40, 80], np.float32), 1))
    pasted = paste(sample(), bank, 64.0, 128.0, 1.0, np.random.default_rng(0))
    assert pasted.boxes_xyxy is not None and pasted.boxes_xyzlhwr is not None and len(pasted.boxes_xyxy) > 2
    assert len(pasted.boxes_xyzlhwr) == len(pasted.boxes_xyxy)
    assert np.isfinite(pasted.boxes_xyzlhwr).all(1).tolist() == [True] + [False] * (len(pasted.boxes_xyxy) - 1)
    bare = paste(sample(boxes_xyzlhwr=None), bank, 64.0, 128.0, 1.0, np.random.default_rng(0))
    assert bare.boxes_xyzlhwr is not None and np.isnan(bare.boxes_xyzlhwr).all()


def test_classes_choose_their_rows() -> None:
    example = of_classes(place(sample(), SIZE), ("Pedestrian",))
    assert example.cuboids.shape == (1, 6) and np.isnan(example.cuboids).all()


def test_the_street_knows_its_boxes() -> None:
    """Truth of the synthetic street: the projected centre lies in the 2-D box of what the image shows whole."""
    street = street_sample(3)
    assert street.boxes_xyzlhwr is not None and street.camera is not None and street.boxes_xyxy is not None
    assert np.isfinite(street.boxes_xyzlhwr).all() and len(street.boxes_xyzlhwr) == len(street.boxes_xyxy) > 3
    pixels, _ = boxes_to_image(street.boxes_xyzlhwr.astype(np.float64), street.camera)
    height, width = street.image_bgr.shape[:2]
    boxes = street.boxes_xyxy
    whole = (boxes[:, :2] > 2).all(1) & (boxes[:, 2:] < (width - 2, height - 2)).all(1)
    share = (pixels - boxes[:, :2]) / (boxes[:, 2:] - boxes[:, :2])
    assert whole.sum() > 2 and (np.abs(share[whole] - 0.5) < 0.3).all()
