"""What is wrong with a picture or a stream: black, over-exposed, frozen, out of focus, a new size.

Every condition has to hold for a while before it is reported, and is reported twice: when it begins and when it is
over. Judged on a few whole rows of pixels, a fraction of a millisecond a frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from perception.types import U8, Frame, HealthEvent, HealthKind


@dataclass(frozen=True)
class HealthConfig:
    """When a picture counts as bad. Grey levels are 0..255."""

    look_s: float = 0.15
    """Pictures that follow the last judged one within this time are not judged, seconds."""
    hold_s: float = 0.6
    """A condition is reported after it has held this long, seconds of stream time."""
    frozen_hold_s: float = 0.4
    """The same for a frozen picture: an encoder takes half a second until it draws the same one twice."""
    black_level: float = 20.0
    """Black: 99 % of the pixels are darker than this."""
    overexposed_level: float = 250.0
    overexposed_share: float = 0.6
    """Over-exposed: this share of the pixels is brighter than the level above."""
    blur_ratio: float = 0.25
    """Out of focus: sharpness below this share of the source's own usual sharpness."""
    usual_s: float = 20.0
    """Time over which the usual sharpness is learned, seconds."""
    still_share: float = 0.25
    """Frozen: fewer than this share of the pixels differ at all from the last picture judged. A sensor's noise is far
    above; an encoder that is given the same picture again and again goes on refining it, and stays below."""
    moved_share: float = 0.002
    """… and fewer than this share by more than `moved_level`: else something moves in a picture that stands."""
    moved_level: int = 4


class HealthMonitor:
    """Watches the pictures of one source."""

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
        """Judge one picture; the events that it causes, mostly none."""
        events = []
        if self._size_hw not in (None, frame.size_hw):
            detail = f"{_size(self._size_hw)} → {_size(frame.size_hw)}"
            events.append(HealthEvent("size-changed", frame.source, True, frame.timestamp_ns, detail))
            self._last = None
        self._size_hw = frame.size_hw
        if self._last is not None and 0 <= frame.timestamp_ns - self._last_ns < self.config.look_s * 1e9:
            return events

        rows = _rows(frame.image_bgr)
        for kind, holds, detail in self._judge(rows, frame.timestamp_ns):
            events += self._settle(kind, holds, detail, frame)
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
        frozen, self._was_still = still or self._was_still, still  # a key frame draws the same picture a little anew
        black, overexposed = dark > 0.99, bright > config.overexposed_share

        # root mean square of the second derivative along the rows; its mean is as good as nothing
        sharpness = cv2.norm(cv2.Sobel(rows, cv2.CV_16S, 2, 0, ksize=1), cv2.NORM_L2) / math.sqrt(rows.size)
        usable = not black and not overexposed
        blurred = usable and sharpness < config.blur_ratio * self._usual_sharpness
        if usable and not still:
            # rises at once, forgets slowly, and a blurred picture teaches nothing
            dt_s = max(0.0, (timestamp_ns - self._last_ns) / 1e9)
            if sharpness > self._usual_sharpness:
                self._usual_sharpness += 0.2 * (sharpness - self._usual_sharpness)
            elif not blurred:
                self._usual_sharpness += min(1.0, dt_s / config.usual_s) * (sharpness - self._usual_sharpness)
        return [
            ("black", black, f"{dark:.0%} of the picture is dark"),
            ("overexposed", overexposed, f"{bright:.0%} of the picture is white"),
            ("frozen", frozen and usable, "the same picture again and again"),
            ("blurred", blurred, f"sharpness {sharpness:.1f}, usually {self._usual_sharpness:.1f}"),
        ]

    def _settle(self, kind: HealthKind, holds: bool, detail: str, frame: Frame) -> list[HealthEvent]:
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


def _rows(image_bgr: U8) -> U8:
    """The green of about 24 whole rows: neighbours across stay neighbours, so that sharpness can be told."""
    step = max(1, image_bgr.shape[0] // 24)
    return np.ascontiguousarray(image_bgr[::step, :, 1])


def _size(size_hw: tuple[int, int] | None) -> str:
    return f"{size_hw[1]}x{size_hw[0]}" if size_hw else "?"
