"""OpenVINO and ONNX Runtime agree on every frame, by the check that a user types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.cli import main
from export.parity import Candidate, open_candidate

pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")


def test_verify_compares_engines(
    fp32_file: Path, frames: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    for frame in frames:
        cv2.imwrite(str(tmp_path / f"{frame.name}.png"), frame.image_bgr)
    words = ["verify", str(fp32_file), str(fp32_file), "--data", str(tmp_path), "--device", "openvino", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["precision"] == "fp32" and report["boxes"] > 20
    assert report["a"].endswith("(fp32, cpu)") and report["b"].endswith("(fp32, openvino fp32)")


def test_lower_arithmetic_is_judged_as_such(fp32_file: Path) -> None:
    one = open_candidate(fp32_file, device="openvino", threads=1)
    assert one.precision == "fp32"
    assert Candidate("x", one.spec, one.detect, "bf16").precision == "bf16"


def test_bf16_keeps_the_boxes_where_the_processor_computes_it(
    fp32_file: Path, frames: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    from perception.backends.openvino import precisions

    if "bf16" not in precisions("CPU"):
        pytest.skip("this processor computes no bf16")
    for frame in frames:
        cv2.imwrite(str(tmp_path / f"{frame.name}.png"), frame.image_bgr)
    words = ["verify", str(fp32_file), str(fp32_file), "--data", str(tmp_path), "--device", "openvino"]
    assert main([*words, "--precision", "bf16", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["precision"] == "bf16" and report["boxes"] > 20
    assert report["b"].endswith("(fp32, openvino bf16)")
