"""A camera device, with OpenCV's capture replaced: nothing here has a lens."""

import cv2
import numpy as np
import pytest

from perception.errors import UserError
from perception.source_options import SourceOptions
from perception.sources import open_source
from perception.types import HealthEvent


class FakeCapture:
    """Works for some frames, is unplugged, and is back at the next attempt but one."""

    opened = 0
    attempts_that_fail: tuple[int, ...] = ()

    def __init__(self, device: object) -> None:
        type(self).opened += 1
        self.works = type(self).opened not in self.attempts_that_fail
        self.left = 3

    def isOpened(self) -> bool:
        return self.works

    def get(self, _: int) -> float:
        return {cv2.CAP_PROP_FRAME_WIDTH: 64, cv2.CAP_PROP_FRAME_HEIGHT: 48, cv2.CAP_PROP_FPS: 30}[_]

    def set(self, *_: object) -> bool:
        return True

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeCapture]:
    kind = type("Fake", (FakeCapture,), {"opened": 0})
    monkeypatch.setattr(cv2, "VideoCapture", kind)
    return kind


def test_frames_have_the_time_of_their_grab(fake: type[FakeCapture]) -> None:
    source = open_source("camera:0")
    frames = [frame for frame, _ in zip(source, range(2), strict=False)]
    assert source.live
    assert (source.size_hw, source.rate_hz) == ((48, 64), 30)
    assert frames[1].timestamp_ns > frames[0].timestamp_ns
    assert frames[0].captured_ns == frames[0].timestamp_ns


def test_an_unplugged_camera_is_opened_again(fake: type[FakeCapture]) -> None:
    fake.attempts_that_fail = (2, 3)
    source = open_source("/dev/video0", SourceOptions(retry_s=0.001))
    events: list[HealthEvent] = []
    source.on_event = events.append
    frames = [frame for frame, _ in zip(source, range(5), strict=False)]
    assert [f.frame_id for f in frames] == [0, 1, 2, 3, 4]
    assert source.reconnects == 1
    assert [(e.kind, e.active) for e in events] == [("lost", True), ("lost", False)]


def test_it_gives_up_when_told_to(fake: type[FakeCapture]) -> None:
    fake.attempts_that_fail = tuple(range(2, 99))
    source = open_source("camera:1", SourceOptions(retry_s=0.001, reconnects=3))
    assert len(list(source)) == 3


def test_no_camera_is_a_sentence(fake: type[FakeCapture]) -> None:
    fake.attempts_that_fail = (1,)
    with pytest.raises(UserError, match="no camera answers"):
        open_source("camera:7")
