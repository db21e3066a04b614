"""How large things on the road are: what turns the height of a box into metres.

Heights, widths and depths are measured over the whole, untruncated objects at 5 to 60 m in KITTI's 3,712 training
images (`python -m tools.benchmarks.ranging --priors` prints them); heights and their spread as mean and standard
deviation of the logarithm. The tram's spread is widened: KITTI knows one line. The shares of edge noise are those of
RRC's detections on KITTI's even-numbered tracking sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perception.classes import ClassInfo, SizePrior

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


def sizes_of(classes: Sequence[ClassInfo]) -> Mapping[str, SizePrior]:
    """Return the size of each class by name: its own, else that of its name, else that of what it is evaluated as."""
    sizes = dict(SIZE_PRIORS)
    for info in classes:
        size = info.size or SIZE_PRIORS.get(info.name) or SIZE_PRIORS.get(info.evaluated_as)
        if size is not None:
            sizes[info.name] = size
    return sizes
