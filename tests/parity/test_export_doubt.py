"""`perception export doubt` on the synthetic street: the file says what was printed, and runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perception.cli.main import main

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from datasets.synthetic_street import StreetConfig, write_kitti_object

    folder = tmp_path_factory.mktemp("street") / "object"
    write_kitti_object(StreetConfig(seed=11, frames=6, setting="city"), folder, image_kind="jpg")
    return folder


def test_the_file_carries_what_is_printed(street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from perception.backends import load_model

    out = tmp_path / "doubt.onnx"
    words = ["export", "doubt", "nano-384x1248.onnx", "--data", str(street), "--device", "cpu", "--threads", "1"]
    assert main([*words, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.split("done:")[0])
    model = load_model(out, "cpu", 1)
    assert model.spec.doubt is not None and model.spec.doubt.frames == 6
    assert [list(pair) for pair in model.spec.doubt.scaling] == printed["doubt"]["scaling"]
    assert 0 <= printed["check"]["ece_before"]["all"] <= 1
    plain = load_model("nano-384x1248.onnx", "cpu", 1)
    image = np.random.default_rng(0).integers(0, 255, (1, 384, 1248, 3)).astype(np.uint8)
    for name, value in plain.backend.run({"images": image}).items():
        assert (model.backend.run({"images": image})[name] == value).all(), "only the description changes"


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], "no --data"), (["--coverage", "0.2"], "--coverage 0.2"), (["--out", "a.txt"], "ends in .onnx")],
)
def test_mistakes_are_sentences(
    street: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    data = ["--data", str(street)] if words else []
    assert main(["export", "doubt", "nano-384x1248.onnx", *data, *words]) == 2
    assert expected in capsys.readouterr().err
