"""How a class name in a label file becomes a training target: the one mapping that every box dataset uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from perception.boxes import area, clip
from perception.formats.kitti import UNKNOWN_LOCATION, ObjectRows
from perception.types import CLASS_NAMES, F32, I64

CAR, PEDESTRIAN, CYCLIST = (CLASS_NAMES.index(name) for name in ("Car", "Pedestrian", "Cyclist"))
ALL_CLASSES = -1
"""In `ignore_class_ids`: the region is ignored whatever the class."""


@dataclass(frozen=True)
class LabelRule:
    """Which names are objects, which are regions to ignore; names compare without case.

    A name that is in neither map is background: finding it is a mistake.
    """

    positive: Mapping[str, int]
    """Lower-case name → class id."""
    ignore: Mapping[str, int] = field(default_factory=dict)
    """Lower-case name → class id for which its box neither rewards nor punishes; -1 for all classes."""
    background: tuple[str, ...] = ()
    """Lower-case names that are legal and mean nothing."""
    labelled_classes: tuple[bool, ...] = (True,) * len(CLASS_NAMES)
    """False for a class that the dataset does not label."""
    max_truncation: float = math.inf
    """Objects truncated beyond it become regions to ignore for their class. Tracking files count 0, 1, 2 here."""
    max_occlusion: int = 3
    """Objects occluded beyond it (0 visible … 3 unknown) become regions to ignore for their class."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every legal name, for the parser."""
        return (*self.positive, *self.ignore, *self.background)


def kitti_rule(
    *, large_vehicles_as: str = "background", max_truncation: float = math.inf, max_occlusion: int = 3
) -> LabelRule:
    """KITTI's classes as its evaluator sees them: a Truck or Tram found as Car is a false positive.

    Args:
        large_vehicles_as: 'background' as the evaluator, or 'ignore' to leave Truck, Tram and Misc out of the loss.
        max_truncation: see `LabelRule`.
        max_occlusion: see `LabelRule`.
    """
    if large_vehicles_as not in ("background", "ignore"):
        raise ValueError(f"large_vehicles_as: found {large_vehicles_as!r}, expected 'background' or 'ignore'")
    large = ("truck", "tram", "misc")
    ignore = {"van": CAR, "person_sitting": PEDESTRIAN, "person": PEDESTRIAN, "dontcare": ALL_CLASSES}
    if large_vehicles_as == "ignore":
        ignore |= dict.fromkeys(large, CAR)
    return LabelRule(
        positive={"car": CAR, "pedestrian": PEDESTRIAN, "cyclist": CYCLIST},
        ignore=ignore,
        background=() if large_vehicles_as == "ignore" else large,
        max_truncation=max_truncation,
        max_occlusion=max_occlusion,
    )


KITTI_RULE = kitti_rule()


@dataclass(frozen=True, eq=False)
class Targets:
    """The box fields of a `Sample`."""

    boxes_xyxy: F32
    class_ids: I64
    ignore_boxes_xyxy: F32
    ignore_class_ids: I64
    distances_m: F32


def targets(rows: ObjectRows, rule: LabelRule, size_hw: tuple[int, int]) -> Targets:
    """Label rows → targets. Boxes are cut to the image; those with nothing inside it are left out.

    `distances_m` is the label's z: metres ahead to the object's centre, NaN where the file marks it unknown.
    """
    names = [name.lower() for name in rows.names]
    boxes = clip(rows.boxes_xyxy, size_hw)
    visible = area(boxes) > 0
    positive = np.array([name in rule.positive for name in names], bool) & visible
    ignored = np.array([name in rule.ignore for name in names], bool) & visible
    too_hard = positive & ((rows.truncation > rule.max_truncation) | (rows.occlusion > rule.max_occlusion))
    class_ids = np.array([rule.positive.get(name, rule.ignore.get(name, ALL_CLASSES)) for name in names], np.int64)
    positive, ignored = positive & ~too_hard, ignored | too_hard
    z = rows.location_cam2[positive, 2]
    return Targets(
        boxes_xyxy=boxes[positive].astype(np.float32),
        class_ids=class_ids[positive],
        ignore_boxes_xyxy=boxes[ignored].astype(np.float32),
        ignore_class_ids=class_ids[ignored],
        distances_m=np.where(z == UNKNOWN_LOCATION, np.nan, z).astype(np.float32),
    )
