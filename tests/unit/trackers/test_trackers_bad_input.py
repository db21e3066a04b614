"""Whatever comes in, every tracker answers with sane tracks, soon, and keeps its size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.trackers import create_tracker, tracker_names
from perception.trackers.base import LIMIT_PX, MAX_TRACKS, clean
from perception.types import Detections, Tracks

NAN = float("nan")
numbers = st.one_of(
    st.floats(-50, 1500),
    st.sampled_from([NAN, float("inf"), -float("inf"), 1e30, -1e30, 0.0, 1e-40, 3e38]),
)
scores = st.one_of(st.floats(0, 1), st.sampled_from([NAN, -3.0, 7.0, float("inf"), 0.0, 1.0]))
rows = st.tuples(numbers, numbers, numbers, numbers, scores, st.sampled_from([-1, 0, 1, 2, 99]))
solid = st.tuples(st.floats(0, 400), st.floats(0, 300), st.floats(1, 200), st.floats(1, 200), st.floats(0, 1)).map(
    lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3], r[4], 0)
)
steps_ns = st.one_of(st.integers(0, 2 * 10**8), st.sampled_from([0, -(10**9), 60 * 10**9, -(10**18), 10**18]))
frames = st.lists(st.tuples(st.lists(st.one_of(rows, solid), max_size=6), steps_ns), max_size=12)


def detections(table: list[tuple]) -> Detections:
    array = np.array(table, np.float64).reshape(-1, 6)
    with np.errstate(over="ignore"):
        return Detections(
            array[:, :4].astype(np.float32), array[:, 4].astype(np.float32), array[:, 5].astype(np.int64)
        )


def check(tracks: Tracks) -> None:
    assert len({t.track_id for t in tracks}) == len(tracks)
    for track in tracks:
        left, top, right, bottom = track.box_xyxy.tolist()
        assert np.isfinite(track.box_xyxy).all() and left < right and top < bottom
        assert 0 <= track.score <= 1
        assert track.track_id >= 1
        assert 0 <= track.frames_since_seen < track.age_frames
        assert track.box_xyxy.dtype == np.float32


@pytest.mark.parametrize("name", tracker_names())
@settings(deadline=None, max_examples=40)
@given(frames)
def test_anything_in_sane_tracks_out_twice_the_same(name: str, frames: list) -> None:
    answers = []
    for _ in range(2):
        tracker, now, told = create_tracker(name), 0, []
        with np.errstate(all="raise", under="ignore"):
            for table, step in frames:
                now += step
                tracks = tracker.update(detections(table), now)
                check(tracks)
                told.append([(t.track_id, t.class_id, t.state, t.box_xyxy.tobytes(), t.score) for t in tracks])
        answers.append(told)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", tracker_names())
@pytest.mark.parametrize("step_ns", [0, 10**8])
def test_a_flood_fills_nothing(name: str, step_ns: int) -> None:
    tracker, rng = create_tracker(name), np.random.default_rng(1)
    for i in range(5):
        left_top = rng.uniform(0, 5000, (1500, 2))
        boxes = np.concatenate([left_top, left_top + 20], axis=1).astype(np.float32)
        flood = Detections(boxes, np.full(1500, 0.95, np.float32), np.zeros(1500, np.int64))
        check(tracker.update(flood, i * step_ns))
        assert len(tracker._table) <= MAX_TRACKS  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", tracker_names())
def test_silence_empties_the_table_even_if_the_clock_stands(name: str) -> None:
    for step_ns in (0, 10**8):
        tracker = create_tracker(name)
        for _ in range(5):
            tracker.update(detections([(10, 10, 50, 50, 0.9, 0)]), 0)
        for i in range(1000):
            tracker.update(Detections.empty(), i * step_ns)
        assert len(tracker._table) == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", tracker_names())
def test_a_clock_that_runs_back_is_a_clock_that_stands_still(name: str) -> None:
    box = [(100, 100, 160, 140, 0.95, 0)]
    tracker = create_tracker(name)
    ids = {t.track_id for i in range(10) for t in tracker.update(detections(box), i * 10**8)}
    ids |= {t.track_id for i in range(10) for t in tracker.update(detections(box), i * 10**8)}
    assert ids == {1}


@pytest.mark.parametrize("name", tracker_names())
def test_after_a_gap_of_a_minute_nobody_is_the_same(name: str) -> None:
    tracker, box = create_tracker(name), [(100, 100, 160, 140, 0.95, 0)]
    before = {t.track_id for i in range(5) for t in tracker.update(detections(box), i * 10**8)}
    after = {t.track_id for i in range(5) for t in tracker.update(detections(box), 60 * 10**9 + i * 10**8)}
    assert (before, after) == ({1}, {2})
    assert len(tracker._table) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", tracker_names())
def test_another_frame_size_is_no_event(name: str) -> None:
    tracker = create_tracker(name)
    for i in range(5):
        tracker.update(detections([(1000, 500, 1100, 560, 0.95, 0)]), i * 10**8)
    for i in range(5, 10):
        tracks = tracker.update(detections([(250, 125, 275, 140, 0.95, 0)]), i * 10**8)
    assert [t.track_id for t in tracks if t.frames_since_seen == 0] == [2]


def test_clean_drops_cuts_and_keeps_the_best() -> None:
    good = (10, 10, 50, 60, 0.5, 0)
    bad = [(NAN, 0, 1, 1, 0.5, 0), (50, 10, 10, 60, 0.5, 0), (10, 10, 10, 60, 0.5, 0), (0, 0, 9, 9, NAN, 0)]
    boxes, kept, _ = clean(detections([good, *bad, (0, 0, 1e30, 10, 7.0, 0), (0, 0, 9, 9, -2.0, 0)]))
    assert boxes.T.tolist() == [[10, 10, 50, 60], [0, 0, LIMIT_PX, 10], [0, 0, 9, 9]]
    assert kept.tolist() == [0.5, 1.0, 0.0]
    many = np.linspace(0, 1, 1500, dtype=np.float32)
    _, kept, _ = clean(Detections(np.tile(np.float32([0, 0, 5, 5]), (1500, 1)), many, np.zeros(1500, np.int64)))
    assert len(kept) == 1000 and kept.min() == pytest.approx(many[500])
