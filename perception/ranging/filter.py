"""The Kalman filter behind `ranging.py`: every object's place in metres, and the one tilt of the road they share.

A car nods: when its nose dips by half a degree, every foot point on the road moves at once, and each object alone
would seem to jump. It rolls, and roads slope to the kerb: then what stands left moves up and what stands right moves
down. So pitch and roll between camera and road are states of their own. Objects depend on one another only through
them, and that gives the joint filter a cheap form: for each object a mean and covariance *given the tilt*, and how
far the mean moves when the tilt is found to be different (`lean`). A measurement of one object updates that object
as usual and adds its evidence on the tilt; when all have spoken, the tilt moves and every object moves along. This is
the joint Kalman filter, block by block; only where the tilt itself drifts between frames are the small correlations
that this makes between objects left out.

Arrays are laid out state by state, with the objects last, so that each line works on all objects at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from perception.arrays import F64

X, VX, Z, VZ, LOG_HEIGHT, SLOPE = range(6)
"""State of an object: place (right, ahead) and speed, metres and seconds, relative to the camera; logarithm of its
height in metres; how much higher its patch of road appears than the flat plane, as a tangent at the camera."""


@dataclass(frozen=True)
class Drift:
    """How the world departs from constant velocity on a flat road."""

    pitch_std_rad: float = 0.015
    """How far the camera's pitch strays from the calibration: mounting, nodding and slopes of the whole road."""
    pitch_time_s: float = 20.0
    """How long it stays there."""
    roll_std_rad: float = 0.015
    """The same about the line of sight: the camera's roll and the road's cross slope."""
    roll_time_s: float = 5.0
    """How long it stays there."""
    slope_std_rad: float = 0.0035
    """How far the patch of road under one object departs from the plane, as an angle at the camera."""
    ground_std_m: float = 0.05
    """The same in metres, which counts for what is near: kerbs, camber, load of our own car."""
    slope_time_s: float = 4.0
    """How long that lasts."""
    acceleration_ahead: float = 3.5
    """Change of relative speed ahead within a second, m/s."""
    acceleration_aside: float = 2.5
    """Change of relative speed sideways within a second, m/s."""
    turning_rad: float = 0.05
    """Change of our own yaw rate within a second, rad/s: moves far objects sideways."""
    height_growth: float = 0.003
    """Drift of an object's apparent log height within a second: gait, a changing view."""
    gate_sigmas: float = 3.0
    """A surprise beyond this many standard deviations counts as noise."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            if not 0 < getattr(self, setting.name) < np.inf:
                found = getattr(self, setting.name)
                raise ValueError(f"Drift.{setting.name}: found {found}, expected a number above 0")

    def slope_var(self, ahead_m: float) -> float:
        """Variance of how much higher the road under an object seems, as a tangent, at this distance."""
        return self.slope_std_rad**2 + (self.ground_std_m / ahead_m) ** 2


class RangingFilter:
    """Means, covariances and the shared tilt.

    For each frame: `predict`, `rearrange`, `begin`, then `listen`, `observe` for each kind of measurement, `settle`.
    Everything about the objects is one array, because at ten objects the time goes into the number of array
    operations and not into their size.
    """

    def __init__(self, drift: Drift) -> None:
        self.drift = drift
        self.tilt: F64 = np.zeros(2)
        """(2,) pitch and roll beyond the calibration, radians: the road looks lower by pitch + roll × bearing."""
        self.tilt_cov: F64 = np.diag([drift.pitch_std_rad**2, drift.roll_std_rad**2])
        """(2, 2)"""
        self._per_gate = np.array(1 / drift.gate_sigmas)
        # kept between frames: what `predict` does to the columns of the state, and how much of the old tilt is lost
        self._mix, self._lost = np.eye(9), np.zeros((2, 2))
        self._prepare(0.1)
        self._hold(np.zeros((6, 9, 0)))

    def _hold(self, state: F64) -> None:
        self._state = self._heard = state
        """(6, 9, N): for each state its mean, lean (2) and covariance with all states (6)."""
        self.mean = state[:, 0]
        """(6, N) at the present tilt."""
        self.lean = state[:, 1:3]
        """(6, 2, N) change of the mean per radian of pitch and of roll."""
        self.cov = state[:, 3:]
        """(6, 6, N) given the tilt."""

    def rearrange(self, order: np.ndarray) -> None:
        """Keep the objects at these indices, in this order; -1 makes room for a new one."""
        if self._state.shape[2] == 0:
            self._hold(np.zeros((6, 9, len(order))))
        else:
            self._hold(self._state.take(order, axis=2))

    def begin(self, row: int, mean: tuple[float, ...], variance: tuple[float, ...]) -> None:
        """Start the object of this row afresh: means and variances of its six states."""
        state = self._state[:, :, row]
        state[:] = 0.0
        state[:, 0] = mean
        np.fill_diagonal(state[:, 3:], variance)

    def predict(self, dt_s: float) -> None:
        """Move everything `dt_s` seconds ahead (above 0) at constant relative velocity."""
        state, lean, cov = self._state, self.lean, self.cov
        if dt_s != self._prepared_s:
            self._prepare(dt_s)
        self._drift_tilt(dt_s)
        if state.shape[2] == 0:
            return
        spread = self._lost @ lean
        cov += lean[:, None, 0] * spread[:, 0] + lean[:, None, 1] * spread[:, 1]
        moved = (self._mix[3:, 3:] @ state.reshape(6, -1)).reshape(state.shape)
        np.matmul(self._mix, moved, out=state)  # for each state: mean, lean on the new tilt, covariance · moveᵀ
        cov += self._noise
        # what depends on the distance: our own turning moves what is far, the ground under it what is near
        ahead_m2 = np.square(np.maximum(self.mean[Z], 1.0))
        cov[X : VX + 1, X : VX + 1] += self._turning * ahead_m2
        cov[SLOPE, SLOPE] += self._ground / ahead_m2

    def _prepare(self, dt_s: float) -> None:
        """What `predict` needs and only time decides; cameras keep their pace, so this is seldom done again."""
        drift, noise = self.drift, np.zeros((6, 6, 1))
        fade = math.exp(-dt_s / drift.slope_time_s)
        self._mix[3 + X, 3 + VX] = self._mix[3 + Z, 3 + VZ] = dt_s
        self._mix[3 + SLOPE, 3 + SLOPE] = fade
        shaken = np.array([[[dt_s**3 / 3], [dt_s**2 / 2]], [[dt_s**2 / 2], [dt_s]]])
        noise[X : VX + 1, X : VX + 1] = shaken * drift.acceleration_aside**2
        noise[Z : VZ + 1, Z : VZ + 1] = shaken * drift.acceleration_ahead**2
        noise[LOG_HEIGHT, LOG_HEIGHT] = drift.height_growth**2 * dt_s
        noise[SLOPE, SLOPE] = (1 - fade**2) * drift.slope_std_rad**2
        self._turning, self._ground = shaken * drift.turning_rad**2, (1 - fade**2) * drift.ground_std_m**2
        self._noise, self._prepared_s = noise, dt_s

    def _drift_tilt(self, dt_s: float) -> None:
        """Let the tilt fade towards the calibration; write into `_mix` and `_lost` what that does to the objects."""
        drift, mix, lost = self.drift, self._mix, self._lost
        pitch, roll = math.exp(-dt_s / drift.pitch_time_s), math.exp(-dt_s / drift.roll_time_s)
        (a, b), (_, d) = self.tilt_cov.tolist()
        new_a = pitch * pitch * a + (1 - pitch * pitch) * drift.pitch_std_rad**2
        new_b = pitch * roll * b
        new_d = roll * roll * d + (1 - roll * roll) * drift.roll_std_rad**2
        # the old tilt, seen from the new one: old · keep · new⁻¹
        factor = 1 / (new_a * new_d - new_b * new_b)
        back_aa = (a * pitch * new_d - b * roll * new_b) * factor
        back_ad = (b * roll * new_a - a * pitch * new_b) * factor
        back_da = (b * pitch * new_d - d * roll * new_b) * factor
        back_dd = (d * roll * new_a - b * pitch * new_b) * factor
        mix[1, 1], mix[1, 2], mix[2, 1], mix[2, 2] = back_aa, back_da, back_ad, back_dd
        # what the new one does not explain of the old one: old − back · keep · old
        lost[0, 0] = a - back_aa * pitch * a - back_ad * roll * b
        lost[0, 1] = lost[1, 0] = b - back_aa * pitch * b - back_ad * roll * d
        lost[1, 1] = d - back_da * pitch * b - back_dd * roll * d
        self.tilt = self.tilt * (pitch, roll)
        self.tilt_cov = np.array([[new_a, new_b], [new_b, new_d]])

    def listen(self, count: int) -> None:
        """Before the first `observe` of a frame, which will be about the first `count` objects."""
        self._heard = self._state[:, :, :count]
        self._evidence = np.zeros((2, 3))

    def observe(
        self, residual: F64, row: int, falls: tuple[tuple[int, F64], ...], tilt: F64 | None, var: F64
    ) -> None:
        """Take in one number about each object: it grows with one state, one to one, and falls with others.

        Args:
            residual: (N,) measured less expected.
            row: the state that it grows with.
            falls: further states, and by how much it falls with each (N,).
            tilt: (2, N) its derivative by the shared tilt; None where it does not depend on it.
            var: (N,) variance; infinite where this object was not measured.
        """
        state = self._heard
        # (9, N): room for the residual; how the measurement leans on the tilt; its covariance with the states
        with_all: F64 = state[row].copy()
        for other, fall in falls:
            with_all -= state[other] * fall
        share = with_all[1:3]
        if tilt is not None:
            share += tilt
        own = var + with_all[3 + row]
        for other, fall in falls:
            own -= with_all[3 + other] * fall
        # a surprise beyond the gate counts as noise: one wild box moves neither its object nor the tilt far
        by_tilt = share * self.tilt_cov.dot(share)
        surprise = residual * self._per_gate
        least = np.multiply(surprise, surprise, out=surprise)
        least -= by_tilt[0]
        least -= by_tilt[1]
        np.maximum(own, least, out=own)
        np.negative(residual, out=with_all[0])
        gain = with_all / own
        state -= gain[3:, None] * with_all
        self._evidence += gain[1:3].dot(with_all[:3].T)

    def settle(self) -> None:
        """After the last `observe` of a frame: the tilt moves to where all objects together want it."""
        (a, b), (_, d) = self.tilt_cov.tolist()
        (pull_pitch, aa, ad), (pull_roll, _, dd) = self._evidence.tolist()
        factor = 1 / (a * d - b * b)
        a, b, d = d * factor + aa, -b * factor + ad, a * factor + dd  # of the inverse
        factor = 1 / (a * d - b * b)
        a, b, d = d * factor, -b * factor, a * factor
        step = np.array([-a * pull_pitch - b * pull_roll, -b * pull_pitch - d * pull_roll])
        self.tilt_cov = np.array([[a, b], [b, d]])
        self.tilt = self.tilt + step
        self.mean += step @ self.lean

    def place_variance(self, count: int) -> F64:
        """(2, N) variances of X and Z of the first `count` objects, the uncertainty of the tilt included."""
        lean = self.lean[X : Z + 1 : Z - X, :, :count]
        spread = lean * (self.tilt_cov @ lean)
        own = self._state.reshape(54, -1)[3 : 3 + 2 * 20 : 20, :count]  # cov[X, X] and cov[Z, Z], 2 · 9 + 2 rows on
        return spread[:, 0] + spread[:, 1] + own

    def speed_variance(self, count: int) -> F64:
        """(2, 2, N) covariance of VX and VZ of the first `count` objects, the uncertainty of the tilt included."""
        speeds = self._state[VX : VZ + 1 : VZ - VX, :, :count]  # (2, 9, N)
        lean = speeds[:, 1:3]
        by_tilt = lean[:, None] * (self.tilt_cov @ lean)  # (2, 2, 2, N)
        return speeds[:, 3 + VX : 3 + VZ + 1 : VZ - VX] + by_tilt[:, :, 0] + by_tilt[:, :, 1]
