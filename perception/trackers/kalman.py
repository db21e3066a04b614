"""A Kalman filter over all boxes of all tracks at once, on real time.

The state of a box is its centre and size and their rates: (cx, cy, w, h) and (cx', cy', w', h'), pixels and pixels
a second. The four coordinates move independently at constant velocity, so the 8×8 covariance is four 2×2 blocks, and
a block is three numbers. Every step is then a handful of array operations over (N, 4), whatever N.

Noise grows with the box's height, since a near object moves and errs in proportion to its size. Source of the
constant-velocity model with white acceleration: Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to
Tracking and Navigation", 2001, section 6.2.2; of noise in proportion to height: Wojke et al., DeepSORT, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from perception.boxes import Floats
from perception.types import F64, I64

MIN_SIZE_PX = 1.0
"""Predicted boxes never get smaller than this."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations, each a fraction of the box's height."""

    measurement: float = 0.05
    """Of a detected coordinate."""
    acceleration: float = 1.0
    """Of the change of velocity, per second and per root second: how fast objects change their motion."""
    birth_velocity: float = 1.0
    """Of the velocity of a new track, per second."""


class Columns:
    """A dataclass of arrays with a common first axis, or of further such classes."""

    def keep(self, mask: np.ndarray) -> None:
        """Forget the rows where `mask` is False."""
        for name in self.__dataclass_fields__:  # type: ignore[attr-defined]
            column = getattr(self, name)
            if isinstance(column, Columns):
                column.keep(mask)
            else:
                setattr(self, name, column[mask])

    def append(self, other: Self) -> None:
        """Add the rows of `other` at the end."""
        for name in self.__dataclass_fields__:  # type: ignore[attr-defined]
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Columns):
                mine.append(theirs)
            else:
                setattr(self, name, np.concatenate([mine, theirs]))


@dataclass(eq=False)
class BoxStates(Columns):
    """The filtered state of N boxes; all arrays (N, 4) float64 in the order cx, cy, w, h."""

    position: F64
    velocity: F64
    var_pp: F64
    """Variance of the position."""
    var_pv: F64
    """Covariance of position and velocity."""
    var_vv: F64
    """Variance of the velocity."""

    def __len__(self) -> int:
        return len(self.position)

    @staticmethod
    def born(boxes_cxcywh: Floats, noise: Noise) -> BoxStates:
        """New states at rest where they were first seen."""
        position: F64 = boxes_cxcywh.astype(np.float64)
        height = np.broadcast_to(position[:, 3:], position.shape)
        zero = np.zeros_like(position)
        return BoxStates(
            position,
            zero,
            (noise.measurement * height) ** 2,
            zero.copy(),
            (noise.birth_velocity * height) ** 2,
        )


def predict(states: BoxStates, dt_s: float | F64, noise: Noise) -> None:
    """Move every state ahead in time, in place. `dt_s` is one duration or one for each state, (N, 1), ≥ 0."""
    q = (noise.acceleration * states.position[:, 3:]) ** 2
    states.position += states.velocity * dt_s
    np.maximum(states.position[:, 2:], MIN_SIZE_PX, out=states.position[:, 2:])
    states.var_pp += dt_s * (2 * states.var_pv + dt_s * (states.var_vv + dt_s / 3 * q))
    states.var_pv += dt_s * (states.var_vv + dt_s / 2 * q)
    states.var_vv += dt_s * q


def correct(states: BoxStates, rows: I64, boxes_cxcywh: Floats, variance: Floats) -> None:
    """Blend measured boxes (K, 4) of variance (K, 4) or (K, 1) into K of the states, in place."""
    var_pp, var_pv = states.var_pp[rows], states.var_pv[rows]
    total = var_pp + variance
    gain_p, gain_v = var_pp / total, var_pv / total
    residual = boxes_cxcywh - states.position[rows]
    moved = states.position[rows] + gain_p * residual
    np.maximum(moved[:, 2:], MIN_SIZE_PX, out=moved[:, 2:])
    states.position[rows] = moved
    states.velocity[rows] += gain_v * residual
    states.var_vv[rows] -= gain_v * var_pv
    states.var_pv[rows] = var_pv - gain_p * var_pv
    states.var_pp[rows] = var_pp - gain_p * var_pp
