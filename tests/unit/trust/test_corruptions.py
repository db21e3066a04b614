"""The disturbances: seeded, of the image's shape, worse with severity, and those of the lens stay in place."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from perception.trust.corruptions import CORRUPTIONS, GENERIC, SEVERITIES
from perception.trust.h264 import decode_last, encode_clip, nal_units

SCENE = cv2.resize(np.random.default_rng(3).integers(0, 255, (24, 72, 3)).astype(np.uint8), (360, 121))
CAR = sorted(set(CORRUPTIONS) - GENERIC)


def distance(image: np.ndarray) -> float:
    return float(np.abs(image.astype(int) - SCENE).mean())


@pytest.mark.parametrize("kind", CAR)
def test_a_disturbance_is_seeded_and_keeps_the_shape(kind: str) -> None:
    one = CORRUPTIONS[kind](SCENE, 3, "000001")
    assert one.shape == SCENE.shape and one.dtype == np.uint8
    assert (one == CORRUPTIONS[kind](SCENE, 3, "000001")).all()
    assert distance(one) > 0.2


@pytest.mark.parametrize("kind", [kind for kind in CAR if kind != "torn_frame"])  # noise moved is noise
def test_the_highest_severity_disturbs_more_than_the_lowest(kind: str) -> None:
    means = [
        np.mean([distance(CORRUPTIONS[kind](SCENE, severity, str(i))) for i in range(3)])
        for severity in (SEVERITIES[0], SEVERITIES[-1])
    ]
    assert means[1] > 1.3 * means[0]


@pytest.mark.parametrize("kind", ["drops", "dirt", "low_sun", "dead_rows"])
def test_what_sits_on_the_camera_is_the_same_in_every_frame(kind: str) -> None:
    assert CORRUPTIONS[kind].fixed
    first, later = (CORRUPTIONS[kind](SCENE, 4, frame) for frame in ("000000", "000001"))
    assert (first == later).all()
    assert (first != CORRUPTIONS[kind](SCENE, 4, "000000", seed=1)).any()


def test_noise_differs_from_frame_to_frame() -> None:
    first, later = (CORRUPTIONS["night_gain"](SCENE, 4, frame) for frame in ("000000", "000001"))
    assert (first != later).any()


def test_a_torn_frame_is_the_lower_part_moved_sideways() -> None:
    torn = CORRUPTIONS["torn_frame"](SCENE, 3, "")
    row = int(np.flatnonzero((torn != SCENE).any(axis=(1, 2)))[0])
    assert 0.4 * 121 <= row <= 0.6 * 121
    assert any((torn[row:] == np.roll(SCENE[row:], sign * 36, axis=1)).all() for sign in (1, -1))


def test_dead_rows_are_a_quarter_of_the_rows_at_most() -> None:
    changed = (CORRUPTIONS["dead_rows"](SCENE, 5, "") != SCENE).any(axis=(1, 2))
    assert 0.1 * len(SCENE) < changed.sum() <= 0.25 * len(SCENE) + 1


@pytest.mark.parametrize("kind", sorted(GENERIC - {"glass_blur"}))  # it compiles for ten seconds
def test_generic_ones_run_seeded_and_leave_numpys_generator_alone(kind: str) -> None:
    pytest.importorskip("imagecorruptions", reason="pip install -e '.[stress]'")
    small = SCENE[:64, :96]
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr]  # noqa: NPY002
    one = CORRUPTIONS[kind](small, 2, "a")
    assert (np.random.get_state()[1] == before).all()  # type: ignore[union-attr]  # noqa: NPY002
    assert one.shape == small.shape and (one != small).any()
    assert (one == CORRUPTIONS[kind](small, 2, "a")).all()


def test_lost_slices_damage_the_last_frame_and_kept_ones_do_not() -> None:
    clip = encode_clip([np.roll(SCENE[:120], 6 * i, axis=1) for i in range(4)], slices=4)
    slices = [sum(nal[0] & 31 in (1, 5) for nal in nal_units(unit)) for unit in clip]
    assert slices == [4, 4, 4, 4]
    whole = decode_last(clip, lambda first: True)
    broken = decode_last(clip, lambda first: first)
    assert whole is not None and broken is not None
    truth = np.roll(SCENE[:120], 18, axis=1).astype(int)
    errors = [np.abs(image.astype(int) - truth).mean() for image in (whole, broken)]
    assert errors[0] < 12 and errors[1] > 1.5 * errors[0], errors
