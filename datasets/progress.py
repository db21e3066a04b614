"""How far a long job is and how long it still takes: one line that rewrites itself, or a line now and then."""

from __future__ import annotations

import sys
import time
from typing import TextIO


def duration(seconds: float) -> str:
    """75 → '1:15', 4000 → '1:06:40'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def byte_count(count: float) -> str:
    """1500000 → '1.5 MB', in powers of a thousand as disks and archives are sold."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


class Progress:
    """Progress of one job on stderr.

    Args:
        label: what is being done.
        total: units in all.
        in_bytes: units are bytes, and speed is shown.
        done: units that were there before; they do not count for the speed.
        stream: where to write; a terminal is rewritten in place, anything else gets a line every ten seconds.
    """

    def __init__(
        self, label: str, total: int, *, in_bytes: bool = False, done: int = 0, stream: TextIO | None = None
    ) -> None:
        self.label, self.total, self.in_bytes = label, total, in_bytes
        self.stream = stream or sys.stderr
        self._first, self._start = done, time.monotonic()
        self._terminal = self.stream.isatty()
        self._next = self._start + (0.0 if self._terminal else 10.0)

    def update(self, done: int) -> None:
        """Say that `done` units are finished now."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (0.2 if self._terminal else 10.0)
        print(self._line(done, now), end="\r" if self._terminal else "\n", file=self.stream, flush=True)

    def close(self) -> None:
        """Wipe the line, so that what follows starts clean."""
        if self._terminal:
            print(" " * 100, end="\r", file=self.stream, flush=True)

    def _line(self, done: int, now: float) -> str:
        speed = (done - self._first) / max(now - self._start, 1e-6)
        share = done / self.total if self.total else 1.0
        left = duration((self.total - done) / speed) + " left" if speed > 0 else "…"
        if self.in_bytes:
            counts = f"{byte_count(done)} of {byte_count(self.total)}, {byte_count(speed)}/s"
        else:
            counts = f"{done} of {self.total}"
        return f"{self.label}: {share:4.0%}  {counts}, {left}"
