"""The synthetic street: same seed, same bytes; and its labels agree with the geometry that drew them."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from datasets.sample import ROAD_IGNORE
from datasets.synthetic_street import (
    StreetConfig,
    SyntheticStreet,
    drive_truth,
    street_sample,
    write_kitti_object,
    write_kitti_tracking,
)
from datasets.synthetic_street.export import road_image, tracking_levels
from datasets.synthetic_street.geometry import Centreline, View, kitti_camera
from datasets.synthetic_street.people import make_person, pose
from datasets.synthetic_street.scene import Actor
from datasets.synthetic_street.traffic import simulate
from datasets.synthetic_street.truth import level_of, place, rows_of, visibility_from_boxes
from datasets.synthetic_street.vehicles import shapes
from perception.formats.kitti import (
    format_objects,
    format_tracking,
    parse_objects,
    parse_tracking,
    read_calibration,
    read_tracking,
)

CITY = StreetConfig(seed=11, frames=60, setting="city", weather="sun")
SHOWN = (0, 25, 59)


@pytest.fixture(scope="module")
def drive() -> SyntheticStreet:
    return SyntheticStreet(CITY)


@pytest.fixture(scope="module")
def frames(drive):
    return [drive.frame(i) for i in SHOWN]


def _ahead(x: float, z: float, heading: float = 0.0, kind: str = "car", track_id: int = 1) -> Actor:
    return Actor(kind, track_id, look=5, x=x, y=z, heading=heading)


@pytest.fixture
def view() -> View:
    return View(kitti_camera((375, 1242)), (375, 1242), 0.0, 0.0, 0.0)


# ---------------------------------------------------------------- same seed, same bytes


def test_same_seed_same_sample_and_another_seed_another():
    first, again, other = street_sample(5), street_sample(5), street_sample(6)
    assert first.image_bgr.tobytes() == again.image_bgr.tobytes()
    assert first.road.tobytes() == again.road.tobytes()
    assert first.boxes_xyxy.tobytes() == again.boxes_xyxy.tobytes()
    assert first.image_bgr.tobytes() != other.image_bgr.tobytes()


def test_frames_do_not_depend_on_the_order_they_are_asked_in(drive, frames):
    fresh = SyntheticStreet(CITY)
    for i, expected in list(zip(SHOWN, frames, strict=True))[::-1]:
        found = fresh.frame(i)
        assert found.image_bgr.tobytes() == expected.image_bgr.tobytes()
        assert format_tracking(found.rows) == format_tracking(expected.rows)


def test_negative_and_huge_seeds_are_seeds_too():
    assert street_sample(-3, (96, 320)).image_bgr.shape == (96, 320, 3)
    assert street_sample(2**40 + 1, (96, 320)).image_bgr.tobytes() != street_sample(1, (96, 320)).image_bgr.tobytes()


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize("seed", range(20, 26))
def test_a_sample_keeps_the_contract(seed):
    sample = street_sample(seed)
    height, width = sample.image_bgr.shape[:2]
    assert (height, width) == (375, 1242) and sample.image_bgr.dtype == np.uint8
    assert sample.road.shape == (375, 1242) and set(np.unique(sample.road)) <= {0, 1, ROAD_IGNORE}
    assert (sample.road == 1).mean() > 0.02
    for boxes in (sample.boxes_xyxy, sample.ignore_boxes_xyxy):
        assert boxes.dtype == np.float32 and boxes.shape[1:] == (4,)
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [width - 1, height - 1]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(sample.class_ids) == len(sample.boxes_xyxy) == len(sample.distances_m)
    assert len(sample.ignore_class_ids) == len(sample.ignore_boxes_xyxy)
    assert set(sample.class_ids.tolist()) <= {0, 1, 2} and set(sample.ignore_class_ids.tolist()) <= {-1, 0}
    assert np.isfinite(sample.distances_m).all()


def test_other_sizes_scale_the_camera():
    small, large = street_sample(33, (188, 621)), street_sample(33)
    np.testing.assert_allclose(small.camera.P_cam2[0] * 2, large.camera.P_cam2[0], rtol=1e-9)
    assert small.image_bgr.shape == (188, 621, 3)


def test_scenes_differ_as_real_ones_do():
    samples = [street_sample(seed, (188, 621)) for seed in range(40, 54)]
    brightness = [float(s.image_bgr.mean()) for s in samples]
    assert np.std(brightness) > 8 and 40 < np.mean(brightness) < 150
    assert sum(len(s.boxes_xyxy) for s in samples) > 28
    assert {0, 1, 2} <= {int(c) for s in samples for c in s.class_ids}


# ---------------------------------------------------------------- labels against geometry


def test_a_car_straight_ahead_has_the_box_that_similar_triangles_give(view):
    placed = place(_ahead(0.0, 20.0), view)
    h, w, length = 0.0, 0.0, 0.0
    rows = rows_of([placed], np.ones(1), view, 3)
    h, w, length = rows.objects.dimensions_hwl[0]
    left, top, right, bottom = rows.objects.boxes_xyxy[0]
    # its rear is half a length nearer than its centre and shows its widest and its lowest part
    assert right - left == pytest.approx(721.5377 * w / (20 - length / 2), rel=0.12)
    assert bottom == pytest.approx(172.854 + 721.5377 * 1.65 / (20 - length / 2), abs=6)
    assert bottom - top == pytest.approx(721.5377 * h / (20 - length / 2), rel=0.15)
    assert rows.frame_ids.tolist() == [3] and rows.objects.location_cam2[0].tolist() == [0.0, 1.65, 20.0]
    # it drives away from us: KITTI's rotation is -90°, and seen straight from behind alpha is the same
    assert rows.objects.rotation_y[0] == pytest.approx(-np.pi / 2)
    assert rows.objects.alpha[0] == pytest.approx(-np.pi / 2)
    assert rows.objects.truncation[0] == 0


def test_rotation_follows_kitti(view):
    oncoming, rightwards = (
        rows_of([place(_ahead(3, 30, turn), view)], np.ones(1), view, 0) for turn in (np.pi, np.pi / 2)
    )
    assert oncoming.objects.rotation_y[0] == pytest.approx(np.pi / 2)
    assert rightwards.objects.rotation_y[0] == pytest.approx(0.0, abs=1e-9)
    assert rightwards.objects.alpha[0] == pytest.approx(-np.arctan2(3, 30))


def test_truncation_grows_as_a_car_leaves_the_picture(view):
    shares = [place(_ahead(-2.8, z), view).truncation for z in (12.0, 4.5, 3.5, 2.5, 1.5)]
    assert shares[0] == 0 and shares == sorted(shares) and 0.2 < shares[2] < 0.95 and shares[-1] > 0.5
    assert place(_ahead(-2.8, -5.0), view) is None


def test_boxes_lie_in_the_picture_and_hold_the_projected_centre(drive, frames):
    checked = 0
    for frame in frames:
        objects = frame.rows.objects
        boxes = objects.boxes_xyxy
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 1241).all() and (boxes[:, 3] <= 374).all()
        whole = objects.truncation == 0
        centres = objects.location_cam2[whole] - [0, 1, 0] * objects.dimensions_hwl[whole][:, :1] / 2
        pixels = drive.camera.project(centres)
        inside = (pixels > boxes[whole][:, :2]) & (pixels < boxes[whole][:, 2:])
        assert inside.all()
        checked += len(pixels)
    assert checked > 10


def test_the_box_is_tight_around_what_is_drawn():
    """The pixels that change when a car is added fill its box to the edges."""
    config = replace(CITY, traffic=0, parked=0, people=0, camera_noise=0, frames=1, weather="overcast")
    street = SyntheticStreet(config)
    empty = street.frame(0)
    s = float(street.traffic.ego_s[0])
    x, y, heading = street.street.line.place_one(s + 14, street.traffic.ego_d)
    street._actors = lambda i, s: [Actor("car", 9, 3, x, y, heading)]
    frame = street.frame(0)
    assert frame.rows.track_ids.tolist() == [9] and frame.rows.objects.occlusion.tolist() == [0]
    left, top, right, bottom = frame.rows.objects.boxes_xyxy[0]
    changed = np.abs(frame.image_bgr.astype(int) - empty.image_bgr).max(2) > 12
    rows = np.flatnonzero(changed[: int(bottom) - 8].sum(1) > 3)  # its shadow changes the road below
    assert rows[0] == pytest.approx(top, abs=3)
    columns = np.flatnonzero(changed[int(top) + 10 : int(bottom) - 15].sum(0) > 3)
    assert columns[0] == pytest.approx(left, abs=9) and columns[-1] == pytest.approx(
        right, abs=9
    )  # mirrors stick out
    # where the car stands is no road any more
    assert (frame.road == 1).sum() < (empty.road == 1).sum()
    assert frame.road[int(bottom) - 12, int((left + right) / 2)] == 0


def test_occlusion_levels_follow_what_is_visible():
    assert level_of(np.array([1.0, 0.8, 0.6, 0.45, 0.2, 0.05])).tolist() == [0, 0, 1, 1, 2, 3]


def test_a_car_behind_another_is_hidden(view):
    behind, front = place(_ahead(0.0, 26.0), view), place(_ahead(0.0, 14.0, track_id=2), view)
    beside = place(_ahead(6.0, 26.0, track_id=3), view)
    hidden, shown, apart = visibility_from_boxes([behind, front, beside], (375, 1242))
    assert hidden < 0.5 and shown == 1 and apart == 1


def test_what_is_hidden_wholly_has_no_row_and_what_is_far_or_small_is_dont_care(view):
    placed = [place(_ahead(0.0, 20.0), view), place(_ahead(3.0, 90.0, track_id=2), view)]
    rows = rows_of(placed, np.array([0.0, 1.0]), view, 0)
    assert rows.objects.names == ("DontCare",) and rows.track_ids.tolist() == [-1]
    assert rows.objects.location_cam2[0].tolist() == [-1000] * 3 and rows.objects.occlusion[0] == -1


def test_ids_are_unique_in_a_frame_and_stay_with_one_kind(drive):
    rows = drive_truth(CITY)
    kinds: dict[int, str] = {}
    for frame in range(CITY.frames):
        ids = rows.track_ids[(rows.frame_ids == frame) & (rows.track_ids >= 0)]
        assert len(ids) == len(set(ids.tolist()))
    for track_id, name in zip(rows.track_ids.tolist(), rows.objects.names, strict=True):
        if track_id >= 0:
            assert kinds.setdefault(track_id, name) == name
    assert len(kinds) > 15


def test_tracks_move_as_far_as_their_kind_can(drive):
    """No track jumps: in world coordinates nobody exceeds 25 m/s, no pedestrian 4 m/s."""
    traffic = drive.traffic
    for t in range(CITY.frames - 1):
        same = (
            (traffic.ids[t] >= 0) & (traffic.ids[t] == traffic.ids[t + 1]) & (traffic.kind[t] == traffic.kind[t + 1])
        )
        way = np.hypot(traffic.s[t + 1] - traffic.s[t], traffic.d[t + 1] - traffic.d[t])[same]
        assert (way < 2.5).all()
        assert (way[traffic.kind[t][same] == 3] < 0.4).all()


def test_cars_keep_their_distance_in_the_lane():
    config = StreetConfig(seed=4, frames=300, setting="arterial", traffic=2.0)
    street = SyntheticStreet(config)
    traffic = street.traffic
    cars = np.isin(traffic.kind[-1], (0, 1, 2)) & (traffic.ids[-1] >= 0)
    s, d = traffic.s[-1][cars], traffic.d[-1][cars]
    for lane in np.unique(np.round(d / street.street.section.lane_m - 0.5)):
        inside = np.sort(s[np.round(d / street.street.section.lane_m - 0.5) == lane])
        assert (np.diff(inside) > 4.0).all()
    assert (np.diff(traffic.ego_s) >= 0).all() and traffic.ego_s[-1] - traffic.ego_s[0] > 60


def test_boxes_without_drawing_are_those_of_the_drawn_frame(drive, frames):
    for i, frame in zip(SHOWN, frames, strict=True):
        truth = drive.truth(i)
        quick = dict(zip(truth.track_ids.tolist(), truth.objects.boxes_xyxy, strict=True))
        for track_id, box in zip(frame.rows.track_ids.tolist(), frame.rows.objects.boxes_xyxy, strict=True):
            if track_id >= 0 and track_id in quick:
                np.testing.assert_array_equal(quick[track_id], box)


# ---------------------------------------------------------------- road


def test_road_mask_is_the_road_plane_between_the_lanes_edges(drive, frames):
    """Pixels called road lie between the lanes' edges on the ground, and pixels well inside are called road."""
    frame, s = frames[0], float(drive.traffic.ego_s[0])
    v, u = np.nonzero(frame.road == 1)
    pick = np.random.default_rng(0).integers(0, len(u), 400)
    x, z = drive.camera.ground_position(np.stack([u[pick], v[pick]], 1)).T
    near = z < 25
    line_x, line_y, heading = drive.street.line.at(s + np.arange(0, 40, 0.25))
    here_x, here_y, here_heading = drive.street.line.place_one(s, drive.traffic.ego_d)
    lx, lz = View(drive.camera, (375, 1242), here_x, here_y, here_heading).to_camera(line_x, line_y)
    nearest = np.argmin(np.hypot(x[near, None] - lx, z[near, None] - lz), axis=1)
    turn = heading[nearest] - here_heading
    d = (x[near] - lx[nearest]) * np.cos(turn) - (z[near] - lz[nearest]) * np.sin(turn)
    section = drive.street.section
    assert near.sum() > 50
    assert (d < section.right.road + 0.3).all() and (d > -section.left.road - 0.3).all()
    assert frame.road[372, 621] == 1  # we drive on it


