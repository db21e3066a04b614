"""`perception explain` from the front door: an image, a labelled set, the page, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.cli.main import main

pytest.importorskip("xaitk_saliency", reason="pip install -e '.[explain]'")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (96, 320, 3)).astype(np.uint8))
    return tmp_path / "a.png"


def test_an_image_is_explained_and_kept(
    image: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["explain", str(image), "--model", str(tiny_model), "--masks", "20", "--count", "2", "--device", "cpu"]
    words += ["--road-at", "10", "90", "--out", str(out), "--threads", "1", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["tables"]["checks"]
    assert [row["target"] for row in rows] == ["a: found Car", "a: found Pedestrian", "a: road"]
    assert all(row["insertion"] > 0.8 for row in rows), "the tiny model never changes"
    assert "data:image/jpeg" in (out / "report.html").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in (out / "maps").iterdir()}
    assert main(words) == 0 and {path: path.stat().st_mtime_ns for path in (out / "maps").iterdir()} == stamps


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "neither images nor --data"),
        (["IMAGE", "--data", "x"], "both images and --data"),
        (["IMAGE", "--masks", "3"], "--masks 3"),
        (["IMAGE", "--road-at", "3"], "--road-at 3"),
        (["nothing.png"], "no such file"),
        (["--data", "nowhere"], "no such folder"),
    ],
)
def test_mistakes_are_sentences(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    call = [str(image) if word == "IMAGE" else word for word in words]
    assert main(["explain", *call, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert expected in err and "Traceback" not in err
