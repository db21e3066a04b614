"""What is left out is counted and named: files beside the data, split names, labels without objects."""

from __future__ import annotations

import logging
from pathlib import Path

import dataset_folders as make
import numpy as np
import pytest

from datasets.catalogue import divide as divide_all
from datasets.catalogue import open_sets
from datasets.kitti_object import KittiObject, check_kitti_object, divide
from datasets.splits import HoldoutOptions
from perception.evaluation.object_folders import score_object_folders
from perception.evaluation.tracking import TrackingEvaluator
from perception.files import data_files, read_text
from perception.formats.detections import find_detections
from perception.formats.images import find_image
from perception.formats.kitti import ObjectRows, TrackingRows, format_objects

BOM = b"\xef\xbb\xbf"


def test_hidden_files_and_lists_beside_the_data_are_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("000000.txt", "._000000.txt", "classes.txt", "README.txt", "evaluate_tracking.seqmap.txt", "a.TXT"):
        (tmp_path / name).write_text("")
    assert [path.name for path in data_files(tmp_path, (".txt",))] == ["000000.txt"]
    data_files(tmp_path, (".txt",))
    (said,) = caplog.messages
    assert "5 files are no data" in said
    assert "._000000.txt" in said and "classes.txt" in said


def test_images_may_have_their_suffix_in_upper_case(tmp_path: Path) -> None:
    make.write_image(tmp_path / "a.png").rename(tmp_path / "a.PNG")
    assert [path.name for path in data_files(tmp_path, (".png",))] == ["a.PNG"]
    assert find_image(tmp_path, "a") == tmp_path / "a.PNG"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(BOM + b"Car")
    assert read_text(tmp_path / "a.txt") == "Car"


def test_marks_and_strays_change_no_score(tmp_path: Path) -> None:
    boxes = np.array([[100.0, 150, 200, 220]])
    known = np.zeros(1)
    label = ObjectRows.from_boxes(["Car"], boxes, truncation=known, occlusion=known.astype(np.int64), alpha=known)
    result = ObjectRows.from_boxes(["Car"], boxes, np.array([0.9]), alpha=known)
    scores = []
    for place, mark in ((tmp_path / "plain", b""), (tmp_path / "marked", BOM)):
        for i in range(4):
            make.write(place / f"gt/{i:06d}.txt", mark + format_objects(label).encode())
            make.write(place / f"res/{i:06d}.txt", mark + format_objects(result).encode())
        if mark:
            make.write(place / "gt/classes.txt", "Car\n")
            make.write(place / "gt/._000000.txt", b"\0\5\x16\7\xff")
        scores.append(score_object_folders(place / "gt", place / "res").scores["Car", "easy"].ap_r40)
    assert scores[0] > 0
    assert scores[0] == scores[1]


def test_without_val_txt_only_what_train_txt_names_is_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make.kitti_object(tmp_path)
    (root / "ImageSets/val.txt").unlink()
    (root / "drives.json").unlink()
    division = divide(KittiObject(root), HoldoutOptions())
    assert division.train == ("000000", "000001")
    assert division.held_out == ()
    assert "nothing is held out" in caplog.text


def test_names_that_a_split_loses_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make.kitti_object(tmp_path)
    (root / "ImageSets/train.txt").write_text("000000\n000001\n777777\n")
    (root / "ImageSets/val.txt").write_text("000002\n")
    with caplog.at_level(logging.INFO):
        divide(KittiObject(root), HoldoutOptions())
    assert "train.txt: 1 of its 3 frames have no image with a label" in caplog.text
    assert "1 frames are in no split" in caplog.text


def test_labels_without_an_object_of_a_trained_class_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make.kitti_object(tmp_path)
    for path in (root / "training/label_2").iterdir():
        path.write_text(make.TRUCK + "\n")
    divide(KittiObject(root), HoldoutOptions())
    assert "none of 2 labels has an object of a trained class" in caplog.text
    assert "(car, pedestrian, cyclist); found: Truck 2" in caplog.text
    kinds = {finding.kind for finding in check_kitti_object(root, ()).findings}
    assert "no object of a trained class in any label" in kinds


def test_a_normal_set_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make.kitti_object(tmp_path / "kitti/object")
    divided, _ = divide_all(open_sets(tmp_path), HoldoutOptions(), None)
    assert [part.train for part in divided if part.train]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_false_alarms_without_any_label_count_in_the_combined_numbers() -> None:
    """TrackEval 1.3.0, COMBINED_SEQ: a sequence without labels stops before its ratios, the sum does not."""
    rows = ObjectRows.from_boxes(["Car"] * 4, np.array([[100.0, 150, 200, 220]] * 4), np.full(4, 0.9))
    results = TrackingRows(np.arange(4), np.ones(4, np.int64), rows)
    none = ObjectRows.from_boxes([], np.zeros((0, 4)))
    labels = TrackingRows(np.zeros(0, np.int64), np.zeros(0, np.int64), none)
    evaluator = TrackingEvaluator()
    evaluator.process("0000", labels, results, 4)
    evaluation = evaluator.evaluate()
    assert evaluation.sequences["0000", "Car"].score.values["MOTA"] == 0.0
    combined = evaluation.combined["Car"].values
    assert [combined[name] for name in ("MOTA", "MODA", "sMOTA", "MOTAL")] == [-4.0] * 4
    assert (combined["MLR"], combined["FP_per_frame"]) == (0.0, 4.0)


def test_detections_pass_over_what_lies_beside_them(tmp_path: Path) -> None:
    for name in ("0000.txt", "._0000.txt", "evaluate_tracking.seqmap.txt", "readme.txt"):
        (tmp_path / name).write_text("0,1,2,3,4,0.5\n")
    assert list(find_detections(tmp_path, "csv", ("Car",)).files) == ["0000"]
