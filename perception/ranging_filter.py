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

from perception.types import F64

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

    def slope_var(self, ahead_m: F64) -> F64:
        """(N,) variance of how much higher the road under an object seems, as a tangent, at these distances."""
        return self.slope_std_rad**2 + (self.ground_std_m / ahead_m) ** 2


class RangingFilter:
    """Means, covariances and the shared tilt.

    For each frame: `predict`, `rearrange`, `begin`, then `listen`, `observe` for each kind of measurement, `settle`.
    """

    def __init__(self, drift: Drift) -> None:
        self.drift = drift
        self._tilt_prior = np.array([drift.pitch_std_rad, drift.roll_std_rad]) ** 2
        self._tilt_times_s = np.array([drift.pitch_time_s, drift.roll_time_s])
        self.tilt: F64 = np.zeros(2)
        """(2,) pitch and roll beyond the calibration, radians: the road looks lower by pitch + roll × bearing."""
        self.tilt_cov: F64 = np.diag(self._tilt_prior)
        """(2, 2)"""
        self.mean: F64 = np.zeros((6, 0))
        """(6, N) at the present tilt."""
        self.lean: F64 = np.zeros((2, 6, 0))
        """(2, 6, N) change of the mean per radian of pitch and of roll."""
        self.cov: F64 = np.zeros((6, 6, 0))
        """(6, 6, N) given the tilt."""

    def rearrange(self, order: np.ndarray) -> None:
        """Keep the objects at these indices, in this order; -1 makes room for a new one."""
        if self.mean.shape[1] == 0:
            order = np.zeros(len(order), np.int64)
            self.mean, self.lean, self.cov = np.zeros((6, 1)), np.zeros((2, 6, 1)), np.zeros((6, 6, 1))
        self.mean, self.lean, self.cov = self.mean[:, order], self.lean[:, :, order], self.cov[:, :, order]

    def begin(self, rows: np.ndarray, mean: F64, variance: F64) -> None:
        """Start objects afresh: (n,) rows, (6, n) means, (6, n) variances."""
        self.mean[:, rows], self.lean[:, :, rows], self.cov[:, :, rows] = mean, 0.0, 0.0
        for state in range(6):
            self.cov[state, state, rows] = variance[state]

    def predict(self, dt_s: float) -> None:
        """Move everything `dt_s` seconds ahead (above 0) at constant relative velocity."""
        mean, lean, cov, drift = self.mean, self.lean, self.cov, self.drift
        keep = np.exp(-dt_s / self._tilt_times_s)
        tilt_cov = keep[:, None] * self.tilt_cov * keep + np.diag((1 - keep**2) * self._tilt_prior)
        back = self.tilt_cov * keep @ np.linalg.inv(tilt_cov)  # (2, 2) the old tilt, seen from the new one
        left = self.tilt_cov - back @ tilt_cov @ back.T  # (2, 2) what the new one does not tell of the old one
        cov += lean[0][:, None] * (left[0, 0] * lean[0] + left[0, 1] * lean[1])
        cov += lean[1][:, None] * (left[1, 0] * lean[0] + left[1, 1] * lean[1])
        lean[:] = (back.T @ lean.reshape(2, -1)).reshape(lean.shape)
        self.tilt, self.tilt_cov = self.tilt * keep, tilt_cov

        fade = math.exp(-dt_s / drift.slope_time_s)
        for array in (mean, lean[0], lean[1], cov, cov.swapaxes(0, 1)):
            array[:4:2] += dt_s * array[1:4:2]  # X by VX, Z by VZ
            array[SLOPE] *= fade

        ahead_m = np.maximum(mean[Z], 1.0)
        shaken = np.array([[dt_s**3 / 3, dt_s**2 / 2], [dt_s**2 / 2, dt_s]])[:, :, None]
        cov[:2, :2] += shaken * (drift.acceleration_aside**2 + (drift.turning_rad * ahead_m) ** 2)
        cov[2:4, 2:4] += shaken * drift.acceleration_ahead**2
        cov[LOG_HEIGHT, LOG_HEIGHT] += drift.height_growth**2 * dt_s
        cov[SLOPE, SLOPE] += (1 - fade**2) * drift.slope_var(ahead_m)

    def observe(
        self, residual: F64, rows: tuple[int, ...], slopes: tuple[F64 | float, ...], tilt: F64 | None, var: F64
    ) -> None:
        """Take in one number about each object.

        Args:
            residual: (N,) measured less expected.
            rows: states that the measurement depends on.
            slopes: its derivative by each of them, (N,) or one number.
            tilt: (2, N) its derivative by the shared tilt; None where it does not depend on it.
            var: (N,) variance; infinite where this object was not measured.
        """
        reach: F64 = self.cov[:, rows[0]] * slopes[0]  # (6, N) covariance of the state with the measurement
        share: F64 = self.lean[:, rows[0]] * slopes[0]  # (2, N) of the measurement with the tilt
        for row, slope in zip(rows[1:], slopes[1:], strict=True):
            reach = reach + self.cov[:, row] * slope
            share = share + self.lean[:, row] * slope
        if tilt is not None:
            share = share + tilt
        own: F64 = var.copy()
        for row, slope in zip(rows, slopes, strict=True):
            own += reach[row] * slope
        # a surprise beyond the gate counts as noise: one wild box moves neither its object nor the tilt far
        total = own + (share * (self.tilt_cov @ share)).sum(axis=0)
        own += np.maximum(residual * residual / self.drift.gate_sigmas**2 - total, 0)
        gain = reach / own
        self.mean += gain * residual
        self.lean -= gain * share[:, None]
        self.cov -= gain[:, None] * reach
        weight = share / own
        self._evidence += weight @ share.T
        self._pull += weight @ residual

    def place_cov(self) -> F64:
        """(4, 4, N) covariance of place and speed, the uncertainty of the tilt included."""
        lean = self.lean[:, :4]
        spread = (self.tilt_cov @ lean.reshape(2, -1)).reshape(lean.shape)
        return self.cov[:4, :4] + lean[0][:, None] * spread[0] + lean[1][:, None] * spread[1]

    def listen(self) -> None:
        """Before the first `observe` of a frame."""
        self._evidence, self._pull = np.linalg.inv(self.tilt_cov), np.zeros(2)

    def settle(self) -> None:
        """After the last `observe` of a frame: the tilt moves to where all objects together want it."""
        self.tilt_cov = np.linalg.inv(self._evidence)
        step = self.tilt_cov @ self._pull
        self.tilt = self.tilt + step
        self.mean += step[0] * self.lean[0] + step[1] * self.lean[1]
