"""`perception data check`: right folders pass, and every kind of damage is found and named."""

from __future__ import annotations

import json
import sys

import cv2
import dataset_folders as make
import numpy as np
import pytest

from datasets.checks.run import check, find_sets, shared_drives
from perception.cli.main import main as perception
from perception.errors import UserError


def findings(report) -> set[tuple[str, str, str]]:
    return {(f.level, f.kind, f.where) for f in report.findings}


def only(root):
    reports = check(root)
    assert len(reports) == 1
    return reports[0]


def everything(root):
    make.kitti_object(root / "kitti" / "object")
    make.kitti_tracking(root / "kitti" / "tracking")
    make.kitti_road(root / "kitti" / "road")
    make.camvid(root / "camvid")
    make.idd_lite(root / "extra" / "idd_lite")
    make.partial_boxes(root / "extra" / "dawn_fog", {"foggy-1": ["Car 1 2 30 20", "Bus 40 2 60 20"]})
    return root


# ---------------------------------------------------------------- what is right


def test_every_layout_is_found_wherever_it_lies(tmp_path):
    found = [(layout.name, path.name) for layout, path in find_sets(everything(tmp_path))]
    assert found == [
        ("masks", "camvid"),
        ("boxes", "dawn_fog"),
        ("masks", "idd_lite"),
        ("kitti-object", "object"),
        ("kitti-road", "road"),
        ("kitti-tracking", "tracking"),
    ]


def test_whole_sets_have_no_errors_and_no_warnings(tmp_path):
    for report in check(everything(tmp_path)):
        assert {f.level for f in report.findings} <= {"note"}, report.findings


def test_counts(tmp_path):
    by_layout = {report.layout: report for report in check(everything(tmp_path))}
    assert by_layout["kitti-object"].counts == {
        "images": 4,
        "labels": 4,
        "calibrations": 4 + 1,
        "drives": 2,
        "frames in split train": 2,
        "frames in split val": 2,
        "test images": 1,
    }
    assert by_layout["kitti-object"].names == {
        "Car": 2,
        "Cyclist": 2,
        "Pedestrian": 1,
        "Van": 1,
        "DontCare": 1,
        "Truck": 1,
        "Person_sitting": 1,
    }
    assert by_layout["kitti-tracking"].counts["images"] == 5
    assert by_layout["kitti-tracking"].images_by_drive == {"2011_09_26_drive_0005": 3, "2011_09_26_drive_0018": 2}
    assert by_layout["kitti-road"].counts["images"] == 4
    assert by_layout["camvid"].counts["val images"] == 1
    assert by_layout["idd"].counts["drives"] == 3
    assert by_layout["dawn_fog"].names == {"Car": 1, "Bus": 1}


def test_object_road_and_tracking_in_one_folder(tmp_path):
    make.kitti_object(tmp_path)
    make.kitti_road(tmp_path)
    make.kitti_tracking(tmp_path)
    reports = check(tmp_path)
    assert [report.layout for report in reports] == ["kitti-object", "kitti-road", "kitti-tracking"]
    assert [len(report.of_level("error")) for report in reports] == [0, 0, 0]
    assert [report.counts["images"] for report in reports] == [4, 4, 5]


def test_the_folder_training_means_the_set_around_it(tmp_path):
    make.kitti_object(tmp_path)
    assert only(tmp_path / "training").counts["images"] == 4