def test_road_image_has_the_official_colours():
    road = np.array([[0, 1, ROAD_IGNORE]], np.uint8)
    assert road_image(road)[0].tolist() == [[0, 0, 255], [255, 0, 255], [0, 0, 0]]  # BGR


# ---------------------------------------------------------------- bodies


def test_every_vehicle_fits_the_size_it_claims():
    for family in shapes().values():
        for shape in family:
            body = shape.vertices[np.unique(shape.quads[shape.layers <= 1])]
            h, w, length = shape.dimensions_hwl
            low, high = body.min(0), body.max(0)
            assert high[1] == pytest.approx(h, abs=0.05) and low[1] >= -0.01
            assert high[0] - low[0] == pytest.approx(w, abs=0.06)
            assert high[2] - low[2] == pytest.approx(length, abs=0.06)
            np.testing.assert_allclose(np.linalg.norm(shape.normals, axis=1), 1, atol=1e-6)


def test_walkers_swing_their_legs_and_stand_on_the_ground():
    person = make_person(False, np.random.default_rng(3))
    for phase in np.linspace(0, 6, 7):
        limbs = pose(person, float(phase), True)
        lowest = min((limbs.start[:, 1] - limbs.radii[:, 0]).min(), (limbs.end[:, 1] - limbs.radii[:, 1]).min())
        highest = max((limbs.start[:, 1] + limbs.radii[:, 0]).max(), (limbs.end[:, 1] + limbs.radii[:, 1]).max())
        assert -0.05 < lowest < 0.1 and highest == pytest.approx(person.height_m, rel=0.06)
    assert not np.allclose(pose(person, 0.0, True).end, pose(person, 2.0, True).end)


