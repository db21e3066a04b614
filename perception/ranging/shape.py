"""How large each object is and which way it faces: what the network reports frame by frame, filtered over time.

Sizes are averaged as logarithms, each frame by its own variance. Frames of one object repeat each other's errors, so
a frame counts less the sooner it follows, and a share of the variance is never averaged out. An object whose class
changes starts afresh: sizes are those of one class.

Heading is an angle on the circle with a yaw rate that fades. A network tells the axis of a car far better than its
front from its rear. So the axis is filtered, with the measured heading turned by π where that is nearer, and a
log-odds counts the votes for front and rear. Motion has a vote too: cars drive forwards. Motion over ground is
relative motion plus our own, which the camera does not know. So our own speed is a wide prior, our own turn is what
most objects share, and what moves across counts for more than what moves along the road.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from perception.arrays import F32, F64, I64
from perception.cameras.cuboids import (
    ALPHA,
    ALPHA_STD,
    HEIGHT,
    LENGTH,
    REVERSED,
    SIZE_STD,
    WIDTH,
    heading_variance,
    wrap,
)
from perception.ranging.front import motion_votes, votes_of

Bools = np.ndarray
LARGEST_M, SMALLEST_M = 40.0, 0.1
LOOSE_RAD = 0.4
"""A heading less sure than this says nothing about an object's extent."""
_SIZE, _SIZE_VAR, _SIZE_BIAS = slice(0, 3), 3, 4
_ANGLE, _RATE, _AA, _AR, _RR, _ANGLE_BIAS, _VOTES = range(5, 12)
_KNOWN, _CLASS, _SEEN_S, _TURNING_VAR = range(12, 16)
"""Rows of the state: logarithms of length, width and height, their variance, and the standard deviation of what is
not averaged out; heading (not wrapped) and yaw rate with their covariance, the same for the heading, log-odds that it
is not the rear; 1 where anything is known, class, time of the latest measurement, and variance of the yaw rate."""
_POSITIVE = [LENGTH, WIDTH, HEIGHT, SIZE_STD, ALPHA_STD]
"""Columns of a cuboid that are above 0."""


def turning_rad_s(half_depth_m: float) -> float:
    """Standard deviation of the yaw rate by half the length: a car turns slowly, a pedestrian on the spot."""
    return min(max(0.6 / half_depth_m, 0.3), 1.0)


