"""`perception data check` on own data: what is broken, leaks over the split, is rare, or too small to be seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from test_formats_training import coco

from datasets.checks.findings import SetReport
from datasets.checks.label_noise import suspicions, write_pictures
from datasets.checks.own import check_sizes
from datasets.checks.run import check
from datasets.checks.similar import distance, groups, image_hash, near_pairs
from datasets.formats.annotations import AnnotatedImage, AnnotationSet, Box
from perception.classes import ClassInfo, classes_named
from perception.cli.main import main
from perception.types import Detections


def scene(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 20, 3)).astype(np.uint8)
    return cv2.resize(coarse, (400, 240), interpolation=cv2.INTER_CUBIC)


def test_hashes_survive_what_does_not_change_the_scene() -> None:
    image = scene(1)
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    dark = (image * 0.6 + 10).astype(np.uint8)
    for copy in (small, jpeg, dark):
        assert distance(image_hash(image), image_hash(copy)) <= 10
    assert distance(image_hash(image), image_hash(scene(2))) > 60
    assert distance(image_hash(image), image_hash(np.ascontiguousarray(image[:, ::-1]))) > 60


def test_pairs_and_groups() -> None:
    """Hashes of one word: 0, 1 (one bit), 3 (two bits), and all bits."""
    hashes = [np.array([v, 0, 0, 0], np.uint64) for v in (0, 1, 3, 2**64 - 1)]
    assert near_pairs(hashes, most=1) == [(0, 1, 1), (1, 2, 1)]
    assert near_pairs(hashes[:1], hashes[2:], most=2) == [(0, 0, 2)] and near_pairs([], most=1) == []
    assert groups(4, near_pairs(hashes, most=1)) == [[0, 1, 2]]


def kinds(report: SetReport, level: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        if finding.level == level:
            found.setdefault(finding.kind.partition(":")[0], []).append(finding.where)
    return found


def test_what_is_wrong_with_a_set(tmp_path: Path) -> None:
    root = coco(tmp_path, split="_train")
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    for i in range(10):  # scenes that differ, but for a darker copy in the other split and two alike in this one
        (root / f"images/{i:03d}.png").write_bytes(cv2.imencode(".png", scene(i))[1].tobytes())
        content["images"][i] |= {"width": 400, "height": 240}
    copy = cv2.imencode(".png", scene(3))[1].tobytes()
    (root / "images/004.png").write_bytes(copy)
    (root / "images/v.png").write_bytes(cv2.imencode(".png", (scene(7) * 0.7).astype(np.uint8))[1].tobytes())
    content["annotations"][0]["bbox"] = [900, 900, 5, 5]
    content["categories"].append({"id": 9, "name": "tram"})
    (root / "images/009.png").unlink()
    path.write_text(json.dumps(content))
    val = {"images": [{"id": 1, "file_name": "v.png", "width": 400, "height": 240}], "annotations": []}
    val |= {"categories": content["categories"]}
    (root / "annotations/instances_val.json").write_text(json.dumps(val))
    (report,) = check(tmp_path)
    assert report.layout == "coco" and report.counts == {"images": 10, "boxes": 44}
    assert kinds(report, "error") == {
        "missing image": ["009.png"],
        "box outside its image": ["000: coach 900 900 905 905 in 400x240"],
        "near-copies on both sides of the split": ["007 (training) and v (held out)"],
    }
    warnings = kinds(report, "warning")
    assert warnings.pop("near-copies") == ["003, 004"]
    assert warnings.pop("class without a box") == ["tram"]
    assert warnings.pop("rare class") == ["coach", "car", "truck", "tree"]
    assert "coach: none in val" in warnings.pop("class in one side of the split only")
    assert warnings == {}


def test_copies_over_the_split_of_kittis_layout(tmp_path: Path) -> None:
    from dataset_folders import kitti_object

    kitti_object(tmp_path)
    folder = tmp_path / "training/image_2"
    names = sorted(path.stem for path in folder.iterdir())
    (tmp_path / "ImageSets").mkdir(exist_ok=True)
    for split, name in zip(("train", "val"), names, strict=False):
        (tmp_path / f"ImageSets/{split}.txt").write_text(name + "\n")
    (report,) = check(tmp_path)
    kind = "near-copies on both sides of the split"
    assert kind not in kinds(report, "error")
    (folder / f"{names[1]}.png").write_bytes((folder / f"{names[0]}.png").read_bytes())
    (report,) = check(tmp_path)
    assert kinds(report, "error")[kind] == [f"{names[0]} (training) and {names[1]} (held out)"]


def test_sizes_against_the_network() -> None:
    """In a frame of 1248 x 384 a box of 6 pixels is 6 network pixels; in one twice as large, one of 12."""
    boxes = [Box("sign", (0, 0, 9, 6)), Box("sign", (20, 0, 30, 20)), Box("car", (0, 0, 90, 60))]
    image = AnnotatedImage("a", Path("a.png"), (384, 1248), tuple(boxes))
    report = SetReport("coco", Path())
    check_sizes(report, AnnotationSet(Path(), ("sign", "car"), (image,)))
    (finding,) = report.findings
    assert finding.where == "sign" and finding.detail.startswith(
        "50% of 2, median 13 pixels; at 640x2048 nine in ten"
    )
    speck = replace(image, boxes=(Box("sign", (0, 0, 1, 1)),))
    report = SetReport("coco", Path())
    check_sizes(report, AnnotationSet(Path(), ("sign",), (speck,)))
    assert "no usual input" in report.findings[0].detail, "4608x14976 would be no advice"
    twice = replace(image, size_hw=(768, 2496), boxes=(Box("sign", (0, 0, 9, 15)),))
    report = SetReport("coco", Path())
    check_sizes(report, AnnotationSet(Path(), ("sign",), (twice,)))
    assert not report.findings


class Says:
    """A detector with fixed answers by image."""

    def __init__(self, answers: list[list[tuple[int, float, list[float]]]]) -> None:
        classes = (*classes_named(("Car",)), ClassInfo("Bus", labels=("coach",)))
        self.spec = SimpleNamespace(class_names=("Car", "Bus"), class_infos=classes)
        self.answers = iter(answers)

    def __call__(self, image: np.ndarray) -> tuple[Detections, None]:
        rows = next(self.answers)
        boxes = np.array([row[2] for row in rows], np.float32).reshape(-1, 4)
        return Detections(boxes, np.array([r[1] for r in rows], np.float32), np.array([r[0] for r in rows])), None


def test_labels_that_a_model_contradicts(tmp_path: Path) -> None:
    image = AnnotatedImage(
        "a",
        tmp_path / "a.png",
        (240, 400),
        (
            Box("car", (10, 10, 70, 70)),  # confirmed
            Box("coach", (100, 10, 160, 70)),  # the model says car
            Box("car", (200, 10, 260, 70)),  # not seen
            Box("car", (200, 100, 260, 160), occlusion=2),  # not seen, but hidden
            Box("car", (300, 10, 310, 20)),  # too small to be judged
            Box("car", (300, 100, 360, 160), ignore=True),
            Box("tree", (10, 100, 70, 160)),  # no class of the model
        ),
    )
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", scene(1))[1].tobytes())
    answers = [
        (0, 0.9, [10, 10, 70, 70]),
        (0, 0.8, [102, 10, 160, 70]),
        (0, 0.7, [200, 170, 260, 230]),  # nobody labelled it
        (0, 0.5, [100, 170, 160, 230]),  # not sure enough
        (0, 0.9, [305, 105, 355, 155]),  # in an ignore region
    ]
    found = suspicions(Says([answers]), [image])  # type: ignore[arg-type]
    assert [(one.kind, one.label, one.found) for one in found] == [
        ("other class", "Bus", "Car"),
        ("no label", "", "Car"),
        ("not seen", "Car", ""),
        ("not seen", "Car", ""),
    ]
    assert [round(one.strength, 2) for one in found] == [0.8, 0.7, 0.3, 0.15]
    assert str(found[0]) == "a: labelled Bus, the model says Car 0.80"
    assert write_pictures(found, tmp_path / "out", most=2) == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "001 other class.jpg",
        "002 no label.jpg",
        "suspicions.txt",
    ]
    picture = cv2.imread(str(tmp_path / "out/001 other class.jpg"))
    assert picture is not None and picture.shape[1] == 480


def test_the_command_with_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = coco(tmp_path / "set", images=2) / "annotations/instances.json"
    path.write_text(path.read_text().replace("[60, 30, 30, 20]", "[60, 10, 30, 40]"))
    words = ["data", "check", str(tmp_path / "set"), "--out", str(tmp_path / "out"), "--no-draw"]
    assert main([*words, "--model", "nano-480x1568.onnx"]) == 0
    said = capsys.readouterr().out
    assert "label noise: 2 places" in said and "rare class" in said, said
    assert len(list((tmp_path / "out/label_noise").glob("*.jpg"))) == 2


def test_frames_of_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eleven frames at 10 Hz, the last six alike: of 0, 0.3, 0.6 and 0.9 s the last is left out."""
    from perception.sinks.video import H264Writer

    writer = H264Writer(tmp_path / "a.mp4", 10.0)
    for i in range(11):
        writer.write(scene(min(i, 5)), round(i * 1e8))
    writer.close()
    words = ["data", "frames", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "frames"), "--every-s", "0.3"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == [{"video": "a", "frames": [0, 3, 6], "still": 1}]
    assert sorted(p.name for p in (tmp_path / "frames/a").iterdir()) == ["000000.jpg", "000003.jpg", "000006.jpg"]
    assert main(words) == 2 and "holds files" in capsys.readouterr().err
    assert main(["data", "frames", "--out", str(tmp_path / "x")]) == 2
    assert main([*words[:3], str(tmp_path / "a.mp4"), "--out", str(tmp_path / "x")]) == 2
    assert "two sources are named a" in capsys.readouterr().err
