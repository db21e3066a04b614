"""How large things on the road are: what turns the height of a box into metres.

Heights, widths and depths are measured over the whole, untruncated objects at 5 to 60 m in KITTI's 3,712 training
images (`python -m tools.benchmark_ranging --priors` prints them again). Medians, and half the span from the 16th to
the 84th percentile, because the tails are long: among 'Car' there are tall ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perception.types import F64


@dataclass(frozen=True)
class SizePrior:
    """The size of a class of objects."""

    height_m: float
    """Median height."""
    height_spread: float
    """Standard deviation of the height's logarithm: 0.08 is 8 %."""
    half_width_m: float
    """Half the width, seen from behind."""
    half_depth_m: float
    """Half the extent along the line of sight when seen from behind: from the nearest point to the centre."""
    half_depth_std_m: float
    """Standard deviation of that."""
    side_aspects: tuple[float, float] = (9.0, 10.0)
    """Width over height of a box from which an object turns its side to us, and where it wholly does."""
    half_depth_side_m: float = 0.0
    """Half the extent along the line of sight when seen from the side."""

    def __post_init__(self) -> None:
        sizes = (self.height_m, self.height_spread, self.half_width_m, self.half_depth_m, self.half_depth_std_m)
        if not all(size > 0 for size in sizes):
            raise ValueError(f"SizePrior: found {sizes}, expected sizes above 0")

    def half_depth_at(self, aspect: np.ndarray) -> F64:
        """Half the extent along the line of sight of boxes of this width over height, metres."""
        return np.interp(aspect, self.side_aspects, (self.half_depth_m, self.half_depth_side_m))


SIZE_PRIORS: dict[str, SizePrior] = {
    "Car": SizePrior(1.52, 0.085, 0.81, 1.95, 0.25, (2.1, 3.0), 1.15),
    "Van": SizePrior(2.10, 0.15, 0.95, 2.6, 0.4, (1.9, 2.8), 1.3),
    "Truck": SizePrior(3.5, 0.12, 1.3, 4.6, 1.1),
    "Tram": SizePrior(3.6, 0.10, 1.2, 6.4, 1.0),
    "Pedestrian": SizePrior(1.76, 0.077, 0.35, 0.42, 0.13),
    "Cyclist": SizePrior(1.72, 0.060, 0.30, 0.88, 0.10, (0.85, 1.15), 0.54),
}
"""By class name."""

UNKNOWN_SIZE = SizePrior(1.6, 0.3, 0.6, 1.0, 0.6)
"""For a class nobody measured: anything from a child to a van."""
