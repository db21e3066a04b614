"""`perception label` and `perception select` on a small synthetic street, with the shipped network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perception.cli.main import main

FRAMES = 4


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KITTI's layout of a street of a few frames."""
    from datasets.synthetic_street import StreetConfig, write_kitti_object

    root = tmp_path_factory.mktemp("street")
    write_kitti_object(StreetConfig(seed=4, frames=FRAMES, setting="city"), root, image_kind="jpg")
    return root


def test_label_then_another_format_without_looking_again(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "label",
        str(street / "training/image_2"),
        "--out",
        str(tmp_path),
        "--rate-hz",
        "10",
        "--keep-s",
        "0.2",
    ]
    command += ["--scales", "--threads", "1", "--json", "--device", "cpu"]
    assert main([*command, "--truth", str(street)]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["frames"], first["labelled"], first["looked_at_before"]) == (FRAMES, FRAMES // 2, 0)
    assert first["truth_frames"] == FRAMES // 2
    whole = first["quality"]["all"]
    assert whole["objects"] > 0 and whole["right"] + whole["wrong"] <= sum(first["labels"].values())
    assert len(json.loads((tmp_path / "coco/annotations/instances.json").read_text())["images"]) == FRAMES // 2

    assert main([*command, "--to", "cvat"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["looked_at_before"] == FRAMES and second["labels"] == first["labels"]
    assert (tmp_path / "cvat/annotations.xml").is_file()
    assert main([*command, "--to", "cvat"]) == 2 and "there already" in capsys.readouterr().err
    assert main([*command, "--to", "mot"]) == 2 and "only read" in capsys.readouterr().err
    assert main([*command, "--to", "kitti", "--flip"]) == 2 and "other flip" in capsys.readouterr().err


def test_select_writes_a_list_a_page_and_a_set(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    command = ["select", str(street / "training/image_2"), "--out", str(tmp_path), "--count", "2", "--threads", "1"]
    command += ["--device", "cpu", "--truth", str(street), "--to", "label_studio"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"2 of {FRAMES} frames" in said and "by chance" in said
    images = (tmp_path / "selected.txt").read_text().split()
    rows = json.loads((tmp_path / "selected.json").read_text())
    assert len(images) == 2 and all(Path(image).is_file() for image in images)
    page = (tmp_path / "page/report.html").read_text()
    assert [row["image"] for row in rows] == images and all(row["reason"] in page for row in rows)
    assert len(json.loads((tmp_path / "label_studio/tasks.json").read_text())) == 2


def test_a_detector_of_another_project_labels_buses(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It finds one bus in whatever it sees, and also knows people."""
    np = pytest.importorskip("numpy")
    pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    from tests.unit.test_teachers import model

    rows = np.zeros((1, 6, 1), np.float32)
    rows[0, :, 0] = [64, 64, 64, 120, 0.1, 0.9]
    detector = model(tmp_path / "detector.onnx", {"raw": rows})
    (tmp_path / "detector.toml").write_text('layout = "yolo"\nclasses = ["person", "bus"]\n')
    command = ["label", str(street / "training/image_2"), "--scales", "--teacher-hw", "128", "128"]
    command += ["--models", str(detector), "--json"]
    assert main([*command, "--teacher-classes", "bus=Bus", "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == {"Bus": FRAMES}
    written = json.loads((tmp_path / "out/coco/annotations/instances.json").read_text())
    assert [one["name"] for one in written["categories"]] == ["Bus"]
    assert main([*command, "--teacher-classes", "bus", "--out", str(tmp_path / "wrong")]) == 2
    assert "--teacher-classes bus" in capsys.readouterr().err
    assert main([*command, "--teacher-classes", "tram=Tram", "--out", str(tmp_path / "wrong")]) == 2
    assert "classes person, bus" in capsys.readouterr().err


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, said in (
        (["label"], "no frames given"),
        (["label", str(empty)], "no images"),
        (["label", str(tmp_path / "none.mp4")], "none.mp4"),
        (["label", str(empty), "--to", "word"], "unknown format"),
        (["label", str(empty), "--sure", "2"], "--sure"),
        (["select", str(empty), "--count", "0"], "--count 0"),
    ):
        assert main([*words, "--out", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
