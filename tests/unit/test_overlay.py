from datetime import datetime

import numpy as np
import pytest

from perception.cameras.letterbox import plan_letterbox
from perception.model import ModelSpec
from perception.overlay import Overlay, _to_frame, radial_speed_mps, time_shown
from perception.types import CLASS_NAMES, Detections, Frame, Result, RoadMask, Track, Tracks

SPEC = ModelSpec(CLASS_NAMES, (384, 1248), road_threshold=128)


def result(size_hw: tuple[int, int], confidence: int = 0, tracks: tuple[Track, ...] = ()) -> Result:
    frame = Frame(np.full((*size_hw, 3), 100, np.uint8), 0, 0)
    mask = np.zeros((96, 312), np.uint8)
    mask[60:] = confidence
    return Result(
        frame, Detections.empty(), Tracks.from_rows(tracks), RoadMask(mask, plan_letterbox(size_hw, SPEC.size_hw))
    )


def test_the_road_is_tinted_from_the_threshold_on_and_in_proportion() -> None:
    def change(confidence: int) -> int:
        drawn = Overlay(SPEC).draw(result((375, 1242), confidence))
        return abs(int(drawn[350, 600, 2]) - 100)

    assert change(127) == 0
    assert 0 < change(150) < change(255)


def test_a_file_shows_its_position_and_a_camera_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    image, now_ns = np.zeros((4, 4, 3), np.uint8), 40_000 * 10**9
    monkeypatch.setattr("time.monotonic_ns", lambda: now_ns)
    monkeypatch.setattr("time.time", lambda: datetime(2026, 5, 4, 12, 0, 1).timestamp())
    shown = {
        "file": time_shown(Frame(image, 61_250_000_000, 0)),
        "file at its own pace": time_shown(Frame(image, 61_250_000_000, 0, captured_ns=now_ns - 10**8)),
        "camera": time_shown(Frame(image, now_ns - 10**9 + 5, 0, captured_ns=now_ns - 750_000_000)),
    }
    assert shown == {"file": "01:01.25", "file at its own pace": "01:01.25", "camera": "12:00:00.25"}


def test_what_is_drawn_does_not_touch_the_frame() -> None:
    given = result((375, 1242), 255, (Track(1, 0, np.array([100, 100, 200, 200], np.float32), 0.9),))
    Overlay(SPEC).draw(given)
    assert (given.frame.image_bgr == 100).all()


@pytest.mark.parametrize("size_hw", [(40, 60), (375, 1242), (1080, 1920), (97, 333)])
def test_any_size_and_any_box(size_hw: tuple[int, int]) -> None:
    boxes = [[-20, -20, 5, 5], [0, 0, 1e5, 1e5], [10, 10, 30, 35], [np.nan, 0, 1, 1]]
    tracks = tuple(Track(i + 1, i, np.array(box, np.float32), 0.5, ttc_s=1.0) for i, box in enumerate(boxes))
    overlay = Overlay(SPEC)
    for _ in range(2):
        assert overlay.draw(result(size_hw, 255, tracks)).shape == (*size_hw, 3)


def test_the_fast_mask_agrees_with_the_exact_one() -> None:
    for size_hw in ((375, 1242), (540, 960), (720, 1280)):
        road = RoadMask(np.zeros((96, 312), np.uint8), plan_letterbox(size_hw, SPEC.size_hw))
        road.confidence[40:, 100:200] = 255
        exact, fast = road.at_frame_size(), _to_frame(road.confidence, road)
        assert exact.shape == fast.shape
        assert np.mean((exact > 128) != (fast > 128)) < 0.003


def test_caption_and_closing_speed() -> None:
    track = Track(
        7,
        0,
        np.zeros(4, np.float32),
        0.9,
        position_m=(3.0, 4.0),
        distance_m=5.0,
        velocity_mps=(0.0, -5.0),
        ttc_s=1.25,
    )
    assert radial_speed_mps(track) == -4.0
    assert Overlay(SPEC).caption(track) == "Car 7  5.0 m  -4 m/s  1.2 s!"
    assert Overlay(SPEC).caption(Track(1, 2, np.zeros(4, np.float32), 0.9)) == "Cyclist 1"


def test_trails_are_forgotten() -> None:
    overlay = Overlay(SPEC)
    track = Track(1, 0, np.array([10, 10, 50, 50], np.float32), 0.9)
    for second in range(5):
        given = result((375, 1242), 0, (track,) if second == 0 else ())
        frame = Frame(given.frame.image_bgr, second * 10**9, second)
        overlay.draw(Result(frame, given.detections, given.tracks, None))
    assert not overlay._trails


def test_the_road_looks_the_same_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    given = result((375, 1242), 200)
    whole = Overlay(SPEC).draw(given)
    monkeypatch.setattr("perception.overlay.STRIP_PIXELS", 1242 * 7)
    assert np.array_equal(Overlay(SPEC).draw(given), whole)
