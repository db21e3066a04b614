"""A model file with its weights shuffled: what a saliency map must not survive (Adebayo et al. 2018)."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from perception.backends import Model, load_model
from perception.model import shipped_or


def shuffled_model(path: Path, seed: int = 0, threads: int = 0) -> Model | None:
    """Load a model file with the numbers of each weight tensor in random order; None for what is not ONNX.

    Shapes, graph and description stay, so whatever of a map remains comes from the image and the method, not from
    what the network has learnt.
    """
    path = shipped_or(path)
    if path.suffix != ".onnx" or find_spec("onnx") is None:
        return None
    import onnx
    from onnx import numpy_helper

    model, rng = onnx.load(str(path)), np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if len(tensor.dims) >= 2 and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            values = numpy_helper.to_array(tensor)
            mixed = rng.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(mixed, tensor.name))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "shuffled.onnx"
        onnx.save(model, str(file))
        return load_model(file, "cpu", threads)
