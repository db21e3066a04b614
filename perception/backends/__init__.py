"""What runs a network: one file each, named arrays in, named arrays out. Boxes are read in `perception.detector`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from perception.errors import UserError, lfs_pointer
from perception.model import ModelSpec, check_tensors, shipped_or

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
MOST_THREADS = 256
"""Most CPU threads for one operator, where the machine has fewer cores: more slow inference and delay shutdown."""


class Backend(Protocol):
    """What `Detector` needs of a backend."""

    @property
    def inputs(self) -> Mapping[str, tuple[Any, ...]]:
        """Name → shape; a dimension that is not a number may vary."""

    @property
    def outputs(self) -> Mapping[str, tuple[Any, ...]]:
        """As `inputs`."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What `ModelSpec.from_metadata` reads."""

    @property
    def provider(self) -> str:
        """What runs the network, for people: `CPUExecutionProvider`, `TensorRT`."""

    @property
    def max_batch(self) -> int | None:
        """Most images in one run; None where there is no limit."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch; the arrays returned are the caller's and are not written to again."""


class FileBackend(Backend, Protocol):
    """A backend that was loaded from a file."""

    @property
    def types(self) -> Mapping[str, str]:
        """Input or output → numpy's name of its type."""


class Model(NamedTuple):
    """A network ready to run, and its own description of itself."""

    backend: Backend
    spec: ModelSpec


def load_model(path: Path | str, device: Device = "auto", threads: int = 0, cuda_graph: bool = False) -> Model:
    """Load a model file: `.onnx` with ONNX Runtime, `.engine` with TensorRT.

    Args:
        path: a file that `perception export` wrote, or the bare name of a shipped one.
        device: auto, cpu, cuda or tensorrt. Anything but auto is used or refused, never replaced.
        threads: CPU threads for one operator, 0 for one a core.
        cuda_graph: ONNX Runtime on a GPU: capture the kernels of each batch size once and replay them. An engine does
            so anyway.

    Raises:
        UserError: missing or broken file, one that breaks the contract, a number of threads that cannot be meant, or
            the device cannot be used.
    """
    path = shipped_or(Path(path))
    most = max(MOST_THREADS, os.cpu_count() or 1)
    if not 0 <= threads <= most:
        raise UserError(f"--threads {threads}", f"0 for one a core, or 1 to {most}", "--threads 2")
    if pointer := lfs_pointer(path):
        raise pointer
    if path.suffix == ".engine":
        from perception.backends.tensorrt import TensorRTBackend

        if device == "cpu":
            raise UserError(f"{path} on the CPU", "a GPU: it is a TensorRT engine", "--device auto, or an .onnx file")
        return checked(TensorRTBackend(path), path)
    if path.suffix == ".onnx" or not path.exists():
        from perception.backends.onnxruntime import OnnxRuntimeBackend

        return checked(OnnxRuntimeBackend(path, device, threads, cuda_graph), path)
    raise UserError(f"{path}: not a model file", "an .onnx or .engine file", "perception export CHECKPOINT")


def checked(backend: FileBackend, path: Path) -> Model:
    """Pair a backend with its description, once both agree with the contract.

    Raises:
        UserError: they do not.
    """
    spec = ModelSpec.from_metadata(backend.metadata, path)
    check_tensors(path, spec, backend.inputs, backend.outputs, backend.types)
    return Model(backend, spec)
