"""Durations by stage and their percentiles, in constant memory for runs of days."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_FINEST_MS = 1e-3
_STEP = 1.02
_LOG_STEP = math.log(_STEP)
_BINS = 1024  # up to about 10 minutes


class Durations:
    """Count, sum and percentiles of one kind of duration. Logarithmic bins hold them to 2 %."""

    def __init__(self) -> None:
        self.count, self.sum_ms, self.max_ms = 0, 0.0, 0.0
        self._bins = [0] * _BINS

    def add(self, value_ms: float) -> None:
        """Add one duration, milliseconds."""
        self.count += 1
        self.sum_ms += value_ms
        self.max_ms = max(self.max_ms, value_ms)
        index = int(math.log(max(value_ms, _FINEST_MS) / _FINEST_MS) / _LOG_STEP)
        self._bins[min(index, _BINS - 1)] += 1

    @property
    def mean_ms(self) -> float:
        return self.sum_ms / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """The duration that `percent` of all do not exceed, milliseconds; 0 without any."""
        wanted, seen = max(1, math.ceil(self.count * percent / 100)), 0
        for index, held in enumerate(self._bins):
            seen += held
            if held and seen >= wanted:
                return min(_FINEST_MS * _STEP ** (index + 0.5), self.max_ms)
        return 0.0

    def summary(self) -> dict[str, float]:
        """Count, mean, percentiles and maximum, for the summary and the metrics."""
        return {
            "count": self.count,
            "mean_ms": round(self.mean_ms, 3),
            "p50_ms": round(self.percentile(50), 3),
            "p95_ms": round(self.percentile(95), 3),
            "p99_ms": round(self.percentile(99), 3),
            "max_ms": round(self.max_ms, 3),
        }


class StageClock:
    """Durations by stage name. Any thread may add to it."""

    def __init__(self) -> None:
        self._stages: dict[str, Durations] = {}
        self._lock = Lock()

    def add(self, stage: str, value_ms: float) -> None:
        self.add_all({stage: value_ms})

    def add_all(self, timings_ms: dict[str, float]) -> None:
        with self._lock:
            for stage, value_ms in timings_ms.items():
                durations = self._stages.get(stage)
                if durations is None:
                    durations = self._stages[stage] = Durations()
                durations.add(value_ms)

    def __getitem__(self, stage: str) -> Durations:
        return self._stages.get(stage) or Durations()

    def stages(self) -> list[str]:
        """Stage names in the order of their first appearance."""
        with self._lock:
            return list(self._stages)

    def summary(self) -> dict[str, dict[str, float]]:
        with self._lock:
            return {name: durations.summary() for name, durations in self._stages.items()}


@contextmanager
def timed(timings_ms: dict[str, float], stage: str) -> Iterator[None]:
    """Add the duration of the block to `timings_ms[stage]`, milliseconds."""
    start = time.perf_counter_ns()
    try:
        yield
    finally:
        timings_ms[stage] = timings_ms.get(stage, 0.0) + (time.perf_counter_ns() - start) / 1e6
