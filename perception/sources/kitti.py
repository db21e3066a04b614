"""KITTI's own folders: tracking, raw and odometry sequences, object and road images, with calibration and times.

Locations: `…/image_02/0000` of the tracking set (calibration `…/calib/0000.txt`); a raw drive
`…/2011_09_26_drive_0001_sync` or its `image_02` (with `timestamps.txt`; calibration one folder up); `image_2` of
the object and road sets (`calib/000000.txt` for each image) or of an odometry sequence (`calib.txt`, `times.txt`).
The number of the folder is the number of the camera: `image_03` and `image_3` use P3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from perception.cameras.files import kitti_camera
from perception.cameras.sized import SizedCamera
from perception.clocks import StreamClock
from perception.errors import UserError
from perception.files import read_text
from perception.formats.kitti import read_calibration
from perception.source_options import SourceOptions
from perception.sources import Source
from perception.sources.images import ImageFolder
from perception.types import Frame

_CAMERA_FOLDER = re.compile(r"image_0?(?P<number>[0-3])")
_STEP_NS = 10**8
_FAR_NS = 30 * 3600 * 10**9
"""Times this far apart in one recording are a fault of the file."""


def claim(location: str) -> float:
    """2 for a folder that is laid out as KITTI's."""
    path = Path(location)
    return 2.0 if path.is_dir() and find_sequence(path) else 0.0


def open_source(location: str, name: str, options: SourceOptions) -> Source:
    found = find_sequence(Path(location))
    if found is None:
        raise UserError(
            f"{location}: not one of KITTI's folders",
            "a folder image_02/0000, a raw drive or image_2",
            "check the path",
        )
    images, kind = found
    return KittiSequence(location, images, kind, name, options)


def find_sequence(path: Path) -> tuple[Path, str] | None:
    """The folder that holds the images, and which of KITTI's layouts it is; None for any other folder."""
    path = path.resolve()
    for drive in (path / "image_02", path):
        if (drive / "timestamps.txt").is_file() and (drive / "data").is_dir():
            return drive / "data", "raw"
    if path.name == "data" and (path.parent / "timestamps.txt").is_file():
        return path, "raw"
    if _CAMERA_FOLDER.fullmatch(path.parent.name) and re.fullmatch(r"\d{4}", path.name):
        return path, "tracking"
    if _CAMERA_FOLDER.fullmatch(path.name):
        if (path.parent / "calib").is_dir():
            return path, "object"
        if (path.parent / "calib.txt").is_file():
            return path, "odometry"
    return None


def read_timestamps(path: Path) -> list[int | None]:
    """Nanoseconds since the first line of KITTI raw's timestamps.txt, `2011-09-26 13:02:25.594360375` a line.

    Line n belongs to frame n, so an empty line is a frame whose time is not known: None.

    Raises:
        UserError: a line that is no time.
    """
    times: list[int | None] = []
    for number, line in enumerate(read_text(path).lstrip("\ufeff").rstrip().splitlines(), 1):
        if not line.strip():
            times.append(None)
            continue
        whole, _, fraction = line.strip().partition(".")
        try:
            seconds = int(datetime.strptime(whole + " +0000", "%Y-%m-%d %H:%M:%S %z").timestamp())
            times.append(seconds * 10**9 + int((fraction or "0").ljust(9, "0")[:9]))
        except ValueError:
            raise UserError(
                f"{path}:{number}: found {line[:60]!r}", "a time like 2011-09-26 13:02:25.594360375"
            ) from None
    first = next((time for time in times if time is not None), 0)
    return [None if time is None else time - first for time in times]


def read_seconds(path: Path) -> list[int | None]:
    """Nanoseconds from the odometry kit's times.txt, one number of seconds a line; None for an empty line.

    Raises:
        UserError: a line that is no number.
    """
    times: list[int | None] = []
    for number, line in enumerate(read_text(path).lstrip("\ufeff").rstrip().splitlines(), 1):
        try:
            times.append(round(float(line) * 1e9) if line.strip() else None)
        except (ValueError, OverflowError):
            raise UserError(f"{path}:{number}: found {line[:60]!r}", "seconds, as 1.036224e-01") from None
    return times