def test_nothing_to_check(tmp_path):
    with pytest.raises(UserError, match="no data set found"):
        check(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        check(tmp_path / "nowhere")


def test_recordings_that_two_sets_share(tmp_path):
    make.kitti_object(tmp_path / "object")
    make.write(
        tmp_path / "object" / "drives.json", json.dumps({f"00000{i}": "2011_09_26_drive_0018" for i in range(4)})
    )
    make.kitti_tracking(tmp_path / "tracking")
    shared = shared_drives(check(tmp_path))
    assert shared == [(str(tmp_path / "object"), str(tmp_path / "tracking"), ["2011_09_26_drive_0018"])]


def test_what_the_synthetic_street_writes_is_whole(tmp_path):
    from datasets.synthetic_street.config import StreetConfig
    from datasets.synthetic_street.export import write_kitti_object, write_kitti_tracking

    config = StreetConfig(frames=2)
    write_kitti_tracking(config, tmp_path / "sequence")
    write_kitti_object(config, tmp_path / "frames")
    reports = check(tmp_path)
    assert [report.layout for report in reports] == ["kitti-object", "kitti-road", "kitti-tracking"]
    assert [report.counts["images"] for report in reports] == [2, 2, 2]
    assert [f for report in reports for f in report.findings if f.level != "note"] == []
    assert shared_drives(reports) == []


# ---------------------------------------------------------------- damage to object frames


def test_missing_files_of_object_frames(tmp_path):
    root = make.kitti_object(tmp_path)
    (root / "training" / "label_2" / "000000.txt").unlink()
    (root / "training" / "image_2" / "000001.jpg").unlink()
    (root / "training" / "calib" / "000002.txt").unlink()
    assert findings(only(root)) == {
        ("error", "image without label", "training/image_2/000000"),
        ("warning", "label without image", "training/label_2/000001.txt"),
        ("warning", "image without calibration", "training/calib/000002.txt"),
        ("error", "split names a frame without image or label", "train: 000000"),
        ("error", "split names a frame without image or label", "train: 000001"),
    }


def test_unreadable_files_of_object_frames(tmp_path):
    root = make.kitti_object(tmp_path)
    jpeg = root / "training" / "image_2" / "000001.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-400])
    make.write(root / "training" / "image_2" / "000002.png", b"not a picture")
    make.write(root / "training" / "label_2" / "000000.txt", make.CAR + "\n" + make.CAR.replace("Car", "Boat"))
    make.write(root / "training" / "calib" / "000000.txt", "P3: " + "1 " * 12)
    make.write(root / "testing" / "image_2" / "000000.png", b"")
    report = only(root)
    assert findings(report) == {
        ("error", "unreadable image", "training/image_2/000001.jpg"),
        ("error", "unreadable image", "training/image_2/000002.png"),
        ("error", "unreadable image", "testing/image_2/000000.png"),
        ("error", "bad label", "training/label_2/000000.txt"),
        ("error", "bad calibration", "training/calib/000000.txt"),
    }
    said = {f.kind: f.detail for f in report.findings}
    assert said["bad label"] == "000000.txt:2: column 'type': found 'Boat'"
    assert "P2" in said["bad calibration"]


@pytest.mark.parametrize(
    ("box", "level", "kind"),
    [
        ("130.00 20.00 140.00 35.00", "error", "box outside its image"),
        ("10.00 -20.00 30.00 -1.00", "error", "box outside its image"),
        ("100.00 20.00 125.00 35.00", "warning", "box reaches out of its image"),
        ("10.00 20.00 10.00 35.00", "warning", "box without area"),
        ("100.00 20.00 120.50 35.00", None, None),  # KITTI's own labels end up to a pixel outside
    ],
)
def test_boxes_that_do_not_fit_their_image(tmp_path, box, level, kind):
    root = make.kitti_object(tmp_path)
    line = make.CAR.replace("10.00 20.00 30.00 35.00", box)
    make.write(root / "training" / "label_2" / "000003.txt", line)
    expected = {(level, kind, "training/label_2/000003.txt")} if level else set()
    assert findings(only(root)) == expected


def test_splits_that_leak(tmp_path):
    root = make.kitti_object(tmp_path)
    make.write(root / "ImageSets" / "val.txt", "000001\n000002\n")
    make.write(root / "ImageSets" / "trainval.txt", "000000\n000001\n000002\n")
    assert findings(only(root)) == {
        ("error", "splits share frames", "train and val"),
        ("error", "splits share a drive", "train and val: day_drive_a"),
    }


def test_bad_splits_and_drives(tmp_path):
    root = make.kitti_object(tmp_path)
    make.write(root / "ImageSets" / "train.txt", "")
    make.write(root / "drives.json", "{")
    assert findings(only(root)) == {
        ("error", "bad split", "ImageSets/train.txt"),
        ("error", "unreadable list of drives", "drives.json"),
    }


def test_one_frame_as_png_and_as_jpeg(tmp_path):
    root = make.kitti_object(tmp_path)
    make.write_image(root / "training" / "image_2" / "000000.jpg", seed=5)
    assert findings(only(root)) == {("warning", "image is there as PNG and as JPEG", "training/image_2/000000")}


# ---------------------------------------------------------------- damage to sequences


def test_fewer_images_than_labels_is_a_note(tmp_path):
    report = only(make.kitti_tracking(tmp_path))
    assert findings(report) == {
        ("note", "fewer images than labels", "training/image_02/0000"),
        ("note", "labels of a sequence without images", "training/label_02/0013.txt"),
    }


def test_contradictory_sequences(tmp_path):
    root = make.kitti_tracking(tmp_path)
    label = root / "training" / "label_02" / "0000.txt"
    make.write(label, make.as_tracking(make.CAR, 0, 1) * 2 + make.as_tracking(make.VAN, 2, 1))
    (root / "training" / "image_02" / "0000" / "000001.png").unlink()
    make.write_image(root / "training" / "image_02" / "0000" / "cover.png")
    make.write_image(root / "training" / "image_02" / "0006" / "000001.png", size_hw=(20, 60))
    make.write_image(root / "training" / "image_02" / "0009" / "000000.png")
    make.write(root / "training" / "label_02" / "0013.txt", "0 1 Car\n")
    (root / "training" / "image_02" / "0020").mkdir()
    make.write(root / "training" / "label_02" / "0020.txt", "")
    found = findings(only(root))
    assert found >= {
        ("error", "track id twice in a frame", "training/label_02/0000.txt"),
        ("warning", "track changes its class", "training/label_02/0000.txt"),
        ("warning", "frames missing in between", "training/image_02/0000"),
        ("error", "image without a frame number", "training/image_02/0000/cover"),
        ("error", "images of several sizes in one sequence", "training/image_02/0006"),
        ("error", "sequence without label file", "training/image_02/0009"),
        ("error", "bad label", "training/label_02/0013.txt"),
        ("error", "sequence without images", "training/image_02/0020"),
        ("warning", "image without calibration", "training/calib/0009.txt"),
    }


# ---------------------------------------------------------------- damage to masks


def test_contradictory_road_truth(tmp_path):
    root = make.kitti_road(tmp_path)
    truths = root / "training" / "gt_image_2"
    make.write_image(truths / "um_road_000000.png", size_hw=(20, 60))
    (truths / "um_road_000001.png").unlink()
    yellow = make.road_truth()
    yellow[0, 0] = (0, 255, 255)
    make.write(truths / "umm_road_000000.png", make.png(yellow))
    all_valid = make.road_truth()
    all_valid[-1] = (255, 0, 255)
    make.write(truths / "uu_road_000000.png", make.png(all_valid))
    make.write(truths / "uu_road_000009.png", make.png(all_valid))
    (root / "training" / "calib" / "uu_000000.txt").unlink()
    assert findings(only(root)) == {
        ("error", "ground truth of another size than its image", "training/gt_image_2/um_road_000000.png"),
        ("error", "image without ground truth", "training/image_2/um_000001"),
        ("error", "ground truth in other colours than the official ones", "training/gt_image_2/umm_road_000000.png"),
        ("note", "everything is marked valid, no ignore area", "training/gt_image_2/uu_road_000000.png"),
        ("warning", "ground truth without image", "training/gt_image_2/uu_road_000009"),
        ("warning", "image without calibration", "training/calib/uu_000000.txt"),
    }


@pytest.mark.parametrize(
    ("colour", "level", "kind"),
    [
        ((0, 0, 0), "error", "ground truth without a valid pixel"),
        ((0, 0, 255), "warning", "ground truth without road"),
    ],
)
def test_empty_road_truth(tmp_path, colour, level, kind):
    root = make.kitti_road(tmp_path)
    truth = np.full((make.HEIGHT, make.WIDTH, 3), colour, np.uint8)
    make.write(root / "training" / "gt_image_2" / "um_road_000000.png", make.png(truth))
    make.write(root / "training" / "gt_image_2" / "um_road_000001.png", b"")
    found = findings(only(root))
    assert (level, kind, "training/gt_image_2/um_road_000000.png") in found
    assert ("error", "unreadable ground truth", "training/gt_image_2/um_road_000001.png") in found


def test_contradictory_masks(tmp_path):
    root = make.camvid(tmp_path / "camvid")
    make.write_mask(root / "trainannot" / "0001TP_1.png", np.zeros((20, 60)))
    make.write_mask(root / "trainannot" / "0006R0_2.png", np.full((make.HEIGHT, make.WIDTH), 11))
    make.write_mask(root / "valannot" / "0016E5_3.png", np.full((make.HEIGHT, make.WIDTH), 12))
    make.write_image(root / "val" / "0001TP_9.jpg")
    make.write_mask(root / "valannot" / "0016E5_4.png", np.zeros((make.HEIGHT, make.WIDTH)))
    assert findings(only(root)) == {
        ("error", "bad mask", "trainannot/0001TP_1.png"),
        ("warning", "mask without a judged pixel", "trainannot/0006R0_2.png"),
        ("error", "mask with unknown class numbers", "valannot/0016E5_3.png"),
        ("error", "image without mask", "val/0001TP_9"),
        ("warning", "mask without image", "valannot/0016E5_4"),
        ("warning", "splits share a drive", "train and val: 0001TP"),
    }


def test_masks_of_neither_set(tmp_path):
    root = make.index_masks(tmp_path / "other", [0, 40, 200], {"train": ["a_1"]})
    assert findings(only(root)) == {("error", "masks of unknown classes", "trainannot")}


def test_camvid_and_idd_are_told_apart_by_their_numbers_not_their_names(tmp_path):
    make.camvid(tmp_path / "a")
    make.idd_lite(tmp_path / "b")
    assert [report.layout for report in check(tmp_path)] == ["camvid", "idd"]


def test_boxes_of_an_unknown_set(tmp_path):
    root = make.partial_boxes(tmp_path / "mine", {"a_1": ["Boat 1 2 5 20"]})
    report = only(root)
    assert findings(report) == {("warning", "set that no reader knows", "image_2 and label_2")}
    assert report.names == {"Boat": 1}


# ---------------------------------------------------------------- the statistics and the command


def test_statistics_of_the_boxes_by_hand(tmp_path):
    report = only(make.kitti_object(tmp_path))
    car = report.boxes[0]
    assert (car.name, car.height_px, car.distance_m, car.occlusion) == ("Car", 15, 20, 0)
    assert (car.foot_x, car.foot_y) == pytest.approx((20 / 120, 35 / 40))
    assert report.boxes_per_image == [3, 0, 1, 1]


def test_the_average_road_by_hand(tmp_path):
    road, judged = only(make.kitti_road(tmp_path)).road_sum
    assert road[:20].max() == 0 and road[30, 78] == pytest.approx(4)
    assert judged[0, 0] == pytest.approx(4) and judged[-1, 0] < 1  # the last row is not judged


def test_the_command_draws_and_ends_with_0(tmp_path, capsys):
    root = everything(tmp_path / "data")
    assert perception(["data", "check", str(root), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "0 errors, 0 warnings; plot:" in output
    assert "boxes: Car 2, Cyclist 2" in output
    picture = cv2.imread(str(tmp_path / "out" / "label_statistics.png"))
    assert picture is not None and picture.shape == (800, 1600, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["label_statistics.png"]


def test_sets_without_boxes_are_drawn_too(tmp_path):
    make.camvid(tmp_path / "data")
    assert perception(["data", "check", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "label_statistics.png").exists()


def test_the_command_ends_with_1_when_something_matters(tmp_path, capsys):
    root = make.kitti_object(tmp_path)
    for name in ("000000", "000001", "000002", "000003"):
        (root / "training" / "label_2" / f"{name}.txt").unlink()
    assert perception(["data", "check", str(root), "--no-draw"]) == 1
    output = capsys.readouterr().out
    assert "error: image without label (4)" in output and "training/image_2/000000" in output
    assert perception(["data", "check", str(root), "--no-draw", "--json"]) == 1
    table = json.loads(capsys.readouterr().out)
    assert table["errors"] == 8 and table["plot"] is None
    assert table["sets"][0]["layout"] == "kitti-object"
    assert {f["kind"] for f in table["sets"][0]["findings"]} == {
        "image without label",
        "split names a frame without image or label",
    }


def test_the_command_shortens_long_lists_unless_asked(tmp_path, capsys):
    root = make.kitti_road(tmp_path)
    for i in range(1, 8):
        make.write_image(root / "training" / "image_2" / f"uu_{i:06d}.png")
    assert perception(["data", "check", str(root), "--no-draw"]) == 1
    assert "… and 2 more (--all lists them)" in capsys.readouterr().out
    assert perception(["data", "check", str(root), "--no-draw", "--all"]) == 1
    assert "more (--all" not in capsys.readouterr().out


def test_the_command_on_nothing_ends_with_2(tmp_path, capsys):
    assert perception(["data", "check", str(tmp_path)]) == 2
    assert "no data set found" in capsys.readouterr().err


def test_without_matplotlib_the_check_still_answers(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    root = make.kitti_road(tmp_path)
    assert perception(["data", "check", str(root), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr()
    assert "perception-pipeline[report]" in output.err and "0 errors" in output.out


@pytest.mark.data
def test_the_sample_data_has_no_errors(data_root):
    for name in ("object", "road"):
        reports = check(data_root / "kitti" / name)
        assert [report.of_level("error") for report in reports] == [[]]
