import cv2
import numpy as np

from perception.health import HealthEvent, HealthMonitor
from perception.types import Frame

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
    assert watch(moving + [SCENE] * 12 + moving) == [("frozen", True, 14), ("frozen", False, 18)]


def test_out_of_focus_against_its_own_usual_sharpness() -> None:
    sharp = [noisy(SCENE, i) for i in range(30)]
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
