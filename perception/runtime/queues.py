"""Queues between the threads: frames on their way to the network, and results on their way to the sinks."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Condition
from typing import Generic, TypeVar

from perception.runtime.config import WhenLate
from perception.types import Frame

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class QueuedFrame:
    """A frame on its way through the pipeline."""

    frame: Frame
    timings_ms: dict[str, float]
    """Duration of each stage so far, milliseconds."""


@dataclass
class _SourceQueue:
    """The queue of one source."""

    capacity: int
    when_late: WhenLate
    frames: deque[QueuedFrame] = field(default_factory=deque)
    dropped_since: int = 0
    """Frames dropped since the last one that was accepted (drop-newest) or taken (drop-oldest)."""
    dropped_total: int = 0
    refused: int = 0
    """Frames offered after the stop."""
    ended: bool = False
    end_reported: bool = False
    """Whether `finished_sources` has named it."""


class FrameBuffer:
    """Frames between the readers and the network, one short queue a source.

    `take` goes round the sources, so that none starves the others. `wait` holds the reader back, `drop-oldest` keeps
    the newest frames, `drop-newest` keeps the oldest. Each drop is counted in `dropped_before` of the next frame of
    that source that is taken.
    """

    def __init__(self, when_late: dict[str, WhenLate], capacity: int = 2, stay: bool = False) -> None:
        """Args:
        when_late: the rule of each source, by its name.
        capacity: frames that each queue holds.
        stay: wait for further sources when all have ended.
        """
        if capacity < 1:
            raise ValueError(f"capacity: found {capacity}, expected at least one frame")
        self._capacity, self._stay = capacity, stay
        self._queues = {name: _SourceQueue(capacity, rule) for name, rule in when_late.items()}
        self._order = deque(self._queues)
        self._changed = Condition()
        self._stopped = False

    def put(self, name: str, item: QueuedFrame) -> bool:
        """Queue a frame; returns False where the run is being stopped and no more are wanted."""
        queue = self._queues[name]
        with self._changed:
            if queue.when_late == "wait":
                self._changed.wait_for(lambda: len(queue.frames) < queue.capacity or self._stopped)
            if self._stopped:
                queue.refused += 1
                return False
            if len(queue.frames) >= queue.capacity:
                queue.dropped_total += 1
                if queue.when_late == "drop-newest":
                    # the frame is dropped, and with it its count of those dropped before it
                    queue.dropped_since += 1 + item.frame.dropped_before
                    return True
                oldest = queue.frames.popleft()
                queue.dropped_since += 1 + oldest.frame.dropped_before
            if queue.when_late == "drop-newest" and queue.dropped_since:
                item = _with_drops(item, queue.dropped_since)
                queue.dropped_since = 0
            queue.frames.append(item)
            self._changed.notify_all()
        return True

    def add(self, name: str, when_late: WhenLate) -> None:
        """Take a further source, with a name that is new."""
        with self._changed:
            self._queues[name] = _SourceQueue(self._capacity, when_late)
            self._order.append(name)

    def forget(self, name: str) -> int:
        """Drop the queue of a source that has ended; returns the frames that no result counts."""
        with self._changed:
            queue = self._queues.pop(name)
            self._order.remove(name)
            self._changed.notify_all()
            return _uncounted(queue)

    def end(self, name: str) -> None:
        """Mark a source as having no more frames."""
        with self._changed:
            self._queues[name].ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Release every thread that waits; frames still queued are not processed."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self, max_frames: int = 1, timeout_s: float | None = None) -> list[QueuedFrame] | None:
        """Take the next frame and what else is ready, at most one a source and `max_frames` in all.

        Returns:
            None when every source has ended or the run is stopped; an empty list on timeout, and where
            `finished_sources` has something to report.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._ready() or self._all_ended() or self._unreported_ends(), timeout_s
            )
            if self._stopped:
                return None
            if not self._ready():
                return None if self._all_ended() else []
            batch: list[QueuedFrame] = []
            for name in list(self._order):
                queue = self._queues[name]
                if len(batch) < max_frames and queue.frames:
                    item = queue.frames.popleft()
                    if queue.when_late == "drop-oldest" and queue.dropped_since:
                        item = _with_drops(item, queue.dropped_since)
                        queue.dropped_since = 0
                    batch.append(item)
                    self._order.remove(name)
                    self._order.append(name)  # a source that was served goes to the end
            self._changed.notify_all()
            return batch

    def finished_sources(self) -> list[str]:
        """Name the sources whose last frame has been taken while others go on; each is named once."""
        with self._changed:
            names = [] if self._all_ended() else self._unreported_ends()
            for name in names:
                self._queues[name].end_reported = True
            return names

    def dropped(self) -> dict[str, int]:
        """Frames dropped so far, by source."""
        with self._changed:
            return {name: queue.dropped_total for name, queue in self._queues.items()}

    def dropped_at_shutdown(self) -> dict[str, int]:
        """Frames that no result counts, by source: still queued, or dropped after the last one taken."""
        with self._changed:
            return {name: _uncounted(queue) for name, queue in self._queues.items()}

    def _ready(self) -> bool:
        return any(queue.frames for queue in self._queues.values())

    def _unreported_ends(self) -> list[str]:
        return [name for name, q in self._queues.items() if q.ended and not q.frames and not q.end_reported]

    def _all_ended(self) -> bool:
        return not self._stay and all(queue.ended for queue in self._queues.values())


