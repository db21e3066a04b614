"""Video of the seconds before and after an event."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from perception.arrays import U8
from perception.sinks.video import H264Writer
from perception.types import Frame

MOST_BYTES = 256 << 20
"""Encoded images of one source that are kept."""
_QUALITY = 90


@dataclass
class _Clip:
    path: Path
    until_ns: int
    writer: H264Writer


class ClipRecorder:
    """Clips of one source. Events that come while a clip runs prolong it."""

    def __init__(self, folder: Path, source: str, rate_hz: float, before_s: float, after_s: float) -> None:
        self._folder, self._source, self._rate_hz = folder, source, rate_hz
        self._before_ns, self._after_ns = round(before_s * 1e9), round(after_s * 1e9)
        self._kept: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._clip: _Clip | None = None

    def add(self, frame: Frame) -> None:
        """Keep one image, and write it where a clip is running."""
        if self._clip is not None:
            if frame.timestamp_ns > self._clip.until_ns:
                self.close()
            else:
                self._clip.writer.write(frame.image_bgr, frame.timestamp_ns)
        done, data = cv2.imencode(".jpg", frame.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if done:
            self._kept.append((frame.timestamp_ns, data.tobytes()))
            self._bytes += len(self._kept[-1][1])
        while self._kept and (self._kept[0][0] < frame.timestamp_ns - self._before_ns or self._bytes > MOST_BYTES):
            self._bytes -= len(self._kept.popleft()[1])

    def start(self, name: str, timestamp_ns: int) -> tuple[str, bool]:
        """Record around this moment; returns the name of the file, and whether it is a new one."""
        until_ns = timestamp_ns + self._after_ns
        if self._clip is not None:
            self._clip.until_ns = max(self._clip.until_ns, until_ns)
            return self._clip.path.name, False
        safe = re.sub(r"[^\w-]+", "-", name).strip("-")[:40] or "event"
        path = self._folder / f"{self._source}-{timestamp_ns // 10**6:010d}-{safe}.mp4"
        self._folder.mkdir(parents=True, exist_ok=True)
        writer = H264Writer(path, self._rate_hz)
        for at_ns, data in self._kept:
            image: U8 = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)
            writer.write(image, at_ns)
        self._clip = _Clip(path, until_ns, writer)
        return path.name, True

    def close(self) -> None:
        """End the clip that is running."""
        clip, self._clip = self._clip, None
        if clip is not None:
            clip.writer.close()
