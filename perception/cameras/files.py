"""The user's own camera as a small TOML file: what it is, how high it stands, where it looks.

    name = "dashcam"
    width = 1280            # pixels the numbers below belong to; other sizes of the same shape are scaled
    height = 720
    fx = 1108.5             # focal lengths and optical centre in pixels …
    fy = 1108.5
    cx = 640.0
    cy = 360.0
    # P = [ 12 numbers ]    # … or, instead of these four, a 3×4 projection like KITTI's P2
    # distortion = [-0.3, 0.1, 0, 0, 0]   # of the lens, OpenCV's order; images are straightened with it
    # distortion_model = "plumb_bob"      # or rational_polynomial, equidistant (fisheye)
    height_m = 1.4          # of the lens above the road
    pitch_deg = 2.0         # positive where the camera looks down
    yaw_deg = -0.5          # positive where it looks to the right of the way the car drives

`perception calibrate` writes it. A KITTI calibration file serves as well.
"""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from perception.arrays import F64
from perception.cameras.pinhole import PinholeCamera
from perception.cameras.sized import Distortion, SizedCamera
from perception.cameras.yaml_files import FISHEYE, MODELS, looks_like_yaml, parse_intrinsics
from perception.errors import UserError, lfs_pointer
from perception.files import MOST_TOML, parse_toml, read_text, write_atomically
from perception.formats.kitti import parse_calibration

KITTI_HEIGHT_M = 1.65
_INTRINSICS = ("fx", "fy", "cx", "cy")


@dataclass(frozen=True)
class CameraFile:
    """The values of one camera file; what is left out of the file is None here or has the default."""

    width: int
    height: int
    height_m: float
    """Of the lens above the road."""
    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    P: tuple[float, ...] | None = None
    """12 numbers, row by row."""
    pitch_deg: float = 0.0
    """Positive where the camera looks down."""
    yaw_deg: float = 0.0
    """Positive where the camera looks to the right of the direction of travel."""
    distortion_model: str = ""
    """As ROS names it; empty where the images are free of distortion."""
    distortion: tuple[float, ...] = ()
    """Its coefficients, in OpenCV's order."""
    name: str = "camera"

    def __post_init__(self) -> None:
        intrinsics = [getattr(self, key) for key in _INTRINSICS]
        if self.P is None and None in intrinsics:
            raise ValueError(f"no '{_INTRINSICS[intrinsics.index(None)]}': expected fx, fy, cx, cy, or P")
        if self.P is not None and any(value is not None for value in intrinsics):
            raise ValueError("has both P and fx, fy, cx, cy: expected one of the two")
        if self.P is not None and len(self.P) != 12:
            raise ValueError(f"P: found {len(self.P)} numbers, expected 12, row by row")
        if not (1 <= self.width <= 100_000 and 1 <= self.height <= 100_000):
            raise ValueError(
                f"width, height: found {self.width} × {self.height}, expected the image's size in pixels"
            )
        if not 0.1 <= self.height_m <= 20:
            raise ValueError(f"height_m: found {self.height_m:g}, expected metres above the road, 0.1 to 20")
        for key, limit in (("pitch_deg", 60), ("yaw_deg", 60)):
            if not abs(getattr(self, key)) <= limit:
                raise ValueError(f"{key}: found {getattr(self, key):g}, expected degrees from -{limit} to {limit}")
        if self.distortion:
            model = self.distortion_model or "plumb_bob"
            if model not in MODELS or len(self.distortion) not in MODELS[model]:
                known = ", ".join(f"{name} with {'/'.join(map(str, counts))}" for name, counts in MODELS.items())
                raise ValueError(f"distortion: found {model} with {len(self.distortion)} numbers, expected {known}")
            if self.P is not None:
                raise ValueError("has both P and distortion: expected fx, fy, cx, cy with a distortion")
        if abs(np.linalg.det(self.camera().K_cam2)) < 1e-9:
            raise ValueError("P: found a matrix that flattens the world, expected a projection like KITTI's P2")

    def camera(self) -> PinholeCamera:
        """The camera for images of the file's own size.

        The yaw goes into the projection, so that 'ahead' is where the car drives.
        """
        if self.P is not None:
            projection = np.array(self.P, np.float64).reshape(3, 4)
        else:
            projection = np.array([[self.fx, 0, self.cx, 0], [0, self.fy, self.cy, 0], [0, 0, 1, 0]], np.float64)
        if self.yaw_deg:
            level = _rotation_x(np.radians(self.pitch_deg))
            projection[:, :3] = projection[:, :3] @ level.T @ _rotation_y(np.radians(self.yaw_deg)) @ level
        return PinholeCamera(projection, self.height_m, float(np.radians(self.pitch_deg)))

    def sized(self, origin: str = "the camera file") -> SizedCamera:
        """The camera with the size that it belongs to."""
        distortion = None
        if self.distortion:
            K = np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)
            fisheye = self.distortion_model in FISHEYE
            distortion = Distortion(K, np.array(self.distortion, np.float64), fisheye)
        return SizedCamera(self.camera(), (self.height, self.width), origin, distortion)


def _rotation_x(pitch: float) -> F64:
    """Coordinates of the camera → level ones, for a camera that looks down by `pitch`."""
    cos, sin = np.cos(pitch), np.sin(pitch)
    return np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])


