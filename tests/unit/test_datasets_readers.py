"""The readers: which pixels and rows become which targets, in every data set."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import av
import cv2
import dataset_folders as make
import numpy as np
import pytest

from datasets.annotations.reviewed import reviewed_file
from datasets.camvid import CamVid
from datasets.carla import CARLA
from datasets.citypersons import CITYPERSONS
from datasets.clips import CLIPS, LABELS, Clips
from datasets.dawn_fog import DAWN
from datasets.idd_lite import IddLite
from datasets.kitti_object import KittiObject
from datasets.kitti_road import DRAWN, KittiRoad, ground_truth_name, is_road_name, road_mask
from datasets.kitti_tracking import DRIVES, KittiTracking
from datasets.labels import ALL_CLASSES, CAR, CYCLIST, KITTI_RULE, PEDESTRIAN, kitti_rule, targets
from datasets.readers.partial_boxes import PartialBoxes
from datasets.sample import Sample, read_index_mask
from datasets.splits import read_drives, read_split
from perception.errors import UserError
from perception.formats.images import find_image, read_image
from perception.formats.kitti import parse_objects
from training.cache import CachedSource

SIZE = (make.HEIGHT, make.WIDTH)


def rows(*lines: str):
    return parse_objects("\n".join(lines))


# ---------------------------------------------------------------- names become targets


def test_three_classes_are_found_and_their_neighbours_ignored():
    found = targets(
        rows(make.CAR, make.PEDESTRIAN, make.CYCLIST, make.VAN, make.SITTING, make.TRUCK, make.DONT_CARE),
        KITTI_RULE,
        SIZE,
    )
    assert found.class_ids.tolist() == [CAR, PEDESTRIAN, CYCLIST]
    assert found.boxes_xyxy[0].tolist() == [10, 20, 30, 35]
    assert found.distances_m.tolist() == [20, 12.5, 8]
    assert found.ignore_class_ids.tolist() == [CAR, PEDESTRIAN, ALL_CLASSES]
    assert found.ignore_boxes_xyxy[:, 0].tolist() == [60, 1, 90]
    assert found.boxes_xyxy.dtype == found.ignore_boxes_xyxy.dtype == found.distances_m.dtype == np.float32
    assert found.class_ids.dtype == found.ignore_class_ids.dtype == np.int64


def test_no_rows_are_empty_arrays_of_the_right_shape():
    found = targets(rows(""), KITTI_RULE, SIZE)
    assert found.boxes_xyxy.shape == found.ignore_boxes_xyxy.shape == (0, 4)
    assert found.class_ids.shape == found.ignore_class_ids.shape == found.distances_m.shape == (0,)


def test_large_vehicles_are_background_or_ignored_for_car():
    assert len(targets(rows(make.TRUCK), KITTI_RULE, SIZE).ignore_class_ids) == 0
    ignoring = kitti_rule(large_vehicles_as="ignore")
    assert targets(rows(make.TRUCK), ignoring, SIZE).ignore_class_ids.tolist() == [CAR]
    with pytest.raises(ValueError, match="large_vehicles_as"):
        kitti_rule(large_vehicles_as="car")


def test_too_occluded_or_truncated_becomes_a_region_to_ignore_for_its_class():
    cyclist = rows(make.CYCLIST, make.CAR)  # truncation .6, occlusion 3
    assert targets(cyclist, kitti_rule(), SIZE).class_ids.tolist() == [CYCLIST, CAR]
    for rule in (kitti_rule(max_truncation=0.5), kitti_rule(max_occlusion=2)):
        found = targets(cyclist, rule, SIZE)
        assert found.class_ids.tolist() == [CAR]
        assert found.distances_m.tolist() == [20]
        assert found.ignore_class_ids.tolist() == [CYCLIST]


def test_boxes_are_cut_to_the_image_and_dropped_outside_it():
    out = make.CAR.replace("10.00 20.00 30.00 35.00", "-5.00 -5.00 300.00 300.00")
    gone = make.CAR.replace("10.00 20.00 30.00 35.00", "200.00 20.00 220.00 35.00")
    away = make.DONT_CARE.replace("90.00 10.00 110.00 20.00", "90.00 50.00 110.00 60.00")
    found = targets(rows(out, gone, away), KITTI_RULE, SIZE)
    assert found.boxes_xyxy.tolist() == [[0, 0, make.WIDTH, make.HEIGHT]]
    assert found.distances_m.shape == (1,) and len(found.ignore_boxes_xyxy) == 0


def test_class_names_do_not_mind_their_case():
    assert targets(rows(make.CAR.replace("Car", "CAR")), KITTI_RULE, SIZE).class_ids.tolist() == [CAR]


def test_a_position_that_is_not_given_is_no_distance():
    bare = "Car 0 0 -10 10 20 30 35 -1 -1 -1 -1000 -1000 -1000 -10"
    assert math.isnan(targets(rows(bare), KITTI_RULE, SIZE).distances_m[0])


# ---------------------------------------------------------------- KITTI object


def test_object_frames(tmp_path):
    data = KittiObject(make.kitti_object(tmp_path))
    assert len(data) == 4 and data.names == ["000000", "000001", "000002", "000003"]
    sample = data[0]
    assert sample.image_bgr.shape == (*SIZE, 3) and sample.image_bgr.dtype == np.uint8
    assert sample.name == "000000" and sample.drive == "day_drive_a"
    assert sample.class_ids is not None and sample.class_ids.tolist() == [CAR, PEDESTRIAN, CYCLIST]
    assert sample.ignore_class_ids is not None and sample.ignore_class_ids.tolist() == [CAR, ALL_CLASSES]
    assert sample.labelled_classes == (True, True, True)
    assert sample.camera is not None and sample.camera.P_cam2[0, 0] == 100
    assert sample.road is None and sample.semantic is None


def test_a_frame_without_objects_is_labelled_and_empty(tmp_path):
    sample = KittiObject(make.kitti_object(tmp_path))[1]
    assert sample.boxes_xyxy is not None and sample.boxes_xyxy.shape == (0, 4)


def test_splits_by_name_and_by_path(tmp_path):
    root = make.kitti_object(tmp_path)
    assert KittiObject(root, "val").names == ["000002", "000003"]
    other = make.write(tmp_path / "elsewhere.txt", "000003\n")
    assert KittiObject(root, other).names == ["000003"]
    with pytest.raises(UserError, match="one of train, val"):
        KittiObject(root, "test")


def test_a_split_with_frames_that_are_not_there(tmp_path):
    root = make.kitti_object(tmp_path)
    make.write(root / "ImageSets" / "full.txt", "000000\n000777\n000778\n")
    with pytest.raises(UserError, match="2 of 3 frames have no image or no label, the first is 000777"):
        KittiObject(root, "full")


@pytest.mark.parametrize(
    ("content", "said"), [("", "is empty"), ("000001\n000002\n000001\n", "000001 appears twice")]
)
def test_a_bad_split_file(tmp_path, content, said):
    make.write(tmp_path / "ImageSets" / "train.txt", content)
    with pytest.raises(UserError, match=said):
        read_split(tmp_path, "train")


def test_object_frames_without_calibration_drive_or_label(tmp_path):
    root = make.kitti_object(tmp_path)
    (root / "training" / "calib" / "000000.txt").unlink()
    (root / "drives.json").unlink()
    (root / "training" / "label_2" / "000003.txt").unlink()
    data = KittiObject(root)
    assert data.names == ["000000", "000001", "000002"]  # a frame without a label is not labelled as empty
    assert data[0].camera is None and data[0].drive == ""


def test_test_frames_have_no_labels_and_say_so(tmp_path):
    sample = KittiObject(make.kitti_object(tmp_path), part="testing")[0]
    assert sample.boxes_xyxy is None and sample.class_ids is None
    assert sample.camera is not None


def test_png_is_taken_before_jpeg(tmp_path):
    make.write_image(tmp_path / "a.jpg", seed=1)
    assert find_image(tmp_path, "a") == tmp_path / "a.jpg"
    make.write_image(tmp_path / "a.png", seed=2)
    assert find_image(tmp_path, "a") == tmp_path / "a.png"
    assert find_image(tmp_path, "b") is None


def test_nothing_there_says_what_to_type(tmp_path):
    with pytest.raises(UserError, match="perception data fetch kitti-object"):
        KittiObject(tmp_path)
    with pytest.raises(UserError, match="perception data fetch kitti-tracking"):
        KittiTracking(tmp_path)
    with pytest.raises(UserError, match="perception data fetch kitti-road"):
        KittiRoad(tmp_path)
    for reader in (CamVid, IddLite):
        with pytest.raises(UserError, match="no images"):
            reader(tmp_path)


@pytest.mark.parametrize("content", ["[1, 2]", '{"000000": 5}', "{", '{"000000"}'])
def test_a_bad_list_of_drives(tmp_path, content):
    make.write(tmp_path / "drives.json", content)
    with pytest.raises(UserError, match=r"drives\.json"):
        read_drives(tmp_path)


def test_drives_from_the_kits_mapping(tmp_path):
    make.write(tmp_path / "devkit" / "mapping" / "train_rand.txt", "2,1,2")
    lines = "2011_09_26 2011_09_26_drive_0001_sync 0000000005\n2011_09_28 2011_09_28_drive_0106_sync 0000000048\n"
    mapping = make.write(tmp_path / "devkit" / "mapping" / "train_mapping.txt", lines)
    assert read_drives(tmp_path) == {
        "000000": "2011_09_28_drive_0106",
        "000001": "2011_09_26_drive_0001",
        "000002": "2011_09_28_drive_0106",
    }
    mapping.write_text(lines[:50])
    with pytest.raises(UserError, match=r"entry 1 of train_rand\.txt is '2'"):
        read_drives(tmp_path)


# ---------------------------------------------------------------- pictures


def test_pictures_that_cannot_be_read(tmp_path):
    for name, content, problem in (
        ("empty.png", b"", "the file is empty"),
        ("text.png", b"hello", "cannot be decoded"),
        ("half.png", b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
    ):
        with pytest.raises(UserError, match=problem):
            read_image(make.write(tmp_path / name, content))
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UserError):
        read_image(tmp_path)


def test_a_jpeg_cut_short_is_not_taken_for_whole(tmp_path):
    path = make.write_image(tmp_path / "a.jpg")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UserError, match="end of the image is missing"):
        read_image(path)
    path.write_bytes(content + b"trailing bytes do no harm")
    assert read_image(path).shape == (*SIZE, 3)


def test_a_header_that_promises_too_many_pixels(tmp_path):
    content = bytearray(make.write_image(tmp_path / "a.png").read_bytes())
    content[16:24] = (60000).to_bytes(4, "big") * 2
    with pytest.raises(UserError, match="megapixels"):
        read_image(make.write(tmp_path / "a.png", bytes(content)))


def test_masks_must_be_one_channel_of_their_images_size(tmp_path):
    mask = make.write_mask(tmp_path / "mask.png", np.zeros(SIZE))
    assert read_index_mask(mask, SIZE).shape == SIZE
    with pytest.raises(UserError, match="found 120x40"):
        read_index_mask(mask, (20, 60))
    with pytest.raises(UserError, match="one channel"):
        read_index_mask(make.write_image(tmp_path / "colour.png"), SIZE)


# ---------------------------------------------------------------- KITTI tracking


def test_tracking_has_one_sample_for_each_image_not_each_label(tmp_path):
    data = KittiTracking(make.kitti_tracking(tmp_path))
    assert data.names == ["0000/000000", "0000/000001", "0000/000002", "0006/000000", "0006/000001"]
    assert len(data) == 5
    first, second, third = data[0], data[1], data[2]
    assert first.class_ids is not None and first.class_ids.tolist() == [CAR]
    assert first.ignore_class_ids is not None and first.ignore_class_ids.tolist() == [ALL_CLASSES]
    assert second.class_ids is not None and second.class_ids.tolist() == []
    assert third.ignore_class_ids is not None and third.ignore_class_ids.tolist() == [PEDESTRIAN]  # `Person`
    assert first.drive == "2011_09_26_drive_0005" and data[3].drive == "2011_09_26_drive_0018"
    assert first.camera is not None
    assert data.rows("0000").frame_ids.max() == 4


def test_tracking_sequences_can_be_chosen(tmp_path):
    root = make.kitti_tracking(tmp_path)
    assert len(KittiTracking(root, ["0006"])) == 2
    with pytest.raises(UserError, match="0013: no images"):
        KittiTracking(root, ["0013"])


def test_tracking_without_calibration_or_label(tmp_path):
    root = make.kitti_tracking(tmp_path)
    (root / "training" / "calib" / "0000.txt").unlink()
    assert KittiTracking(root)[0].camera is None
    (root / "training" / "label_02" / "0000.txt").unlink()
    with pytest.raises(UserError, match=r"0000\.txt"):
        KittiTracking(root)


def test_every_training_sequence_has_a_drive_of_its_own():
    assert sorted(DRIVES) == [f"{i:04d}" for i in range(21)]
    assert len(set(DRIVES.values())) == 21
    assert list(DRIVES.values()) == sorted(DRIVES.values())  # the sequences are in order of time


def test_a_synthetic_street_has_road_and_a_drive_of_its_own(tmp_path):
    root = make.kitti_tracking(tmp_path / "street")
    make.write_image(root / "training" / "gt_road" / "0006" / "000001.png")
    make.write(root / "training" / "gt_road" / "0006" / "000000.png", make.png(make.road_truth()))
    data = KittiTracking(root)
    assert data[0].drive == "street_0000" and data[0].road is None
    assert data[3].road is not None and (data[3].road == road_mask(make.road_truth())).all()


# ---------------------------------------------------------------- KITTI road


def test_road_colours():
    mask = road_mask(make.road_truth())
    assert mask.dtype == np.uint8
    assert (mask[: make.HEIGHT // 2] == 0).all()
    assert (mask[make.HEIGHT // 2 : -1] == 1).all()
    assert (mask[-1] == 255).all()


def test_road_outside_the_valid_area_is_not_judged():
    blue_only = np.zeros((1, 1, 3), np.uint8)
    blue_only[..., 0] = 255
    assert road_mask(blue_only).tolist() == [[255]]


def test_road_frames(tmp_path):
    root = make.kitti_road(tmp_path)
    data = KittiRoad(root)
    assert data.names == ["um_000000", "um_000001", "umm_000000", "uu_000000"]
    sample = data[0]
    assert sample.road is not None and sample.road.shape == SIZE
    assert sample.boxes_xyxy is None and sample.camera is not None
    assert KittiRoad(root, ["umm", "uu"]).names == ["umm_000000", "uu_000000"]
    with pytest.raises(UserError, match="road category 'mm'"):
        KittiRoad(root, ["mm"])


def test_road_names():
    assert ground_truth_name("umm_000012") == "umm_road_000012"
    assert [is_road_name(n) for n in ("um_000000", "000000", "um_road_000000", "xx_000000", "um_")] == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_plain_numbers_with_a_road_truth_are_road_frames(tmp_path):
    root = make.kitti_object(tmp_path)
    for name in ("000000", "000002"):
        make.write(root / "training" / "gt_image_2" / f"um_road_{name}.png", make.png(make.road_truth()))
    data = KittiRoad(root)
    assert data.names == ["000000", "000002"] and data[1].road is not None
    make.kitti_road(root)  # now there are frames that the benchmark itself names
    assert KittiRoad(root).names == ["um_000000", "um_000001", "umm_000000", "uu_000000"]


def test_road_truth_of_another_size(tmp_path):
    root = make.kitti_road(tmp_path)
    make.write_image(root / "training" / "gt_image_2" / "um_road_000000.png", size_hw=(20, 60))
    with pytest.raises(UserError, match="found 60x20"):
        KittiRoad(root)[0]


def test_object_and_road_frames_in_one_folder_are_told_apart(tmp_path):
    make.kitti_object(tmp_path)
    make.kitti_road(tmp_path)
    assert len(KittiRoad(tmp_path)) == 4 and len(KittiObject(tmp_path)) == 4


# ---------------------------------------------------------------- masks of class numbers


def test_camvid(tmp_path):
    data = CamVid(make.camvid(tmp_path))
    sample = data[0]
    assert data.names == ["0001TP_1", "0006R0_2"] and sample.drive == "camvid_0001TP"
    assert sample.boxes_xyxy is None and sample.road is not None and sample.semantic is not None
    blocks = slice(5, None, 10)  # one column out of each class's block
    assert sample.road[0, blocks].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 255]
    assert sample.semantic[0, blocks].tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 255]
    assert len(CamVid(tmp_path, "val")) == 1


def test_idd_lite(tmp_path):
    sample = IddLite(make.idd_lite(tmp_path))[0]
    assert sample.drive == "idd_10" and sample.road is not None and sample.semantic is not None
    blocks = slice(7, None, 15)
    assert sample.road[0, blocks].tolist() == [1, 0, 0, 0, 0, 0, 0, 255]
    assert sample.semantic[0, blocks].tolist() == [0, 0, 2, 1, 0, 0, 0, 255]


def test_idd_lite_people_stand_on_the_ground_and_riders_do_not(tmp_path):
    root = make.idd_lite(tmp_path)
    numbers = np.zeros(SIZE, np.uint8)
    numbers[5:25, 20:27] = 2  # someone on the road
    numbers[5:15, 60:64] = 2  # someone on
    numbers[15:25, 55:70] = 3  # a motorcycle
    numbers[5:25, 90:110] = 2  # several
    make.write_mask(root / "trainannot" / "10_1.png", numbers)
    assert IddLite(root)[0].boxes_xyxy is None
    sample = IddLite(root, boxes=True)[0]
    assert sample.boxes_xyxy.tolist() == [[20, 5, 27, 25]] and sample.class_ids.tolist() == [1]
    ignored = sorted(sample.ignore_boxes_xyxy.tolist())
    assert ignored == [[55, 15, 70, 25], [60, 5, 64, 15], [90, 5, 110, 25]]
    assert sample.ignore_class_ids.tolist() == [-1, -1, -1], "a motorcycle could be a cyclist as well as no car"
    assert sample.labelled_classes == (True, True, True)


def test_masks_that_are_missing_or_hold_unknown_classes(tmp_path):
    root = make.camvid(tmp_path)
    make.write_mask(root / "trainannot" / "0001TP_1.png", np.full(SIZE, 77))
    with pytest.raises(UserError, match="found class 77"):
        CamVid(root)[0]
    (root / "trainannot" / "0006R0_2.png").unlink()
    with pytest.raises(UserError, match="1 masks are missing"):
        CamVid(root)


# ---------------------------------------------------------------- some classes only


def test_dawn_ignores_what_it_cannot_tell(tmp_path):
    root = make.partial_boxes(
        tmp_path / "dawn_fog",
        {
            "foggy-1": [
                "Car 1 2 30 20",
                "Truck 40 2 60 20",
                "Bus 61 2 80 20",
                "Motorcycle 81 2 90 20",
                "Cyclist 91 2 99 20",
            ],
            "foggy-2": [],
        },
    )
    data = PartialBoxes(root, DAWN)
    sample = data[0]
    assert sample.class_ids is not None and sample.class_ids.tolist() == [CAR, CYCLIST]
    assert sample.ignore_class_ids is not None and sample.ignore_class_ids.tolist() == [CAR, CAR, CYCLIST]
    assert sample.labelled_classes == (True, True, True)
    assert sample.distances_m is not None and np.isnan(sample.distances_m).all()
    assert [data[0].drive, data[1].drive] == ["dawn_fog_foggy-1", "dawn_fog_foggy-2"]


def test_what_a_set_does_not_label_is_marked(tmp_path):
    # the second one sits, the third is a few pixels high
    people = ["Pedestrian 1 2 9 24", "Pedestrian 9 2 30 24", "Pedestrian 30 2 33 12"]
    cities = make.partial_boxes(tmp_path / "citypersons_sample", {"aachen_1_2": people})
    towns = make.partial_boxes(
        tmp_path / "carla_danielhfnr", {"Town01_1": ["vehicle 1 2 5 20", "traffic_light 9 9 12 20"]}
    )
    city, town = PartialBoxes(cities, CITYPERSONS)[0], PartialBoxes(towns, CARLA)[0]
    assert city.labelled_classes == (False, True, True) and city.drive == "citypersons_sample_aachen"
    assert city.boxes_xyxy.tolist() == [[1, 2, 9, 24]] and city.class_ids.tolist() == [PEDESTRIAN]
    assert city.ignore_boxes_xyxy.tolist() == [[9, 2, 30, 24], [30, 2, 33, 12]] and len(city.distances_m) == 1
    assert city.ignore_class_ids.tolist() == [ALL_CLASSES] * 2  # neither a pedestrian nor a cyclist, nor none
    assert town.labelled_classes == (True, False, True) and town.drive == "carla_danielhfnr_Town01"
    assert town.class_ids is not None and town.class_ids.tolist() == [CAR]
    assert town.ignore_class_ids is not None and len(town.ignore_class_ids) == 0


def test_who_rides_and_who_is_hidden_in_citypersons(tmp_path):
    """Boxes are known by picture and corner; other pictures with the same corner are left as they are."""
    rows = ["Pedestrian 192.5 79.25 215 135", "Pedestrian 336.5 95.75 348 123", "Pedestrian 310.25 78 330 125"]
    names = ("aachen_000031_000019_leftImg8bit", "bremen_000067_000019_leftImg8bit", "bremen_1_1_leftImg8bit")
    root = make.partial_boxes(tmp_path / "citypersons_sample", dict.fromkeys(names, rows))
    for name in names:  # as large as the set's own
        cv2.imwrite(str(root / "image_2" / f"{name}.jpg"), np.zeros((256, 512, 3), np.uint8))
    aachen, bremen, other = PartialBoxes(root, CITYPERSONS)
    assert aachen.class_ids.tolist() == [CYCLIST, PEDESTRIAN, PEDESTRIAN]
    assert aachen.boxes_xyxy[0].tolist() == [184, 79, 236, 144]  # with the bicycle
    assert bremen.class_ids.tolist() == [PEDESTRIAN, CYCLIST]
    assert bremen.ignore_boxes_xyxy.tolist() == [[336.5, 95.75, 348, 123]]
    assert other.class_ids.tolist() == [PEDESTRIAN] * 3


@pytest.mark.data
def test_what_was_seen_in_citypersons_is_there(data_root):
    """Every line is about a box of the set."""
    folder = data_root / "extra/citypersons_sample"
    lines = [line.split() for line in reviewed_file("citypersons").read_text().splitlines()]
    corners = {
        (path.stem, *map(float, row.split()[4:6]))
        for path in (folder / "label_2").iterdir()
        for row in path.read_text().splitlines()
    }
    assert len(lines) == 288 and all((line[0], float(line[1]), float(line[2])) in corners for line in lines)
    data = PartialBoxes(folder, CITYPERSONS)
    class_ids = np.concatenate([data[i].class_ids for i in range(len(data))])
    assert ((class_ids == PEDESTRIAN).sum(), (class_ids == CYCLIST).sum()) == (1040, 43)


@pytest.mark.data
def test_who_rides_in_idd_lite_is_ignored(data_root):
    """Every line is about a box that the masks give, and none of them is left."""
    folder = data_root / "extra/idd_lite"
    lines = {tuple(line.split()[:3]) for line in reviewed_file("idd_lite").read_text().splitlines()}
    ignored, kept = set(), 0
    for data in (IddLite(folder, split, boxes=True) for split in ("train", "val")):
        for i, name in enumerate(data.names):
            if any(line[0] == name for line in lines):
                ignored |= {(name, f"{x:g}", f"{y:g}") for x, y in data[i].ignore_boxes_xyxy[:, :2].tolist()}
                kept += sum((name, f"{x:g}", f"{y:g}") in lines for x, y in data[i].boxes_xyxy[:, :2].tolist())
    assert len(lines) == 181 and lines <= ignored and not kept


def test_a_class_the_set_does_not_know_is_an_error(tmp_path):
    root = make.partial_boxes(tmp_path / "citypersons_sample", {"aachen_1": ["Car 1 2 5 20"]})
    with pytest.raises(UserError, match="column 'type': found 'Car'"):
        PartialBoxes(root, CITYPERSONS)[0]


def test_missing_labels(tmp_path):
    root = make.partial_boxes(tmp_path / "mine", {"a_1": ["Car 1 2 5 20"]})
    assert len(PartialBoxes(root, replace(DAWN, name="mine"))) == 1
    (root / "label_2" / "a_1.txt").unlink()
    with pytest.raises(UserError, match="1 labels are missing"):
        PartialBoxes(root, DAWN)


def test_no_set_calls_a_class_positive_that_it_does_not_label():
    for known in (DAWN, CITYPERSONS, CARLA):
        labelled = {i for i, is_labelled in enumerate(known.rule.labelled_classes) if is_labelled}
        assert set(known.rule.positive.values()) | ({CYCLIST} if known.reviewed else set()) == labelled


def test_boxes_that_were_drawn_on_road_frames(tmp_path):
    root = make.kitti_road(tmp_path / "road")
    (name, drawn), *_ = json.loads(DRAWN.read_text()).items()
    said = KittiRoad(root)
    for file in ("image_2", "gt_image_2"):  # one of the frames takes the name of a drawn one
        old, new = (said.names[0], name) if file == "image_2" else map(ground_truth_name, (said.names[0], name))
        path = find_image(root / "training" / file, old)
        path.rename(path.with_name(new + path.suffix))
    assert all(sample.boxes_xyxy is None for sample in KittiRoad(root))
    data = KittiRoad(root, drawn=True)
    sample = data[data.names.index(name)]
    assert sample.boxes_xyxy.tolist() == drawn["cars"] and sample.class_ids.tolist() == [CAR] * len(drawn["cars"])
    assert sample.ignore_boxes_xyxy.tolist() == drawn["unclear"] and sample.road is not None
    assert [data[i].boxes_xyxy is None for i in range(len(data))].count(False) == 1
    assert DRAWN in data.files(data.names.index(name))


# ---------------------------------------------------------------- frames of clips


def clip(path: Path, frames: int) -> Path:
    """A video whose picture gets brighter by the frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for i in range(frames):
            picture = np.full((96, 160, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


def test_frames_of_a_clip_and_what_was_drawn_on_them(tmp_path):
    frames = {
        str(number): {
            "cars": [[10, 20, 30, 40]],
            "unclear": [[40, 0, 60, 10]],
            "road": [[0, 24], [80, 24], [80, 48], [0, 48]],
            "road_unclear": [[[0, 24], [80, 24], [80, 30], [0, 30]]],
        }
        for number in (2, 7)
    }
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"size_hw": [48, 80], "clips": {"a.mp4": frames, "missing.mp4": {"0": {}}}}))
    with pytest.raises(UserError, match="no labelled clips"):
        Clips(tmp_path, labels)
    clip(tmp_path / "a.mp4", 10)
    data = Clips(tmp_path, labels)
    assert data.names == ["a_000002", "a_000007"]
    for i, number in enumerate((2, 7)):  # pictures are twice the size that was drawn on
        sample = data[i]
        assert sample.image_bgr.shape == (96, 160, 3) and abs(float(sample.image_bgr.mean()) - 20 * number) < 6
        assert sample.boxes_xyxy.tolist() == [[20, 40, 60, 80]] and sample.class_ids.tolist() == [CAR]
        assert sample.ignore_boxes_xyxy.tolist() == [[80, 0, 120, 20]]
        assert sample.road[[10, 52, 90, 70], [5, 5, 5, 40]].tolist() == [0, 255, 1, 255]  # sky, unclear, road, car
    copies = CachedSource(data, tmp_path / "cache", 160, 10**9)
    for _ in range(2):  # written, then read: one file, yet a copy for each frame
        assert [round(float(copies[i].image_bgr.mean()) / 20) for i in range(2)] == [2, 7]
    clip(tmp_path / "a.mp4", 5)
    with pytest.raises(UserError, match=r"(?s)5 frames.*at least 8"):
        Clips(tmp_path, labels)[0]
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="a video that can be read"):
        Clips(tmp_path, labels)[0]


