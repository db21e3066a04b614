"""The user's camera file: round trips, scaling, where yaw and pitch point, and every kind of mistake."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.cameras.files import (
    CameraFile,
    format_camera_file,
    parse_camera_file,
    read_camera,
    read_camera_file,
    write_camera_file,
)
from perception.errors import UserError

GOOD = "width = 1000\nheight = 600\nfx = 800\nfy = 800.0\ncx = 500\ncy = 300\nheight_m = 1.5\n"


def test_reads_what_the_page_says():
    file = parse_camera_file(GOOD + 'name = "dashcam"\npitch_deg = 2\n')
    assert (file.name, file.width, file.height, file.fx, file.pitch_deg, file.yaw_deg) == (
        "dashcam",
        1000,
        600,
        800,
        2,
        0,
    )
    camera = file.camera()
    assert camera.height_m == 1.5 and camera.pitch_rad == pytest.approx(math.radians(2))
    assert camera.horizon_y == pytest.approx(300 - 800 * math.tan(math.radians(2)))


def test_twelve_numbers_instead_of_four():
    text = "width = 1242\nheight = 375\nheight_m = 1.65\n"
    text += "P = [721.5, 0, 609.6, 44.9, 0, 721.5, 172.9, 0.2, 0, 0, 1, 0.003]\n"
    assert parse_camera_file(text).camera().P_cam2[0].tolist() == [721.5, 0, 609.6, 44.9]


degrees = st.floats(-10, 10)


@given(
    st.builds(
        CameraFile,
        width=st.integers(1, 9999),
        height=st.integers(1, 9999),
        height_m=st.floats(0.1, 20),
        fx=st.floats(500, 1e5),
        fy=st.floats(500, 1e5),
        cx=st.floats(0, 2000),
        cy=st.floats(0, 2000),
        pitch_deg=degrees,
        yaw_deg=degrees,
        name=st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    )
)
def test_round_trip_to_the_bit(file):
    assert parse_camera_file(format_camera_file(file)) == file


def test_a_name_cannot_smuggle_keys_in(tmp_path):
    file = CameraFile(10, 10, 1.0, 10, 10, 5, 5, name='x"\nheight_m = 9\n# \\')
    write_camera_file(tmp_path / "c.toml", file)
    again = read_camera_file(tmp_path / "c.toml")
    assert again.height_m == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


def test_scales_to_frames_of_the_same_shape_only():
    file = parse_camera_file(GOOD)
    half = file.sized().at((300, 500))
    assert half.P_cam2[0, 0] == 400 and half.P_cam2[1, 2] == 150
    # the same point of the road, seen in half the pixels
    assert half.ground_position(np.array([[200, 200]])) == pytest.approx(
        file.camera().ground_position(np.array([[400, 400]]))
    )
    with pytest.raises(UserError, match="1000×600 pixels, these are 500×500"):
        file.sized().at((500, 500))


@pytest.mark.parametrize("pitch_deg", [0.0, 5.0, -3.0])
def test_straight_ahead_is_where_the_car_drives(pitch_deg):
    # looks right by atan(3/4)/10: what lies straight ahead of the car is left of the picture's middle
    yaw_deg = 3.687
    camera = CameraFile(1000, 600, 1.5, 800, 800, 500, 300, pitch_deg=pitch_deg, yaw_deg=yaw_deg).camera()
    pitch, yaw = math.radians(pitch_deg), math.radians(yaw_deg)
    # a point on the road 20 m ahead, by hand: turn by the yaw, then by the pitch
    x, down, z = -20 * math.sin(yaw), 1.5, 20 * math.cos(yaw)
    y, ahead = math.cos(pitch) * down - math.sin(pitch) * z, math.sin(pitch) * down + math.cos(pitch) * z
    pixel = np.array([[500 + 800 * x / ahead, 300 + 800 * y / ahead]])
    assert pixel[0, 0] < 460
    assert camera.ground_position(pixel)[0] == pytest.approx([0, 20], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "pich_deg = 2\n", "unknown key 'pich_deg'.*pitch_deg"),
        (GOOD + "hight_m = 2\n", "unknown key 'hight_m'.*try: height_m"),
        (GOOD.replace("height_m = 1.5\n", ""), "no 'height_m'"),
        (GOOD.replace("cy = 300\n", ""), "no 'cy'"),
        (GOOD.replace("fx = 800", "fx = '800'"), "fx: found '800'"),
        (GOOD.replace("fx = 800", "fx = nan"), "fx: found 'nan'"),
        (GOOD.replace("fx = 800", "fx = true"), "fx"),
        (GOOD.replace("fx = 800", "fx = 1" + "0" * 400), "fx"),
        (GOOD.replace("fx = 800", "fx = -800"), "positive focal"),
        (GOOD.replace("width = 1000", "width = 1000.5"), "width.*whole number"),
        (GOOD.replace("width = 1000", "width = 0"), "width, height"),
        (GOOD.replace("1.5", "150"), "height_m: found 150"),
        (GOOD + "pitch_deg = 90\n", "pitch_deg: found 90"),
        (GOOD + "P = [1, 2]\n", "both P and"),
        ("width = 1\nheight = 1\nheight_m = 1\nP = [1, 2]\n", "found 2 numbers"),
        ("width = 1\nheight = 1\nheight_m = 1\nP = [1,0,0,0,0,1,0,0,0,0,0,0]\n", "flattens"),
        ("width = 1\nheight = 1\nheight_m = 1\nP = 'no'\n", "list of 12 numbers"),
        ("not toml", "not TOML"),
    ],
)
def test_a_mistake_is_a_sentence(text, said):
    with pytest.raises(UserError, match=f"(?s){said}"):
        parse_camera_file(text, "camera.toml")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_camera(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"b\.toml"):
        read_camera(tmp_path / "b.toml")
    with pytest.raises(UserError):
        read_camera(tmp_path)


def test_a_kitti_calibration_serves_too(tmp_path):
    (tmp_path / "0000.txt").write_text("P2: 721.5 0 609.6 44.9 0 721.5 172.9 0.2 0 0 1 0.003\n")
    camera = read_camera(tmp_path / "0000.txt").at((375, 1242))
    assert camera.height_m == 1.65 and camera.P_cam2[0, 0] == 721.5
