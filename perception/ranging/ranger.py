"""Metres and seconds: where each tracked object stands on the road, how fast it comes, and how sure that is.

What a box measures, each with the noise of its own edge:

- its foot: the lower edge looks down at the road by (camera height) / (depth of the nearest point);
- its height: the upper edge looks down by (camera height − object height) / depth, where the object's height is known
  from its class only roughly at first, and better the longer it is watched;
- its sides: left and right edge give the place across the road.

A network with 3-D boxes adds their projected centre, and `shape.py` filters sizes and headings. These then replace
the usual extent of the class along the line of sight.

Depths are those of the visible face or corner; `position_m` is the middle of the object's footprint, as KITTI labels
it, so half the object's extent along the line of sight is added. Everything meets in `filter.py`, where the
tilt between camera and road is a state that all objects share, and time comes from the time stamps.

An edge on the border of the image only shows that the object goes on; a foot behind another box counts less; a
surprise that no noise explains moves nothing far. So a truncated or hidden object gets a wide standard deviation, not
a wrong position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import numpy as np

from perception.arrays import F32, F64, I64
from perception.boxes import iou
from perception.cameras.pinhole import PinholeCamera
from perception.ranging.filter import LOG_HEIGHT, SLOPE, VX, VZ, Drift, RangingFilter, X, Z
from perception.ranging.shape import ShapeConfig, ShapeFilter, turning_rad_s
from perception.ranging.size_priors import SIZE_PRIORS, UNKNOWN_SIZE, SizePrior
from perception.types import Detections, Tracks

NEAREST_M, FARTHEST_M, FASTEST_MPS = 0.5, 250.0, 80.0
"""Limits of what is reported."""
_HIGHEST = np.array([[FARTHEST_M], [FASTEST_MPS], [FARTHEST_M], [FASTEST_MPS], [np.log(6.0)], [0.3]])
_LOWEST = np.where(np.arange(6)[:, None] == Z, NEAREST_M, -_HIGHEST)
MAX_REMEMBERED = 256
"""Tracks that are not in the present frame, and may come back."""
RESTING_PX, RESTING_SHARE = 3.0, 0.08
"""A lower edge this close to the upper edge of a nearer box, pixels and share of its height, rests on it."""
_OUTWARD = np.array([[-1.0], [-1.0], [1.0], [1.0]])
"""Of left, top, right, bottom: the direction towards the border of the image."""
_DEPTH_SHARE = np.array([[0.1], [1.0]])
"""How much of the doubt about an object's depth is doubt about its place aside and ahead."""


@dataclass(frozen=True)
class RangingConfig:
    """How noisy the world is. Chosen on KITTI's even-numbered tracking sequences; see docs/results.md."""

    sizes: Mapping[str, SizePrior] = field(default_factory=lambda: SIZE_PRIORS)
    """Size of each class by name; a class that is not here counts as unknown."""
    edge_std_px: float = 0.6
    """Noise of a box edge, pixels; a share of the box's height comes on top, see `SizePrior`."""
    large_box_px: float = 150.0
    """That share grows with the box: by 1.4 at this height. What fills the image is boxed coarsely."""
    edge_time_s: float = 0.15
    """Errors of one box's edges in neighbouring frames are alike for about this long."""
    hidden_std_share: float = 0.05
    """Further noise of an edge that another box covers, as a share of the box's size."""
    border_px: float = 3.0
    """An edge this close to the border of the image is cut by it …"""
    border_share: float = 0.05
    """… or this close as a share of the box's size: detectors end cut boxes a little before the border."""
    speed_std_mps: float = 20.0
    """Of an object never seen before, relative to us."""
    closing_sigmas: float = 1.5
    """A time to collision is reported where the closing speed is above 0 by this many standard deviations."""
    closing_min_mps: float = 0.5
    """And above this."""
    network_std_factor: float = 1.5
    """Factor on the standard deviation of the network's own distance, where the model gives one: it looks at the same
    box."""
    closing_keep: float = 0.5
    """Hysteresis: once reported, it stays reported down to this share of both thresholds."""
    speed_report_std_mps: float = 5.0
    """A speed is reported where its standard deviation, towards us, is below this, or where it surely closes."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """How sizes and headings are filtered, where the model gives 3-D boxes."""
    drift: Drift = field(default_factory=Drift)
    """How the world moves between frames."""
    forget_s: float = 3.0
    """A track unseen for this long loses its place; a longer gap between frames starts everything afresh."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            found = getattr(self, setting.name)
            if isinstance(found, float) and not 0 < found < np.inf:
                raise ValueError(f"RangingConfig.{setting.name}: found {found}, expected a number above 0")


