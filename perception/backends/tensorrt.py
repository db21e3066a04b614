"""TensorRT (10 and 11) as a backend, through an engine that was built for this machine.

Pinned host buffers and device buffers are allocated once, for the largest batch. All work goes through one stream;
for each batch size the copies and kernels are captured once as a CUDA graph and then replayed. Each batch size has an
execution context of its own: a graph keeps its context's shapes and scratch memory, so that context must not serve
other shapes (TensorRT's guide to CUDA graphs requires one context for each graph).
"""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from perception.engine import Host, file_sha256, read_sidecar, sidecar_path, why_not_here
from perception.errors import MissingDependencyError, UserError

log = logging.getLogger("perception.backends.tensorrt")
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


def import_tensorrt() -> tuple[Any, Any]:
    """The modules `tensorrt` and `cuda.bindings.runtime`.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    try:
        import tensorrt
    except (ImportError, OSError):  # OSError: the bindings are there, the libraries are not
        raise MissingDependencyError("tensorrt", "tensorrt", "TensorRT engines") from None
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise MissingDependencyError("cuda-bindings", "tensorrt", "TensorRT engines") from None
    return tensorrt, runtime


def find_host(trt: Any, cudart: Any) -> Host:
    """This machine's TensorRT, GPU and driver.

    Raises:
        UserError: no GPU answers.
    """
    error, properties = _pair(cudart.cudaGetDeviceProperties(0))
    if int(error) != 0:
        raise UserError(f"CUDA finds no GPU ({error})", "an NVIDIA GPU and its driver", "perception doctor")
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Host(trt.__version__, name.rstrip("\0"), f"{properties.major}.{properties.minor}", _driver(cudart))


def _driver(cudart: Any) -> str:
    """The driver's version where the system reports it, else the CUDA version that it supports."""
    if _DRIVER_FILE.exists() and (found := re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", _DRIVER_FILE.read_text())):
        return found.group(1)
    _, version = _pair(cudart.cudaDriverGetVersion())
    return f"CUDA {int(version) // 1000}.{int(version) % 1000 // 10}"


@dataclass(frozen=True, eq=False)
class _Buffer:
    """One tensor's memory, for the largest batch."""

    host: np.ndarray
    """Pinned, of the tensor's type and shape."""
    host_address: int
    device_address: int
    is_input: bool

    def image_bytes(self) -> int:
        """Bytes of one image of the batch."""
        return self.host[0].nbytes


class TensorRTBackend:
    """One engine, one stream, one execution context for each batch size. Not for two threads at once."""

    provider = "TensorRT"

    def __init__(self, path: Path, cuda_graph: bool = True, modules: tuple[Any, Any] | None = None) -> None:
        """Load an engine.

        Args:
            path: an `.engine` that `perception export --format engine` wrote, with its sidecar.
            cuda_graph: replay a captured graph for each batch size instead of launching kernel by kernel.
            modules: `tensorrt` and `cuda.bindings.runtime`, for tests.

        Raises:
            UserError: missing, or built for another machine or version.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(
                f"{path}: no such engine", "a file that `perception export --format engine` wrote", "check the path"
            )
        sidecar = read_sidecar(self.path)
        self._trt, self._cuda = modules or import_tensorrt()
        if reason := why_not_here(sidecar.key, find_host(self._trt, self._cuda)):
            raise UserError(
                f"{path}: {reason}",
                f"the machine of {sidecar_path(self.path).name}",
                "perception export CHECKPOINT --format engine   (on this machine)",
            )
        if sidecar.engine_sha256 != file_sha256(self.path):
            raise UserError(
                f"{path}: not the engine that {sidecar_path(self.path).name} describes",
                "both files of one build",
                "perception export CHECKPOINT --format engine",
            )
        self.metadata: Mapping[str, str] = sidecar.metadata
        self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.WARNING))
        # a version-compatible plan carries a lean runtime as host code, which the loader must allow
        self._runtime.engine_host_code_allowed = sidecar.key.version_compatible
        self._engine = self._runtime.deserialize_cuda_engine(self.path.read_bytes())
        if self._engine is None:
            raise UserError(f"{path}: TensorRT cannot load it", "an engine of this TensorRT", "export it again")
        self.max_batch = sidecar.key.batch_profile[2]
        self.min_batch = sidecar.key.batch_profile[0]
        self._stream = self._ok(self._cuda.cudaStreamCreateWithFlags(self._cuda.cudaStreamNonBlocking))
        self._buffers: dict[str, _Buffer] = {}
        self.inputs: dict[str, tuple[Any, ...]] = {}
        self.outputs: dict[str, tuple[Any, ...]] = {}
        self.types: dict[str, str] = {}
        for index in range(self._engine.num_io_tensors):
            self._add_tensor(self._engine.get_tensor_name(index))
        self._cuda_graph = cuda_graph
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[int, Any] = {}

    def _add_tensor(self, name: str) -> None:
        is_input = self._is_input(name)
        shape = self._shape(name)
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        full = (self.max_batch, *shape[1:])
        size = prod(full) * dtype.itemsize
        host_address = int(self._ok(self._cuda.cudaHostAlloc(size, self._cuda.cudaHostAllocDefault)))
        memory = (ctypes.c_uint8 * size).from_address(host_address)
        host = np.frombuffer(memory, dtype=dtype).reshape(full)
        device_address = int(self._ok(self._cuda.cudaMalloc(size)))
        self._buffers[name] = _Buffer(host, host_address, device_address, is_input)
        fixed = tuple("N" if side < 0 else side for side in shape)
        (self.inputs if is_input else self.outputs)[name] = fixed
        self.types[name] = dtype.name

    def _is_input(self, name: str) -> bool:
        return self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, -1 for a free batch.

        The engine may not know output sides that follow from a computation, and then reports -1 as well. Its context
        knows them once the inputs have shapes.

        Raises:
            UserError: the context does not know them either, so no buffer can be allocated.
        """
        shape = tuple(self._engine.get_tensor_shape(name))
        if min(shape[1:], default=0) >= 0:
            return shape
        context = self._engine.create_execution_context()
        if context is None:
            raise RuntimeError(f"{self.path}: TensorRT has no memory for an execution context")
        for i in range(self._engine.num_io_tensors):
            if self._is_input(other := self._engine.get_tensor_name(i)):
                context.set_input_shape(other, (self.max_batch, *tuple(self._engine.get_tensor_shape(other))[1:]))
        known = tuple(context.get_tensor_shape(name))
        if min(known[1:], default=0) < 0:
            raise UserError(
                f"{self.path}: {name} has no fixed shape {known}", "free batches alone", "export it again"
            )
        return (shape[0], *known[1:])

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch: named input arrays → named output arrays.

        Raises:
            UserError: a batch outside the engine's profile.
            ValueError: unknown names or shapes.
        """
        if set(inputs) != set(self.inputs):
            raise ValueError(f"inputs {sorted(inputs)}: expected {sorted(self.inputs)}")
        batch = len(next(iter(inputs.values())))
        if not self.min_batch <= batch <= self.max_batch:
            raise UserError(
                f"{self.path}: a batch of {batch}",
                f"{self.min_batch} to {self.max_batch}, as the engine was built",
                "perception export CHECKPOINT --format engine --batch-profile MIN BEST MAX",
            )
        for name, array in inputs.items():
            host = self._buffers[name].host
            if array.shape[1:] != host.shape[1:] or array.dtype != host.dtype:
                raise ValueError(
                    f"{name}: found {array.shape} {array.dtype}, expected (N, …){host.shape[1:]} {host.dtype}"
                )
            np.copyto(host[:batch], array)
        if batch not in self._contexts:
            self._contexts[batch] = self._new_context(batch)
        if graph := self._graphs.get(batch):
            self._ok(self._cuda.cudaGraphLaunch(graph, self._stream))
        else:
            self._enqueue(batch)
        self._ok(self._cuda.cudaStreamSynchronize(self._stream))
        if self._cuda_graph and batch not in self._graphs:
            # TensorRT wants one plain run with the final shapes before a capture
            self._graphs[batch] = self._capture(batch)
        return {name: self._buffers[name].host[:batch].copy() for name in self.outputs}

    def _new_context(self, batch: int) -> Any:
        """A context whose tensors are our buffers and whose input shapes are final."""
        context = self._engine.create_execution_context()
        if context is None:
            raise RuntimeError(f"{self.path}: TensorRT has no memory for a batch of {batch}")
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, buffer.device_address):
                raise RuntimeError(f"{self.path}: TensorRT refuses the buffer of {name}")
        for name in self.inputs:
            shape = (batch, *self._buffers[name].host.shape[1:])
            if not context.set_input_shape(name, shape):
                raise UserError(f"{self.path}: TensorRT refuses the input {name} {shape}")
        return context

    def _enqueue(self, batch: int) -> None:
        """Copies in, kernels, copies out, all on the stream."""
        kinds = self._cuda.cudaMemcpyKind
        for buffer in self._buffers.values():
            if buffer.is_input:
                self._copy(buffer.device_address, buffer.host_address, buffer, batch, kinds.cudaMemcpyHostToDevice)
        if not self._contexts[batch].execute_async_v3(int(self._stream)):
            raise RuntimeError(f"{self.path}: TensorRT could not start the network")
        for buffer in self._buffers.values():
            if not buffer.is_input:
                self._copy(buffer.host_address, buffer.device_address, buffer, batch, kinds.cudaMemcpyDeviceToHost)

    def _copy(self, to: int, source: int, buffer: _Buffer, batch: int, kind: Any) -> None:
        self._ok(self._cuda.cudaMemcpyAsync(to, source, batch * buffer.image_bytes(), kind, self._stream))

    def _capture(self, batch: int) -> Any:
        """Capture the work of one batch as an executable graph; None where this network cannot be captured."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._ok(self._cuda.cudaStreamBeginCapture(self._stream, mode))
        failed = ""
        try:
            self._enqueue(batch)
        except RuntimeError as error:
            failed = str(error)
        status, graph = _pair(self._cuda.cudaStreamEndCapture(self._stream))
        if failed or int(status) != 0:
            log.info("no CUDA graph for a batch of %d (%s): running kernel by kernel", batch, failed or status)
            return None
        status, executable = _pair(self._cuda.cudaGraphInstantiate(graph, 0))
        self._ok(self._cuda.cudaGraphDestroy(graph))
        if int(status) != 0:
            log.info("no CUDA graph for a batch of %d (%s): running kernel by kernel", batch, status)
            return None
        return executable

    def _ok(self, result: Any) -> Any:
        """Return the value of a CUDA call, or raise its error."""
        error, value = _pair(result)
        if int(error) != 0:
            raise RuntimeError(f"CUDA: {error}")
        return value

    def close(self) -> None:
        """Free the memory. Safe to call twice."""
        for graph in self._graphs.values():
            if graph is not None:
                self._cuda.cudaGraphExecDestroy(graph)
        self._graphs.clear()
        self._contexts.clear()  # before the memory that they use
        for buffer in self._buffers.values():
            self._cuda.cudaFree(buffer.device_address)
            self._cuda.cudaFreeHost(buffer.host_address)
        if self._buffers:
            self._cuda.cudaStreamDestroy(self._stream)
        self._buffers.clear()


def _pair(result: Any) -> tuple[Any, Any]:
    """`cuda.bindings` returns (error,) or (error, value)."""
    if not isinstance(result, tuple):
        return result, None
    return result[0], result[1] if len(result) > 1 else None
