"""A camera on this machine: `camera:0`, `/dev/video0`. Opened again when it is unplugged and comes back."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from perception.clocks import Backoff
from perception.errors import UserError
from perception.source_options import SourceOptions
from perception.sources import Source
from perception.types import Frame

_DEVICE = re.compile(r"(?:camera:(?P<index>\d{1,3}))|(?P<path>/dev/video\d{1,3})")


def claim(location: str) -> float:
    """3 for `camera:N` and `/dev/videoN`, and for `camera:` with something else, to say what is wrong with it."""
    meant = location.startswith("camera:") and not Path(location).exists()
    return 3.0 if meant or _DEVICE.fullmatch(location) else 0.0


def open_source(location: str, name: str, options: SourceOptions) -> Source:
    return CameraDevice(location, name, options)


class CameraDevice(Source):
    """A device read through OpenCV. The time of capture is when the image was grabbed: drivers tell no better."""

    kind = "camera"
    live = True

    def __init__(self, location: str, name: str, options: SourceOptions) -> None:
        super().__init__(location, name, options)
        match = _DEVICE.fullmatch(location)
        if match is None:
            raise UserError(f"{location}: not the number of a camera", "a number from 0", "perception run camera:0")
        self._device: int | str = int(match["index"]) if match["index"] else location
        self._capture = self._open()
        if self._capture is None:
            raise UserError(
                f"{location}: no camera answers there",
                "a camera that no other program is using",
                "ls /dev/video*   (and: are you in the group 'video'?)",
            )
        import cv2

        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.size_hw = (height, width) if width and height else None
        self.rate_hz = self._capture.get(cv2.CAP_PROP_FPS) or None

    def _open(self):
        import cv2

        capture = cv2.VideoCapture(self._device)
        if not capture.isOpened():
            capture.release()
            return None
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest image, not a queue of old ones
        return capture

    def read(self) -> Iterator[Frame]:
        backoff = Backoff(self.options.retry_s, self.options.reconnects)
        frame_id, lost = 0, False
        while not self.stopped.is_set():
            if self._capture is None:
                if not backoff.wait(self.stopped):
                    return
                self._capture = self._open()
                self.reconnects += self._capture is not None
                continue
            grabbed = self._capture.grab()
            timestamp_ns = time.monotonic_ns()
            image = self._capture.retrieve()[1] if grabbed else None
            if image is None:
                if not lost:
                    self.emit("lost", True, f"{self.location} gives no images; trying again")
                lost = True
                self.close()
                continue
            if lost:
                self.emit("lost", False, f"{self.location} is back")
            lost = False
            backoff.reset()
            self.decode_ms = (time.monotonic_ns() - timestamp_ns) / 1e6
            frame = Frame(image, timestamp_ns, frame_id, self.name)
            yield replace(frame, captured_ns=timestamp_ns)
            frame_id += 1

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture = None
