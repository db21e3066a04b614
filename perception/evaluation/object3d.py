"""KITTI's bird's-eye-view (BEV) and 3D scores: which boxes overlap, and which class is scored.

Matching, levels and numbers are those of the 2D scores (`object.py`); only the overlap and the class gates differ.
The level and the height test use the *2D* box here too, so a result whose 2D box has no height counts nowhere.

Surprising rules of the devkit, which hold here too:

- DontCare counts through its own 3-D numbers: sizes of -1 at -1000, a 1 m square far away. A result in a DontCare
  region of the image is forgiven in 2D and is a false positive in BEV and 3D.
- A row without a 3-D box (sizes -1 at -1000) lies on that square: BEV forgives it where the frame has a DontCare, 3D
  never does, as the common height is negative.
- A class is scored in BEV if one of its rows has x and z other than -1000 and a positive width and length; in 3D, if
  y and the height are legal as well. That row opens the metric for all rows; a class without it is absent, not 0.

Where exactly one of width and length is negative the devkit crashes; here such a box overlaps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from perception.arrays import F64, I64
from perception.boxes3d import areas_bev, intersections_bev, shared_heights, volumes
from perception.evaluation.object_matching import (
    MINIMUM_OVERLAP,
    Overlaps,
    Roles,
    dontcare_pairs,
    minimum_overlaps,
    possible_pairs,
)
from perception.evaluation.pairs import concatenate
from perception.evaluation.results import METRICS_3D
from perception.formats.kitti import UNKNOWN_LOCATION
from perception.formats.kitti_table import ObjectTable

LOOSE_OVERLAP = {"Car": 0.5, "Pedestrian": 0.25, "Cyclist": 0.25}
"""The second set of overlaps, for BEV and 3D alone."""


@dataclass(frozen=True)
class Metric3d:
    """One way to score 3-D boxes."""

    kind: Literal["BEV", "3D"]
    loose: bool

    def minimum_overlap(self, class_name: str) -> float:
        """Overlap that a match must exceed."""
        return (LOOSE_OVERLAP if self.loose else MINIMUM_OVERLAP)[class_name]

    def label(self, class_name: str) -> str:
        """Name with the overlap, such as 'BEV 0.7'."""
        return f"{self.kind} {self.minimum_overlap(class_name):g}"


METRICS = {
    "bev": Metric3d("BEV", loose=False),
    "3d": Metric3d("3D", loose=False),
    "bev_loose": Metric3d("BEV", loose=True),
    "3d_loose": Metric3d("3D", loose=True),
}
assert tuple(METRICS) == METRICS_3D


def boxes_xyzlhwr(table: ObjectTable) -> F64:
    """Return the 3-D boxes of a table, (N, 7), as `perception.boxes3d` takes them."""
    height, width, length = table.dimensions_hwl.T
    return np.column_stack([table.location_cam2, length, height, width, table.rotation_y])


def has_box(table: ObjectTable, kind: Literal["BEV", "3D"]) -> np.ndarray:
    """Tell which rows carry a box for BEV, or a whole one for 3D, (N,) bool: what opens a class for scoring."""
    (x, y, z), (height, width, length) = table.location_cam2.T, table.dimensions_hwl.T
    flat = (x != UNKNOWN_LOCATION) & (z != UNKNOWN_LOCATION) & (width > 0) & (length > 0)
    return flat if kind == "BEV" else flat & (y != UNKNOWN_LOCATION) & (height > 0)


def find_overlaps_3d(gt: ObjectTable, detections: ObjectTable, roles: Roles) -> dict[str, Overlaps]:
    """Overlap the 3-D boxes of labels and results, for each of `METRICS`."""
    gt_boxes, det_boxes = boxes_xyzlhwr(gt), boxes_xyzlhwr(detections)
    pairs = [
        (i, j, *_shared(det_boxes[j], gt_boxes[i]))
        for i, j in (_near(gt_boxes, det_boxes, *pair) for pair in possible_pairs(gt, detections, roles))
    ]
    pair_gt, pair_det, area, volume = concatenate(pairs, (int, int, float, float))
    regions = [
        (j, *_shared(det_boxes[j], gt_boxes[i]))
        for i, j in (_near(gt_boxes, det_boxes, *pair) for pair in dontcare_pairs(gt, detections, roles))
    ]
    in_region, region_area, region_volume = concatenate(regions, (int, float, float))

    found = {}
    whole = {"BEV": (areas_bev(gt_boxes), areas_bev(det_boxes)), "3D": (volumes(gt_boxes), volumes(det_boxes))}
    shared = {"BEV": (area, region_area), "3D": (volume, region_volume)}
    for name, metric in METRICS.items():
        of_gt, of_det = whole[metric.kind]
        of_pair, of_region = shared[metric.kind]
        minimum = minimum_overlaps({one: metric.minimum_overlap(one) for one in MINIMUM_OVERLAP})
        iou = _ratio(of_pair, of_gt[pair_gt] + of_det[pair_det] - of_pair)
        enough = iou > minimum[roles.gt_class[pair_gt]]
        inside = _ratio(of_region, of_det[in_region]) > minimum[roles.det_class[in_region]]
        det_dontcare = np.zeros(len(detections), bool)
        det_dontcare[in_region[inside]] = True
        pair = pair_gt[enough], pair_det[enough]
        found[name] = Overlaps(roles, det_dontcare, *pair, iou[enough], np.zeros(int(enough.sum())))
    return found


def _near(gt_boxes: F64, det_boxes: F64, i: I64, j: I64) -> tuple[I64, I64]:
    """The pairs whose circumscribed circles on the ground meet: no others share anything."""
    a, b = gt_boxes[i], det_boxes[j]
    reach = (np.hypot(a[:, 3], a[:, 5]) + np.hypot(b[:, 3], b[:, 5])) / 2
    near = np.hypot(a[:, 0] - b[:, 0], a[:, 2] - b[:, 2]) <= reach
    return i[near], j[near]


def _shared(a: F64, b: F64) -> tuple[F64, F64]:
    """Shared ground area and shared volume of row i of both, (N,) each."""
    area = intersections_bev(a, b)
    return area, area * shared_heights(a, b)


def _ratio(part: F64, whole: F64) -> F64:
    """part / whole, 0 where nothing is shared: the devkit's 0/0 compares false."""
    return np.divide(part, whole, out=np.zeros_like(part), where=(part > 0) & (whole != 0))
