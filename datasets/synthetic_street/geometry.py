"""The camera above a flat road, and the road's centreline with its own coordinates (s along, d to the right)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datasets.synthetic_street.chance import sign as sign_of
from perception.arrays import F64
from perception.cameras.pinhole import PinholeCamera

KITTI_SIZE_HW = (375, 1242)
KITTI_P2 = np.array(
    [
        [721.5377, 0.0, 609.5593, 44.85728],
        [0.0, 721.5377, 172.854, 0.2163791],
        [0.0, 0.0, 1.0, 0.002745884],
    ]
)
"""Left colour camera of KITTI's drives of 26 September 2011 (any of the object kit's calibration files)."""
CAMERA_HEIGHT_M = 1.65
NEAR_M = 0.35
"""Geometry nearer than this plane is cut away, metres."""


def kitti_camera(size_hw: tuple[int, int], jitter: np.random.Generator | None = None) -> PinholeCamera:
    """KITTI's camera scaled to an image size; `jitter` varies focal length, centre and mounting a little."""
    P = KITTI_P2.copy()
    height_m = CAMERA_HEIGHT_M
    if jitter is not None:
        P[[0, 1], [0, 1]] *= jitter.uniform(0.97, 1.03)
        P[0, 2] += jitter.normal(0, 6.0)
        P[1, 2] += jitter.normal(0, 5.0)
        height_m = float(jitter.normal(CAMERA_HEIGHT_M, 0.04))
    P[0] *= size_hw[1] / KITTI_SIZE_HW[1]
    P[1] *= size_hw[0] / KITTI_SIZE_HW[0]
    return PinholeCamera(P, height_m)


@dataclass(frozen=True, eq=False)
class View:
    """One camera at one place: ground coordinates to camera coordinates to pixels, and rows to the road."""

    camera: PinholeCamera
    size_hw: tuple[int, int]
    x: float
    """Of the camera in the world, metres."""
    y: float
    heading: float
    """Radians, 0 along +y, positive to the right."""

    def to_camera(self, x: F64, y: F64) -> tuple[F64, F64]:
        """World ground points → (X right, Z ahead) in camera coordinates, metres."""
        dx, dy = x - self.x, y - self.y
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return dx * cos - dy * sin, dx * sin + dy * cos

    def point_to_camera(self, x: float, y: float) -> tuple[float, float]:
        """`to_camera` for one point."""
        dx, dy = x - self.x, y - self.y
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        return dx * cos - dy * sin, dx * sin + dy * cos

    def project(self, X: np.ndarray, up: np.ndarray, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Camera X, height above the road and Z → pixels (u, v). Points must lie before the near plane."""
        P = self.camera.P_cam2
        w = Z + P[2, 3]
        down = self.camera.height_m - up
        return (P[0, 0] * X + P[0, 2] * Z + P[0, 3]) / w, (P[1, 1] * down + P[1, 2] * Z + P[1, 3]) / w

    def row_depth(self, rows: np.ndarray) -> np.ndarray:
        """Distance Z at which the road crosses each pixel row; infinite on and above the horizon."""
        P = self.camera.P_cam2
        below = rows - P[1, 2]
        top = P[1, 1] * self.camera.height_m + P[1, 3] - rows * P[2, 3]
        return np.where(below > 1e-3, top / np.maximum(below, 1e-3), np.inf)

    def column_ray(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """X = a·Z + b for each pixel column."""
        P = self.camera.P_cam2
        return (columns - P[0, 2]) / P[0, 0], (columns * P[2, 3] - P[0, 3]) / P[0, 0]

    @cached_property
    def P_rows(self) -> list[list[float]]:
        """The projection matrix as plain numbers, for single points."""
        return self.camera.P_cam2.tolist()

    @property
    def horizon(self) -> float:
        return float(self.camera.P_cam2[1, 2])


class Centreline:
    """A smooth road line sampled every metre from `start_m`; s is the distance along it."""

    def __init__(self, rng: np.random.Generator, start_m: float, length_m: float, curviness: float) -> None:
        count = int(length_m) + 2
        curvature = np.zeros(count)
        at = int(rng.uniform(0, 60))
        while at < count and curviness > 0:
            # a bend turns by at most 40°, and the next comes when the last has left the view
            span = int(rng.uniform(30, 90))
            turn = min(0.7, float(rng.uniform(0.08, 0.7)) * curviness) * sign_of(rng)
            window = np.hanning(span) * (turn / max(np.hanning(span).sum(), 1))
            stop = min(count, at + span)
            curvature[at:stop] += window[: stop - at]
            at = stop + int(rng.uniform(50, 140))
        self.start_m = start_m
        self.heading: F64 = np.concatenate([[0.0], np.cumsum(curvature)[:-1]])
        self.x: F64 = np.concatenate([[0.0], np.cumsum(np.sin(self.heading))[:-1]])
        self.y: F64 = np.concatenate([[0.0], np.cumsum(np.cos(self.heading))[:-1]])
        self._points = list(zip(self.x.tolist(), self.y.tolist(), self.heading.tolist(), strict=True))

    def at(self, s: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World x, y and heading at distance s along the line."""
        grid = np.asarray(s, np.float64) - self.start_m
        low = np.clip(grid.astype(np.int64), 0, len(self.x) - 2)
        part = grid - low
        heading = self.heading[low] + (self.heading[low + 1] - self.heading[low]) * part
        x = self.x[low] + (self.x[low + 1] - self.x[low]) * part
        y = self.y[low] + (self.y[low + 1] - self.y[low]) * part
        return x, y, heading

    def place_one(self, s: float, d: float) -> tuple[float, float, float]:
        """`place` for one point, an order of magnitude quicker."""
        grid = s - self.start_m
        low = min(max(int(grid), 0), len(self._points) - 2)
        part = grid - low
        x0, y0, h0 = self._points[low]
        x1, y1, h1 = self._points[low + 1]
        heading = h0 + (h1 - h0) * part
        return (
            x0 + (x1 - x0) * part + math.cos(heading) * d,
            y0 + (y1 - y0) * part - math.sin(heading) * d,
            heading,
        )

    def place(self, s: np.ndarray | float, d: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World x, y and heading of the point d metres to the right of the line."""
        x, y, heading = self.at(s)
        return x + np.cos(heading) * d, y - np.sin(heading) * d, heading
