"""A calibration belongs to an image size: scaled where images were resized, refused where it cannot belong."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.cameras.files import CameraFile, parse_camera_file, read_camera, write_camera_file
from perception.cameras.geometry import ImageGeometry
from perception.cameras.pinhole import PinholeCamera
from perception.cameras.sized import SizedCamera, as_shown, kitti_size_hw, wide_lens
from perception.cameras.yaml_files import parse_intrinsics
from perception.errors import UserError

DAY = np.array([[721.5377, 0, 609.5593, 44.85728], [0, 721.5377, 172.854, 0.2163791], [0, 0, 1, 0.002745884]])
KITTI = SizedCamera(PinholeCamera(DAY), None, "0000.txt")
OWN = CameraFile(1000, 600, 1.5, 800, 800, 500, 300).sized("camera.toml")


@pytest.mark.parametrize("size_hw", [(375, 1242), (374, 1242), (370, 1224), (374, 1238), (376, 1241), (370, 1226)])
def test_kitti_images_keep_their_calibration_to_the_bit(size_hw: tuple[int, int]) -> None:
    assert KITTI.at(size_hw) is KITTI.camera


@pytest.mark.parametrize(
    ("size_hw", "scale"), [((188, 621), 0.5), ((281, 931), 0.75), ((750, 2484), 2.0), ((338, 1118), 0.9)]
)
def test_resized_kitti_images_scale_it(size_hw: tuple[int, int], scale: float) -> None:
    camera = KITTI.at(size_hw)
    assert camera.P_cam2[0] == pytest.approx(DAY[0] * scale, rel=0.005)
    assert camera.P_cam2[1] == pytest.approx(DAY[1] * scale, rel=0.01)
    # the same point of the road lies as far away
    pixel = np.array([[700.0, 300.0]])
    assert camera.ground_position(pixel * scale) == pytest.approx(KITTI.camera.ground_position(pixel), rel=0.02)


@pytest.mark.parametrize("size_hw", [(352, 1216), (375, 600), (720, 1280), (188, 1242), (1242, 375)])
def test_cropped_kitti_images_have_none(size_hw: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="the calibration is for 1242×375 pixels"):
        KITTI.at(size_hw)


@pytest.mark.parametrize(
    ("centre", "size_hw", "belongs"),
    [
        ((960, 540), (1080, 1920), True),
        ((682, 238.8), (376, 1408), True),  # KITTI-360, whose images are cropped at the top
        ((960, 540), (540, 960), False),
        ((960, 540), (720, 1280), False),
        ((640, 360), (1080, 1920), False),
        ((960, -20), (1080, 1920), False),
    ],
)
def test_a_centre_must_be_in_the_middle_where_no_size_is_known(
    centre: tuple[float, float], size_hw: tuple[int, int], belongs: bool
) -> None:
    projection = np.array([[1000, 0, centre[0], 0], [0, 1000, centre[1], 0], [0, 0, 1, 0]], np.float64)
    sized = SizedCamera(PinholeCamera(projection))
    if belongs:
        assert sized.at(size_hw) is sized.camera
    else:
        with pytest.raises(UserError, match="optical centre"):
            sized.at(size_hw)


def test_a_camera_file_follows_its_shape() -> None:
    assert OWN.at((600, 1000)) is OWN.camera
    assert OWN.at((300, 500)).K_cam2[0].tolist() == [400, 0, 250]
    for size_hw in ((600, 800), (1000, 600)):
        with pytest.raises(UserError, match=r"camera\.toml: the calibration is for 1000×600"):
            OWN.at(size_hw)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("crop", [(0, 0, 0, 0), (1, 4, 9, 6)])
def test_a_calibration_of_stored_pixels_turns_with_them(
    turns: int, mirrored: bool, crop: tuple[int, int, int, int]
) -> None:
    """A point seen at a stored pixel is seen at the pixel to which the image's geometry moves it."""
    geometry = ImageGeometry(crop, mirrored, turns)
    stored = PinholeCamera(np.array([[90.0, 0, 30, 12], [0, 80, 22, 7], [0, 0, 1, 0.1]]))
    point = np.array([[0.6, -0.3, 5.0]])
    dot = np.zeros((50, 70, 3), np.uint8)
    x, y = np.round(stored.project(point)[0]).astype(int)
    dot[y, x] = 255
    moved = np.argwhere(geometry.apply(dot)[..., 0])[0][::-1]
    axes = point.copy()
    if mirrored:
        axes[:, 0] *= -1
    for _ in range(turns):  # the camera turns the other way than the image
        axes[:, :2] = np.stack([-axes[:, 1], axes[:, 0]], axis=1)
    assert as_shown(stored, (50, 70), geometry).project(axes)[0] == pytest.approx(moved, abs=0.51)


