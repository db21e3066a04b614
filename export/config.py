"""How a model becomes int8, and what a TensorRT engine is built for. Light: `perception export --help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perception.engine import Hardware
from perception.errors import FieldError

Method = Literal["minmax", "entropy", "percentile"]


@dataclass(frozen=True)
class QuantizeConfig:
    """Only with --precision int8."""

    method: Method = "percentile"
    """Range of a tensor from what calibration saw: all values (minmax), the range that loses least information
    (entropy), or all but the outermost values (percentile)."""
    percentile: float = 99.99
    """Share of values inside the range, per cent."""
    symmetric: bool = False
    """Ranges symmetric about zero, which TensorRT needs. Unsigned ranges with an offset are better on a CPU."""
    budget: float = 0.5
    """Points of mean AP or road MaxF that may be lost. Costly blocks stay in fp32 until the loss is within it."""
    sweep_frames: int = 4
    """Frames on which each block is tried alone."""

    def __post_init__(self) -> None:
        if not 50 <= self.percentile <= 100:
            raise FieldError(self, "percentile", "from 50 to 100")
        if not 0 <= self.budget <= 100:
            raise FieldError(self, "budget", "points, from 0 to 100")
        if self.sweep_frames < 1:
            raise FieldError(self, "sweep_frames", "at least 1 frame")


@dataclass(frozen=True)
class EngineConfig:
    """Only with --format engine."""

    batch_profile: tuple[int, int, int] = (1, 1, 4)
    """Smallest, best and largest batch. A file with a fixed batch keeps its own."""
    hardware: Hardware = "same-gpu"
    """GPUs that may run it: this one, the same compute capability, or all from Ampere on (slower)."""
    version_compatible: bool = False
    """Let later TensorRT versions of the same major number run it (slower)."""
    workspace_gb: float = 2.0
    """GPU memory for trying tactics while building, GB."""
    tf32: bool = False
    """Round the factors of fp32 products to ten bits: faster, and no longer the same numbers."""

    def __post_init__(self) -> None:
        least, best, most = self.batch_profile
        if not 1 <= least <= best <= most:
            raise FieldError(self, "batch_profile", "MIN BEST MAX with 1 <= MIN <= BEST <= MAX")
        if not 0 < self.workspace_gb <= 1024:
            raise FieldError(self, "workspace_gb", "GB, more than 0, up to 1024")
