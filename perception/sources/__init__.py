"""Where frames come from. `open_source("drive.mp4")` finds the file in this folder that knows the location.

A new source is one file with two functions: `claim(location)`, how surely the location is meant for it, and
`open_source(location, name, options)`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import ClassVar
from urllib.parse import unquote

import numpy as np

from perception.cameras.geometry import ImageGeometry
from perception.cameras.pinhole import PinholeCamera
from perception.cameras.sized import SizedCamera, wide_lens
from perception.errors import UserError
from perception.redact import printable, redact
from perception.source_options import SourceOptions
from perception.types import EventListener, Frame, HealthEvent, HealthKind

_NAMED = re.compile(r"(?P<name>[A-Za-z][\w-]{0,31})=(?P<location>.+)", re.DOTALL)


IMAGES_RATE_HZ = 10.0
"""Of a folder of images where nobody says; KITTI's rate."""
_FILE_URL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)


class Source(ABC):
    """One camera, file or stream. Iterate over it once, in one thread; `stop` may be called from any."""

    kind: ClassVar[str] = ""
    live: bool = False
    """Live sources do not wait for us."""

    def __init__(self, location: str, name: str, options: SourceOptions) -> None:
        self.location, self.name, self.options = location, name, options
        self.size_hw: tuple[int, int] | None = None
        """Of the first image, upright and with square pixels, where it is known before it is read."""
        self.geometry = ImageGeometry()
        """How the latest image was made from the stored one."""
        self.rate_hz: float | None = None
        self.frame_count: int | None = None
        """As announced. Files lie."""
        self.epoch_ns: int | None = None
        """Unix time at which `timestamp_ns` is 0, where the source knows it."""
        self.calibration: SizedCamera | None = None
        """Without one, nothing metric is reported."""
        self.decode_ms = 0.0
        """What the latest frame cost, without the wait for it."""
        self.corrupt = 0
        """Packets or images that could not be read and were skipped."""
        self.reconnects = 0
        self.notes: list[str] = []
        """What the end summary should say about this source."""
        self.on_event: EventListener = lambda event: None
        self.stopped = Event()
        self._reported_s, self._unreported = float("-inf"), 0
        self._fitted: tuple[object, ...] = ()
        self._camera: PinholeCamera | None = None
        self._maps: tuple[np.ndarray, np.ndarray] | None = None

    @abstractmethod
    def read(self) -> Iterator[Frame]:
        """All frames in order of capture, from `options.start_s` on where the source can jump there."""

    def stop(self) -> None:
        """Ask the reader to end soon."""
        self.stopped.set()

    def close(self) -> None:  # noqa: B027  (most sources hold nothing)
        """Let go of files and devices."""

    def calibration_of(self, frame: Frame) -> SizedCamera | None:
        """The calibration of one frame, where frames have their own."""
        return self.calibration

    def _calibrated(self, frame: Frame, calibration: SizedCamera) -> Frame:
        """The frame with the camera that belongs to its size, and without its lens's distortion.

        Where the calibration cannot belong, the frame gets no camera, and that is said once.
        """
        fitted = (calibration, frame.size_hw, self.geometry)
        if fitted != self._fitted:
            self._fitted, self._camera, self._maps = fitted, None, None
            try:
                self._camera = calibration.at(frame.size_hw, self.geometry)
                self._maps = calibration.straightening_maps(frame.size_hw)
                own_hw = calibration.known_size_hw
                if self._camera is not calibration.camera and own_hw:
                    self.note(f"the calibration is scaled from {_size(own_hw)} to {_size(frame.size_hw)} pixels")
                if self._maps is not None:
                    self.note(f"the images are straightened with the distortion in {calibration.origin}")
            except UserError as error:
                self.note(f"no metres for these images: {error.found}")
        if self._camera is None:
            return frame
        if self._maps is None:
            return replace(frame, camera=self._camera)
        return replace(frame, camera=self._camera, image_bgr=calibration.straightened(frame.image_bgr, self._maps))

    def note(self, text: str) -> None:
        """Say something in the end summary, once."""
        if text not in self.notes:
            self.notes.append(text)

    def emit(self, kind: HealthKind, active: bool = True, detail: str = "") -> None:
        """Report what is wrong with the source itself."""
        self.on_event(HealthEvent(kind, self.name, active, None, printable(redact(detail))))

    def emit_corrupt(self, detail: str) -> None:
        """Count something that cannot be read; reported at most once a second, so that a bad line fills no disk."""
        self.corrupt += 1
        self._unreported += 1
        if time.monotonic() - self._reported_s < 1.0:
            return
        more = f" ({self._unreported} since the last report)" if self._unreported > 1 else ""
        self._reported_s, self._unreported = time.monotonic(), 0
        self.emit("corrupt", True, detail + more)

    def __iter__(self) -> Iterator[Frame]:
        """The wanted part of the frames: start, duration, every n-th, at its own pace where asked."""
        options = self.options
        start_ns = int(options.start_s * 1e9)
        end_ns = None if options.duration_s is None else start_ns + int(options.duration_s * 1e9)
        first_ns: int | None = None if self.live else 0  # stored sources count from their own beginning
        anchor_ns: int | None = None
        dropped = 0
        for index, frame in enumerate(self.read()):
            if self.stopped.is_set():
                return
            if first_ns is None:
                first_ns = frame.timestamp_ns
            position_ns = frame.timestamp_ns - first_ns
            if end_ns is not None and position_ns >= end_ns:
                return
            if position_ns < start_ns or index % options.every:
                dropped += frame.dropped_before  # what was lost before a frame that nobody wanted is still lost
                continue
            if dropped:
                frame, dropped = replace(frame, dropped_before=frame.dropped_before + dropped), 0
            if options.realtime and not self.live:
                if anchor_ns is None:
                    anchor_ns = time.monotonic_ns() - position_ns
                captured_ns = anchor_ns + position_ns
                if self.stopped.wait(max(0.0, (captured_ns - time.monotonic_ns()) / 1e9)):
                    return
                frame = replace(frame, captured_ns=captured_ns)
            calibration = self.calibration_of(frame)
            yield frame if calibration is None else self._calibrated(frame, calibration)

    @property
    def behaves_live(self) -> bool:
        """Whether late frames are dropped by default."""
        return self.live or self.options.realtime


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}×{size_hw[0]}"