def _uncounted(queue: _SourceQueue) -> int:
    return queue.dropped_since + queue.refused + sum(1 + item.frame.dropped_before for item in queue.frames)


def _with_drops(item: QueuedFrame, count: int) -> QueuedFrame:
    return QueuedFrame(replace(item.frame, dropped_before=item.frame.dropped_before + count), item.timings_ms)


class Channel(Generic[T]):
    """A bounded queue between two threads. Either end can close it, at once or at a time set beforehand."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._changed = Condition()
        self._closed = False
        self._deadline_s = math.inf
        self.expired: list[T] = []
        """Items still inside at the deadline."""

    def put(self, item: T, timeout_s: float | None = None) -> bool:
        """Wait for room, then add; returns False where the channel is closed or no room came up in time."""
        with self._changed:
            self._wait_for(lambda: len(self._items) < self._capacity, timeout_s)
            if self._closed or len(self._items) >= self._capacity:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def put_drop_oldest(self, item: T) -> Sequence[T]:
        """Add at once; returns the items dropped to make room."""
        with self._changed:
            if self._closed:
                return [item]
            dropped = []
            while len(self._items) >= self._capacity:
                dropped.append(self._items.popleft())
            self._items.append(item)
            self._changed.notify_all()
            return dropped

    def set_capacity(self, capacity: int) -> None:
        """Hold at most `capacity` items from now on; those inside stay."""
        with self._changed:
            self._capacity = capacity
            self._changed.notify_all()

    def close(self, discard: bool = False) -> None:
        """Accept no more items; those inside can still be taken, unless `discard`."""
        with self._changed:
            self._closed = True
            if discard:
                self._items.clear()
            self._changed.notify_all()

    def set_deadline(self, at_s: float) -> None:
        """Close at a moment of `time.monotonic()`: nobody waits any longer, and items inside move to `expired`."""
        with self._changed:
            self._deadline_s = min(self._deadline_s, at_s)
            self._changed.notify_all()

    @property
    def has_expired(self) -> bool:
        return time.monotonic() >= self._deadline_s

    def __iter__(self) -> Channel[T]:
        return self

    def __next__(self) -> T:
        """Wait for the next item; the iteration stops when the channel is closed and empty."""
        with self._changed:
            self._wait_for(lambda: bool(self._items), None)
            if not self._items:
                raise StopIteration
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def _wait_for(self, ready: Callable[[], bool], timeout_s: float | None) -> None:
        """Wait until ready, closed, timed out or past the deadline. The lock is held."""
        give_up_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not (ready() or self._closed):
            left_s = min(give_up_s, self._deadline_s) - time.monotonic()
            if left_s <= 0:
                break
            self._changed.wait(None if left_s == math.inf else left_s)
        if self.has_expired:
            self._closed = True
            self.expired += self._items
            self._items.clear()
            self._changed.notify_all()
