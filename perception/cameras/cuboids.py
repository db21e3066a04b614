"""Between 3-D boxes in camera coordinates and what a network sees of them in the image.

A network reports pixels, sizes and the observation angle. Only the calibration of that very image turns them into
metres ahead, a place to the side and a heading.
"""

from __future__ import annotations

import numpy as np

from perception.arrays import F32, F64
from perception.cameras.pinhole import PinholeCamera

COLUMNS = ("u", "v", "length_m", "width_m", "height_m", "alpha_rad", "size_std", "alpha_std_rad", "reversed")
"""Columns of `Detections.cuboids`. The last three are a relative standard deviation, that of the axis in radians, and
the probability that front and rear are confused, which model files of earlier versions lack."""
U, V, LENGTH, WIDTH, HEIGHT, ALPHA, SIZE_STD, ALPHA_STD, REVERSED = range(len(COLUMNS))
WIDTHS = (REVERSED, len(COLUMNS))
"""Numbers of columns that are read."""
SURE = 0.05
"""Front and rear count as told apart where the probability of the other way round is at most this."""


def wrap(angles_rad: F64) -> F64:
    """Return angles in [-π, π)."""
    return np.asarray((angles_rad + np.pi) % (2 * np.pi) - np.pi, np.float64)


def heading_variance(axis_var: F64, reversed_share: F64) -> F64:
    """Return the variance of headings, given that of their axis and the probability of the other way round.

    Where front and rear are not told apart to 95 %, it holds the other way round as well.
    """
    return np.asarray(axis_var + np.pi**2 * np.maximum(reversed_share - SURE, 0.0), np.float64)


def cuboids_to_boxes(cuboids: F32, depths: F32, camera: PinholeCamera) -> F64:
    """Place cuboids in space.

    The depth is that of the centre along the camera's axis. The heading follows from the observation angle and the
    direction to the object: `rotation_y = alpha + atan2(x, z)`, as KITTI's labels define it.

    Args:
        cuboids: (N, 8 or 9) as `Detections.cuboids`, pixels of the image that `camera` belongs to.
        depths: (N, 2) as `Detections.depths`.
        camera: calibration of that image, after any crop and resize.

    Returns:
        `boxes_xyzlhwr` (N, 7) in camera coordinates, see `perception.boxes3d`.
    """
    seen, P = np.asarray(cuboids, np.float64), camera.P_cam2
    z = np.asarray(depths, np.float64)[:, 0] * P[1, 1]
    pixels = np.concatenate([seen[:, :2], np.ones((len(seen), 1))], axis=1)
    # P · (x, y, z, 1) = w · (u, v, 1), and the last row of P makes w = z + P[2, 3]
    centres = np.linalg.solve(camera.K_cam2, ((z + P[2, 3])[:, None] * pixels - P[:, 3]).T).T  # (N, 3)
    boxes = np.empty((len(seen), 7))
    boxes[:, :3] = centres
    boxes[:, 1] += seen[:, HEIGHT] / 2
    boxes[:, 3:6] = seen[:, (LENGTH, HEIGHT, WIDTH)]
    boxes[:, 6] = wrap(seen[:, ALPHA] + np.arctan2(centres[:, 0], centres[:, 2]))
    return boxes


def boxes_to_image(boxes_xyzlhwr: F64, camera: PinholeCamera) -> tuple[F64, F64]:
    """Return the pixels (N, 2) of the centres of 3-D boxes, and their observation angles (N,).

    The pixels of a centre that is not ahead of the camera are NaN.
    """
    boxes = np.asarray(boxes_xyzlhwr, np.float64)
    centres = boxes[:, :3] - np.array([0.0, 0.5, 0.0]) * boxes[:, 4:5]
    ahead = centres[:, 2] > 0
    pixels = np.full((len(boxes), 2), np.nan)
    pixels[ahead] = camera.project(centres[ahead])
    return pixels, wrap(boxes[:, 6] - np.arctan2(boxes[:, 0], boxes[:, 2]))