class _View(NamedTuple):
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
    cut: np.ndarray | None
    """(4, N) which edges the border cuts: left, top, right, bottom; None where it cuts none."""
    cut_foot: np.ndarray | None
    """Where the lower edge is not the foot; None where it always is."""
    half_depth: F64
    """Metres from the nearest point to the centre, along the line of sight."""
    half_depth_var: F64
    half_width: F64


class Ranger:
    """Fills the metric fields of tracks. One instance follows one camera; two share nothing."""

    def __init__(
        self, camera: PinholeCamera, class_names: tuple[str, ...], config: RangingConfig = RangingConfig()
    ) -> None:
        self.camera, self.config = camera, config
        sizes = [config.sizes.get(name, UNKNOWN_SIZE) for name in class_names] + [UNKNOWN_SIZE]
        self._sizes = np.array(
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
        self._turning_rad_s = np.array([turning_rad_s(size.half_depth_m) for size in sizes])
        self._level_from_pixel = _level_from_pixel(camera)
        self._rays_from_box = _rays_from_box(self._level_from_pixel)
        # P2's fourth column: our origin is camera 2, KITTI's labels count from camera 0
        self._origin = np.linalg.solve(camera.K_cam2, camera.P_cam2[:, 3])[[0, 2], None]  # (2, 1) right, ahead
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._filter = RangingFilter(self.config.drift)
        self._shape = ShapeFilter(self._turning_rad_s, self.config.shape)
        self._time_ns: int | None = None
        self._ids: list[int] = []
        self._seen_ns: I64 = np.zeros(0, np.int64)
        self._placed = np.zeros(0, bool)
        self._half_depth_var: F64 = np.zeros(0)
        self._least: F64 = np.zeros(0)
        """(N,) factor on the least closing speed that is reported: 1, or `closing_keep` where the last one was."""

    @property
    def pitch_rad(self) -> float:
        """The camera's pitch at this moment, with the tilt estimated so far; positive where it looks down."""
        return self.camera.pitch_rad + float(self._filter.tilt[0])

    def update(
        self,
        tracks: Tracks,
        timestamp_ns: int,
        size_hw: tuple[int, int],
        depths: F32 | None = None,
        cuboids: F32 | None = None,
    ) -> Tracks:
        """The same tracks with place, speed and time to collision, and size and heading where there are `cuboids`.

        A track that was never seen with a usable box, or not for `forget_s`, keeps None. Time that stands still adds
        no knowledge; time that goes back, or leaps by more than `forget_s`, starts everything afresh.

        Args:
            tracks: of this frame.
            timestamp_ns: moment of capture.
            size_hw: of the frame, to know which boxes its border cuts.
            depths: (N, 2) the network's distance of each track, see `network_of_tracks`; None: nothing.
            cuboids: (N, 8) what it says of each track's 3-D box, the same way.
        """
        self._advance(timestamp_ns)
        self._arrange(tracks.track_ids.tolist(), timestamp_ns)
        if not len(tracks):
            return tracks
        count = len(tracks)
        edges, class_ids, usable = self._boxes(tracks)
        view = self._look(edges, class_ids, usable, size_hw)
        fresh = usable & ~self._placed[:count]
        for row in np.flatnonzero(fresh).tolist():
            self._place(row, view, int(class_ids[row]))
        self._shape.forget(fresh)
        self._learn(view, self._repetition(usable, fresh, timestamp_ns), depths, cuboids)
        if cuboids is not None:
            self._learn_shape(cuboids, class_ids, usable)
        return self._report_shape(self._report(tracks)) if self._shape else self._report(tracks)

    # ------------------------------------------------------------ time and identity

    def _advance(self, timestamp_ns: int) -> None:
        """Move all objects to the moment of this frame."""
        config = self.config
        if self._time_ns is not None and not 0 <= timestamp_ns - self._time_ns <= config.forget_s * 1e9:
            self.reset()
        dt_s = 0.0 if self._time_ns is None else (timestamp_ns - self._time_ns) * 1e-9
        self._time_ns = timestamp_ns
        if dt_s > 0:
            self._filter.predict(dt_s)
            if self._shape:
                self._shape.predict(dt_s)

    def _arrange(self, ids: list[int], timestamp_ns: int) -> None:
        """Rows in the order of this frame's tracks, remembered ones after them; forget what was not seen for long."""
        unseen_ns = timestamp_ns - self._seen_ns
        self._placed &= unseen_ns <= self.config.forget_s * 1e9
        if ids == self._ids:
            return
        row_of = {track_id: row for row, track_id in enumerate(self._ids)}
        present = set(ids)
        absent = [i for i, row in row_of.items() if i not in present and self._placed[row]]
        if len(absent) > MAX_REMEMBERED:
            absent = sorted(absent, key=lambda i: unseen_ns[row_of[i]])[:MAX_REMEMBERED]
        order = np.array([row_of.get(i, -1) for i in ids + absent], np.int64)
        known = order >= 0
        self._filter.rearrange(order)
        self._shape.rearrange(order, known & self._placed[order] if self._ids else known)
        if self._ids:
            self._seen_ns, self._placed = self._seen_ns[order], self._placed[order] & known
            self._half_depth_var = self._half_depth_var[order]
            self._least = np.where(known, self._least[order], 1.0)
        else:
            self._seen_ns, self._placed = np.zeros(len(order), np.int64), known & False
            self._half_depth_var, self._least = np.zeros(len(order)), np.ones(len(order))
        self._ids = ids + absent

    # ------------------------------------------------------------ what boxes measure

    def _boxes(self, tracks: Tracks) -> tuple[F64, I64, np.ndarray]:
        """Edges (5, N): left, top, right, bottom, 1; classes (N,); which were seen now and are boxes at all (N,)."""
        unknown = self._sizes.shape[1] - 1
        class_ids = tracks.class_ids
        if class_ids.min() < 0 or class_ids.max() >= unknown:
            class_ids = np.where((class_ids >= 0) & (class_ids < unknown), class_ids, unknown)
        usable = tracks.frames_since_seen == 0
        edges = np.empty((5, len(tracks)))
        edges[4] = 1.0
        edges[:4] = tracks.boxes_xyxy.T
        if not np.abs(edges).max() < 1e5:  # nor is NaN
            self._discard(np.abs(edges) < 1e5, edges, usable)
        if (edges[2:4] - edges[:2]).min() <= 1:
            self._discard(edges[2:4] - edges[:2] > 1, edges, usable)
        return edges, class_ids, usable

    @staticmethod
    def _discard(good: np.ndarray, edges: F64, usable: np.ndarray) -> None:
        """Put harmless numbers where not all of a column is good, and use them for nothing."""
        bad = np.flatnonzero(~good.all(axis=0))
        edges[:4, bad] = ((0,), (0,), (2,), (2,))
        usable[bad] = False

    def _look(self, edges: F64, class_ids: I64, usable: np.ndarray, size_hw: tuple[int, int]) -> _View:
        config = self.config
        rays = self._rays_from_box @ edges  # (12, N)
        tangents = rays[:6] / np.maximum(rays[6:], 1e-3)
        width, height = extent = edges[2:4] - edges[:2]
        focal_x, focal_y = self.camera.P_cam2[0, 0], self.camera.P_cam2[1, 1]
        _, _, half_width, usual_depth, half_depth_var, edge_share, start, scale, side_depth = self._sizes.take(
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
        if self._shape:
            place_m = self._filter.mean[X : Z + 1 : 2, : len(usable)] - self._origin
            seen, seen_var, known = self._shape.half_depths(np.arctan2(place_m[0], place_m[1]))
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
        np.copyto(self._half_depth_var[: len(usable)], half_depth_var, where=usable)
        return _View(
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

    def _repetition(self, usable: np.ndarray, fresh: np.ndarray, timestamp_ns: int) -> F64:
        """(N,) by how much the variance of this frame's boxes grows because they repeat the last ones' errors."""
        seen_ns = self._seen_ns[: len(usable)]
        gap_s = np.maximum((timestamp_ns - seen_ns) * 1e-9, 1e-6)
        repetition = 1 + 2 * self.config.edge_time_s / gap_s
        repetition[fresh] = 1.0
        repetition[~usable] = np.inf
        np.copyto(seen_ns, timestamp_ns, where=usable)
        return repetition

    # ------------------------------------------------------------ into the filter

    def _place(self, row: int, view: _View, class_id: int) -> None:
        """Start a new object where foot, height and width, weighed against each other, put it.

        For an object that is seen whole this is only where the measurements are made linear: its own variance is as
        wide as the distance, and the filter does the rest. Where the foot is cut, it is all there is.
        """
        config, camera_m, joint = self.config, self.camera.height_m, self._filter
        log_height, spread, half_width, usual_depth = self._sizes[:4, class_id].tolist()
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
        self._placed[row] = True

    def _learn(self, view: _View, repetition: F64, depths: F32 | None, cuboids: F32 | None) -> None:
        """All edges of all boxes of this frame, and the network's own distances and centres."""
        joint, camera_m = self._filter, self.camera.height_m
        mean = joint.mean[:, : len(repetition)]
        ends = view.ends - joint.tilt @ view.tilt
        to_face = view.half_depth
        if view.cut is not None:
            # of an object that the side of the image cuts, any point may be the lowest that is seen
            to_face = np.where(view.cut[0] | view.cut[2], 0.3 * to_face, to_face)
        joint.listen(len(repetition))

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

        across_m, bearing, variance = self._across(view, np.maximum(mean[Z], 0.7))
        joint.observe(across_m - mean[X], X, ((Z, bearing),), None, variance * repetition)
        if depths is not None:
            ahead_m = np.where(np.isfinite(depths[:, 0]), depths[:, 0] * self.camera.P_cam2[1, 1], np.inf)
            known = (ahead_m > NEAREST_M) & (ahead_m < FARTHEST_M) & (depths[:, 1] > 0)
            std_m = np.where(known, self.config.network_std_factor * depths[:, 1] * ahead_m, np.inf)
            joint.observe(np.where(known, ahead_m - mean[Z], 0.0), Z, (), None, std_m * std_m * repetition)
        if cuboids is not None:
            bearing, variance = self._centres(cuboids, view.side_var)
            ahead_m = np.maximum(mean[Z], 0.7)
            variance *= ahead_m * ahead_m * repetition
            # leaning on the measured bearing here and in `across_m` would make their difference a distance
            joint.observe(bearing * ahead_m - mean[X], X, ((Z, mean[X] / ahead_m),), None, variance)
        joint.settle()
        self._keep_sane()

    def _across(self, view: _View, ahead_m: F64) -> tuple[F64, F64, F64]:
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

    def _keep_sane(self) -> None:
        """Hold every state within what can be on a road, whatever came in."""
        mean = self._filter.mean
        if not math.isfinite(mean.sum()):  # the tilt is in it, by the last step of `settle`
            time_ns, ids = self._time_ns, self._ids
            self.reset()
            self._arrange(ids, time_ns or 0)
            self._time_ns = time_ns
            return
        np.maximum(mean, _LOWEST, out=mean)
        np.minimum(mean, _HIGHEST, out=mean)

    def _learn_shape(self, cuboids: F32, class_ids: I64, usable: np.ndarray) -> None:
        """Sizes and angles of this frame. A direction is that of the ray through the projected centre."""
        bearing, _ = self._centres(cuboids, np.ones(len(usable)))
        ahead_m = self._filter.mean[Z, : len(usable)]
        direction_rad = np.arctan2(bearing * ahead_m - self._origin[0], ahead_m - self._origin[1])
        self._shape.observe(cuboids, direction_rad, class_ids, usable, (self._time_ns or 0) * 1e-9)

    def _centres(self, cuboids: F32, side_var: F64) -> tuple[F64, F64]:
        """The ray through the projected centre of each 3-D box.

        Returns:
            (N,) its tangent, right of straight ahead, and the variance of that; infinite where there is no centre.
        """
        pixels = np.ones((3, len(cuboids)))
        known = np.abs(cuboids[:, :2]).max(axis=1) < 1e5  # nor is NaN
        pixels[:2] = np.where(known, cuboids[:, :2].T, 0.0)
        rays = self._level_from_pixel @ pixels
        known &= rays[2] > 1e-3
        variance = np.where(known, self.config.network_std_factor**2 * side_var, np.inf)
        return rays[0] / np.where(known, rays[2], 1.0), variance

    # ------------------------------------------------------------ out

    def _report(self, tracks: Tracks) -> Tracks:
        """The tracks with their metric columns; NaN where there is nothing to report."""
        config, count, joint = self.config, len(tracks), self._filter
        position_m = joint.mean[X : Z + 1 : 2, :count] - self._origin  # (2, N)
        distance_m = np.hypot(position_m[0], position_m[1])
        velocity_mps = joint.mean[VX : VZ + 1 : 2, :count].copy()
        towards = position_m / -np.maximum(distance_m, 1e-6)
        closing, closing_var = joint.speed_along(towards[0], towards[1])
        closing_std = np.sqrt(np.maximum(closing_var, 0))
        least = np.maximum(closing_std * config.closing_sigmas, config.closing_min_mps) * self._least[:count]
        approaching = closing > least
        np.subtract(1, approaching * (1 - config.closing_keep), out=self._least[:count])
        known = closing_std * ~approaching < config.speed_report_std_mps
        # where the centre of a footprint is: never surer than the size of the object
        variance = joint.place_variance(count) + _DEPTH_SHARE * self._half_depth_var[:count]
        std_m = np.sqrt(np.maximum(variance, 1e-4))
        ttc_s = np.divide(distance_m, closing, out=np.full(count, np.nan), where=approaching)
        mean, (pitch, roll) = joint.mean[:, :count], joint.tilt.tolist()
        bottom_m = self.camera.height_m + mean[Z] * (mean[SLOPE] + pitch) + mean[X] * roll
        velocity_mps[:, ~known] = np.nan
        placed = self._placed[:count]
        if not placed.all():
            position_m[:, ~placed] = std_m[:, ~placed] = velocity_mps[:, ~placed] = np.nan
            distance_m[~placed] = ttc_s[~placed] = bottom_m[~placed] = np.nan
        return replace(
            tracks,
            position_m=position_m.T,
            position_std_m=std_m.T,
            distance_m=distance_m,
            velocity_mps=velocity_mps.T,
            ttc_s=ttc_s,
            bottom_m=bottom_m,
        )

    def _report_shape(self, tracks: Tracks) -> Tracks:
        """The tracks with size and heading, NaN where the network has not shown them."""
        joint, count = self._filter, len(tracks)
        place_m = joint.mean[X : Z + 1 : 2, :count] - self._origin
        votes = self._shape.resolve(place_m, joint.mean[VX : VZ + 1 : 2, :count], joint.speed_variance(count))
        shape = self._shape.report(votes)
        if not (placed := self._placed[:count]).all():
            for column in shape:
                column[~placed] = np.nan
        size_m, size_std_m, heading_rad, heading_std_rad = shape
        return replace(
            tracks,
            size_m=size_m,
            size_std_m=size_std_m,
            heading_rad=heading_rad,
            heading_std_rad=heading_std_rad,
        )


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


def network_of_tracks(tracks: Tracks, detections: Detections) -> tuple[F32 | None, F32 | None]:
    """What the network says of each track's depth and 3-D box: that of the detection in the same place.

    Returns:
        (N, 2) as `Detections.depths` and (N, 8) as `Detections.cuboids`, NaN for a track that no detection of its
        class overlaps by half; None where the network gives none.
    """
    columns = (detections.depths, detections.cuboids)
    if not len(tracks) or all(column is None for column in columns):
        return None, None
    best, good = np.zeros(0, np.int64), np.zeros(len(tracks), bool)
    if len(detections):
        overlap = iou(tracks.boxes_xyxy, detections.boxes_xyxy)  # (N, M)
        overlap[tracks.class_ids[:, None] != detections.class_ids] = 0.0
        best = overlap.argmax(axis=1)
        good = overlap[np.arange(len(tracks)), best] >= 0.5
    found: list[F32 | None] = [None, None]
    for i, column in enumerate(columns):
        if column is not None:
            rows = np.full((len(tracks), column.shape[1]), np.nan, np.float32)
            rows[good] = column[best[good]] if good.any() else 0.0
            found[i] = rows
    return found[0], found[1]


def _hidden_feet(edges: F64, width: F64, height: F64, usable: np.ndarray) -> tuple[F64 | None, np.ndarray | None]:
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
