"""Where frames wait for the network: one short queue a source, one rule for what is late, every drop counted."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Condition
from typing import Generic, Literal, TypeVar

from perception.types import Frame

WhenLate = Literal["wait", "drop-oldest", "drop-newest"]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Waiting:
    """A frame on its way to the network, and what it has cost so far."""

    frame: Frame
    timings_ms: dict[str, float]


@dataclass
class _Lane:
    """The queue of one source."""

    capacity: int
    when_late: WhenLate
    waiting: deque[Waiting] = field(default_factory=deque)
    dropped_since: int = 0
    """Frames dropped since the last one that was accepted (drop-newest) or taken (drop-oldest)."""
    dropped_total: int = 0
    refused: int = 0
    """Frames that came after the stop."""
    ended: bool = False
    told: bool = False
    """Whether `drained` has named it."""


class FrameBuffer:
    """Between the readers and the network. `take` goes round the sources, so that none starves the others.

    Rules: `wait` holds the reader back, `drop-oldest` keeps the newest frames, `drop-newest` keeps the oldest.
    Each drop is counted in `dropped_before` of the next frame of that source that comes out.
    """

    def __init__(self, when_late: dict[str, WhenLate], capacity: int = 2) -> None:
        """One lane for each source name; `capacity` frames fit in each."""
        if capacity < 1:
            raise ValueError(f"capacity: found {capacity}, expected at least one frame")
        self._lanes = {name: _Lane(capacity, rule) for name, rule in when_late.items()}
        self._order = deque(self._lanes)
        self._changed = Condition()
        self._stopped = False

    def put(self, name: str, item: Waiting) -> bool:
        """Hand over a frame; False where the run is being stopped and no more are wanted."""
        lane = self._lanes[name]
        with self._changed:
            if lane.when_late == "wait":
                self._changed.wait_for(lambda: len(lane.waiting) < lane.capacity or self._stopped)
            if self._stopped:
                lane.refused += 1
                return False
            if len(lane.waiting) >= lane.capacity:
                lane.dropped_total += 1
                if lane.when_late == "drop-newest":
                    # the frame is lost, and so is what was lost on the way to it
                    lane.dropped_since += 1 + item.frame.dropped_before
                    return True
                oldest = lane.waiting.popleft()
                lane.dropped_since += 1 + oldest.frame.dropped_before
            if lane.when_late == "drop-newest" and lane.dropped_since:
                item = _with_drops(item, lane.dropped_since)
                lane.dropped_since = 0
            lane.waiting.append(item)
            self._changed.notify_all()
        return True

    def end(self, name: str) -> None:
        """This source has no more frames."""
        with self._changed:
            self._lanes[name].ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Let go of everyone who waits; frames that still wait are not processed."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self, most: int = 1, timeout_s: float | None = None) -> list[Waiting] | None:
        """The next frame, and what else is ready, at most one a source and `most` in all.

        Returns:
            None when every source has ended or the run is stopped; an empty list on timeout, and where `drained`
            has something to tell.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._ready() or self._all_ended() or self._drained(), timeout_s
            )
            if self._stopped:
                return None
            if not self._ready():
                return None if self._all_ended() else []
            batch: list[Waiting] = []
            for name in list(self._order):
                lane = self._lanes[name]
                if len(batch) < most and lane.waiting:
                    item = lane.waiting.popleft()
                    if lane.when_late == "drop-oldest" and lane.dropped_since:
                        item = _with_drops(item, lane.dropped_since)
                        lane.dropped_since = 0
                    batch.append(item)
                    self._order.remove(name)
                    self._order.append(name)  # whoever was served goes to the end
            self._changed.notify_all()
            return batch

    def drained(self) -> list[str]:
        """Sources whose last frame has been taken while others go on; each is named once."""
        with self._changed:
            names = [] if self._all_ended() else self._drained()
            for name in names:
                self._lanes[name].told = True
            return names

    def dropped(self) -> dict[str, int]:
        """Frames dropped so far, by source."""
        with self._changed:
            return {name: lane.dropped_total for name, lane in self._lanes.items()}

    def left_behind(self) -> dict[str, int]:
        """Frames that no result will tell of, by source: still waiting, or dropped after the last one taken."""
        with self._changed:
            return {
                name: lane.dropped_since + lane.refused + sum(1 + i.frame.dropped_before for i in lane.waiting)
                for name, lane in self._lanes.items()
            }

    def _ready(self) -> bool:
        return any(lane.waiting for lane in self._lanes.values())

    def _drained(self) -> list[str]:
        return [name for name, lane in self._lanes.items() if lane.ended and not lane.waiting and not lane.told]

    def _all_ended(self) -> bool:
        return all(lane.ended for lane in self._lanes.values())


def _with_drops(item: Waiting, count: int) -> Waiting:
    return Waiting(replace(item.frame, dropped_before=item.frame.dropped_before + count), item.timings_ms)


class Channel(Generic[T]):
    """A bounded queue between two threads that either end can close, at once or at a moment set beforehand."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._changed = Condition()
        self._closed = False
        self._expires_s = math.inf
        self.expired: list[T] = []
        """What was inside when its time was over."""

    def put(self, item: T, timeout_s: float | None = None) -> bool:
        """Wait for room, then add; False where the channel is closed or no room came up in time."""
        with self._changed:
            self._wait_for(lambda: len(self._items) < self._capacity, timeout_s)
            if self._closed or len(self._items) >= self._capacity:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def put_newest(self, item: T) -> Sequence[T]:
        """Add at once; what had to make room for it is returned."""
        with self._changed:
            if self._closed:
                return [item]
            pushed_out = []
            while len(self._items) >= self._capacity:
                pushed_out.append(self._items.popleft())
            self._items.append(item)
            self._changed.notify_all()
            return pushed_out

    def limit(self, capacity: int) -> None:
        """Hold at most so many from now on; what is inside stays."""
        with self._changed:
            self._capacity = capacity
            self._changed.notify_all()

    def close(self, discard: bool = False) -> None:
        """No more is put; what is inside can still be taken, unless `discard`."""
        with self._changed:
            self._closed = True
            if discard:
                self._items.clear()
            self._changed.notify_all()

    def expire(self, at_s: float) -> None:
        """From this moment (`time.monotonic()`) on it is closed, nobody waits; what is inside goes to `expired`."""
        with self._changed:
            self._expires_s = min(self._expires_s, at_s)
            self._changed.notify_all()

    @property
    def has_expired(self) -> bool:
        return time.monotonic() >= self._expires_s

    def __iter__(self) -> Channel[T]:
        return self

    def __next__(self) -> T:
        """Wait for the next item; stops when the channel is closed and empty."""
        with self._changed:
            self._wait_for(lambda: bool(self._items), None)
            if not self._items:
                raise StopIteration
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def _wait_for(self, ready: Callable[[], bool], timeout_s: float | None) -> None:
        """Until it is ready, closed, or one of the two times is over. The lock is held."""
        give_up_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not (ready() or self._closed):
            left_s = min(give_up_s, self._expires_s) - time.monotonic()
            if left_s <= 0:
                break
            self._changed.wait(None if left_s == math.inf else left_s)
        if self.has_expired:
            self._closed = True
            self.expired += self._items
            self._items.clear()
            self._changed.notify_all()
