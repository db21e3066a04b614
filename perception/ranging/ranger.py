"""Metres and seconds: where each tracked object stands on the road, how fast it comes, and how sure that is.

`view.py` says what the boxes of a frame look like from the camera, `learning.py` what each edge measures, with the
noise of that edge. Everything meets in `filter.py`, where the tilt between camera and road is a state that all
objects share, and time comes from the time stamps. A network with 3-D boxes adds their projected centre, and
`shape.py` filters sizes and headings. These then replace the usual extent of the class along the line of sight.

Depths are those of the visible face or corner; `position_m` is the middle of the object's footprint, as KITTI labels
it, so half the object's extent along the line of sight is added.

A surprise that no noise explains moves nothing far. So a truncated or hidden object gets a wide standard deviation,
not a wrong position.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from perception.arrays import F32, F64, I64
from perception.cameras.pinhole import PinholeCamera
from perception.ranging.config import FARTHEST_M, FASTEST_MPS, NEAREST_M, RangingConfig
from perception.ranging.filter import SLOPE, VX, VZ, RangingFilter, X, Z
from perception.ranging.learning import learn_centres, learn_depths, learn_edges, place
from perception.ranging.rows import TrackRows
from perception.ranging.shape import ShapeFilter, turning_rad_s
from perception.ranging.size_priors import UNKNOWN_SIZE
from perception.ranging.view import Bools, View, Viewer
from perception.types import Tracks

_USUAL = RangingConfig()
_HIGHEST = np.array([[FARTHEST_M], [FASTEST_MPS], [FARTHEST_M], [FASTEST_MPS], [np.log(6.0)], [0.3]])
_LOWEST = np.where(np.arange(6)[:, None] == Z, NEAREST_M, -_HIGHEST)
_DEPTH_SHARE = np.array([[0.1], [1.0]])
"""How much of the doubt about an object's depth is doubt about its place aside and ahead."""


