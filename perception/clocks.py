"""What live streams need: patience between reconnects, and one clock across all of them."""

from __future__ import annotations

import random
from collections import deque
from threading import Event

MOST_RETRY_S = 30.0


class Backoff:
    """Waits between attempts: doubling, with jitter, so that a hundred cars don't knock at the same moment."""

    def __init__(self, first_s: float = 0.5, attempts: int | None = None, seed: int | None = None) -> None:
        """`attempts` in a row before it gives up; None never does."""
        self.first_s, self.attempts = first_s, attempts
        self._random = random.Random(seed)
        self._failures = 0

    def next_s(self) -> float:
        """The next wait, seconds: between half and all of the doubled one."""
        wait_s = min(self.first_s * 2 ** min(self._failures, 20), MOST_RETRY_S)
        self._failures += 1
        return wait_s * self._random.uniform(0.5, 1.0)

    def wait(self, stopped: Event) -> bool:
        """Sleep; False where no further attempt is wanted."""
        if self.attempts is not None and self._failures >= self.attempts:
            return False
        return not stopped.wait(self.next_s())

    def reset(self) -> None:
        """It works again."""
        self._failures = 0


class StreamClock:
    """Capture times of a live stream: its own stamps for what lies between two frames, one clock across reconnects.

    `timestamp_ns` moves with the stream's presentation times, exactly. A jump that cannot be true (backwards, or
    ahead of the time that really passed) starts a new segment, placed by the time of arrival. `captured_ns` is the
    same moment on this machine's clock: the smallest delay between stamp and arrival seen lately counts as none, so
    what piles up in buffers shows as age, and the drift between two clocks does not.
    """

    WINDOW_NS = 60 * 10**9
    JUMP_NS = 2 * 10**9

    def __init__(self) -> None:
        self._offset_ns: int | None = None  # timestamp - pts, constant within a segment
        self._last_timestamp_ns: int | None = None
        self._last_arrival_ns = 0
        # smallest arrival - timestamp in the present and the last window
        self._delays: deque[tuple[int, int]] = deque()

    def restart(self) -> None:
        """The stream was opened again: its stamps begin anew."""
        self._offset_ns = None

    def stamp(self, pts_ns: int | None, arrival_ns: int) -> tuple[int, int]:
        """One frame: (timestamp_ns, captured_ns), each later than the last.

        Args:
            pts_ns: presentation time, None where the stream gives none.
            arrival_ns: `time.monotonic_ns()` when the frame came.
        """
        last = self._last_timestamp_ns
        if pts_ns is None:
            timestamp_ns = arrival_ns if last is None else last + max(1, arrival_ns - self._last_arrival_ns)
            self._offset_ns = None
        else:
            if self._offset_ns is not None and last is not None:
                step_ns = pts_ns + self._offset_ns - last
                passed_ns = arrival_ns - self._last_arrival_ns
                if step_ns <= 0 or step_ns > passed_ns + self.JUMP_NS:
                    self._offset_ns = None
            if self._offset_ns is None:
                # a new segment begins when it arrives
                start = arrival_ns if last is None else last + max(1, arrival_ns - self._last_arrival_ns)
                self._offset_ns = start - pts_ns
                self._delays.clear()
            timestamp_ns = pts_ns + self._offset_ns
        self._last_timestamp_ns, self._last_arrival_ns = timestamp_ns, arrival_ns
        return timestamp_ns, timestamp_ns + self._smallest_delay(timestamp_ns, arrival_ns)

    def _smallest_delay(self, timestamp_ns: int, arrival_ns: int) -> int:
        """Minimum of arrival - timestamp over the last window, as a monotonic queue."""
        delay = arrival_ns - timestamp_ns
        while self._delays and self._delays[-1][1] >= delay:
            self._delays.pop()
        self._delays.append((arrival_ns, delay))
        while self._delays[0][0] < arrival_ns - self.WINDOW_NS:
            self._delays.popleft()
        return self._delays[0][1]
