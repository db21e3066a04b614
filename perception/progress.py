"""Show on stderr how far a long job is. `rich` draws on a terminal; anything else gets a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

TERMINAL_S = 0.2
"""Time between two redraws on a terminal."""
LINE_S = 10.0
"""Time between two lines elsewhere: a log is read, not watched."""


def duration(seconds: float) -> str:
    """Format seconds: 75 → '1:15', 4000 → '1:06:40'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def byte_count(count: float) -> str:
    """Format a number of bytes in powers of a thousand: 1500000 → '1.5 MB'."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


class Progress:
    """Progress of one job. It never raises: a closed or full stderr ends the display, not the job.

    Args:
        label: what is being done.
        total: units in all; 0 where nobody knows.
        in_bytes: units are bytes.
        done: units that were done before; they do not count for the speed.
        stream: where to write; by default stderr.
        quiet: show nothing.
    """

    def __init__(
        self,
        label: str,
        total: int = 0,
        *,
        in_bytes: bool = False,
        done: int = 0,
        stream: TextIO | None = None,
        quiet: bool = False,
    ) -> None:
        self.label, self.total, self.in_bytes = label, total, in_bytes
        self._stream = stream or sys.stderr
        self._first, self._start = done, time.monotonic()
        self._off = quiet or self._stream is None
        self._terminal = False
        self._live: Any = None
        with self._or_off():
            self._terminal = self._stream.isatty()
        self._next = self._start + (0.0 if self._terminal else LINE_S)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Report that `done` units are finished; draws at most a few times a second.

        Args:
            done: units finished so far.
            total: units in all, where that has become known only now.
            note: what else to show.
        """
        now = time.monotonic()
        if total is not None:
            self.total = total
        if self._off or now < self._next:
            return
        self._next = now + (TERMINAL_S if self._terminal else LINE_S)
        with self._or_off():
            if self._terminal:
                self._draw(done, self._counts(done, now) + note)
            else:
                share = f"{min(1.0, done / self.total):4.0%}  " if self.total else ""
                print(f"{self.label}: {share}{self._counts(done, now)}{note}", file=self._stream, flush=True)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        with self._or_off(ends=False):
            if self._stream is None:  # closed; `print` would take stdout instead
                return
            if self._live is not None:
                self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Remove the bar, so that what follows starts on a clean line. May be called twice."""
        live, self._live, self._off = self._live, None, True
        if live is not None:
            with contextlib.suppress(OSError, ValueError):
                live.stop()

    def _counts(self, done: int, now: float) -> str:
        speed = (done - self._first) / max(now - self._start, 1e-6)
        shown: Callable[[float], str] = byte_count if self.in_bytes else "{:.0f}".format
        of = f" of {shown(self.total)}" if self.total else ""
        rate = f"{byte_count(speed)}/s" if self.in_bytes else f"{speed:.1f}/s"
        left = f", {duration(max(0.0, self.total - done) / speed)} left" if self.total and speed > 0 else ""
        return f"{shown(done)}{of}, {rate}{left}"

    def _draw(self, done: int, text: str) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            self._live = Bar(
                TextColumn("{task.description}", markup=False),
                *([BarColumn()] if self.total else []),
                TextColumn("{task.fields[text]}", markup=False),
                console=Console(file=self._stream),
                transient=True,
                auto_refresh=False,  # no thread of its own: a run may end by a signal
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.add_task(self.label, total=self.total or None, text="")
            self._live.start()
        self._live.update(self._live.task_ids[0], completed=done, total=self.total or None, text=text, refresh=True)

    @contextlib.contextmanager
    def _or_off(self, ends: bool = True) -> Any:
        """Ignore a stream that is closed or full, and from then on show nothing."""
        try:
            yield
        except (OSError, ValueError, AttributeError):
            self._off = self._off or ends
            if ends:
                self._live = None
