"""`perception track`: files in, KITTI tracking rows out."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perception.cli.main import main
from perception.formats.kitti import read_tracking

P2 = "P2: 700 0 600 0 0 700 180 0 0 0 1 0\n"


@pytest.fixture
def detections(tmp_path: Path) -> Path:
    folder = tmp_path / "detections" / "Car"
    folder.mkdir(parents=True)
    rows = "".join(f"{i},{500 + 3 * i},180,{560 + 3 * i},230,0.95\n" for i in range(12))
    (folder / "0000.txt").write_text(rows)
    (folder / "0001.txt").write_text("")
    return folder.parent


def run(*words: object) -> int:
    return main(["track", *map(str, words)])


def test_a_car_becomes_rows_with_one_id(detections: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("--detections", detections, "--format", "csv", "--out", out, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["tracks"] == 1 and summary["rows"] == 12
    rows = read_tracking(out / "0000.txt")
    assert rows.frame_ids.tolist() == list(range(12)) and set(rows.track_ids) == {1}
    assert np.abs(rows.objects.boxes_xyxy[:, 0] - (500 + 3 * np.arange(12))).max() < 2
    assert (out / "0001.txt").read_text() == ""
    assert json.loads((out / "track.json").read_text())["config"]["lost_s"] == 2.0
    assert sorted(p.name for p in out.iterdir()) == ["0000.txt", "0001.txt", "track.json"]


def test_again_is_the_same_to_the_byte(detections: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        run("--detections", detections, "--format", "csv", "--out", tmp_path / name, "--quiet")
        texts.append((tmp_path / name / "0000.txt").read_bytes())
    assert texts[0] == texts[1]


def test_results_are_detections_for_the_next_run(detections: Path, tmp_path: Path) -> None:
    run("--detections", detections, "--format", "csv", "--out", tmp_path / "a")
    assert run("--detections", tmp_path / "a", "--class", "Car", "--out", tmp_path / "b", "--tracker", "sort") == 0
    assert len(read_tracking(tmp_path / "b" / "0000.txt")) == 10  # SORT tells a track from its third match on


def test_a_calibration_adds_the_place(detections: Path, tmp_path: Path) -> None:
    (tmp_path / "calib").mkdir()
    for name in ("0000", "0001"):
        (tmp_path / "calib" / f"{name}.txt").write_text(P2)
    words = ("--detections", detections, "--format", "csv", "--calib", tmp_path / "calib", "--out", tmp_path / "out")
    assert run(*words) == 0
    places = read_tracking(tmp_path / "out" / "0000.txt").objects.location_cam2
    # the foot at row 230 is 50 px below the horizon: 700 · 1.65 / 50 = 23 m to the car's near face
    assert 18 < places[-1, 2] < 32


def test_settings_of_the_tracker(detections: Path, tmp_path: Path) -> None:
    words = ("--detections", detections, "--format", "csv", "--out", tmp_path / "out")
    assert run(*words, "--set", "confirm_log_odds=1e9", "lost_s=1.0") == 0
    assert read_tracking(tmp_path / "out" / "0000.txt").frame_ids.size == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "x"), "no --detections"),
        (("--detections", "DETECTIONS"), "no --out"),
        (("--detections", "nowhere", "--out", "x"), "no such folder"),
        (("--detections", "DETECTIONS", "--out", "x", "--tracker", "drivetrak"), "drivetrack"),
        (("--detections", "DETECTIONS", "--out", "x", "--set", "lost=1"), "lost_s"),
        (("--detections", "DETECTIONS", "--out", "x", "--set", "lost_s"), "--set lost_s=1.5"),
        (("--detections", "DETECTIONS", "--out", "x", "--set", "confirm_thresholds=(0,)"), "confirm_thresholds"),
        (("--detections", "DETECTIONS", "--out", "x", "--fps", "0"), "above 0"),
        (
            ("--detections", "DETECTIONS", "--out", "x", "--format", "csv", "--class", "Bus"),
            "classes that have folders: Car",
        ),
        (("--detections", "DETECTIONS", "--out", "DETECTIONS/Car/0000.txt", "--format", "csv"), "File exists"),
        (("--detections", "DETECTIONS", "--out", "DETECTIONS/Car", "--format", "csv"), "the detections lie there"),
    ],
)
def test_mistakes_are_sentences(
    words: tuple[str, ...], said: str, detections: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = (detections / "Car" / "0000.txt").read_text()
    assert run(*(word.replace("DETECTIONS", str(detections)) for word in words)) == 2
    assert said in capsys.readouterr().err
    assert (detections / "Car" / "0000.txt").read_text() == before


def test_one_number_serves_all_classes(detections: Path, tmp_path: Path) -> None:
    words = ("--detections", detections, "--format", "csv", "--out", tmp_path / "out")
    assert run(*words, "--set", "confirm_thresholds=0.7") == 0
    assert json.loads((tmp_path / "out" / "track.json").read_text())["config"]["confirm_thresholds"] == [0.7]


def test_hindsight_fills_gaps(detections: Path, tmp_path: Path) -> None:
    path = detections / "Car" / "0000.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(("5,", "6,"))))
    words = ("--detections", detections, "--format", "csv", "--out")
    assert run(*words, tmp_path / "a") == 0 and run(*words, tmp_path / "b", "--offline") == 0
    assert len(read_tracking(tmp_path / "a" / "0000.txt")) == 10
    assert read_tracking(tmp_path / "b" / "0000.txt").frame_ids.tolist() == list(range(12))


@pytest.mark.parametrize(
    ("change", "scale", "said"),
    [
        (lambda s: 100 * s, "percent", "scores of 12 detections are 0..100: divided by 100"),
        (lambda s: np.log(s / (1 - s)) - 4, "log-odds", "scores of 12 detections are log-odds"),
        (lambda s: s, "share", ""),
    ],
)
def test_scores_that_are_no_shares_are_mapped_and_said_once(
    change: Callable[[float], float], scale: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    rows = [f"{i},{500 + 3 * i},180,{560 + 3 * i},230,{change(0.95 - 0.01 * i)}" for i in range(12)]
    (tmp_path / "in" / "0000.txt").write_text("\n".join(rows))
    words = (
        "--detections",
        tmp_path / "in",
        "--format",
        "csv",
        "--class",
        "Car",
        "--out",
        tmp_path / "out",
        "--quiet",
    )
    assert run(*words, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["scores"] == scale
    assert captured.err.count("scores of") == bool(said) and said in captured.err


def kitti_row(frame: int, name: str, box: str = "100 150 190 220") -> str:
    return f"{frame} -1 {name} -1 -1 -10 {box} -1 -1 -1 -1000 -1000 -1000 -10 0.9\n"


def test_rows_that_are_not_tracked_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Van").mkdir()  # the folder's name does not matter: rows name their class
    rows = [kitti_row(i, name) for i in range(5) for name in ("vehicle", "DontCare")]
    (tmp_path / "Van" / "0000.txt").write_text("".join(rows))
    assert run("--detections", tmp_path / "Van", "--out", tmp_path / "out") == 2
    assert "5 rows of class 'vehicle'" in (said := capsys.readouterr().err) and "--class vehicle" in said
    (tmp_path / "Van" / "0000.txt").write_text("".join([*rows, *(kitti_row(i, "Car") for i in range(5))]))
    assert run("--detections", tmp_path / "Van", "--out", tmp_path / "out") == 0
    assert "not tracked: 5 rows of class 'vehicle' (--class vehicle)" in capsys.readouterr().err
    assert run("--detections", tmp_path / "Van", "--class", "vehicle", "--out", tmp_path / "other") == 0


def test_boxes_given_as_width_and_height_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    words = ("--detections", tmp_path / "in", "--format", "csv", "--class", "Car", "--out", tmp_path / "out")
    (tmp_path / "in" / "0000.txt").write_text("".join(f"{i},600,150,90,70,0.9\n" for i in range(5)))
    assert run(*words) == 2
    assert "5 of 5 boxes" in (said := capsys.readouterr().err) and "x2 = x + w" in said
    good = "".join(f"{i},600,150,690,220,0.9\n" for i in range(6))
    (tmp_path / "in" / "0000.txt").write_text(good + "6,600,150,90,70,0.9\n")
    assert run(*words) == 0
    assert "dropped: 1 of 7 boxes, inverted" in capsys.readouterr().err


def test_nothing_to_track_is_an_honest_no(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0000.txt").write_text("")
    assert run("--detections", tmp_path / "in", "--class", "Car", "--format", "csv", "--out", tmp_path / "out") == 1
