"""Run one sink in its own thread, behind a bounded queue. A sink that fails does not end the run."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from threading import Event, Thread

from perception.errors import UserError
from perception.redact import redact
from perception.runtime.queues import Channel
from perception.sinks import RunInfo, Sink
from perception.timing import StageClock
from perception.types import EventListener, HealthEvent, Result

log = logging.getLogger("perception.sinks")

QUEUED_PIXELS = 64_000_000
"""Most pixels (200 MB) of the frames queued for one sink; two frames always fit."""
FIRST_RESULT_S = 0.25
"""A sink that may lose results opens with the first one, or after this long, seconds: what it imports, as the live
page does, would hold up the start of the run."""
EXTRA_TIMEOUT_S_PER_MEGAPIXEL = 1.0
"""Added to a sink's timeout by the size of the frames, seconds: an 8K frame takes longer than a small one."""


@dataclass(eq=False)
class SinkRunner:
    """One sink, its queue and its thread."""

    sink: Sink
    info: RunInfo
    clock: StageClock
    on_event: EventListener
    capacity: int = 8
    timeout_s: float = 10.0
    """A lossless sink that accepts nothing for this long has failed, seconds. Large frames extend it."""
    error: str = ""
    """Why it failed; empty while it works."""
    written: int = 0
    dropped: int = 0
    _finished: bool = False
    _size_hw: tuple[int, int] = (0, 0)
    _extra_timeout_s: float = 0.0
    _has_deadline: bool = False
    _queue: Channel[Result | HealthEvent | RunInfo] = field(init=False)
    _thread: Thread = field(init=False)
    _may_open: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self._queue = Channel(self.capacity)
        self._thread = Thread(target=self._work, name=f"sink-{self.sink.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def publish(self, item: Result | HealthEvent | RunInfo) -> None:
        """Queue a result, an event or other sources; waits only where the sink is lossless and its queue is full."""
        if self.error or self._finished:
            return
        if isinstance(item, Result) and item.frame.size_hw != self._size_hw:
            self._adapt_to_size(item.frame.size_hw)
        if self.sink.lossless:
            timeout_s = self.timeout_s + self._extra_timeout_s
            if not self._queue.put(item, timeout_s) and not self.error:
                if self._queue.has_expired:
                    self.dropped += isinstance(item, Result)
                else:
                    self._fail(f"accepted nothing for {timeout_s:.0f} s")
            return
        dropped = self._queue.put_drop_oldest(item)
        self.dropped += sum(isinstance(old, Result) for old in dropped)
        changes = [old for old in dropped if isinstance(old, RunInfo) and old is not item]
        if changes and not isinstance(item, RunInfo):
            self.publish(changes[-1])  # late, but not lost

    def _adapt_to_size(self, size_hw: tuple[int, int]) -> None:
        """Queue fewer large frames, and allow more time for each. The first frame's size is new, too."""
        self._may_open.set()
        self._size_hw, pixels = size_hw, size_hw[0] * size_hw[1]
        self._queue.set_capacity(max(2, min(self.capacity, QUEUED_PIXELS // max(1, pixels))))
        self._extra_timeout_s = EXTRA_TIMEOUT_S_PER_MEGAPIXEL * pixels / 1e6

    def set_deadline(self, at_s: float) -> None:
        """Write nothing after this moment of `time.monotonic()`; results still queued are dropped and counted."""
        self._has_deadline = True
        self._queue.set_deadline(at_s)

    def finish(self, timeout_s: float) -> None:
        """Write what is queued, then close. A sink that hangs has failed; its thread is abandoned.

        Args:
            timeout_s: for everything after `set_deadline`; otherwise for each result, and longer for large frames.
        """
        self._finished = True
        self._may_open.set()
        self._queue.close()
        written = -1
        while self._thread.is_alive() and self.written != written:
            written = self.written
            self._thread.join(timeout_s if self._has_deadline else timeout_s + self._extra_timeout_s)
            if self._queue.has_expired:
                break
        self.dropped += sum(isinstance(item, Result) for item in self._queue.expired)
        if self._thread.is_alive() and not self.error:
            self._fail("did not finish in time")

    def _work(self) -> None:
        if not self.sink.lossless:
            self._may_open.wait(FIRST_RESULT_S)
        try:
            self.sink.open(self.info)
            for item in self._queue:
                if isinstance(item, HealthEvent):
                    self.sink.event(item)
                    continue
                if isinstance(item, RunInfo):
                    self.sink.sources_changed(item)
                    continue
                start = time.perf_counter_ns()
                self.sink.write(item)
                self.clock.add(f"sink:{self.sink.name}", (time.perf_counter_ns() - start) / 1e6)
                self.written += 1
        except BaseException as error:  # a library's SystemExit, too, is a failure of this sink alone
            self._fail(_explain(error))
        finally:
            try:
                self.sink.close()
            except BaseException as error:
                if not self.error:
                    self._fail(_explain(error))

    def _fail(self, reason: str) -> None:
        self.error = redact(reason)
        self._queue.close(discard=True)
        log.error("%s: %s; the run continues without this sink", self.sink.name, self.error)
        self.on_event(HealthEvent("sink-failed", self.sink.name, True, None, self.error))


def _explain(error: BaseException) -> str:
    """Describe an error in one line, for the summary."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if isinstance(error.filename, str) else ""
        return f"{error.strerror}{where}"
    return f"{type(error).__name__}: {error}"
