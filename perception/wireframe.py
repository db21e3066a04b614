"""3-D boxes as lines: in the image, cut off where they come too near, and from above."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from perception.arrays import F64, U8
from perception.boxes3d import corners_3d, corners_bev
from perception.cameras.level import boxes_of_tracks, camera_from_level
from perception.cameras.pinhole import PinholeCamera
from perception.types import Tracks

LIMIT_PX = 2**20
"""Lines beyond it overflow in OpenCV's fixed-point numbers."""
NEAR_M = 0.5
"""What is nearer than this to the image plane is cut off a cuboid."""
FRONT_OPACITY = 0.3
UNDECIDED_RAD = 1.0
"""Standard deviation of a heading from which no side is shown as the front."""
POINTER = 0.4
"""Length of the pointer on the road, as a share of the object's length."""
_EDGES = np.array([(i, j) for k in range(4) for i, j in ((k, (k + 1) % 4), (k + 4, (k + 1) % 4 + 4), (k, k + 4))])
"""(12, 2) corners of a cuboid that an edge joins, see `corners_3d`."""
_FRONT = np.array([0, 1, 5, 4])


def outlines_from_above(tracks: Tracks) -> list[F64]:
    """Return a closed line (N, 2) of metres right and ahead for each track whose position is known.

    It is the footprint, or one standard deviation around the position where size or heading are not known.
    """
    if tracks.position_m is None or tracks.position_std_m is None:
        return []
    boxes, circle = boxes_of_tracks(tracks), np.linspace(0, 2 * np.pi, 17)
    ellipses = np.stack([np.cos(circle), np.sin(circle)], axis=1) * tracks.position_std_m[:, None]
    outlines = list(tracks.position_m[:, None] + ellipses)
    for row, corners in zip(np.flatnonzero(np.isfinite(boxes[:, 0])), corners_bev(_known(boxes)), strict=True):
        outlines[row] = np.concatenate([corners, corners[:1]])
    return outlines


def _known(boxes: F64) -> F64:
    return boxes[np.isfinite(boxes[:, 0])]


def cuboids_in_camera(tracks: Tracks, camera: PinholeCamera | None) -> dict[int, F64]:
    """Return the corners (8, 3) of each track's 3-D box in camera coordinates, by track id, where all is known."""
    boxes = boxes_of_tracks(tracks)
    if camera is None:
        return {}
    corners = camera_from_level(corners_3d(_known(boxes)), camera)
    return dict(zip(tracks.track_ids[np.isfinite(boxes[:, 0])].tolist(), corners, strict=True))


def lines_of_cuboid(corners: F64, camera: PinholeCamera, *, show_front: bool) -> F64:
    """Return the lines (N, 2, 2) in pixels that show one cuboid, as far as they lie ahead of the camera.

    Args:
        corners: (8, 3) in camera coordinates, in the order of `corners_3d`.
        camera: of the image.
        show_front: add a pointer on the road ahead of the front.
    """
    edges = corners[_EDGES]
    if show_front:
        nose = corners[:2].mean(axis=0)
        edges = np.concatenate([edges, [[nose, nose + POINTER * (nose - corners[2:4].mean(axis=0))]]])
    ends = [point for edge in _clipped(edges) for point in edge]
    if not ends:
        return np.zeros((0, 2, 2))
    return np.clip(camera.project(np.stack(ends)), -LIMIT_PX, LIMIT_PX).reshape(-1, 2, 2)


def draw_cuboid(
    image: U8, corners: F64, camera: PinholeCamera, colour: tuple[int, int, int], thickness: int, *, show_front: bool
) -> None:
    """Draw the lines of one cuboid; tint its front where that faces the camera."""
    front = corners[_FRONT]
    if show_front and (front[:, 2] > NEAR_M).all() and (corners[0] - corners[3]) @ front.mean(axis=0) < 0:
        _tint_face(image, np.clip(camera.project(front), -LIMIT_PX, LIMIT_PX), colour)
    for line in lines_of_cuboid(corners, camera, show_front=show_front):
        first, second = (line * 16).round().astype(int).tolist()
        cv2.line(image, first, second, colour, thickness, cv2.LINE_AA, shift=4)


def _clipped(edges: F64) -> Iterator[tuple[F64, F64]]:
    """Of edges (N, 2, 3), the parts ahead of the camera."""
    for start, end in edges:
        if start[2] > end[2]:
            start, end = end, start
        if end[2] > NEAR_M:
            share = max(0.0, (NEAR_M - start[2]) / (end[2] - start[2])) if start[2] < NEAR_M else 0.0
            yield start + share * (end - start), end


def _tint_face(image: U8, corners: F64, colour: tuple[int, int, int]) -> None:
    """Blend a colour into a quadrilateral (4, 2), on the part of the image that it covers."""
    left, top = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)) + 1, image.shape[1::-1]).astype(int).tolist()
    if left >= right or top >= bottom:
        return
    region = image[top:bottom, left:right]
    painted = region.copy()
    shape = ((corners - (left, top)) * 16).round().astype(np.int32)
    cv2.fillConvexPoly(painted, shape, colour, cv2.LINE_AA, shift=4)
    cv2.addWeighted(region, 1 - FRONT_OPACITY, painted, FRONT_OPACITY, 0, dst=region)