def _rotation_y(yaw: float) -> F64:
    """Level coordinates along the car → along a camera that looks to the right by `yaw`."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])


def parse_camera_file(text: str, path: Path | str = "<text>") -> CameraFile:
    """A camera file from its text.

    Raises:
        UserError: not TOML, an unknown key (with the nearest known one), a missing one, a value of the wrong kind.
    """
    table = parse_toml(text, path, "lines like  fx = 1108.5")
    names = [field.name for field in fields(CameraFile)]
    values: dict[str, object] = {}
    for key, value in table.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.4)
            raise UserError(f"{path}: unknown key '{key}'", "one of " + ", ".join(names), near[0] if near else "")
        values[key] = _checked(key, value, path)
    if absent := [key for key in ("width", "height", "height_m") if key not in values]:
        raise UserError(f"{path}: no '{absent[0]}'", "width, height, height_m and fx, fy, cx, cy")
    try:
        return CameraFile(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"{path}: {error}", do="perception calibrate writes such a file") from None


def _checked(key: str, value: object, path: Path | str) -> object:
    """The value of one key, of the kind it should be."""
    if key in ("name", "distortion_model"):
        if isinstance(value, str):
            return value
        raise UserError(f"{path}: {key}: found {value!r}", "text in quotes")
    if key in ("P", "distortion"):
        if isinstance(value, list) and all(_is_number(item) for item in value):
            return tuple(float(item) for item in value)
        raise UserError(f"{path}: {key}: found {str(value)[:60]}", f"a list of {'12 ' if key == 'P' else ''}numbers")
    if not _is_number(value) or (key in ("width", "height") and not isinstance(value, int)):
        kind = "a whole number" if key in ("width", "height") else "a finite number"
        raise UserError(f"{path}: {key}: found {str(value)[:60]!r}", kind)
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


CALIBRATE = "perception calibrate writes a camera file"


def read_camera(path: Path) -> SizedCamera:
    """A calibration from a camera file (TOML) or a KITTI calibration file (P2, 1.65 m above the road).

    Args:
        path: what it is shows in its content; a name that ends in `.toml` is always ours.

    Raises:
        UserError: missing, broken, or a ROS or OpenCV file, which lacks the height above the road.
    """
    if pointer := lfs_pointer(path):
        raise pointer
    if path.suffix.lower() == ".toml":
        try:
            return read_camera_file(path).sized(str(path))
        except UserError as error:
            raise UserError(error.found, error.expected, error.do or CALIBRATE) from None
    text = read_text(path, "a calibration file", CALIBRATE, MOST_TOML)
    if looks_like_yaml(text):
        parse_intrinsics(text, path)  # what is wrong with it shows here
        raise UserError(
            f"{path}: a calibration as ROS and OpenCV write it, which does not say how high the camera stands",
            "a camera file, made from it",
            f"perception calibrate --intrinsics {shlex.quote(str(path))} --height-m METRES --out camera.toml",
        )
    try:
        return kitti_camera(parse_calibration(text, path), 2, str(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}", "a KITTI calibration file, or camera.toml", CALIBRATE) from None
    except UserError as error:
        raise UserError(error.found, error.expected, error.do or CALIBRATE) from None


def kitti_camera(matrices: dict[str, F64], number: int, origin: str) -> SizedCamera:
    """Camera 0 to 3 of a KITTI calibration; the raw recordings' files also say the size of the images."""
    size = matrices.get(f"S_rect_0{number}")
    size_hw = None if size is None or size.min() < 1 else (int(size[1]), int(size[0]))
    return SizedCamera(PinholeCamera(matrices[f"P{number}"], KITTI_HEIGHT_M), size_hw, origin)


def read_camera_file(path: Path) -> CameraFile:
    """`parse_camera_file` on a file."""
    text = read_text(path, "a camera file", "perception calibrate writes one", MOST_TOML)
    return parse_camera_file(text, path)


def format_camera_file(file: CameraFile) -> str:
    """The text of a camera file; reading it back gives the same values to the bit."""
    escaped = file.name.replace("\\", "\\\\").replace('"', '\\"')
    name = "".join(c if c.isprintable() else " " for c in escaped)
    lines = [f'name = "{name}"', f"width = {file.width}", f"height = {file.height}"]
    if file.P is None:
        lines += [f"{key} = {float(getattr(file, key))!r}" for key in _INTRINSICS]
    else:
        lines.append("P = [" + ", ".join(repr(float(value)) for value in file.P) + "]")
    if file.distortion:
        lines.append("distortion = [" + ", ".join(repr(float(value)) for value in file.distortion) + "]")
        lines.append(f'distortion_model = "{file.distortion_model or "plumb_bob"}"')
    lines += [
        f"height_m = {float(file.height_m)!r}  # of the lens above the road",
        f"pitch_deg = {float(file.pitch_deg)!r}  # positive where the camera looks down",
        f"yaw_deg = {float(file.yaw_deg)!r}  # positive where it looks to the right of the direction of travel",
    ]
    return "\n".join(lines) + "\n"


def write_camera_file(path: Path, file: CameraFile) -> None:
    """Write a camera file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_atomically(path, format_camera_file(file), do="--out FILE")
