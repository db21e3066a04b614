"""Counters of a run, checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perception.runtime.stats import RunStats
from perception.types import CONFIRMED, TENTATIVE, Detections, Frame, Result, Tracks

IMAGE = np.zeros((2, 2, 3), np.uint8)


def result(ids: dict[int, int], dropped: int = 0, timings_ms: dict[str, float] | None = None) -> Result:
    """A result of source 'a' with tracks of these ids and states."""
    count = len(ids)
    tracks = Tracks(
        track_ids=np.array(list(ids), np.int64),
        class_ids=np.zeros(count, np.int64),
        boxes_xyxy=np.zeros((count, 4), np.float32),
        scores=np.ones(count, np.float32),
        states=np.array(list(ids.values()), np.int64),
        ages=np.ones(count, np.int64),
        frames_since_seen=np.zeros(count, np.int64),
    )
    frame = Frame(IMAGE, 0, 0, "a", dropped_before=dropped)
    return Result(frame, Detections.empty(), tracks, None, timings_ms or {})


def test_each_confirmed_track_is_counted_once() -> None:
    stats = RunStats.for_sources(["a", "b"])
    for ids in ({1: CONFIRMED, 2: TENTATIVE}, {1: CONFIRMED, 2: CONFIRMED}, {2: CONFIRMED}, {3: TENTATIVE}):
        stats.add(result(ids))
    assert stats.tracks == {"a": 2} and stats.frames == {"a": 4, "b": 0}
    assert stats._confirmed == {"a": set()}, "ids of deleted tracks are forgotten"


def test_drops_latency_and_the_share_of_the_network() -> None:
    stats = RunStats.for_sources(["a"])
    stats.add(result({}, dropped=3, timings_ms={"network": 6.0, "track": 2.0}))
    stats.add(result({}, dropped=1, timings_ms={"network": 6.0, "track": 2.0}))
    assert stats.dropped == {"a": 4} and stats.dropped_at_shutdown == {"a": 0}
    assert stats.latency.mean_ms == pytest.approx(8.0) and stats.network_share == pytest.approx(0.75)


def test_a_rate_needs_two_results() -> None:
    stats = RunStats.for_sources(["a"])
    assert stats.fps == 0.0
    stats.add(result({}))
    assert stats.fps == 0.0
    stats.first_ns, stats.last_ns, stats.frames["a"] = 0, 2 * 10**9, 5
    assert stats.fps == pytest.approx(2.0)  # four steps in two seconds
