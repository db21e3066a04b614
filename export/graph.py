"""Operations on ONNX graphs that fp16 and int8 share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from perception.errors import UserError, lfs_pointer
from perception.model import METADATA_KEY, ModelSpec, shipped_or


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read a model file. A bare name reads a shipped model.

    Raises:
        UserError: the file is missing or not an ONNX file.
    """
    if pointer := lfs_pointer(path):
        raise pointer
    do = "perception export CHECKPOINT"
    if not shipped_or(path).is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {found}", "a file of `perception export`", do)
    try:
        return onnx.load(str(shipped_or(path)))
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{path}: cannot be read as ONNX ({first})", "a file of `perception export`", do) from None


def read_spec(model: onnx.ModelProto, path: Path | str = "the model") -> ModelSpec:
    """Read the model's `ModelSpec` from its metadata.

    Args:
        model: model that `load_onnx` returned.
        path: file of the model, for messages.

    Raises:
        UserError: the model was not exported by this project.
    """
    return ModelSpec.from_metadata({p.key: p.value for p in model.metadata_props}, path)


def write_spec(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Replace the `ModelSpec` in the model's metadata."""
    others = {p.key: p.value for p in model.metadata_props if p.key != METADATA_KEY}
    onnx.helper.set_model_props(model, {**others, METADATA_KEY: spec.to_json()})


def between_convolutions(graph: onnx.GraphProto) -> list[bool]:
    """Return for each node whether it is a convolution or lies on a path between two convolutions.

    Only these nodes may use a lower precision. The others, which normalise pixels and decode boxes (softmax over
    bins, sigmoid, top-k, NMS), are sensitive to rounding and cheap.
    """
    nodes = list(graph.node)  # an ONNX graph is sorted: producers come first
    after: set[str] = set()
    has_before = []
    for node in nodes:
        is_conv = node.op_type == "Conv"
        has_before.append(is_conv or any(name in after for name in node.input))
        if has_before[-1]:
            after.update(node.output)
    leads: set[str] = set()
    has_after = [False] * len(nodes)
    for i in range(len(nodes) - 1, -1, -1):
        has_after[i] = nodes[i].op_type == "Conv" or any(name in leads for name in nodes[i].output)
        if has_after[i]:
            leads.update(nodes[i].input)
    return [b and a for b, a in zip(has_before, has_after, strict=True)]


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the ONNX element type of each tensor, where shape inference finds it."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def weights(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Return the values of each initialiser."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initialisers that no output needs."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(node.input)
    _replace(graph.node, kept[::-1])
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])


def _replace(field, values: list) -> None:
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)
