"""int8: ranges from calibration, layers that go back to fp32 exactly, a bad layer caught, the fewest blocks left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import numpy_helper  # noqa: E402

from export.graph import between_convolutions, load_onnx, read_spec, write_spec  # noqa: E402
from export.int8 import (  # noqa: E402
    ABSORBED,
    OPERATORS,
    QuantizeConfig,
    _fewest,
    _gates,
    _quantize_static,
    block_of,
    in_float,
    quantize,
    worst,
)
from export.onnx import write_model  # noqa: E402
from export.parity import (  # noqa: E402
    TOLERANCES,
    Candidate,
    Difference,
    ParityReport,
    compare,
    open_candidate,
)
from perception.cameras.letterbox import letterbox  # noqa: E402
from perception.errors import UserError  # noqa: E402

SIZE = (96, 160)
MINMAX = QuantizeConfig("minmax", runtime="onnxruntime")


@pytest.fixture(scope="module")
def model(fp32_file: Path) -> onnx.ModelProto:
    return load_onnx(fp32_file)


@pytest.fixture(scope="module")
def chosen(model: onnx.ModelProto) -> list[str]:
    rule = _gates(model.graph)
    inside = between_convolutions(model.graph)
    return [
        node.name
        for node, between in zip(model.graph.node, inside, strict=True)
        if between and node.op_type in (*OPERATORS, ABSORBED) and node.name not in rule
    ]


@pytest.fixture(scope="module")
def full(model: onnx.ModelProto, chosen: list[str], frames: list) -> onnx.ModelProto:
    images = [letterbox(frame.image_bgr, SIZE)[0] for frame in frames]
    return _quantize_static(model, images, chosen, MINMAX)


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch, full: onnx.ModelProto) -> None:
    """`quantize` takes the module's calibration instead of one of its own: what follows from it is tested here."""

    def known(model: onnx.ModelProto, images: list, chosen: list, config: QuantizeConfig) -> onnx.ModelProto:
        return onnx.ModelProto.FromString(full.SerializeToString())

    monkeypatch.setattr("export.int8._quantize_static", known)


def _candidate(model: onnx.ModelProto, path: Path, precision: str = "int8") -> Candidate:
    write_spec(model, replace(read_spec(model), precision=precision))
    write_model(model, path)
    return open_candidate(path, threads=1)


def test_weights_are_quantised_channel_by_channel(full: onnx.ModelProto, chosen: list[str]) -> None:
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in full.graph.initializer}
    made_by = {output: node for node in full.graph.node for output in node.output}
    checked = 0
    for node in full.graph.node:
        if node.op_type == "Conv" and node.name in chosen:
            weight = made_by[node.input[1]]
            assert weight.op_type == "DequantizeLinear"
            assert values[weight.input[0]].dtype == np.int8
            assert values[weight.input[1]].shape == (values[weight.input[0]].shape[0],)
            checked += 1
    assert checked > 50


def test_gates_ends_and_decode_are_never_quantised(full: onnx.ModelProto, model: onnx.ModelProto) -> None:
    gates = _gates(model.graph)
    assert sum("fc1" in name or "fc2" in name for name in gates) >= 18
    made_by = {output: node.op_type for node in full.graph.node for output in node.output}
    for node in full.graph.node:
        if node.name in gates or node.op_type in ("Softmax", "Sigmoid", "TopK", "MatMul", "Sub"):
            assert "DequantizeLinear" not in [made_by.get(name) for name in node.input], node.name


