"""OpenVINO as a backend: CPUs, Intel GPUs and NPUs.

A free batch is compiled for one image, and the images of a batch become requests that run asynchronously. A fixed
shape is faster than a free one, NPUs take no other, and one compiled model serves all batch sizes. Outputs are
written straight into the arrays that are returned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perception.devices import Device, Precision
from perception.errors import MissingDependencyError, UserError
from perception.files import keep_newest, user_cache

NAMES: dict[Device, str] = {"openvino": "CPU", "openvino-gpu": "GPU", "openvino-npu": "NPU"}
"""`--device` → OpenVINO's name of the device."""
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: dict[Precision, str] = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
_OUTPUTS = ("boxes_xyxy", "scores", "class_ids", "road", "distances", "cuboids")
"""Names of the contract. One tensor may have several names, of which these are meant."""
MOST_COMPILED = 32
"""Compiled models that the cache keeps."""


def import_openvino(needed_for: str = "--device openvino") -> Any:
    """The module `openvino`.

    Raises:
        MissingDependencyError: it is not installed, or does not load.
    """
    try:
        import openvino
    except (ImportError, OSError):
        raise MissingDependencyError("openvino", "openvino", needed_for) from None
    return openvino


@cache
def _core() -> Any:
    return import_openvino().Core()


def read_graph(path: Path, expected: str = "a whole ONNX file") -> Any:
    """Read an ONNX file or OpenVINO's own `.xml` as an `openvino.Model`.

    Raises:
        UserError: it cannot be read, or OpenVINO is missing.
    """
    import_openvino()
    try:
        return _core().read_model(path)
    except Exception as error:
        raise UserError(f"{path}: OpenVINO cannot load it ({_reason(error)})", expected) from None


def capabilities(device: str = "CPU") -> tuple[str, ...]:
    """Kinds of arithmetic that a device computes by itself, as FP32, BF16 and INT8; none where it is missing."""
    import_openvino()
    if not any(name.partition(".")[0] == device for name in _core().available_devices):
        return ()
    try:
        return tuple(_core().get_property(device, "OPTIMIZATION_CAPABILITIES"))
    except Exception:  # its driver is missing
        return ()


def precisions(device: str = "CPU") -> list[Precision]:
    """Precisions that a device computes, fp32 first; none where it is missing."""
    able = capabilities(device)
    return [name for name, theirs in _CAPABILITIES.items() if theirs in able]


def compile_graph(
    graph: Any, device: str = "CPU", threads: int = 0, precision: Precision = "fp32", keep: bool = True
) -> Any:
    """Compile for one device, exactly in the precision that is asked for.

    Args:
        graph: what `read_graph` returned.
        device: OpenVINO's name.
        threads: CPU threads, 0 for one a core.
        precision: OpenVINO computes in another one silently where the device lacks it, so the result is checked.
        keep: keep the compiled model in the user's cache folder.

    Raises:
        UserError: the device is missing, lacks the precision, or cannot compile the graph.
    """
    able = capabilities(device)
    if not able:
        found = ", ".join(_core().available_devices) or "no device"
        raise UserError(
            f"OpenVINO finds no {device} here, only {found}", "the device and its driver", "--device auto"
        )
    if _CAPABILITIES[precision] not in able:
        ours = precisions(device)
        raise UserError(
            f"--precision {precision} on OpenVINO's {device}, which computes {', '.join(ours) or 'none of ours'}",
            "a precision that it has",
            f"--precision {ours[0]}" if ours else "--device auto",
        )
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        # a pinned thread waits for its core while another process holds it: twice the time on a machine with load
        settings["ENABLE_CPU_PINNING"] = False
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
    folder = user_cache("openvino") if keep else None
    if folder is not None:
        settings["CACHE_DIR"] = str(folder)
    try:
        compiled = _core().compile_model(graph, device, settings)
    except Exception as error:
        raise UserError(
            f"OpenVINO cannot compile the model for {device} ({_reason(error)})",
            "a graph that `perception export` wrote, and a working device",
            "perception doctor   (or --device cpu)",
        ) from None
    if folder is not None:
        keep_newest(folder, "*.blob", MOST_COMPILED)
    used = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
    if used != _HINTS[precision]:
        raise UserError(
            f"--precision {precision}: OpenVINO would compute in {used}",
            "a precision of the device",
            "--precision fp32",
        )
    return compiled


