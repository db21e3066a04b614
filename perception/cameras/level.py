"""Level coordinates, in which tracks are reported, and the way from there to camera coordinates and pixels.

Level axes are the camera's, turned back by its pitch: x to the right, y along gravity, z ahead on the road plane.
With a pitch of 0, as for KITTI's cameras, both are the same.
"""

from __future__ import annotations

import numpy as np

from perception.arrays import F64
from perception.cameras.pinhole import PinholeCamera
from perception.types import Tracks


def camera_from_level(points_m: F64, camera: PinholeCamera) -> F64:
    """Points (..., 3) in level coordinates → camera coordinates."""
    cos, sin = np.cos(camera.pitch_rad), np.sin(camera.pitch_rad)
    turn = np.array([[1.0, 0, 0], [0, cos, -sin], [0, sin, cos]])
    turned: F64 = points_m @ turn.T
    return turned


def boxes_of_tracks(tracks: Tracks) -> F64:
    """Return `boxes_xyzlhwr` (N, 7) in level coordinates, see `perception.boxes3d`; NaN where anything is unknown."""
    columns = (tracks.position_m, tracks.bottom_m, tracks.size_m, tracks.heading_rad)
    position_m, bottom_m, size_m, heading_rad = columns
    if position_m is None or bottom_m is None or size_m is None or heading_rad is None:
        return np.full((len(tracks), 7), np.nan)
    length, width, height = size_m.T
    boxes = np.stack([position_m[:, 0], bottom_m, position_m[:, 1], length, height, width, heading_rad], axis=1)
    boxes[~np.isfinite(boxes).all(axis=1)] = np.nan
    return boxes


def places_in_camera(tracks: Tracks, camera: PinholeCamera) -> F64:
    """Return the middle of each footprint in camera coordinates, (N, 3); NaN where it is unknown.

    Without its own `bottom_m`, a track stands at the camera's height above the road.
    """
    places = np.full((len(tracks), 3), np.nan)
    if tracks.position_m is None:
        return places
    places[:, ::2] = tracks.position_m
    places[:, 1] = camera.height_m if tracks.bottom_m is None else tracks.bottom_m
    return camera_from_level(places, camera)
