"""How large things on the road are: what turns the height of a box into metres.

Heights, widths and depths are measured over the whole, untruncated objects at 5 to 60 m in KITTI's 3,712 training
images (`python -m tools.benchmarks.ranging --priors` prints them); heights and their spread as mean and standard
deviation of the logarithm. The tram's spread is widened: KITTI knows one line. The shares of edge noise are those of
RRC's detections on KITTI's even-numbered tracking sequences.
"""

from __future__ import annotations

from dataclasses import dataclass


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
    edge_std_share: float = 0.025
    """Noise of a box edge as a share of the box's height: large boxes have larger errors, and limbs are vague."""

    def __post_init__(self) -> None:
        sizes = (self.height_m, self.height_spread, self.half_width_m, self.half_depth_m, self.half_depth_std_m)
        if not all(size > 0 for size in sizes):
            raise ValueError(f"SizePrior: found {sizes}, expected sizes above 0")

    def turning(self) -> tuple[float, float, float]:
        """How far an object has turned its side to us is `aspect · scale − start`, held within 0 and 1.

        Returns:
            start and scale; and what half its extent along the line of sight then changes by, metres.
        """
        begin, end = self.side_aspects
        return begin / (end - begin), 1 / (end - begin), self.half_depth_side_m - self.half_depth_m


SIZE_PRIORS: dict[str, SizePrior] = {
    # class: height and its spread; half width; half depth and its spread; box shapes seen from the side, depth there
    "Car": SizePrior(1.52, 0.083, 0.81, 1.95, 0.25, (2.1, 3.0), 1.1),
    "Van": SizePrior(2.16, 0.14, 0.93, 2.55, 0.4, (1.9, 2.8), 1.3),
    "Truck": SizePrior(3.33, 0.12, 1.28, 4.1, 1.1),
    "Tram": SizePrior(3.63, 0.05, 1.16, 6.4, 1.0),
    "Pedestrian": SizePrior(1.76, 0.077, 0.32, 0.42, 0.13, edge_std_share=0.035),
    "Cyclist": SizePrior(1.72, 0.060, 0.29, 0.88, 0.10, (0.85, 1.15), 0.5, edge_std_share=0.035),
}
"""By class name."""

UNKNOWN_SIZE = SizePrior(1.6, 0.3, 0.6, 1.0, 0.6)
"""For a class nobody measured: anything from a child to a van."""
