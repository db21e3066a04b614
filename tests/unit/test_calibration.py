"""Finding where a camera looks, on lines and trails whose vanishing point is known."""

from __future__ import annotations

import base64
import json
import math
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.cameras.calibration import (
    RINGS_M,
    draw_check,
    focal_from_fov,
    focus_of_expansion,
    foot_trails,
    ground_to_pixel,
    meeting_point,
    pitch_yaw_deg,
)
from perception.cameras.files import CameraFile
from perception.cli.main import main
from perception.errors import UserError

SIZE_HW = (720, 1280)


def test_focal_length_from_the_angle():
    assert focal_from_fov(1000, 90) == pytest.approx(500)
    assert focal_from_fov(800, 2 * math.degrees(math.atan(4 / 3))) == pytest.approx(300)
    with pytest.raises(UserError, match="field of view"):
        focal_from_fov(1000, 180)


def test_lines_meet_where_they_meet():
    assert meeting_point(np.array([[0, 0, 10, 10], [0, 20, 10, 10.0]])) == pytest.approx((10, 10))
    three = np.array([[100, 700, 640, 300], [1200, 700, 640, 300], [640, 700, 640, 350.0]])
    assert meeting_point(three) == pytest.approx((640, 300))
    with pytest.raises(UserError, match="do not meet"):
        meeting_point(np.array([[0, 0, 100, 0], [0, 50, 100, 50.0]]))
    with pytest.raises(UserError, match="same point"):
        meeting_point(np.array([[0, 0, 100, 0], [7, 50, 7, 50.0]]))


def test_the_vanishing_point_says_where_it_looks():
    # horizon 3 px above the centre at a focal length of 4: looks down by atan(3/4)
    assert pitch_yaw_deg((0, -3), 4, (0, 0)) == pytest.approx((math.degrees(math.atan(3 / 4)), 0))
    # straight ahead is left of the middle: it looks right
    assert pitch_yaw_deg((-3, 0), 4, (0, 0)) == pytest.approx((0, math.degrees(math.atan(3 / 4))))


@pytest.mark.parametrize(("pitch_deg", "yaw_deg"), [(0, 0), (4, 0), (-2, 3), (5, -4)])
def test_vanishing_point_and_camera_file_agree(pitch_deg, yaw_deg):
    file = CameraFile(1280, 720, 1.4, 900, 900, 640, 360, pitch_deg=pitch_deg, yaw_deg=yaw_deg)
    far = ground_to_pixel(file.camera(), np.array([[0, 1e9]]))[0]
    assert pitch_yaw_deg((far[0], far[1]), 900, (640, 360)) == pytest.approx((pitch_deg, yaw_deg), abs=1e-5)


def test_road_to_pixel_and_back():
    camera = CameraFile(1280, 720, 1.4, 900, 900, 640, 360, pitch_deg=3, yaw_deg=2).camera()
    points = np.array([[0, 10], [3, 4], [-12, 50.0]])
    assert camera.ground_position(ground_to_pixel(camera, points)) == pytest.approx(points)
    assert np.isnan(ground_to_pixel(camera, np.array([[0, -10.0]]))).all()


def drive_past(point, count, rng, wobble=0.0):
    """Trails of feet that all come from one point, as things beside the road do."""
    trails = []
    for _ in range(count):
        bearing = rng.uniform(-3, 3)
        near = np.linspace(20, rng.uniform(120, 300), 15)
        feet = np.stack([point[0] + bearing * near, point[1] + near], axis=1)
        trails.append(feet + rng.normal(0, wobble, feet.shape))
    return trails


def test_trails_come_from_straight_ahead():
    rng = np.random.default_rng(0)
    crossing = [np.stack([np.linspace(100, 900, 20), np.full(20, y)], axis=1) for y in (400, 430, 460, 500)]
    found = focus_of_expansion(drive_past((600, 330), 20, rng, 1.5) + crossing, SIZE_HW)
    assert found.point == pytest.approx((600, 330), abs=4)
    assert found.agreeing >= 15 and found.trails == 24 and found.error_px < 3


