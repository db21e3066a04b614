"""`perception stress` from the front door: resumed, refused, with its page."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.cli.main import main

LABEL = "Car 0.00 0 0.00 40.00 30.00 90.00 71.00 1.5 1.6 4.0 0 1.6 20 0.0\n"


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    root = tmp_path / "kitti"
    for name in (
        "object/training/label_2",
        "object/training/image_2",
        "road/training/gt_image_2",
        "road/training/image_2",
    ):
        (root / name).mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 255, (96, 320, 3)).astype(np.uint8)
    truth = np.zeros((96, 320, 3), np.uint8)
    truth[:, :, 2] = 255
    truth[48:, :, 0] = 255
    for i in range(3):
        (root / f"object/training/label_2/{i:06d}.txt").write_text(LABEL)
        cv2.imwrite(str(root / f"object/training/image_2/{i:06d}.png"), picture)
        cv2.imwrite(str(root / f"road/training/image_2/um_{i:06d}.png"), picture)
        cv2.imwrite(str(root / f"road/training/gt_image_2/um_road_{i:06d}.png"), truth)
    return root


def test_a_run_is_continued_and_told(
    kitti: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    words = ["stress", "--data", str(kitti), "--model", str(tiny_model), "--out", str(out), "--device", "cpu"]
    words += ["--kinds", "drops", "dead_rows", "--severities", "3", "1", "--frames", "2", "--threads", "1"]
    assert main([*words, "--budget", "0.000001", "--no-page"]) == 0
    first = capsys.readouterr()
    assert "4 cells are left" in first.err and "clean" in first.out and "drops" not in first.out
    stamp = (out / "cells" / "clean-0.json").stat().st_mtime_ns
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (out / "cells" / "clean-0.json").stat().st_mtime_ns == stamp
    assert {(row["kind"], row["severity"]) for row in found["tables"]["cells"]} == {
        ("clean", 0), ("drops", 1), ("drops", 3), ("dead_rows", 1), ("dead_rows", 3),
    }  # fmt: skip
    road = {row["score"]: row for row in found["tables"]["summary"]}["Road MaxF"]
    assert road["clean"] == pytest.approx(100) and road["ratio"] == pytest.approx(100), "the tiny model never changes"
    assert "dead_rows" in (out / "report" / "report.html").read_text()
    assert main([*words, "--seed", "1"]) == 2
    assert "another seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--kinds", "rain"], "unknown disturbance 'rain'"),
        (["--severities", "6"], "1 to 5"),
        (["--frames", "-1"], "--frames -1"),
        (["--budget", "nan"], "--budget nan"),
        (["--split", "nowhere"], "ImageSets"),
        (["--sequence", "0000"], "label files"),
    ],
)
def test_mistakes_are_sentences(
    kitti: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    call = ["stress", "--data", str(kitti), "--model", str(tiny_model), "--out", str(tmp_path / "out"), "--no-page"]
    assert main([*call, "--kinds", "drops", *words]) == 2
    err = capsys.readouterr().err
    assert expected in err and "Traceback" not in err


def test_no_data_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stress"]) == 2
    assert "perception stress --data KITTI" in capsys.readouterr().err
    assert main(["stress", "--data", str(tmp_path), "--kinds", "drops", "--no-page"]) == 2
    assert "the folder is empty" in capsys.readouterr().err
