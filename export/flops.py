"""Count the floating-point operations and bytes of an ONNX graph, by operator."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SIZES = {
    TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.UINT8: 1, TensorProto.INT8: 1, TensorProto.INT32: 4,
    TensorProto.INT64: 8, TensorProto.BOOL: 1, TensorProto.BFLOAT16: 2, TensorProto.DOUBLE: 8,
}  # fmt: skip
_FREE = {"Constant", "Shape", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
"""Operators without cost: they only rename a buffer."""


@dataclass(frozen=True)
class ModelCost:
    """Operations and bytes of one run with a given batch."""

    flops: int
    """Operations: two per multiply-add of convolutions and matrix products, one per output element of the others."""
    conv_flops: int
    """Operations of convolutions and matrix products."""
    bytes_moved: int
    """Bytes of all inputs and outputs of all operators: the memory traffic without fusion."""
    bytes_once: int
    """Bytes of weights, model inputs and model outputs: the least memory traffic."""
    weights: int
    """Number of stored values: parameters and the points of the grid."""
    by_operator: dict[str, int]
    """Operations by operator type, largest first."""


def model_cost(model: onnx.ModelProto, batch: int = 1) -> ModelCost:
    """Count the operations and bytes of a model.

    Args:
        model: ONNX model whose shapes depend only on its batch.
        batch: number of images.

    Raises:
        ValueError: the shape of a convolution cannot be inferred.
    """
    model = with_batch(model, batch)
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, tuple[int, ...]] = {}
    types: dict[str, int] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        types[value.name] = tensor.elem_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    for weight in graph.initializer:
        shapes[weight.name], types[weight.name] = tuple(weight.dims), weight.data_type

    def size(name: str) -> int:
        return prod(shapes.get(name, (0,))) * _SIZES.get(types.get(name, 0), 4) if name else 0

    flops: dict[str, int] = defaultdict(int)
    moved = 0
    for node in graph.node:
        if node.op_type in _FREE:
            continue
        flops[node.op_type] += _flops(node, shapes)
        moved += sum(map(size, (*node.input, *node.output)))
    ends = sum(size(value.name) for value in (*graph.input, *graph.output))
    return ModelCost(
        flops=sum(flops.values()),
        conv_flops=sum(flops[name] for name in ("Conv", "MatMul", "Gemm")),
        bytes_moved=moved,
        bytes_once=ends + sum(size(weight.name) for weight in graph.initializer),
        weights=sum(prod(w.dims) for w in graph.initializer if w.data_type in (1, 3, 10)),
        by_operator={k: v for k, v in sorted(flops.items(), key=lambda item: -item[1]) if v},
    )


def _flops(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    out = shapes.get(node.output[0])
    if node.op_type == "Conv":
        weight = shapes.get(node.input[1])
        if out is None or weight is None:
            raise ValueError(f"{node.name}: the shape of a convolution cannot be inferred")
        return 2 * prod(out) * prod(weight[1:])  # weight (O, I/groups, kh, kw)
    if out is None:
        return 0
    if node.op_type in ("MatMul", "Gemm"):
        left = shapes.get(node.input[0])
        return 2 * prod(out) * left[-1] if left else 0
    return prod(out)


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy with that number of images."""
    fixed = onnx.ModelProto.FromString(model.SerializeToString())
    for value in (*fixed.graph.input, *fixed.graph.output):
        if dims := value.type.tensor_type.shape.dim:  # a single number has none
            dims[0].dim_value = batch
    del fixed.graph.value_info[:]
    return fixed


def single(operator: str, shapes: list[tuple[int, ...]], seed: int = 0) -> onnx.ModelProto:
    """A model of one operator; the last shape belongs to a constant. For measuring what a machine can do."""
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, s) for i, s in enumerate(shapes[:-1])]
    values = np.random.default_rng(seed).random(shapes[-1], np.float32)
    node = helper.make_node(operator, [*(value.name for value in inputs), "c"], ["y"])
    # the shortest of outputs, so that copying it away costs nothing
    last = helper.make_node("ReduceMax", ["y"], ["z"], keepdims=0)
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, ())
    graph = helper.make_graph([node, last], operator, inputs, [output], [numpy_helper.from_array(values, "c")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
