"""Which end of an object is its front: log-odds from what a network sees, and from how the object moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perception.arrays import F64

if TYPE_CHECKING:
    from perception.ranging.shape import ShapeConfig


def votes_of(surprise: F64, angle_var: F64, reversed_share: F64) -> F64:
    """Log-odds that a heading so far from the object's own was measured at its front and not at its rear.

    log (p·eˡ + q·e⁻ˡ) / (q·eˡ + p·e⁻ˡ), where the network is right in a share p = 1 - q of frames and l is how well
    the heading agrees.

    Args:
        surprise: (N,) heading less the object's own, radians, any turn.
        angle_var: (N,) variance of the heading.
        reversed_share: (N,) q.
    """
    agreement = np.cos(surprise) / np.maximum(angle_var, 1e-4)
    return 2 * np.arctanh((1 - 2 * reversed_share) * np.tanh(agreement))


def motion_votes(heading: F64, place_m: F64, velocity_mps: F64, velocity_var: F64, config: ShapeConfig) -> F64:
    """Log-odds that an object that moves like this drives forwards and not backwards.

    Args:
        heading: (N,) radians, any turn.
        place_m: (2, N) right and ahead.
        velocity_mps: (2, N) relative to the camera.
        velocity_var: (2, 2, N) its covariance.
        config: what is known of our own motion.
    """
    (x, z), own_turn = place_m, _own_turn(place_m[1], velocity_mps[0])
    right = velocity_mps[0] + own_turn * z
    ahead = velocity_mps[1] - own_turn * x + config.own_speed_mps
    turn_x = config.own_turn_std**2 * x
    var_right = velocity_var[0, 0] + config.own_turn_std**2 * (z * z)
    var_ahead = velocity_var[1, 1] + turn_x * x + config.own_speed_std_mps**2
    shared = velocity_var[0, 1] - turn_x * z
    cos, sin = np.cos(heading), np.sin(heading)  # it faces (cos, -sin)
    # the speed along the heading that explains this velocity best, over its standard deviation; the determinant
    # of the covariance belongs to both, and its root is left
    by_right, by_ahead = var_ahead * cos + shared * sin, var_right * sin + shared * cos
    along = by_right * right - by_ahead * ahead
    strength = by_right * cos + by_ahead * sin
    determinant = np.maximum(var_right * var_ahead - shared * shared, 1e-9)
    sigmas = along / np.sqrt(np.maximum(strength * determinant, 1e-12))
    votes = 1.7 * sigmas  # log Φ(s) / Φ(-s), near enough up to 3
    return np.minimum(np.maximum(votes, -config.motion_votes), config.motion_votes)


def _own_turn(ahead_m: F64, right_mps: F64) -> float:
    """How fast we turn clockwise: the median of what the objects suggest; without three that agree, not at all."""
    turns = sorted([*(right_mps / -np.maximum(ahead_m, 1.0)).tolist(), 0.0, 0.0])
    middle = len(turns) // 2
    return float(turns[middle] if len(turns) % 2 else (turns[middle - 1] + turns[middle]) / 2)