# ---------------------------------------------------------------- parts


def test_the_road_line_is_smooth_and_bends_little_enough_to_be_seen():
    line = Centreline(np.random.default_rng(1), 0.0, 2000.0, 1.0)
    steps = np.hypot(np.diff(line.x), np.diff(line.y))
    np.testing.assert_allclose(steps, 1.0, atol=1e-9)
    assert np.abs(np.diff(line.heading)).max() < 0.06 and np.ptp(line.heading) > 0.1
    x, y, heading = line.place(np.array([100.25]), np.array([2.0]))
    np.testing.assert_allclose(line.place_one(100.25, 2.0), (x[0], y[0], heading[0]), atol=1e-9)


def test_a_config_that_makes_no_sense_is_refused():
    for wrong in (
        {"frames": 0},
        {"size_hw": (10, 10)},
        {"fps": 0},
        {"traffic": -1},
        {"weather": "snow"},
        {"setting": "sea"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            StreetConfig(**wrong)


def test_asking_beyond_the_end_is_an_index_error(drive):
    with pytest.raises(IndexError):
        drive.frame(CITY.frames)
    assert len(drive) == CITY.frames and drive.timestamp_ns(10) == 1_000_000_000


def test_simulation_is_repeatable(drive):
    again = simulate(CITY, SyntheticStreet(CITY).street)
    np.testing.assert_array_equal(again.s, drive.traffic.s)
    np.testing.assert_array_equal(again.ids, drive.traffic.ids)


# ---------------------------------------------------------------- files


def test_labels_come_back_from_the_parser(frames):
    for frame in frames:
        leveled = tracking_levels(frame.rows)
        back = parse_tracking(format_tracking(leveled))
        np.testing.assert_array_equal(back.track_ids, frame.rows.track_ids)
        np.testing.assert_array_equal(back.objects.boxes_xyxy, frame.rows.objects.boxes_xyxy)
        assert set(back.objects.truncation.tolist()) <= {-1.0, 0.0, 1.0, 2.0}
        objects = parse_objects(format_objects(frame.rows.objects))
        np.testing.assert_array_equal(objects.rotation_y, frame.rows.objects.rotation_y)


def test_a_written_drive_can_be_read(tmp_path):
    config = StreetConfig(seed=2, frames=2, size_hw=(188, 621))
    rows = write_kitti_tracking(config, tmp_path, image_kind="png")
    base = tmp_path / "training"
    street = SyntheticStreet(config)
    image = cv2.imread(str(base / "image_02/0000/000001.png"))
    np.testing.assert_array_equal(image, street.frame(1).image_bgr)
    assert len(read_tracking(base / "label_02/0000.txt")) == len(rows)
    np.testing.assert_array_equal(read_calibration(base / "calib/0000.txt")["P2"], street.camera.P_cam2)
    road = cv2.imread(str(base / "gt_road/0000/000000.png"))
    np.testing.assert_array_equal(road, road_image(street.frame(0).road))
    assert not list(tmp_path.rglob(".*.part"))
    write_kitti_object(config, tmp_path / "object", image_kind="jpg")
    assert len(list((tmp_path / "object/training/image_2").glob("*.jpg"))) == 2


def test_command_writes_a_drive_and_says_what_is_in_it(tmp_path, capsys):
    from datasets.synthetic_street.cli import main

    arguments = [
        "--out",
        str(tmp_path / "s"),
        "--frames",
        "2",
        "--size",
        "96",
        "320",
        "--video",
        str(tmp_path / "v.mp4"),
    ]
    assert main([*arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["frames"] == 2 and sum(summary["boxes"].values()) > 0
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert capture.read()[0]


def test_command_refuses_nonsense_with_a_sentence(tmp_path):
    from datasets.synthetic_street.cli import main
    from perception.errors import UserError

    with pytest.raises(UserError, match="frames"):
        main(["--out", str(tmp_path), "--frames", "0"])
    with pytest.raises(UserError, match="sequence"):
        main(["--out", str(tmp_path), "--sequence", "../x"])
