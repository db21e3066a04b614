"""Frames to look at, by recording: folders of images as they lie, and frames of videos and other sources."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from datasets.formats.paths import image_name, walk_images
from perception.arrays import U8
from perception.errors import UserError
from perception.files import write_atomically
from perception.formats.images import read_image
from perception.source_options import SourceOptions
from perception.sources import IMAGES_RATE_HZ, open_sources
from perception.sources.images import natural_order

LONGEST_S = 3600.0
QUALITY = 95
"""Of JPEGs of video frames."""


@dataclass(frozen=True)
class PoolFrame:
    """One frame, whose image is read when it is needed."""

    name: str
    """Unique: its path below the folder that was given, without suffix, or VIDEO/NUMBER."""
    drive: str
    timestamp_ns: int
    path: Path
    """Its image file; a frame of a video gets one only where it is kept."""
    is_recorded: bool = False
    """It follows the frame before it of its recording in time; else it is a single shot."""
    is_kept: bool = True
    """It is labelled and may be selected; else it only helps to track."""
    image_bgr: U8 | None = None
    """Of a frame of a video."""

    def read(self) -> U8:
        """Return the image (H, W, 3).

        Raises:
            UserError: it cannot be read.
        """
        return read_image(self.path) if self.image_bgr is None else self.image_bgr

    def keep(self) -> None:
        """Write the image of a video's frame to its file, if it is not there."""
        if self.is_kept and self.image_bgr is not None and not self.path.is_file():
            data = cv2.imencode(".jpg", self.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
            write_atomically(self.path, data.tobytes(), do="free some space, or --out FOLDER on another disk")


@dataclass(frozen=True)
class Pool:
    """Where frames come from."""

    locations: tuple[str, ...]
    out: Path
    """Folder for frames of videos."""
    rate_hz: float | None = None
    """Of folders of images; None: their images are single shots."""
    every: int = 1
    """Of videos, every n-th frame is looked at."""
    keep_s: float = 1.0
    """Of recordings, a frame is kept at this interval, seconds; 0 keeps all."""

    def __post_init__(self) -> None:
        if not self.locations:
            raise UserError(
                "no frames given", "a folder of images, or videos", "perception label frames --out labels"
            )
        SourceOptions(every=self.every, rate_hz=self.rate_hz)  # checks them
        if not 0 <= self.keep_s <= LONGEST_S:
            raise UserError(f"--keep-s {self.keep_s:g}", f"from 0 to {LONGEST_S:g}", "--keep-s 1")

    @property
    def folders(self) -> list[Path]:
        """Those locations that are folders of images."""
        return [Path(one) for one in self.locations if Path(one).is_dir()]

    def count(self) -> int:
        """Return the number of frames; 0 where a video is among them, as files lie."""
        if len(self.folders) < len(self.locations):
            return 0
        return sum(1 for folder in self.folders for _ in walk_images(folder))

    def frames(self) -> Iterator[PoolFrame]:
        """Iterate over all frames, recording by recording, in order of time.

        Raises:
            UserError: a folder without images, a source that cannot be read, or a live one.
        """
        names: set[str] = set()
        for location in self.locations:
            prefix = f"{Path(location).resolve().name}/" if len(self.locations) > 1 else ""
            some = _images(Path(location), prefix, self.rate_hz) if Path(location).is_dir() else self._video(location)
            for frame in self._thinned(some):
                if frame.name in names:
                    raise UserError(f"{location}: a second frame {frame.name}", "names that differ", "rename one")
                names.add(frame.name)
                yield frame

    def size_hw(self) -> tuple[int, int]:
        """Return the size of the first readable frame."""
        for frame in self.frames():
            with suppress(UserError):
                height, width = frame.read().shape[:2]
                return height, width
        raise UserError(f"{', '.join(self.locations)}: no readable image", "PNG or JPEG files, or a video")

    def _thinned(self, frames: Iterator[PoolFrame]) -> Iterator[PoolFrame]:
        """Mark which frames of recordings are kept."""
        due_ns: dict[str, int] = {}
        for frame in frames:
            is_due = not frame.is_recorded or frame.timestamp_ns >= due_ns.get(frame.drive, 0)
            if is_due:
                due_ns[frame.drive] = frame.timestamp_ns + round(self.keep_s * 1e9)
            yield replace(frame, is_kept=is_due)

    def _video(self, location: str) -> Iterator[PoolFrame]:
        (source,) = open_sources([location], SourceOptions(every=self.every, rate_hz=self.rate_hz))
        try:
            if source.live:
                raise UserError(f"{source.name}: a live source", "recordings", "perception run SOURCE records one")
            for frame in source:
                name = f"{source.name}/{frame.frame_id:06d}"
                path = self.out / f"{name}.jpg"
                yield PoolFrame(
                    name, source.name, frame.timestamp_ns, path, is_recorded=True, image_bgr=frame.image_bgr
                )
        finally:
            source.close()


def _images(folder: Path, prefix: str, rate_hz: float | None) -> Iterator[PoolFrame]:
    by_folder: dict[Path, list[Path]] = {}
    for path in walk_images(folder):
        by_folder.setdefault(path.parent, []).append(path)
    if not by_folder:
        raise UserError(f"{folder}: no images", "PNG or JPEG files", "perception label FOLDER --out labels")
    step_ns = 1e9 / (rate_hz or IMAGES_RATE_HZ)
    for parent, paths in by_folder.items():
        below = parent.relative_to(folder).as_posix()
        drive = prefix + below if parent != folder else prefix.rstrip("/") or folder.resolve().name
        for i, path in enumerate(sorted(paths, key=natural_order)):
            yield PoolFrame(prefix + image_name(path, folder), drive, round(i * step_ns), path, rate_hz is not None)