def test_all_layers_back_in_float_is_the_model_again(
    full: onnx.ModelProto, model: onnx.ModelProto, chosen: list[str], fp32_file: Path, frames: list, tmp_path: Path
) -> None:
    again = in_float(full, model, set(chosen))
    assert not [node for node in again.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    report = compare(open_candidate(fp32_file, threads=1), _candidate(again, tmp_path / "x.onnx"), frames, "fp32")
    assert report.passed, report.text()
    assert not compare(
        open_candidate(fp32_file, threads=1), _candidate(full, tmp_path / "y.onnx"), frames, "fp32"
    ).passed


def test_a_quantised_layer_gone_bad_is_caught(
    full: onnx.ModelProto, model: onnx.ModelProto, chosen: list[str], fp32_file: Path, frames: list, tmp_path: Path
) -> None:
    """One block in int8 passes; the same block with one wrong scale does not."""
    block = "neck/lateral.0"
    names = {name for name in chosen if block_of(name) == block}
    assert names
    one = in_float(full, model, set(chosen) - names)
    reference = open_candidate(fp32_file, threads=1)
    good = compare(reference, _candidate(one, tmp_path / "good.onnx"), frames)
    assert good.precision == "int8" and good.passed, good.text()
    made_by = {output: node for node in one.graph.node for output in node.output}
    conv = next(node for node in one.graph.node if node.op_type == "Conv" and node.name in names)
    scale_name = made_by[conv.input[1]].input[1]
    scale = next(tensor for tensor in one.graph.initializer if tensor.name == scale_name)
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(3), scale_name))
    bad = compare(reference, _candidate(one, tmp_path / "bad.onnx"), frames)
    assert not bad.passed, bad.text()
    assert worst(bad, TOLERANCES["int8"]) > 2 * worst(good, TOLERANCES["int8"])


