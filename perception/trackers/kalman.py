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
_SIZE_COLUMNS = np.array([2, 3, 2, 3])


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
    """The filtered state of N boxes, in the order cx, cy, w, h."""

    data: F64
    """(N, 5, 4): position, velocity, variance of the position, covariance of the two, variance of the velocity.
    One array, since most of the time goes into calls, not into numbers."""

    def __len__(self) -> int:
        return len(self.data)

    @property
    def position(self) -> F64:
        """(N, 4) view, pixels."""
        return self.data[:, 0]

    @property
    def velocity(self) -> F64:
        """(N, 4) view, pixels a second."""
        return self.data[:, 1]

    @property
    def var_pp(self) -> F64:
        """(N, 4) view, variance of the position."""
        return self.data[:, 2]

    @property
    def var_pv(self) -> F64:
        """(N, 4) view, covariance of position and velocity."""
        return self.data[:, 3]

    @property
    def var_vv(self) -> F64:
        """(N, 4) view, variance of the velocity."""
        return self.data[:, 4]

    @staticmethod
    def born(boxes_cxcywh: Floats, noise: Noise) -> BoxStates:
        """New states, at rest where they were first seen."""
        size = box_size(boxes_cxcywh)
        data = np.zeros((len(boxes_cxcywh), 5, 4))
        data[:, 0] = boxes_cxcywh
        data[:, 2] = (noise.measurement * size) ** 2
        data[:, 4] = (np.array(noise.birth_velocity) * size) ** 2
        return BoxStates(data)


def box_size(boxes_cxcywh: Floats) -> Floats:
    """The unit of each coordinate's noise, (N, 4): width, height, width, height."""
    return boxes_cxcywh.take(_SIZE_COLUMNS, axis=1)


def predict(states: BoxStates, dt_s: float, noise: Noise, *, projective: bool = False) -> None:
    """Move every state ahead by `dt_s` ≥ 0 seconds, in place.

    `projective`: constant velocity in the world instead of in the picture. A rigid object at depth Z is seen with
    height h ∝ 1/Z and centre c = C/Z, so under constant velocity 1/h and c/h are linear in time. Worked out, all of
    cx, cy, w, h move as before but for a stretched time τ = t / (1 − t·h'/h), where h/h' is the time to contact.
    The result does not depend on where the optical axis is. Approaching objects speed up, leaving ones slow down.
    """
    if dt_s <= 0 or not len(states):
        return
    data = states.data
    position, velocity, var_pp, var_pv, var_vv = (data[:, i] for i in range(5))
    push = (np.array(noise.acceleration) * box_size(position)) ** 2
    step: float | F64 = dt_s
    if projective:
        # an uncertain rate of growth is trusted less: shrunk by its own signal-to-noise ratio
        height, grown = position[:, 3:], velocity[:, 3:]
        square = grown * grown
        used_up = dt_s * grown * square / ((square + var_vv[:, 3:] + 1e-12) * height)
        stretch = 1 / (1 - np.minimum(np.maximum(used_up, -1.0), MAX_APPROACH))  # (N, 1)
        step = dt_s * stretch
    position += velocity * step
    np.maximum(position[:, 2:], MIN_SIZE_PX, out=position[:, 2:])
    pushed = step * push
    var_pp += step * (2 * var_pv + step * (var_vv + step / 3 * push))
    var_pv += step * (var_vv + 0.5 * pushed)
    var_vv += pushed
    if projective:
        square = stretch * stretch
        data[:, [1, 3]] *= square[:, :, None]
        var_vv *= square * square


def correct(states: BoxStates, rows: I64, boxes_cxcywh: Floats, variance: Floats) -> None:
    """Blend measured boxes (K, 4) of variance (K, 4) or (K, 1) into K of the states, in place."""
    data = states.data[rows]
    covariance = data[:, 2:4]
    gain = covariance / (data[:, 2] + variance)[:, None]  # (K, 2, 4) of position and velocity
    data[:, :2] += gain * (boxes_cxcywh - data[:, 0])[:, None]
    np.maximum(data[:, 0, 2:], MIN_SIZE_PX, out=data[:, 0, 2:])
    data[:, 4] -= gain[:, 1] * data[:, 3]
    covariance -= gain[:, :1] * covariance
    states.data[rows] = data