def test_an_anamorphic_calibration_of_stored_pixels_is_stretched_with_them() -> None:
    stored = CameraFile(1440, 1080, 1.4, 900, 1200, 720, 540).sized()
    with pytest.raises(UserError):
        stored.at((1080, 1920))
    camera = stored.at((1080, 1920), ImageGeometry(pixel_aspect=4 / 3))
    assert camera.K_cam2[0].tolist() == pytest.approx([1200, 0, 960])
    assert camera.K_cam2[1].tolist() == [0, 1200, 540]


def test_kitti_cameras_are_known_by_their_numbers() -> None:
    assert kitti_size_hw(KITTI.camera) == (375, 1242)
    assert kitti_size_hw(OWN.camera) is None


def test_every_calibration_of_the_sample_data_fits_its_images(data_root: Path) -> None:
    folder = data_root / "kitti" / "object" / "training"
    for path in sorted((folder / "calib").glob("*.txt")):
        image = cv2.imread(str(next((folder / "image_2").glob(f"{path.stem}.*"))))
        sized = read_camera(path)
        assert sized.at((image.shape[0], image.shape[1])) is sized.camera


# ---------------------------------------------------------------- files


def test_a_raw_recordings_calibration_says_its_size(tmp_path: Path) -> None:
    path = tmp_path / "calib_cam_to_cam.txt"
    path.write_text("calib_time: 1\nS_rect_02: 1242 375\nP_rect_02: 700 0 600 0 0 700 170 0 0 0 1 0\n")
    assert read_camera(path).size_hw == (375, 1242)
    with pytest.raises(UserError, match="1242×375"):
        read_camera(path).at((512, 1392))  # the raw images before rectification


def test_what_a_file_is_shows_in_its_content(tmp_path: Path) -> None:
    write_camera_file(tmp_path / "a.toml", CameraFile(1000, 600, 1.5, 800, 800, 500, 300))
    upper = tmp_path / "CAM.TOML"
    upper.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.toml").read_bytes())
    assert read_camera(upper).size_hw == (600, 1000)


ROS = """image_width: 640
image_height: 480
camera_name: front
camera_matrix:
  rows: 3
  cols: 3
  data: [500, 0, 320, 0, 510, 240, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.3, 0.1, 0, 0, 0]
projection_matrix:
  rows: 3
  cols: 4
  data: [480, 0, 321, 0, 0, 490, 241, 0, 0, 0, 1, 0]
"""
OPENCV = """%YAML:1.0
---
image_width: 640
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 500., 0., 320., 0., 510., 240., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -0.3, 0.1, 0., 0., 0. ]
"""
MESSAGE = """header:
  frame_id: camera
height: 480
width: 640
distortion_model: plumb_bob
d:
- -0.3
- 0.1
- 0.0
- 0.0
- 0.0
k:
- 500.0
- 0.0
- 320.0
- 0.0
- 510.0
- 240.0
- 0.0
- 0.0
- 1.0
---
"""


@pytest.mark.parametrize("text", [ROS, OPENCV, MESSAGE, "\ufeff" + ROS], ids=["ros", "opencv", "echo", "bom"])
def test_ros_and_opencv_files(text: str) -> None:
    found = parse_intrinsics(text)
    assert found.size_hw == (480, 640)
    assert found.K.tolist() == [[500, 0, 320], [0, 510, 240], [0, 0, 1]]
    assert (found.distortion_model, found.distortion) == ("plumb_bob", (-0.3, 0.1, 0, 0, 0))


