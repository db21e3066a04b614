"""The only overlaps of 3-D boxes, seen from above (bird's-eye view, BEV) and in space.

Boxes are `boxes_xyzlhwr`, (N, 7), metres in camera coordinates: the bottom centre (x right, y down, z ahead), then
length, height and width, then KITTI's `rotation_y` in radians. Length lies along x at rotation 0. A box spans
[y - h, y].

Negative length and width together give the same rectangle. A box overlaps nothing if exactly one of them is negative,
or if either is 0. A height of 0 or less changes nothing seen from above and overlaps nothing in space.
"""

from __future__ import annotations

import numpy as np

from perception.arrays import F64


def corners_bev(boxes_xyzlhwr: F64) -> F64:
    """Return the corners on the ground, (N, 4, 2) of x, z, in order round the box."""
    length, width = (boxes_xyzlhwr[:, column, None] / 2 for column in (3, 5))
    along = length * np.array([1.0, 1.0, -1.0, -1.0])  # (N, 4)
    across = width * np.array([1.0, -1.0, -1.0, 1.0])
    cos, sin = np.cos(boxes_xyzlhwr[:, 6, None]), np.sin(boxes_xyzlhwr[:, 6, None])
    offset = np.stack([cos * along + sin * across, cos * across - sin * along], axis=-1)
    return boxes_xyzlhwr[:, None, (0, 2)] + offset


def corners_3d(boxes_xyzlhwr: F64) -> F64:
    """Return all corners, (N, 8, 3): the four on the ground in order round the box, then those above them.

    The front is between corners 0 and 1.
    """
    ground = corners_bev(boxes_xyzlhwr)  # (N, 4, 2)
    corners = np.empty((len(ground), 8, 3))
    corners[:, :4, 0] = corners[:, 4:, 0] = ground[..., 0]
    corners[:, :4, 2] = corners[:, 4:, 2] = ground[..., 1]
    corners[:, :4, 1] = boxes_xyzlhwr[:, None, 1]
    corners[:, 4:, 1] = (boxes_xyzlhwr[:, 1] - boxes_xyzlhwr[:, 4])[:, None]
    return corners


def areas_bev(boxes_xyzlhwr: F64) -> F64:
    """Return length times width, (N,); negative where one of them alone is negative."""
    return boxes_xyzlhwr[:, 3] * boxes_xyzlhwr[:, 5]


def volumes(boxes_xyzlhwr: F64) -> F64:
    """Return length times width times height, (N,)."""
    return areas_bev(boxes_xyzlhwr) * boxes_xyzlhwr[:, 4]


def intersections_bev(a: F64, b: F64) -> F64:
    """Return the shared ground area of box i of `a` with box i of `b`, (N,), exact to rounding.

    In the frame of b its sides are parallel to the axes. By Green's theorem the area is an integral along the edges
    of a: x clamped to b's range, over dy, within b's range of y. Each edge has a continuous closed form, so shared
    edges and corners need no special case.
    """
    half_x, half_y = np.abs(b[:, 3, None]) / 2, np.abs(b[:, 5, None]) / 2
    offset = corners_bev(a) - b[:, None, (0, 2)]  # (N, 4, 2)
    cos, sin = np.cos(b[:, 6, None]), np.sin(b[:, 6, None])
    x = cos * offset[..., 0] - sin * offset[..., 1] + half_x  # (N, 4) from b's left side
    y = sin * offset[..., 0] + cos * offset[..., 1]
    x_next, y_next = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    start, end = np.clip(y, -half_y, half_y), np.clip(y_next, -half_y, half_y)
    rise = y_next - y
    slope = np.divide(x_next - x, rise, out=np.zeros_like(rise), where=rise != 0)
    x_start, x_end = x + slope * (start - y), x + slope * (end - y)
    shared = np.abs(((end - start) * _mean_clamped(x_start, x_end, 2 * half_x)).sum(axis=1))
    return np.where((areas_bev(a) > 0) & (areas_bev(b) > 0), shared, 0.0)


def _mean_clamped(start: F64, end: F64, limit: F64) -> F64:
    """Return the mean of clamp(x, 0, limit) while x runs from `start` to `end`."""
    low, high = np.clip(start, 0, limit), np.clip(end, 0, limit)
    length = end - start
    inside = (high - low) * (low + high) / 2
    above = limit * (np.maximum(end, limit) - np.maximum(start, limit))
    return np.divide(inside + above, length, out=low, where=length != 0)


def shared_heights(a: F64, b: F64) -> F64:
    """Return the length of the common range of y of box i of `a` and box i of `b`, (N,)."""
    top = np.maximum(a[:, 1] - a[:, 4], b[:, 1] - b[:, 4])
    return np.maximum(np.minimum(a[:, 1], b[:, 1]) - top, 0)


def iou_bev(a: F64, b: F64) -> F64:
    """Return intersection over union on the ground of box i of `a` and box i of `b`, (N,); 0 where both are empty."""
    shared = intersections_bev(a, b)
    return _ratio(shared, areas_bev(a) + areas_bev(b) - shared)


def iou_3d(a: F64, b: F64) -> F64:
    """Return intersection over union in space of box i of `a` and box i of `b`, (N,); 0 where both are empty."""
    shared = intersections_bev(a, b) * shared_heights(a, b)
    return _ratio(shared, volumes(a) + volumes(b) - shared)


def _ratio(shared: F64, whole: F64) -> F64:
    return np.divide(shared, whole, out=np.zeros_like(shared), where=(whole > 0) & (shared > 0))
