"""ONNX Runtime as a backend."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from perception.devices import Device
from perception.errors import UserError

log = logging.getLogger("perception.backends.onnxruntime")

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}


_OPTIONS = {
    # fp32 is fp32: by default products round their factors to ten bits on GPUs from Ampere on
    "CUDAExecutionProvider": {"use_tf32": "0"},
}
_CUDA_GRAPH = {
    "CUDAExecutionProvider": {"enable_cuda_graph": "1"},
    "TensorrtExecutionProvider": {"trt_cuda_graph_enable": "True"},  # this provider takes no "1"
}
_NO_INT8 = "session.disable_quant_qdq"
NO_CUDNN = "Failed to load cuDNN"
_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
}


def provider_options(device: str, cuda_graph: bool) -> list[tuple[str, dict[str, str]]]:
    """Execution providers of a device, best first, each with its options.

    Only the first captures a graph: nodes left to the others cannot be part of one.
    """
    names = _PROVIDERS[device]
    graph = _CUDA_GRAPH.get(names[0], {}) if cuda_graph else {}
    return [(name, {**_OPTIONS.get(name, {}), **(graph if name == names[0] else {})}) for name in names]


def _session(
    path: Path, device: str, threads: int, cuda_graph: bool = False, fuse_int8: bool = True
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # the check below replaces its warnings about providers
    options.intra_op_num_threads = threads
    if not fuse_int8:
        options.add_session_config_entry(_NO_INT8, "1")
    # spinning threads steal the cores that decode the next frame: measured twofold slower with a second thread pool
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # its fallback would continue on the CPU, now or at a run that fails, and report it on stdout only
    return ort.InferenceSession(str(path), options, providers=provider_options(device, cuda_graph), enable_fallback=0)


def load_gpu_libraries(device: str) -> str:
    """Load the GPU libraries that Python packages install: the system's loader does not look there.

    CUDA and cuDNN are in `nvidia-…` packages (torch brings most of them, `onnxruntime-gpu[cuda,cudnn]` all), TensorRT
    in its own. Without this call they are found only where another package, such as torch, has loaded them.

    Returns:
        What is missing, in ONNX Runtime's words; empty if nothing is.
    """
    if device == "tensorrt":
        # fp32 is fp32 here too: this provider has no option for it (microsoft/onnxruntime#26029)
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints its complaints
        ort.preload_dlls()
    if device == "tensorrt":
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("tensorrt")
    failed = [line for line in said.getvalue().splitlines() if line.startswith("Failed")]
    return "; ".join([*failed, *_without_cudnn()])


def _without_cudnn() -> list[str]:
    """What the loader says where cuDNN is missing; empty where it loads.

    ONNX Runtime takes it as optional since 1.28 and reports nothing (microsoft/onnxruntime#29252). A session then
    opens, and a convolution may fail when it runs.
    """
    try:
        ctypes.CDLL("cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9")
    except OSError as error:
        return [f"{NO_CUDNN}: {error}"]
    return []


def _session_on(path: Path, device: Device, threads: int, cuda_graph: bool) -> tuple[ort.InferenceSession, bool]:
    """A session on the device, and whether a GPU was tried; `auto` goes on with the CPU where the GPU cannot be used.

    Raises:
        UserError: the file is broken, or the device that was asked for cannot be used.
    """
    wanted = device
    if device == "auto":
        wanted = "cuda" if gpu_may_work() else "cpu"
    if wanted == "cpu":
        return _open(path, "cpu", threads), False
    missing = load_gpu_libraries(wanted)
    try:
        if NO_CUDNN in missing:
            raise UserError(
                f"--device {device}: {missing}",
                "cuDNN 9, which convolutions need",
                "pip install 'onnxruntime-gpu[cuda,cudnn]>=1.31'   (perception doctor shows what is missing)",
            )
        session = _open(path, wanted, threads, cuda_graph)
    except UserError as error:
        if device != "auto" or (cuda_graph and NO_CUDNN not in missing):
            raise
        missing = missing if NO_CUDNN in missing else "; ".join(filter(None, (missing, error.found)))
        session = _open(path, "cpu", threads)
    provider = session.get_providers()[0]
    if device != "auto" and provider != _PROVIDERS[device][0]:
        raise UserError(
            f"--device {device}: ONNX Runtime fell back to {provider}" + (f" ({missing})" if missing else ""),
            f"{_PROVIDERS[device][0]} in use",
            "perception doctor shows what is missing; --device cpu or auto runs without it",
        )
    if provider == "CPUExecutionProvider":
        log.warning("the GPU cannot be used (%s), so the CPU is; perception doctor", missing or "CUDA fails")
    return session, True


def _open(path: Path, device: str, threads: int, cuda_graph: bool = False) -> ort.InferenceSession:
    """Open a session, or raise a UserError that says why not."""
    try:
        return _session(path, device, threads, cuda_graph)
    except Exception as error:
        if "must be a scalar" in str(error):  # an int8 file for OpenVINO has ranges that its kernels do not take
            return _session(path, device, threads, cuda_graph, fuse_int8=False)
        with_graph = " with a CUDA graph" if cuda_graph else ""
        raise UserError(
            f"{path}: ONNX Runtime cannot load it on '{device}'{with_graph} ({_first_line(error)})",
            "a whole ONNX file and a working device",
            "perception doctor   (or " + ("without --cuda-graph)" if cuda_graph else "--device cpu)"),
        ) from None


def _is_set(session: ort.InferenceSession, entry: str) -> bool:
    try:
        return bool(session.get_session_options().get_session_config_entry(entry) == "1")
    except (RuntimeError, AttributeError):  # no such entry, or a stand-in for a session
        return False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class BoundRuns:
    """Runs with buffers allocated once for each batch size and bound to the session (I/O binding).

    One copy in and one copy out remain; ONNX Runtime adds none.
    """

    def __init__(self, session: ort.InferenceSession, device_type: str = "cuda", graph_ids: bool = False) -> None:
        """Args:
        session: whose inputs and outputs have the batch as their only free dimension.
        device_type: where the buffers are, "cuda" or "cpu".
        graph_ids: capture one CUDA graph for each batch size. That needs bound buffers that never move, and shapes
            that never change under one id (ONNX Runtime, CUDA provider).
        """
        self._session, self._device_type, self._graph_ids = session, device_type, graph_ids
        self._bound: dict[int, tuple[Any, dict[str, Any], dict[str, Any]]] = {}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch."""
        batch = len(next(iter(inputs.values())))
        if batch not in self._bound:
            self._bound[batch] = self._bind(batch)
        binding, sources, results = self._bound[batch]
        for name, value in sources.items():
            value.update_inplace(np.ascontiguousarray(inputs[name]))
        options = ort.RunOptions()
        if self._graph_ids:
            options.add_run_config_entry("gpu_graph_id", str(batch))
        self._session.run_with_iobinding(binding, options)
        binding.synchronize_outputs()
        # from a GPU `numpy` copies; on a CPU it would show the buffer itself, which the next run overwrites
        on_cpu = self._device_type == "cpu"
        return {name: np.array(value.numpy()) if on_cpu else value.numpy() for name, value in results.items()}

    def _bind(self, batch: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        binding = self._session.io_binding()
        sources = {tensor.name: self._buffer(tensor, batch) for tensor in self._session.get_inputs()}
        results = {tensor.name: self._buffer(tensor, batch) for tensor in self._session.get_outputs()}
        for name, value in sources.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in results.items():
            binding.bind_ortvalue_output(name, value)
        return binding, sources, results

    def _buffer(self, tensor: Any, batch: int) -> Any:
        shape = [batch if k == 0 else side for k, side in enumerate(tensor.shape)]
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, _TYPES[tensor.type], self._device_type, 0)


class OnnxRuntimeBackend:
    """One model in one ONNX Runtime session.

    The requested device is the device used. ONNX Runtime falls back to the CPU silently, so the active provider is
    checked, and a fallback is an error unless `device` is "auto".
    """

    def __init__(self, path: Path, device: Device = "auto", threads: int = 0, cuda_graph: bool = False) -> None:
        """Load a model file.

        Args:
            path: an ONNX file.
            device: "auto" takes CUDA where it loads, else the CPU.
            threads: CPU threads for one operator, 0 for one a core.
            cuda_graph: capture the kernels of each batch size once and replay them. Needs a GPU, and a fixed batch
                with the TensorRT provider. Ignored where `auto` finds no GPU.

        Raises:
            UserError: missing or broken file, or the device or the graph is not available.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(
                f"{path}: no such model file", "an ONNX file that `perception export` wrote", "check the path"
            )
        if cuda_graph and device == "cpu":
            raise UserError("a CUDA graph on the CPU", "a GPU", "--device cuda, or leave out --cuda-graph")
        if device in ("cuda", "tensorrt") and not _cuda_present():
            raise UserError(
                f"--device {device}: no NVIDIA driver answers on this machine",
                "a GPU and its driver (nvidia-smi must answer)",
                "perception doctor shows what is missing; --device cpu or auto runs without it",
            )
        self.session, on_gpu = _session_on(path, device, threads, cuda_graph)
        self.provider = self.session.get_providers()[0]
        self.int8_in_float = _is_set(self.session, _NO_INT8)
        """Whether the file's int8 has a range a channel, which OpenVINO takes; ONNX Runtime computes it in fp32."""
        cuda_graph = cuda_graph and on_gpu
        self.path = path
        try:
            tensors = (*self.session.get_inputs(), *self.session.get_outputs())
            self.inputs = {i.name: tuple(i.shape) for i in self.session.get_inputs()}
            self.outputs = {o.name: tuple(o.shape) for o in self.session.get_outputs()}
            self.metadata: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: a name or the metadata is not UTF-8 ({error})", "a whole ONNX file") from None
        self.types = {t.name: np.dtype(_TYPES[t.type]).name if t.type in _TYPES else t.type for t in tensors}
        first = next(iter(self.inputs.values()), ())
        self.max_batch: int | None = first[0] if first and isinstance(first[0], int) else None
        cuda_graph = cuda_graph and self.provider != "CPUExecutionProvider"
        if cuda_graph and (reason := why_no_graph(self.session, self.provider)):
            raise UserError(
                f"{path}: {reason}, so no CUDA graph", "fixed shapes", "perception export CHECKPOINT --batch 1"
            )
        on_gpu = self.provider != "CPUExecutionProvider" and _free_batch_only(self.session)
        self._runs = BoundRuns(self.session, "cuda", cuda_graph) if on_gpu else None

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch: named input arrays → named output arrays.

        Raises:
            UserError: ONNX Runtime fails, as on a broken graph or without memory.
        """
        try:
            if self._runs is not None:
                return self._runs.run(inputs)
            return dict(zip(self.outputs, self.session.run(list(self.outputs), dict(inputs)), strict=True))
        except Exception as error:
            raise UserError(
                f"{self.path}: ONNX Runtime cannot run it ({_first_line(error)})",
                "a graph that `perception export` wrote, and memory for it",
                "perception export CHECKPOINT",
            ) from None


def why_no_graph(session: ort.InferenceSession, provider: str) -> str:
    """Why a CUDA graph cannot be captured; empty if it can.

    A graph is valid for one set of shapes. ONNX Runtime's CUDA provider keeps one for each id that a run names. Its
    TensorRT provider builds another engine when shapes change, which invalidates the graph.
    """
    if not _free_batch_only(session):
        return "its shapes depend on more than the batch"
    free = not all(isinstance(tensor.shape[0], int) for tensor in session.get_inputs())
    if free and provider == "TensorrtExecutionProvider":
        return "its batch is free, and the TensorRT provider builds a new engine for each"
    return ""


def _free_batch_only(session: ort.InferenceSession) -> bool:
    """Whether buffers can be allocated before a run: known types, and only the batch is free."""
    tensors = (*session.get_inputs(), *session.get_outputs())
    return all(t.type in _TYPES and t.shape and all(isinstance(side, int) for side in t.shape[1:]) for t in tensors)


def gpu_may_work() -> bool:
    """Whether this build can use an NVIDIA GPU and a driver is present. Only loading a model shows more."""
    return "CUDAExecutionProvider" in ort.get_available_providers() and _cuda_present()


def _cuda_present() -> bool:
    """Whether an NVIDIA driver is present; without one, requesting CUDA only prints warnings."""
    return any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")) or (
        Path("C:/Windows/System32/nvcuda.dll").exists()
    )
