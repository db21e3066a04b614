"""Export a network as one self-contained ONNX file that follows the runtime's contract."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

from export.stripped import StrippedNetwork
from perception.files import write_atomically
from perception.model import METADATA_KEY, ModelSpec
from training.models.network import OUTPUTS, Network

OPSET = 18
"""Opset that TensorRT 10 and OpenVINO support and that has all operators of the graph."""
INPUT = "images"

__all__ = ["INPUT", "OPSET", "OUTPUTS", "OnnxConfig", "example_images", "export_onnx", "simplify", "write_model"]


@dataclass(frozen=True)
class OnnxConfig:
    """Input and outputs of the file."""

    size_hw: tuple[int, int] = (384, 1248)
    """Height and width of the input, multiples of 32."""
    batch: int | None = None
    """Fixed batch size; None: dynamic."""
    one_to_one: bool | None = None
    """Head whose boxes the graph outputs: the one-to-one head, which needs no NMS, or the one-to-many head. None: the
    one-to-one head where it was trained."""


def export_onnx(network: Network, spec: ModelSpec, path: Path, config: OnnxConfig) -> onnx.ModelProto:
    """Export a network: trace, simplify, add metadata, check, and write the file.

    Args:
        network: network to export.
        spec: metadata of the file.
        path: file, written atomically.
        config: size, batch and head.

    Returns:
        The model as written.

    Raises:
        UserError: the network does not support the size or lacks the head, or the file cannot be written.
    """
    network.config.check_size(config.size_hw)
    for head in network.deployed_heads(config.one_to_one):
        spec = replace(spec, **head.described)
    model = simplify(_trace(network, config))
    _name_batch(model, config.batch)
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    model.producer_name, model.doc_string = "perception", ""
    onnx.checker.check_model(model, full_check=True)
    write_model(model, path)
    return model


def _trace(network: Network, config: OnnxConfig) -> onnx.ModelProto:
    stripped = StrippedNetwork(network, config.size_hw, config.one_to_one).eval()
    # two images, because the exporter would treat a batch of one as a constant
    example = torch.zeros((config.batch or 2, *config.size_hw, 3), dtype=torch.uint8)
    outputs = network.output_names
    dynamic = None if config.batch else {name: {0: "N"} for name in (INPUT, *outputs)}
    buffer = io.BytesIO()
    with _quiet(), torch.inference_mode():
        torch.onnx.export(
            stripped,
            (example,),
            buffer,
            input_names=[INPUT],
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=False,  # keeps the batch dynamic through top-k and gather; the dynamo exporter specialises it
            dynamic_axes=dynamic,
        )
        shapes = [output.shape[1:] for output in stripped(example)]
    model = onnx.load_from_string(buffer.getvalue())
    for value, shape in zip(model.graph.output, shapes, strict=True):  # the exporter loses shapes after a gather
        for dimension, side in zip(list(value.type.tensor_type.shape.dim)[1:], shape, strict=True):
            dimension.dim_value = side
    return model


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and remove redundant nodes."""
    import onnxslim

    with _quiet():
        slim = onnxslim.slim(model)
    if not isinstance(slim, onnx.ModelProto):
        raise RuntimeError("onnxslim returned no model")
    return slim


def _name_batch(model: onnx.ModelProto, batch: int | None) -> None:
    """Set the batch dimension of every input and output to N, or to a fixed number."""
    for value in (*model.graph.input, *model.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        if batch is None:
            dimension.dim_param = "N"
        else:
            dimension.dim_value = batch


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model file atomically.

    Raises:
        UserError: the file cannot be written.
    """
    write_atomically(path, model.SerializeToString(), do="--out FILE.onnx")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, whose messages concern its internals. `export_onnx` checks the result."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def example_images(size_hw: tuple[int, int], batch: int, seed: int = 0) -> np.ndarray:
    """Return random images (batch, H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (batch, *size_hw, 3), np.uint8)
