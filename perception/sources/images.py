"""A folder of images, or one image: read in the order of their names, at a rate the user gives."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from perception.arrays import U8
from perception.errors import UserError
from perception.formats.images import read_image
from perception.image_pool import ImagePool
from perception.source_options import SourceOptions
from perception.sources import IMAGES_RATE_HZ, Source
from perception.types import Frame

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".m4v", ".ts", ".webm", ".mpg", ".mpeg"}
"""Usual ones, for advice only: a video may be called anything."""


def claim(location: str) -> float:
    """1 for a folder, 2 for an image."""
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
    """The images of a folder, in natural order; hidden files are none."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(found, key=natural_order)


class ImageFolder(Source):
    """Images as frames, `frame_id` the position in the folder. A broken one is counted and skipped."""

    kind = "images"

    def __init__(self, location: str, name: str, options: SourceOptions, paths: Sequence[Path] | None = None) -> None:
        """`paths` takes these images of the folder only."""
        super().__init__(location, name, options)
        path = Path(location)
        if paths is not None:
            self.paths = sorted(paths, key=natural_order)
        else:
            self.paths = list_images(path) if path.is_dir() else [path]
        if not self.paths:
            videos = (p for p in sorted(path.iterdir(), key=natural_order) if p.suffix.lower() in VIDEO_SUFFIXES)
            video = next(videos, None)
            raise UserError(
                f"{path}: a folder without images",
                "files that end in " + ", ".join(sorted(SUFFIXES)),
                f"perception run {video}   (videos are named one by one)"
                if video is not None
                else "perception run FOLDER   (the one that holds the images themselves)",
            )
        self.rate_hz = options.rate_hz or IMAGES_RATE_HZ
        self.frame_count = len(self.paths)
        self._index = 0
        self._pool = ImagePool()
        self._first = self._first_readable()
        self.size_hw = self._first[1].shape[0], self._first[1].shape[1]

    def _first_readable(self) -> tuple[int, U8]:
        """Number and image of the first of the first twenty that can be decoded.

        Raises:
            UserError: none can.
        """
        tried = self.paths[:20]
        refused: UserError | None = None
        for index, path in enumerate(tried):
            try:
                return index, read_image(path, self.options.max_megapixels, "PNG, JPEG or another common format")
            except UserError as error:
                refused = refused or error
        assert refused is not None
        if len(tried) == 1 or "LFS" in refused.found or "megapixels" in refused.found:
            raise refused
        raise UserError(
            f"{self.location}: none of the first {len(tried)} images can be decoded", refused.expected, refused.do
        )

    def timestamp_ns(self, index: int) -> int:
        """Capture time of image `index`."""
        return round(index * 1e9 / (self.rate_hz or IMAGES_RATE_HZ))

    def frame_id(self, index: int) -> int:
        return index

    def read(self) -> Iterator[Frame]:
        skipped = 0
        first: tuple[int, U8] | None = self._first
        del self._first
        for index, path in enumerate(self.paths):
            if self.timestamp_ns(index) < self.options.start_s * 1e9:
                continue
            start = time.perf_counter()
            reason = "cannot be decoded as an image"
            image: U8 | None = None
            if first is not None and first[0] == index:
                image, first = first[1], None  # not held for the whole run
            else:
                try:
                    image = read_image(path, self.options.max_megapixels, pool=self._pool)
                except UserError as error:
                    reason = error.found.removeprefix(f"{path}: ")
            self.decode_ms = (time.perf_counter() - start) * 1e3
            if image is None:
                skipped += 1
                self.emit_corrupt(f"{path.name}: {reason}; skipped")
                continue
            self._index = index
            yield Frame(image, self.timestamp_ns(index), self.frame_id(index), self.name, None, skipped)
            skipped = 0
