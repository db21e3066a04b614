"""A folder of pictures, or one picture: read in the order of their names, at a rate the user gives."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.sources import Source, SourceOptions
from perception.types import U8, Frame

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".m4v", ".ts", ".webm", ".mpg", ".mpeg"}
"""Usual ones, for advice only: a video may be called anything."""


def claim(location: str) -> float:
    """1 for a folder that holds pictures, or a picture."""
    path = Path(location)
    if location and path.is_dir():
        return 1.0
    return 2.0 if path.is_file() and path.suffix.lower() in SUFFIXES else 0.0


def open_source(location: str, name: str, options: SourceOptions) -> Source:
    return ImageFolder(location, name, options)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key under which frame10 comes after frame9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def list_images(folder: Path) -> list[Path]:
    """The pictures of a folder, in natural order; hidden files are none."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(found, key=natural_order)


def read_picture(path: Path) -> U8 | None:
    """(H, W, 3) uint8 BGR of any 8- or 16-bit grey, colour or RGBA picture; None where it cannot be decoded."""
    import cv2

    try:
        data = np.fromfile(path, np.uint8)  # imread prints its own complaints for missing files
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        return None
    return None if image is None else np.asarray(image, np.uint8)


def _what(path: Path) -> str:
    """Why a file is no picture."""
    return "cannot be decoded as a picture" if path.stat().st_size else "the file is empty"


class ImageFolder(Source):
    """Pictures as frames, `frame_id` the position in the folder. A broken one is counted and skipped."""

    kind = "images"

    def __init__(self, location: str, name: str, options: SourceOptions) -> None:
        super().__init__(location, name, options)
        path = Path(location)
        self.paths = list_images(path) if path.is_dir() else [path]
        if not self.paths:
            videos = (p for p in sorted(path.iterdir(), key=natural_order) if p.suffix.lower() in VIDEO_SUFFIXES)
            video = next(videos, None)
            raise UserError(
                f"{path}: a folder without pictures",
                "files that end in " + ", ".join(sorted(SUFFIXES)),
                f"perception run {video}   (videos are named one by one)"
                if video is not None
                else "perception run FOLDER   (the one that holds the pictures themselves)",
            )
        self.rate_hz = options.rate_hz
        self.frame_count = len(self.paths)
        readable = ((i, image) for i, p in enumerate(self.paths[:20]) if (image := read_picture(p)) is not None)
        self._first = next(readable, None)
        if self._first is None:
            tried = min(20, len(self.paths))
            found = f"none of the first {tried} pictures can be decoded" if tried > 1 else _what(self.paths[0])
            raise UserError(
                f"{path if tried > 1 else self.paths[0]}: {found}",
                "PNG, JPEG or another common format",
                f"file {self.paths[0]}   (says what it really is)",
            )
        self.size_hw = self._first[1].shape[0], self._first[1].shape[1]

    def timestamp_ns(self, index: int) -> int:
        """Capture time of picture `index`."""
        return round(index * 1e9 / self.options.rate_hz)

    def frame_id(self, index: int) -> int:
        return index

    def read(self) -> Iterator[Frame]:
        skipped = 0
        for index, path in enumerate(self.paths):
            if self.timestamp_ns(index) < self.options.start_s * 1e9:
                continue
            start = time.perf_counter()
            if self._first is not None and self._first[0] == index:
                image: U8 | None = self._first[1]
                self._first = None  # not held for the whole run
            else:
                image = read_picture(path)
            self.decode_ms = (time.perf_counter() - start) * 1e3
            if image is None:
                skipped += 1
                self.emit_corrupt(f"{path.name} cannot be decoded as a picture; skipped")
                continue
            yield Frame(
                image, self.timestamp_ns(index), self.frame_id(index), self.name, self.camera_of(index), skipped
            )
            skipped = 0

    def camera_of(self, index: int) -> PinholeCamera | None:
        """Calibration of picture `index`, where there is one."""
        return self.camera
