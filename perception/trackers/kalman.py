"""A Kalman filter over all boxes of all tracks at once, on real time.

The state of a box is its centre and size and their rates: (cx, cy, w, h) and (cx', cy', w', h'), pixels and pixels
a second. The four coordinates are filtered independently, so the 8×8 covariance is four 2×2 blocks, and a block is
three numbers. No matrix is inverted; every step is a handful of array operations over (4, N), whatever N.

Boxes are columns here, (4, N): with few objects a frame's time goes into calls, and a call on two arrays of one shape
takes a third of one that must broadcast. For the same reason plain numbers come as arrays here (`constants`).

Noise is in box sizes: in widths for cx and w, in heights for cy and h. A near object moves and errs in
proportion to its size, and a wide car more sideways than a slim pedestrian; one set of numbers serves both.

Sources: constant velocity with white acceleration: Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to
Tracking and Navigation", 2001, section 6.2.2; noise in proportion to the box: Wojke et al., DeepSORT, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from perception.arrays import F64

MIN_SIZE_PX = 1.0
"""Predicted boxes never get smaller than this."""
MAX_APPROACH = 0.5
"""Share of the time to contact that one prediction may use up: at most a doubling of the box."""
CXCYWH_FROM_XYXY = np.array([[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [-1, 0, 1, 0], [0, -1, 0, 1]])
XYXY_FROM_CXCYWH = np.array([[1, 0, -0.5, 0], [0, 1, 0, -0.5], [1, 0, 0.5, 0], [0, 1, 0, 0.5]])
"""Left factors for boxes in columns."""
_SIZE_ROWS = np.array([2, 3, 2, 3])
_POWER_ROWS = np.repeat([0, 0, 1, 2], 4)
"""Which power of the stretch multiplies velocity, covariance, variance of the velocity and noise in `predict`."""


def constants(*values: float) -> tuple[F64, ...]:
    """Numbers for operations on small arrays, which take twice as long with plain ones."""
    return tuple(np.array(value, np.float64) for value in values)


_ONE, _HALF, _MIN_SIZE, _MOST_DELAY, _MOST_APPROACH = constants(1.0, 0.5, MIN_SIZE_PX, -1.0, MAX_APPROACH)


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

    @cached_property
    def birth_velocity_from_box(self) -> F64:
        """Left factor (4, 4) that makes `birth_velocity` in pixels of boxes (4, N)."""
        return np.diag(self.birth_velocity) @ np.eye(4)[_SIZE_ROWS]


class BoxStates:
    """The filtered state of N boxes, rows in the order cx, cy, w, h."""

    def __init__(self, data: F64) -> None:
        self.data = data
        """(6, 4, N): position and its variance, velocity, covariance of the two, variance of the velocity, and room
        for the noise that `predict` adds."""

    def __len__(self) -> int:
        return self.data.shape[2]

    @property
    def position(self) -> F64:
        """(4, N) view, pixels."""
        return self.data[0]

    @property
    def velocity(self) -> F64:
        """(4, N) view, pixels a second."""
        return self.data[2]

    @property
    def var_pp(self) -> F64:
        """(4, N) view, variance of the position."""
        return self.data[1]

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
        data = np.zeros((6, *boxes_cxcywh.shape))
        data[0] = boxes_cxcywh
        np.square(noise.measurement * box_size(boxes_cxcywh), out=data[1])
        np.square(noise.birth_velocity_from_box.dot(boxes_cxcywh), out=data[4])
        return BoxStates(data)

    def keep(self, mask: np.ndarray) -> None:
        """Forget the boxes where `mask` (N,) is False."""
        self.data = self.data.compress(mask, 2)

    def append(self, other: BoxStates) -> None:
        """Add the boxes of `other` at the end."""
        self.data = np.concatenate([self.data, other.data], axis=2)


def box_size(boxes_cxcywh: F64) -> F64:
    """The unit of each coordinate's noise, (4, N): width, height, width, height."""
    return boxes_cxcywh.take(_SIZE_ROWS, 0)