class OpenVinoBackend:
    """One model on one of OpenVINO's devices. Not for two threads at once."""

    def __init__(
        self, path: Path, device: Device = "openvino", threads: int = 0, precision: Precision = "fp32"
    ) -> None:
        """Read a model file; `compile`, or the first run, prepares it for the device.

        Args:
            path: an ONNX file.
            device: one of `NAMES`.
            threads: CPU threads, 0 for one a core.
            precision: arithmetic. Int8 parts of a file stay int8.

        Raises:
            UserError: missing or broken file, or OpenVINO is missing.
        """
        self.path = path = Path(path)
        if not path.is_file():
            raise UserError(
                f"{path}: no such model file", "an ONNX file that `perception export` wrote", "check the path"
            )
        self._device, self._threads, self._precision = NAMES[device], threads, precision
        self.provider = f"OpenVINO {self._device} {precision}"
        self._graph = read_graph(path)
        try:
            self.metadata: Mapping[str, str] = _metadata(self._graph)
            self.inputs = {_name(port): _shape(port) for port in self._graph.inputs}
            self.outputs = {_name(port): _shape(port) for port in self._graph.outputs}
            self.types = {_name(port): _type(port) for port in (*self._graph.inputs, *self._graph.outputs)}
        except (RuntimeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: a name or the metadata is broken ({_reason(error)})", "a whole ONNX file"
            ) from None
        first = next(iter(self.inputs.values()), ())
        self.max_batch: int | None = first[0] if first and isinstance(first[0], int) else None
        self._compiled: Any = None
        self._requests: list[Any] = []
        self._fixed: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        """Output → its shape in one request and its type; empty where one is known only after a run."""

    def compile(self) -> None:
        """Compile for the device, or take the compiled model from the cache.

        Raises:
            UserError: see `compile_graph`.
        """
        if self._compiled is not None:
            return
        if self.max_batch is None:
            try:
                self._graph.reshape({name: [1, *shape[1:]] for name, shape in self.inputs.items()})
            except Exception as error:
                raise self._failed(error) from None
        self._compiled = compile_graph(self._graph, self._device, self._threads, self._precision)
        images = self.max_batch or 1
        ports = {_name(port): port for port in self._compiled.outputs}
        if all(port.partial_shape.is_static and list(port.shape)[:1] == [images] for port in ports.values()):
            self._fixed = {n: (tuple(p.shape), np.dtype(p.element_type.to_dtype())) for n, p in ports.items()}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch: named input arrays → named output arrays.

        Raises:
            UserError: OpenVINO fails, as on a broken graph or without memory.
        """
        self.compile()
        arrays = {name: np.require(array, requirements=("C", "W")) for name, array in inputs.items()}
        images = len(next(iter(arrays.values())))
        each = self.max_batch or 1
        parts = [slice(start, start + each) for start in range(0, images, each)]
        try:
            while len(self._requests) < len(parts):
                self._requests.append(self._compiled.create_infer_request())
            outputs = {n: np.empty((images, *shape[1:]), kind) for n, (shape, kind) in self._fixed.items()}
            started: list[Any] = []
            try:
                for part, request in zip(parts, self._requests, strict=False):
                    self._bind(request, {name: array[part] for name, array in (*arrays.items(), *outputs.items())})
                    request.start_async()
                    started.append(request)
            finally:  # whatever failed, those that run write into these arrays
                failures = [error for request in started if (error := _wait(request))]
            if failures:
                raise failures[0]
            return outputs or self._copied(len(parts))
        except Exception as error:
            raise self._failed(error) from None

    @staticmethod
    def _bind(request: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Let a request read from and write to these arrays."""
        tensor = import_openvino().Tensor
        for name, array in arrays.items():
            request.set_tensor(name, tensor(array, shared_memory=True))

    def _copied(self, requests: int) -> dict[str, np.ndarray]:
        """Outputs whose shapes only a run shows."""
        held = self._requests[:requests]
        return {name: np.concatenate([np.array(r.get_tensor(name).data) for r in held]) for name in self.outputs}

    def _failed(self, error: Exception) -> UserError:
        return UserError(
            f"{self.path}: OpenVINO cannot run it ({_reason(error)})",
            "a graph that `perception export` wrote, and memory for it",
            "perception export CHECKPOINT",
        )


def _wait(request: Any) -> Exception | None:
    try:
        request.wait()
    except Exception as error:
        return error
    return None


def _metadata(graph: Any) -> dict[str, str]:
    """ONNX's metadata, which OpenVINO keeps in the section `framework`."""
    if not graph.has_rt_info(["framework"]):
        return {}
    return {str(key): str(value.astype(str)) for key, value in graph.get_rt_info(["framework"]).astype(dict).items()}


def _name(port: Any) -> str:
    names = set(port.names)
    return str(next((name for name in _OUTPUTS if name in names), min(names, default="")))


def _shape(port: Any) -> tuple[Any, ...]:
    """Sides of a tensor; a side that may vary is "N"."""
    rank = port.partial_shape.rank
    if rank.is_dynamic:
        return ()
    return tuple(side.get_length() if side.is_static else "N" for side in port.partial_shape)


def _type(port: Any) -> str:
    with contextlib.suppress(Exception):  # a type that numpy lacks
        return str(np.dtype(port.element_type.to_dtype()).name)
    return str(port.element_type.get_type_name())


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message: those above name places in its source."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1].strip() if lines else type(error).__name__)[:200]