def test_without_distortion_the_projection_counts() -> None:
    found = parse_intrinsics(ROS.replace("-0.3, 0.1, 0, 0, 0", "0, 0, 0, 0, 0"))
    assert (found.distortion, found.K[0].tolist()) == ((), [480, 0, 321])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROS.replace("plumb_bob", "thin_prism"), "distortion_model 'thin_prism'"),
        (ROS.replace("image_width: 640", "image_width: .inf"), "image_width"),
        (ROS.replace("[500, 0, 320,", "[-500, 0, 320,"), "focal lengths"),
        (ROS.replace("[500, 0, 320,", "["), "camera_matrix"),
        ("image_width: {", "not YAML"),
    ],
)
def test_a_bad_one_is_named(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_intrinsics(text, "camera_info.yaml")


def test_run_says_what_to_type_for_a_ros_file(tmp_path: Path) -> None:
    path = tmp_path / "camera_info.yaml"
    path.write_text(ROS)
    with pytest.raises(
        UserError, match=r"how high[\s\S]*perception calibrate --intrinsics .*camera_info.yaml --height-m"
    ):
        read_camera(path)


def test_calibrate_takes_it_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from perception.cli.calibrate import main

    path, out = tmp_path / "camera_info.yaml", tmp_path / "camera.toml"
    path.write_text(ROS)
    assert main(f"--intrinsics {path} --height-m 1.4 --out {out} --json".split()) == 0
    assert any("straightened" in text for text in json.loads(capsys.readouterr().out)["found"])
    sized = read_camera(out)
    assert (sized.size_hw, sized.camera.height_m) == ((480, 640), 1.4)
    assert sized.distortion is not None and sized.distortion.coefficients.tolist() == [-0.3, 0.1, 0, 0, 0]


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_a_straightened_image_is_a_pinholes(model: str) -> None:
    """A point's pixel in the straightened image is the pinhole's, at full size and at half."""
    coefficients = (-0.3, 0.1, 0.0, 0.0, 0.0) if model == "plumb_bob" else (0.05, -0.02, 0.0, 0.0)
    file = CameraFile(640, 480, 1.4, 500, 500, 320, 240, distortion=coefficients, distortion_model=model, yaw_deg=3.0)
    sized = file.sized()
    K = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1]], np.float64)
    point = np.array([[[0.9, 0.5, 2.0]]])
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    none = np.zeros(3)
    seen = project(point, none, none, K, np.array(coefficients))[0].ravel()
    straight = np.array([500 * 0.45 + 320, 500 * 0.25 + 240])
    assert np.hypot(*(seen - straight)) > 3
    for scale in (1, 0.5):
        size_hw = (int(480 * scale), int(640 * scale))
        image = np.zeros((*size_hw, 3), np.uint8)
        cv2.circle(image, tuple(int(v * scale) for v in np.round(seen)), 3, (255, 255, 255), -1)
        maps = sized.straightening_maps(size_hw)
        assert maps is not None
        moved = np.argwhere(sized.straightened(image, maps)[..., 0] > 128)[:, ::-1].mean(axis=0)
        assert moved == pytest.approx(straight * scale, abs=1.5)


def test_a_camera_file_with_distortion_comes_back(tmp_path: Path) -> None:
    file = CameraFile(
        640, 480, 1.4, 500, 500, 320, 240, distortion=(0.1, 0.2, 0.0, 0.0), distortion_model="equidistant"
    )
    write_camera_file(tmp_path / "c.toml", file)
    assert parse_camera_file((tmp_path / "c.toml").read_text()) == file


@pytest.mark.parametrize("extra", ["distortion = [1, 2]", 'distortion = [0,0,0,0.1]\ndistortion_model = "x"'])
def test_a_distortion_that_is_none_is_refused(extra: str) -> None:
    text = "width = 640\nheight = 480\nfx = 500\nfy = 500\ncx = 320\ncy = 240\nheight_m = 1\n" + extra
    with pytest.raises(UserError, match="distortion"):
        parse_camera_file(text)


@pytest.mark.parametrize(("fov_deg", "warns"), [(60, False), (105, False), (120, True), (165, True)])
def test_a_wide_lens_is_no_silent_pinhole(fov_deg: float, warns: bool) -> None:
    focal = 500 / np.tan(np.radians(fov_deg / 2))
    sized = CameraFile(1000, 600, 1.5, focal, focal, 500, 300).sized()
    assert bool(wide_lens(sized)) == warns
