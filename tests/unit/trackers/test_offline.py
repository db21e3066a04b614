"""Hindsight: what a second look at whole tracks must mend, and what it must leave."""

import numpy as np
import pytest

from perception.trackers import create_tracker, tracker_names
from perception.trackers.offline import OfflineConfig, _noise_share, _Path, track_offline
from perception.types import Detections, Tracks

Row = tuple[float, float, float, float, float, int]


def seen(*rows: Row) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


def car(left: float, score: float = 0.9) -> Row:
    return left, 200, left + 60, 240, score, 0


def look_back(frames: list[Detections], name: str = "drivetrack", **config: float) -> list[Tracks]:
    stamped = [(i * 10**8, detections) for i, detections in enumerate(frames)]
    return track_offline(create_tracker(name), stamped, OfflineConfig(**config))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", tracker_names())
def test_a_track_begins_with_its_first_detection(name: str) -> None:
    frames = [seen()] * 3 + [seen(car(100 + 4 * i)) for i in range(20)]
    assert [len(tracks) for tracks in look_back(frames, name)] == [0] * 3 + [1] * 20


@pytest.mark.parametrize("name", tracker_names())
def test_nothing_in_nothing_out_and_the_same_twice(name: str) -> None:
    assert [len(tracks) for tracks in look_back([seen()] * 3, name)] == [0, 0, 0]
    assert look_back([], name) == []
    rng = np.random.default_rng(0)
    frames = [seen(*(car(x) for x in rng.uniform(0, 900, 5))) for _ in range(30)]
    first, second = look_back(frames, name), look_back(frames, name)
    assert [t.boxes_xyxy.tobytes() for t in first] == [t.boxes_xyxy.tobytes() for t in second]


def test_gaps_are_filled_where_the_object_was() -> None:
    frames = [seen(car(100 + 6 * i)) if not 10 <= i < 16 else seen() for i in range(30)]
    told = look_back(frames)
    assert [len(tracks) for tracks in told] == [1] * 30
    assert {track.track_id for tracks in told for track in tracks} == {1}
    assert told[13].boxes_xyxy[0, 0] == pytest.approx(100 + 6 * 13, abs=0.5)
    assert told[13].frames_since_seen.tolist() == [4] and told[16].frames_since_seen.tolist() == [0]
    assert told[13].ages.tolist() == [14]
    assert [len(tracks) for tracks in look_back(frames, fill_s=0.3)] == [1] * 10 + [0] * 6 + [1] * 14


def test_tracks_are_joined_across_an_occlusion_longer_than_the_tracker_waits() -> None:
    frames = [seen(car(100 + 6 * i)) if not 20 <= i < 48 else seen() for i in range(80)]
    assert {t.track_id for tracks in look_back(frames) for t in tracks} == {1}
    assert {t.track_id for tracks in look_back(frames, join_s=0.0) for t in tracks} == {1, 2}


def test_tracks_that_do_not_fit_stay_apart() -> None:
    """The second car is where the first cannot have come to."""
    frames = [seen(car(100 + 6 * i)) for i in range(20)] + [seen()] * 30
    frames += [seen(car(900 + 6 * i)) for i in range(20)]
    assert {t.track_id for tracks in look_back(frames) for t in tracks} == {1, 2}


def test_short_tracks_are_removed() -> None:
    frames = [seen(car(100 + 4 * i), *([car(600, 0.99)] if 10 <= i < 13 else [])) for i in range(40)]
    told = look_back(frames)
    assert all(len(tracks) == 1 for tracks in told)
    assert any(len(tracks) == 2 for tracks in look_back(frames, least_hits=1))


def test_boxes_are_smoothed_and_steady_motion_is_left_alone() -> None:
    rng = np.random.default_rng(1)
    true = 100 + 5.0 * np.arange(60)
    noise = rng.normal(0, 2, 60)
    lefts = np.array([t.boxes_xyxy[0, 0] for t in look_back([seen(car(x)) for x in true + noise])])
    assert np.std(lefts - true) < 0.75 * np.std(noise)
    steady = np.array([t.boxes_xyxy[0, 0] for t in look_back([seen(car(x)) for x in true])])
    assert np.abs(steady - true).max() < 0.05


def test_what_was_learned_late_serves_the_first_frames() -> None:
    """Low scores that are real: on line they must first be learned."""
    frames = [seen(*(car(100 + 300 * k + 3 * i, 0.25) for k in range(3))) for i in range(60)]
    tracker = create_tracker("drivetrack")
    online = [len(tracker.update(detections, i * 10**8)) for i, detections in enumerate(frames)]
    assert online[0] == 0
    assert [len(tracks) for tracks in look_back(frames)] == [3] * 60


def test_noise_is_smoothed_and_a_gait_is_left_alone() -> None:
    """A swing of 10 frames and 6.8 times the noise: second differences are correlated by -0.13, as a fifth noise."""
    rng = np.random.default_rng(2)
    for swing, smooth in ((0.0, 1.0), (6.8, 0.0)):
        boxes = np.full((600, 4), 100.0) + rng.normal(0, 1, (600, 4))
        boxes[:, :2] += swing * np.sin(2 * np.pi * np.arange(600) / 10)[:, None]
        path = _Path(0, np.arange(600), boxes, np.ones(600))
        assert _noise_share([path])[:2].tolist() == [smooth, smooth]
