"""What both message formats need: capture times, the ground frame, the road as a grid from above.

The ground frame of a source lies on the road below its camera: x ahead, y left, z up, as ROS (REP 103).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from perception.arrays import F64, U8
from perception.cameras.pinhole import PinholeCamera
from perception.sinks import RunInfo, SourceInfo
from perception.types import Result, RoadMask

CELL_M = 0.25
AHEAD_M, ASIDE_M = 50.0, 12.5
"""Reach of the road grid: from the camera ahead, and to each side."""
HEALTH_TOPIC = "/health"


@dataclass(frozen=True)
class Message:
    """One message, serialised."""

    topic: str
    schema: str
    schema_encoding: str
    schema_data: bytes
    encoding: str
    data: bytes
    log_ns: int


class Clock:
    """Unix time of each source's frames."""

    def __init__(self, info: RunInfo) -> None:
        self._epochs: dict[str, int] = {}
        self._last_ns: dict[str, int] = {}
        self.sources_changed(info)

    def sources_changed(self, info: RunInfo) -> None:
        """Know further sources, and forget those that are gone."""
        live_ns = time.time_ns() - time.monotonic_ns()
        self._epochs = {s.name: self._epochs.get(s.name, _epoch_ns(s, live_ns)) for s in info.sources}
        self._last_ns = {name: at_ns for name, at_ns in self._last_ns.items() if name in self._epochs}

    def of_frame(self, source: str, timestamp_ns: int) -> int:
        """Capture time since 1970, nanoseconds. A source that does not know it begins at 0."""
        at_ns = max(0, self._epochs.get(source, 0) + timestamp_ns)
        self._last_ns[source] = max(at_ns, self._last_ns.get(source, 0))
        return at_ns

    def of_event(self, source: str, timestamp_ns: int | None) -> int:
        """The same for an event; that of the latest frame where no frame showed it."""
        if timestamp_ns is not None and source in self._epochs:
            return max(0, self._epochs[source] + timestamp_ns)
        return self._last_ns.get(source) or max(self._last_ns.values(), default=0)


def _epoch_ns(source: SourceInfo, live_ns: int) -> int:
    if source.epoch_ns is not None:
        return source.epoch_ns
    return live_ns if source.live else 0


def camera_rotation(camera: PinholeCamera) -> tuple[float, float, float, float]:
    """Quaternion x, y, z, w of the camera (x right, y down, z ahead) in the ground frame."""
    # z ahead → x ahead and x right → -y, then the camera nods about its own x by the pitch
    half = -camera.pitch_rad / 2
    turn = (-0.5, 0.5, -0.5, 0.5)
    nod = (float(np.sin(half)), 0.0, 0.0, float(np.cos(half)))
    return _product(turn, nod)


def _product(
    a: tuple[float, float, float, float], b: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def road_grid(road: RoadMask, camera: PinholeCamera, size_hw: tuple[int, int]) -> U8:
    """Road confidence seen from above, (ahead, aside) uint8 in cells of `CELL_M`; 0 also where nothing is seen.

    Row 0 begins at the camera and goes ahead; column 0 is the far right, and columns go left.
    """
    ahead = np.arange(CELL_M / 2, AHEAD_M, CELL_M)
    left = np.arange(-ASIDE_M + CELL_M / 2, ASIDE_M, CELL_M)
    z, y = np.meshgrid(ahead, left, indexing="ij")
    pixels = _ground_to_pixels(np.stack([-y.ravel(), z.ravel()], axis=1), camera)
    mask = road.at_frame_size()
    column, row = np.floor(np.nan_to_num(pixels, nan=-1.0, posinf=-1, neginf=-1)).astype(np.int64).T
    seen = (column >= 0) & (column < size_hw[1]) & (row >= 0) & (row < size_hw[0])
    grid = np.zeros(z.size, np.uint8)
    grid[seen] = mask[row[seen], column[seen]]
    return grid.reshape(z.shape)


def _ground_to_pixels(points_m: F64, camera: PinholeCamera) -> F64:
    """The reverse of `PinholeCamera.ground_position`: (N, 2) x right, z ahead → pixels; NaN behind the camera."""
    offset = np.linalg.solve(camera.K_cam2, camera.P_cam2[:, 3])
    right, along = points_m[:, 0] + offset[0], points_m[:, 1] + offset[2]
    cos, sin = np.cos(camera.pitch_rad), np.sin(camera.pitch_rad)
    rays = np.stack(
        [right, cos * camera.height_m - sin * along, sin * camera.height_m + cos * along], axis=1
    )  # x right, y down, z along the optical axis
    pixels = rays @ camera.K_cam2.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(pixels[:, 2:] > 0.1, pixels[:, :2] / pixels[:, 2:], np.nan)


def boxes_on_ground(result: Result, camera: PinholeCamera) -> list[tuple[int, F64, F64, float]]:
    """Row of the track, middle (x, y, z) in the ground frame, size (along, across, up) in metres, heading in radians.

    Tracks without a position are left out. Where the network reports no cuboid, the width and height are those that
    the box has at its distance, the length is the width, and the heading is 0.
    """
    found: list[tuple[int, F64, F64, float]] = []
    for row, track in enumerate(result.tracks):
        if track.position_m is None or track.distance_m is None:
            continue
        right, ahead = track.position_m
        if track.size_m is not None and track.heading_rad is not None:
            size, heading = np.array(track.size_m), ground_heading(track.heading_rad)
        else:
            left, top, far, bottom = track.box_xyxy.tolist()
            depth = max(ahead, 0.1)
            width = (far - left) * depth / float(camera.P_cam2[0, 0])
            size = np.array([width, width, (bottom - top) * depth / float(camera.P_cam2[1, 1])])
            heading = 0.0
        found.append((row, np.array([ahead, -right, size[2] / 2]), size, heading))
    return found


def ground_heading(rotation_y: float) -> float:
    """KITTI's `rotation_y` (0 faces right, -π/2 away from the camera) as yaw in the ground frame (0 faces ahead)."""
    return float((-rotation_y - np.pi / 2 + np.pi) % (2 * np.pi) - np.pi)
