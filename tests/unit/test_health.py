import io

import av
import cv2
import numpy as np
import pytest

from perception.runtime.health import HealthMonitor, StallMonitor
from perception.types import Frame, HealthEvent

SCENE = cv2.resize(np.random.default_rng(3).integers(0, 255, (60, 160, 3)).astype(np.uint8), (640, 240))


def noisy(image: np.ndarray, i: int) -> np.ndarray:
    noise = np.random.default_rng(i).integers(0, 12, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


def watch(pictures: list[np.ndarray], rate_hz: int = 10) -> list[tuple[str, bool, int]]:
    monitor = HealthMonitor("cam")
    events: list[HealthEvent] = []
    for i, image in enumerate(pictures):
        events += monitor.update(Frame(image, i * 10**9 // rate_hz, i, "cam"))
    return [(e.kind, e.active, (e.timestamp_ns or 0) // 10**8) for e in events]


def test_a_healthy_drive_raises_nothing() -> None:
    assert watch([noisy(np.roll(SCENE, 3 * i, axis=1), i) for i in range(40)]) == []


def test_black_begins_within_a_second_and_ends_soon() -> None:
    good = [noisy(SCENE, i) for i in range(10)]
    dark = [noisy(np.zeros_like(SCENE), i) for i in range(12)]
    assert watch(good + dark + good) == [("black", True, 16), ("black", False, 22)]


def test_over_exposed() -> None:
    white = [noisy(np.full_like(SCENE, 250), i) for i in range(12)]
    assert watch([noisy(SCENE, 0), *white]) == [("overexposed", True, 8)]


def test_the_same_picture_again_and_again_is_frozen() -> None:
    moving = [noisy(SCENE, i) for i in range(5)]
    assert watch(moving + [SCENE] * 12 + moving) == [("frozen", True, 12), ("frozen", False, 20)]


def test_a_frozen_picture_is_found_behind_an_encoder_too() -> None:
    """It draws the same picture again and again, a little better each time, and anew at each key frame."""
    held = io.BytesIO()
    with av.open(held, "w", format="matroska") as container:
        options = {"preset": "veryfast", "tune": "zerolatency", "g": "25", "crf": "25"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 640, 240, "yuv420p"
        for i in range(110):
            image = np.roll(cv2.GaussianBlur(SCENE, (0, 0), 4), 4 * min(i, 50), axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        container.mux(stream.encode(None))
    held.seek(0)
    with av.open(held) as container:
        found = watch([p.to_ndarray(format="bgr24") for p in container.decode(video=0)], 25)
    assert [event[:2] for event in found] == [("frozen", True)]  # and not over at the key frames
    assert found[0][2] <= 30  # it stands from 2.0 s on


def test_what_moves_in_a_standing_picture_keeps_it_from_being_frozen() -> None:
    pictures = [SCENE.copy() for _ in range(30)]
    for i, picture in enumerate(pictures):
        picture[100:140, 10 * i : 10 * i + 20] = 255
    assert watch(pictures) == []


def test_out_of_focus_against_its_own_usual_sharpness() -> None:
    sharp = [noisy(np.roll(SCENE, 5 * i, axis=1), i) for i in range(30)]
    soft = [cv2.GaussianBlur(image, (0, 0), 8) for image in sharp[:12]]
    assert [e[:2] for e in watch(sharp + soft + sharp)] == [("blurred", True), ("blurred", False)]


def test_a_new_size_is_an_event_of_its_own() -> None:
    small = cv2.resize(SCENE, (320, 120))
    assert watch([noisy(SCENE, 0), noisy(small, 1), noisy(small, 2)]) == [("size-changed", True, 1)]


def test_a_short_blink_is_not_reported() -> None:
    black = [np.zeros_like(SCENE)] * 3
    assert watch([noisy(SCENE, 0), *black, noisy(SCENE, 1)]) == []


def test_one_pixel_pictures_are_survived() -> None:
    assert watch([np.full((1, 1, 3), i % 2 * 255, np.uint8) for i in range(5)]) == []


def test_a_stall_begins_ends_and_is_reported_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("perception.runtime.health.time.monotonic", lambda: now_s[0])
    monitor = StallMonitor(["front", "rear"], stalled_s=0.8)
    seen = []
    for step in range(30):  # a quarter of a second each
        now_s[0] += 0.25
        monitor.saw_frame("file")  # not watched
        monitor.saw_frame("rear")
        if step < 5 or step >= 20:
            monitor.saw_frame("front")
        seen += [(step, e.source, e.active, e.detail) for e in monitor.update()]
    # the last frame came in step 4; 0.8 s are over in the fourth step after it
    assert seen == [(8, "front", True, "no frame for 1.0 s"), (20, "front", False, "frames again")]


def test_the_end_of_a_source_ends_its_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr("perception.runtime.health.time.monotonic", lambda: now_s[0])
    monitor = StallMonitor(["front", "rear"], stalled_s=0.5)
    now_s[0] = 1.0
    assert [(e.source, e.active) for e in monitor.update()] == [("front", True), ("rear", True)]
    monitor.source_ended("front")
    assert [(e.source, e.active, e.detail) for e in monitor.update()] == [("front", False, "the source has ended")]
    now_s[0] = 9.0
    assert monitor.update() == []
