"""KITTI's own folders: tracking and raw sequences, object and road images, with their calibration and time stamps.

Locations: `…/image_02/0000` of the tracking set (calibration `…/calib/0000.txt`), a raw drive
`…/2011_09_26_drive_0001_sync` or its `image_02` (with `timestamps.txt`; calibration one folder up), and `image_2` of
the object and road sets (`calib/000000.txt` for each picture).
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import numpy as np

from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.formats.kitti import read_calibration, read_text
from perception.sources import Source, SourceOptions
from perception.sources.images import ImageFolder

_CAMERA_FOLDERS = re.compile(r"image_0?[23]")


def claim(location: str) -> float:
    """2 for a folder that is laid out as KITTI's."""
    path = Path(location)
    return 2.0 if path.is_dir() and _find(path.resolve()) else 0.0


def open_source(location: str, name: str, options: SourceOptions) -> Source:
    path = Path(location).resolve()
    found = _find(path)
    if found is None:
        raise UserError(f"{location}: not one of KITTI's folders", "…/image_02/0000, a raw drive or …/image_2")
    images, kind = found
    return KittiSequence(location, images, kind, name, options)


def _find(path: Path) -> tuple[Path, str] | None:
    """The folder that holds the pictures, and which of KITTI's layouts it is."""
    for drive in (path / "image_02", path):
        if (drive / "timestamps.txt").is_file() and (drive / "data").is_dir():
            return drive / "data", "raw"
    if path.name == "data" and (path.parent / "timestamps.txt").is_file():
        return path, "raw"
    if _CAMERA_FOLDERS.fullmatch(path.parent.name) and re.fullmatch(r"\d{4}", path.name):
        return path, "tracking"
    if path.name == "image_2" and (path.parent / "calib").is_dir():
        return path, "object"
    return None


def read_timestamps(path: Path) -> list[int]:
    """Nanoseconds since the first line of KITTI raw's timestamps.txt, `2011-09-26 13:02:25.594360375` a line.

    Raises:
        UserError: a line that is no time.
    """
    times = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        whole, _, fraction = line.strip().partition(".")
        try:
            seconds = int(datetime.strptime(whole + " +0000", "%Y-%m-%d %H:%M:%S %z").timestamp())
            times.append(seconds * 10**9 + int((fraction or "0").ljust(9, "0")[:9]))
        except ValueError:
            raise UserError(
                f"{path}:{number}: found {line[:60]!r}", "a time like 2011-09-26 13:02:25.594360375"
            ) from None
    return [t - times[0] for t in times] if times else []


def read_raw_camera(path: Path, camera: str) -> PinholeCamera:
    """The rectified projection `P_rect_02` (or 03) of KITTI raw's calib_cam_to_cam.txt.

    Raises:
        UserError: not in the file, or not twelve numbers.
    """
    key = f"P_rect_{camera}:"
    for line in read_text(path).splitlines():
        if line.startswith(key):
            try:
                return PinholeCamera(np.array(line.split()[1:], np.float64).reshape(3, 4))
            except ValueError as error:
                raise UserError(f"{path}: {key} {error}", "12 numbers") from None
    raise UserError(f"{path}: has no {key}", "the calibration file of a KITTI raw recording")


class KittiSequence(ImageFolder):
    """A folder of images that knows its time stamps, frame numbers and calibration. KITTI runs at 10 Hz."""

    kind = "kitti"

    def __init__(self, location: str, images: Path, layout: str, name: str, options: SourceOptions) -> None:
        super().__init__(str(images), name, options)
        self.location, self.layout = location, layout
        self._times: dict[int, int] = {}
        self._calibration_folder: Path | None = None
        if layout == "raw":
            stamps = read_timestamps(images.parent / "timestamps.txt")
            self._times = dict(enumerate(stamps))
            camera = images.parent.name[-2:]
            calibration = images.parents[2] / "calib_cam_to_cam.txt"
            if calibration.is_file():
                self.camera = read_raw_camera(calibration, camera)
        elif layout == "tracking":
            calibration = images.parents[1] / "calib" / f"{images.name}.txt"
            if calibration.is_file():
                self.camera = PinholeCamera(read_calibration(calibration)["P2"])
        else:
            self._calibration_folder = images.parent / "calib"
        if self.camera is None and self._calibration_folder is None:
            self.notes.append("no calibration found: nothing metric is reported")

    def frame_id(self, index: int) -> int:
        stem = self.paths[index].stem
        return int(stem) if stem.isdigit() and self.layout != "object" else index

    def timestamp_ns(self, index: int) -> int:
        frame_id = self.frame_id(index)
        known = self._times.get(frame_id)
        return known if known is not None else round(frame_id * 1e9 / self.options.rate_hz)

    def camera_of(self, index: int) -> PinholeCamera | None:
        if self._calibration_folder is None:
            return self.camera
        path = self._calibration_folder / (self.paths[index].stem + ".txt")
        return PinholeCamera(read_calibration(path)["P2"]) if path.is_file() else None
