"""A Kalman filter over all boxes of all tracks at once, on real time.

The state of a box is its centre and size and their rates: (cx, cy, w, h) and (cx', cy', w', h'), pixels and pixels
a second. The four coordinates are filtered independently, so the 8×8 covariance is four 2×2 blocks, and a block is
three numbers. Every step is then a handful of array operations over (N, 4), whatever N.

Noise is told in box sizes: in widths for cx and w, in heights for cy and h. A near object moves and errs in
proportion to its size, and a wide car more sideways than a slim pedestrian; one set of numbers serves both.

Sources: constant velocity with white acceleration: Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to
Tracking and Navigation", 2001, section 6.2.2; noise in proportion to the box: Wojke et al., DeepSORT, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from perception.boxes import Floats
from perception.types import F64, I64

MIN_SIZE_PX = 1.0
"""Predicted boxes never get smaller than this."""
MAX_APPROACH = 0.5
"""Share of the time to contact that one prediction may use up: at most a doubling of the box."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations in box sizes; four numbers are for cx, cy, w, h."""

    measurement: float = 0.025
    """Of a detected coordinate."""
    acceleration: tuple[float, float, float, float] = (0.4, 0.4, 0.3, 0.3)
    """Of the change of velocity, box sizes a second gathered in one second: how fast objects change their motion."""
    birth_velocity: tuple[float, float, float, float] = (3.0, 0.5, 0.5, 0.5)
    """Of the velocity of a new track, box sizes a second."""


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
        """New states, at rest where they were first seen."""
        position: F64 = boxes_cxcywh.astype(np.float64)
        size: F64 = box_size(position).astype(np.float64)
        return BoxStates(
            position,
            np.zeros_like(position),
            (noise.measurement * size) ** 2,
            np.zeros_like(position),
            (np.array(noise.birth_velocity) * size) ** 2,
        )


def box_size(boxes_cxcywh: Floats) -> Floats:
    """The unit of each coordinate's noise, (N, 4): width, height, width, height."""
    return boxes_cxcywh[:, [2, 3, 2, 3]]


def predict(states: BoxStates, dt_s: float, noise: Noise, *, projective: bool = False) -> None:
    """Move every state ahead by `dt_s` ≥ 0 seconds, in place.

    `projective`: constant velocity in the world instead of in the picture. A rigid object at depth Z is seen with
    height h ∝ 1/Z and centre c = C/Z, so under constant velocity 1/h and c/h are linear in time. Worked out, all of
    cx, cy, w, h move as before but for a stretched time τ = t / (1 − t·h'/h), where h/h' is the time to contact.
    The result does not depend on where the optical axis is. Approaching objects speed up, leaving ones slow down.
    """
    if dt_s <= 0 or not len(states):
        return
    step: float | F64 = dt_s
    if projective:
        # an uncertain rate of growth is trusted less: shrunk by its own signal-to-noise ratio
        growth, variance = states.velocity[:, 3:] / states.position[:, 3:], states.var_vv[:, 3:]
        square = growth**2
        growth *= square / (square + variance / states.position[:, 3:] ** 2 + 1e-12)
        stretch = 1 / (1 - np.clip(growth * dt_s, -1.0, MAX_APPROACH))  # (N, 1)
        step = dt_s * stretch
    push = (np.array(noise.acceleration) * box_size(states.position)) ** 2
    states.position += states.velocity * step
    np.maximum(states.position[:, 2:], MIN_SIZE_PX, out=states.position[:, 2:])
    states.var_pp += step * (2 * states.var_pv + step * (states.var_vv + step / 3 * push))
    states.var_pv += step * (states.var_vv + step / 2 * push)
    states.var_vv += step * push
    if projective:
        square = stretch**2
        states.velocity *= square
        states.var_pv *= square
        states.var_vv *= square**2


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
