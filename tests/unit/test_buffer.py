"""Drops by rule: which frame ids come out, and what the counts say."""

import threading
import time

import numpy as np

from perception.runtime.queues import Channel, FrameBuffer, QueuedFrame
from perception.types import Frame


def frame(frame_id: int, source: str = "a", dropped: int = 0) -> QueuedFrame:
    return QueuedFrame(Frame(np.zeros((2, 2, 3), np.uint8), frame_id, frame_id, source, None, dropped), {})


def drain(buffer: FrameBuffer, most: int = 1) -> list[tuple[int, int]]:
    found = []
    while batch := buffer.take(most):
        found += [(item.frame.frame_id, item.frame.dropped_before) for item in batch]
    return found


def test_drop_oldest_keeps_the_newest_and_counts() -> None:
    buffer = FrameBuffer({"a": "drop-oldest"}, 2)
    for i in range(5):
        assert buffer.put("a", frame(i))
    buffer.end("a")
    assert drain(buffer) == [(3, 3), (4, 0)]
    assert buffer.dropped() == {"a": 3}


def test_a_source_is_named_once_after_its_last_frame_and_the_last_one_never() -> None:
    buffer = FrameBuffer({"a": "wait", "b": "wait"}, 2)
    buffer.put("a", frame(0))
    buffer.end("a")
    assert buffer.finished_sources() == []  # its frame still waits
    assert len(buffer.take(1) or []) == 1
    assert buffer.take(1, timeout_s=60) == []  # does not wait for b
    assert buffer.finished_sources() == ["a"] and buffer.finished_sources() == []
    buffer.end("b")
    assert buffer.take(1) is None and buffer.finished_sources() == []


def test_drop_newest_keeps_the_oldest_and_counts_at_the_next() -> None:
    buffer = FrameBuffer({"a": "drop-newest"}, 2)
    for i in range(5):
        buffer.put("a", frame(i))
    assert buffer.take(1)[0].frame.frame_id == 0  # type: ignore[index]
    buffer.put("a", frame(5))
    buffer.end("a")
    assert drain(buffer) == [(1, 0), (5, 3)]


def test_losses_of_a_dropped_frame_are_not_forgotten() -> None:
    buffer = FrameBuffer({"a": "drop-oldest"}, 1)
    buffer.put("a", frame(4, dropped=4))
    buffer.put("a", frame(5))
    buffer.end("a")
    assert drain(buffer) == [(5, 5)]


def test_wait_holds_the_reader_back() -> None:
    buffer = FrameBuffer({"a": "wait"}, 1)
    done = threading.Event()

    def read() -> None:
        for i in range(4):
            buffer.put("a", frame(i))
        buffer.end("a")
        done.set()

    threading.Thread(target=read, daemon=True).start()
    assert drain(buffer) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert done.wait(5)


def test_stop_lets_a_waiting_reader_go() -> None:
    buffer = FrameBuffer({"a": "wait"}, 1)
    buffer.put("a", frame(0))
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(buffer.put("a", frame(1))))
    thread.start()
    buffer.stop()
    thread.join(5)
    assert answers == [False]
    assert buffer.take() is None


def test_a_batch_takes_one_of_each_and_starves_none() -> None:
    buffer = FrameBuffer(dict.fromkeys("abc", "wait"), 4)  # type: ignore[arg-type]
    for i in range(2):
        for name in "abc":
            buffer.put(name, frame(i, name))
    for name in "abc":
        buffer.end(name)
    served = []
    while batch := buffer.take(2):
        served.append([(item.frame.source, item.frame.frame_id) for item in batch])
    assert served == [[("a", 0), ("b", 0)], [("c", 0), ("a", 1)], [("b", 1), ("c", 1)]]


def test_timeout_is_an_empty_batch() -> None:
    assert FrameBuffer({"a": "wait"}).take(1, 0.01) == []


def test_channel_delivers_in_order_then_ends() -> None:
    channel: Channel[int] = Channel(8)
    for i in range(3):
        assert channel.put(i)
    channel.close()
    assert list(channel) == [0, 1, 2]
    assert not channel.put(3)


def test_channel_newest_pushes_the_oldest_out() -> None:
    channel: Channel[int] = Channel(2)
    pushed = [list(channel.put_drop_oldest(i)) for i in range(4)]
    assert pushed == [[], [], [0], [1]]
    assert not channel.put(9, timeout_s=0.01)
    channel.close(discard=True)
    assert list(channel) == []


def test_channel_that_expires_lets_everyone_go_and_keeps_what_was_inside() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.put(2)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(channel.put(3)))  # waits for room
    thread.start()
    channel.set_deadline(time.monotonic() + 0.05)
    thread.join(5)
    assert answers == [False]
    assert list(channel) == []
    assert channel.expired == [1, 2]
    assert channel.has_expired


def test_frames_dropped_at_shutdown_are_counted() -> None:
    buffer = FrameBuffer({"a": "wait", "b": "drop-newest"}, 2)
    buffer.put("a", frame(0))
    buffer.put("a", frame(5, dropped=4))
    for i in range(4):
        buffer.put("b", frame(i, "b"))
    buffer.stop()
    assert not buffer.put("a", frame(6))
    assert buffer.dropped_at_shutdown() == {"a": 1 + 5 + 1, "b": 2 + 2}
