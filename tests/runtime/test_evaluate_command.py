"""`perception evaluate` from the front door: what is printed, what is kept, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception import __version__
from perception.cli.main import main
from perception.formats.kitti import read_objects, read_tracking

LABEL = "Car 0.00 0 0.00 40.00 30.00 90.00 71.00 1.5 1.6 4.0 0 1.6 20 0.0\n"
RESULT = "Car -1 -1 0.00 40.00 30.00 90.00 71.00 -1 -1 -1 -1000 -1000 -1000 -10 0.9\n"
TRACK = "{} 1 Car 0 0 0 40 30 90 70 1.5 1.6 4.0 0 1.6 20 0.0\n"


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """A tiny KITTI root for all three tasks; its labels are what the tiny model always finds."""
    training = tmp_path / "kitti" / "training"
    for name in ("label_2", "image_2", "gt_image_2", "label_02", "image_02/0000"):
        (training / name).mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 255, (96, 320, 3)).astype(np.uint8)
    truth = np.zeros((96, 320, 3), np.uint8)
    truth[:, :, 2] = 255
    truth[48:, :, 0] = 255
    for i in range(3):
        (training / "label_2" / f"{i:06d}.txt").write_text(LABEL)
        cv2.imwrite(str(training / "image_2" / f"{i:06d}.png"), picture)
        cv2.imwrite(str(training / "image_2" / f"um_{i:06d}.png"), picture)
        cv2.imwrite(str(training / "gt_image_2" / f"um_road_{i:06d}.png"), truth)
        cv2.imwrite(str(training / "image_02" / "0000" / f"{i:06d}.jpg"), picture)
    (training / "label_02" / "0000.txt").write_text("".join(TRACK.format(i) for i in range(5)))
    (training / "label_02" / "0001.txt").write_text(TRACK.format(0))
    return tmp_path / "kitti"


def evaluate(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    """Run the command; its stdout and stderr."""
    assert main(["evaluate", *map(str, words)]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out, captured.err


def test_object_table_and_json(kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results := tmp_path / "results").mkdir()
    for i in range(3):
        (results / f"{i:06d}.txt").write_text(RESULT)
    out, err = evaluate(capsys, "object", "--gt", kitti, "--results", results)
    assert "3 frames, 3 labels, 3 detections" in out and "R40 moderate" in out and "R11 hard" in out
    assert "Car AP" in out and "warning: never detected" in err
    out, _ = evaluate(capsys, "object", "--gt", kitti, "--results", results, "--json")
    found = json.loads(out)
    assert found["scores"]["Car"]["easy"]["tp"] == [3, 3, 3] and found["warnings"]
    assert found["scores"]["Car"]["easy"]["AP_R40"] == pytest.approx(100 * 2 / 40)
    (results / "000001.txt").unlink()
    _, err = evaluate(capsys, "object", "--gt", kitti, "--results", results, code=2)
    assert "000001" in err and "--allow-missing" in err
    _, err = evaluate(capsys, "object", "--gt", kitti, "--results", results, "--allow-missing")
    assert "1 frames had no result file and count as empty: 000001" in err


def test_road_and_its_pictures(kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results := tmp_path / "results").mkdir()
    for i in range(3):
        cv2.imwrite(str(results / f"um_road_{i:06d}.png"), np.full((96, 320), 200, np.uint8))
    words = ("road", "--gt", kitti, "--results", results, "--space", "perspective")
    out, _ = evaluate(capsys, *words, "--render", tmp_path / "pictures")
    assert "um_road" in out and "URBAN" in out and "66.67" in out  # half of the picture is road
    assert cv2.imread(str(tmp_path / "pictures" / "errors" / "um_road_000002.png")).shape == (96, 320, 3)
    assert cv2.imread(str(tmp_path / "pictures" / "confidence" / "um_road_000002.png"), -1).shape == (96, 320)
    out, _ = evaluate(capsys, *words, "--json")
    assert json.loads(out)["scores"]["URBAN"]["MaxF"] == pytest.approx(2 / 3)


def test_tracking(kitti: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = kitti / "training" / "label_02"
    out, err = evaluate(capsys, "tracking", "--gt", kitti, "--results", labels)
    assert "2 sequences, 6 frames" in out and "0001" in out and "Pedestrian, per cent" in out
    assert "no sequence map" in err
    out, _ = evaluate(capsys, "tracking", "--gt", kitti, "--results", labels, "--summary")
    assert "0001" not in out
    out, _ = evaluate(capsys, "tracking", "--gt", kitti, "--results", labels, "--json")
    found = json.loads(out)
    assert found["combined"]["Car"]["HOTA"] == 1.0 and len(found["combined"]["Car"]["by_alpha"]["HOTA"]) == 19


def test_a_model_is_run_over_objects_first(
    kitti: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = evaluate(
        capsys, "object", "--model", tiny_model, "--data", kitti, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert "Car AP" in out and "detecting" not in err, "a short job shows no progress in a log"
    rows = read_objects(tmp_path / "out" / "data" / "000000.txt", scores=True)
    assert rows.names == ("Car", "Pedestrian", "Cyclist") and rows.boxes_xyxy[0].tolist() == [40, 30, 90, 70]
    assert rows.scores is not None and rows.scores.tolist() == [0.9, 0.8, 0.05]
    note = json.loads((tmp_path / "out" / "run.json").read_text())
    assert note["model"]["name"] == "tiny" and note["provider"] == "CPUExecutionProvider"
    again, _ = evaluate(capsys, "object", "--gt", kitti, "--results", tmp_path / "out")
    assert again == out  # what was kept can be scored again, or submitted


def test_a_shipped_model_is_run_by_its_bare_name(
    kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("object", "--model", "nano-384x1248.onnx", "--data", kitti, "--out", tmp_path / "out", "--device", "cpu")
    evaluate(capsys, *words)
    note = json.loads((tmp_path / "out" / "run.json").read_text())
    assert note["model"]["size_hw"] == [384, 1248]


def test_a_model_is_run_over_roads_first(
    kitti: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("road", "--model", tiny_model, "--data", kitti, "--out", tmp_path / "out", "--device", "cpu")
    out, _ = evaluate(capsys, *words, "--space", "perspective")
    assert "URBAN" in out
    assert cv2.imread(str(tmp_path / "out" / "data" / "um_road_000000.png"), -1).shape == (96, 320)


def test_a_model_and_a_tracker_are_run_over_sequences_first(
    kitti: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("tracking", "--model", tiny_model, "--data", kitti, "--out", tmp_path / "out", "--device", "cpu")
    out, err = evaluate(capsys, *words)
    assert "1 sequences" in out
    assert "0000: 3 of 5 frames are scored, those with images" in err
    rows = read_tracking(tmp_path / "out" / "data" / "0000.txt", scores=True)
    assert len(rows) > 0 and set(rows.objects.names) <= {"Car", "Pedestrian"}
    _, err = evaluate(capsys, *words, "--tracker", "kalmann", code=2)
    assert "unknown tracker 'kalmann'" in err


def test_mistakes_are_sentences(
    kitti: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = evaluate(capsys)
    assert "usage: perception evaluate SUBCOMMAND" in out
    for words, text in (
        (("objct",), "perception evaluate object"),
        (("object",), "neither --results nor --model"),
        (("object", "--results", tmp_path), "no --gt"),
        (("object", "--results", tmp_path, "--model", tiny_model), "--results and --model together"),
        (("object", "--model", tiny_model), "--model without --data"),
        (("object", "--model", tmp_path / "none.onnx", "--data", kitti), "no such model file"),
        (("object", "--gt", kitti, "--results", tmp_path / "none"), "--results DIR"),
        (("object", "--gt", tmp_path / "none", "--results", kitti), "--gt DIR"),
        (("compare",), "two reports are needed"),
    ):
        _, err = evaluate(capsys, *words, code=2)
        assert text in err, (words, err)
    (kitti / "training" / "image_2" / "000001.png").unlink()
    _, err = evaluate(capsys, "object", "--model", tiny_model, "--data", kitti, "--out", tmp_path / "out", code=2)
    assert "1 of 3 images missing: 000001" in err


def test_reports_are_written_and_compared(kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results := tmp_path / "results").mkdir()
    for i in range(3):
        (results / f"{i:06d}.txt").write_text(RESULT)
    for name in ("a", "b"):
        _, err = evaluate(capsys, "object", "--gt", kitti, "--results", results, "--report", tmp_path / name)
        assert f"report: {tmp_path / name / 'report.html'}" in err
        assert (tmp_path / name / "report.html").is_file()
    facts = [json.loads((tmp_path / name / "report.json").read_text())["facts"] for name in ("a", "b")]
    assert facts[0]["perception"] == __version__ and facts[0]["commit"] and facts[0]["labels_hash"]
    assert facts[0]["results_hash"] == facts[1]["results_hash"] != facts[0]["labels_hash"]
    out, _ = evaluate(capsys, "compare", tmp_path / "a", tmp_path / "b", "--resamples", 400)
    assert "verdict" in out and "equal" in out
    words = ("compare", tmp_path / "a", tmp_path / "b", "--resamples", 400, "--groups", tmp_path / "groups.json")
    (tmp_path / "groups.json").write_text(json.dumps({f"{i:06d}": f"drive {i // 2}" for i in range(3)}))
    out, _ = evaluate(capsys, *words)
    assert "groups of frames" in out
    (tmp_path / "groups.json").write_text("[1]")
    _, err = evaluate(capsys, *words, code=2)
    assert "groups.json" in err
    before = (tmp_path / "a" / "report.json").read_text()
    _, err = evaluate(capsys, "compare", tmp_path / "a", tmp_path / "b", "--report", tmp_path / "a", code=2)
    assert "--report comparison" in err and (tmp_path / "a" / "report.json").read_text() == before
    _, err = evaluate(capsys, "compare", tmp_path / "a", tmp_path / "b", "--block", 0, code=2)
    assert "--block 0" in err
    _, err = evaluate(capsys, "compare", tmp_path / "a", tmp_path / "b", "--groups", tmp_path / "none.json", code=2)
    assert "none.json: no such file" in err and "Errno" not in err


def test_a_class_that_one_run_never_detects_is_told(
    kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rows in (("a", RESULT + RESULT.replace("Car", "Pedestrian")), ("b", RESULT)):
        (results := tmp_path / f"results-{name}").mkdir()
        for i in range(3):
            (results / f"{i:06d}.txt").write_text(rows)
            (kitti / "training" / "label_2" / f"{i:06d}.txt").write_text(LABEL + LABEL.replace("Car", "Pedestrian"))
        evaluate(capsys, "object", "--gt", kitti, "--results", results, "--report", tmp_path / name)
    words = ("compare", tmp_path / "a", tmp_path / "b", "--resamples", 400)
    out, _ = evaluate(capsys, *words, "--report", tmp_path / "both")
    assert "only A has a score for these, so they are not compared: Pedestrian" in out
    assert "Only A has a score for these" in (tmp_path / "both" / "report.html").read_text()
    evaluate(capsys, *words, "--fail-if-worse", code=1)
    evaluate(capsys, "compare", tmp_path / "b", tmp_path / "a", "--resamples", 400, "--fail-if-worse")


def test_results_of_unknown_classes_alone_are_a_mistake(
    kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results := tmp_path / "results").mkdir()
    for i in range(3):
        (results / f"{i:06d}.txt").write_text(RESULT.replace("Car", "auto"))
    _, err = evaluate(capsys, "object", "--gt", kitti, "--results", results, code=2)
    assert "no result row is of a class that KITTI knows, but of auto" in err and "column 1" in err
    for i in range(3):
        (results / f"{i:06d}.txt").write_text("")
    _, err = evaluate(capsys, "object", "--gt", kitti, "--results", results)
    assert "never detected, so not scored" in err
    (tracks := tmp_path / "tracks").mkdir()
    (tracks / "0000.txt").write_text(TRACK.format(0).replace("Car", "auto").rstrip() + " 0.9\n")
    words = ("tracking", "--gt", kitti, "--results", tracks)
    _, err = evaluate(capsys, *words, code=2)
    assert "1 result file(s) of 2" in err and "one for each sequence" in err
    _, err = evaluate(capsys, *words, "--allow-missing", code=2)
    assert "but of auto" in err and "column 3" in err


def test_only_a_page_needs_the_packages_for_pages(
    kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (results := tmp_path / "results").mkdir()
    for i in range(3):
        (results / f"{i:06d}.txt").write_text(RESULT)
    words = ["evaluate", "object", "--gt", str(kitti), "--results", str(results)]
    reports = [tmp_path / "a", tmp_path / "b"]
    for report in reports:
        evaluate(capsys, *words[1:], "--report", report)
    code = (
        "import sys; from perception.cli.main import main;"
        f"assert main({words!r}) == 0; assert main({['evaluate', 'compare', *map(str, reports)]!r}) == 0;"
        f"assert main({['evaluate', 'compare', *map(str, reports), '--json']!r}) == 0;"
        "heavy = {'matplotlib', 'jinja2', 'torch'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr("perception.reports.write.find_spec", lambda name: None if name == "matplotlib" else object())
    _, err = evaluate(capsys, *words[1:], "--report", tmp_path / "c", code=2)
    assert "'matplotlib' is not installed" in err and "pip install 'perception-pipeline[report]'" in err
    assert not (tmp_path / "c").exists()


def test_several_models_and_views_are_fused(
    kitti: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("object", "--model", tiny_model, "--data", kitti, "--out", tmp_path / "out", "--device", "cpu")
    evaluate(capsys, *words, "--ensemble", tiny_model)
    rows = read_objects(tmp_path / "out" / "data" / "000000.txt", scores=True)
    assert rows.scores is not None and rows.scores.tolist() == pytest.approx([0.9, 0.8, 0.05], abs=1e-6)
    evaluate(capsys, *words, "--flip")  # the tiny model finds the same boxes in a mirrored image
    rows = read_objects(tmp_path / "out" / "data" / "000000.txt", scores=True)
    assert rows.scores is not None and rows.scores.tolist()[0] == pytest.approx(0.45, abs=1e-6)
    _, err = evaluate(capsys, *words, "--scales", 99, code=2)
    assert "--scales 99" in err
    _, err = evaluate(capsys, "object", "--gt", kitti, "--results", kitti, "--flip", code=2)
    assert "without --model" in err


def test_fairness_from_results_with_attributes_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    labels, results = tmp_path / "labels", tmp_path / "results"
    labels.mkdir()
    results.mkdir()
    rows = ["frame,object,attribute,value"]
    for i in range(12):
        people = [(x, f"Pedestrian 0 0 0 {x} 50 {x + 25} 110 1 1 1 0 0 20 0\n") for x in range(0, 400, 40)]
        (labels / f"{i:06d}.txt").write_text("".join(line for _, line in people))
        found = [
            x for n, (x, _) in enumerate(people) if n % 2 or (n + i) % 2
        ]  # of the even ones every other is missed
        text = "".join(
            f"Pedestrian -1 -1 -10 {x} 50 {x + 25} 110 -1 -1 -1 -1000 -1000 -1000 -10 0.9\n" for x in found
        )
        (results / f"{i:06d}.txt").write_text(text)
        rows += [f"{i:06d},{n},age,{'adult' if n % 2 else 'child'}" for n in range(10)]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    words = ("fairness", "--gt", labels, "--results", results, "--attributes", tmp_path / "a.csv", "--resamples", 300)
    out, err = evaluate(capsys, *words, "--report", tmp_path / "report")
    assert "30 of 120 people missed, 12 drives" in out and "have no image" in err
    child = next(line for line in out.splitlines() if line.startswith("age: child"))
    assert "50.0" in child and child.endswith("more")
    assert "age: child" in (tmp_path / "report" / "report.html").read_text()
    _, err = evaluate(capsys, "fairness", "--gt", labels, "--results", results, "--resamples", 1, code=2)
    assert "--resamples 1" in err
