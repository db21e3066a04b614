"""Ranging: triangles that can be checked in the head, and bad boxes that must not give wild places."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.cameras.pinhole import PinholeCamera
from perception.ranging.config import FARTHEST_M, FASTEST_MPS, MAX_REMEMBERED, RangingConfig
from perception.ranging.filter import Drift
from perception.ranging.ranger import Ranger
from perception.ranging.size_priors import SizePrior
from perception.types import CLASS_NAMES, Track, Tracks

FOCAL, CAMERA_M = 1000.0, 1.5
SIZE_HW = (900, 2000)
CAMERA = PinholeCamera(np.array([[FOCAL, 0, 1000, 0], [0, FOCAL, 400, 0], [0, 0, 1, 0]]), height_m=CAMERA_M)
POST = RangingConfig(sizes={"Post": SizePrior(1.5, 0.02, 0.5, 1e-3, 1e-3)})
"""A thing as high as the camera, with no depth: all its numbers are plain triangles."""


def box_at(right_m, ahead_m, height_m=1.5, half_width_m=0.5, half_depth_m=0.0, pitch=0.0, roll=0.0):
    """The box around a cuboid on the road, as the camera sees it where the road is tilted a little."""
    corners = [
        (right_m + side * half_width_m, down, ahead_m + depth * half_depth_m)
        for side in (-1, 1)
        for depth in (-1, 1)
        for down in (CAMERA_M, CAMERA_M - height_m)
    ]
    u = [1000 + FOCAL * x / z for x, _, z in corners]
    v = [400 + FOCAL * (y / z + pitch + roll * right_m / ahead_m) for _, y, z in corners]
    return np.array([min(u), min(v), max(u), max(v)], np.float32)


rows = Tracks.from_rows


def track(box, track_id=1, class_id=0, frames_since_seen=0):
    return Track(track_id, class_id, np.asarray(box, np.float32), 0.9, frames_since_seen=frames_since_seen)


def drive(ranger, boxes_at, seconds, hertz=10.0, skip=()):
    """Feed what `boxes_at(t)` gives, a dict of track_id → box; the tracks of the last frame."""
    ranged = ()
    for frame in range(round(seconds * hertz) + 1):
        if frame not in skip:
            tracks = rows(track(box, track_id) for track_id, box in boxes_at(frame / hertz).items())
            ranged = ranger.update(tracks, round(frame / hertz * 1e9), SIZE_HW)
    return {one.track_id: one for one in ranged}


def test_three_four_five():
    ranger = Ranger(CAMERA, ("Post",), POST)
    (found,) = ranger.update(rows([track(box_at(12, 16))]), 0, SIZE_HW)
    assert found.position_m == pytest.approx((12, 16), rel=0.01)
    assert found.distance_m == pytest.approx(20, rel=0.01)
    assert found.position_std_m is not None and 0 < found.position_std_m[1] < 1
    assert found.ttc_s is None  # one picture shows no speed


def test_position_is_the_middle_of_the_footprint_not_the_face_we_see():
    behind = box_at(0, 15, half_width_m=0.8, half_depth_m=2.0)
    assert behind[3] == pytest.approx(400 + 1000 * 1.5 / 13)  # the face is at 13 m
    (found,) = Ranger(CAMERA, ("Car",)).update(rows([track(behind)]), 0, SIZE_HW)
    assert found.distance_m == pytest.approx(15, rel=0.03)


def test_side_edges_are_the_corners_they_are():
    # 3 m to the right and 8 m ahead: the box's middle is at tangent 0.425, the car's at 0.375
    box = box_at(3, 8, half_width_m=0.8, half_depth_m=1.95)
    (found,) = Ranger(CAMERA, ("Car",)).update(rows([track(box)]), 0, SIZE_HW)
    assert found.position_m[0] == pytest.approx(3, abs=0.15)


def test_speed_and_time_to_collision():
    found = drive(Ranger(CAMERA, ("Post",), POST), lambda t: {1: box_at(0, 40 - 5 * t)}, 4)[1]
    assert found.velocity_mps[1] == pytest.approx(-5, abs=0.3)
    assert found.ttc_s == pytest.approx(20 / 5, rel=0.08)
    away = drive(Ranger(CAMERA, ("Post",), POST), lambda t: {1: box_at(0, 20 + 5 * t)}, 3)[1]
    still = drive(Ranger(CAMERA, ("Post",), POST), lambda t: {1: box_at(0, 20)}, 3)[1]
    assert away.velocity_mps[1] == pytest.approx(5, abs=0.4)
    assert away.ttc_s is None and still.ttc_s is None


def test_no_speed_is_told_before_it_is_known():
    ranger, told = Ranger(CAMERA, ("Car",)), []
    for frame in range(20):
        box = box_at(0, 30 - 0.2 * frame, half_width_m=0.8, half_depth_m=1.95)
        (found,) = ranger.update(rows([track(box)]), frame * 10**8, SIZE_HW)
        told.append(found.velocity_mps)
    assert told[0] is None  # one picture shows no speed, and 0 would be invented
    first = next(i for i, speed in enumerate(told) if speed is not None)
    assert 1 < first < 12 and None not in told[first:]
    assert told[first][1] == pytest.approx(-2, abs=3) and told[-1][1] == pytest.approx(-2, abs=0.7)


def test_a_warning_does_not_flicker():
    # closes at about what is needed to be told, now a little more, now a little less
    def boxes(t):
        return {1: box_at(0, 45 - 3.5 * t + 0.8 * math.sin(4 * t), half_width_m=0.8, half_depth_m=1.95)}

    def changes(config):
        ranger, told = Ranger(CAMERA, ("Car",), config), []
        for frame in range(80):
            (found,) = ranger.update(rows([track(boxes(frame / 10)[1])]), frame * 10**8, SIZE_HW)
            told.append(found.ttc_s is not None)
        return sum(a != b for a, b in itertools.pairwise(told))

    assert changes(RangingConfig(closing_keep=1.0)) > 2
    assert changes(RangingConfig()) == 1


@pytest.mark.parametrize(("hertz", "skip"), [(30, ()), (10, (11, 12, 13, 24)), (7, ())])
def test_motion_is_in_seconds_not_frames(hertz, skip):
    usual = drive(Ranger(CAMERA, ("Post",), POST), lambda t: {1: box_at(2, 50 - 8 * t)}, 4)[1]
    other = drive(Ranger(CAMERA, ("Post",), POST), lambda t: {1: box_at(2, 50 - 8 * t)}, 4, hertz, skip)[1]
    assert other.distance_m == pytest.approx(usual.distance_m, rel=0.02)
    assert other.velocity_mps[1] == pytest.approx(usual.velocity_mps[1], abs=0.3)


@pytest.mark.parametrize(("pitch", "roll"), [(0.012, 0.0), (-0.012, 0.0), (0.0, 0.02)])
def test_a_nod_of_the_camera_moves_nothing(pitch, roll):
    places = {1: (-8, 12), 2: (9, 18), 3: (-2, 30), 4: (5, 40)}

    def boxes(t):
        tilt = {"pitch": pitch, "roll": roll} if t > 1 else {}
        return {i: box_at(x, z, **tilt) for i, (x, z) in places.items()}

    ranger = Ranger(CAMERA, ("Post",), POST)
    found = drive(ranger, boxes, 3)
    for i, (x, z) in places.items():
        assert found[i].distance_m == pytest.approx(math.hypot(x, z), rel=0.06)
    # a flat road would have put them elsewhere: the last 24 % nearer, 47 % farther, the first 10 % farther
    feet = np.array([[1000, box[3]] for box in boxes(2).values()])
    naive = CAMERA.ground_position(feet)[:, 1] / [z for _, z in places.values()]
    assert np.abs(naive - 1).max() > 0.09
    assert ranger.pitch_rad == pytest.approx(pitch, abs=0.005)


def test_a_tall_car_is_learnt_from_where_it_stands():
    # 12 % taller than usual: nearer by its height; the road says otherwise, more clearly the nearer it comes
    def boxes(t):
        near = {i: box_at(x, z, 1.5, 0.8, 1.95) for i, (x, z) in enumerate([(-4, 9), (4, 12), (-4, 18), (8, 25)], 2)}
        return {1: box_at(0, 25 - 2 * t, 1.7, 0.8, 1.95), **near}

    first = drive(Ranger(CAMERA, ("Car",)), boxes, 0)[1]
    last = drive(Ranger(CAMERA, ("Car",)), boxes, 6)[1]
    assert abs(last.distance_m / 13 - 1) < abs(first.distance_m / 25 - 1)
    assert abs(last.distance_m / 13 - 1) < 0.06


def test_a_box_cut_by_the_lower_border_is_near_and_unsure():
    whole = box_at(0, 5, half_width_m=0.8, half_depth_m=1.95)
    cut = whole.copy()
    cut[3] = 900  # the foot would be at row 892 of a car 3.05 m away; here the picture ends before
    lower = replace(CAMERA, P_cam2=CAMERA.P_cam2 + np.array([[0, 0, 0, 0], [0, 0, 400, 0], [0, 0, 0, 0]]))
    cut[1] += 400
    (found,) = Ranger(lower, ("Car",)).update(rows([track(cut)]), 0, SIZE_HW)
    assert 3 < found.distance_m < 20
    assert found.position_std_m[1] > 0.8


def test_a_box_cut_by_the_side_is_not_drawn_to_the_middle():
    ranger = Ranger(CAMERA, ("Car",))
    box = box_at(6, 7, half_width_m=0.8, half_depth_m=1.95)
    assert box[2] > SIZE_HW[1]
    box[2] = SIZE_HW[1]
    (found,) = ranger.update(rows([track(box)]), 0, SIZE_HW)
    assert found.position_m[0] == pytest.approx(6, abs=2 * found.position_std_m[0])
    assert found.position_m[0] > 4.5


def test_a_box_that_a_detector_ends_shortly_before_the_border_is_cut_all_the_same():
    whole = box_at(7, 6, half_width_m=0.8, half_depth_m=1.95)

    def aside(right_edge, share):
        box = np.array([whole[0], whole[1], right_edge, whole[3]])
        (found,) = Ranger(CAMERA, ("Car",), RangingConfig(border_share=share)).update(rows([track(box)]), 0, SIZE_HW)
        return found.position_m[0], found.position_std_m[0]

    shy = SIZE_HW[1] - 0.04 * (SIZE_HW[1] - whole[0])
    assert shy < SIZE_HW[1] - 5
    (x, std), (naive_x, naive_std) = aside(shy, 0.05), aside(shy, 1e-6)
    assert (x, std) == pytest.approx(aside(SIZE_HW[1], 0.05), rel=0.01)
    assert abs(x - 7) < 2 * std
    assert abs(naive_x - 7) > 3 * naive_std  # taken for whole, it is surely elsewhere


def test_what_fills_the_picture_is_boxed_coarsely():
    near, far = box_at(0, 6, 1.76, 0.3), box_at(0, 30, 1.76, 0.3)
    stds = {}
    for large_px in (150.0, 1e6):
        config = RangingConfig(large_box_px=large_px)
        for name, box in (("near", near), ("far", far)):
            found = Ranger(CAMERA, ("Pedestrian",), config).update(rows([track(box)]), 0, SIZE_HW)[0]
            stds[name, large_px] = found.position_std_m[1]
    assert stds["near", 150.0] > 1.15 * stds["near", 1e6]
    assert stds["far", 150.0] < 1.15 * stds["far", 1e6]


def test_a_hidden_foot_is_believed_less():
    far, near = box_at(0, 30, half_width_m=0.8), box_at(0.5, 12, half_width_m=0.8)
    alone = Ranger(CAMERA, ("Car",)).update(rows([track(far)]), 0, SIZE_HW)[0]
    hidden = Ranger(CAMERA, ("Car",)).update(rows([track(far), track(near, 2)]), 0, SIZE_HW)[0]
    assert hidden.position_std_m[1] > 1.02 * alone.position_std_m[1]


def test_a_box_that_ends_where_another_begins_is_not_thought_far():
    # a van 25 m away, of which a car 12 m away hides the lower half: a detector of what is visible ends there
    van, car = box_at(0, 27, 2.2, 0.9, 2.0), box_at(0.3, 14, 1.5, 0.8, 1.95)
    van[3] = car[1] + 1
    naive = CAMERA.ground_position(np.array([[1000, van[3]]]))[0, 1]
    assert not naive < 200  # its lower edge says: on the horizon
    for ids in ((1, 2), (2, 1)):
        found = Ranger(CAMERA, ("Van", "Car")).update(rows([track(van, ids[0]), track(car, ids[1], 1)]), 0, SIZE_HW)[
            0
        ]
        assert abs(found.distance_m - 27) < 2 * found.position_std_m[1]
        assert found.distance_m == pytest.approx(27, rel=0.6)


def test_one_wild_box_moves_neither_its_object_nor_the_others():
    def boxes(t):
        wild = box_at(0, 6) if 2.05 > t > 1.95 else box_at(0, 30)
        return {1: wild, 2: box_at(5, 20), 3: box_at(-6, 25)}

    ranger = Ranger(CAMERA, ("Post",), POST)
    before = drive(ranger, boxes, 1.9)
    struck = drive(Ranger(CAMERA, ("Post",), POST), boxes, 2.0)
    assert struck[1].distance_m == pytest.approx(30, rel=0.15)
    assert struck[2].distance_m == pytest.approx(before[2].distance_m, rel=0.03)


@pytest.mark.parametrize(
    "box", [(np.nan, 1, 2, 3), (np.inf, 0, np.inf, 9), (500, 300, 400, 350), (5, 5, 5, 5), (-1e9, -1e9, 1e9, 1e9)]
)
def test_a_box_that_is_none_gives_no_place(box):
    ranger = Ranger(CAMERA, CLASS_NAMES)
    given = track(box)
    (found,) = ranger.update(rows([given]), 0, SIZE_HW)
    assert found[7:] == given[7:] == (None,) * 10
    # and does no harm to one that had a place
    seen = ranger.update(rows([track(box_at(0, 20))]), 10**8, SIZE_HW)[0]
    blind = ranger.update(rows([track(box)]), 2 * 10**8, SIZE_HW)[0]
    assert blind.distance_m == pytest.approx(seen.distance_m, rel=0.05)
    assert blind.position_std_m[1] > seen.position_std_m[1]


def test_a_lost_track_coasts_surely_less_and_less_then_has_no_place():
    config = RangingConfig(forget_s=1.0)
    ranger = Ranger(CAMERA, CLASS_NAMES, config)
    drive(ranger, lambda t: {1: box_at(0, 40 - 5 * t)}, 2)
    lost = [
        ranger.update(rows([track((0, 0, 1, 1), frames_since_seen=k)]), int((2 + k / 10) * 1e9), SIZE_HW)[0]
        for k in range(1, 13)
    ]
    assert lost[4].distance_m == pytest.approx(30 - 2.5, rel=0.15)
    stds = [one.position_std_m[1] for one in lost[:10]]
    assert stds == sorted(stds)
    assert lost[-1].position_m is None and lost[-1].velocity_mps is None


def test_a_track_that_was_away_is_still_known():
    ranger = Ranger(CAMERA, ("Post",), POST)
    for i in range(20):
        ranger.update(rows([track(box_at(0, 20)), track(box_at(5, 40 - i), 2)]), i * 10**8, SIZE_HW)
    for i in (20, 21):
        ranger.update(rows([track(box_at(0, 20))]), i * 10**8, SIZE_HW)
    back = ranger.update(rows([track(box_at(5, 18), 2)]), 22 * 10**8, SIZE_HW)[0]
    assert back.velocity_mps[1] == pytest.approx(-10, abs=1)
    assert back.ttc_s == pytest.approx(1.8, rel=0.15)


def test_time_that_stands_still_adds_no_knowledge():
    ranger = Ranger(CAMERA, CLASS_NAMES)
    once = ranger.update(rows([track(box_at(0, 20))]), 5, SIZE_HW)[0]
    for _ in range(100):
        again = ranger.update(rows([track(box_at(0, 20))]), 5, SIZE_HW)[0]
    assert again.position_std_m[1] == pytest.approx(once.position_std_m[1], rel=0.01)
    assert again.distance_m == pytest.approx(once.distance_m, rel=1e-3)


@pytest.mark.parametrize("leap_ns", [-1, -(10**12), 60 * 10**9])
def test_time_that_leaps_starts_afresh(leap_ns):
    now = 10**13
    ranger = Ranger(CAMERA, CLASS_NAMES)
    for i in range(10):
        ranger.update(rows([track(box_at(0, 40 - i))]), now - (9 - i) * 10**8, SIZE_HW)
    leapt = ranger.update(rows([track(box_at(3, 20))]), now + leap_ns, SIZE_HW)
    fresh = Ranger(CAMERA, CLASS_NAMES).update(rows([track(box_at(3, 20))]), 0, SIZE_HW)
    assert leapt[0].position_m == fresh[0].position_m
    assert leapt[0].velocity_mps == fresh[0].velocity_mps


def test_reset_instances_and_replays_are_independent():
    def boxes(t):
        return {1: box_at(1, 30 - 3 * t), 2: box_at(-3, 15 + t, 1.4)}

    used, other = Ranger(CAMERA, CLASS_NAMES), Ranger(CAMERA, CLASS_NAMES)
    drive(other, lambda t: {9: box_at(0, 9)}, 1)
    first = drive(used, boxes, 2)
    used.reset()
    second = drive(used, boxes, 2)
    third = drive(Ranger(CAMERA, CLASS_NAMES), boxes, 2)
    for i in first:
        assert first[i].position_m == second[i].position_m == third[i].position_m
        assert first[i].ttc_s == second[i].ttc_s == third[i].ttc_s


def test_what_the_tracker_said_is_kept():
    given = Track(7, 1, box_at(0, 20), 0.25, "lost", age_frames=9, frames_since_seen=0)
    (found,) = Ranger(CAMERA, CLASS_NAMES).update(rows([given]), 0, SIZE_HW)
    assert (found.track_id, found.class_id, found.score, found.state) == (7, 1, 0.25, "lost")
    assert (found.age_frames, found.frames_since_seen) == (9, 0)
    assert found.box_xyxy.tolist() == given.box_xyxy.tolist()
    assert given.position_m is None


def test_a_class_nobody_measured_is_ranged_with_wide_margins():
    known, unknown = (
        Ranger(CAMERA, names).update(rows([track(box_at(0, 20))]), 0, SIZE_HW)[0]
        for names in (("Car",), ("Unicorn",))
    )
    assert unknown.position_std_m[1] > known.position_std_m[1]
    beyond = Ranger(CAMERA, ("Car",)).update(rows([track(box_at(0, 20), class_id=99)]), 0, SIZE_HW)[0]
    assert beyond.position_m == unknown.position_m


def test_nothing_grows_without_bound():
    ranger = Ranger(CAMERA, CLASS_NAMES)
    for frame in range(40):
        tracks = rows(track(box_at(0, 20), 1000 * frame + i) for i in range(60))
        ranger.update(tracks, frame * 10**7, SIZE_HW)
    assert len(ranger._rows.ids) <= 60 + MAX_REMEMBERED
    for frame in range(40, 80):
        ranger.update(rows([]), frame * 10**8, SIZE_HW)
    assert not ranger._rows.ids and ranger._filter.mean.shape == (6, 0)


def test_settings_that_make_no_sense_are_refused():
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="edge_std_px"):
            RangingConfig(edge_std_px=wrong)
        with pytest.raises(ValueError, match="pitch_time_s"):
            Drift(pitch_time_s=wrong)
    with pytest.raises(ValueError, match="SizePrior"):
        SizePrior(0.0, 0.1, 0.5, 0.5, 0.1)


def test_a_state_that_went_bad_is_thrown_away():
    ranger = Ranger(CAMERA, CLASS_NAMES)
    drive(ranger, lambda t: {1: box_at(0, 20), 2: box_at(4, 30)}, 1)
    ranger._filter.cov[:] = np.nan
    tracks = rows([track(box_at(0, 20)), track(box_at(4, 30), 2)])
    assert all(one.position_m is None for one in ranger.update(tracks, 11 * 10**8, SIZE_HW))
    again = ranger.update(tracks, 12 * 10**8, SIZE_HW)
    assert again[0].distance_m == pytest.approx(20, rel=0.15)


edges = st.floats(-3000, 3000, width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 900.0, 2000.0])
boxes_anywhere = st.tuples(edges, edges, edges, edges)
frames = st.lists(
    st.tuples(
        st.integers(-(10**8), 4 * 10**9),
        st.dictionaries(
            st.integers(1, 6), st.tuples(boxes_anywhere, st.integers(-1, 4), st.integers(0, 2)), max_size=6
        ),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(frames)
def test_no_input_gives_a_wild_value(frames):
    ranger, now = Ranger(CAMERA, CLASS_NAMES), 0
    for step_ns, objects in frames:
        now += step_ns
        tracks = rows(track(box, i, class_id, missed) for i, (box, class_id, missed) in objects.items())
        ranged = ranger.update(tracks, now, SIZE_HW)
        assert [one.track_id for one in ranged] == list(objects)
        for one in ranged:
            if one.position_m is None:
                assert one.distance_m is None and one.velocity_mps is None and one.ttc_s is None
                continue
            assert one.distance_m == pytest.approx(math.hypot(*one.position_m))
            assert 0 < one.distance_m < 2 * FARTHEST_M
            assert all(abs(speed) <= FASTEST_MPS for speed in one.velocity_mps or ())
            assert all(0 < std < 1e4 for std in one.position_std_m)
            assert one.ttc_s is None or 0 < one.ttc_s < 1000


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-15, 15),
    st.floats(7, 55),
    st.sampled_from([(1.3, 0.7), (1.5, 0.8), (1.8, 0.95)]),
    st.floats(-0.015, 0.015),
    st.lists(st.floats(-1.5, 1.5), min_size=40, max_size=40),
)
def test_an_honest_car_is_found_where_it_is(right_m, ahead_m, size, pitch, noise):
    ranger = Ranger(CAMERA, CLASS_NAMES)
    for frame in range(10):
        box = box_at(right_m, ahead_m, *size, half_depth_m=1.95, pitch=pitch) + noise[4 * frame : 4 * frame + 4]
        box[::2] = np.clip(box[::2], 0, SIZE_HW[1])
        box[1::2] = np.clip(box[1::2], 0, SIZE_HW[0])
        if box[2] - box[0] < 5:
            return  # beside the picture
        (found,) = ranger.update(rows([track(box)]), frame * 10**8, SIZE_HW)
    if box[0] > 5 and box[2] < SIZE_HW[1] - 5:
        assert abs(found.distance_m / math.hypot(right_m, ahead_m) - 1) < 0.4
    assert abs(found.position_m[1] - ahead_m) < 5 * found.position_std_m[1]