def predict(states: BoxStates, dt_s: float, noise: Noise, *, projective: bool = False) -> None:
    """Move every state ahead by `dt_s` ≥ 0 seconds, in place.

    `projective`: constant velocity in the world instead of in the image. A rigid object at depth Z is seen with
    height h ∝ 1/Z and centre c = C/Z, so under constant velocity 1/h and c/h are linear in time. Worked out, all of
    cx, cy, w, h move as before but for a stretched time τ = t / (1 − t·h'/h), where h/h' is the time to contact.
    The result does not depend on where the optical axis is. Approaching objects speed up, leaving ones slow down.
    """
    if dt_s <= 0 or not len(states):
        return
    data = states.data
    np.square(noise.acceleration_from_box.dot(data[0]), out=data[5])
    if projective:
        # a step of stretched time is a plain step at a stretched rate; after it the rate has stretched once more
        powers = _stretch(data[0, 3], data[2, 3], data[4, 3], dt_s).take(_POWER_ROWS, 0).reshape(4, 4, -1)
        rates = data[2:]
        rates *= powers
    states.data = data = _step(dt_s).dot(data.reshape(6, -1)).reshape(data.shape)
    if projective:
        rates = data[2:5]
        rates *= powers[:3]
    size = data[0, 2:]
    np.maximum(size, _MIN_SIZE, out=size)


@lru_cache(maxsize=64)
def _step(dt_s: float) -> F64:
    """What time does to a state, (6, 6)."""
    move = np.eye(6)
    move[0, 2] = move[3, 4] = dt_s
    move[1, 3], move[1, 4] = 2 * dt_s, dt_s**2
    move[1, 5], move[3, 5], move[4, 5] = dt_s**3 / 3, dt_s**2 / 2, dt_s
    return move


def _stretch(height: F64, growth: F64, variance: F64, dt_s: float) -> F64:
    """τ / t of `predict`, its square and its cube, (3, N); from heights, their rates and variances of these, (N,)."""
    # an uncertain rate of growth is trusted less: shrunk by its own signal-to-noise ratio
    square = growth * growth
    used_up = square * growth / ((square + variance) * height)
    used_up *= dt_s
    powers = np.empty((3, len(used_up)))
    remaining = _ONE - np.minimum(np.maximum(used_up, _MOST_DELAY), _MOST_APPROACH)
    stretch = np.reciprocal(remaining, out=powers[0])
    squared = np.multiply(stretch, stretch, out=powers[1])
    np.multiply(squared, stretch, out=powers[2])
    return powers


def correct(states: BoxStates, measured: F64, *, robust: bool = False) -> None:
    """Blend measured boxes into the states, in place.

    Args:
        states: of N boxes.
        measured: (2, 4, N) boxes and the negative of their variance. Where it is infinite, nothing happens; so
            unseen tracks need no arrays of their own.
        robust: boxes that are cut or flicker in size change velocities less (`_uncut`).
    """
    data = states.data  # its parts one by one: to unpack it takes longer
    position, var_pp, velocity, var_pv, var_vv = data[0], data[1], data[2], data[3], data[4]
    difference = data[:2] - measured
    residual, total = difference[0], difference[1]
    gain, velocity_gain = var_pp / total, var_pv / total
    position -= gain * residual
    velocity -= velocity_gain * (_uncut(residual, total) if robust else residual)
    var_vv -= velocity_gain * var_pv
    var_pv -= gain * var_pv
    var_pp -= gain * var_pp


def _uncut(residual: F64, total: F64) -> F64:
    """Residuals of boxes (4, N) as far as they show motion; `total` is their variance.

    An occluder that cuts a box moves one edge and leaves the other: the centre moves by half of the change in size.
    So sizes count up to one standard deviation. Half of the rest is taken off the residual of the centre, which is
    then that of the edge that moved less.
    """
    motion = np.empty(residual.shape)
    sizes, centres, kept = residual[2:], residual[:2], motion[2:]
    limit = np.sqrt(total[2:])
    np.minimum(np.maximum(sizes, -limit, out=kept), limit, out=kept)
    cut = _HALF * np.abs(sizes - kept)
    np.subtract(centres, np.minimum(np.maximum(centres, -cut), cut), out=motion[:2])
    return motion