@dataclass(frozen=True)
class ShapeConfig:
    """How a network's sizes and angles err, and how objects turn."""

    persistent_share: float = 0.5
    """Share of the variance of sizes and angles that further frames of the same object do not average out."""
    size_time_s: float = 0.5
    """Errors of sizes in neighbouring frames are alike for about this long."""
    angle_time_s: float = 0.15
    """The same for angles."""
    turning_time_s: float = 1.5
    """How long an object keeps its yaw rate."""
    reversed_share: float = 0.1
    """Share of frames in which the network takes the rear for the front; where it says more itself, that counts."""
    reversed_time_s: float = 0.25
    """How long it stays with such a mistake."""
    votes_time_s: float = 4.0
    """How long a vote for front or rear counts."""
    most_votes: float = 6.0
    """The network's votes for front and rear are held within this log-odds, so that later ones can overrule them."""
    motion_votes: float = 4.0
    """What motion can add at most, log-odds."""
    own_speed_mps: float = 8.0
    """Our own speed as far as is known without measuring it: its mean …"""
    own_speed_std_mps: float = 8.0
    """… and standard deviation."""
    own_turn_std: float = 0.1
    """How far our own yaw rate may depart from the turn that most objects share, rad/s."""
    gate_sigmas: float = 3.0
    """A surprise beyond this many standard deviations counts as noise."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            if not 0 < (found := getattr(self, setting.name)) < np.inf:
                raise ValueError(f"ShapeConfig.{setting.name}: found {found}, expected a number above 0")
        if max(self.persistent_share, 2 * self.reversed_share) >= 1:
            raise ValueError("ShapeConfig: expected persistent_share below 1 and reversed_share below 0.5")


class ShapeFilter:
    """Sizes and headings of all objects of one camera, in the rows that its owner arranges."""

    def __init__(self, turning_rad_s: F64, config: ShapeConfig = ShapeConfig()) -> None:
        """Start without objects.

        Args:
            turning_rad_s: (classes,) standard deviation of the yaw rate by class id.
            config: how the network errs.
        """
        self.config, self._turning_var = config, np.square(turning_rad_s)
        self._state: F64 = np.zeros((16, 0))
        self._any = False
        self._move, self._move_s = np.eye(16), 0.0  # kept between frames: cameras keep their pace

    def __bool__(self) -> bool:
        """Whether anything is known of any object."""
        return self._any

    def rearrange(self, order: I64, keep: Bools) -> None:
        """Keep the objects at these indices, in this order, and forget those whose entry of `keep` is False."""
        if not self._any:
            self._state = np.zeros((16, len(order)))
            return
        self._state = np.where(keep, self._state[:, order], 0.0)
        self._any = bool(self._state[_KNOWN].any())

    def forget(self, rows: Bools) -> None:
        """Start the first N objects afresh where `rows` says so."""
        if self._any:
            self._state[:, : len(rows)][:, rows] = 0.0
            self._any = bool(self._state[_KNOWN].any())

    def predict(self, dt_s: float) -> None:
        """Move all objects `dt_s` seconds ahead: they turn on, and their yaw rate fades."""
        if dt_s != self._move_s:
            self._move, self._move_s = self._movement(dt_s), dt_s
        self._state = self._move @ self._state

    def _movement(self, dt_s: float) -> F64:
        """(16, 16) what `predict` does to a state, its variances included."""
        time_s, move = self.config.turning_time_s, np.eye(16)
        fade = math.exp(-dt_s / time_s)
        reach_s = time_s * (1 - fade)
        move[_ANGLE, _RATE], move[_RATE, _RATE] = reach_s, fade
        # the angle's variance: by the rate so far, and by what drives the rate in between
        move[_AA, [_AR, _RR]] = 2 * reach_s, reach_s**2
        move[_AA, _TURNING_VAR] = time_s**2 * (2 * dt_s / time_s - 3 + 4 * fade - fade**2)
        move[_AR, [_AR, _RR, _TURNING_VAR]] = fade, fade * reach_s, time_s * (1 - fade) ** 2
        move[_RR, [_RR, _TURNING_VAR]] = fade**2, 1 - fade**2
        move[_VOTES, _VOTES] = math.exp(-dt_s / self.config.votes_time_s)
        return move

    def observe(self, cuboids: F32, direction_rad: F64, class_ids: I64, usable: Bools, now_s: float) -> None:
        """Take in this frame's sizes and angles of the first N objects.

        Args:
            cuboids: (N, 8 or 9) as `Detections.cuboids`, NaN where there is none.
            direction_rad: (N,) direction to the object, from straight ahead to the right.
            class_ids: (N,)
            usable: (N,) which objects were seen in this frame.
            now_s: time of the frame.
        """
        seen = cuboids.T.astype(np.float64)
        good = (
            usable & (np.abs(seen).max(axis=0) < 1e4) & (seen.take(_POSITIVE, axis=0).min(axis=0) > 0)
        )  # nor is NaN
        state = self._state[:, : len(good)]
        if not good.all():
            rows = np.flatnonzero(good)
            if not len(rows):
                return
            seen, state = seen[:, rows], state[:, rows]
            direction_rad, class_ids = direction_rad[rows], class_ids[rows]
        log_size = np.log(np.minimum(np.maximum(seen[LENGTH : HEIGHT + 1], SMALLEST_M), LARGEST_M))
        heading, reversed_share = seen[ALPHA] + direction_rad, np.full(len(class_ids), self.config.reversed_share)
        if len(seen) > REVERSED:
            reversed_share = np.minimum(np.maximum(seen[REVERSED], reversed_share), 0.5)
        size_std, angle_std = seen[SIZE_STD], np.minimum(seen[ALPHA_STD], np.pi)
        fresh = (state[_KNOWN] == 0) | (state[_CLASS] != class_ids)
        twice_per_s = 2 / np.maximum(now_s - state[_SEEN_S], 1e-6)
        self._see_size(state, log_size, size_std, twice_per_s)
        self._see_heading(state, heading, angle_std, reversed_share, twice_per_s)
        if fresh.any():
            self._begin(state, log_size, size_std, heading, angle_std, reversed_share, class_ids, fresh)
        state[_SEEN_S] = now_s
        if state.base is not self._state:
            self._state[:, : len(good)][:, good] = state
        self._any = True

    def _begin(
        self,
        state: F64,
        log_size: F64,
        size_std: F64,
        heading: F64,
        angle_std: F64,
        reversed_share: F64,
        class_ids: I64,
        fresh: Bools,
    ) -> None:
        """Start objects that are new, and the sizes of those that have another class now."""
        share, new = self.config.persistent_share, fresh & (state[_KNOWN] == 0)
        lasting = math.sqrt(share)
        state[_SIZE, fresh] = log_size[:, fresh]
        state[_SIZE_VAR, fresh] = (1 - share) * np.square(size_std[fresh])
        state[_SIZE_BIAS, fresh] = lasting * size_std[fresh]
        state[_CLASS, fresh], state[_KNOWN, fresh] = class_ids[fresh], 1.0
        state[_TURNING_VAR, fresh] = self._turning_var[class_ids[fresh]]
        angle_var = np.square(angle_std[new])
        state[_ANGLE, new] = heading[new]
        state[_AA, new] = (1 - share) * angle_var
        state[_ANGLE_BIAS, new] = lasting * angle_std[new]
        state[_RR, new] = state[_TURNING_VAR, new]
        state[_VOTES, new] = votes_of(np.zeros(len(angle_var)), angle_var, reversed_share[new])

    def _see_size(self, state: F64, log_size: F64, size_std: F64, twice_per_s: F64) -> None:
        config = self.config
        surprise = log_size - state[_SIZE]  # (3, n)
        var, bias = state[_SIZE_VAR], state[_SIZE_BIAS]
        noise = np.square(size_std) * (1 - config.persistent_share) * (1 + config.size_time_s * twice_per_s)
        largest = np.square(surprise).max(axis=0) * (1 / config.gate_sigmas**2)
        gain = var / (var + np.maximum(noise, largest - var - np.square(bias)))
        state[_SIZE] += gain * surprise
        var *= 1 - gain
        bias += gain * (math.sqrt(config.persistent_share) * size_std - bias)

    def _see_heading(self, state: F64, heading: F64, angle_std: F64, reversed_share: F64, twice_per_s: F64) -> None:
        """Correct the axis, and count the vote for front and rear."""
        config, surprise, angle_var = self.config, heading - state[_ANGLE], np.square(angle_std)
        vote = votes_of(surprise, angle_var, reversed_share) / (1 + config.reversed_time_s * twice_per_s)
        votes, bias = state[_VOTES], state[_ANGLE_BIAS]
        votes += vote
        np.maximum(votes, -config.most_votes, out=votes)
        np.minimum(votes, config.most_votes, out=votes)
        surprise = (surprise + np.pi / 2) % np.pi - np.pi / 2  # of the axis
        noise = angle_var * (1 - config.persistent_share) * (1 + config.angle_time_s * twice_per_s)
        var = state[_AA]
        noise = np.maximum(noise, np.square(surprise * (1 / config.gate_sigmas)) - var)
        gains = state[_AA : _AR + 1] / (var + noise)  # of the angle and of its rate
        gain, rate_gain = gains
        state[_ANGLE : _RATE + 1] += gains * surprise
        state[_RR] -= rate_gain * state[_AR]
        state[_AA : _AR + 1] *= 1 - gain
        bias += gain * (math.sqrt(config.persistent_share) * angle_std - bias)

    def half_depths(self, direction_rad: F64) -> tuple[F64, F64, Bools]:
        """Return half the extent along the line of sight of the first N objects, its variance, and where it is known.

        Args:
            direction_rad: (N,) direction to the object, from straight ahead to the right.
        """
        state = self._state[:, : len(direction_rad)]
        size_m = np.exp(state[:2]) * 0.5  # length and width
        angle = state[_ANGLE] - direction_rad
        sin, cos = np.abs(np.sin(angle)), np.abs(np.cos(angle))
        half = size_m[0] * sin + size_m[1] * cos
        by_angle = size_m[0] * cos - size_m[1] * sin
        size_var = state[_SIZE_VAR] + np.square(state[_SIZE_BIAS])
        angle_var = state[_AA] + np.square(state[_ANGLE_BIAS])
        known = (state[_KNOWN] > 0) & (angle_var < LOOSE_RAD**2)
        return half, half * half * size_var + by_angle * by_angle * angle_var, known

    def resolve(self, place_m: F64, velocity_mps: F64, velocity_var: F64) -> F64:
        """Turn objects round whose votes speak for their rear, motion included; return the log-odds of the others.

        Args:
            place_m: (2, N) right and ahead.
            velocity_mps: (2, N) relative to the camera.
            velocity_var: (2, 2, N) its covariance.
        """
        state = self._state[:, : place_m.shape[1]]
        votes = state[_VOTES] + motion_votes(state[_ANGLE], place_m, velocity_mps, velocity_var, self.config)
        back = votes < -0.5
        if back.any() and (back := back & (state[_KNOWN] > 0)).any():
            state[_ANGLE, back] += np.pi
            state[_VOTES, back] *= -1
            votes[back] *= -1
        return votes

    def report(self, votes: F64) -> tuple[F64, F64, F64, F64]:
        """Return sizes and their standard deviations (N, 3), headings and theirs (N,); NaN where nothing is known."""
        state = self._state[:, : len(votes)]
        size_m = np.exp(state[_SIZE])
        biases = np.square(state[_SIZE_BIAS : _ANGLE_BIAS + 1 : _ANGLE_BIAS - _SIZE_BIAS])
        size_std_m = size_m * np.sqrt(state[_SIZE_VAR] + biases[0])
        heading_var = heading_variance(state[_AA] + biases[1], 1 / (1 + np.exp(votes)))
        heading_std = np.minimum(np.sqrt(heading_var), np.pi)
        heading = wrap(state[_ANGLE])
        unknown = state[_KNOWN] == 0
        if unknown.any():
            size_m[:, unknown] = size_std_m[:, unknown] = heading[unknown] = heading_std[unknown] = np.nan
        return size_m.T, size_std_m.T, heading, heading_std
