"""Training pictures: labels stay on what they label."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from datasets.sample import Sample
from training.augment import place, training_picture
from training.config import AugmentConfig, TrainConfig

PLAIN = AugmentConfig(colour=0.0, blur=0.0, noise=0.0, haze=0.0)


def marked_sample(box: tuple[int, int, int, int] = (500, 150, 620, 240)) -> Sample:
    """A black frame with one white box, labelled and also marked as road."""
    image = np.zeros((375, 1242, 3), np.uint8)
    road = np.zeros((375, 1242), np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = 255
    road[top:bottom, left:right] = 1
    return Sample(
        image_bgr=image,
        name="marked",
        boxes_xyxy=np.array([box], np.float32),
        class_ids=np.array([0]),
        ignore_boxes_xyxy=np.zeros((0, 4), np.float32),
        ignore_class_ids=np.zeros(0, np.int64),
        road=road,
    )


@pytest.mark.parametrize("seed", range(20))
def test_box_and_mask_follow_the_pixels(seed: int) -> None:
    picture = training_picture(marked_sample(), (256, 512), np.random.default_rng(seed), PLAIN)
    white = picture.image_bgr[:, :, 0] > 200
    if not len(picture.boxes_xyxy):
        return
    left, top, right, bottom = picture.boxes_xyxy[0]
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    assert abs(columns[0] - left) <= 1.5 and abs(columns[-1] + 1 - right) <= 1.5
    assert abs(rows[0] - top) <= 1.5 and abs(rows[-1] + 1 - bottom) <= 1.5
    mask = picture.masks[0] == 1
    assert abs(np.flatnonzero(mask.any(0))[0] * 4 - left) <= 4
    assert abs(np.flatnonzero(mask.any(1))[-1] * 4 + 4 - bottom) <= 4


def test_some_seeds_show_the_box() -> None:
    shown = [
        len(training_picture(marked_sample(), (256, 512), np.random.default_rng(seed), PLAIN).boxes_xyxy)
        for seed in range(20)
    ]
    assert sum(shown) >= 10


def test_same_seed_same_picture() -> None:
    a, b = (
        training_picture(marked_sample(), (256, 512), np.random.default_rng(5), AugmentConfig()) for _ in range(2)
    )
    assert (a.image_bgr == b.image_bgr).all() and (a.boxes_xyxy == b.boxes_xyxy).all()


def test_place_uses_the_runtimes_own_fit() -> None:
    from perception.camera import fit_frame

    sample = marked_sample()
    picture = place(sample, (384, 1248))
    fitted, fit = fit_frame(sample.image_bgr, (384, 1248))
    assert (picture.image_bgr == fitted).all()
    assert sample.boxes_xyxy is not None
    assert np.allclose(picture.boxes_xyxy, fit.boxes_to_network(sample.boxes_xyxy))


def test_a_tiny_object_becomes_an_ignore_region() -> None:
    picture = place(marked_sample((500, 200, 506, 204)), (384, 1248))
    assert len(picture.boxes_xyxy) == 0 and len(picture.ignore_xyxy) == 1 and picture.ignore_class_ids[0] == 0


def test_the_border_is_not_judged() -> None:
    picture = place(marked_sample(), (384, 1248))
    assert (picture.masks[0][95] == 255).all(), "the rows below the frame must not be taught as background"
    assert (picture.masks[1:] == 255).all(), "a set without vehicle and person masks teaches nothing there"


def test_pictures_of_a_run_depend_on_seed_and_number_alone() -> None:
    from dataclasses import replace

    from training.data import PictureStream

    config = TrainConfig(steps=10, batch=2)
    config = replace(config, data=replace(config.data, synthetic_share=1.0))
    a, b = PictureStream(None, config)[7], PictureStream(None, config)[7]
    other = PictureStream(None, replace(config, seed=2))[7]
    assert (a.image_bgr == b.image_bgr).all()
    assert (a.image_bgr != other.image_bgr).any()
