"""The filter of objects that share a tilt, against the one large Kalman filter that it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from perception.ranging.filter import LOG_HEIGHT, SLOPE, VX, VZ, Drift, RangingFilter, X, Z

OBJECTS = 4
STEADY = Drift(pitch_time_s=1e15, roll_time_s=1e15, gate_sigmas=1e9)
"""The tilt stays as it is and nothing is gated: here the block form is exact."""


def start(rng):
    ours = RangingFilter(STEADY)
    ours.rearrange(np.full(OBJECTS, -1))
    mean = rng.normal(0, 1, (6, OBJECTS))
    mean[Z] = rng.uniform(10, 40, OBJECTS)
    variance = rng.uniform(0.5, 2.0, (6, OBJECTS))
    for i in range(OBJECTS):
        ours.begin(i, tuple(mean[:, i]), tuple(variance[:, i]))
    dense_mean = np.concatenate([mean.T.ravel(), [0, 0]])
    dense_cov = np.diag(np.concatenate([variance.T.ravel(), np.diag(ours.tilt_cov)]))
    return ours, dense_mean, dense_cov


def dense_predict(mean, cov, dt_s):
    """The textbook: F P Fᵀ + Q for everything at once."""
    move, noise = np.eye(len(mean)), np.zeros_like(cov)
    for i in range(OBJECTS):
        o = 6 * i
        ahead = max(mean[o + Z] + dt_s * mean[o + VZ], 1.0)
        move[o + X, o + VX] = move[o + Z, o + VZ] = dt_s
        fade = np.exp(-dt_s / STEADY.slope_time_s)
        move[o + SLOPE, o + SLOPE] = fade
        kick = np.array([[dt_s**3 / 3, dt_s**2 / 2], [dt_s**2 / 2, dt_s]])
        aside = STEADY.acceleration_aside**2 + (STEADY.turning_rad * ahead) ** 2
        noise[o : o + 2, o : o + 2] = kick * aside
        noise[o + 2 : o + 4, o + 2 : o + 4] = kick * STEADY.acceleration_ahead**2
        noise[o + LOG_HEIGHT, o + LOG_HEIGHT] = STEADY.height_growth**2 * dt_s
        noise[o + SLOPE, o + SLOPE] = (1 - fade**2) * STEADY.slope_var(ahead)
    return move @ mean, move @ cov @ move.T + noise


def test_equals_one_large_kalman_filter():
    rng = np.random.default_rng(3)
    ours, mean, cov = start(rng)
    for _ in range(5):
        ours.predict(0.1)
        mean, cov = dense_predict(mean, cov, 0.1)
        ours.listen(OBJECTS)
        # two kinds of measurement, object by object in the large filter, all at once in ours
        for rows in ((SLOPE, Z), (X, Z, LOG_HEIGHT)):
            slopes = np.concatenate([np.ones((1, OBJECTS)), -rng.normal(0, 1, (len(rows) - 1, OBJECTS))])
            tilt = rng.normal(0, 1, (2, OBJECTS))
            var = rng.uniform(0.1, 1.0, OBJECTS)
            measured = rng.normal(0, 1, OBJECTS)
            # within a frame ours counts residuals from the tilt of its beginning, and moves the tilt at the end
            expected = sum(ours.mean[row] * slope for row, slope in zip(rows, slopes, strict=True))
            falls = tuple(zip(rows[1:], -slopes[1:], strict=True))
            ours.observe(measured - expected - ours.tilt @ tilt, rows[0], falls, tilt, var)
            for i in range(OBJECTS):
                h = np.zeros(len(mean))
                h[[6 * i + row for row in rows]] = slopes[:, i]
                h[-2:] = tilt[:, i]
                gain = cov @ h / (h @ cov @ h + var[i])
                mean, cov = mean + gain * (measured[i] - h @ mean), cov - np.outer(gain, h @ cov)
        ours.settle()
        assert ours.tilt == pytest.approx(mean[-2:], abs=1e-9)
        assert ours.tilt_cov == pytest.approx(cov[-2:, -2:], abs=1e-9)
        assert ours.mean.T.ravel() == pytest.approx(mean[:-2], abs=1e-9)
        place, speed = ours.place_variance(OBJECTS), ours.speed_variance(OBJECTS)
        for i in range(OBJECTS):
            moves = np.ix_([6 * i + VX, 6 * i + VZ], [6 * i + VX, 6 * i + VZ])
            assert place[:, i] == pytest.approx(np.diag(cov)[[6 * i + X, 6 * i + Z]], abs=1e-9)
            assert speed[:, :, i] == pytest.approx(cov[moves], abs=1e-9)


def test_a_drifting_tilt_keeps_each_object_as_unsure_as_it_was():
    rng = np.random.default_rng(5)
    drift = Drift(
        pitch_time_s=0.5, roll_time_s=0.5, acceleration_ahead=1e-9, acceleration_aside=1e-9, turning_rad=1e-9
    )
    ours = RangingFilter(drift)
    ours.rearrange(np.full(2, -1))
    for i in range(2):
        ours.begin(i, (10.0,) * 6, (4.0,) * 6)
    ours.mean[[VX, VZ]] = 0.0
    ours.listen(2)
    tilt, nothing = rng.normal(0, 100, (2, 2)), np.zeros(2)
    ours.observe(np.array([0.1, -0.1]), Z, ((SLOPE, nothing),), tilt, np.array([0.1, 0.1]))
    ours.settle()
    ours.cov[VX, :], ours.cov[:, VX], ours.cov[VZ, :], ours.cov[:, VZ] = 0, 0, 0, 0
    ours.lean[[VX, VZ]] = 0
    before, place = ours.place_variance(2)[1], ours.mean[Z].copy()
    ours.predict(0.4)
    # what we know of a place does not hang on tomorrow's nod
    assert ours.place_variance(2)[1] == pytest.approx(before, rel=1e-6)
    assert ours.mean[Z] == pytest.approx(place)
    assert np.linalg.det(ours.tilt_cov) > 0


def test_what_was_not_measured_stays():
    ours, _, _ = start(np.random.default_rng(1))
    before = ours.mean.copy(), ours.cov.copy()
    ours.listen(OBJECTS)
    ours.observe(
        np.full(OBJECTS, 5.0), SLOPE, ((Z, np.ones(OBJECTS)),), np.ones((2, OBJECTS)), np.full(OBJECTS, np.inf)
    )
    ours.settle()
    assert np.array_equal(ours.mean, before[0]) and np.array_equal(ours.cov, before[1])
    assert ours.tilt == pytest.approx([0, 0])


def test_rearranging_moves_everything_of_an_object():
    ours, _, _ = start(np.random.default_rng(2))
    mean, cov = ours.mean.copy(), ours.cov.copy()
    ours.rearrange(np.array([3, 1]))
    assert np.array_equal(ours.mean, mean[:, [3, 1]]) and np.array_equal(ours.cov, cov[:, :, [3, 1]])
    ours.rearrange(np.zeros(0, np.int64))
    assert ours.mean.shape == (6, 0) and ours.lean.shape == (6, 2, 0)
    ours.predict(0.1)
    ours.listen(0)
    ours.settle()
    assert np.isfinite(ours.tilt).all()
