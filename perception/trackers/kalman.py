"""A Kalman filter over all boxes of all tracks at once, on real time.

The state of a box is its centre and size and their rates: (cx, cy, w, h) and (cx', cy', w', h'), pixels and pixels
a second. The four coordinates are filtered independently, so the 8×8 covariance is four 2×2 blocks, and a block is
three numbers. No matrix is inverted; every step is a handful of array operations over (4, N), whatever N.

Boxes are columns here, (4, N): with few objects a frame's time goes into calls, and a call on two arrays of one shape
takes a third of one that must broadcast.

Noise is told in box sizes: in widths for cx and w, in heights for cy and h. A near object moves and errs in
proportion to its size, and a wide car more sideways than a slim pedestrian; one set of numbers serves both.

Sources: constant velocity with white acceleration: Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to
Tracking and Navigation", 2001, section 6.2.2; noise in proportion to the box: Wojke et al., DeepSORT, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from perception.types import F64

MIN_SIZE_PX = 1.0
"""Predicted boxes never get smaller than this."""
MAX_APPROACH = 0.5
"""Share of the time to contact that one prediction may use up: at most a doubling of the box."""
CXCYWH_FROM_XYXY = np.array([[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [-1, 0, 1, 0], [0, -1, 0, 1]])
XYXY_FROM_CXCYWH = np.array([[1, 0, -0.5, 0], [0, 1, 0, -0.5], [1, 0, 0.5, 0], [0, 1, 0, 0.5]])
"""Left factors for boxes in columns."""
_SIZE_ROWS = np.array([2, 3, 2, 3])
_SAME_ROW = np.zeros(4, np.int64)


@dataclass(frozen=True)
class Noise:
    """Standard deviations in box sizes; four numbers are for cx, cy, w, h."""

    measurement: float = 0.025
    """Of a detected coordinate."""
    acceleration: tuple[float, float, float, float] = (0.4, 0.4, 0.3, 0.3)
    """Of the change of velocity, box sizes a second gathered in one second: how fast objects change their motion."""
    birth_velocity: tuple[float, float, float, float] = (3.0, 0.5, 0.5, 0.5)
    """Of the velocity of a new track, box sizes a second."""

    @cached_property
    def acceleration_from_box(self) -> F64:
        """Left factor (4, 4) that makes `acceleration` in pixels of boxes (4, N)."""
        return np.diag(self.acceleration) @ np.eye(4)[_SIZE_ROWS]


class BoxStates:
    """The filtered state of N boxes, rows in the order cx, cy, w, h."""

    def __init__(self, data: F64) -> None:
        self.data = data
        """(5, 4, N): position, velocity, variance of the position, their covariance, variance of the velocity."""

    def __len__(self) -> int:
        return self.data.shape[2]

    @property
    def position(self) -> F64:
        """(4, N) view, pixels."""
        return self.data[0]

    @property
    def velocity(self) -> F64:
        """(4, N) view, pixels a second."""
        return self.data[1]

    @property
    def var_pp(self) -> F64:
        """(4, N) view, variance of the position."""
        return self.data[2]

    @property
    def var_pv(self) -> F64:
        """(4, N) view, covariance of position and velocity."""
        return self.data[3]

    @property
    def var_vv(self) -> F64:
        """(4, N) view, variance of the velocity."""
        return self.data[4]

    @staticmethod
    def born(boxes_cxcywh: F64, noise: Noise) -> BoxStates:
        """New states at rest where they were first seen, from boxes in columns (4, N)."""
        size = box_size(boxes_cxcywh)
        data = np.zeros((5, *boxes_cxcywh.shape))
        data[0] = boxes_cxcywh
        data[2] = np.square(noise.measurement * size)
        data[4] = np.square(np.array(noise.birth_velocity)[:, None] * size)
        return BoxStates(data)

    def keep(self, mask: np.ndarray) -> None:
        """Forget the boxes where `mask` (N,) is False."""
        self.data = self.data[:, :, mask]

    def append(self, other: BoxStates) -> None:
        """Add the boxes of `other` at the end."""
        self.data = np.concatenate([self.data, other.data], axis=2)


def box_size(boxes_cxcywh: F64) -> F64:
    """The unit of each coordinate's noise, (4, N): width, height, width, height."""
    return boxes_cxcywh.take(_SIZE_ROWS, axis=0)


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
    position, velocity, _, var_pv, var_vv = data
    push = np.square(np.dot(noise.acceleration_from_box, position))
    if projective:
        # a step of stretched time is a plain step at a stretched rate; after it the rate has stretched once more
        stretch = _stretch(position[3], velocity[3], var_vv[3], dt_s)
        stretch_squared = stretch * stretch
        velocity *= stretch
        var_pv *= stretch
        var_vv *= stretch_squared
        push *= stretch_squared * stretch
    move, grow = _step(dt_s)
    states.data = data = np.dot(move, data.reshape(5, -1)).reshape(data.shape)
    variances = data[2:]
    variances += np.dot(grow, push.reshape(1, -1)).reshape(variances.shape)
    position, velocity, _, var_pv, var_vv = data
    if projective:
        velocity *= stretch
        var_pv *= stretch
        var_vv *= stretch_squared
    np.maximum(position[2:], MIN_SIZE_PX, out=position[2:])


@lru_cache(maxsize=64)
def _step(dt_s: float) -> tuple[F64, F64]:
    """What time does to a state: (5, 5) that multiplies it, and (3, 1) that multiplies the noise added to it."""
    move = np.eye(5)
    move[0, 1] = move[3, 4] = dt_s
    move[2, 3], move[2, 4] = 2 * dt_s, dt_s**2
    return move, np.array([dt_s**3 / 3, dt_s**2 / 2, dt_s]).reshape(3, 1)


def _stretch(height: F64, growth: F64, variance: F64, dt_s: float) -> F64:
    """τ / t of `predict`, (4, N), the same in all rows; from heights, their rates and variances of these, (N,)."""
    # an uncertain rate of growth is trusted less: shrunk by its own signal-to-noise ratio
    square = growth * growth
    used_up = square * growth / ((square + variance) * height)
    used_up *= dt_s
    stretch = np.reciprocal(1 - np.minimum(np.maximum(used_up, -1.0), MAX_APPROACH))
    return stretch[None].take(_SAME_ROW, axis=0)


def correct(states: BoxStates, boxes_cxcywh: F64, variance: F64) -> None:
    """Blend measured boxes (4, N) of variance (4, N) into the states, in place.

    Where the variance is infinite, nothing happens; so unseen tracks need no arrays of their own.
    """
    position, velocity, var_pp, var_pv, var_vv = states.data
    total = var_pp + variance
    gain, velocity_gain = var_pp / total, var_pv / total
    residual = boxes_cxcywh - position
    position += gain * residual
    velocity += velocity_gain * residual
    var_vv -= velocity_gain * var_pv
    var_pv -= gain * var_pv
    var_pp -= gain * var_pp
