"""`perception export` from end to end: precisions, formats, sizes that the strides allow and sizes they do not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from export.cli import main, parse_size
from perception.backends import load_model
from perception.errors import UserError


@pytest.fixture
def pictures(tmp_path: Path, frames: list) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for frame in frames:
        cv2.imwrite(str(folder / f"{frame.name}.png"), frame.image_bgr)
    return folder


def test_export_verifies_what_it_wrote(
    checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [str(checkpoint), "--size-hw", "96x160", "--data", str(pictures), "--frames", "2"]
    assert main([*call, "--out", str(tmp_path / "m.onnx")]) == 0
    printed = capsys.readouterr().out
    assert "verdict: the same" in printed and f"perception run VIDEO --model {tmp_path / 'm.onnx'}" in printed
    assert load_model(tmp_path / "m.onnx", "cpu", 1).spec.precision == "fp32"


def test_fp16_into_a_triton_repository(
    checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [str(checkpoint), "--size-hw", "96x160", "--data", str(pictures), "--frames", "2", "--precision", "fp16"]
    assert main([*call, "--format", "triton", "--out", str(tmp_path / "models")]) == 0
    assert "tolerance of fp16" in capsys.readouterr().out
    model = tmp_path / "models/nano-96x160/1/model.onnx"
    assert load_model(model, "cpu", 1).spec.precision == "fp16"
    assert (tmp_path / "models/nano-96x160/config.pbtxt").is_file()


def test_an_onnx_file_becomes_another_precision(
    fp32_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has only the shipped file can still make fp16, int8 or an engine of it."""
    call = [str(fp32_file), "--data", str(pictures), "--frames", "2"]
    assert main([*call, "--precision", "fp16", "--out", str(tmp_path / "half.onnx")]) == 0
    assert f"A  {fp32_file}" in capsys.readouterr().out
    assert load_model(tmp_path / "half.onnx", "cpu", 1).spec.precision == "fp16"
    assert main([*call, "--format", "triton", "--out", str(tmp_path / "models")]) == 0
    assert (tmp_path / "models/nano-96x160/1/model.onnx").read_bytes() == fp32_file.read_bytes()
    for wrong, word in (
        ([str(tmp_path / "half.onnx"), "--precision", "int8"], "already fp16"),
        ([str(fp32_file)], "already an ONNX file"),
        ([*call, "--precision", "fp16", "--size-hw", "64x64"], "exported for 96x160, batch dynamic"),
        ([*call, "--precision", "fp16", "--batch", "2"], "exported for 96x160"),
        (
            [*call, "--precision", "fp16", "--confirm-thresholds", "0.3"],
            "confirmation thresholds of an ONNX file are fixed",
        ),
    ):
        with pytest.raises(UserError, match=word):
            main([*wrong, "--no-verify"])


@pytest.mark.parametrize("size", ["64x64", "32x224", "160x96"])
def test_any_size_that_the_strides_allow(checkpoint: Path, tmp_path: Path, size: str) -> None:
    out = tmp_path / "m.onnx"
    assert main([str(checkpoint), "--size-hw", size, "--out", str(out), "--no-verify"]) == 0
    backend, spec = load_model(out, "cpu", 1)
    height, width = parse_size(size)
    assert spec.size_hw == (height, width)
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    together = backend.run({"images": images})
    assert together["road"].shape == (2, height // 4, width // 4)
    alone = backend.run({"images": images[1:]})
    assert np.allclose(together["boxes_xyxy"][1], alone["boxes_xyxy"][0], atol=1e-2)


def test_a_fixed_batch_is_fixed_and_confirm_thresholds_reach_the_file(checkpoint: Path, tmp_path: Path) -> None:
    options = ["--size-hw", "64x96", "--batch", "2", "--confirm-thresholds", "0.3", "0.2", "0.2"]
    assert main([str(checkpoint), *options, "--out", str(tmp_path / "m.onnx"), "--no-verify"]) == 0
    backend, spec = load_model(tmp_path / "m.onnx", "cpu", 1)
    assert backend.inputs["images"] == (2, 64, 96, 3) and spec.confirm_thresholds == (0.3, 0.2, 0.2)


def test_confirm_thresholds_that_the_run_measured_reach_the_file_too(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.checkpoint import load_checkpoint, save_checkpoint

    state = load_checkpoint(checkpoint)
    state["scores"] = {
        "confirm_threshold_car": 0.35,
        "confirm_threshold_pedestrian": 0.2,
        "confirm_threshold_cyclist": 0.2,
    }
    measured, out = tmp_path / "best.pt", tmp_path / "m.onnx"
    save_checkpoint(measured, state)
    call = [str(measured), "--size-hw", "64x96", "--out", str(out), "--no-verify"]
    assert main(call) == 0 and load_model(out, "cpu", 1).spec.confirm_thresholds == (0.35, 0.2, 0.2)
    assert "confirmation thresholds 0.35 0.2 0.2, measured by the run" in capsys.readouterr().out
    assert main([*call, "--confirm-thresholds", "0.3", "0.2", "0.1"]) == 0
    assert load_model(out, "cpu", 1).spec.confirm_thresholds == (0.3, 0.2, 0.1)
    assert "measured" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--size-hw", "100x160"], "multiples of 32"),
        (["--size-hw", "wide"], "HEIGHTxWIDTH"),
        (["--size-hw", "0x64"], "multiples of 32"),
        (["--size-hw", "32x32"], "one per point and class"),
        (["--batch", "0"], "a number from 1"),
        (["--confirm-thresholds", "0.3", "1.5"], "confirmation thresholds"),
    ],
)
def test_what_cannot_be_exported_is_said(checkpoint: Path, tmp_path: Path, options: list[str], word: str) -> None:
    with pytest.raises(UserError, match=word):
        main([str(checkpoint), "--out", str(tmp_path / "m.onnx"), "--no-verify", *options])
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("out", "form", "next_step"),
    [
        ("m.engine", "onnx", "--format engine"),
        ("m.onnx", "engine", "--format onnx"),
        ("m", "onnx", "--out m.onnx"),
        ("m.pt", "engine", "--out m.engine"),
    ],
)
def test_a_file_is_not_named_as_what_it_is_not(out: str, form: str, next_step: str) -> None:
    with pytest.raises(UserError, match=f"--out {out} with --format {form}") as error:
        main(["nano.pt", "--out", out, "--format", form])
    assert next_step in str(error.value)


def test_what_comes_of_a_shipped_file_lies_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["nano-384x1248.onnx", "--format", "triton", "--no-verify"]) == 0
    assert (tmp_path / "triton/nano-384x1248/1/model.onnx").is_file()
