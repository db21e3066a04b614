"""int8 for OpenVINO: ranges a channel, blocks that go back to fp32 exactly, and what each engine makes of a file."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")
if importlib.util.find_spec("nncf") is None:
    pytest.skip("nncf is not installed", allow_module_level=True)

from onnx import numpy_helper  # noqa: E402

from export.cli import main  # noqa: E402
from export.graph import load_onnx  # noqa: E402
from export.int8 import QuantizeConfig, _gates, _quantisable, in_float, quantize  # noqa: E402
from export.nncf_int8 import quantize_with_nncf  # noqa: E402
from export.onnx import write_model  # noqa: E402
from export.parity import TOLERANCES, compare, open_candidate  # noqa: E402
from perception.backends import load_model  # noqa: E402
from perception.cameras.letterbox import letterbox  # noqa: E402
from perception.errors import MissingDependencyError, UserError  # noqa: E402

SIZE = (96, 160)


@pytest.fixture(scope="module")
def model(fp32_file: Path) -> onnx.ModelProto:
    return load_onnx(fp32_file)


@pytest.fixture(scope="module")
def full(model: onnx.ModelProto, frames: list) -> onnx.ModelProto:
    images = [letterbox(frame.image_bgr, SIZE)[0] for frame in frames]
    return quantize_with_nncf(model, images, _quantisable(model.graph))


@pytest.fixture(scope="module")
def full_file(full: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "full.onnx"
    write_model(full, path)
    return path


def test_inputs_of_depthwise_layers_have_a_range_a_channel(full: onnx.ModelProto, model: onnx.ModelProto) -> None:
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in full.graph.initializer}
    made_by = {output: node for node in full.graph.node for output in node.output}
    gates, sizes = _gates(model.graph), set()
    for node in full.graph.node:
        ranges = made_by.get(node.input[0]) if node.op_type == "Conv" else None
        assert not (node.name in gates and ranges is not None and ranges.op_type == "DequantizeLinear")
        if ranges is not None and ranges.op_type == "DequantizeLinear":
            group = next(a.i for a in node.attribute if a.name == "group")
            sizes.add((group > 1, values[ranges.input[1]].size > 1))
    assert (True, True) in sizes and (False, True) not in sizes


def test_all_layers_back_in_float_is_the_model_again(
    full: onnx.ModelProto, model: onnx.ModelProto, fp32_file: Path, frames: list, tmp_path: Path
) -> None:
    """Corrected biases go back too."""
    again = in_float(full, model, set(_quantisable(model.graph)))
    write_model(again, tmp_path / "x.onnx")
    report = compare(
        open_candidate(fp32_file, threads=1), open_candidate(tmp_path / "x.onnx", threads=1), frames, "fp32"
    )
    assert report.passed, report.text()


def test_auto_takes_the_engine_that_has_its_int8(full_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_model(full_file, "auto", 1).backend.provider == "OpenVINO CPU fp32"
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        model = load_model(full_file, "cpu", 1)
    assert model.backend.provider == "CPUExecutionProvider"
    assert "computes this int8 file in fp32; --device openvino" in caplog.text
    boxes = model.backend.run({"images": np.zeros((1, *SIZE, 3), np.uint8)})["boxes_xyxy"]
    assert boxes.shape[2] == 4


def test_blocks_return_to_fp32_until_the_budget_is_met(
    model: onnx.ModelProto, full: onnx.ModelProto, frames: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged in OpenVINO; blocks as large as whole parts, so that the sweep is short."""
    monkeypatch.setattr("export.int8.quantize_with_nncf", lambda model, images, chosen: full)
    monkeypatch.setattr("export.int8.block_of", lambda name: "road" if "segmentation" in name else "rest")
    tolerance = replace(TOLERANCES["int8"], mean_score=1.0, alone=101.0, shift_px=1e3, mean_road_levels=255.0)
    monkeypatch.setitem(TOLERANCES, "int8", tolerance)
    _, loose = quantize(model, frames[:2], frames[2:], QuantizeConfig(budget=100.0))
    assert loose.before is not None and not loose.blocks_in_fp32 and "NNCF 3" in loose.text()
    strict = replace(tolerance, mean_road_levels=0.999 * loose.before.road_levels.mean)
    monkeypatch.setitem(TOLERANCES, "int8", strict)
    _, report = quantize(model, frames[:2], frames[2:], QuantizeConfig(budget=100.0))
    assert len(report.blocks_in_fp32) == 1 and report.quantised < loose.quantised
    assert report.after is not None and report.after.road_levels.mean < loose.before.road_levels.mean


def test_the_command_verifies_on_openvino_and_says_how_to_run(
    fp32_file: Path, full: onnx.ModelProto, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("export.int8.quantize_with_nncf", lambda model, images, chosen: full)
    loose = replace(TOLERANCES["int8"], mean_score=1.0, mean_road_levels=255.0, alone=101.0, shift_px=1e3)
    monkeypatch.setitem(TOLERANCES, "int8", loose)
    out = tmp_path / "small.onnx"
    call = [str(fp32_file), "--precision", "int8", "--frames", "2", "--calibration-frames", "1", "--budget", "100"]
    assert main([*call, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "int8, openvino fp32" in printed and "(openvino, batch 1)" in printed
    assert f"next: perception run VIDEO --model {out} --device openvino" in printed


def test_what_is_missing_or_contradicts_ends_the_export(fp32_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="symmetric"):
        main([str(fp32_file), "--precision", "int8", "--symmetric"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"perception-pipeline\[int8\]"):
        main([str(fp32_file), "--precision", "int8"])
