"""Stored detections: both layouts of rows, both layouts of folders, and what is said of mistakes."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import UserError
from perception.formats.detections import find_detections, parse_csv

KITTI_ROW = "{} -1 {} -1 -1 -10 10 20 30 40 -1 -1 -1 -1000 -1000 -1000 -10 0.75\n"


def test_csv_rows() -> None:
    table = parse_csv("frame,x1,y1,x2,y2,score\n0,1.5,2,3,4,0.5\n\n7, 1,2,3,4,-9\r\n")
    assert table.tolist() == [[0, 1.5, 2, 3, 4, 0.5], [7, 1, 2, 3, 4, -9]]
    assert parse_csv("").shape == (0, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1,2,3,4\n", "f.txt:1: found 5 columns"),
        ("0,1,2,3,4,0.5\n0,1,2,x,4,0.5\n", "f.txt:2: column 'x2': found 'x'"),
        ("1.5,1,2,3,4,0.5\n", "f.txt:1: column 'frame': found '1.5'"),
        ("0,1,2,3,4,0.5\n-1,1,2,3,4,0.5\n", "f.txt:2: column 'frame': found '-1'"),
        ("nan,1,2,3,4,0.5\n", "column 'frame'"),
    ],
)
def test_bad_csv_rows_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        parse_csv(text, "f.txt")


@settings(deadline=None)
@given(st.text(alphabet="0123456789,.-nae \n", max_size=60))
def test_any_text_is_rows_or_a_sentence(text: str) -> None:
    with contextlib.suppress(UserError):
        assert parse_csv(text).shape[1] == 6


def test_class_folders_are_found_and_joined(tmp_path: Path) -> None:
    for name in ("Car", "Pedestrian"):
        (tmp_path / "set" / "training" / name).mkdir(parents=True)
    (tmp_path / "set/training/Car/0000.txt").write_text("3,1,2,3,4,0.9\n0,5,6,7,8,0.8\n")
    (tmp_path / "set/training/Pedestrian/0000.txt").write_text("3,0,0,9,9,0.7\n")
    (tmp_path / "set/README.txt").write_text("not detections")
    folder = find_detections(tmp_path, "csv")
    stored = folder.read("0000")
    assert stored.frame_ids.tolist() == [0, 3, 3]
    assert stored.detections.class_ids.tolist() == [0, 0, 1]
    assert find_detections(tmp_path, "csv", ["pedestrian"]).read("0000").detections.class_ids.tolist() == [1]
    frames = list(stored.frames(most_empty=1))
    assert [(number, len(found)) for number, found in frames] == [(0, 1), (1, 0), (3, 2)]


def test_flat_csv_needs_a_class(tmp_path: Path) -> None:
    (tmp_path / "0000.txt").write_text("0,1,2,3,4,0.9\n")
    with pytest.raises(UserError, match="--class Car"):
        find_detections(tmp_path, "csv")
    assert find_detections(tmp_path, "csv", ["Cyclist"]).read("0000").detections.class_ids.tolist() == [2]


def test_kitti_rows_bring_their_class(tmp_path: Path) -> None:
    (tmp_path / "0003.txt").write_text(
        "".join(KITTI_ROW.format(i, n) for i, n in enumerate(("Car", "Van", "Cyclist")))
    )
    folder = find_detections(tmp_path, "kitti")
    names = [folder.class_names[i] for i in folder.read("0003").detections.class_ids]
    assert names == ["Car", "Van", "Cyclist"]
    only = find_detections(tmp_path, "kitti", ["Cyclist"]).read("0003")
    assert only.frame_ids.tolist() == [2] and only.detections.class_ids.tolist() == [2]
    assert only.detections.scores == pytest.approx([0.75])


def test_inverted_boxes_are_left_to_the_tracker(tmp_path: Path) -> None:
    (tmp_path / "0000.txt").write_text("0,9,9,3,4,0.9\n0,nan,9,3,4,0.9\n")
    detections = find_detections(tmp_path, "csv", ["Car"]).read("0000").detections
    assert len(detections) == 2 and np.isnan(detections.boxes_xyxy[1, 0])


def test_folders_that_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_detections(tmp_path / "nothing", "csv")
    with pytest.raises(UserError, match=r"holds no \.txt"):
        find_detections(tmp_path, "csv")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0000.txt").write_text("")
    with pytest.raises(UserError, match="one set of detections"):
        find_detections(tmp_path, "csv")
