"""Options of int8 quantisation and of TensorRT engines. Without heavy imports, for `perception export --help`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perception.engine import Hardware
from perception.errors import FieldError

Method = Literal["minmax", "entropy", "percentile"]
Runtime = Literal["openvino", "onnxruntime"]


@dataclass(frozen=True)
class QuantizeConfig:
    """Options of --precision int8."""

    method: Method = "percentile"
    """Calibration method of --runtime onnxruntime. minmax: the range of all values. entropy: the range with the
    least loss of information. percentile: the range without the outermost values."""
    percentile: float = 99.99
    """Values inside the range, per cent."""
    symmetric: bool = False
    """Use ranges symmetric about zero, which TensorRT requires. Asymmetric ranges are more accurate on a CPU."""
    budget: float = 0.5
    """Largest loss of mean AP or road MaxF, points. Sensitive blocks stay in fp32 until the loss is within it."""
    sweep_frames: int = 4
    """Frames on which the sensitivity of each block is measured."""
    runtime: Runtime = "openvino"
    """Engine that the file is for. openvino: NNCF sets the ranges (extra `int8`). onnxruntime: ranges that ONNX
    Runtime and TensorRT take; on CPUs slower than fp32."""

    def __post_init__(self) -> None:
        if not 50 <= self.percentile <= 100:
            raise FieldError(self, "percentile", "from 50 to 100")
        if not 0 <= self.budget <= 100:
            raise FieldError(self, "budget", "points, from 0 to 100")
        if self.symmetric and self.runtime == "openvino":
            raise FieldError(self, "symmetric", "False for OpenVINO; --runtime onnxruntime takes symmetric ranges")
        if self.sweep_frames < 1:
            raise FieldError(self, "sweep_frames", "at least 1 frame")


@dataclass(frozen=True)
class EngineConfig:
    """Options of --format engine."""

    batch_profile: tuple[int, int, int] = (1, 1, 4)
    """Smallest, optimal and largest batch. Ignored for an ONNX file with a fixed batch."""
    hardware: Hardware = "same-gpu"
    """GPUs that can run the engine: this model, the same compute capability, or all from Ampere on (slower)."""
    version_compatible: bool = False
    """Allow later TensorRT versions of the same major version to run the engine (slower)."""
    workspace_gb: float = 2.0
    """GPU memory for tactic selection during the build, GB."""
    tf32: bool = False
    """Allow TF32 (10-bit mantissa) in fp32 products. Faster, but the outputs no longer match the checkpoint."""

    def __post_init__(self) -> None:
        least, best, most = self.batch_profile
        if not 1 <= least <= best <= most:
            raise FieldError(self, "batch_profile", "MIN BEST MAX with 1 <= MIN <= BEST <= MAX")
        if not 0 < self.workspace_gb <= 1024:
            raise FieldError(self, "workspace_gb", "GB, more than 0, up to 1024")
