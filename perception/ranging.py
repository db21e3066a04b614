"""Metres and seconds: where each tracked object stands on the road, how fast it comes, and how sure that is.

First version: the foot on the road plane and the height against the class's size, each by its own variance,
smoothed by a constant-velocity Kalman filter in metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from perception.camera import PinholeCamera
from perception.types import F64, Track

HEIGHT_PRIORS_M: Mapping[str, tuple[float, float]] = {
    "Car": (1.530, 0.138),
    "Pedestrian": (1.768, 0.130),
    "Cyclist": (1.723, 0.104),
}
"""Mean and standard deviation over KITTI's 3,712 training images."""


@dataclass(frozen=True)
class RangingConfig:
    """What the ranger believes before it has seen anything."""

    heights_m: Mapping[str, tuple[float, float]] = field(default_factory=lambda: HEIGHT_PRIORS_M)
    """Class name → mean and standard deviation of the object's height, metres."""
    edge_std_px: float = 1.5
    """Noise of one edge of a box, pixels."""
    pitch_std_rad: float = 0.010
    """Nodding of the camera and slope of the road together."""
    acceleration_mps2: float = 3.0
    """How fast a relative velocity may change."""
    forget_s: float = 3.0
    """A track that was not seen for this long is forgotten."""


class Ranger:
    """Fills the metric fields of tracks. One instance follows one camera."""

    def __init__(
        self, camera: PinholeCamera, class_names: tuple[str, ...], config: RangingConfig = RangingConfig()
    ) -> None:
        self.camera, self.config = camera, config
        fallback = (1.6, 0.3)
        self._heights = [config.heights_m.get(name, fallback) for name in class_names] or [fallback]
        self._fallback = fallback
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._states: dict[int, tuple[int, F64, F64]] = {}

    def update(self, tracks: tuple[Track, ...], timestamp_ns: int, size_hw: tuple[int, int]) -> tuple[Track, ...]:
        """The same tracks with position, speed and time to collision.

        Args:
            tracks: of this frame.
            timestamp_ns: moment of capture.
            size_hw: of the frame, to know which boxes its border cuts.
        """
        horizon_ns = timestamp_ns - int(self.config.forget_s * 1e9)
        self._states = {i: s for i, s in self._states.items() if horizon_ns <= s[0] <= timestamp_ns}
        return tuple(self._one(track, timestamp_ns, size_hw) for track in tracks)

    def _measure(self, track: Track, size_hw: tuple[int, int]) -> tuple[F64, F64] | None:
        """Position (x, z) and its variance from one box, None where it tells nothing."""
        left, top, right, bottom = map(float, track.box_xyxy)
        if not np.isfinite([left, top, right, bottom]).all() or bottom - top < 1 or right - left < 1:
            return None
        focal_x, focal_y = self.camera.P_cam2[0, 0], self.camera.P_cam2[1, 1]
        noise, cut = self.config.edge_std_px, 2.0
        known = 0 <= track.class_id < len(self._heights)
        mean_m, std_m = self._heights[track.class_id] if known else self._fallback
        weights, depths = [1e-6], [30.0]
        if top > cut and bottom < size_hw[0] - cut:
            depth = focal_y * mean_m / (bottom - top)
            depths.append(depth)
            weights.append(1 / (depth * np.hypot(std_m / mean_m, 1.4 * noise / (bottom - top))) ** 2)
        foot = self.camera.ground_position(np.array([[(left + right) / 2, bottom]]))[0]
        if bottom < size_hw[0] - cut and np.isfinite(foot).all() and 0 < foot[1] < 200:
            slope = np.hypot(noise / focal_y, self.config.pitch_std_rad)
            depths.append(float(foot[1]))
            weights.append(1 / (foot[1] ** 2 / self.camera.height_m * slope) ** 2)
        depth = float(np.average(depths, weights=weights))
        variance = 1 / sum(weights)
        bearing = ((left + right) / 2 - self.camera.P_cam2[0, 2]) / focal_x
        return np.array([bearing * depth, depth]), np.array(
            [bearing**2 * variance + (depth * noise / focal_x) ** 2 + 0.05, variance]
        )

    def _one(self, track: Track, timestamp_ns: int, size_hw: tuple[int, int]) -> Track:
        measured = self._measure(track, size_hw) if track.frames_since_seen == 0 else None
        old = self._states.get(track.track_id)
        if old is None and measured is None:
            return track
        if old is None:
            assert measured is not None
            mean = np.concatenate([measured[0], [0, 0]])
            cov = np.diag([*measured[1], 100.0, 100.0])
        else:
            dt_s = (timestamp_ns - old[0]) * 1e-9
            move = np.eye(4)
            move[0, 2] = move[1, 3] = dt_s
            kick = np.kron(np.array([[dt_s**4 / 4, dt_s**3 / 2], [dt_s**3 / 2, dt_s**2]]), np.eye(2))
            mean = move @ old[1]
            cov = move @ old[2] @ move.T + self.config.acceleration_mps2**2 * kick
            if measured is not None:
                gain = cov[:, :2] @ np.linalg.inv(cov[:2, :2] + np.diag(measured[1]))
                mean = mean + gain @ (measured[0] - mean[:2])
                cov = cov - gain @ cov[:2]
        self._states[track.track_id] = (timestamp_ns, mean, cov)
        distance = float(np.hypot(mean[0], mean[1]))
        closing = -float(mean[:2] @ mean[2:]) / max(distance, 1e-6)
        closing_std = float(np.sqrt(max(cov[3, 3], 0)))
        return replace(
            track,
            position_m=(float(mean[0]), float(mean[1])),
            position_std_m=(float(np.sqrt(cov[0, 0])), float(np.sqrt(cov[1, 1]))),
            distance_m=distance,
            velocity_mps=(float(mean[2]), float(mean[3])),
            ttc_s=distance / closing if closing > max(0.5, 2 * closing_std) else None,
        )