@pytest.mark.usefixtures("calibrated")
def test_quantise_says_what_it_left_and_why(
    model: onnx.ModelProto, frames: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tolerance that the road head alone breaks; blocks as large as whole parts, so that the sweep is short."""

    def part(name: str) -> str:
        return "road head" if "segmentation" in name else "the rest"

    everything = replace(TOLERANCES["int8"], mean_score=1.0, alone=101.0, shift_px=1e3, mean_road_levels=1e-9)
    monkeypatch.setattr("export.int8.block_of", part)
    monkeypatch.setitem(TOLERANCES, "int8", everything)
    with pytest.raises(UserError, match="with any blocks in fp32"):
        quantize(model, frames[:2], frames[2:3], MINMAX)
    # between what the rest costs and what both cost
    said: list[str] = []
    monkeypatch.setitem(TOLERANCES, "int8", replace(everything, mean_road_levels=255.0))
    _, loose = quantize(model, frames[:2], frames[2:], MINMAX, said.append)
    assert loose.before is not None and not loose.blocks_in_fp32
    monkeypatch.setitem(
        TOLERANCES, "int8", replace(everything, mean_road_levels=0.999 * loose.before.road_levels.mean)
    )
    result, report = quantize(model, frames[:2], frames[2:], MINMAX, said.append)
    assert [name for name, _ in report.blocks_in_fp32] in (["road head"], ["the rest"])
    assert report.after is not None and report.after.road_levels.mean < loose.before.road_levels.mean
    assert report.quantised < loose.quantised and read_spec(result).precision == "int8"
    assert dict(report.tried)["road head"] > 0 and report.tried[0][0] == report.blocks_in_fp32[0][0]
    assert "left in fp32" in report.text() and "all blocks in int8" in report.text()
    assert any("block 2 of 2" in line for line in said) and any("1 of 2 blocks in fp32" in line for line in said)


@pytest.mark.usefixtures("calibrated")
def test_a_loose_budget_quantises_everything(model: onnx.ModelProto, frames: list, monkeypatch) -> None:
    loose = replace(TOLERANCES["int8"], mean_score=1.0, mean_road_levels=255.0, alone=100.0, shift_px=100.0)
    monkeypatch.setitem(TOLERANCES, "int8", loose)
    result, report = quantize(model, frames[:2], frames[2:], replace(MINMAX, budget=100.0))
    assert not report.blocks_in_fp32 and report.quantised > 50
    assert report.quantised + len(report.by_rule) == report.convolutions
    assert len(result.SerializeToString()) < 0.75 * len(model.SerializeToString())
    with pytest.raises(UserError, match="an fp32 model to quantise"):
        quantize(result, frames, frames)
    with pytest.raises(UserError, match="no calibration frames"):
        quantize(model, [], frames)


def _two_convolutions() -> onnx.ModelProto:
    """(N, 8, 8, 1) bytes → conv → ReLU → conv, all weights one: ranges follow from the pictures alone."""
    value, one = onnx.helper.make_tensor_value_info, np.ones((1, 1, 1, 1), np.float32)
    nodes = [
        onnx.helper.make_node("Cast", ["images"], ["float"], "cast", to=1),
        onnx.helper.make_node("Transpose", ["float"], ["x"], "turn", perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Conv", ["x", "w1"], ["a"], "first"),
        onnx.helper.make_node("Relu", ["a"], ["b"], "relu"),
        onnx.helper.make_node("Conv", ["b", "w2"], ["y"], "last"),
    ]
    tensors = [numpy_helper.from_array(one, "w1"), numpy_helper.from_array(one, "w2")]
    ends = [value("images", onnx.TensorProto.UINT8, ("N", 8, 8, 1))], [value("y", 1, ("N", 1, 8, 8))]
    graph = onnx.helper.make_graph(nodes, "two", *ends, tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("symmetric", [False, True])
def test_each_method_finds_its_own_range(symmetric: bool) -> None:
    """Pictures of 0 to 99 with one pixel of 200: minmax keeps it, 99 per cent of the values do not."""
    images = [np.random.default_rng(i).integers(0, 100, (8, 8, 1)).astype(np.uint8) for i in range(4)]
    images[0][0, 0] = 200
    ranges: dict[str, float] = {}
    for method in ("minmax", "entropy", "percentile"):
        config = QuantizeConfig(method, 99.0, symmetric, runtime="onnxruntime")  # type: ignore[arg-type]
        done = _quantize_static(_two_convolutions(), images, ["first", "relu", "last"], config)
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in done.graph.initializer}
        maker = {output: node for node in done.graph.node for output in node.output}
        last = next(node for node in done.graph.node if node.name == "last")
        into = maker[last.input[0]]
        assert into.op_type == "DequantizeLinear"
        zero = values[into.input[2]]
        assert zero.dtype == (np.int8 if symmetric else np.uint8) and (not symmetric or zero == 0)
        ranges[method] = float(values[into.input[1]]) * (127 if symmetric else 255)
    assert ranges["minmax"] == pytest.approx(200, rel=0.02)
    assert ranges["percentile"] < 120 < ranges["entropy"] <= ranges["minmax"] * 1.001


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 8, 9])
def test_bisection_leaves_the_fewest_blocks(needed: int) -> None:
    """Ten blocks, of which the `needed` costliest must stay in fp32."""
    alone = [(f"block{i}", 10.0 - i) for i in range(10)]
    tried = []

    def loss(names: set[str]) -> ParityReport:
        tried.append(len(names))
        report = ParityReport("a", "b", "", "int8", score=Difference())
        report.score.add(np.array([0.0 if len(names) >= needed else 1.0]))
        return report

    left, report = _fewest(alone, loss, TOLERANCES["int8"], lambda text: None)
    assert [name for name, _ in left] == [f"block{i}" for i in range(needed)]
    assert report.score.mean == 0.0 and len(tried) <= 8


def test_bisection_gives_up_in_a_sentence() -> None:
    def loss(names: set[str]) -> ParityReport:
        report = ParityReport("a", "b", "", "int8")
        report.score.add(np.array([1.0]))
        return report

    with pytest.raises(UserError, match="with any blocks in fp32"):
        _fewest([("x", 2.0), ("y", 1.0)], loss, TOLERANCES["int8"], lambda text: None)


@pytest.mark.parametrize(
    ("node", "block"),
    [
        ("/backbone/stages.1/stages.1.0/block/block.0/block.0.0/Conv", "backbone/stages.1.0"),
        ("/neck/lateral.0/lateral.0.0/Conv", "neck/lateral.0"),
        ("/box_branch_2/box_branch.3/Conv", "box_branch"),
        ("/class_out/Conv", "class_out"),
        ("/segmentation/mix8/mix8.0/Conv", "segmentation/mix8.0"),
    ],
)
def test_blocks_have_names_that_people_know(node: str, block: str) -> None:
    assert block_of(node) == block
