"""What a view says to the filter: where a new object starts, and what each edge measures.

- The foot: the lower edge looks down at the road by (camera height) / (depth of the nearest point).
- The height: the upper edge looks down by (camera height − object height) / depth, where the object's height is known
  from its class only roughly at first, and better the longer it is watched.
- The sides: left and right edge give the place across the road.
- A network's own distances and the projected centres of its 3-D boxes.
"""

from __future__ import annotations

import math

import numpy as np

from perception.arrays import F32, F64
from perception.ranging.config import FARTHEST_M, NEAREST_M, RangingConfig
from perception.ranging.filter import LOG_HEIGHT, SLOPE, RangingFilter, X, Z
from perception.ranging.view import Bools, View


def place(
    joint: RangingFilter, row: int, view: View, prior: tuple[float, ...], camera_m: float, config: RangingConfig
) -> None:
    """Start a new object where foot, height and width, weighed against each other, put it.

    For an object that is seen whole this is only where the measurements are made linear: its own variance is as
    wide as the distance, and the filter does the rest. Where the foot is cut, it is all there is.

    Args:
        joint: the filter.
        row: of the object.
        view: of this frame.
        prior: of its class: log height, its spread, half width, usual half depth.
        camera_m: height of the camera.
        config: how noisy the world is.
    """
    log_height, spread, half_width, usual_depth = prior
    (left, right), (top, foot) = view.sides[:, row].tolist(), view.ends[:, row].tolist()
    tilt = view.tilt[:, row]
    cut_foot = view.cut_foot is not None and bool(view.cut_foot[row])
    cut_side = view.cut is not None and bool(view.cut[0, row] or view.cut[2, row])
    cues = []  # logarithm of the distance, its variance
    span, span_var = max(foot - top, 1e-4), float(view.foot_var[row] + view.top_var[row])
    if not cut_foot:
        cues.append((log_height - math.log(span), spread**2 + span_var / span**2))
    by_foot = math.log(camera_m / max(foot - float(joint.tilt @ tilt), 0.008))
    plane_var = float(tilt @ joint.tilt_cov @ tilt) + config.drift.slope_std_rad**2 + float(view.foot_var[row])
    cues.append((by_foot - 0.3, 1.0) if cut_foot else (by_foot, plane_var * (math.exp(by_foot) / camera_m) ** 2))
    # between the width seen from behind and from the side, which is known to some 40 %
    by_width = math.log(2 * math.sqrt(half_width * usual_depth) / max(right - left, 1e-4))
    cues.append((by_width, 0.16 + 1e3 * cut_side))
    weight = sum(1 / variance for _, variance in cues)
    face_m = math.exp(sum(cue / variance for cue, variance in cues) / weight)
    ahead_m = min(max(face_m + float(view.half_depth[row]), 1.0), 150.0)
    across_m = (left + right) / 2 * ahead_m
    ahead_std, speed_var = (0.4 if cut_foot else 1.0) * ahead_m, config.speed_std_mps**2
    variance = (ahead_m**2, speed_var, ahead_std**2, speed_var, spread**2, config.drift.slope_var(ahead_m))
    joint.begin(row, (across_m, 0.0, ahead_m, 0.0, log_height, 0.0), variance)


def learn_edges(joint: RangingFilter, view: View, repetition: F64, camera_m: float) -> None:
    """Take in foot, upper edge and sides of all boxes of this frame."""
    mean = joint.mean[:, : len(repetition)]
    ends = view.ends - joint.tilt @ view.tilt
    to_face = view.half_depth
    if view.cut is not None:
        # of an object that the side of the image cuts, any point may be the lowest that is seen
        to_face = np.where(view.cut[0] | view.cut[2], 0.3 * to_face, to_face)

    face_m = np.maximum(mean[Z] - to_face, 0.7)
    expected = camera_m / face_m
    fall = expected / face_m
    residual = ends[1] - mean[SLOPE] - expected
    variance = (fall * fall * view.half_depth_var + view.foot_var) * repetition
    if view.cut_foot is not None:
        # a foot below the image, or behind something, is at least as near as where it is cut says
        variance[view.cut_foot & (residual < 0)] = np.inf
    joint.observe(residual, SLOPE, ((Z, fall),), view.tilt, variance)

    object_m = np.exp(mean[LOG_HEIGHT])
    drop_m = camera_m - object_m  # of its upper edge below the camera
    rim_m = np.maximum(mean[Z] + np.where(drop_m > 0, view.half_depth, -to_face), 0.7)
    expected = drop_m / rim_m
    fall = expected / rim_m
    residual = ends[0] - mean[SLOPE] - expected
    variance = (fall * fall * view.half_depth_var + view.top_var) * repetition
    joint.observe(residual, SLOPE, ((Z, fall), (LOG_HEIGHT, object_m / rim_m)), view.tilt, variance)

    across_m, bearing, variance = _across(view, np.maximum(mean[Z], 0.7))
    joint.observe(across_m - mean[X], X, ((Z, bearing),), None, variance * repetition)


def learn_depths(joint: RangingFilter, depths: F32, repetition: F64, focal_px: float, std_factor: float) -> None:
    """Take in the network's own distances, (N, 2) as `Detections.depths`."""
    mean = joint.mean[:, : len(repetition)]
    ahead_m = depths[:, 0] * focal_px
    known = (ahead_m > NEAREST_M) & (ahead_m < FARTHEST_M) & (depths[:, 1] > 0)  # nor is NaN
    std_m = np.where(known, std_factor * depths[:, 1] * ahead_m, np.inf)
    joint.observe(np.where(known, ahead_m - mean[Z], 0.0), Z, (), None, std_m * std_m * repetition)


def learn_centres(
    joint: RangingFilter, bearing: F64, known: Bools, side_var: F64, repetition: F64, std_factor: float
) -> None:
    """Take in the bearings (N,) of the projected centres of 3-D boxes, where `known`."""
    mean = joint.mean[:, : len(repetition)]
    ahead_m = np.maximum(mean[Z], 0.7)
    variance = np.where(known, std_factor**2 * side_var, np.inf) * (ahead_m * ahead_m * repetition)
    # leaning on the measured bearing here and in `_across` would make their difference a distance
    joint.observe(bearing * ahead_m - mean[X], X, ((Z, mean[X] / ahead_m),), None, variance)


def _across(view: View, ahead_m: F64) -> tuple[F64, F64, F64]:
    """Place across the road from the side edges: metres, its change per metre ahead, variance in m².

    The left edge of an object to our left is its near corner, of one to our right its far corner; the right edge
    the other way round. Where one side is cut, the other edge and the usual width have to do.
    """
    (left, right), shift_m = view.sides, np.abs(view.sides) * view.half_depth
    bearing = (left + right) * 0.5
    across_m = bearing * ahead_m + (shift_m[0] - shift_m[1]) * 0.5
    variance = ahead_m * ahead_m * view.side_var + 0.05**2
    if view.cut is not None:
        cut_left, cut_right = view.cut[0], view.cut[2]
        only_left, only_right = cut_right & ~cut_left, cut_left & ~cut_right
        across_m = np.where(only_left, left * ahead_m + shift_m[0] + view.half_width, across_m)
        across_m = np.where(only_right, right * ahead_m - shift_m[1] - view.half_width, across_m)
        bearing = np.where(only_left, left, np.where(only_right, right, bearing))
        guess = (0.5 * view.half_width) ** 2 + (bearing * 0.3 * view.half_depth) ** 2
        variance = variance + (cut_left | cut_right) * np.where(only_left | only_right, guess, 1.0)
    return across_m, bearing, variance
