"""Map the class names of label files to training targets. Every data set with boxes uses this mapping."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from perception.arrays import F32, I64
from perception.boxes import area, clip
from perception.classes import DEFAULT_CLASSES, KNOWN_CLASSES, ClassInfo
from perception.formats.kitti import OBJECT_CLASSES, UNKNOWN_LOCATION, ObjectRows
from perception.types import CLASS_NAMES

CAR, PEDESTRIAN, CYCLIST = (CLASS_NAMES.index(name) for name in ("Car", "Pedestrian", "Cyclist"))
ALL_CLASSES = -1
"""Value of `ignore_class_ids` for a region that is ignored for all classes."""


@dataclass(frozen=True)
class LabelRule:
    """Names of objects and of ignore regions, case-insensitive.

    Any other name is background, so a detection of it is a false positive.
    """

    positive: Mapping[str, int]
    """Lower-case name → class id."""
    ignore: Mapping[str, int] = field(default_factory=dict)
    """Lower-case name → class id for which its box is an ignore region; -1 for all classes."""
    background: tuple[str, ...] = ()
    """Valid lower-case names that are background."""
    labelled_classes: tuple[bool, ...] = (True,) * len(CLASS_NAMES)
    """Classes that the data set labels."""
    class_names: tuple[str, ...] = CLASS_NAMES
    """What class ids count, see `Sample`."""
    max_truncation: float = math.inf
    """Truncation above which an object becomes an ignore region of its class. Tracking files have levels 0, 1, 2."""
    max_occlusion: int = 3
    """Occlusion (0 visible … 3 unknown) above which an object becomes an ignore region of its class."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return all valid names, for the parser."""
        return (*self.positive, *self.ignore, *self.background)


def kitti_rule(
    *, large_vehicles_as: str = "background", max_truncation: float = math.inf, max_occlusion: int = 3
) -> LabelRule:
    """Return the rule of KITTI's evaluator, in which a Truck or Tram detected as Car is a false positive.

    Args:
        large_vehicles_as: 'background', as in the evaluator, or 'ignore' to exclude Truck, Tram and Misc.
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


def numbering(classes: Sequence[ClassInfo]) -> tuple[str, ...]:
    """Return what class ids count in the samples of a run: `CLASS_NAMES`, then the network's other classes.

    Readers and augmentation that know `CLASS_NAMES` alone keep their numbers; the images of a batch are renumbered.
    """
    return tuple(dict.fromkeys((*CLASS_NAMES, *(info.name for info in classes))))


def rule_of(classes: Sequence[ClassInfo], labelled: Collection[str] = OBJECT_CLASSES) -> LabelRule:
    """Return the rule of a run's classes for a data set.

    A neighbour that is a class of its own is background for the others; one of several classes is ignored for all.

    Args:
        classes: of the network.
        labelled: label names that the set labels wherever they appear.
    """
    if tuple(classes) == DEFAULT_CLASSES and set(labelled) >= set(OBJECT_CLASSES) - {"DontCare"}:
        return KITTI_RULE
    names, labels = numbering(classes), {name.lower() for name in labelled}
    own = {info.name for info in classes}
    every = (*classes, *(info for name, info in KNOWN_CLASSES.items() if name not in own))
    positive: dict[str, int] = {}
    for info in every:  # the network's classes come first, and claim their labels
        for label in info.label_names:
            positive.setdefault(label, names.index(info.name))
    ignore = {"dontcare": ALL_CLASSES}
    for info in every:
        for label in (name.lower() for name in info.neighbours):
            class_id = names.index(info.name)
            if label not in positive:
                ignore[label] = class_id if ignore.get(label, class_id) == class_id else ALL_CLASSES
    return LabelRule(
        positive=positive,
        ignore=ignore,
        background=tuple(sorted(labels - set(positive) - set(ignore))),
        labelled_classes=tuple(
            any(positive.get(label) == i and label in labels for label in positive) for i in range(len(names))
        ),
        class_names=names,
    )


@dataclass(frozen=True, eq=False)
class Targets:
    """The box fields of a `Sample`."""

    boxes_xyxy: F32
    class_ids: I64
    ignore_boxes_xyxy: F32
    ignore_class_ids: I64
    distances_m: F32
    boxes_xyzlhwr: F32


def boxes_xyzlhwr(rows: ObjectRows) -> F32:
    """Return the 3-D boxes (N, 7) of label rows; NaN where the file marks the place or a size as unknown."""
    place, hwl = rows.location_cam2, rows.dimensions_hwl
    boxes = np.concatenate([place, hwl[:, (2, 0, 1)], rows.rotation_y[:, None]], axis=1).astype(np.float32)
    boxes[(place == UNKNOWN_LOCATION).any(axis=1) | (hwl <= 0).any(axis=1)] = np.nan
    return boxes


def targets(rows: ObjectRows, rule: LabelRule, size_hw: tuple[int, int]) -> Targets:
    """Convert label rows to targets. Boxes are clipped to the image, and boxes outside it are dropped.

    `distances_m` is the label's z, the distance ahead to the object's centre; NaN where the file marks it unknown.
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
        boxes_xyzlhwr=boxes_xyzlhwr(rows[positive]),
    )
