"""More frames of KITTI's tracking benchmark, reduced to 640x192; their calibration is that of the full frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from datasets import kitti_tracking
from datasets.catalogue import ExtraLabels
from datasets.kitti_tracking import KittiTracking

FULL_HW = (375, 1242)
"""Size of the frames of 26 September 2011, which sequence 0006 is from."""


def _open(folder: Path, labels: ExtraLabels) -> KittiTracking:
    if (folder / "training/calib").is_dir():
        return KittiTracking(folder)
    return KittiTracking(folder, calibrations=folder.parent / "tracking/training/calib", full_hw=FULL_HW)


DATA_SET = replace(
    kitti_tracking.DATA_SET,
    name="kitti/tracking_640x192",
    folders=("kitti/tracking_640x192",),
    open=_open,
    weight=0.12,
    chosen_for=268,
    order=2,
)
