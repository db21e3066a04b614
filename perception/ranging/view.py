"""What the boxes of one frame look like from the camera: view rays of their edges, and the noise of each.

An edge on the border of the image only shows that the object goes on; a foot behind another box counts less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from perception.arrays import F32, F64, I64
from perception.cameras.pinhole import PinholeCamera
from perception.ranging.config import RangingConfig
from perception.ranging.size_priors import SizePrior
from perception.types import Tracks

Bools = np.ndarray
RESTING_PX, RESTING_SHARE = 3.0, 0.08
"""A lower edge this close to the upper edge of a nearer box, pixels and share of its height, rests on it."""
_OUTWARD = np.array([[-1.0], [-1.0], [1.0], [1.0]])
"""Of left, top, right, bottom: the direction towards the border of the image."""


class View(NamedTuple):
    """What the boxes of one frame look like from the camera. Everything (N,), one value a track, if not said else."""

    sides: F64
    """(2, N) tangents of the view rays through the left and right edge, right of straight ahead."""
    ends: F64
    """(2, N) tangents of the view rays through the upper and lower edge, down from the horizon of the calibration."""
    tilt: F64
    """(2, N) by how much the tangents of the ends grow per radian of pitch and of roll."""
    side_var: F64
    """Variance of the tangent; infinite where the edge is cut or the object was not seen."""
    top_var: F64
    foot_var: F64
    cut: Bools | None
    """(4, N) which edges the border cuts: left, top, right, bottom; None where it cuts none."""
    cut_foot: Bools | None
    """Where the lower edge is not the foot; None where it always is."""
    half_depth: F64
    """Metres from the nearest point to the centre, along the line of sight."""
    half_depth_var: F64
    half_width: F64


class Viewer:
    """Turns the boxes of a frame into views. It holds what a camera and the classes make constant."""

    def __init__(self, camera: PinholeCamera, sizes: Sequence[SizePrior], config: RangingConfig) -> None:
        """Prepare.

        Args:
            camera: calibration of the images.
            sizes: of each class, and at the end that of an unknown one.
            config: how noisy edges are.
        """
        self.camera, self.config = camera, config
        self.sizes = np.array(
            [
                (
                    np.log(size.height_m),
                    size.height_spread,
                    size.half_width_m,
                    size.half_depth_m,
                    size.half_depth_std_m**2,
                    size.edge_std_share,
                    *size.turning(),
                )
                for size in sizes
            ]
        ).T
        """(9, classes) columns of the priors, by class id; the last is the unknown class."""
        self._level_from_pixel = _level_from_pixel(camera)
        self._rays_from_box = _rays_from_box(self._level_from_pixel)

    def boxes(self, tracks: Tracks) -> tuple[F64, I64, Bools]:
        """Edges (5, N): left, top, right, bottom, 1; classes (N,); which were seen now and are boxes at all (N,)."""
        unknown = self.sizes.shape[1] - 1
        class_ids = tracks.class_ids
        if class_ids.min() < 0 or class_ids.max() >= unknown:
            class_ids = np.where((class_ids >= 0) & (class_ids < unknown), class_ids, unknown)
        usable = tracks.frames_since_seen == 0
        edges = np.empty((5, len(tracks)))
        edges[4] = 1.0
        edges[:4] = tracks.boxes_xyxy.T
        if not np.abs(edges).max() < 1e5:  # nor is NaN
            _discard(np.abs(edges) < 1e5, edges, usable)
        if (edges[2:4] - edges[:2]).min() <= 1:
            _discard(edges[2:4] - edges[:2] > 1, edges, usable)
        return edges, class_ids, usable

    def look(
        self,
        edges: F64,
        class_ids: I64,
        usable: Bools,
        size_hw: tuple[int, int],
        extents: tuple[F64, F64, Bools] | None = None,
    ) -> View:
        """Return the view of N boxes.

        Args:
            edges: as `boxes` returns them.
            class_ids: likewise.
            usable: likewise.
            size_hw: of the frame, to know which boxes its border cuts.
            extents: half the extent along the line of sight of each object as 3-D boxes have shown it, its variance,
                and where it is known, (N,) each.
        """
        config = self.config
        rays = self._rays_from_box @ edges  # (12, N)
        tangents = rays[:6] / np.maximum(rays[6:], 1e-3)
        width, height = extent = edges[2:4] - edges[:2]
        focal_x, focal_y = self.camera.P_cam2[0, 0], self.camera.P_cam2[1, 1]
        _, _, half_width, usual_depth, half_depth_var, edge_share, start, scale, side_depth = self.sizes.take(
            class_ids, axis=1
        )
        edge_var = (edge_share * height) ** 2 * (1 + (height / config.large_box_px) ** 2) + config.edge_std_px**2
        top_var = foot_var = edge_var * (1 / focal_y**2)
        side_var = edge_var * (1 / focal_x**2)
        hidden, resting = _hidden_feet(edges, width, height, usable)
        if hidden is not None:
            covered = config.hidden_std_share * hidden
            top_var = top_var * (1 + hidden)
            foot_var = foot_var + (covered * height / focal_y) ** 2
            side_var = side_var + (covered * width / focal_x) ** 2

        turned = np.minimum(np.maximum(width / height * scale - start, 0.0), 1.0)
        half_depth = usual_depth + turned * side_depth
        if extents is not None:
            seen, seen_var, known = extents
            half_depth, usual_depth = np.where(known, seen, (half_depth, usual_depth))
            half_depth_var = np.where(known, seen_var, half_depth_var)
        near = np.maximum(extent * config.border_share, config.border_px)  # (2, N)
        cut = edges[:4] * _OUTWARD + np.concatenate([near, near]) >= ((0,), (0,), (size_hw[1],), (size_hw[0],))
        any_cut, cut_foot = bool(cut.any()), resting
        if any_cut:
            cut_side = cut[0] | cut[2]
            half_depth = np.where(cut_side, usual_depth, half_depth)
            half_depth_var = np.where(cut_side, (0.6 * half_depth) ** 2, half_depth_var)
            top_var = np.where(cut[1], np.inf, top_var)
            cut_foot = cut[3] if resting is None else cut[3] | resting
        return View(
            sides=tangents[:2],
            ends=tangents[2:4],
            tilt=tangents[4:],
            side_var=side_var,
            top_var=top_var,
            foot_var=foot_var,
            cut=cut if any_cut else None,
            cut_foot=cut_foot,
            half_depth=half_depth,
            half_depth_var=half_depth_var,
            half_width=half_width,
        )

    def bearings(self, cuboids: F32) -> tuple[F64, Bools]:
        """The ray through the projected centre of each 3-D box.

        Returns:
            (N,) its tangent, right of straight ahead, and whether there is a centre.
        """
        pixels = np.ones((3, len(cuboids)))
        pixels[:2] = cuboids[:, :2].T
        known = np.abs(pixels).max(axis=0) < 1e5  # nor is NaN
        if not known.all():
            pixels[:2, ~known] = 0.0
        rays = self._level_from_pixel @ pixels
        known &= rays[2] > 1e-3
        return rays[0] / np.where(known, rays[2], 1.0), known


def _discard(good: Bools, edges: F64, usable: Bools) -> None:
    """Put harmless numbers where not all of a column is good, and use them for nothing."""
    bad = np.flatnonzero(~good.all(axis=0))
    edges[:4, bad] = ((0,), (0,), (2,), (2,))
    usable[bad] = False


def _level_from_pixel(camera: PinholeCamera) -> F64:
    """(3, 3) from a pixel (u, v, 1) to its view ray in level coordinates: right, down along gravity, ahead."""
    cos, sin = np.cos(camera.pitch_rad), np.sin(camera.pitch_rad)
    level: F64 = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]) @ np.linalg.inv(camera.K_cam2)
    return level


def _rays_from_box(level: F64) -> F64:
    """(12, 5) from the edges of a box (left, top, right, bottom, 1) to its view rays, in level coordinates.

    Numerators, then denominators, of the tangents: aside through the middle of the left and of the right edge, down
    through the middle of the upper and of the lower edge, of pitch (1), aside through the middle of the upper edge.
    """
    x, y, one = np.eye(5)[[0, 2]], np.eye(5)[[1, 3]], np.eye(5)[4]  # each a row: of a box, take this
    middle_x, middle_y = x.mean(axis=0), y.mean(axis=0)
    left, right = (level @ np.stack([side, middle_y, one]) for side in x)  # (3, 5)
    top, foot = (level @ np.stack([middle_x, end, one]) for end in y)
    return np.stack(
        [left[0], right[0], top[1], foot[1], one, top[0], left[2], right[2], top[2], foot[2], one, top[2]]
    )


def _hidden_feet(edges: F64, width: F64, height: F64, usable: Bools) -> tuple[F64 | None, Bools | None]:
    """What nearer objects, those whose own foot is lower, do to the lower edge of each box.

    Returns:
        (N,) share of it that lies in their boxes: a detector that boxes whole objects has guessed it.
        (N,) whether it rests on the upper edge of one: a detector that boxes what is visible has ended there, and the
        foot is somewhere below.
        None where this is so of no box.
    """
    left, top, right, bottom, _ = edges
    shared = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)  # (N, N)
    shared *= (bottom > (bottom + 1)[:, None]) & usable
    mine, other = np.nonzero(shared > 0)
    if not len(mine):
        return None, None
    share = shared[mine, other] / width[mine]  # (pairs,)
    above = bottom[mine] - top[other]  # how far the other's upper edge is above my foot
    covered = np.bincount(mine, share * (above > 0), len(width))
    near = (np.abs(above) < RESTING_PX + RESTING_SHARE * height[mine]) & (share > 0.5)
    resting = None
    if near.any():
        resting = np.zeros(len(width), bool)
        resting[mine[near]] = True
    return np.minimum(covered, 1), resting
