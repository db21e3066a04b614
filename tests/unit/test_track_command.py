"""`perception track`: files in, KITTI tracking rows out."""

import json
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
        (("--detections", "DETECTIONS", "--out", "x", "--class", "Bus"), "classes that have folders: Car"),
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


def test_nothing_to_track_is_an_honest_no(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0000.txt").write_text("")
    assert run("--detections", tmp_path / "in", "--class", "Car", "--format", "csv", "--out", tmp_path / "out") == 1