class Ranger:
    """Fills the metric fields of tracks. One instance follows one camera; two share nothing."""

    def __init__(self, camera: PinholeCamera, class_names: tuple[str, ...], config: RangingConfig = _USUAL) -> None:
        self.camera, self.config = camera, config
        sizes = [*(config.sizes.get(name, UNKNOWN_SIZE) for name in class_names), UNKNOWN_SIZE]
        self._viewer = Viewer(camera, sizes, config)
        self._turning_rad_s = np.array([turning_rad_s(size.half_depth_m) for size in sizes])
        # P2's fourth column: our origin is camera 2, KITTI's labels count from camera 0
        self._origin = np.linalg.solve(camera.K_cam2, camera.P_cam2[:, 3])[[0, 2], None]  # (2, 1) right, ahead
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._filter = RangingFilter(self.config.drift)
        self._shape = ShapeFilter(self._turning_rad_s, self.config.shape)
        self._rows = TrackRows()
        self._time_ns: int | None = None

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
        edges, class_ids, usable = self._viewer.boxes(tracks)
        extents = self._shape.half_depths(self._directions(len(tracks))) if self._shape else None
        view = self._viewer.look(edges, class_ids, usable, size_hw, extents)
        np.copyto(self._rows.half_depth_var[: len(usable)], view.half_depth_var, where=usable)
        fresh = self._place_new(view, class_ids, usable)
        repetition = self._rows.repetition(usable, fresh, timestamp_ns, self.config.edge_time_s)
        self._learn(view, class_ids, usable, repetition, depths, cuboids)
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
            if self._shape:
                self._shape.predict(dt_s)

    def _arrange(self, ids: list[int], timestamp_ns: int) -> None:
        """Rows in the order of this frame's tracks, remembered ones after them; forget what was not seen for long."""
        if (moved := self._rows.arrange(ids, timestamp_ns, self.config.forget_s * 1e9)) is not None:
            order, kept = moved
            self._filter.rearrange(order)
            self._shape.rearrange(order, kept)

    def _place_new(self, view: View, class_ids: I64, usable: Bools) -> Bools:
        """Start the objects that have no place yet; return which these are."""
        placed = self._rows.placed[: len(usable)]
        fresh: Bools = usable & ~placed
        if fresh.any():
            for row in (new := np.flatnonzero(fresh).tolist()):
                prior = tuple(self._viewer.sizes[:4, class_ids[row]].tolist())
                place(self._filter, row, view, prior, self.camera.height_m, self.config)
            placed[new] = True
            self._shape.forget(fresh)
        return fresh

    # ------------------------------------------------------------ into the filters

    def _learn(
        self,
        view: View,
        class_ids: I64,
        usable: Bools,
        repetition: F64,
        depths: F32 | None,
        cuboids: F32 | None,
    ) -> None:
        """All edges of all boxes of this frame, and what the network says itself."""
        joint, factor = self._filter, self.config.network_std_factor
        joint.listen(len(repetition))
        learn_edges(joint, view, repetition, self.camera.height_m)
        if depths is not None:
            learn_depths(joint, depths, repetition, self.camera.P_cam2[1, 1], factor)
        if cuboids is not None:
            bearing, known = self._viewer.bearings(cuboids)
            learn_centres(joint, bearing, known, view.side_var, repetition, factor)
        joint.settle()
        self._keep_sane()
        if cuboids is not None:  # a direction is that of the ray through the projected centre
            ahead_m = joint.mean[Z, : len(usable)]
            direction_rad = np.arctan2(bearing * ahead_m - self._origin[0], ahead_m - self._origin[1])
            self._shape.observe(cuboids, direction_rad, class_ids, usable, (self._time_ns or 0) * 1e-9)

    def _keep_sane(self) -> None:
        """Hold every state within what can be on a road, whatever came in."""
        mean = self._filter.mean
        if not math.isfinite(mean.sum()):  # the tilt is in it, by the last step of `settle`
            time_ns, ids = self._time_ns, self._rows.ids
            self.reset()
            self._arrange(ids, time_ns or 0)
            self._time_ns = time_ns
            return
        np.maximum(mean, _LOWEST, out=mean)
        np.minimum(mean, _HIGHEST, out=mean)

    # ------------------------------------------------------------ out

    def _places(self, count: int) -> F64:
        """(2, N) right and ahead of the first `count` objects, as KITTI's labels count."""
        return self._filter.mean[X : Z + 1 : 2, :count] - self._origin

    def _directions(self, count: int) -> F64:
        """(N,) direction to each of the first `count` objects, radians, from straight ahead to the right."""
        right, ahead = self._places(count)
        return np.arctan2(right, ahead)

    def _report(self, tracks: Tracks) -> Tracks:
        """The tracks with their metric columns; NaN where there is nothing to report."""
        config, count, joint = self.config, len(tracks), self._filter
        position_m = self._places(count)
        distance_m = np.hypot(position_m[0], position_m[1])
        velocity_mps = joint.mean[VX : VZ + 1 : 2, :count].copy()
        velocity_var = joint.speed_variance(count)
        right, ahead = position_m / -np.maximum(distance_m, 1e-6)
        closing = velocity_mps[0] * right + velocity_mps[1] * ahead
        to_right, to_ahead = velocity_var[:, 0] * right + velocity_var[:, 1] * ahead
        closing_std = np.sqrt(np.maximum(to_right * right + to_ahead * ahead, 0))
        kept = self._rows.least[:count]
        approaching = closing > np.maximum(closing_std * config.closing_sigmas, config.closing_min_mps) * kept
        np.subtract(1, approaching * (1 - config.closing_keep), out=kept)
        known = closing_std * ~approaching < config.speed_report_std_mps
        # where the centre of a footprint is: never surer than the size of the object
        variance = joint.place_variance(count) + _DEPTH_SHARE * self._rows.half_depth_var[:count]
        std_m = np.sqrt(np.maximum(variance, 1e-4))
        ttc_s = np.divide(distance_m, closing, out=np.full(count, np.nan), where=approaching)
        mean, (pitch, roll) = joint.mean[:, :count], joint.tilt.tolist()
        bottom_m = self.camera.height_m + mean[Z] * (mean[SLOPE] + pitch) + mean[X] * roll
        shape: dict[str, Any] = {}
        if self._shape:
            votes = self._shape.resolve(position_m, velocity_mps, velocity_var)
            names = "size_m", "size_std_m", "heading_rad", "heading_std_rad"
            shape = dict(zip(names, self._shape.report(votes), strict=True))
        velocity_mps[:, ~known] = np.nan
        placed = self._rows.placed[:count]
        if not placed.all():
            position_m[:, ~placed] = std_m[:, ~placed] = velocity_mps[:, ~placed] = np.nan
            distance_m[~placed] = ttc_s[~placed] = bottom_m[~placed] = np.nan
            for column in shape.values():
                column[~placed] = np.nan
        return replace(
            tracks,
            position_m=position_m.T,
            position_std_m=std_m.T,
            distance_m=distance_m,
            velocity_mps=velocity_mps.T,
            ttc_s=ttc_s,
            bottom_m=bottom_m,
            **shape,
        )
