"""The OpenVINO recipe of docs/guides/export.md agrees with ONNX Runtime. Skipped where OpenVINO is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.backends.onnxruntime import OnnxRuntimeBackend

openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")


@pytest.mark.parametrize("batch", [1, 3])
def test_openvino_says_what_onnx_runtime_says(fp32_file: Path, batch: int) -> None:
    images = np.random.default_rng(4).integers(0, 256, (batch, 96, 160, 3), np.uint8)
    # without the hint it may compute in bf16 on processors that can
    compiled = openvino.compile_model(str(fp32_file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"images": images})
    wanted = OnnxRuntimeBackend(fp32_file, "cpu", 1).run({"images": images})
    assert np.abs(found["scores"] - wanted["scores"]).max() < 1e-4
    sure = wanted["scores"] > 1e-3
    assert np.abs(found["boxes_xyxy"][sure] - wanted["boxes_xyxy"][sure]).max() < 1e-2
    assert (found["class_ids"][sure] == wanted["class_ids"][sure]).all()
    assert np.abs(found["road"].astype(int) - wanted["road"].astype(int)).max() <= 1
