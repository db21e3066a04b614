"""The user's own camera as a small TOML file: what it is, how high it stands, where it looks.

    name = "dashcam"
    width = 1280            # pixels the numbers below belong to; other sizes of the same shape are scaled
    height = 720
    fx = 1108.5             # focal lengths and optical centre in pixels …
    fy = 1108.5
    cx = 640.0
    cy = 360.0
    # P = [ 12 numbers ]    # … or, instead of these four, a 3×4 projection like KITTI's P2
    height_m = 1.4          # of the lens above the road
    pitch_deg = 2.0         # positive where the camera looks down
    yaw_deg = -0.5          # positive where it looks to the right of the way the car drives

`perception calibrate` writes it. A KITTI calibration file serves as well.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.files import write_atomically
from perception.formats.kitti import read_calibration
from perception.types import F64

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
                f"width, height: found {self.width} × {self.height}, expected the picture's size in pixels"
            )
        if not 0.1 <= self.height_m <= 20:
            raise ValueError(f"height_m: found {self.height_m:g}, expected metres above the road, 0.1 to 20")
        for key, limit in (("pitch_deg", 60), ("yaw_deg", 60)):
            if not abs(getattr(self, key)) <= limit:
                raise ValueError(f"{key}: found {getattr(self, key):g}, expected degrees from -{limit} to {limit}")
        if abs(np.linalg.det(self.camera().K_cam2)) < 1e-9:
            raise ValueError("P: found a matrix that flattens the world, expected a projection like KITTI's P2")

    def camera(self, size_hw: tuple[int, int] | None = None) -> PinholeCamera:
        """The camera for frames of `size_hw`, by default of the file's own size.

        The yaw goes into the projection, so that 'ahead' is where the car drives.

        Raises:
            UserError: frames of another shape, which must have been cropped.
        """
        if self.P is not None:
            projection = np.array(self.P, np.float64).reshape(3, 4)
        else:
            projection = np.array([[self.fx, 0, self.cx, 0], [0, self.fy, self.cy, 0], [0, 0, 1, 0]], np.float64)
        if size_hw is not None and size_hw != (self.height, self.width):
            scale_y, scale_x = size_hw[0] / self.height, size_hw[1] / self.width
            if abs(scale_x / scale_y - 1) > 0.02:
                raise UserError(
                    f"the camera file is for {self.width}×{self.height} pixels, these are {size_hw[1]}×{size_hw[0]}",
                    "the same shape: cropped pictures need a calibration of their own",
                    "perception calibrate --video VIDEO",
                )
            projection[0] *= scale_x
            projection[1] *= scale_y
        if self.yaw_deg:
            level = _rotation_x(np.radians(self.pitch_deg))
            projection[:, :3] = projection[:, :3] @ level.T @ _rotation_y(np.radians(self.yaw_deg)) @ level
        return PinholeCamera(projection, self.height_m, float(np.radians(self.pitch_deg)))


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
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not TOML ({error})", "lines like  fx = 1108.5") from None
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
    if key == "name":
        if isinstance(value, str):
            return value
        raise UserError(f"{path}: {key}: found {value!r}", "text in quotes")
    if key == "P":
        if isinstance(value, list) and all(_is_number(item) for item in value):
            return tuple(float(item) for item in value)
        raise UserError(f"{path}: P: found {str(value)[:60]}", "a list of 12 numbers, row by row")
    if not _is_number(value) or (key in ("width", "height") and not isinstance(value, int)):
        kind = "a whole number" if key in ("width", "height") else "a finite number"
        raise UserError(f"{path}: {key}: found {str(value)[:60]!r}", kind)
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


CALIBRATE = "perception calibrate writes a camera file"


def read_camera(path: Path, size_hw: tuple[int, int] | None = None) -> PinholeCamera:
    """The camera from a TOML file, or from a KITTI calibration file (P2, 1.65 m above the road).

    Args:
        path: `.toml` for ours, anything else is read as KITTI's.
        size_hw: of the frames, where known; a TOML file is scaled to it.

    Raises:
        UserError: missing, broken, or for pictures of another shape.
    """
    if path.suffix != ".toml":
        try:
            return PinholeCamera(read_calibration(path)["P2"], KITTI_HEIGHT_M)
        except ValueError as error:
            raise UserError(f"{path}: {error}", "a KITTI calibration file, or camera.toml", CALIBRATE) from None
        except UserError as error:
            raise UserError(error.found, error.expected, error.do or CALIBRATE) from None
    try:
        return read_camera_file(path).camera(size_hw)
    except UserError as error:
        found = error.found if str(path) in error.found else f"{path}: {error.found}"
        raise UserError(found, error.expected, error.do or CALIBRATE) from None


def read_camera_file(path: Path) -> CameraFile:
    """`parse_camera_file` on a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", "a camera file", "perception calibrate writes one") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: {error}", "a readable TOML file") from None
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
