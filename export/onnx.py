"""A checkpoint → one self-contained ONNX file that obeys the contract of the runtime."""

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
"""Old enough for TensorRT 10 and OpenVINO, new enough for everything in the graph."""
INPUT = "images"

__all__ = ["INPUT", "OPSET", "OUTPUTS", "OnnxConfig", "example_images", "export_onnx", "simplify", "write_model"]


@dataclass(frozen=True)
class OnnxConfig:
    """What the file is made for."""

    size_hw: tuple[int, int] = (384, 1248)
    """Height and width of the input, multiples of 32."""
    batch: int | None = None
    """Fixed number of images, None for any."""
    one_to_one: bool | None = None
    """Which head's boxes leave the graph: the one-to-one head, which needs no suppression, or the main head. None:
    the one-to-one head where it was trained."""


def export_onnx(network: Network, spec: ModelSpec, path: Path, config: OnnxConfig) -> onnx.ModelProto:
    """Export, simplify, describe, check and write a network.

    Args:
        network: weights to export.
        spec: what the file will say about itself.
        path: written whole or not at all.
        config: size and batch.

    Returns:
        The model as written.

    Raises:
        UserError: a size the network cannot take, a head that it lacks, or a file that cannot be written.
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
    # two images: a batch of one would let the exporter bake the one in
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
            dynamo=False,  # traces the batch through top-k and gather; the other exporter specialises it
            dynamic_axes=dynamic,
        )
        shapes = [output.shape[1:] for output in stripped(example)]
    model = onnx.load_from_string(buffer.getvalue())
    for value, shape in zip(model.graph.output, shapes, strict=True):  # the exporter loses count after a gather
        for dimension, side in zip(list(value.type.tensor_type.shape.dim)[1:], shape, strict=True):
            dimension.dim_value = side
    return model


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and remove what does nothing."""
    import onnxslim

    with _quiet():
        slim = onnxslim.slim(model)
    if not isinstance(slim, onnx.ModelProto):
        raise RuntimeError("onnxslim returned no model")
    return slim


def _name_batch(model: onnx.ModelProto, batch: int | None) -> None:
    """Call the batch dimension N in every input and output, or give its number."""
    for value in (*model.graph.input, *model.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        if batch is None:
            dimension.dim_param = "N"
        else:
            dimension.dim_value = batch


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_atomically(path, model.SerializeToString(), do="--out FILE.onnx")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters report their own internals at length; what concerns a user is checked by us."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def example_images(size_hw: tuple[int, int], batch: int, seed: int = 0) -> np.ndarray:
    """Random images (batch, H, W, 3) uint8, for checks that need no data."""
    return np.random.default_rng(seed).integers(0, 256, (batch, *size_hw, 3), np.uint8)
