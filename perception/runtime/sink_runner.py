"""One sink in its thread: a bounded queue before it, and a fence around it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from threading import Thread

from perception.errors import UserError
from perception.redact import redact
from perception.runtime.queues import Channel
from perception.sinks import RunInfo, Sink
from perception.timing import StageClock
from perception.types import EventListener, HealthEvent, Result

log = logging.getLogger("perception.sinks")

QUEUED_PIXELS = 64_000_000
"""Pictures of no more than this many pixels in all (200 MB) wait before a sink, but always two."""
PATIENCE_S_PER_MEGAPIXEL = 1.0
"""What an 8K picture may take longer than a small one before its sink counts as stuck, seconds."""


@dataclass(eq=False)
class SinkRunner:
    """One sink in its thread: a bounded queue before it, a fence around it."""

    sink: Sink
    info: RunInfo
    clock: StageClock
    on_event: EventListener
    capacity: int = 8
    patience_s: float = 10.0
    """A lossless sink that takes nothing for this long is given up; with large pictures later."""
    error: str = ""
    """Why it ended early; empty while all is well."""
    written: int = 0
    dropped: int = 0
    _finished: bool = False
    _size_hw: tuple[int, int] = (0, 0)
    _more_patience_s: float = 0.0
    _hurried: bool = False
    _queue: Channel[Result | HealthEvent] = field(init=False)
    _thread: Thread = field(init=False)

    def __post_init__(self) -> None:
        self._queue = Channel(self.capacity)
        self._thread = Thread(target=self._work, name=f"sink-{self.sink.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def publish(self, item: Result | HealthEvent) -> None:
        """Hand over a result or an event; waits only where the sink is lossless and behind."""
        if self.error or self._finished:
            return
        if isinstance(item, Result) and item.frame.size_hw != self._size_hw:
            self._adapt(item.frame.size_hw)
        if self.sink.lossless:
            patience_s = self.patience_s + self._more_patience_s
            if not self._queue.put(item, patience_s) and not self.error:
                if self._queue.has_expired:
                    self.dropped += isinstance(item, Result)
                else:
                    self._fail(f"took nothing for {patience_s:.0f} s")
            return
        self.dropped += sum(isinstance(lost, Result) for lost in self._queue.put_newest(item))

    def _adapt(self, size_hw: tuple[int, int]) -> None:
        """Large pictures: fewer of them wait, and each may take its time."""
        self._size_hw, pixels = size_hw, size_hw[0] * size_hw[1]
        self._queue.limit(max(2, min(self.capacity, QUEUED_PIXELS // max(1, pixels))))
        self._more_patience_s = PATIENCE_S_PER_MEGAPIXEL * pixels / 1e6

    def hurry(self, until_s: float) -> None:
        """From this moment (`time.monotonic()`) on nothing more is written; what waits is dropped and counted."""
        self._hurried = True
        self._queue.expire(until_s)

    def finish(self, timeout_s: float) -> None:
        """Drain the queue and close; one that hangs is left behind.

        Args:
            timeout_s: for all of it after `hurry`, else for each step, and longer with large pictures.
        """
        self._finished = True
        self._queue.close()
        done = -1
        while self._thread.is_alive() and self.written != done:
            done = self.written
            self._thread.join(timeout_s if self._hurried else timeout_s + self._more_patience_s)
            if self._queue.has_expired:
                break
        self.dropped += sum(isinstance(item, Result) for item in self._queue.expired)
        if self._thread.is_alive() and not self.error:
            self._fail("did not finish in time")

    def _work(self) -> None:
        try:
            self.sink.open(self.info)
            for item in self._queue:
                if isinstance(item, HealthEvent):
                    self.sink.event(item)
                    continue
                start = time.perf_counter_ns()
                self.sink.write(item)
                self.clock.add(f"sink:{self.sink.name}", (time.perf_counter_ns() - start) / 1e6)
                self.written += 1
        except Exception as error:
            self._fail(_explain(error))
        finally:
            try:
                self.sink.close()
            except Exception as error:
                if not self.error:
                    self._fail(_explain(error))

    def _fail(self, reason: str) -> None:
        self.error = redact(reason)
        self._queue.close(discard=True)
        log.error("%s: %s; the run goes on without it", self.sink.name, self.error)
        self.on_event(HealthEvent("sink-failed", self.sink.name, True, None, self.error))


def _explain(error: Exception) -> str:
    """One sentence for the summary."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if isinstance(error.filename, str) else ""
        return f"{error.strerror}{where}"
    return f"{type(error).__name__}: {error}"
