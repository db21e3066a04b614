"""How far 3-D boxes are off: place, heading and size of every object that was found in the image.

A result belongs to a label if the two match in 2D. A match in BEV would hide the errors, since a box that is far off
matches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perception.arrays import F64, I64
from perception.evaluation.object import match_objects
from perception.evaluation.object3d import has_box
from perception.formats.kitti_table import ObjectTable

BINS_M: tuple[tuple[float, float], ...] = (*((low, low + 10.0) for low in range(0, 60, 10)), (60.0, np.inf))
"""Stretches of distance ahead, metres; low included, high not."""

MOST_WEIGHTS = 4_000_000
"""Weights of objects held at once by `weighted_medians`, which bounds its memory."""


@dataclass(frozen=True, eq=False)
class BoxErrors:
    """Result minus label of N objects."""

    distance_m: F64
    """(N,) of the label, straight ahead."""
    depth_m: F64
    """(N,) error ahead; positive is too far."""
    lateral_m: F64
    """(N,) error to the right."""
    heading_deg: F64
    """(N,) absolute error of `rotation_y`, 0..180."""
    length_m: F64
    width_m: F64
    height_m: F64
    frames: I64
    """(N,) index of the label's frame."""

    def __len__(self) -> int:
        return len(self.distance_m)

    def __getitem__(self, index: np.ndarray) -> BoxErrors:
        """A subset by boolean mask or integer array."""
        return BoxErrors(**{name: values[index] for name, values in vars(self).items()})


def heading_error_deg(found_rad: F64, truth_rad: F64) -> F64:
    """Return the absolute difference of two headings, (N,), degrees 0..180; the angles may be of any turn."""
    difference = np.degrees(found_rad - truth_rad)
    return np.abs((difference + 180) % 360 - 180)


def box_errors(
    gt: ObjectTable, detections: ObjectTable, class_name: str, level: str, score_threshold: float = -np.inf
) -> BoxErrors:
    """Compare the boxes of labels and results that match in 2D; pairs without a whole 3-D box are left out.

    Args:
        gt: labels.
        detections: results of the same frames.
        class_name: class to compare.
        level: difficulty of the labels that count.
        score_threshold: least score of a result.
    """
    matches = match_objects(gt, detections, class_name, level, score_threshold)
    rows, found = matches.gt_rows[matches.is_tp], matches.gt_det_rows[matches.is_tp]
    whole = has_box(gt, "3D")[rows] & has_box(detections, "3D")[found]
    rows, found = rows[whole], found[whole]
    place = detections.location_cam2[found] - gt.location_cam2[rows]
    size_hwl = detections.dimensions_hwl[found] - gt.dimensions_hwl[rows]
    return BoxErrors(
        distance_m=gt.location_cam2[rows, 2],
        depth_m=place[:, 2],
        lateral_m=place[:, 0],
        heading_deg=heading_error_deg(detections.rotation_y[found], gt.rotation_y[rows]),
        length_m=size_hwl[:, 2],
        width_m=size_hwl[:, 1],
        height_m=size_hwl[:, 0],
        frames=gt.frames[rows],
    )


COMPARED = {"depth": "m", "lateral": "m", "size": "m", "heading": "°"}
"""Errors whose medians two runs are compared by, and their units. Size is the mean of length, width and height."""


def compared(errors: BoxErrors) -> Mapping[str, F64]:
    """Return the absolute errors of `COMPARED`, (N,) each."""
    size = np.abs([errors.length_m, errors.width_m, errors.height_m]).mean(axis=0)
    return {
        "depth": np.abs(errors.depth_m),
        "lateral": np.abs(errors.lateral_m),
        "size": size,
        "heading": errors.heading_deg,
    }


def weighted_medians(values: F64, frames: I64, weights: I64) -> F64:
    """Return the median of values under each of R weightings of their frames, (R,); NaN where nothing has weight.

    Args:
        values: (N,).
        frames: (N,) index of each value's frame.
        weights: (R, F) how often each frame counts.
    """
    order = np.argsort(values, kind="stable")
    ordered, medians = values[order], np.full(len(weights), np.nan)
    at_once = max(1, MOST_WEIGHTS // max(1, len(values)))
    for start in range(0, len(weights), at_once):
        reached = weights[start : start + at_once][:, frames[order]].cumsum(axis=1)  # (r, N)
        for row, upto in enumerate(reached, start):
            if len(upto) and upto[-1]:
                # between the two middle ones, where the number is even
                low, high = np.searchsorted(upto, upto[-1] / 2), np.searchsorted(upto, upto[-1] / 2, side="right")
                medians[row] = (ordered[low] + ordered[high]) / 2
    return medians


def summarise(errors: BoxErrors) -> Mapping[str, float]:
    """Return medians and 90th percentiles of the absolute errors; NaN without objects.

    Keys: depth, lateral, heading, length, width and height, each with `_median` and `_p90`, in metres or degrees;
    `depth_bias`, the median with its sign; `heading_within_15`, the share within 15°; `flipped`, that beyond 90°.
    """
    nothing = not len(errors)
    named = {
        "depth": errors.depth_m,
        "lateral": errors.lateral_m,
        "heading": errors.heading_deg,
        "length": errors.length_m,
        "width": errors.width_m,
        "height": errors.height_m,
    }
    found: dict[str, float] = {}
    for name, values in named.items():
        median, p90 = (np.nan, np.nan) if nothing else np.percentile(np.abs(values), (50, 90))
        found |= {f"{name}_median": float(median), f"{name}_p90": float(p90)}
    found["depth_bias"] = float("nan") if nothing else float(np.median(errors.depth_m))
    found["heading_within_15"] = float("nan") if nothing else float((errors.heading_deg <= 15).mean())
    found["flipped"] = float("nan") if nothing else float((errors.heading_deg > 90).mean())
    return found


def by_distance(
    errors: BoxErrors, bins_m: Sequence[tuple[float, float]] = BINS_M
) -> list[tuple[tuple[float, float], int, Mapping[str, float]]]:
    """Summarise each stretch of distance: its ends in metres, number of objects, and `summarise`."""
    rows = []
    for low, high in bins_m:
        inside = errors[(errors.distance_m >= low) & (errors.distance_m < high)]
        rows.append(((low, high), len(inside), summarise(inside)))
    return rows
