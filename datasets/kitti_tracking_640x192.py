"""More frames of KITTI's tracking benchmark, reduced to 640x192."""

from __future__ import annotations

from dataclasses import replace

from datasets import kitti_tracking

DATA_SET = replace(
    kitti_tracking.DATA_SET,
    name="kitti/tracking_640x192",
    folders=("kitti/tracking_640x192",),
    weight=0.12,
    chosen_for=268,
    order=2,
)