def modules() -> list[str]:
    """Names of the source files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def _local_path(location: str) -> str:
    """The path in a `file://` URL; anything else comes back as it is."""
    match = _FILE_URL.match(location)
    return unquote(location[match.end() :]) if match else location


def open_source(location: str | Path, options: SourceOptions | None = None, name: str = "") -> Source:
    """Open a path, URL or device; `front=rtsp://…` names it.

    Raises:
        UserError: nothing there, or nothing that can be read.
    """
    location = str(location)
    if not name and (match := _NAMED.fullmatch(location)) and not Path(location).exists():
        name, location = match["name"], match["location"]
    given_as_url = bool(_FILE_URL.match(location))
    location = _local_path(location)
    found = [(importlib.import_module(f"{__name__}.{module}"), module) for module in modules()]
    claims = sorted(((module.claim(location), file) for module, file in found), reverse=True)
    best, file = claims[0]
    if best <= 0:
        missing = ("://" not in location or given_as_url) and not Path(location).exists()
        raise UserError(
            f"{redact(location)}: " + ("no such file or folder" if missing else "not something that can be read"),
            "a video, a folder of images, a KITTI sequence, a bag, camera:0, or an rtsp:// or http(s):// address",
            "perception run VIDEO   (check the path)",
        )
    module = importlib.import_module(f"{__name__}.{file}")
    source: Source = module.open_source(location, name or default_name(location), options or SourceOptions())
    return source


def open_sources(locations: Sequence[str | Path], options: SourceOptions | None = None) -> list[Source]:
    """Open several locations. Images of one folder that are named one by one (`*.jpg`) are one source.

    Raises:
        UserError: see `open_source`.
    """
    from perception.sources import images

    named = [str(location) for location in locations]
    folders: dict[Path, list[Path]] = {}
    for location in named:
        if images.claim(location) > 1:
            folders.setdefault(Path(location).parent, []).append(Path(location))
    sources = []
    for location in named:
        folder = Path(location).parent
        together = folders.get(folder, []) if images.claim(location) > 1 else []
        if len(together) < 2:
            sources.append(open_source(location, options))
        elif together[0] == Path(location):
            sources.append(_open_images(folder, together, options or SourceOptions()))
    return sources


def _open_images(folder: Path, paths: list[Path], options: SourceOptions) -> Source:
    from perception.sources import images, kitti

    name = default_name(str(folder.resolve()))
    if (sequence := kitti.find_sequence(folder)) is not None:
        return kitti.KittiSequence(str(folder), *sequence, name, options, paths)
    return images.ImageFolder(str(folder), name, options, paths)


def calibrate_sources(sources: list[Source], calibration: SizedCamera) -> None:
    """Give a calibration to all sources that have none of their own.

    Raises:
        UserError: it cannot belong to the images of one of them.
    """
    for source in sources:
        if source.calibration is not None:
            source.note(f"its own calibration is used, not {calibration.origin}")
            continue
        calibration.at(source.size_hw, source.geometry)
        source.calibration = calibration
        if warning := wide_lens(calibration):
            source.note(warning)


def default_name(location: str) -> str:
    """A short name for files and records: the stem of the path, without anything secret."""
    if location == "-":
        return "stdin"
    text = redact(location).split("?")[0].rstrip("/")
    if "://" not in text and (topic := text.partition(":/")[2]):  # of a bag
        text = topic.replace("/", "-")
    name = re.sub(r"[^\w-]+", "-", Path(text.split("://")[-1]).stem).strip("-")
    return name[:48] or "source"
