"""Write a model repository for NVIDIA's Triton Inference Server: a folder with `config.pbtxt` and `1/model.onnx`.

Source of the layout and field names: Triton's documentation, "Model Repository" and "Model Configuration".
"""

from __future__ import annotations

from pathlib import Path

import onnx

from export.graph import load_onnx, read_spec
from perception.files import write_atomically

_TYPES = {
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.INT64: "TYPE_INT64",
}
VERSION = "1"


def write_repository(onnx_path: Path, folder: Path, name: str = "", largest_batch: int = 8) -> Path:
    """Add a model file to a repository.

    Args:
        onnx_path: file of `perception export`.
        folder: repository for `tritonserver --model-repository`; created when missing.
        name: name of the model in the repository (default: the name in the file's metadata).
        largest_batch: `max_batch_size` of a model with a dynamic batch.

    Returns:
        The model's folder.

    Raises:
        UserError: the folder cannot be written.
    """
    model = load_onnx(onnx_path)
    spec = read_spec(model, onnx_path)
    name = name or spec.name or onnx_path.stem
    target = folder / name
    write_atomically(target / VERSION / "model.onnx", onnx_path.read_bytes(), do="--out FOLDER")
    write_atomically(target / "config.pbtxt", config_text(model, name, largest_batch), do="--out FOLDER")
    # the metadata of the ONNX file, for clients that can only reach the server
    write_atomically(target / "perception.json", spec.to_json(), do="--out FOLDER")
    return target


def config_text(model: onnx.ModelProto, name: str, largest_batch: int) -> str:
    """Return the `config.pbtxt` of a model. A fixed batch is part of the dimensions; Triton chooses a dynamic one."""
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    dynamic = not first.dim_value
    lines = [
        f'name: "{name}"',
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {largest_batch if dynamic else 0}",
    ]
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        blocks = [_tensor(value, dynamic) for value in values]
        lines += [f"{kind} [", ",\n".join(blocks), "]"]
    if dynamic:
        lines += ["dynamic_batching {", "  max_queue_delay_microseconds: 2000", "}"]
    return "\n".join(lines) + "\n"


def _tensor(value: onnx.ValueInfoProto, dynamic: bool) -> str:
    tensor = value.type.tensor_type
    dims = [d.dim_value or -1 for d in tensor.shape.dim][1 if dynamic else 0 :]
    return (
        "  {\n"
        f'    name: "{value.name}"\n'
        f"    data_type: {_TYPES[tensor.elem_type]}\n"
        f"    dims: [ {', '.join(map(str, dims))} ]\n"
        "  }"
    )
