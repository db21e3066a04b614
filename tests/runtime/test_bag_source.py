"""Bags as sources: written by the libraries of others, read by ours."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from perception.errors import UserError
from perception.source_options import SourceOptions
from perception.sources import open_source
from perception.types import HealthEvent
from tests.runtime.bags import (
    EPOCH_NS,
    STEP_NS,
    K,
    P,
    camera_info,
    encoded_packets,
    jpeg_image,
    raw_image,
    ros_store,
    stamp_of,
    write_bag,
    write_foxglove_video,
    write_mcap_ros2,
)
from tests.runtime.clips import corner_names, corners, number_of, numbered


def raw_topic(count: int = 6, version: int = 2) -> list:
    store = ros_store(version)
    return [(stamp_of(i) + 10**7, raw_image(store, numbered(i), stamp_of(i), version=version)) for i in range(count)]


@pytest.mark.parametrize("kind", ["mcap", "db3", "bag"])
def test_every_format_gives_images_stamps_and_numbers(kind: str, tmp_path: Path) -> None:
    version = 1 if kind == "bag" else 2
    store = ros_store(version)
    topics = {
        "/camera/front/image_raw": raw_topic(6, version),
        "/camera/rear/image_raw/compressed": [
            (stamp_of(i), jpeg_image(store, numbered(10 + i), stamp_of(i), version)) for i in range(4)
        ],
        "/camera/front/camera_info": [(stamp_of(0), camera_info(store, (64, 96), version))],
    }
    path = write_bag(tmp_path / ("drive.bag" if kind == "bag" else "drive"), topics, kind)
    front = open_source(f"{path}:/camera/front/image_raw", SourceOptions(height_m=1.5))
    frames = list(front)
    assert [number_of(frame.image_bgr) for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.timestamp_ns for frame in frames] == [i * STEP_NS for i in range(6)]
    assert [frame.frame_id for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert (front.name, front.kind, front.size_hw, front.frame_count) == (
        "camera-front-image_raw",
        "bag",
        (64, 96),
        6,
    )
    assert front.epoch_ns == EPOCH_NS
    assert front.corrupt == 0
    assert frames[0].camera is not None
    assert frames[0].camera.height_m == 1.5
    assert np.allclose(frames[0].camera.K_cam2.reshape(-1), K)
    front.close()
    rear = open_source(f"rear={path}:/camera/rear/image_raw/compressed")
    assert [number_of(frame.image_bgr) for frame in rear] == [10, 11, 12, 13]
    assert rear.name == "rear"
    assert rear.calibration is None
    rear.close()


def test_images_are_rectified_or_straightened(tmp_path: Path) -> None:
    store = ros_store()
    info = [(stamp_of(0), camera_info(store, (64, 96), coefficients=[0.1, 0, 0, 0, 0]))]
    topics = {"/cam/image_rect": raw_topic(1), "/cam/image_raw": raw_topic(1), "/cam/camera_info": info}
    path = write_bag(tmp_path / "drive", topics)
    rectified = open_source(f"{path}:/cam/image_rect", SourceOptions(height_m=1.5))
    assert rectified.calibration is not None
    assert rectified.calibration.distortion is None
    assert np.allclose(rectified.calibration.camera.P_cam2.reshape(-1), P)
    raw = open_source(f"{path}:/cam/image_raw", SourceOptions(height_m=1.5))
    assert raw.calibration is not None
    assert raw.calibration.distortion is not None
    assert next(iter(raw)).camera is not None
    without = open_source(f"{path}:/cam/image_raw")
    assert without.calibration is None
    assert "--height-m METRES" in without.notes[0]


@pytest.mark.parametrize(("codec", "name"), [("libx264", "h264"), ("libx265", "h265")])
def test_compressed_video(codec: str, name: str, tmp_path: Path) -> None:
    packets = encoded_packets([numbered(i) for i in range(8)], codec)
    assert len(packets) == 8
    path = write_foxglove_video(tmp_path / "drive.mcap", "/front/video", packets, name)
    source = open_source(path, SourceOptions(height_m=1.4))
    frames = list(source)
    assert [number_of(frame.image_bgr) for frame in frames] == list(range(8))
    assert [frame.timestamp_ns for frame in frames] == [i * STEP_NS for i in range(8)]
    assert frames[0].camera is not None
    source.close()

    cut = write_foxglove_video(
        tmp_path / "cut.mcap", "/front/video", packets[2:], name
    )  # from between two key frames
    source = open_source(cut)
    frames = list(source)
    # three packets come before the next key frame; H.265's decoder passes over them and reports nothing
    assert [number_of(frame.image_bgr) for frame in frames][-3:] == [5, 6, 7]
    source.close()


@pytest.mark.parametrize("chunked", [True, False])
def test_a_file_that_was_cut_gives_what_is_whole(chunked: bool, tmp_path: Path) -> None:
    images = [(stamp_of(i), numbered(i)) for i in range(20)]
    whole = write_mcap_ros2(tmp_path / "whole.mcap", "/front", images, chunk_size=60_000)
    source = open_source(whole)
    assert [number_of(frame.image_bgr) for frame in source] == list(range(20))
    assert source.rate_hz == 10
    source.close()
    data = whole.read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: int(len(data) * (0.6 if chunked else 0.3))])
    source = open_source(tmp_path / "cut.mcap")
    numbers = [number_of(frame.image_bgr) for frame in source]
    assert numbers == list(range(len(numbers)))
    assert 0 < len(numbers) < 20
    assert any("cut short" in note for note in source.notes)
    source.close()


def test_topics_are_listed(tmp_path: Path) -> None:
    text = ros_store().types["std_msgs/msg/String"]("hello")
    topics = {"/front": raw_topic(2), "/rear": raw_topic(3), "/chatter": [(stamp_of(0), text)]}
    path = write_bag(tmp_path / "drive", topics)
    with pytest.raises(UserError) as error:
        open_source(path)
    assert "2 topics with images" in error.value.found
    for part in ("/front (sensor_msgs/msg/Image, 2 messages); /rear", "without images that can be read: /chatter"):
        assert part in error.value.expected
    assert error.value.do == f"perception run {path}:/front"
    with pytest.raises(UserError, match="no images on topic '/chatter'"):
        open_source(f"{path}:/chatter")
    assert open_source(f"{path}:rear").frame_count == 3  # the slash may be left out
    alone = write_bag(tmp_path / "alone", {"/chatter": [(stamp_of(0), text)]})
    with pytest.raises(UserError, match="no topic with images"):
        open_source(alone)


def test_stamps_that_jump_stand_still_or_are_missing(tmp_path: Path) -> None:
    store = ros_store()
    stamps = [0, 1, 1, 3, 50_000, 50_001, 2]  # tenths of a second
    messages = [(stamp_of(n), raw_image(store, numbered(n), stamp_of(at))) for n, at in enumerate(stamps)]
    source = open_source(write_bag(tmp_path / "drive", {"/front": messages}), SourceOptions(rate_hz=10))
    times = [frame.timestamp_ns for frame in source]
    assert times == sorted(set(times))
    assert len(times) == 7
    assert "1 images with the stamp of the one before; spaced by the frame rate" in source.notes
    assert "stamps jumped 1 times; the clock went on by one frame each time" in source.notes
    missing = [(stamp_of(n), raw_image(store, numbered(n), 0)) for n in range(3)]
    source = open_source(write_bag(tmp_path / "none", {"/front": missing}))
    assert [frame.timestamp_ns for frame in source] == [0, STEP_NS, 2 * STEP_NS]
    assert "3 messages without a stamp; the time of recording is used" in source.notes


def test_encodings(tmp_path: Path) -> None:
    store, bgr = ros_store(), corners((64, 96))
    rgba = np.dstack([bgr[..., ::-1], np.full((64, 96), 255, np.uint8)])
    grey = np.full((64, 96), 200, np.uint8)
    mosaic = np.empty((64, 96), np.uint8)  # red where RGGB has red
    mosaic[::2, ::2], mosaic[::2, 1::2], mosaic[1::2, ::2], mosaic[1::2, 1::2] = 250, 10, 10, 10
    cases = {
        "rgb8": (bgr[..., ::-1], "RGBW"),
        "bgra8": (np.dstack([bgr, rgba[..., 3]]), "RGBW"),
        "rgba8": (rgba, "RGBW"),
        "mono8": (grey, "WWWW"),
        "mono16": (grey.astype(np.uint16) * 256, "WWWW"),
        "bayer_rggb8": (mosaic, "RRRR"),
    }
    for encoding, (pixels, shown) in cases.items():
        path = write_bag(tmp_path / encoding, {"/a": [(EPOCH_NS, raw_image(store, pixels, EPOCH_NS, encoding))]})
        assert corner_names(next(iter(open_source(path))).image_bgr) == shown, encoding
    depth = raw_image(store, np.ones((64, 96), np.float32), EPOCH_NS, "32FC1")
    with pytest.raises(UserError, match="the encoding '32FC1'"):
        open_source(write_bag(tmp_path / "depth", {"/a": [(EPOCH_NS, depth)]}))


def test_a_broken_message_costs_itself(tmp_path: Path) -> None:
    store = ros_store()
    messages = [(stamp_of(n), jpeg_image(store, numbered(n), stamp_of(n), suffix=".jpg")) for n in range(5)]
    messages[2][1].data = messages[2][1].data[:200]
    source = open_source(write_bag(tmp_path / "drive", {"/front": messages}))
    events: list[HealthEvent] = []
    source.on_event = events.append
    frames = list(source)
    assert [(frame.frame_id, frame.dropped_before) for frame in frames] == [(0, 0), (1, 0), (3, 1), (4, 0)]
    assert source.corrupt == 1
    assert "the end of the image is missing" in events[0].detail


def test_what_is_no_bag(tmp_path: Path) -> None:
    for name in ("a.mcap", "a.bag", "a.db3"):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 10)
        with pytest.raises(UserError):
            open_source(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        open_source(tmp_path / "missing.mcap:/front")
    empty = tmp_path / "b.mcap"
    empty.write_bytes(b"\x89MCAP0\r\n")
    with pytest.raises(UserError, match="no topic with images"):
        open_source(empty)


def test_a_chunk_that_would_unpack_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    import zstandard
    from mcap.records import Chunk

    from perception.bags.mcap_files import _unpacked

    bomb = zstandard.compress(bytes(50_000_000))
    with pytest.raises(ValueError, match="announced"):
        _unpacked(Chunk("zstd", bomb, 0, 0, 0, 1000))


@pytest.mark.parametrize("kind", ["mcap", "db3", "bag"])
def test_damaged_bags_end_in_words(kind: str, tmp_path: Path) -> None:
    """Bytes changed, lengths made huge, pieces cut out: frames come or a `UserError`, nothing else."""
    path = write_bag(
        tmp_path / ("a.bag" if kind == "bag" else "a"), {"/c": raw_topic(3, 1 if kind == "bag" else 2)}, kind
    )
    whole = (path if kind == "bag" else next(path.glob(f"*.{kind}"))).read_bytes()
    rng, ends = random.Random(0), set()
    for _ in range(60):
        data = bytearray(whole)
        at = rng.randrange(len(data))
        damage = rng.randrange(3)
        if damage == 0:
            data[at] = rng.randrange(256)
        elif damage == 1:
            data[at : at + 8] = rng.choice((b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f\0\0\0\0"))
        else:
            del data[at : at + rng.randrange(1, 64)]
        (tmp_path / f"b.{kind}").write_bytes(data)
        try:
            source = open_source(f"{tmp_path / f'b.{kind}'}:/c")
            ends.add(len(list(source)))
            source.close()
        except UserError:
            ends.add("refused")
    assert {3, "refused"} <= ends
