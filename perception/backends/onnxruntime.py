"""ONNX Runtime: named arrays in, named arrays out. It knows no boxes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from perception.errors import UserError

Device = Literal["auto", "cpu", "cuda", "tensorrt"]

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}


def _session(path: Path, device: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # its warnings about providers are replaced by our own check below
    options.intra_op_num_threads = threads
    # spinning threads steal the cores that decode the next frame: measured twofold slower with a second thread pool
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=_PROVIDERS[device])


class OnnxRuntimeBackend:
    """One model in one ONNX Runtime session.

    The device asked for is the device used: ONNX Runtime falls back to the CPU without a word, so the active
    provider is checked, and a fallback is an error unless `device` is "auto".
    """

    def __init__(self, path: Path, device: Device = "auto", threads: int = 0) -> None:
        """Load a model file.

        Args:
            path: an ONNX file.
            device: "auto" takes CUDA where it really loads, else the CPU.
            threads: CPU threads for one operator, 0 for one a core.

        Raises:
            UserError: missing or broken file, or the device cannot be used.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(
                f"{path}: no such model file", "an ONNX file that `perception export` wrote", "--model FILE"
            )
        wanted = device
        if device == "auto":
            wanted = "cuda" if "CUDAExecutionProvider" in ort.get_available_providers() and _cuda_present() else "cpu"
        try:
            self.session = _session(path, wanted, threads)
        except Exception as error:
            if device == "auto" and wanted != "cpu":
                self.session = _session(path, "cpu", threads)
            else:
                raise UserError(
                    f"{path}: ONNX Runtime cannot load it on '{wanted}' ({str(error).strip().splitlines()[0][:200]})",
                    "a whole ONNX file and a working device",
                    "perception doctor   (or --device cpu)",
                ) from None
        self.provider = self.session.get_providers()[0]
        if device != "auto" and self.provider != _PROVIDERS[device][0]:
            raise UserError(
                f"--device {device}: ONNX Runtime fell back to {self.provider}",
                f"{_PROVIDERS[device][0]} in use",
                "perception doctor shows what is missing; --device cpu or auto goes on without it",
            )
        self.path = path
        self.inputs = {i.name: tuple(i.shape) for i in self.session.get_inputs()}
        self.outputs = {o.name: tuple(o.shape) for o in self.session.get_outputs()}
        self.metadata: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One batch: named input arrays → named output arrays."""
        return dict(zip(self.outputs, self.session.run(list(self.outputs), dict(inputs)), strict=True))


def _cuda_present() -> bool:
    """Whether an NVIDIA driver answers; without one, asking for CUDA only prints alarms."""
    return any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")) or (
        Path("C:/Windows/System32/nvcuda.dll").exists()
    )
