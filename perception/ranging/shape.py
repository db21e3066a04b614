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
from perception.cameras.cuboids import ALPHA, ALPHA_STD, HEIGHT, LENGTH, SIZE_STD, wrap

Bools = np.ndarray
LARGEST_M, SMALLEST_M = 40.0, 0.1
LOOSE_RAD = 0.4
"""A heading less sure than this says nothing about an object's extent."""
_SIZE, _SIZE_VAR, _SIZE_BIAS = slice(0, 3), 3, 4
_ANGLE, _RATE, _AA, _AR, _RR, _ANGLE_BIAS, _VOTES = range(5, 12)
_KNOWN, _CLASS, _SEEN_S, _TURNING = range(12, 16)
"""Rows of the state: logarithms of length, width and height, their variance, and the standard deviation of what is
not averaged out; heading and yaw rate with their covariance, the same for the heading, log-odds that it is not the
rear; 1 where anything is known, class, time of the latest measurement, and standard deviation of the yaw rate."""


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
    """Share of frames in which the network takes the rear for the front."""
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
        self.config, self._turning_rad_s = config, turning_rad_s
        self._state: F64 = np.zeros((16, 0))

    def __bool__(self) -> bool:
        """Whether anything is known of any object."""
        return bool(self._state[_KNOWN].any())

    def rearrange(self, order: I64, keep: Bools) -> None:
        """Keep the objects at these indices, in this order, and forget those whose entry of `keep` is False."""
        if self._state.shape[1] == 0:
            self._state = np.zeros((16, len(order)))
        else:
            self._state = np.where(keep, self._state[:, order], 0.0)

    def forget(self, rows: Bools) -> None:
        """Start the first N objects afresh where `rows` says so."""
        if rows.any():
            self._state[:, : len(rows)][:, rows] = 0.0

    def predict(self, dt_s: float) -> None:
        """Move all objects `dt_s` seconds ahead: they turn on, and their yaw rate fades."""
        state, time_s = self._state, self.config.turning_time_s
        fade = math.exp(-dt_s / time_s)
        reach_s = time_s * (1 - fade)
        spread = time_s**2 * (2 * dt_s / time_s - 3 + 4 * fade - fade**2)  # of the angle, by what drives the rate
        turning = np.square(state[_TURNING])
        state[_ANGLE] = wrap(state[_ANGLE] + reach_s * state[_RATE])
        state[_AA] += reach_s * (2 * state[_AR] + reach_s * state[_RR]) + spread * turning
        state[_AR] = fade * (state[_AR] + reach_s * state[_RR]) + time_s * (1 - fade) ** 2 * turning
        state[_RR] = fade**2 * state[_RR] + (1 - fade**2) * turning
        state[_RATE] *= fade
        state[_VOTES] *= math.exp(-dt_s / self.config.votes_time_s)

    def observe(self, cuboids: F32, direction_rad: F64, class_ids: I64, usable: Bools, now_s: float) -> None:
        """Take in this frame's sizes and angles of the first N objects.

        Args:
            cuboids: (N, 8) as `Detections.cuboids`, NaN where there is none.
            direction_rad: (N,) direction to the object, from straight ahead to the right.
            class_ids: (N,)
            usable: (N,) which objects were seen in this frame.
            now_s: time of the frame.
        """
        seen = np.asarray(cuboids, np.float64).T
        good = usable & (np.abs(seen).max(axis=0) < 1e4) & (seen[LENGTH : HEIGHT + 1].min(axis=0) > 0)  # nor is NaN
        good &= (seen[SIZE_STD] > 0) & (seen[ALPHA_STD] > 0)
        rows = np.flatnonzero(good)
        if not len(rows):
            return
        seen, state = seen[:, rows], self._state[:, rows]
        log_size = np.log(np.clip(seen[LENGTH : HEIGHT + 1], SMALLEST_M, LARGEST_M))
        heading = wrap(seen[ALPHA] + direction_rad[rows])
        size_var, angle_var = np.square(seen[SIZE_STD]), np.square(np.minimum(seen[ALPHA_STD], np.pi))
        gap_s = np.maximum(now_s - state[_SEEN_S], 1e-6)
        fresh = (state[_KNOWN] == 0) | (state[_CLASS] != class_ids[rows])
        self._see_size(state, log_size, size_var, 1 + 2 * self.config.size_time_s / gap_s, fresh)
        self._see_heading(state, heading, angle_var, gap_s)
        self._begin(state, log_size, size_var, heading, angle_var, class_ids[rows], fresh)
        state[_SEEN_S] = now_s
        self._state[:, rows] = state

    def _begin(
        self,
        state: F64,
        log_size: F64,
        size_var: F64,
        heading: F64,
        angle_var: F64,
        class_ids: I64,
        fresh: np.ndarray,
    ) -> None:
        """Start objects that are new, and the sizes of those that have another class now."""
        share, new = self.config.persistent_share, fresh & (state[_KNOWN] == 0)
        state[_SIZE] = np.where(fresh, log_size, state[_SIZE])
        state[_SIZE_VAR] = np.where(fresh, (1 - share) * size_var, state[_SIZE_VAR])
        state[_SIZE_BIAS] = np.where(fresh, np.sqrt(share * size_var), state[_SIZE_BIAS])
        state[_CLASS], state[_KNOWN] = class_ids, 1.0
        state[_TURNING] = self._turning_rad_s[class_ids]
        state[_ANGLE] = np.where(new, heading, state[_ANGLE])
        state[_AA] = np.where(new, (1 - share) * angle_var, state[_AA])
        state[_ANGLE_BIAS] = np.where(new, np.sqrt(share * angle_var), state[_ANGLE_BIAS])
        state[_RR] = np.where(new, np.square(state[_TURNING]), state[_RR])
        votes = self._votes(np.zeros(len(class_ids)), angle_var)
        state[_VOTES] = np.where(new, votes, state[_VOTES])

    def _see_size(self, state: F64, log_size: F64, size_var: F64, repetition: F64, fresh: Bools) -> None:
        share = self.config.persistent_share
        surprise = log_size - state[_SIZE]  # (3, n)
        noise = (1 - share) * size_var * repetition
        largest = np.square(surprise).max(axis=0) / self.config.gate_sigmas**2
        noise = np.maximum(noise, largest - state[_SIZE_VAR] - np.square(state[_SIZE_BIAS]))
        gain = state[_SIZE_VAR] / (state[_SIZE_VAR] + noise)
        state[_SIZE] += gain * surprise
        state[_SIZE_VAR] *= 1 - gain
        state[_SIZE_BIAS] += gain * (np.sqrt(share * size_var) - state[_SIZE_BIAS])

    def _see_heading(self, state: F64, heading: F64, angle_var: F64, gap_s: F64) -> None:
        """Correct the axis, and count the vote for front and rear."""
        config = self.config
        surprise = wrap(heading - state[_ANGLE])
        vote = self._votes(surprise, angle_var) / (1 + 2 * config.reversed_time_s / gap_s)
        state[_VOTES] = np.clip(state[_VOTES] + vote, -config.most_votes, config.most_votes)
        surprise = (surprise + np.pi / 2) % np.pi - np.pi / 2  # of the axis
        noise = (1 - config.persistent_share) * angle_var * (1 + 2 * config.angle_time_s / gap_s)
        noise = np.maximum(noise, np.square(surprise / config.gate_sigmas) - state[_AA])
        total = state[_AA] + noise
        gain, rate_gain = state[_AA] / total, state[_AR] / total
        state[_ANGLE] = wrap(state[_ANGLE] + gain * surprise)
        state[_RATE] += rate_gain * surprise
        state[_RR] -= rate_gain * state[_AR]
        state[_AR] *= 1 - gain
        state[_AA] *= 1 - gain
        state[_ANGLE_BIAS] += gain * (np.sqrt(config.persistent_share * angle_var) - state[_ANGLE_BIAS])

    def _votes(self, surprise: F64, angle_var: F64) -> F64:
        """Log-odds that a heading so far from the object's own was measured at its front and not at its rear."""
        right, wrong = math.log(1 - self.config.reversed_share), math.log(self.config.reversed_share)
        lean = np.cos(surprise) / np.maximum(angle_var, 1e-4)
        return np.logaddexp(right + lean, wrong - lean) - np.logaddexp(wrong + lean, right - lean)

    def half_depths(self, direction_rad: F64) -> tuple[F64, F64, Bools]:
        """Return half the extent along the line of sight of the first N objects, its variance, and where it is known.

        Args:
            direction_rad: (N,) direction to the object, from straight ahead to the right.
        """
        state = self._state[:, : len(direction_rad)]
        length, width, _ = np.exp(state[_SIZE])
        angle = state[_ANGLE] - direction_rad
        sin, cos = np.abs(np.sin(angle)), np.abs(np.cos(angle))
        half = (length * sin + width * cos) / 2
        size_var = state[_SIZE_VAR] + np.square(state[_SIZE_BIAS])
        angle_var = state[_AA] + np.square(state[_ANGLE_BIAS])
        by_angle = np.square((length * cos - width * sin) / 2) * angle_var
        return half, half * half * size_var + by_angle, (state[_KNOWN] > 0) & (angle_var < LOOSE_RAD**2)

    def resolve(self, place_m: F64, velocity_mps: F64, velocity_var: F64) -> F64:
        """Turn objects round whose votes speak for their rear, motion included; return the log-odds of the others.

        Args:
            place_m: (2, N) right and ahead.
            velocity_mps: (2, N) relative to the camera.
            velocity_var: (3, N) variance to the right, covariance, variance ahead.
        """
        state = self._state[:, : place_m.shape[1]]
        moves = self._motion_votes(state[_ANGLE], place_m, velocity_mps, velocity_var)
        votes = state[_VOTES] + moves
        back = (votes < -0.5) & (state[_KNOWN] > 0)
        if back.any():
            state[_ANGLE] = np.where(back, wrap(state[_ANGLE] + np.pi), state[_ANGLE])
            state[_VOTES] = np.where(back, -state[_VOTES], state[_VOTES])
            votes = np.where(back, -votes, votes)
        return votes

    def _motion_votes(self, heading: F64, place_m: F64, velocity_mps: F64, velocity_var: F64) -> F64:
        """Log-odds that an object that moves like this drives forwards and not backwards."""
        config = self.config
        x, z = place_m
        turns = -velocity_mps[0] / np.maximum(z, 1.0)
        # clockwise; without three objects that agree, we are taken to drive straight on
        own_turn = float(np.median(np.append(turns[np.isfinite(turns)], (0.0, 0.0))))
        right = velocity_mps[0] + own_turn * z
        ahead = velocity_mps[1] - own_turn * x + config.own_speed_mps
        turn_var = config.own_turn_std**2
        var_right = velocity_var[0] + turn_var * z * z
        var_ahead = velocity_var[2] + turn_var * x * x + config.own_speed_std_mps**2
        shared = velocity_var[1] - turn_var * x * z
        cos, sin = np.cos(heading), np.sin(heading)  # it faces (cos, -sin)
        # the speed along the heading that explains this velocity best, over its standard deviation; the determinant
        # of the covariance belongs to both, and its root is left
        along = var_ahead * cos * right - shared * (cos * ahead - sin * right) - var_right * sin * ahead
        strength = var_ahead * cos * cos + 2 * shared * cos * sin + var_right * sin * sin
        determinant = np.maximum(var_right * var_ahead - shared * shared, 1e-9)
        sigmas = along / np.sqrt(np.maximum(strength * determinant, 1e-12))
        votes = 1.7 * sigmas  # log Φ(s) / Φ(-s), near enough up to 3
        return np.where(np.isfinite(votes), np.clip(votes, -config.motion_votes, config.motion_votes), 0.0)

    def report(self, votes: F64) -> tuple[F64, F64, F64, F64]:
        """Return sizes and their standard deviations (N, 3), headings and theirs (N,); NaN where nothing is known.

        Where front and rear are not told apart to 95 %, the standard deviation holds the other way round as well.
        """
        state = self._state[:, : len(votes)]
        unknown = state[_KNOWN] == 0
        size_m = np.exp(state[_SIZE])
        size_std_m = size_m * np.sqrt(state[_SIZE_VAR] + np.square(state[_SIZE_BIAS]))
        reversed_share = np.maximum(1 / (1 + np.exp(votes)) - 0.05, 0.0)
        heading_var = state[_AA] + np.square(state[_ANGLE_BIAS]) + np.pi**2 * reversed_share
        heading_std = np.minimum(np.sqrt(heading_var), np.pi)
        size_m[:, unknown] = size_std_m[:, unknown] = np.nan
        heading = np.where(unknown, np.nan, state[_ANGLE])
        return size_m.T, size_std_m.T, heading, np.where(unknown, np.nan, heading_std)
