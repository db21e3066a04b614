"""Costs that can be counted on paper, the benchmark's own arithmetic, and Triton's text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from export import benchmark  # noqa: E402
from export.flops import model_cost, single  # noqa: E402
from export.graph import write_spec  # noqa: E402
from export.triton import config_text, write_repository  # noqa: E402
from perception.errors import UserError  # noqa: E402
from perception.model import ModelSpec  # noqa: E402

SPEC = ModelSpec(("Car", "Pedestrian", "Cyclist"), (32, 64), name="tiny-32x64")


def _contract(batch: int | None = None, precision: str = "fp32") -> onnx.ModelProto:
    """A network of one convolution that keeps the contract's names, types and shapes; K is 2."""
    n: int | str = batch or "N"
    value = helper.make_tensor_value_info
    inputs = [value("images", TensorProto.UINT8, (n, 32, 64, 3))]
    outputs = [
        value("boxes_xyxy", TensorProto.FLOAT, (n, 2, 4)),
        value("scores", TensorProto.FLOAT, (n, 2)),
        value("class_ids", TensorProto.INT64, (n, 2)),
        value("road", TensorProto.UINT8, (n, 8, 16)),
    ]
    constants = {
        "w": np.ones((8, 3, 4, 4), np.float32),
        "axes": np.array([2, 3]),
        "box_axes": np.array([2]),
        "starts": np.array([0]),
        "two": np.array([2]),
        "one": np.array([1]),
    }
    nodes = [
        helper.make_node("Transpose", ["images"], ["t"], "turn", perm=(0, 3, 1, 2)),
        helper.make_node("Cast", ["t"], ["x"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w"], ["map"], "conv", strides=(4, 4)),
        helper.make_node("ReduceMean", ["map", "axes"], ["mean"], "mean", keepdims=0),
        helper.make_node("Slice", ["mean", "starts", "two", "one"], ["scores"], "scores"),
        helper.make_node("Cast", ["scores"], ["class_ids"], "ids", to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["scores", "box_axes"], ["column"], "column"),
        helper.make_node("Concat", ["column"] * 4, ["boxes_xyxy"], "boxes", axis=2),
        helper.make_node("ReduceMean", ["map", "one"], ["road_map"], "road_mean", keepdims=0),
        helper.make_node("Cast", ["road_map"], ["road"], "road", to=TensorProto.UINT8),
    ]
    tensors = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    write_spec(model, ModelSpec(SPEC.class_names, SPEC.size_hw, name=SPEC.name, precision=precision))
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    onnx.save(_contract(), str(tmp_path / "tiny.onnx"))
    return tmp_path / "tiny.onnx"


# ---------------------------------------------------------------- cost


def test_a_convolution_counted_by_hand() -> None:
    """8 × 16 outputs of 8 channels, each 3 · 4 · 4 multiply-adds: 8·16·8 · 48 · 2 = 98,304 operations."""
    found = model_cost(_contract(), batch=1)
    assert found.conv_flops == 8 * 16 * 8 * 48 * 2 == found.by_operator["Conv"] == 98_304
    assert model_cost(_contract(), batch=5).conv_flops == 5 * 98_304
    assert next(iter(found.by_operator)) == "Conv" and found.flops > found.conv_flops
    # 8·3·4·4 floats of weights, the picture, and outputs of 2·4 + 2 floats, 2 int64 and 8·16 bytes; six index numbers
    assert found.bytes_once == 8 * 48 * 4 + 32 * 64 * 3 + 10 * 4 + 2 * 8 + 128 + 6 * 8


def test_a_matrix_product_counted_by_hand() -> None:
    assert model_cost(single("MatMul", [(4, 6), (6, 5)]), batch=4).conv_flops == 2 * 4 * 6 * 5


# ---------------------------------------------------------------- benchmark


def test_cases_take_turns_and_warm_up_is_discarded(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = file.with_name("other.onnx")
    onnx.save(_contract(batch=2, precision="int8"), str(other))
    options = benchmark.BenchOptions((file, other), batch=(1, 3), threads=1, rounds=4, warmup=2, floor=False)
    result = benchmark.bench(options)
    assert [(Path(m.model).name, m.batch) for m in result.measurements] == [
        ("tiny.onnx", 1), ("tiny.onnx", 3), ("other.onnx", 2),
    ]  # fmt: skip
    for m in result.measurements:
        assert 0 < m.p50_ms <= m.p90_ms <= m.p99_ms and m.provider == "CPUExecutionProvider"
        assert m.images_per_s == pytest.approx(1e3 * m.batch / m.p50_ms)
        assert m.gflops * 1e9 > 98_304 * m.batch
    values = json.loads(json.dumps(benchmark.to_json(result)))
    assert values["measurements"][0]["floor_ms"] is None, "not measured is null, not zero"
    assert "tiny.onnx" in benchmark.text(result)


def test_the_command_writes_json_plot_and_profile(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(benchmark, "GEMM_SIDE", 64)
    monkeypatch.setattr(benchmark, "COPY_FLOATS", 4096)
    out, plot = tmp_path / "bench.json", tmp_path / "bench.png"
    call = [str(file), "--rounds", "3", "--warmup", "1", "--threads", "1", "--profile", "--json"]
    assert benchmark.main([*call, "--out", str(out), "--plot", str(plot)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert plot.read_bytes().startswith(b"\x89PNG")
    floor = printed["floors"]["cpu"]
    assert floor["gemm_gflops"] > 0 and floor["gemm_gflops_core"] > 0 and floor["memory_gbs"] > 0
    rows = printed["profiles"][str(file)]
    assert {"Conv", "Transpose"} <= {row["operator"] for row in rows}
    assert sum(row["share"] for row in rows) == pytest.approx(1, abs=0.01)
    assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)


def test_floor_is_the_longer_of_computing_and_moving() -> None:
    found = model_cost(_contract())
    floor = benchmark.Floor(gemm_gflops=1.0, gemm_gflops_core=1.0, memory_gbs=1e9)
    assert benchmark.floor_of(found, floor) == pytest.approx(98_304 / 1e6)
    slow_memory = benchmark.Floor(1e9, 1e9, 1.0)
    assert benchmark.floor_of(found, slow_memory) == pytest.approx(found.bytes_once / 1e6)


def _measured(precision: str, ms: float, gflops: float = 1.0) -> benchmark.Measurement:
    return benchmark.Measurement(
        f"{precision}.onnx", precision, (32, 64), "cpu", "", 1, ms, ms, ms, 1.0, ms, 1.0, 1.0, gflops, 1.0, 1.0
    )


def test_lower_precision_that_does_not_pay_is_said_so() -> None:
    lines = benchmark.slower_than_fp32([_measured("fp32", 10.0), _measured("int8", 13.0), _measured("fp16", 5.0)])
    assert lines[0].startswith("int8 is NOT faster than fp32 here") and "1.30 of the time" in lines[0]
    assert lines[1].startswith("fp16 is faster than fp32 here") and "0.50 of the time" in lines[1]


def test_a_file_is_compared_with_fp32_of_the_same_network() -> None:
    small, nano = _measured("fp32", 30.0, 6.7), _measured("fp32", 10.0, 1.94)
    (line,) = benchmark.slower_than_fp32([small, nano, _measured("int8", 6.0, 2.0)])
    assert "0.60 of the time" in line
    unknown = float("nan")
    assert len(benchmark.slower_than_fp32([_measured("fp32", 3.0, unknown), _measured("fp16", 2.0, unknown)])) == 1


def test_nonsense_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match="at least one round"):
        benchmark.main([str(file), "--rounds", "0"])
    with pytest.raises(UserError, match="no such model file"):
        benchmark.main([str(file.with_name("none.onnx"))])
    with pytest.raises(UserError, match="cuda-graph on the CPU"):
        benchmark.main([str(file), "--cuda-graph"])


def test_which_case_runs_where(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is asked of GPUs alone, and an engine runs on one whatever the devices of the others."""
    asked = []

    class Backend:
        provider = "fake"

        def run(self, inputs: dict) -> dict:
            return {}

    def load(path: Path, device: str, threads: int, cuda_graph: bool, precision: str) -> tuple[Backend, ModelSpec]:
        asked.append((path.suffix, device, cuda_graph, precision))
        return Backend(), SPEC

    engine = tmp_path / "x.engine"
    engine.write_bytes(b"plan")
    monkeypatch.setattr(benchmark, "load_model", load)
    options = benchmark.BenchOptions(
        (file, engine), ("cpu", "cuda", "openvino"), ("fp32", "bf16"), True, rounds=1, warmup=0, floor=False
    )
    result = benchmark.bench(options)
    assert asked == [
        (".onnx", "cpu", False, "fp32"), (".onnx", "cuda", True, "fp32"),
        (".onnx", "openvino", False, "fp32"), (".onnx", "openvino", False, "bf16"),
        (".engine", "tensorrt", True, "fp32"),
    ]  # fmt: skip
    assert [m.device for m in result.measurements] == ["cpu", "cuda", "openvino", "openvino bf16", "tensorrt"]
    assert result.measurements[4].gflops != result.measurements[4].gflops, "nobody counts inside an engine"


# ---------------------------------------------------------------- Triton


def test_a_triton_repository(file: Path, tmp_path: Path) -> None:
    target = write_repository(file, tmp_path / "models")
    assert target == tmp_path / "models/tiny-32x64"
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()) == [
        "1/model.onnx", "config.pbtxt", "perception.json",
    ]  # fmt: skip
    assert (target / "1/model.onnx").read_bytes() == file.read_bytes()
    assert json.loads((target / "perception.json").read_text())["class_names"][0] == "Car"
    assert (target / "config.pbtxt").read_text() == (
        'name: "tiny-32x64"\n'
        'platform: "onnxruntime_onnx"\n'
        "max_batch_size: 8\n"
        "input [\n"
        '  {\n    name: "images"\n    data_type: TYPE_UINT8\n    dims: [ 32, 64, 3 ]\n  }\n'
        "]\n"
        "output [\n"
        '  {\n    name: "boxes_xyxy"\n    data_type: TYPE_FP32\n    dims: [ 2, 4 ]\n  },\n'
        '  {\n    name: "scores"\n    data_type: TYPE_FP32\n    dims: [ 2 ]\n  },\n'
        '  {\n    name: "class_ids"\n    data_type: TYPE_INT64\n    dims: [ 2 ]\n  },\n'
        '  {\n    name: "road"\n    data_type: TYPE_UINT8\n    dims: [ 8, 16 ]\n  }\n'
        "]\n"
        "dynamic_batching {\n  max_queue_delay_microseconds: 2000\n}\n"
    )


def test_a_fixed_batch_is_part_of_tritons_dimensions() -> None:
    text = config_text(_contract(batch=4), "x", 8)
    assert "max_batch_size: 0" in text and "dims: [ 4, 32, 64, 3 ]" in text and "dynamic_batching" not in text
