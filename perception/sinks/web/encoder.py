"""The frames of the page: drawn and encoded once for all viewers, and only while somebody looks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from threading import Condition, Thread

import cv2

from perception.errors import UserError
from perception.model import ModelSpec
from perception.overlay import Overlay, shrunk
from perception.types import Result

log = logging.getLogger("perception.sinks.web")

MOST_RATE_HZ = 15.0
"""Pictures a second of one source: enough to watch, and kind to the processor."""
LONGEST_EDGE = 1280
JPEG_QUALITY = 80


@dataclass(frozen=True)
class EncodedFrame:
    """One JPEG, with the number of the result that it shows."""

    source: str
    number: int
    jpeg: bytes


class FrameEncoder:
    """A thread that turns the newest result of each wanted source into a JPEG. What comes too fast is passed over."""

    def __init__(
        self, spec: ModelSpec, deliver: Callable[[EncodedFrame], None], most_rate_hz: float = MOST_RATE_HZ
    ) -> None:
        """`deliver` is called from this thread with every new frame."""
        self.spec, self.deliver, self._pause_s = spec, deliver, 1 / most_rate_hz
        self.error: Exception | None = None
        """What ended the thread before its time."""
        self.made = 0
        self._newest: dict[str, tuple[int, Result]] = {}
        self._frames: dict[str, EncodedFrame] = {}
        self._due_s: dict[str, float] = {}
        self._overlays: dict[str, Overlay] = {}
        self._wanted: frozenset[str] = frozenset()
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._work, name="web-encoder", daemon=True)
        self._thread.start()

    def offer(self, result: Result) -> None:
        """A new result; takes microseconds."""
        name = result.frame.source
        with self._changed:
            number = self._newest[name][0] + 1 if name in self._newest else 1
            self._newest[name] = (number, result)
            if name in self._wanted:
                self._changed.notify()

    def keep(self, names: Collection[str]) -> None:
        """Forget all sources but these."""
        with self._changed:
            for held in (self._newest, self._frames, self._due_s, self._overlays):
                for name in [name for name in held if name not in names]:
                    held.pop(name)  # type: ignore[attr-defined]

    def want(self, names: frozenset[str]) -> None:
        """The sources of which some viewer is ready to take a frame."""
        with self._changed:
            if names != self._wanted:
                self._wanted = names
                self._changed.notify()

    def current(self, name: str) -> EncodedFrame | None:
        """The frame of the newest result, where it has been made already."""
        with self._changed:
            frame = self._frames.get(name)
            return frame if frame and frame.number == self._newest[name][0] else None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(0.5)

    def _work(self) -> None:
        try:
            while (job := self._next()) is not None:
                number, result = job
                frame = EncodedFrame(result.frame.source, number, self._draw(result))
                self.made += 1
                with self._changed:
                    self._frames[frame.source] = frame
                self.deliver(frame)
        except Exception as error:
            self.error = error

    def _next(self) -> tuple[int, Result] | None:
        """Wait for a result that someone wants to see and whose time has come; None at the end."""
        with self._changed:
            while not self._closed:
                now_s = time.monotonic()
                waits = {name: self._due_s.get(name, 0.0) - now_s for name in self._wanted if self._is_new(name)}
                ready = [name for name, wait_s in waits.items() if wait_s <= 0]
                if ready:
                    name = min(ready, key=lambda n: self._due_s.get(n, 0.0))  # whoever waits longest
                    self._due_s[name] = now_s + self._pause_s
                    return self._newest[name]
                self._changed.wait(min(waits.values()) if waits else None)
            return None

    def _is_new(self, name: str) -> bool:
        if name not in self._newest:
            return False
        frame = self._frames.get(name)
        return frame is None or frame.number < self._newest[name][0]

    def _draw(self, result: Result) -> bytes:
        overlay = self._overlays.setdefault(result.frame.source, Overlay(self.spec))
        image = overlay.draw(shrunk(result, LONGEST_EDGE))
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not done:
            raise UserError(f"frame {result.frame.frame_id}: cannot be encoded as JPEG")
        return data.tobytes()