@pytest.mark.parametrize("which", ["too few", "nothing agrees", "two points", "standing"])
def test_trails_that_tell_nothing_are_refused(which):
    rng = np.random.default_rng(1)
    trails = {
        "too few": drive_past((600, 330), 5, rng),
        "nothing agrees": [rng.uniform(0, 700, (2, 2))[[0] * 5 + [1] * 5] for _ in range(30)],
        "two points": drive_past((480, 330), 12, rng) + drive_past((800, 330), 12, rng),
        "standing": [np.full((50, 2), 300.0) + rng.normal(0, 1, (50, 2)) for _ in range(20)],
    }[which]
    with pytest.raises(UserError, match="straight"):
        focus_of_expansion(trails, SIZE_HW)


def record(frame, boxes, **more):
    tracks = [{"track_id": i, "box_xyxy": list(box), "frames_since_seen": 0} for i, box in boxes.items()]
    return json.dumps({"type": "frame", "frame_id": frame, "size_hw": list(SIZE_HW), "tracks": tracks, **more})


def test_reads_the_records_of_a_run():
    lines = [
        record(0, {1: (100, 100, 200, 300), 2: (1000, 100, 1280, 400)}),
        json.dumps({"type": "event", "kind": "black"}),
        record(1, {1: (110, 100, 210, 310)}),
        record(2, {1: (120, 100, 220, 320)})[:40],  # killed while it wrote
    ]
    (trail,) = foot_trails(lines)  # the second box is cut by the border
    assert trail.tolist() == [[150, 300], [160, 310]]


@pytest.mark.parametrize("broken", ["{}", "[1]", "nonsense", '{"type": "frame", "size_hw": 3}', "[" * 100_000])
def test_a_file_of_something_else_is_refused(broken):
    for lines in ([broken, record(1, {})], [broken], [broken, ""]):
        with pytest.raises(UserError, match=r"in\.jsonl:1: not a record"):
            foot_trails(lines, "in.jsonl")


def test_the_check_image_shows_the_rings_where_they_are():
    camera = CameraFile(640, 360, 1.4, 500, 500, 320, 180, pitch_deg=1).camera()
    blank = np.full((360, 640, 3), 90, np.uint8)
    picture = draw_check(blank, camera)
    assert (blank == 90).all()
    for distance in RINGS_M:
        x, y = ground_to_pixel(camera, np.array([[1.0, math.sqrt(distance**2 - 1)]]))[0]
        assert (picture[int(y) - 1 : int(y) + 2, int(x)] != 90).any()
    assert (picture[:150] == 90).all()  # nothing in the sky


# ---------------------------------------------------------------- the command

BASE = ["calibrate", "--fov-deg", "90", "--width", "1280", "--height", "720", "--height-m", "1.5"]


