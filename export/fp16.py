"""Convert a model to fp16: nodes between the first and the last convolutions compute in fp16, the others in fp32.

The types are part of the graph (strong typing, as TensorRT 11 requires), so every runtime uses the same precision.
Inputs and outputs keep their types.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph import between_convolutions, element_types, read_spec, weights, write_spec

LARGEST = float(np.finfo(np.float16).max)
_FLOAT_ONLY = {"Resize": (1, 2)}
"""Inputs that are fp32 for any data type: Resize's region and scales."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose convolutions, and the nodes between them, compute in fp16.

    A node with a weight outside fp16's range stays in fp32.
    """
    half = onnx.ModelProto.FromString(model.SerializeToString())
    graph, types, values = half.graph, element_types(model), weights(model.graph)
    chosen = [
        between and not any(_too_large(values.get(name)) for name in node.input)
        for node, between in zip(graph.node, between_convolutions(graph), strict=True)
    ]
    _take_activations(graph, chosen)
    made_half = {
        name
        for node, is_half in zip(graph.node, chosen, strict=True)
        if is_half
        for name in node.output
        if types.get(name) == TensorProto.FLOAT
    }
    nodes: list[onnx.NodeProto] = []
    extra: dict[str, onnx.TensorProto] = {}
    cast_to: dict[tuple[str, int], str] = {}

    def cast(name: str, to: int) -> str:
        """Return the tensor's name in the other type; its Cast node is added at the first call."""
        if (name, to) not in cast_to:
            cast_to[name, to] = f"{name}_{'half' if to == TensorProto.FLOAT16 else 'float'}"
            nodes.append(helper.make_node("Cast", [name], [cast_to[name, to]], cast_to[name, to], to=to))
        return cast_to[name, to]

    for node, is_half in zip(graph.node, chosen, strict=True):
        for k, name in enumerate(node.input):
            if types.get(name) != TensorProto.FLOAT:
                continue
            wants_half = is_half and k not in _FLOAT_ONLY.get(node.op_type, ())
            if name in values:
                if wants_half:
                    node.input[k] = f"{name}_half"
                    extra.setdefault(name, numpy_helper.from_array(values[name].astype(np.float16), f"{name}_half"))
            elif wants_half and name not in made_half:
                node.input[k] = cast(name, TensorProto.FLOAT16)
            elif not wants_half and name in made_half:
                node.input[k] = cast(name, TensorProto.FLOAT)
        if is_half and node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used] + list(extra.values())
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    write_spec(half, replace(read_spec(model), precision="fp16"))
    onnx.checker.check_model(half, full_check=True)
    return half


def _take_activations(graph: onnx.GraphProto, chosen: list[bool]) -> None:
    """Add each ReLU that follows an fp16 convolution, because runtimes fuse the two."""
    made = {name for node, is_half in zip(graph.node, chosen, strict=True) if is_half for name in node.output}
    for i, node in enumerate(graph.node):
        if node.op_type == "Relu" and node.input[0] in made:
            chosen[i] = True


def _too_large(values: np.ndarray | None) -> bool:
    return values is not None and values.dtype == np.float32 and values.size > 0 and np.abs(values).max() > LARGEST