def test_the_labelled_clips_are_those_that_are_named():
    assert set(json.loads(LABELS.read_text())["clips"]) == set(CLIPS)


# ---------------------------------------------------------------- all of them


def every_reader(tmp_path) -> list:
    return [
        KittiObject(make.kitti_object(tmp_path / "object")),
        KittiTracking(make.kitti_tracking(tmp_path / "tracking")),
        KittiRoad(make.kitti_road(tmp_path / "road")),
        CamVid(make.camvid(tmp_path / "camvid")),
        IddLite(make.idd_lite(tmp_path / "idd")),
        PartialBoxes(make.partial_boxes(tmp_path / "dawn_fog", {"a-1": ["Car 1 2 5 20"]}), DAWN),
    ]


def test_readers_travel_to_other_processes_and_read_the_same(tmp_path):
    for data in every_reader(tmp_path):
        twin = pickle.loads(pickle.dumps(data))
        assert twin.names == data.names and len(set(data.names)) == len(data)
        for i in range(len(data)):
            a, b = data[i], twin[i]
            assert isinstance(a, Sample) and a.name == data.names[i] == b.name
            np.testing.assert_array_equal(a.image_bgr, b.image_bgr)
        with pytest.raises(IndexError):
            data[len(data)]


@pytest.mark.data
def test_the_sample_data(data_root):
    """Counts as they lie in the folder, and targets that fit their pictures."""
    kitti, extra = data_root / "kitti", data_root / "extra"
    readers = [
        (KittiObject(kitti / "object"), 80),
        (KittiObject(kitti / "object", "train"), 53),
        (KittiTracking(kitti / "tracking"), 204),
        (KittiTracking(kitti / "tracking_640x192"), 268),
        (KittiRoad(kitti / "road"), 35),
        (CamVid(data_root / "camvid"), 367),
        (CamVid(data_root / "camvid", "val"), 101),
        (IddLite(extra / "idd_lite"), 702),
        (IddLite(extra / "idd_lite", "val", boxes=True), 51),
        (PartialBoxes(extra / "dawn_fog", DAWN), 234),
        (PartialBoxes(extra / "citypersons_sample", CITYPERSONS), 135),
        (PartialBoxes(extra / "carla_danielhfnr", CARLA), 257),
        (Clips(data_root / "videos"), 18),
        (KittiRoad(kitti / "road", drawn=True), 35),
    ]
    for data, count in readers:
        assert len(data) == count
        for i in range(0, count, max(1, count // 5)):
            sample = data[i]
            height, width = sample.image_bgr.shape[:2]
            if sample.boxes_xyxy is not None:
                assert (sample.boxes_xyxy >= 0).all()
                assert (sample.boxes_xyxy <= [width, height, width, height]).all()
                assert sample.class_ids is not None and len(sample.class_ids) == len(sample.boxes_xyxy)
            else:
                assert sample.road is not None
            for mask, legal in ((sample.road, {0, 1, 255}), (sample.semantic, {0, 1, 2, 3, 255})):
                assert mask is None or (mask.shape == (height, width) and set(np.unique(mask).tolist()) <= legal)
    val = KittiObject(kitti / "object", "val")
    train_drives = {data.drives[name] for data, _ in readers[1:2] for name in data.names}
    assert not train_drives & {val.drives[name] for name in val.names}
