"""The pinhole camera: projection, and where a pixel's ray meets the road plane."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perception.arrays import F64


@dataclass(frozen=True, eq=False)
class PinholeCamera:
    """A rectified camera above a flat road; axes as KITTI's: x right, y down, z ahead, metres.

    The source of the defaults is KITTI's sensor setup (Geiger et al., IJRR 2013): 1.65 m above the road.
    """

    P_cam2: F64
    """(3, 4) projection from camera coordinates to pixels, KITTI's P2."""
    height_m: float = 1.65
    """Of the optical centre above the road."""
    pitch_rad: float = 0.0
    """Positive where the camera looks down."""

    def __post_init__(self) -> None:
        if np.shape(self.P_cam2) != (3, 4):
            raise ValueError(f"P_cam2: found shape {np.shape(self.P_cam2)}, expected (3, 4)")
        if not np.isfinite(self.P_cam2).all() or self.P_cam2[0, 0] <= 0 or self.P_cam2[1, 1] <= 0:
            raise ValueError("P_cam2: expected finite numbers with positive focal lengths")
        if not self.height_m > 0:
            raise ValueError(f"height_m: found {self.height_m}, expected a positive height above the road")

    @property
    def K_cam2(self) -> F64:
        """(3, 3) intrinsics."""
        return self.P_cam2[:, :3]

    @property
    def horizon_y(self) -> float:
        """Row of the horizon in pixels, at the image centre column."""
        return float(self.P_cam2[1, 2] - self.P_cam2[1, 1] * np.tan(self.pitch_rad))

    def scaled(self, x: float, y: float) -> PinholeCamera:
        """The camera of the same images, resized by these factors."""
        return replace(self, P_cam2=self.P_cam2 * np.array([[x], [y], [1.0]]))

    def project(self, points_cam2: F64) -> F64:
        """Camera coordinates (N, 3) in metres → pixels (N, 2)."""
        homogeneous = np.concatenate([points_cam2, np.ones((len(points_cam2), 1))], axis=1)
        pixels = homogeneous @ self.P_cam2.T  # (N, 3)
        return pixels[:, :2] / pixels[:, 2:]

    def ground_position(self, pixels: F64) -> F64:
        """Where the view ray through a pixel meets the road: pixels (N, 2) → (x, z) metres (N, 2).

        Pixels on or above the horizon give NaN.
        """
        rays = np.concatenate([np.asarray(pixels, np.float64), np.ones((len(pixels), 1))], axis=1)
        rays = rays @ np.linalg.inv(self.K_cam2).T  # (N, 3), unit depth
        cos, sin = np.cos(self.pitch_rad), np.sin(self.pitch_rad)
        down = cos * rays[:, 1] + sin * rays[:, 2]  # along gravity
        ahead = cos * rays[:, 2] - sin * rays[:, 1]  # along the road
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.where(down > 1e-9, self.height_m / down, np.nan)
        # P2's fourth column moves the origin from the image plane of camera 2 to that of camera 0
        offset = np.linalg.solve(self.K_cam2, self.P_cam2[:, 3])
        return np.stack([rays[:, 0] * scale - offset[0], ahead * scale - offset[2]], axis=1)
