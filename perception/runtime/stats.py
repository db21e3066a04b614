"""Counters of one run: results, drops, tracks, durations."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from perception.timing import Durations, StageClock
from perception.types import CONFIRMED, Result


@dataclass
class RunStats:
    """Counters of one run, in constant memory. Any thread may read them at any time."""

    clock: StageClock = field(default_factory=StageClock)
    latency: Durations = field(default_factory=Durations)
    """All stages of a frame together, without the waiting between them."""
    age: Durations = field(default_factory=Durations)
    """Live sources: age of the frame when its result was published."""
    frames: dict[str, int] = field(default_factory=dict)
    """Results by source."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames dropped before one that has a result, by source."""
    dropped_at_shutdown: dict[str, int] = field(default_factory=dict)
    """Frames that were read and had no result when the run ended: still queued, or dropped after the last result."""
    tracks: dict[str, int] = field(default_factory=dict)
    """Confirmed tracks so far by source."""
    events: int = 0
    """Health events, without the ends of sources."""
    started_s: float = field(default_factory=time.perf_counter)
    first_result_s: float | None = None
    """Seconds from the start of the pipeline."""
    first_ns: int | None = None
    last_ns: int | None = None
    _confirmed: dict[str, set[int]] = field(default_factory=dict)

    @staticmethod
    def for_sources(names: Iterable[str]) -> RunStats:
        """Counters at zero for each source."""
        zeros = dict.fromkeys(names, 0)
        return RunStats(frames=dict(zeros), dropped=dict(zeros), dropped_at_shutdown=dict(zeros))

    def add(self, result: Result) -> None:
        """Count one result."""
        now_ns = time.perf_counter_ns()
        if self.first_ns is None:
            self.first_ns, self.first_result_s = now_ns, now_ns / 1e9 - self.started_s
        self.last_ns = now_ns
        name = result.frame.source
        self.frames[name] = self.frames.get(name, 0) + 1
        self.dropped[name] = self.dropped.get(name, 0) + result.frame.dropped_before
        self.clock.add_all(result.timings_ms)
        self.latency.add(sum(result.timings_ms.values()))
        if result.age_ms is not None:
            self.age.add(result.age_ms)
        self._count_tracks(result)

    def add_source(self, name: str) -> None:
        """Counters at zero for a further source."""
        for counts in (self.frames, self.dropped, self.dropped_at_shutdown):
            counts.setdefault(name, 0)

    def source_ended(self, name: str) -> None:
        """Keep the counts of a source, and nothing else."""
        self._confirmed.pop(name, None)

    def _count_tracks(self, result: Result) -> None:
        """Count each confirmed track once. An id is never used again, so deleted tracks are forgotten."""
        name = result.frame.source
        counted = self._confirmed.get(name, set())
        present = set(result.tracks.track_ids.tolist())
        new = set(result.tracks.track_ids[result.tracks.states == CONFIRMED].tolist()) - counted
        self.tracks[name] = self.tracks.get(name, 0) + len(new)
        self._confirmed[name] = (counted & present) | new

    @property
    def fps(self) -> float:
        """Results per second, from the first to the last."""
        total = sum(self.frames.values())
        if total < 2 or self.first_ns is None or self.last_ns is None or self.last_ns == self.first_ns:
            return 0.0
        return (total - 1) / ((self.last_ns - self.first_ns) / 1e9)

    @property
    def network_share(self) -> float:
        """The network's share of the time of all stages, 0..1."""
        total = self.latency.sum_ms
        return self.clock["network"].sum_ms / total if total else 0.0