def run(arguments, tmp_path, capsys):
    code = main([*arguments, "--out", str(tmp_path / "camera.toml"), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def test_field_of_view_and_horizon(tmp_path, capsys):
    code, report, _ = run([*BASE, "--horizon-y", "296"], tmp_path, capsys)
    assert code == 0
    assert report["focal_px"] == 640 and report["horizon_y"] == 296
    assert report["pitch_deg"] == pytest.approx(math.degrees(math.atan(64 / 640)), abs=1e-3)
    assert report["car_at_20_m_px"] == 48  # 640 × 1.5 / 20


def test_lane_lines(tmp_path, capsys):
    lines = ["--lane-line", "100,700,600,340", "--lane-line", "1100,700,600,340"]
    code, report, _ = run([*BASE, *lines], tmp_path, capsys)
    assert code == 0 and report["horizon_y"] == pytest.approx(340, abs=0.1)
    assert report["yaw_deg"] == pytest.approx(math.degrees(math.atan(40 / 640)), abs=0.02)


def test_tracks_of_a_drive(tmp_path, capsys):
    trails = drive_past((640, 300), 14, np.random.default_rng(4), 0.5)
    frames = [{i: (t[k, 0] - 5, t[k, 1] - 20, t[k, 0] + 5, t[k, 1]) for i, t in enumerate(trails)} for k in range(15)]
    (tmp_path / "tracks.jsonl").write_text("\n".join(record(k, boxes) for k, boxes in enumerate(frames)))
    code, report, _ = run([*BASE, "--tracks", str(tmp_path / "tracks.jsonl")], tmp_path, capsys)
    assert code == 0 and report["horizon_y"] == pytest.approx(300, abs=4)
    assert "come from" in report["found"][0]


def test_a_picture_gives_size_and_check(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "road.png"), np.full((360, 640, 3), 90, np.uint8))
    arguments = ["calibrate", "--focal-px", "500", "--frame", str(tmp_path / "road.png"), "--height-m", "1.4"]
    code, report, _ = run(arguments, tmp_path, capsys)
    assert code == 0
    check = cv2.imread(report["check_image"])
    assert check.shape == (360, 640, 3) and (check != 90).any()
    written = ["camera.toml", "camera.toml.json", "camera_check.png", "road.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    made = json.loads((tmp_path / "camera.toml.json").read_text())
    assert made["command"] == "perception calibrate" and made["options"]["height_m"] and made["data_hash"]


def test_a_page_to_click_in(tmp_path, capsys):
    frame = tmp_path / "it's a <b> road.png"
    cv2.imwrite(str(frame), np.full((360, 640, 3), 90, np.uint8))
    code, report, _ = run(["calibrate", "--fov-deg", "90", "--frame", str(frame), "--page"], tmp_path, capsys)
    assert code == 0 and not (tmp_path / "camera.toml").exists()
    page = Path(report["page"]).read_text(encoding="utf-8")
    assert 'viewBox="0 0 640 360"' in page and "width = 640, height = 360" in page
    command = json.loads(re.search(r"command = (\".*?\"), points", page)[1])
    assert command.startswith("perception calibrate --fov-deg 90 --height-m METRES --frame")
    assert shlex.split(command)[7] == str(frame)
    assert "<b>" not in page and "@" not in page.split("base64,")[0]
    shown = base64.b64decode(re.search(r"base64,([^\"]+)\"", page)[1])
    assert cv2.imdecode(np.frombuffer(shown, np.uint8), cv2.IMREAD_COLOR).shape == (360, 640, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--focal-px", "500"], "more than one of --fov-deg"),
        (["--horizon-y", "300", "--lane-line", "1,2,3,4"], "more than one of"),
        (["--lane-line", "1,2,3,4"], "one --lane-line"),
        (["--lane-line", "1,2,3", "--lane-line", "1,2,3,4"], "4 numbers"),
        (["--lane-line", "1,nan,3,4", "--lane-line", "1,2,3,4"], "4 numbers"),
        (["--tracks", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--frame", "nowhere.png"], "nowhere.png"),
        (["--video", "nowhere.mp4"], "nowhere.mp4"),
        (["--centre", "1"], "2 numbers"),
        (["--horizon-y", "90000"], "looks along the road|pitch_deg"),
        (["--height-m", "0"], "height_m"),
        (["--page"], "--page without --frame"),
    ],
)
def test_mistakes_are_sentences_and_write_nothing(change, said, tmp_path, capsys):
    code, report, err = run([*BASE, *change], tmp_path, capsys)
    assert code == 2 and report is None
    assert said.split("|")[0] in err or said.split("|")[-1] in err
    assert err.count("expected") == 1 and err.count("\n  try: ") == 1
    assert not list(tmp_path.iterdir())


def test_says_what_it_means(tmp_path, capsys):
    assert main([*BASE, "--out", str(tmp_path / "c.toml")]) == 0
    text = capsys.readouterr().out
    assert "a car 1.5 m high at 20 m is 48.0 px high" in text
    assert "taken as 0" in text and text.startswith("wrote")