def mended_times(times: list[int | None]) -> tuple[list[int], str]:
    """Times that always go forward, and what had to be done for it (empty where nothing).

    Missing ones lie evenly between their neighbours. Lines that changed places are sorted. What else goes backwards
    or stands still is placed by `StreamClock`, as in any other source.
    """
    done = []
    known = [index for index, time in enumerate(times) if time is not None]
    if not known:
        return [], ""
    filled = np.interp(np.arange(len(times)), known, [float(times[index] or 0) for index in known])
    values = [int(filled[i]) if time is None else time for i, time in enumerate(times)]
    missing = len(times) - len(known)
    if missing:
        done.append(f"{missing} missing, taken from their neighbours")
    order = sorted(range(len(values)), key=lambda i: values[i])
    moved = max(abs(place - index) for place, index in enumerate(order))
    if 0 < moved <= 3:
        values = [values[index] for index in order]
        done.append("some in the wrong order, sorted")
    clock = StreamClock(_STEP_NS, values[0], _FAR_NS)
    values = [clock.next_ns(value) for value in values]
    if placed := clock.segments + clock.stood_still + clock.out_of_order:
        done.append(f"{placed} that cannot be true, placed after the one before")
    return values, "; ".join(done)


class KittiSequence(ImageFolder):
    """A folder of images that knows its time stamps, frame numbers and calibration. KITTI runs at 10 Hz."""

    kind = "kitti"

    def __init__(
        self,
        location: str,
        images: Path,
        layout: str,
        name: str,
        options: SourceOptions,
        paths: Sequence[Path] | None = None,
    ) -> None:
        """`paths` takes these images of the folder only."""
        super().__init__(str(images), name, options, paths)
        self.location, self.layout = location, layout
        self._times: list[int] = []
        self._calibration_folder: Path | None = None
        camera_folder = {"raw": images.parent, "tracking": images.parent}.get(layout, images)
        match = _CAMERA_FOLDER.fullmatch(camera_folder.name)
        self.camera_number = int(match["number"]) if match else 2
        if layout == "raw":
            self._take_times(images.parent / "timestamps.txt")
            self._take_calibration(images.parents[2] / "calib_cam_to_cam.txt")
        elif layout == "tracking":
            self._take_calibration(images.parents[1] / "calib" / f"{images.name}.txt")
        elif layout == "odometry":
            self._take_times(images.parent / "times.txt")
            self._take_calibration(images.parent / "calib.txt")
        else:
            self._calibration_folder = images.parent / "calib"
            self._of_image: tuple[int, SizedCamera | None] = (-1, None)
        if self.calibration is None and self._calibration_folder is None:
            self.note("no calibration found: nothing metric is reported")

    def _take_times(self, path: Path) -> None:
        if not path.is_file():
            return
        read = read_seconds if path.name == "times.txt" else read_timestamps
        self._times, mended = mended_times(read(path))
        if mended:
            self.note(f"{path.name}: time stamps: {mended}")

    def _take_calibration(self, path: Path) -> None:
        if path.is_file():
            self.calibration = self._read_calibration(path)

    def _read_calibration(self, path: Path) -> SizedCamera:
        matrices = read_calibration(path, needed=(f"P{self.camera_number}",))
        try:
            return kitti_camera(matrices, self.camera_number, path.name)
        except ValueError as error:
            raise UserError(f"{path}: {error}", "a KITTI calibration file") from None

    def frame_id(self, index: int) -> int:
        stem = self.paths[index].stem
        return int(stem) if stem.isdigit() and self.layout != "object" else index

    def timestamp_ns(self, index: int) -> int:
        frame_id = self.frame_id(index)
        if frame_id < len(self._times):
            return self._times[frame_id]
        last = len(self._times) - 1
        return super().timestamp_ns(frame_id - max(0, last)) + (self._times[last] if self._times else 0)

    def calibration_of(self, frame: Frame) -> SizedCamera | None:
        """The sequence's calibration, or that of the image."""
        if self._calibration_folder is None:
            return self.calibration
        if self._of_image[0] != self._index:
            path = self._calibration_folder / (self.paths[self._index].stem + ".txt")
            self._of_image = (self._index, self._read_calibration(path) if path.is_file() else None)
        return self._of_image[1]
