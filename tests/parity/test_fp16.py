"""fp16 by rule: half between the convolutions, fp32 around them, the same types outside, nearly the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from export.fp16 import to_fp16  # noqa: E402
from export.graph import between_convolutions, element_types, load_onnx, read_spec, write_spec  # noqa: E402
from export.onnx import write_model  # noqa: E402
from export.parity import compare, open_candidate  # noqa: E402
from perception.errors import UserError  # noqa: E402
from perception.model import ModelSpec  # noqa: E402


@pytest.fixture(scope="module")
def half(fp32_file: Path) -> onnx.ModelProto:
    return to_fp16(load_onnx(fp32_file))


def test_inputs_and_outputs_keep_their_types(half: onnx.ModelProto) -> None:
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*half.graph.input, *half.graph.output)}
    assert kinds == {
        "images": TensorProto.UINT8,
        "boxes_xyxy": TensorProto.FLOAT,
        "scores": TensorProto.FLOAT,
        "class_ids": TensorProto.INT64,
        "road": TensorProto.UINT8,
    }
    assert read_spec(half).precision == "fp16"


def test_every_convolution_is_half_and_nothing_delicate_is(half: onnx.ModelProto) -> None:
    types = element_types(half)
    delicate = {"Softmax", "Sigmoid", "TopK", "ReduceSum", "Sub", "Div", "MatMul"}
    seen = set()
    for node in half.graph.node:
        kind = types.get(node.output[0])
        if node.op_type == "Conv":
            assert {types[name] for name in node.input} == {TensorProto.FLOAT16}, node.name
            assert kind == TensorProto.FLOAT16
        if node.op_type in delicate:
            seen.add(node.op_type)
            assert kind != TensorProto.FLOAT16, f"{node.op_type} {node.name}"
    assert {"Softmax", "Sigmoid", "TopK", "Sub"} <= seen


def test_half_answers_nearly_the_same(checkpoint: Path, half: onnx.ModelProto, frames: list, tmp_path: Path) -> None:
    write_model(half, tmp_path / "half.onnx")
    a, b = open_candidate(checkpoint, (96, 160), threads=1), open_candidate(tmp_path / "half.onnx", threads=1)
    report = compare(a, b, frames)
    assert report.precision == "fp16" and report.passed, report.text()
    assert report.score.largest > 1e-6, "it must really be half precision"
    assert not compare(a, b, frames, "fp32").passed


def test_the_file_is_about_half_as_large(fp32_file: Path, half: onnx.ModelProto) -> None:
    assert len(half.SerializeToString()) < 0.65 * fp32_file.stat().st_size


def _tiny(largest_weight: float) -> onnx.ModelProto:
    """images → conv → relu → conv → sigmoid."""
    value = helper.make_tensor_value_info
    weights = np.full((1, 1, 1, 1), 0.5, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], "last"),
        helper.make_node("Sigmoid", ["c"], ["y"], "end"),
    ]
    tensors = [numpy_helper.from_array(weights, "w1"), numpy_helper.from_array(weights * 2 * largest_weight, "w2")]
    shape = (1, 1, 2, 2)
    graph = helper.make_graph(nodes, "tiny", [value("x", 1, shape)], [value("y", 1, shape)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    write_spec(model, ModelSpec(("Car",), (32, 32)))
    return model


def test_the_rule_on_a_graph_that_fits_the_head() -> None:
    model = _tiny(1.0)
    assert between_convolutions(model.graph) == [True, True, True, False]
    kinds = [node.op_type for node in to_fp16(model).graph.node]
    assert kinds == ["Cast", "Conv", "Relu", "Conv", "Cast", "Sigmoid"]


def test_a_weight_beyond_half_stays_in_fp32() -> None:
    half = to_fp16(_tiny(1e5))
    types = element_types(half)
    by_name = {node.name: node for node in half.graph.node}
    assert types[by_name["first"].output[0]] == TensorProto.FLOAT16
    assert types[by_name["last"].output[0]] == TensorProto.FLOAT


def test_a_file_that_is_no_model_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot be read as ONNX"):
        load_onnx(tmp_path / "x.onnx")
