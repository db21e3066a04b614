"""Metres and seconds: where each tracked object stands on the road, how fast it comes, and how sure that is.

What a box tells, each with the noise of its own edge:

- its foot: the lower edge looks down at the road by (camera height) / (depth of the nearest point);
- its height: the upper edge looks down by (camera height − object height) / depth, where the object's height is known
  from its class only roughly at first, and better the longer it is watched;
- its sides: left and right edge give the place across the road.

Depths are those of the visible face or corner; `position_m` is the middle of the object's footprint, as KITTI labels
it, so half the object's extent along the line of sight is added. Everything meets in `ranging_filter.py`, where the
tilt between camera and road is a state that all objects share, and time comes from the time stamps.

An edge on the border of the picture says nothing but that the object goes on; a foot behind another box is believed
less; a surprise that no noise explains moves nothing far. So a cut or hidden object gets a wide standard deviation,
not a wild place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from perception.camera import PinholeCamera
from perception.ranging_filter import LOG_HEIGHT, SLOPE, VX, VZ, Drift, RangingFilter, X, Z
from perception.size_priors import SIZE_PRIORS, UNKNOWN_SIZE, SizePrior
from perception.types import F64, I64, Track

NEAREST_M, FARTHEST_M, FASTEST_MPS = 0.5, 250.0, 80.0
"""Limits of what is reported."""
_HIGHEST = np.array([[FARTHEST_M], [FASTEST_MPS], [FARTHEST_M], [FASTEST_MPS], [np.log(6.0)], [0.3]])
_LOWEST = np.where(np.arange(6)[:, None] == Z, NEAREST_M, -_HIGHEST)
MAX_REMEMBERED = 256
"""Tracks that are not in the present frame, and may come back."""
RESTING_PX, RESTING_SHARE = 3.0, 0.08
"""A lower edge this close to the upper edge of a nearer box, pixels and share of its height, rests on it."""
_ASPECT_STEP, _ASPECTS = 0.05, 100


@dataclass(frozen=True)
class RangingConfig:
    """How noisy the world is. Chosen on KITTI's even-numbered tracking sequences; see docs/ranging.md."""

    sizes: Mapping[str, SizePrior] = field(default_factory=lambda: SIZE_PRIORS)
    """Size of each class by name; a class that is not here counts as unknown."""
    edge_std_px: float = 0.6
    """Noise of a box edge, pixels; a share of the box's height comes on top, see `SizePrior`."""
    edge_time_s: float = 0.15
    """Errors of one box's edges in neighbouring frames are alike for about this long."""
    hidden_std_share: float = 0.05
    """Further noise of an edge that another box covers, as a share of the box's size."""
    border_px: float = 3.0
    """An edge this close to the border of the picture is cut by it."""
    speed_std_mps: float = 20.0
    """Of an object never seen before, relative to us."""
    closing_sigmas: float = 1.5
    """A time to collision is told where the closing speed is above 0 by this many standard deviations."""
    closing_min_mps: float = 0.5
    """And above this."""
    drift: Drift = field(default_factory=Drift)
    """How the world moves between frames."""
    forget_s: float = 3.0
    """A track unseen for this long loses its place; a longer gap between frames starts everything afresh."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            found = getattr(self, setting.name)
            if isinstance(found, float) and not 0 < found < np.inf:
                raise ValueError(f"RangingConfig.{setting.name}: found {found}, expected a number above 0")


@dataclass(frozen=True, eq=False)
class _View:
    """What the boxes of one frame look like from the camera. Everything (N,), one value a row of the filter."""

    left: F64
    """Tangent of the view ray through the left edge, right of straight ahead."""
    right: F64
    top: F64
    """Tangent of the view ray through the upper edge, down from the horizon of the calibration."""
    foot: F64
    top_var: F64
    """Variance of the tangent; infinite where the edge is cut or the object was not seen."""
    foot_var: F64
    side_var: F64
    tilt: F64
    """(2, N) by how much the tangents of foot and top grow per radian of pitch and of roll."""
    cut_left: np.ndarray
    cut_right: np.ndarray
    cut_foot: np.ndarray
    half_depth: F64
    """Metres from the nearest point to the centre, along the line of sight."""
    half_depth_std: F64
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
                    size.half_depth_std_m,
                    size.edge_std_share,
                )
                for size in sizes
            ]
        ).T
        """(6, classes) columns of the priors, by class id; the last is the unknown class."""
        aspects = (np.arange(_ASPECTS) + 0.5) * _ASPECT_STEP
        self._half_depths = np.stack([size.half_depth_at(aspects) for size in sizes])  # (classes, aspects)
        cos, sin = np.cos(camera.pitch_rad), np.sin(camera.pitch_rad)
        level = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
        self._level_from_pixel = level @ np.linalg.inv(camera.K_cam2)
        # P2's fourth column: our origin is camera 2, KITTI's labels count from camera 0
        self._origin = np.linalg.solve(camera.K_cam2, camera.P_cam2[:, 3])
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._filter = RangingFilter(self.config.drift)
        self._time_ns: int | None = None
        self._ids: list[int] = []
        self._seen_ns: I64 = np.zeros(0, np.int64)
        self._placed = np.zeros(0, bool)
        self._half_depth_std: F64 = np.zeros(0)

    @property
    def pitch_rad(self) -> float:
        """The camera's pitch at this moment, with what was found on line; positive where it looks down."""
        return self.camera.pitch_rad + float(self._filter.tilt[0])

    def update(self, tracks: tuple[Track, ...], timestamp_ns: int, size_hw: tuple[int, int]) -> tuple[Track, ...]:
        """The same tracks with place, speed and time to collision.

        A track that was never seen with a usable box, or not for `forget_s`, keeps None. Time that stands still adds
        no knowledge; time that goes back, or leaps by more than `forget_s`, starts everything afresh.

        Args:
            tracks: of this frame.
            timestamp_ns: moment of capture.
            size_hw: of the frame, to know which boxes its border cuts.
        """
        self._advance(timestamp_ns)
        self._arrange([track.track_id for track in tracks], timestamp_ns)
        if not tracks:
            return ()
        boxes, class_ids, usable = self._boxes(tracks)
        view = self._look(boxes, class_ids, usable, size_hw)
        fresh = usable & ~self._placed
        if fresh.any():
            self._place(np.flatnonzero(fresh), view, class_ids)
        self._learn(view, self._repetition(usable, fresh, timestamp_ns))
        return self._report(tracks)

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
        if self._ids:
            self._seen_ns, self._placed = self._seen_ns[order], self._placed[order] & known
            self._half_depth_std = self._half_depth_std[order]
        else:
            self._seen_ns, self._placed = np.zeros(len(order), np.int64), known & False
            self._half_depth_std = np.zeros(len(order))
        self._ids = ids + absent

    # ------------------------------------------------------------ what boxes tell

    def _boxes(self, tracks: tuple[Track, ...]) -> tuple[F64, I64, np.ndarray]:
        """Boxes (N, 4), classes (N,) and which of them were seen in this frame and are boxes at all (N,)."""
        given, total = len(tracks), len(self._ids)
        boxes, usable = np.zeros((total, 4)), np.zeros(total, bool)
        class_ids = np.full(total, -1)
        boxes[:given] = np.concatenate([track.box_xyxy for track in tracks]).reshape(-1, 4)
        usable[:given] = [track.frames_since_seen == 0 for track in tracks]
        class_ids[:given] = [track.class_id for track in tracks]
        last = self._sizes.shape[1] - 1  # the row of the unknown class
        class_ids[(class_ids < 0) | (class_ids > last)] = last
        usable &= (np.abs(boxes) < 1e5).all(axis=1)  # False for NaN
        boxes[~usable] = (0, 0, 2, 2)
        usable &= (boxes[:, 2:] - boxes[:, :2] > 1).all(axis=1)
        boxes[~usable] = (0, 0, 2, 2)
        return boxes, class_ids, usable

    def _look(self, boxes: F64, class_ids: I64, usable: np.ndarray, size_hw: tuple[int, int]) -> _View:
        config = self.config
        left, top, right, bottom = boxes.T
        width, height = right - left, bottom - top
        middle_u, middle_v = (left + right) / 2, (top + bottom) / 2
        pixels = np.ones((3, 4 * len(boxes)))
        pixels[0] = np.concatenate([left, right, middle_u, middle_u])
        pixels[1] = np.concatenate([middle_v, middle_v, top, bottom])
        rays = (self._level_from_pixel @ pixels).reshape(3, 4, -1)
        tangents = rays[:2] / np.maximum(rays[2], 1e-3)

        limit_y, limit_x = size_hw[0] - config.border_px, size_hw[1] - config.border_px
        cut_left, cut_right, cut_foot = left <= config.border_px, right >= limit_x, bottom >= limit_y
        hidden, resting = _hidden_feet(boxes, usable)
        focal_x, focal_y = self.camera.P_cam2[0, 0], self.camera.P_cam2[1, 1]
        _, _, half_width, usual_depth, half_depth_std, edge_share = self._sizes[:, class_ids]
        edge_var = config.edge_std_px**2 + (edge_share * height) ** 2
        covered = config.hidden_std_share * hidden
        side_var = edge_var + (covered * width) ** 2

        bins = np.minimum(width / height / _ASPECT_STEP, _ASPECTS - 1).astype(np.int64)
        cut_side = cut_left | cut_right
        half_depth = np.where(cut_side, usual_depth, self._half_depths[class_ids, bins])
        half_depth_std = np.where(cut_side, 0.6 * half_depth, half_depth_std)
        self._half_depth_std[usable] = half_depth_std[usable]
        return _View(
            left=tangents[0, 0],
            right=tangents[0, 1],
            top=tangents[1, 2],
            foot=tangents[1, 3],
            top_var=np.where(top <= config.border_px, np.inf, edge_var * (1 + hidden) / focal_y**2),
            foot_var=(edge_var + (covered * height) ** 2) / focal_y**2,
            side_var=side_var / focal_x**2,
            tilt=np.stack([np.ones(len(boxes)), tangents[0, 2]]),
            cut_left=cut_left,
            cut_right=cut_right,
            cut_foot=cut_foot | resting,
            half_depth=half_depth,
            half_depth_std=half_depth_std,
            half_width=half_width,
        )

    def _repetition(self, usable: np.ndarray, fresh: np.ndarray, timestamp_ns: int) -> F64:
        """(N,) by how much the variance of this frame's boxes grows because they repeat the last ones' errors."""
        gap_s = np.maximum((timestamp_ns - self._seen_ns) * 1e-9, 1e-6)
        self._seen_ns[usable] = timestamp_ns
        repetition = np.where(fresh, 1.0, 1 + 2 * self.config.edge_time_s / gap_s)
        return np.where(usable, repetition, np.inf)

    # ------------------------------------------------------------ into the filter

    def _place(self, rows: I64, view: _View, class_ids: I64) -> None:
        """Start new objects where foot, height and width, weighed against each other, put them.

        For an object that is seen whole this is only where the measurements are made linear: its own variance is as
        wide as the distance, and the filter does the rest. Where the foot is cut, it is all there is.
        """
        config, height_m = self.config, self.camera.height_m
        log_height, spread, half_width, half_depth = self._sizes[:4, class_ids[rows]]
        cut, cut_side = view.cut_foot[rows], (view.cut_left | view.cut_right)[rows]
        span = np.maximum(view.foot[rows] - view.top[rows], 1e-4)
        by_height = log_height - np.log(span)
        height_var = spread**2 + (view.foot_var[rows] + view.top_var[rows]) / span**2
        tilt = view.tilt[:, rows]
        by_foot = np.log(height_m / np.maximum(view.foot[rows] - self._filter.tilt @ tilt, 0.008))
        plane_var = (tilt * (self._filter.tilt_cov @ tilt)).sum(axis=0) + config.drift.slope_std_rad**2
        foot_var = (plane_var + view.foot_var[rows]) * (np.exp(by_foot) / height_m) ** 2
        # between the width seen from behind and from the side, which is known to some 40 %
        by_width = np.log(2 * np.sqrt(half_width * half_depth) / np.maximum(view.right[rows] - view.left[rows], 1e-4))
        cues = np.stack([by_height, by_foot - 0.3 * cut, by_width])
        variances = np.stack([np.where(cut, np.inf, height_var), np.where(cut, 1.0, foot_var), 0.16 + 1e3 * cut_side])
        face = np.exp((cues / variances).sum(axis=0) / (1 / variances).sum(axis=0))
        ahead_m = np.clip(face + view.half_depth[rows], 1.0, 150.0)
        across_m = (view.left[rows] + view.right[rows]) / 2 * ahead_m
        nothing, speed_var = np.zeros(len(rows)), np.full(len(rows), config.speed_std_mps**2)
        mean = np.stack([across_m, nothing, ahead_m, nothing, log_height, nothing])
        across_var, ahead_var = ahead_m**2, np.where(cut, 0.4 * ahead_m, ahead_m) ** 2
        variance = np.stack([across_var, speed_var, ahead_var, speed_var, spread**2, config.drift.slope_var(ahead_m)])
        self._filter.begin(rows, mean, variance)
        self._placed[rows] = True

    def _learn(self, view: _View, repetition: F64) -> None:
        """All edges of all boxes of this frame."""
        joint, camera_m = self._filter, self.camera.height_m
        mean = joint.mean
        cut_side = view.cut_left | view.cut_right
        # of an object that the side of the picture cuts, any point may be the lowest that is seen
        to_face = np.where(cut_side, 0.3 * view.half_depth, view.half_depth)
        tilted = joint.tilt @ view.tilt
        joint.listen()

        face_m = np.maximum(mean[Z] - to_face, 0.7)
        slope = -camera_m / face_m**2
        residual = view.foot - tilted - mean[SLOPE] - camera_m / face_m
        # a foot below the picture, or behind something, is at least as near as where it is cut says
        silent = view.cut_foot & (residual < 0)
        variance = np.where(silent, np.inf, view.foot_var + (slope * view.half_depth_std) ** 2)
        joint.observe(residual, (Z, SLOPE), (slope, 1.0), view.tilt, variance * repetition)

        object_m = np.exp(mean[LOG_HEIGHT])
        drop_m = camera_m - object_m  # of its upper edge below the camera
        rim_m = np.maximum(mean[Z] + np.where(drop_m > 0, view.half_depth, -to_face), 0.7)
        slope = -drop_m / rim_m**2
        residual = view.top - tilted - mean[SLOPE] - drop_m / rim_m
        variance = view.top_var + (slope * view.half_depth_std) ** 2
        joint.observe(
            residual, (Z, LOG_HEIGHT, SLOPE), (slope, -object_m / rim_m, 1.0), view.tilt, variance * repetition
        )

        across_m, bearing, variance = self._across(view, np.maximum(mean[Z], 0.7), cut_side)
        joint.observe(across_m - mean[X], (X, Z), (1.0, -bearing), None, variance * repetition)
        joint.settle()
        self._keep_sane()

    def _across(self, view: _View, ahead_m: F64, cut_side: np.ndarray) -> tuple[F64, F64, F64]:
        """Place across the road from the side edges: metres, its change per metre ahead, variance in m².

        The left edge of an object to our left is its near corner, of one to our right its far corner; the right edge
        the other way round. Where one side is cut, the other edge and the usual width have to do.
        """
        left_m = view.left * (ahead_m + np.sign(view.left) * view.half_depth)
        right_m = view.right * (ahead_m - np.sign(view.right) * view.half_depth)
        across_m, bearing = (left_m + right_m) / 2, (view.left + view.right) / 2
        variance = ahead_m**2 * view.side_var + 0.05**2
        if cut_side.any():
            only_left, only_right = view.cut_right & ~view.cut_left, view.cut_left & ~view.cut_right
            across_m = np.where(only_left, left_m + view.half_width, across_m)
            across_m = np.where(only_right, right_m - view.half_width, across_m)
            bearing = np.where(only_left, view.left, np.where(only_right, view.right, bearing))
            guess = (0.5 * view.half_width) ** 2 + (bearing * 0.3 * view.half_depth) ** 2
            variance = variance + cut_side * np.where(only_left | only_right, guess, 1.0)
        return across_m, bearing, variance

    def _keep_sane(self) -> None:
        """Hold every state within what can be on a road, whatever came in."""
        mean = self._filter.mean
        if not np.isfinite(mean.sum()) or not np.isfinite(self._filter.tilt.sum()):
            time_ns, ids = self._time_ns, self._ids
            self.reset()
            self._arrange(ids, time_ns or 0)
            self._time_ns = time_ns
            return
        np.maximum(mean, _LOWEST, out=mean)
        np.minimum(mean, _HIGHEST, out=mean)

    # ------------------------------------------------------------ out again

    def _report(self, tracks: tuple[Track, ...]) -> tuple[Track, ...]:
        config, count = self.config, len(tracks)
        mean, cov = self._filter.mean[:, :count], self._filter.place_cov()[:, :, :count]
        x_m, z_m = mean[X] - self._origin[0], mean[Z] - self._origin[2]
        distance_m = np.hypot(x_m, z_m)
        ux, uz = (x_m, z_m) / np.maximum(distance_m, 1e-6)  # 0 where nothing was placed
        closing = -(ux * mean[VX] + uz * mean[VZ])
        closing_var = ux**2 * cov[VX, VX] + 2 * ux * uz * cov[VX, VZ] + uz**2 * cov[VZ, VZ]
        closing_std = np.sqrt(np.maximum(closing_var, 0))
        sure = closing > np.maximum(config.closing_min_mps, config.closing_sigmas * closing_std)
        ttc_s = distance_m / np.where(sure, closing, 1.0)
        # where the centre of a footprint is: never surer than the size of the object
        depth_var = self._half_depth_std[:count] ** 2
        x_std = np.sqrt(np.maximum(cov[X, X] + 0.1 * depth_var, 1e-4))
        z_std = np.sqrt(np.maximum(cov[Z, Z] + depth_var, 1e-4))
        columns = (x_m, z_m, x_std, z_std, distance_m, mean[VX], mean[VZ], ttc_s, sure, self._placed[:count])
        rows = zip(tracks, *(column.tolist() for column in columns), strict=True)
        # built outright: dataclasses.replace costs three times as much, for every object of every frame
        return tuple(
            Track(
                track.track_id,
                track.class_id,
                track.box_xyxy,
                track.score,
                track.state,
                track.age_frames,
                track.frames_since_seen,
                (x, z),
                (x_std_m, z_std_m),
                distance,
                (vx, vz),
                ttc if approaching else None,
            )
            if placed
            else track
            for track, x, z, x_std_m, z_std_m, distance, vx, vz, ttc, approaching, placed in rows
        )


def _hidden_feet(boxes: F64, usable: np.ndarray) -> tuple[F64, np.ndarray]:
    """What nearer objects, those whose own foot is lower, do to the lower edge of each box.

    Returns:
        (N,) share of it that lies in their boxes: a detector that boxes whole objects has guessed it.
        (N,) whether it rests on the upper edge of one: a detector that boxes what is visible has ended there, and the
        foot is somewhere below.
    """
    if len(boxes) < 2:
        return np.zeros(len(boxes)), np.zeros(len(boxes), bool)
    left, top, right, bottom = boxes.T
    width, height = right - left, bottom - top
    shared = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)  # (N, N)
    in_front = (bottom > bottom[:, None] + 1) & (shared > 0) & usable
    above = bottom[:, None] - top  # (N, N) how far the other's upper edge is above my foot
    covered = np.where(in_front & (above > 0), shared, 0).sum(axis=1)
    near = np.abs(above) < (RESTING_PX + RESTING_SHARE * height)[:, None]
    resting = (in_front & near & (shared > 0.5 * width[:, None])).any(axis=1)
    return np.minimum(covered / np.maximum(width, 1), 1), resting
