"""What DriveTrack promises, on scenes small enough to follow by eye."""

from collections.abc import Callable

import numpy as np
import pytest

from perception.trackers.drivetrack import DriveConfig, DriveTracker
from perception.types import Detections, Tracks

CAR, PEDESTRIAN = 0, 1
SURE = 0.99


def seen(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Detections from (left, top, right, bottom, score, class)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


def car(left: float, score: float = SURE, width: float = 60, bottom: float = 240) -> tuple:
    return left, bottom - 40, left + width, bottom, score, CAR


def play(tracker: DriveTracker, frames: list[Detections], fps: float = 10, first: int = 0) -> list[Tracks]:
    return [tracker.update(d, round((first + i) * 1e9 / fps)) for i, d in enumerate(frames)]


def test_a_sure_detection_is_told_at_once_a_doubtful_one_later_a_poor_one_never() -> None:
    told = {
        score: [len(t) for t in play(DriveTracker(), [seen(car(100, score))] * 8)] for score in (0.99, 0.45, 0.25)
    }
    assert told[0.99] == [1] * 8
    assert told[0.45] == [0, 0, 0, 1, 1, 1, 1, 1]  # log odds over even: 0.65 each, 2 are asked for
    assert told[0.25] == [0] * 8  # below even odds, however often


def test_confirm_thresholds_belong_to_classes_and_the_last_serves_the_rest() -> None:
    tracker = DriveTracker(DriveConfig(confirm_thresholds=(0.3, 0.65)))
    box = (100, 100, 130, 180)
    assert len(tracker.update(seen((*box, 0.8, CAR)), 0)) == 1
    for class_id in (PEDESTRIAN, 2, 7):
        tracker.reset()
        assert not any(map(len, play(tracker, [seen((*box, 0.6, class_id))] * 5)))


def test_a_detector_that_scores_everything_low_is_learned() -> None:
    people = [(100 + 90 * k, 100, 130 + 90 * k, 180, 0.45, PEDESTRIAN) for k in range(6)]
    told = [len(tracks) for tracks in play(DriveTracker(), [seen(*people)] * 40)]
    assert told[0] == 0 and told[-1] == 6
    stubborn = DriveTracker(DriveConfig(learn_scores=False))
    assert not any(map(len, play(stubborn, [seen(*people)] * 40)))


@pytest.mark.parametrize(
    "habit",
    [np.ones_like, lambda s: np.full_like(s, 0.5), lambda s: 0.3 + 0.3 * s, lambda s: s / 2, lambda s: 100 * s],
)
def test_whatever_a_detector_calls_a_high_score_cars_keep_their_ids(
    habit: Callable[[np.ndarray], np.ndarray],
) -> None:
    rng = np.random.default_rng(5)
    scores = habit(rng.uniform(0.7, 1, (60, 3)))
    frames = [seen(*(car(100 + 300 * k + 4 * i, scores[i, k]) for k in range(3))) for i in range(60)]
    told = play(DriveTracker(), frames)
    assert {track.track_id for tracks in told for track in tracks} == {1, 2, 3}
    assert all(len(tracks) == 3 for tracks in told[30:])


def flicker(frames: int, seed: int = 3) -> list[Detections]:
    """Three cars that score 0.87 to 0.97, and four boxes a frame in random places that score 0.5 to 0.85."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(frames):
        cars = [car(100 + 300 * k + 3 * i, rng.uniform(0.87, 0.97)) for k in range(3)]
        false = [car(rng.uniform(0, 9000), rng.uniform(0.5, 0.85), bottom=rng.uniform(300, 900)) for _ in range(4)]
        found.append(seen(*cars, *false))
    return found


def test_false_detections_are_told_from_real_ones_by_their_not_coming_back() -> None:
    """Their scores are above the threshold that the tracker starts from."""
    told = play(DriveTracker(), flicker(120))
    naive = play(DriveTracker(DriveConfig(learn_scores=False)), flicker(120))
    assert sum(len(tracks) for tracks in naive[60:]) > 3 * 60 + 60
    assert all(len(tracks) == 3 for tracks in told[60:])


def test_what_is_almost_surely_false_starts_a_track_only_in_every_fourth_frame() -> None:
    tracker = DriveTracker()
    play(tracker, flicker(120))
    started = []
    for i in range(120, 128):
        tracker.update(seen(car(100), car(700, 0.6, bottom=300 + 100 * i)), i * 10**8)
        started.append(any(t.born_frame == tracker._table.frame and t.score < 0.7 for t in tracker._table.tracklets))
    assert sum(started) == 2


def test_after_a_change_of_scene_the_tracker_learns_anew() -> None:
    """At night everything scores half as much; before, such scores were false."""
    tracker = DriveTracker()
    play(tracker, flicker(120))
    night = [seen(*(car(100 + 300 * k + 30 * np.sin(i / 20), 0.6) for k in range(3))) for i in range(900)]
    told = [len(tracks) for tracks in play(tracker, night, first=200)]
    assert told[0] == 0 and told[-1] == 3


def test_where_nothing_comes_back_nothing_is_reported_and_no_memory_grows() -> None:
    rng, tracker = np.random.default_rng(0), DriveTracker()
    frames = [seen(*(car(rng.uniform(0, 90000), rng.uniform(0.5, 0.9)) for _ in range(5))) for _ in range(200)]
    told = play(tracker, frames)
    assert not any(map(len, told[60:]))
    assert len(tracker._table) < 30 and not tracker._table.ended[20:]


def test_hidden_objects_are_no_longer_reported_where_they_are_not_found_again() -> None:
    def frame(i: int) -> Detections:
        lorry = (300, 120, 520, 300, SURE, CAR)
        left = 200 + 12 * (i % 30)
        return seen(lorry, car(left)) if left < 300 else seen(lorry)

    told = play(DriveTracker(), [frame(i) for i in range(300)])
    hidden = [sum(t.state == "lost" for tracks in told[a : a + 30] for t in tracks) for a in range(0, 300, 30)]
    assert hidden[0] == 5 and hidden[-1] == 0


def test_a_score_of_nothing_is_no_trouble_where_it_is_let_in() -> None:
    tracker = DriveTracker(DriveConfig(low_score=0.0))
    assert not any(map(len, play(tracker, [seen(car(100, 0.0))] * 5)))


def test_what_was_learned_is_forgotten_by_reset() -> None:
    tracker = DriveTracker()
    low, high = [seen(car(100, 0.35))] * 30, [seen(car(100, 0.6))] * 4
    fresh = [len(t) for t in play(DriveTracker(), high)]
    play(tracker, low)
    tracker.reset()
    assert [len(t) for t in play(tracker, high)] == fresh


@pytest.mark.parametrize("gap", [1, 5, 15])
def test_a_car_keeps_its_id_through_a_gap(gap: int) -> None:
    frames = [seen(car(100 + 6 * i)) if not 20 <= i < 20 + gap else seen() for i in range(50)]
    told = play(DriveTracker(), frames)
    assert {track.track_id for tracks in told for track in tracks} == {1}
    assert len(told[-1]) == 1


def test_the_same_at_any_frame_rate() -> None:
    for fps in (5, 10, 30):
        lefts = 100 + 60 * np.arange(0, 4, 1 / fps)
        told = play(DriveTracker(), [seen(car(x)) for x in lefts], fps)
        assert {track.track_id for tracks in told for track in tracks} == {1}


def test_dropped_frames_do_not_matter_where_time_is_told() -> None:
    tracker = DriveTracker()
    kept = [i for i in range(60) if i % 7 not in (2, 3, 4)]
    told = [tracker.update(seen(car(100 + 10 * i)), i * 10**8) for i in kept]
    assert {track.track_id for tracks in told for track in tracks} == {1}


def test_a_young_track_survives_one_missed_frame() -> None:
    frames = [seen(car(100, 0.6)), seen(), seen(car(100, 0.6)), seen(car(100, 0.6))]
    assert [len(t) for t in play(DriveTracker(), frames)] == [0, 0, 1, 1]
    assert not any(map(len, play(DriveTracker(DriveConfig(tentative_s=0)), frames[:3])))


def test_two_cars_that_meet_keep_their_ids() -> None:
    """One drives right in front, one left behind it; for some frames the one behind is not detected."""
    tracker, ids = DriveTracker(), []
    for i in range(40):
        front, back = 100 + 10 * i, 500 - 10 * i
        rows = [car(front, width=80, bottom=260)]
        if abs(front - back) > 40:
            rows.append(car(back, width=60, bottom=230))
        tracks = tracker.update(seen(*rows), i * 10**8)
        ids.append({t.track_id: t.box_xyxy[0] for t in tracks if t.state == "confirmed"})
    assert set(ids[0]) == set(ids[-1]) == {1, 2}
    assert ids[-1][1] > 400 and ids[-1][2] < 150


def test_a_hidden_object_is_told_as_lost_where_it_must_be_and_then_no_more() -> None:
    def frame(i: int) -> Detections:
        lorry = (300, 120, 520, 300, SURE, CAR)
        left = 200 + 12 * i
        return seen(lorry, car(left)) if left < 300 else seen(lorry)

    told = play(DriveTracker(), [frame(i) for i in range(20)])
    hidden = [t for tracks in told for t in tracks if t.state == "lost"]
    assert [t.frames_since_seen for t in hidden] == [1, 2, 3, 4, 5]  # half a second
    assert {t.track_id for t in hidden} == {2}
    assert hidden[-1].box_xyxy[0] == pytest.approx(200 + 12 * 13, abs=6)

    alone = play(DriveTracker(DriveConfig(hidden_s=0)), [frame(i) for i in range(20)])
    assert all(t.frames_since_seen == 0 for tracks in alone for t in tracks)


def test_an_object_that_vanishes_in_the_open_is_not_told() -> None:
    told = play(DriveTracker(), [seen(car(100))] * 8 + [seen()] * 3)
    assert [len(t) for t in told[8:]] == [0, 0, 0]


def test_a_second_box_on_the_same_car_starts_nothing() -> None:
    told = play(DriveTracker(), [seen(car(100), car(108, 0.9)) for _ in range(10)])
    assert {t.track_id for tracks in told[1:] for t in tracks} <= {1, 2}
    told = play(DriveTracker(), [seen(car(100))] * 3 + [seen(car(100), car(108, 0.9)) for _ in range(10)])
    assert {t.track_id for tracks in told for t in tracks} == {1}


def test_classes_never_mix() -> None:
    box = (100, 100, 140, 180)
    frames = [seen((*box, SURE, i % 2)) for i in range(10)]
    for tracks in play(DriveTracker(), frames):
        assert len({t.class_id for t in tracks}) == len(tracks)
    assert {t.track_id: t.class_id for tracks in play(DriveTracker(), frames) for t in tracks} == {1: 0, 2: 1}


def test_one_thing_is_told_as_one_class_the_one_that_more_speaks_for() -> None:
    """A pedestrian whom the detector calls a cyclist, too, and once more sharply."""
    tracker = DriveTracker(DriveConfig(confirm_thresholds=(0.3, 0.2, 0.2)))
    walker, rider = (100, 100, 130, 180), (97, 98, 134, 182)
    scores = [(0.8, 0.4)] * 6 + [(0.3, 0.7)] + [(0.8, 0.4)] * 6
    told = play(tracker, [seen((*walker, a, PEDESTRIAN), (*rider, b, 2)) for a, b in scores])
    assert {(len(tracks), tracks[0].class_id, tracks[0].track_id) for tracks in told} == {(1, PEDESTRIAN, 1)}
    # apart, both are there; and a person before a car hides no car
    tracker.reset()
    tracks = play(tracker, [seen((*walker, SURE, PEDESTRIAN), (140, 98, 177, 182, SURE, 2), car(90))] * 3)[-1]
    assert sorted(track.class_id for track in tracks) == [CAR, PEDESTRIAN, 2]
    # who is not told takes no number
    tracker.reset()
    both = seen((*walker, SURE, PEDESTRIAN), (*rider, 0.8, 2))
    tracks = play(tracker, [both] * 3 + [seen((*walker, SURE, PEDESTRIAN), car(300))])[-1]
    assert [track.track_id for track in tracks] == [1, 2]


def test_new_cars_start_with_the_motion_of_the_turning_camera() -> None:
    """Where the picture slides by almost the distance between cars, only the common motion tells who is who."""
    slide = np.cumsum(np.minimum(5 * np.arange(20), 60))  # pixels, at last 60 a frame

    def ids(shared_motion: bool) -> int:
        tracker = DriveTracker(DriveConfig(shared_motion=shared_motion))
        frames = [[car(900 + 200 * k - s) for k in range(3)] for s in slide.tolist()]
        for i in range(14, 20):
            frames[i] += [car(1700 + 65 * k - slide[i]) for k in range(4)]
        return len({t.track_id for tracks in play(tracker, [seen(*rows) for rows in frames]) for t in tracks})

    assert ids(True) == 7
    assert ids(False) > 7


def test_a_minute_without_frames_ends_everything() -> None:
    tracker = DriveTracker()
    play(tracker, [seen(car(100))] * 5)
    assert [t.track_id for t in tracker.update(seen(car(100)), 60 * 10**9)] == [2]


def test_config_refuses_scores_that_are_no_odds() -> None:
    with pytest.raises(ValueError, match="confirm_thresholds"):
        DriveConfig(confirm_thresholds=(0.0, 0.5))
    with pytest.raises(ValueError, match="slip_share"):
        DriveConfig(slip_share=0.0)


def test_persistence_confirms_objects_whose_scores_are_those_of_clutter() -> None:
    """Clutter at 0.5 to 0.7 that is never found again, and one car that always scores 0.6."""
    rng, frames = np.random.default_rng(2), []
    for i in range(150):
        false = [car(rng.uniform(0, 90000), rng.uniform(0.5, 0.7), bottom=rng.uniform(300, 900)) for _ in range(4)]
        frames.append(seen(car(100 + 3 * i), *([car(5000 + 3 * i, 0.6)] if i >= 60 else []), *false))
    told = play(DriveTracker(), frames)
    assert len(told[59]) == 1 and all(len(tracks) == 2 for tracks in told[90:])


def test_a_parked_car_is_found_again_behind_a_lorry_that_drove_past() -> None:
    """Its front cuts the car's box from the right down to 115 of 150 px; then it is not detected for 1.6 s."""

    def frame(i: int) -> Detections:
        front, back = 600 - 15 * i, 720 - 15 * i
        lorry = (front, 100, back, 320, SURE, CAR)
        if back > 100 and front < 215:
            return seen(lorry)
        return seen(lorry, (100, 200, min(250, front) if back > 100 else 250, 240, SURE, CAR))

    def ids_of_the_car(cut_boxes: bool) -> set[int]:
        told = play(DriveTracker(DriveConfig(cut_boxes=cut_boxes)), [frame(i) for i in range(60)])
        return {t.track_id for tracks in told for t in tracks if t.box_xyxy[1] > 150 and t.state == "confirmed"}

    assert len(ids_of_the_car(True)) == 1
    assert len(ids_of_the_car(False)) > 1
