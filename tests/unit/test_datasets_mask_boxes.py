"""Boxes out of masks: single people who stand on the ground, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dataset_folders as make
import numpy as np
import pytest

from datasets.camvid import SHAPES, VEHICLES, CamVid
from datasets.labels import ALL_CLASSES, CAR, CYCLIST, PEDESTRIAN
from datasets.readers.mask_boxes import MaskBoxes, boxes_from_mask

ROAD, PAVEMENT, BUILDING, CAR_MASK, PERSON_MASK, RIDER_MASK = 3, 4, 1, 8, 9, 10


def street(*pieces: tuple[int, int, int, int, int]) -> np.ndarray:
    """(100, 200) building above row 60, road below it, with (number, left, top, right, bottom) painted in order."""
    numbers = np.full((100, 200), BUILDING, np.uint8)
    numbers[60:] = ROAD
    for number, left, top, right, bottom in pieces:
        numbers[top:bottom, left:right] = number
    return numbers


def found(numbers: np.ndarray) -> MaskBoxes:
    return boxes_from_mask(numbers, SHAPES, VEHICLES, ground=(ROAD, PAVEMENT))


def test_a_person_and_a_cyclist_on_the_road_are_boxes():
    result = found(street((PERSON_MASK, 20, 40, 30, 70), (RIDER_MASK, 100, 45, 125, 80)))
    assert result.boxes_xyxy.tolist() == [[20, 40, 30, 70], [100, 45, 125, 80]]
    assert result.class_ids.tolist() == [PEDESTRIAN, CYCLIST]
    assert result.ignore_boxes_xyxy.shape == (0, 4) and result.ignore_boxes_xyxy.dtype == np.float32


@pytest.mark.parametrize(
    ("why", "pieces"),
    [
        ("two side by side", [(PERSON_MASK, 20, 40, 40, 70)]),
        ("half behind a pole", [(PERSON_MASK, 20, 40, 24, 70)]),
        ("cut by the picture", [(PERSON_MASK, 0, 40, 10, 70)]),
        ("cut by its lower end", [(PERSON_MASK, 20, 70, 32, 100)]),
        ("very small", [(PERSON_MASK, 20, 55, 24, 65)]),
        ("legs hidden by a wall", [(PERSON_MASK, 20, 30, 30, 55)]),
        ("legs hidden by a car", [(PERSON_MASK, 20, 40, 30, 70), (CAR_MASK, 10, 65, 60, 75)]),
        ("hardly anything of its box", [(PERSON_MASK, 20, 40, 22, 70), (PERSON_MASK, 20, 68, 30, 70)]),
    ],
)
def test_what_is_not_surely_one_whole_person_is_ignored_for_every_class(why: str, pieces: list):
    result = found(street(*pieces))
    assert not len(result.boxes_xyxy), why
    assert ALL_CLASSES in result.ignore_class_ids.tolist(), why


def test_vehicles_are_ignored_as_cars_alone():
    """A person before a row of parked cars is still taught."""
    result = found(street((CAR_MASK, 10, 40, 90, 70), (PERSON_MASK, 40, 45, 50, 75)))
    assert result.boxes_xyxy.tolist() == [[40, 45, 50, 75]]
    assert result.ignore_boxes_xyxy.tolist() == [[10, 40, 90, 70]] and result.ignore_class_ids.tolist() == [CAR]


def test_camvid_with_boxes(tmp_path: Path):
    root = make.camvid(tmp_path)
    numbers = np.full((make.HEIGHT, make.WIDTH), BUILDING, np.uint8)
    numbers[20:] = ROAD
    numbers[10:30, 50:58] = PERSON_MASK
    make.write_mask(root / "trainannot" / "0001TP_1.png", numbers)
    plain, sample = CamVid(root)[0], CamVid(root, boxes=True)[0]
    assert plain.boxes_xyxy is None and sample.labelled_classes == (True, True, True)
    assert sample.boxes_xyxy is not None and sample.boxes_xyxy.tolist() == [[50, 10, 58, 30]]
    assert sample.class_ids is not None and sample.class_ids.tolist() == [PEDESTRIAN]
    assert np.array_equal(sample.road, plain.road) and np.array_equal(sample.semantic, plain.semantic)


def test_training_takes_them_unless_told_otherwise(tmp_path: Path):
    pytest.importorskip("torch")
    from training.config import DataConfig
    from training.sets import find_sets

    make.camvid(tmp_path / "camvid")
    data = DataConfig(root=tmp_path)
    for config, expected in ((data, True), (replace(data, mask_boxes=False), False)):
        sets = find_sets(config).cached(tmp_path / "cache", width=1000, limit_bytes=10**9)
        for _ in range(2):  # the second reading is of the copy
            assert (sets.train[0].source[0].boxes_xyxy is not None) == expected


def test_people_of_the_real_set(data_root: Path):
    root = data_root / "camvid"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    data = CamVid(root, boxes=True)
    classes = np.concatenate([data[i].class_ids for i in range(0, len(data), 12)])
    assert (classes == PEDESTRIAN).sum() >= 30 and (classes == CYCLIST).sum() >= 8 and not (classes == CAR).any()
