"""What runs a network: one file each, named arrays in, named arrays out. Boxes are read in `perception.detector`."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from perception.devices import Device, Precision, is_openvino
from perception.errors import UserError, lfs_pointer
from perception.model import ModelSpec, check_tensors, shipped_or

log = logging.getLogger("perception.backends")

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


def load_model(
    path: Path | str,
    device: Device = "auto",
    threads: int = 0,
    cuda_graph: bool = False,
    precision: Precision = "fp32",
) -> Model:
    """Load a model file: `.onnx` with ONNX Runtime or OpenVINO, `.engine` with TensorRT.

    `auto` takes an NVIDIA GPU that works; else OpenVINO, where `openvino_suits` or an int8 file is for it; else ONNX
    Runtime on the CPU.

    Args:
        path: a file that `perception export` wrote, or the bare name of a shipped one.
        device: one of `Device`. Anything but auto is used or refused, never replaced.
        threads: CPU threads for one operator, 0 for one a core.
        cuda_graph: ONNX Runtime on a GPU: capture the kernels of each batch size once and replay them. An engine does
            so anyway.
        precision: arithmetic of OpenVINO. It is never lowered unless asked for; other engines compute as the file
            says, and take fp32 alone here.

    Raises:
        UserError: missing or broken file, one that breaks the contract, a number of threads that cannot be meant, or
            the device or the precision cannot be used.
    """
    path = shipped_or(Path(path))
    most = max(MOST_THREADS, os.cpu_count() or 1)
    if not 0 <= threads <= most:
        raise UserError(f"--threads {threads}", f"0 for one a core, or 1 to {most}", "--threads 2")
    if pointer := lfs_pointer(path):
        raise pointer
    if path.suffix == ".engine":
        from perception.backends.tensorrt import TensorRTBackend

        if device == "cpu" or is_openvino(device):
            where = "the CPU" if device == "cpu" else device
            do = "--device auto, or an .onnx file"
            raise UserError(f"{path} on {where}", "an NVIDIA GPU: it is a TensorRT engine", do)
        _only_openvino_computes(precision, "TensorRT")
        return checked(TensorRTBackend(path), path)
    if path.suffix != ".onnx" and path.exists():
        raise UserError(f"{path}: not a model file", "an .onnx or .engine file", "perception export CHECKPOINT")
    if is_openvino(device):
        return _load_openvino(path, device, threads, precision)
    if device == "auto":
        return _load_best(path, threads, cuda_graph, precision)
    _only_openvino_computes(precision, f"--device {device}")
    from perception.backends.onnxruntime import OnnxRuntimeBackend

    return _with_int8_told(checked(OnnxRuntimeBackend(path, device, threads, cuda_graph), path), path)


def _with_int8_told(model: Model, path: Path) -> Model:
    """Warn where ONNX Runtime computes in fp32 what is int8 for OpenVINO."""
    if getattr(model.backend, "int8_in_float", False):
        log.warning("%s: ONNX Runtime computes this int8 file in fp32; --device openvino computes it in int8", path)
    return model


def _load_best(path: Path, threads: int, cuda_graph: bool, precision: Precision) -> Model:
    """What `--device auto` takes, see `load_model`."""
    from perception.backends.onnxruntime import OnnxRuntimeBackend, gpu_may_work

    if precision != "fp32":  # only OpenVINO can
        return _load_openvino(path, "openvino", threads, precision)
    with_gpu = checked(OnnxRuntimeBackend(path, "auto", threads, cuda_graph), path) if gpu_may_work() else None
    if with_gpu is not None and with_gpu.backend.provider != "CPUExecutionProvider":
        return with_gpu
    if path.is_file() and openvino_suits():
        try:
            return _load_openvino(path, "openvino", threads, precision)
        except UserError as error:
            log.warning("%s, so ONNX Runtime runs it", error.found)
    model = with_gpu or checked(OnnxRuntimeBackend(path, "cpu", threads), path)
    if getattr(model.backend, "int8_in_float", False) and importlib.util.find_spec("openvino") is not None:
        return _load_openvino(path, "openvino", threads, precision)
    return _with_int8_told(model, path)


def _load_openvino(path: Path, device: Device, threads: int, precision: Precision) -> Model:
    from perception.backends.openvino import OpenVinoBackend

    backend = OpenVinoBackend(path, device, threads, precision)
    model = checked(backend, path)  # a broken file must not be compiled
    backend.compile()
    return model


def openvino_suits() -> bool:
    """Whether `--device auto` takes OpenVINO: it is installed, and the processor computes BF16 (AVX-512 or AMX).

    On those it was at least as fast as ONNX Runtime in fp32 too; on processors with AVX2 alone it was slower.
    """
    if importlib.util.find_spec("openvino") is None or not _may_have_avx512():
        return False
    from perception.backends.openvino import capabilities

    try:
        return "BF16" in capabilities("CPU")
    except UserError:  # installed, and does not load
        return False


def _may_have_avx512(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether it is worth asking OpenVINO, whose import costs a third of the start of a run."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:  # not Linux
        return True
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not flags or " avx512" in flags


def _only_openvino_computes(precision: Precision, engine: str) -> None:
    if precision != "fp32":
        raise UserError(
            f"--precision {precision} with {engine}, which computes in the precision of the file",
            "OpenVINO, or a file of that precision",
            f"--device openvino --precision {precision}   (or perception export --precision fp16)",
        )


def checked(backend: FileBackend, path: Path) -> Model:
    """Pair a backend with its description, once both agree with the contract.

    Raises:
        UserError: they do not.
    """
    spec = ModelSpec.from_metadata(backend.metadata, path)
    check_tensors(path, spec, backend.inputs, backend.outputs, backend.types)
    return Model(backend, spec)
