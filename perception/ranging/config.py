"""Options of ranging, and the limits of what it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from perception.ranging.filter import Drift
from perception.ranging.shape import ShapeConfig
from perception.ranging.size_priors import SIZE_PRIORS, SizePrior

NEAREST_M, FARTHEST_M, FASTEST_MPS = 0.5, 250.0, 80.0
"""Limits of what is reported."""
MAX_REMEMBERED = 256
"""Tracks that are not in the present frame, and may come back."""


@dataclass(frozen=True)
class RangingConfig:
    """How noisy the world is. Chosen on KITTI's even-numbered tracking sequences; see docs/results.md."""

    sizes: Mapping[str, SizePrior] = field(default_factory=lambda: SIZE_PRIORS)
    """Size of each class by name; a class that is not here counts as unknown."""
    edge_std_px: float = 0.6
    """Noise of a box edge, pixels; a share of the box's height comes on top, see `SizePrior`."""
    large_box_px: float = 150.0
    """That share grows with the box: by 1.4 at this height. What fills the image is boxed coarsely."""
    edge_time_s: float = 0.15
    """Errors of one box's edges in neighbouring frames are alike for about this long."""
    hidden_std_share: float = 0.05
    """Further noise of an edge that another box covers, as a share of the box's size."""
    border_px: float = 3.0
    """An edge this close to the border of the image is cut by it …"""
    border_share: float = 0.05
    """… or this close as a share of the box's size: detectors end cut boxes a little before the border."""
    speed_std_mps: float = 20.0
    """Of an object never seen before, relative to us."""
    closing_sigmas: float = 1.5
    """A time to collision is reported where the closing speed is above 0 by this many standard deviations."""
    closing_min_mps: float = 0.5
    """And above this."""
    network_std_factor: float = 1.5
    """Factor on the standard deviation of the network's own distance, where the model gives one: it looks at the same
    box."""
    closing_keep: float = 0.5
    """Hysteresis: once reported, it stays reported down to this share of both thresholds."""
    speed_report_std_mps: float = 5.0
    """A speed is reported where its standard deviation, towards us, is below this, or where it surely closes."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """How sizes and headings are filtered, where the model gives 3-D boxes."""
    drift: Drift = field(default_factory=Drift)
    """How the world moves between frames."""
    forget_s: float = 3.0
    """A track unseen for this long loses its place; a longer gap between frames starts everything afresh."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            found = getattr(self, setting.name)
            if isinstance(found, float) and not 0 < found < np.inf:
                raise ValueError(f"RangingConfig.{setting.name}: found {found}, expected a number above 0")
