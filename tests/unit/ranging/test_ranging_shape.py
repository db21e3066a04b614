"""Size and heading over time: headings that can be checked in the head, and networks that take rears for fronts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.arrays import F32, F64
from perception.boxes3d import corners_bev
from perception.cameras.cuboids import boxes_to_image, wrap
from perception.cameras.pinhole import PinholeCamera
from perception.ranging.ranger import Ranger
from perception.ranging.shape import ShapeConfig, ShapeFilter
from perception.types import CLASS_NAMES, Track, Tracks

CAMERA = PinholeCamera(np.array([[1000.0, 0, 1000, 0], [0, 1000, 400, 0], [0, 0, 1, 0]]), height_m=1.5)
SIZE_HW = (900, 2000)
CAR = (4.0, 1.5, 1.6)
"""Length, height and width."""
AWAY, TOWARDS, RIGHT, LEFT = -math.pi / 2, math.pi / 2, 0.0, -math.pi


def seen(box: F64, camera: PinholeCamera = CAMERA, alpha_std: float = 0.1) -> tuple[F32, F32, F32]:
    """What an exact network sees of one 3-D box (7,): 2-D box, depth and cuboid."""
    ground = corners_bev(box[None])[0]
    corners = np.array([(x, y, z) for x, z in ground for y in (box[1], box[1] - box[4])])
    pixels = camera.project(corners)
    (centre,), (alpha,) = boxes_to_image(box[None], camera)
    cuboid = [*centre, box[3], box[5], box[4], alpha, 0.1, alpha_std]
    depth = [box[2] / camera.P_cam2[1, 1], 0.1]
    edges = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])
    return edges.astype(np.float32), np.array(depth, np.float32), np.array(cuboid, np.float32)


def car(x: float, z: float, heading: float, size: tuple[float, float, float] = CAR) -> F64:
    return np.array([x, CAMERA.height_m, z, *size, heading])


Scene = Callable[[float], list[F64]]
"""3-D boxes by time in seconds; number i is track i + 1."""


def drive(
    scene: Scene,
    seconds: float,
    hertz: float = 10,
    tamper: Callable[[int, F32], None] = lambda frame, cuboids: None,
    hidden: range = range(0),
    alpha_std: float = 0.1,
) -> list[list[Track]]:
    """Rows of every frame; in frames of `hidden`, nothing is seen and boxes stay."""
    ranger, found, last = Ranger(CAMERA, CLASS_NAMES), [], None
    for frame in range(round(seconds * hertz) + 1):
        boxes, depths, cuboids = map(
            np.stack, zip(*(seen(box, alpha_std=alpha_std) for box in scene(frame / hertz)), strict=True)
        )
        tamper(frame, cuboids)
        if frame in hidden:
            boxes, depths, cuboids = last, np.full_like(depths, np.nan), np.full_like(cuboids, np.nan)
        unseen = frame - hidden.start + 1 if frame in hidden else 0
        tracks = Tracks.from_rows(Track(i + 1, 0, b, 0.9, frames_since_seen=unseen) for i, b in enumerate(boxes))
        found.append(list(ranger.update(tracks, round(frame / hertz * 1e9), SIZE_HW, depths, cuboids)))
        last = boxes
    return found


def off(track: Track, heading: float) -> float:
    """How far a reported heading is from the true one."""
    assert track.heading_rad is not None
    return abs(float(wrap(np.float64(track.heading_rad - heading))))


def turned(cuboids: F32, rows: object = slice(None)) -> None:
    """The network takes the rear for the front."""
    cuboids[rows, 5] = wrap(cuboids[rows, 5].astype(np.float64) + np.pi)  # type: ignore[index]


# ---------------------------------------------------------------- one frame


def test_one_car_by_hand() -> None:
    """10 m to the right at 10 m: its direction is 45°, and seen straight from behind it heads 45° to the right."""
    ((found,),) = drive(lambda t: [car(10, 10, -np.pi / 4)], 0)
    assert found.heading_rad == pytest.approx(-np.pi / 4, abs=0.01)
    assert found.size_m == pytest.approx((4, 1.6, 1.5), rel=1e-5)
    assert found.size_std_m == pytest.approx((0.4, 0.16, 0.15), rel=1e-3)  # 10 %, as the network says
    assert found.bottom_m == pytest.approx(1.5, abs=0.1)
    assert found.heading_std_rad is not None and 0.1 <= found.heading_std_rad < 0.6  # not sure of front and rear yet


def test_a_network_that_doubts_front_and_rear_is_believed() -> None:
    """One frame of a car that does not move. The axis stays as sure; two σ hold the other way round from 30 %."""
    found = []
    for doubt in (0.0, 0.1, 0.3, 0.5):
        edges, depth, cuboid = seen(car(0, 15, AWAY))
        columns = np.append(cuboid, np.float32(doubt))[None]
        tracks = Tracks.from_rows([Track(1, 0, edges, 0.9)])
        found += list(Ranger(CAMERA, CLASS_NAMES).update(tracks, 0, SIZE_HW, depth[None], columns))
    stds = [track.heading_std_rad or 0.0 for track in found]
    assert stds[0] == pytest.approx(stds[1]) and stds[1] < 1 < stds[2] < stds[3]
    assert off(found[2], AWAY) < 0.02


def test_one_sure_frame_outvotes_several_doubtful_ones() -> None:
    """The network sees the rear for the front in five frames and knows that it may; one sure frame is enough."""

    def tamper(frame: int, cuboids: F32) -> None:
        if frame < 5:
            turned(cuboids)

    for doubt, right in ((0.48, True), (0.1, False)):
        ranger, tracks = Ranger(CAMERA, CLASS_NAMES), None
        for frame in range(6):
            edges, depth, cuboid = seen(car(8, 15, RIGHT))
            columns = np.append(cuboid, np.float32(doubt if frame < 5 else 0.02))[None]
            tamper(frame, columns)
            rows = Tracks.from_rows([Track(1, 0, edges, 0.9)])
            tracks = ranger.update(rows, frame * 500_000_000, SIZE_HW, depth[None], columns)
        assert tracks is not None and (off(tracks[0], RIGHT) < 0.1) == right


def test_a_crop_and_a_resize_change_nothing() -> None:
    """The same car in the same frame, cut by 300 columns and 40 rows and then halved: P2 follows, so metres stay."""
    move = np.diag([0.5, 0.5, 1.0]) @ np.array([[1.0, 0, -300], [0, 1, -40], [0, 0, 1]])
    part, box = replace(CAMERA, P_cam2=move @ CAMERA.P_cam2), car(3, 14, -1.2)
    found = []
    for camera, size_hw in ((CAMERA, SIZE_HW), (part, (430, 850))):
        edges, depth, cuboid = seen(box, camera)
        tracks = Tracks.from_rows([Track(1, 0, edges, 0.9)])
        found.append(Ranger(camera, CLASS_NAMES).update(tracks, 0, size_hw, depth[None], cuboid[None])[0])
    assert found[0].heading_rad == pytest.approx(found[1].heading_rad, abs=1e-3)
    assert found[0].position_m == pytest.approx(found[1].position_m, rel=0.02)
    assert off(found[0], -1.2) < 0.02


def test_a_camera_that_looks_down_reports_the_same() -> None:
    pitched = replace(CAMERA, pitch_rad=0.1)
    cos, sin = np.cos(0.1), np.sin(0.1)
    project = pitched.K_cam2 @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    box, level = car(3, 14, -1.2), replace(CAMERA, P_cam2=np.column_stack([project, np.zeros(3)]))
    edges, depth, cuboid = seen(box, level)
    tracks = Tracks.from_rows([Track(1, 0, edges, 0.9)])
    (found,) = Ranger(pitched, CLASS_NAMES).update(tracks, 0, SIZE_HW, depth[None], cuboid[None])
    edges, depth, cuboid = seen(box)
    tracks = Tracks.from_rows([Track(1, 0, edges, 0.9)])
    (flat,) = Ranger(CAMERA, CLASS_NAMES).update(tracks, 0, SIZE_HW, depth[None], cuboid[None])
    assert off(found, -1.2) < 0.02 and found.position_m == pytest.approx(flat.position_m, rel=0.02)
    assert found.bottom_m == pytest.approx(1.5, abs=0.1)


def test_without_cuboids_there_is_no_shape() -> None:
    edges, depth, cuboid = seen(car(0, 15, AWAY))
    tracks = Tracks.from_rows([Track(1, 0, edges, 0.9), Track(2, 0, edges + 300, 0.9)])
    plain = Ranger(CAMERA, CLASS_NAMES).update(tracks, 0, SIZE_HW, np.stack([depth, depth]))
    assert plain.distance_m is not None and plain.bottom_m is not None
    assert plain.size_m is plain.size_std_m is plain.heading_rad is plain.heading_std_rad is None
    one = np.stack([cuboid, np.full(8, np.nan, np.float32)])
    first, second = Ranger(CAMERA, CLASS_NAMES).update(tracks, 0, SIZE_HW, None, one)
    assert first.size_m is not None and first.heading_rad is not None
    assert second[-4:] == (None,) * 4


# ---------------------------------------------------------------- size


def test_sizes_are_averaged_and_never_surer_than_their_lasting_error() -> None:
    rng = np.random.default_rng(0)

    def noise(frame: int, cuboids: F32) -> None:
        cuboids[:, 2:5] *= np.exp(rng.normal(0, 0.1, (len(cuboids), 3))).astype(np.float32)

    frames = drive(lambda t: [car(0, 15, AWAY)], 8, tamper=noise)
    stds = [row.size_std_m[0] / row.size_m[0] for (row,) in frames if row.size_m and row.size_std_m]
    assert stds[0] == pytest.approx(0.1, rel=1e-3) and (np.diff(stds) < 0).all()
    assert 0.1 * math.sqrt(ShapeConfig().persistent_share) < stds[-1] < 0.08
    assert frames[-1][0].size_m == pytest.approx((4, 1.6, 1.5), rel=0.05)


def test_a_wild_size_moves_nothing_far() -> None:
    def tamper(frame: int, cuboids: F32) -> None:
        cuboids[:, 2:5] *= 5 if frame == 20 else 1

    last = drive(lambda t: [car(0, 15, AWAY)], 2, tamper=tamper)[-1][0]
    assert last.size_m == pytest.approx((4, 1.6, 1.5), rel=0.06)


def test_sizes_belong_to_one_class() -> None:
    """A track that turns out to be a van is not averaged with the car it was taken for; its heading goes on."""
    shape, usable = ShapeFilter(np.full(3, 0.3)), np.array([True])
    shape.rearrange(np.array([-1]), np.array([False]))
    for step in range(12):
        length, class_id = (4.0, 0) if step < 10 else (6.0, 1)
        cuboid = np.array([[0, 0, length, 2, 2, 0.5, 0.1, 0.1]], np.float32)
        shape.observe(cuboid, np.zeros(1), np.array([class_id]), usable, 0.1 * step)
        shape.predict(0.1)
    size, std, heading, heading_std = shape.report(np.full(1, 6.0))
    assert size[0, 0] == pytest.approx(6, rel=1e-4) and std[0, 0] > 0.55
    assert heading[0] == pytest.approx(0.5, abs=1e-3) and heading_std[0] < 0.15


# ---------------------------------------------------------------- heading


@pytest.mark.parametrize("start", [AWAY, LEFT + 0.3], ids=["to the right", "across the seam of the circle"])
@pytest.mark.parametrize("hertz", [10, 25])
def test_a_turning_car_does_not_jump(start: float, hertz: int) -> None:
    """A quarter turn in three seconds, 0.52 rad/s, at 5 m/s on a radius of 9.5 m."""
    rate, speed, centre = np.pi / 6, 5.0, np.array([0.0, 25.0])

    def scene(t: float) -> list[F64]:
        heading = start + rate * min(max(t - 1, 0), 3)
        # the way driven: straight, then the arc
        steps = np.linspace(0, t, 200)
        headings = start + rate * np.clip(steps - 1, 0, 3)
        path = np.stack([np.cos(headings), -np.sin(headings)]) * speed
        x, z = centre + path.mean(axis=1) * t
        return [car(x, z, float(wrap(np.float64(heading))))]

    rng = np.random.default_rng(1)

    def noise(frame: int, cuboids: F32) -> None:
        cuboids[:, 5] += rng.normal(0, 0.05, len(cuboids)).astype(np.float32)

    frames = drive(scene, 4.5, hertz, noise)
    errors = [off(row, scene(i / hertz)[0][6]) for i, (row,) in enumerate(frames)]
    assert max(errors) < 0.3 and np.mean(errors) < 0.12
    headings = np.array([row.heading_rad for (row,) in frames])
    assert np.abs(wrap(np.diff(headings))).max() < 0.2


def test_single_flips_are_no_turns() -> None:
    """Every fourth frame shows the rear as the front, and the reported heading never leaves the truth."""

    def tamper(frame: int, cuboids: F32) -> None:
        if frame % 4 == 3:
            turned(cuboids)

    frames = drive(lambda t: [car(-2, 20, AWAY)], 5, tamper=tamper)
    assert max(off(row, AWAY) for (row,) in frames) < 0.02


def test_a_wrong_first_look_is_put_right() -> None:
    """The first three frames show the rear as the front. A second and a half later, that is outvoted, for good."""

    def tamper(frame: int, cuboids: F32) -> None:
        if frame < 3:
            turned(cuboids)

    errors = [off(row, AWAY) for (row,) in drive(lambda t: [car(0, 20, AWAY)], 4, tamper=tamper)]
    assert errors[0] > 3 and max(errors[18:]) < 0.02
    assert sum(abs(a - b) > 1 for a, b in itertools.pairwise(errors)) == 1


def undecided(frame: int, cuboids: F32) -> None:
    """A network that cannot tell front from rear: every other frame it says the one, beginning with the wrong one."""
    if frame % 2 == 0:
        turned(cuboids)


@pytest.mark.parametrize(
    ("heading", "scene"),
    [
        (RIGHT, lambda t: [car(-12 + 8 * t, 25, RIGHT)]),
        (LEFT, lambda t: [car(12 - 8 * t, 25, LEFT)]),
        (TOWARDS, lambda t: [car(-3, 90 - 28 * t, TOWARDS)]),
        (AWAY, lambda t: [car(0, 15 + 4 * t, AWAY)]),
    ],
    ids=["crosses to the right", "crosses to the left", "oncoming", "drives ahead of us, faster"],
)
def test_motion_decides_where_the_network_does_not(heading: float, scene: Scene) -> None:
    assert off(drive(scene, 2.8, tamper=undecided)[-1][0], heading) < 0.05


def test_a_parked_car_that_we_drive_past_is_left_to_the_network() -> None:
    """It comes nearer at our own 8 m/s, and is not oncoming for that."""
    last = drive(lambda t: [car(3, 40 - 8 * t, AWAY), car(-3, 40 - 8 * t, TOWARDS)], 3)[-1]
    assert off(last[0], AWAY) < 0.05 and off(last[1], TOWARDS) < 0.05


def test_undecided_is_said() -> None:
    """Nobody can tell where the front of a parked car is that the network sees both ways round."""
    last = drive(lambda t: [car(3, 40 - 8 * t, AWAY)], 3, tamper=undecided)[-1][0]
    assert last.heading_std_rad is not None and last.heading_std_rad > 1
    assert min(off(last, AWAY), off(last, TOWARDS)) < 0.05  # the axis is known


def test_our_own_turn_moves_everything_aside_and_turns_nothing_round() -> None:
    """We turn left at 0.4 rad/s past four parked cars; all of them move right at up to 14 m/s, and all face left."""

    def scene(t: float) -> list[F64]:
        angle = 0.4 * t
        cos, sin = np.cos(angle), np.sin(angle)
        places = ((-12, 20), (-6, 25), (-10, 30), (-16, 34))
        return [car(x * cos + z * sin, z * cos - x * sin, float(wrap(np.float64(LEFT + angle)))) for x, z in places]

    def tamper(frame: int, cuboids: F32) -> None:
        if frame % 3 == 2:
            turned(cuboids)  # the network is not very sure either

    for row, box in zip(drive(scene, 1.6, tamper=tamper)[-1], scene(1.6), strict=True):
        assert row.velocity_mps is None or row.velocity_mps[0] > 5
        assert off(row, box[6]) < 0.25


def test_a_hidden_car_turns_on_and_gets_less_sure() -> None:
    """Seen for two seconds while it turns at 0.3 rad/s, then hidden for one, then seen again."""

    def scene(t: float) -> list[F64]:
        return [car(2, 20, AWAY + 0.3 * t)]

    frames = drive(scene, 4, hidden=range(21, 31))
    before, behind, after = (frames[i][0] for i in (20, 30, 32))
    assert before.heading_std_rad is not None and behind.heading_std_rad is not None
    assert behind.heading_std_rad > 1.5 * before.heading_std_rad
    assert off(behind, AWAY + 0.3 * 3) < 2 * behind.heading_std_rad
    assert off(behind, AWAY + 0.3 * 3) < off(before, AWAY + 0.3 * 3) < 0.45  # it has turned on meanwhile
    assert behind.size_m == before.size_m
    assert off(after, AWAY + 0.3 * 3.2) < 0.1


def test_a_pedestrian_may_turn_faster_than_a_car() -> None:
    turning = {}
    for name in ("Car", "Pedestrian"):
        ranger = Ranger(CAMERA, (name,))
        for frame in range(21):
            heading = 1.5 * max(frame - 10, 0) / 10
            edges, _, cuboid = seen(np.array([1, 1.5, 10, 0.6, 1.8, 0.6, heading]), alpha_std=0.3)
            tracks = Tracks.from_rows([Track(1, 0, edges, 0.9)])
            (row,) = ranger.update(tracks, frame * 10**8, SIZE_HW, None, cuboid[None])
        turning[name] = off(row, 1.5)
    assert turning["Pedestrian"] < 0.6 * turning["Car"]


# ---------------------------------------------------------------- what must hold for anything

NUMBER = st.floats(-1e6, 1e6, width=32) | st.sampled_from((np.nan, np.inf, -np.inf, 0.0, 1e-30, 3e38))


@settings(max_examples=60, deadline=None)
@given(cuboids=st.lists(st.lists(NUMBER, min_size=8, max_size=8), min_size=1, max_size=6), step_s=st.floats(0, 5))
def test_any_numbers_give_a_shape_or_none(cuboids: list[list[float]], step_s: float) -> None:
    ranger, (edges, _, usual) = Ranger(CAMERA, CLASS_NAMES), seen(car(1, 12, 0.3))
    tracks = Tracks.from_rows([Track(1, 0, edges, 0.9)])
    with np.errstate(all="raise", under="ignore"):
        for i, row in enumerate([usual.tolist(), *cuboids, usual.tolist()]):
            given_row = np.array([row], np.float32)
            (found,) = ranger.update(tracks, round(i * step_s * 1e9), SIZE_HW, None, given_row)
    assert found.size_m is not None and found.size_std_m is not None
    assert found.heading_rad is not None and found.heading_std_rad is not None
    assert all(0.1 <= size <= 40.001 for size in found.size_m)
    assert all(math.isfinite(std) and std > 0 for std in found.size_std_m)
    assert -np.pi <= found.heading_rad <= np.pi and 0 < found.heading_std_rad <= np.pi
    assert found.position_m is not None and np.isfinite(found.position_m).all()


@settings(max_examples=40, deadline=None)
@given(
    angles=st.lists(st.floats(-3.1, 3.1), min_size=2, max_size=8),
    turn=st.floats(-7, 7),
    deviation=st.floats(0.02, 1.5),
)
def test_the_circle_has_no_preferred_direction(angles: list[float], turn: float, deviation: float) -> None:
    def last(offset: float) -> tuple[float, float]:
        shape = ShapeFilter(np.array([0.3, 0.3]))
        shape.rearrange(np.array([-1]), np.array([False]))
        for step, angle in enumerate(angles):
            cuboid = np.array([[0, 0, 4, 2, 2, wrap(np.float64(angle + offset)), 0.1, deviation]], np.float64)
            shape.predict(0.1)
            shape.observe(cuboid, np.zeros(1), np.zeros(1, np.int64), np.array([True]), 0.1 * step)  # type: ignore[arg-type]
        still, unknown = np.zeros((2, 1)), 1e18 * np.eye(2)[..., None]  # its motion says nothing
        votes = shape.resolve(np.array([[0.0], [20]]), still, unknown)
        _, _, heading, std = shape.report(votes)
        return heading[0], std[0]

    (plain, plain_std), (moved, moved_std) = last(0.0), last(turn)
    # where a measurement is at right angles to the state, rounding decides which way round it is taken
    assert abs(wrap(np.float64(moved - plain - turn))) < 1e-6 or any(
        abs(np.cos(a - b)) < 1e-3 for a in angles for b in (*angles, plain)
    )
    assert moved_std == pytest.approx(plain_std, rel=1e-6) or abs(np.cos(moved - plain - turn)) < 0.9999


def test_two_rangers_share_nothing_and_reset_forgets() -> None:
    edges, depth, cuboid = seen(car(0, 15, AWAY))
    tracks = Tracks.from_rows([Track(1, 0, edges, 0.9)])
    used, other = Ranger(CAMERA, CLASS_NAMES), Ranger(CAMERA, CLASS_NAMES)
    used.update(tracks, 0, SIZE_HW, depth[None], cuboid[None])
    assert other.update(tracks, 0, SIZE_HW).size_m is None
    used.reset()
    assert used.update(tracks, 0, SIZE_HW).size_m is None


def test_shapes_move_with_their_tracks() -> None:
    """Tracks come in another order; one goes away and comes back while its place is kept, another later."""
    ranger = Ranger(CAMERA, CLASS_NAMES)
    boxes = {1: car(-4, 15, 0.5), 2: car(4, 20, AWAY, (5.0, 2.0, 1.9)), 3: car(0, 30, 2.0)}

    def update(ids: list[int], now_s: float, exact: bool = True) -> dict[int, Track]:
        edges, depths, cuboids = map(np.stack, zip(*(seen(boxes[i]) for i in ids), strict=True))
        tracks = Tracks.from_rows(Track(i, 0, box, 0.9) for i, box in zip(ids, edges, strict=True))
        found = ranger.update(tracks, round(now_s * 1e9), SIZE_HW, depths, cuboids if exact else None)
        return {track.track_id: track for track in found}

    for step in range(10):
        update([1, 2, 3], 0.1 * step)
    update([3, 1], 1.0)
    back = update([2, 3, 1], 2.0, exact=False)
    for i, box in boxes.items():
        assert off(back[i], box[6]) < 0.05 and back[i].size_m == pytest.approx(box[[3, 5, 4]], rel=1e-3)
    for step in range(25):
        update([1], 2.1 + 0.1 * step)
    update([1], 5.6)
    assert update([2, 1], 5.7, exact=False)[2].size_m is None


def test_a_car_that_was_hidden_for_too_long_starts_afresh() -> None:
    """Four seconds unseen: its place is forgotten, and what it looked like too, though the tracker kept its id."""
    frames = drive(lambda t: [car(0, 15, AWAY if t < 3 else TOWARDS)], 8, hidden=range(20, 60))
    assert frames[58][0].size_m is None and frames[58][0].distance_m is None
    assert off(frames[60][0], TOWARDS) < 0.02
    assert frames[60][0].size_std_m == pytest.approx((0.4, 0.16, 0.15), rel=1e-3)  # as after a single look
