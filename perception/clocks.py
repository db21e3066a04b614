"""What streams need: patience between reconnects, and one clock across everything that stamps can do."""

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
    """Capture times of one source: its own stamps decide the time between two frames.

    The one rule, for live and stored sources: a stamp that cannot be true begins a new segment of the same clock.
    A segment begins when its first frame arrives (live), or one frame step after the last frame (stored). A stamp
    cannot be true where it goes backwards, or ahead of the time that has passed by more than `furthest_ns`. Frames
    without a stamp follow by arrival, or by the frame step. Two stamps that changed places begin no segment.

    `captured_ns` is the moment of capture on this machine's clock, for live sources. The smallest recent delay
    between stamp and arrival counts as none: what piles up in buffers shows as age, drift between clocks does not.
    """

    WINDOW_NS = 60 * 10**9
    JUMP_NS = 2 * 10**9

    def __init__(
        self,
        step_ns: int | None = None,
        begin_ns: int | None = None,
        furthest_ns: int = JUMP_NS,
        last_ns: int | None = None,
    ) -> None:
        """
        Args:
            step_ns: time between two frames of a stored source; None for a live one, where arrival counts.
            begin_ns: the stamp at which a stored source's own time is 0, None where it is unknown.
            furthest_ns: how far ahead of the time that passed a stamp may go.
            last_ns: time of the frame before the first, where a source is read from the middle.
        """
        self._step_ns, self._furthest_ns = step_ns, furthest_ns
        self.offset_ns: int | None = None if begin_ns is None else -begin_ns
        """Time minus stamp; constant within a segment."""
        self.last_ns = last_ns
        """Time of the latest frame."""
        self.segments = 0
        """New segments that stamps made necessary."""
        self.stood_still = 0
        """Stamps of a stored source that did not move on."""
        self.out_of_order = 0
        """Stamps of a stored source that had changed places with the one before."""
        self._last_pts_ns: int | None = None
        self._before_back_ns: int | None = None
        self._last_arrival_ns = 0
        # smallest arrival - timestamp in the present and the last window
        self._delays: deque[tuple[int, int]] = deque()

    def restart(self) -> None:
        """The stream was opened again: its stamps begin anew."""
        self.offset_ns = None

    def stamp(self, pts_ns: int | None, arrival_ns: int) -> tuple[int, int]:
        """One frame of a live source: (timestamp_ns, captured_ns), each later than the last.

        Args:
            pts_ns: presentation time, None where the stream gives none.
            arrival_ns: `time.monotonic_ns()` when the frame came.
        """
        passed_ns = max(1, arrival_ns - self._last_arrival_ns)
        timestamp_ns = self._place(pts_ns, passed_ns, arrival_ns)
        self._last_arrival_ns = arrival_ns
        return timestamp_ns, timestamp_ns + self._smallest_delay(timestamp_ns, arrival_ns)

    def next_ns(self, pts_ns: int | None) -> int:
        """Time of the next frame of a stored source, later than the last."""
        assert self._step_ns is not None
        return self._place(pts_ns, self._step_ns, 0)

    def _place(self, pts_ns: int | None, passed_ns: int, first_ns: int) -> int:
        """The frame's time.

        Args:
            pts_ns: its stamp.
            passed_ns: time since the last frame by arrival or by the frame step.
            first_ns: the time of the first frame of all.
        """
        last = self.last_ns
        following = first_ns if last is None else last + passed_ns
        if pts_ns is None:
            timestamp_ns = following
            if self._step_ns is None:
                self.offset_ns = None
        elif self.offset_ns is None:
            timestamp_ns = self._begin_segment(pts_ns, following)
        else:
            timestamp_ns = self._by_stamp(pts_ns, self.offset_ns, following)
        self.last_ns, self._last_pts_ns = timestamp_ns, pts_ns
        return timestamp_ns

    def _by_stamp(self, pts_ns: int, offset_ns: int, following_ns: int) -> int:
        last, own_ns, step_ns = self.last_ns, pts_ns + offset_ns, self._step_ns
        moved_ns = None if self._last_pts_ns is None else pts_ns - self._last_pts_ns
        before_ns, self._before_back_ns = self._before_back_ns, None
        if before_ns is not None and step_ns and moved_ns and last is not None and 2 * moved_ns >= 3 * step_ns:
            # the frame before went back because it had changed places with this one: no new segment
            self.segments -= 1
            self.out_of_order += 1
            self.offset_ns = before_ns
            return max(pts_ns + before_ns, last + max(1, step_ns // 2))
        if own_ns - following_ns > self._furthest_ns:
            self.segments += 1
            return self._begin_segment(pts_ns, following_ns)
        if last is None:
            return max(own_ns, following_ns)
        if own_ns > last and (moved_ns is None or moved_ns > 0):
            return own_ns
        if step_ns is not None and moved_ns is not None and moved_ns >= 0:
            if moved_ns > 0:  # stamps move again after some that did not: catch up with them
                return last + max(1, step_ns // 2)
            self.stood_still += 1
            return following_ns
        self.segments += 1
        if step_ns and moved_ns is not None and moved_ns > -2 * step_ns:
            self._before_back_ns = offset_ns
        return self._begin_segment(pts_ns, following_ns)

    def _begin_segment(self, pts_ns: int, following_ns: int) -> int:
        self.offset_ns = following_ns - pts_ns
        self._delays.clear()
        return following_ns

    def _smallest_delay(self, timestamp_ns: int, arrival_ns: int) -> int:
        """Minimum of arrival - timestamp over the last window, as a monotonic queue."""
        delay = arrival_ns - timestamp_ns
        while self._delays and self._delays[-1][1] >= delay:
            self._delays.pop()
        self._delays.append((arrival_ns, delay))
        while self._delays[0][0] < arrival_ns - self.WINDOW_NS:
            self._delays.popleft()
        return self._delays[0][1]
