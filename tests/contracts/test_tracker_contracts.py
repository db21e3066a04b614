"""Every file in trackers/ that is a tracker is found here and held to its promise."""

from dataclasses import fields

import numpy as np
import pytest

from perception.trackers import create_tracker, tracker_names
from perception.types import Detections, Track

pytestmark = pytest.mark.parametrize("name", tracker_names())
STEP_NS = 10**8


def cars(*lefts: float) -> Detections:
    boxes = np.array([[x, 50, x + 60, 100] for x in lefts], np.float32).reshape(-1, 4)
    return Detections(boxes, np.full(len(lefts), 0.9, np.float32), np.zeros(len(lefts), np.int64))


def drive(name: str, frames: list[Detections]) -> list[list[tuple[int, str]]]:
    tracker = create_tracker(name)
    return [[(t.track_id, t.state) for t in tracker.update(d, i * STEP_NS)] for i, d in enumerate(frames)]


def test_nothing_in_nothing_out(name: str) -> None:
    tracker = create_tracker(name)
    assert [len(tracker.update(Detections.empty(), i * STEP_NS)) for i in range(3)] == [0, 0, 0]


def test_a_car_that_drives_keeps_its_name(name: str) -> None:
    seen = drive(name, [cars(100 + 4 * i, 400 - 4 * i) for i in range(20)])
    assert {len(ids) for ids in seen[5:]} == {2}
    assert len({track_id for ids in seen[5:] for track_id, _ in ids}) == 2


def test_the_same_twice_is_the_same(name: str) -> None:
    frames = [cars(*np.random.default_rng(i).uniform(0, 900, 5)) for i in range(15)]
    assert drive(name, frames) == drive(name, frames)


def test_two_instances_share_nothing(name: str) -> None:
    first, second = create_tracker(name), create_tracker(name)
    for i in range(5):
        first.update(cars(100 + i), i * STEP_NS)
    assert {t.track_id for i in range(5) for t in second.update(cars(500 + i), i * STEP_NS)} <= {1}


def test_reset_starts_afresh(name: str) -> None:
    tracker = create_tracker(name)
    for i in range(5):
        tracker.update(cars(100), i * STEP_NS)
    tracker.reset()
    assert len(tracker.update(Detections.empty(), 0)) == 0


def test_ids_are_never_used_again(name: str) -> None:
    tracker = create_tracker(name)
    ids: list[int] = []
    for burst in range(3):
        for i in range(6):
            tracks = tracker.update(cars(100 + 300 * burst), (burst * 1000 + i) * STEP_NS)
        ids += [t.track_id for t in tracks if t.frames_since_seen == 0]
    assert len(ids) == 3
    assert ids == sorted(set(ids))


def test_gaps_and_odd_times_are_survived(name: str) -> None:
    tracker = create_tracker(name)
    for timestamp_ns in (0, 10**8, 10**8, 5 * 10**9, 5 * 10**9 + 1, 3600 * 10**9):
        tracks = tracker.update(cars(100), timestamp_ns)
        assert all(isinstance(t, Track) and np.isfinite(t.box_xyxy).all() for t in tracks)


def test_ids_are_given_when_a_track_is_first_told_so_none_is_missing(name: str) -> None:
    rng = np.random.default_rng(4)
    tracker, told = create_tracker(name), []
    for i in range(120):
        false = rng.uniform([0, 0], [900, 300], (4, 2))  # seen once, never told by most
        boxes = np.concatenate([np.concatenate([false, false + 40], axis=1), [[100 + 3 * i, 200, 180 + 3 * i, 260]]])
        scores = np.concatenate([rng.uniform(0.1, 0.75, 4), [0.95]])
        found = Detections(boxes.astype(np.float32), scores.astype(np.float32), np.zeros(5, np.int64))
        told += [t.track_id for t in tracker.update(found, i * STEP_NS) if t.track_id not in told]
    assert told == list(range(1, len(told) + 1))


def test_the_config_is_a_frozen_dataclass_and_its_fields_are_the_options(name: str) -> None:
    tracker = create_tracker(name)
    assert tracker.config == type(tracker.config)()
    assert tracker.config.__dataclass_params__.frozen
    for field in fields(tracker.config):
        value = getattr(tracker.config, field.name)
        assert getattr(create_tracker(name, **{field.name: value}).config, field.name) == value
