"""Disagreement of two networks: what counts, how long it must last, where it is."""

from __future__ import annotations

import numpy as np

from perception.runtime.second_opinion import DisagreementMonitor, disagreement
from perception.types import Detections, Disagreement

NAMES = ("Car", "Pedestrian")


def boxes(*rows: tuple[float, float, float, float, float]) -> Detections:
    """Left, top, right, bottom, score."""
    values = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(values[:, :4], values[:, 4], np.zeros(len(values), np.int64))


def test_a_sure_box_without_any_counterpart_is_a_disagreement() -> None:
    both = (100.0, 100.0, 150.0, 150.0)
    first = boxes((*both, 0.9), (300, 100, 350, 150, 0.8), (400, 100, 450, 150, 0.2), (500, 100, 510, 110, 0.9))
    second = boxes((*both, 0.12), (600, 100, 650, 150, 0.5))
    found = disagreement(first, second, (0.3, 0.4))
    # the shared one has a counterpart, though a weak one; one is unsure; one is ten pixels high
    assert found.only_first.boxes_xyxy.tolist() == [[300, 100, 350, 150]]
    assert found.only_second.boxes_xyxy.tolist() == [[600, 100, 650, 150]]


def watch(frames: list[Detections], rate_hz: int = 10) -> list[tuple[bool, int, str]]:
    monitor = DisagreementMonitor("cam", ("a", "b"), (NAMES, NAMES))
    events = []
    for i, only in enumerate(frames):
        events += monitor.update(Disagreement(only, Detections.empty()), i * 10**9 // rate_hz)
    return [(event.active, (event.timestamp_ns or 0) // 10**8, event.detail) for event in events]


def test_a_disagreement_that_lasts_is_reported_with_its_place() -> None:
    moving = [boxes((100 + 2 * i, 50, 140 + 2 * i, 90, 0.8)) for i in range(12)]
    none = [Detections.empty()] * 8
    assert watch(none + moving + none) == [
        (True, 14, "only a sees a Car at 112,50–152,90"),
        (False, 23, "over"),
    ]


def test_one_that_jumps_about_or_blinks_long_is_none() -> None:
    jumping = [boxes((100 * (i % 7), 50, 100 * (i % 7) + 40, 90, 0.8)) for i in range(30)]
    assert watch(jumping) == []
    blinking = [boxes((100, 50, 140, 90, 0.8)) if i % 5 == 0 else Detections.empty() for i in range(40)]
    assert watch(blinking) == []


def test_a_short_gap_does_not_end_it() -> None:
    there, gone = boxes((100, 50, 140, 90, 0.8)), Detections.empty()
    assert watch([there] * 4 + [gone] * 2 + [there] * 4)[0][:2] == (True, 6)
