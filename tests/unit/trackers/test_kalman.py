"""The filter against numbers from the textbook and against a full 8×8 filter."""

import numpy as np
import pytest

from perception.trackers.kalman import CXCYWH_FROM_XYXY, XYXY_FROM_CXCYWH, BoxStates, Noise, correct, predict

BOX = np.array([[100.0], [50.0], [40.0], [20.0]])  # one box in columns


def moving(velocity: list[float]) -> BoxStates:
    states = BoxStates.born(BOX, Noise())
    states.velocity[:, 0] = velocity
    states.var_vv[:] = 1e-9  # known for certain
    return states


def test_noise_is_told_in_box_sizes() -> None:
    states = BoxStates.born(BOX, Noise(measurement=0.1, birth_velocity=(1.0, 1.0, 1.0, 0.5)))
    assert np.sqrt(states.var_pp) == pytest.approx(np.array([[4], [2], [4], [2]]))
    assert np.sqrt(states.var_vv) == pytest.approx(np.array([[40], [20], [40], [10]]))


def test_constant_velocity() -> None:
    states = moving([10, 0, 4, 2])
    predict(states, 0.5, Noise())
    assert states.position == pytest.approx(np.array([[105], [50], [42], [21]]))


def test_two_half_steps_are_one_step() -> None:
    once, twice = moving([10, 5, 4, 2]), moving([10, 5, 4, 2])
    noise = Noise(acceleration=(0.0, 0.0, 0.0, 0.0))
    for projective in (False, True):
        predict(once, 0.4, noise, projective=projective)
        predict(twice, 0.2, noise, projective=projective)
        predict(twice, 0.2, noise, projective=projective)
        assert twice.position == pytest.approx(once.position)
        assert twice.velocity == pytest.approx(once.velocity)


@pytest.mark.parametrize("axis_x", [0.0, 600.0])
def test_projective_motion_is_a_straight_line_in_the_world(axis_x: float) -> None:
    """A car 4 m wide and 1 m high at (3, 2, 30) m comes at 10 m/s and drifts by 1 m/s; focal length 700 px."""

    def seen(t: float) -> np.ndarray:
        x, y, z = 3.0 + 1.0 * t, 2.0, 30.0 - 10.0 * t
        return np.array([axis_x + 700 * x / z, 700 * y / z, 700 * 4 / z, 700 * 1 / z])

    states = BoxStates.born(seen(0)[:, None], Noise())
    states.velocity[:, 0] = (seen(1e-6) - seen(-1e-6)) / 2e-6
    states.var_vv[:] = 1e-12
    predict(states, 1.0, Noise(), projective=True)
    assert states.position[:, 0] == pytest.approx(seen(1.0), rel=1e-5)
    assert states.velocity[:, 0] == pytest.approx((seen(1 + 1e-6) - seen(1 - 1e-6)) / 2e-6, rel=1e-4)


def test_growth_that_is_only_noise_does_not_bend_the_path() -> None:
    bent, straight = moving([50, 0, 40, 40]), moving([50, 0, 40, 40])
    for states in (bent, straight):
        states.var_vv[:] = 1e6
    predict(bent, 0.4, Noise(), projective=True)
    predict(straight, 0.4, Noise())
    assert bent.position == pytest.approx(straight.position, rel=1e-2)


def test_no_time_no_change() -> None:
    states = moving([10, 0, 4, 2])
    predict(states, 0.0, Noise(), projective=True)
    assert (states.position == BOX).all()


def test_equals_the_full_filter() -> None:
    rng, noise, dt_s = np.random.default_rng(3), Noise(), 0.1
    states = BoxStates.born(BOX, noise)
    mean = np.concatenate([BOX[:, 0], np.zeros(4)])
    cov = np.diag(np.concatenate([states.var_pp[:, 0], states.var_vv[:, 0]]))
    eye, zero = np.eye(4), np.zeros((4, 4))
    F, H = np.block([[eye, dt_s * eye], [zero, eye]]), np.block([[eye, zero]])
    for _ in range(6):
        q = (np.array(noise.acceleration) * mean[[2, 3, 2, 3]]) ** 2
        Q = np.block(
            [[np.diag(q * dt_s**3 / 3), np.diag(q * dt_s**2 / 2)], [np.diag(q * dt_s**2 / 2), np.diag(q * dt_s)]]
        )
        mean, cov = F @ mean, F @ cov @ F.T + Q
        predict(states, dt_s, noise)
        measured = BOX + rng.normal(0, 2, (4, 1))
        K = cov @ H.T @ np.linalg.inv(H @ cov @ H.T + np.diag([4.0] * 4))
        mean, cov = mean + K @ (measured[:, 0] - H @ mean), (np.eye(8) - K @ H) @ cov
        correct(states, np.stack([measured, np.full((4, 1), -4.0)]))
        assert states.position[:, 0] == pytest.approx(mean[:4])
        assert states.velocity[:, 0] == pytest.approx(mean[4:])
        assert states.var_pp[:, 0] == pytest.approx(np.diag(cov)[:4])
        assert states.var_pv[:, 0] == pytest.approx(np.diag(cov[:4, 4:]))


def test_a_box_of_infinite_variance_changes_nothing() -> None:
    states, untouched = (BoxStates.born(np.repeat(BOX, 3, axis=1), Noise()) for _ in range(2))
    negative_variance = np.full((4, 3), -np.inf)
    negative_variance[:, 1] = -1.0
    correct(states, np.stack([np.repeat(BOX + 3, 3, axis=1), negative_variance]))
    assert (states.data[:, :, [0, 2]] == untouched.data[:, :, [0, 2]]).all()
    assert (states.position[:, 1] > BOX[:, 0]).all()


def corrected(left: float, top: float, right: float, bottom: float, *, robust: bool) -> np.ndarray:
    """Velocity of a box at rest, 80 to 120 and 40 to 60, after it was seen with these edges, variance 1 in all."""
    states = BoxStates.born(BOX, Noise())
    states.data[1], states.data[3], states.data[4] = 1.0, 1.0, 100.0
    seen = CXCYWH_FROM_XYXY @ np.array([[left], [top], [right], [bottom]])
    correct(states, np.stack([seen, np.full((4, 1), -1.0)]), robust=robust)
    return states.velocity[:, 0]


def test_a_cut_box_keeps_its_velocity() -> None:
    """Variance 2 in all, so sizes count up to 1.414 px; the velocity takes half of each residual."""
    assert corrected(90, 40, 120, 60, robust=False) == pytest.approx([2.5, 0, -5, 0])
    # the width lost 10 px: 1.414 count, and half of the other 8.586 px explains 4.293 of the centre's 5 px
    assert corrected(90, 40, 120, 60, robust=True) == pytest.approx([0.3536, 0, -0.7071, 0], abs=1e-4)
    assert corrected(80, 40, 120, 52, robust=True) == pytest.approx([0, -0.3536, 0, -0.7071], abs=1e-4)


def test_a_box_that_moves_as_a_whole_is_no_cut_one() -> None:
    assert corrected(90, 45, 130, 65, robust=True) == pytest.approx([5, 2.5, 0, 0])
    # both edges move to the right, the right one further: the centre follows the left one, but for what counts
    assert corrected(84, 40, 136, 60, robust=True)[0] == pytest.approx((10 - (12 - 2**0.5) / 2) / 2)


def test_the_two_forms_of_a_box_are_each_others_inverse() -> None:
    corners = np.array([[80.0], [40.0], [120.0], [60.0]])
    assert (CXCYWH_FROM_XYXY @ corners == BOX).all()
    assert (corners == XYXY_FROM_CXCYWH @ BOX).all()
