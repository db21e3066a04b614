"""Faults of an image or a stream: black, over-exposed, frozen, blurred, a new size, stalled.

A condition is reported when it has held for a while, and again when it is over. It is judged on a few whole rows of
pixels, which takes a fraction of a millisecond a frame.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from perception.arrays import U8
from perception.types import Frame, HealthEvent, HealthKind


@dataclass(frozen=True)
class HealthConfig:
    """When an image counts as faulty. Grey levels are 0..255."""

    interval_s: float = 0.15
    """Images within this time of the last one judged are not judged, seconds."""
    hold_s: float = 0.6
    """A condition is reported after it has held this long, seconds of stream time."""
    frozen_hold_s: float = 0.4
    """The same for a frozen image: an encoder takes half a second to settle on the same one."""
    black_level: float = 20.0
    """Black: 99 % of the pixels are darker than this."""
    overexposed_level: float = 250.0
    overexposed_share: float = 0.6
    """Over-exposed: more than this share of the pixels is as bright as the level above."""
    blur_ratio: float = 0.25
    """Blurred: sharpness below this share of the source's usual sharpness."""
    usual_s: float = 20.0
    """Time over which the usual sharpness is learned, seconds."""
    still_share: float = 0.25
    """Frozen: fewer than this share of the pixels differ at all from the last image judged. A sensor's noise changes
    far more pixels. An encoder that is given the same image repeatedly keeps refining it, and changes fewer."""
    moved_share: float = 0.002
    """Frozen also requires fewer than this share to differ by more than `moved_level`: otherwise something moves."""
    moved_level: int = 4


class HealthMonitor:
    """Watches the images of one source."""

    def __init__(self, source: str, config: HealthConfig | None = None) -> None:
        self.source, self.config = source, config or HealthConfig()
        self._since: dict[HealthKind, int] = {}
        self._active: set[HealthKind] = set()
        self._was_still = False
        self._last: U8 | None = None
        self._last_ns = 0
        self._size_hw: tuple[int, int] | None = None
        self._usual_sharpness = 0.0

    def update(self, frame: Frame) -> list[HealthEvent]:
        """Judge one image; returns the events that it causes, mostly none."""
        events = []
        if self._size_hw not in (None, frame.size_hw):
            detail = f"{_size(self._size_hw)} → {_size(frame.size_hw)}"
            events.append(HealthEvent("size-changed", frame.source, True, frame.timestamp_ns, detail))
            self._last = None
        self._size_hw = frame.size_hw
        if self._last is not None and 0 <= frame.timestamp_ns - self._last_ns < self.config.interval_s * 1e9:
            return events

        rows = _rows(frame.image_bgr)
        for kind, holds, detail in self._judge(rows, frame.timestamp_ns):
            events += self._report(kind, holds, detail, frame)
        self._last, self._last_ns = rows, frame.timestamp_ns
        return events

    def _judge(self, rows: U8, timestamp_ns: int) -> list[tuple[HealthKind, bool, str]]:
        config = self.config
        dark = float(np.count_nonzero(rows < config.black_level) / rows.size)
        bright = float(np.count_nonzero(rows >= config.overexposed_level) / rows.size)
        still = False
        if self._last is not None and self._last.shape == rows.shape:
            change = cv2.absdiff(rows, self._last)
            moved = np.count_nonzero(change > config.moved_level) / rows.size
            still = bool(moved < config.moved_share and np.count_nonzero(change) < rows.size * config.still_share)
        # a key frame encodes the same image slightly differently, so one that differs does not end it
        frozen, self._was_still = still or self._was_still, still
        black, overexposed = dark > 0.99, bright > config.overexposed_share

        # root mean square of the second derivative along the rows; its mean is close to 0
        sharpness = cv2.norm(cv2.Sobel(rows, cv2.CV_16S, 2, 0, ksize=1), cv2.NORM_L2) / math.sqrt(rows.size)
        usable = not black and not overexposed
        blurred = usable and sharpness < config.blur_ratio * self._usual_sharpness
        if usable and not still:
            # rises at once and falls slowly; a blurred image does not count
            dt_s = max(0.0, (timestamp_ns - self._last_ns) / 1e9)
            if sharpness > self._usual_sharpness:
                self._usual_sharpness += 0.2 * (sharpness - self._usual_sharpness)
            elif not blurred:
                self._usual_sharpness += min(1.0, dt_s / config.usual_s) * (sharpness - self._usual_sharpness)
        return [
            ("black", black, f"{dark:.0%} of the image is dark"),
            ("overexposed", overexposed, f"{bright:.0%} of the image is white"),
            ("frozen", frozen and usable, "the same image repeatedly"),
            ("blurred", blurred, f"sharpness {sharpness:.1f}, usually {self._usual_sharpness:.1f}"),
        ]

    def _report(self, kind: HealthKind, holds: bool, detail: str, frame: Frame) -> list[HealthEvent]:
        """Report a condition when it has held long enough, and its end at once."""
        if not holds:
            self._since.pop(kind, None)
            if kind in self._active:
                self._active.discard(kind)
                return [HealthEvent(kind, frame.source, False, frame.timestamp_ns, "over")]
            return []
        since = self._since.setdefault(kind, frame.timestamp_ns)
        hold_s = self.config.frozen_hold_s if kind == "frozen" else self.config.hold_s
        if kind not in self._active and frame.timestamp_ns - since >= hold_s * 1e9:
            self._active.add(kind)
            return [HealthEvent(kind, frame.source, True, frame.timestamp_ns, detail)]
        return []


class StallMonitor:
    """Watches whether live sources deliver frames. Any thread may call it."""

    def __init__(self, names: Sequence[str], stalled_s: float) -> None:
        """Args:
        names: of the sources to watch.
        stalled_s: a source without a frame for this long is stalled, seconds.
        """
        self._stalled_s = stalled_s
        self._last_frame_s: dict[str, float | None] = dict.fromkeys(names, time.monotonic())
        self._stalled: set[str] = set()

    def saw_frame(self, name: str) -> None:
        """Note a frame; a source that is not watched is ignored."""
        if name in self._last_frame_s:
            self._last_frame_s[name] = time.monotonic()

    def watch(self, name: str) -> None:
        """Watch a further source."""
        self._last_frame_s[name] = time.monotonic()

    def forget(self, name: str) -> None:
        """Forget a source."""
        self._last_frame_s.pop(name, None)
        self._stalled.discard(name)

    def source_ended(self, name: str) -> None:
        """Stop watching a source."""
        if name in self._last_frame_s:
            self._last_frame_s[name] = None

    def update(self) -> list[HealthEvent]:
        """Judge every source now; returns the stalls that begin or end."""
        now_s, events = time.monotonic(), []
        for name, last_s in list(self._last_frame_s.items()):  # sources come and go
            stalled = last_s is not None and now_s - last_s > self._stalled_s
            if stalled == (name in self._stalled):
                continue
            if last_s is None:
                detail = "the source has ended"
            else:
                detail = f"no frame for {now_s - last_s:.1f} s" if stalled else "frames again"
            (self._stalled.add if stalled else self._stalled.discard)(name)
            events.append(HealthEvent("stalled", name, stalled, None, detail))
        return events


def _rows(image_bgr: U8) -> U8:
    """The green channel of about 24 whole rows. Whole rows keep neighbouring pixels, which sharpness needs."""
    step = max(1, image_bgr.shape[0] // 24)
    return np.ascontiguousarray(image_bgr[::step, :, 1])


def _size(size_hw: tuple[int, int] | None) -> str:
    return f"{size_hw[1]}x{size_hw[0]}" if size_hw else "?"
