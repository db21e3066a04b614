"""The MCAP sink, read back with mcap, rosbags and Rerun; and Foxglove's server, with a client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mcap", reason="needs the extra 'ros'")

from perception.cameras.letterbox import plan_letterbox
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.model import ModelSpec
from perception.sinks import RunInfo, SourceInfo
from perception.sinks.foxglove import FoxgloveSink
from perception.sinks.mcap import McapSink
from perception.sinks.mcap.scene import CELL_M, _ground_to_pixels, boxes_on_ground, camera_rotation, road_grid
from perception.types import CLASS_NAMES, Detections, Frame, HealthEvent, Result, RoadMask, Track, Tracks

EPOCH_NS = 1_700_000_000 * 10**9
CAMERA = PinholeCamera(np.array([[100.0, 0, 48, 0], [0, 100, 20, 0], [0, 0, 1, 0]]), 1.5)
INFO = RunInfo(
    ModelSpec(CLASS_NAMES, (64, 96)), (SourceInfo("cam", "a.mp4", "video", False, (64, 96), 10.0, None, EPOCH_NS),)
)


def result(i: int, camera: PinholeCamera | None = CAMERA) -> Result:
    image = np.full((64, 96, 3), 90, np.uint8)
    mask = np.zeros((16, 24), np.uint8)
    mask[8:] = 255
    box = np.array([43, 20, 53, 35], np.float32)  # 10 m ahead: 1 m wide, 1.5 m high
    metric: dict[str, Any] = {}
    if camera is not None:
        metric = {"position_m": (0.0, 10.0), "position_std_m": (0.5, 2.0), "distance_m": 10.0}
        metric["velocity_mps"] = (0.0, -3.0)
    tracks = Tracks.from_rows([Track(7, 0, box, 0.9, **metric)])
    road = RoadMask(mask, plan_letterbox((64, 96), (64, 96)))
    return Result(Frame(image, i * 10**8, i, "cam", camera), Detections.empty(), tracks, road)


def write(path: Path, count: int = 3, camera: PinholeCamera | None = CAMERA, ros2: bool = False) -> Path:
    sink = McapSink.in_folder(path, ros2=ros2)
    sink.open(INFO)
    for i in range(count):
        sink.write(result(i, camera))
    sink.event(HealthEvent("black", "cam", True, 10**8, "dark"))
    sink.event(HealthEvent("lost", "cam", False, None, "is back"))
    sink.close()
    return Path(sink.outputs()[0])


def decoded(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Messages by topic, with mcap's reader and Protobuf's decoder."""
    from mcap.reader import make_reader
    from mcap_protobuf.decoder import DecoderFactory

    found: dict[str, list[tuple[int, Any]]] = {}
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()], validate_crcs=True)
        for one in reader.iter_decoded_messages():
            found.setdefault(one.channel.topic, []).append((one.message.log_time, one.decoded_message))
    return found


def test_foxglove_messages(tmp_path: Path) -> None:
    found = decoded(write(tmp_path))
    assert sorted(found) == [
        "/cam/annotations", "/cam/calibration", "/cam/image", "/cam/road", "/cam/scene", "/cam/transform", "/health"
    ]  # fmt: skip
    assert [at for at, _ in found["/cam/image"]] == [EPOCH_NS, EPOCH_NS + 10**8, EPOCH_NS + 2 * 10**8]
    annotations = found["/cam/annotations"][0][1]
    assert [(p.x, p.y) for p in annotations.points[0].points] == [(43, 20), (53, 20), (53, 35), (43, 35)]
    assert annotations.texts[0].text == "Car 7 10 m"
    assert len(annotations.points) == 2  # the box and the road's outline
    scene = found["/cam/scene"][1][1]
    cube = scene.entities[0].cubes[0]
    assert (cube.pose.position.x, cube.pose.position.y) == (10, 0)
    assert np.allclose([cube.size.x, cube.size.y, cube.size.z], [1.0, 1.0, 1.5])
    assert np.isclose(scene.entities[0].arrows[0].shaft_length, 3.0)
    assert len(found["/cam/calibration"]) == 1
    logs = [(log.level, log.message) for _, log in found["/health"]]
    assert logs == [(3, "black: dark"), (2, "lost over: is back")]
    assert found["/health"][0][0] == EPOCH_NS + 10**8
    grid = found["/cam/road"][0][1]
    cells = np.frombuffer(grid.data, np.uint8).reshape(-1, grid.column_count, 4)
    assert cells[50, 40, 3] == 255  # 10 m ahead, in the middle
    assert cells[0, 0, 3] == 0  # beside the camera: not seen


def test_without_a_calibration_nothing_metric_is_written(tmp_path: Path) -> None:
    assert sorted(decoded(write(tmp_path, camera=None))) == ["/cam/annotations", "/cam/image", "/health"]
    from rosbags.rosbag2 import Reader

    with Reader(write(tmp_path / "ros", camera=None, ros2=True)) as bag:
        assert sorted(bag.topics) == ["/cam/detections", "/cam/image/compressed", "/health"]


def test_ros2_messages_read_by_rosbags_with_the_definitions_in_the_file(tmp_path: Path) -> None:
    from rosbags.highlevel import AnyReader

    path = write(tmp_path, ros2=True)
    found: dict[str, list[Any]] = {}
    with AnyReader([path]) as bag:
        for connection, at_ns, data in bag.messages():
            found.setdefault(connection.topic, []).append((at_ns, bag.deserialize(data, connection.msgtype)))
    assert [at for at, _ in found["/cam/detections"]] == [EPOCH_NS, EPOCH_NS + 10**8, EPOCH_NS + 2 * 10**8]
    detection = found["/cam/detections"][0][1].detections[0]
    assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (48, 27.5)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (10, 15)
    assert (detection.id, detection.results[0].hypothesis.class_id) == ("7", "Car")
    assert np.isclose(detection.results[0].hypothesis.score, 0.9)
    in_space = found["/cam/detections_3d"][0][1]
    assert in_space.header.frame_id == "cam_ground"
    assert in_space.detections[0].bbox.center.position.x == 10
    assert np.allclose(in_space.detections[0].results[0].pose.covariance[[0, 7]], [4.0, 0.25])
    assert found["/cam/camera_info"][0][1].k[0] == 100
    assert found["/cam/road"][0][1].data.reshape(100, 200)[50, 40] == 0  # certainly road
    assert found["/health"][0][1].level == 30
    assert found["/tf"][0][1].transforms[0].transform.translation.z == 1.5


def test_what_we_write_is_a_source_again(tmp_path: Path) -> None:
    from perception.source_options import SourceOptions
    from perception.sources import open_source

    for ros2 in (False, True):
        source = open_source(write(tmp_path / str(ros2), ros2=ros2), SourceOptions(height_m=1.5))
        frames = list(source)
        assert [frame.timestamp_ns for frame in frames] == [0, 10**8, 2 * 10**8]
        assert source.epoch_ns == EPOCH_NS
        assert frames[0].camera is not None
        assert np.allclose(frames[0].camera.K_cam2, CAMERA.K_cam2)


@pytest.mark.parametrize("ros2", [False, True])
def test_rerun_reads_images_and_cameras(ros2: bool, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="needs the extra 'rerun'")
    path, out = write(tmp_path, ros2=ros2), tmp_path / "out.rrd"
    convert = [sys.executable, "-m", "rerun", "mcap", "convert", str(path), "-o", str(out)]
    done = subprocess.run(convert, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [sys.executable, "-m", "rerun", "rrd", "print", "-v", str(out)], capture_output=True, text=True, check=False
    )
    text = shown.stdout + shown.stderr
    for part in ("EncodedImage", "Pinhole"):
        assert part in text, part


def test_a_killed_run_leaves_a_file_that_can_be_read(tmp_path: Path) -> None:
    sink = McapSink.in_folder(tmp_path)
    sink.open(INFO)
    for i in range(400):  # more than one part of a megabyte
        sink.write(result(i))
    data = sink.path.read_bytes()
    sink.close()
    (tmp_path / "killed.mcap").write_bytes(data)
    from perception.sources import open_source

    source = open_source(tmp_path / "killed.mcap")
    assert len(list(source)) > 50
    assert any("cut short" in note for note in source.notes)


def test_the_grid_and_the_camera_agree_with_the_pinhole_model() -> None:
    camera = PinholeCamera(np.array([[100.0, 0, 48, 5], [0, 100, 20, 0], [0, 0, 1, 0.1]]), 1.5, 0.05)
    points = np.array([[0.0, 5.0], [2.0, 12.0], [-3.0, 30.0]])
    assert np.allclose(camera.ground_position(_ground_to_pixels(points, camera)), points)
    x, y, z, w = camera_rotation(camera)
    optical = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    assert np.allclose(optical, [np.cos(0.05), 0, -np.sin(0.05)])  # looks ahead and a little down
    grid = road_grid(RoadMask(np.full((16, 24), 255, np.uint8), plan_letterbox((64, 96), (64, 96))), camera, (64, 96))
    assert grid.shape == (200, 100)
    assert grid[int(10 / CELL_M), 50] == 255


def test_foxglove_serves_on_loopback_alone() -> None:
    for address in ("0.0.0.0:8765", "192.168.1.2:8765", "car:1", "8765", "127.0.0.1:99999"):
        with pytest.raises(UserError, match="--foxglove"):
            FoxgloveSink(address).listen()


def test_a_client_of_foxglove_sees_channels_and_messages(tmp_path: Path) -> None:
    websockets = pytest.importorskip("websockets")
    sink = FoxgloveSink.in_folder(tmp_path)
    sink.open(INFO)
    sink.write(result(0))
    address = sink.outputs()[0]
    with pytest.raises(UserError, match="a free port"):
        FoxgloveSink(address.removeprefix("ws://")).listen()

    async def watch() -> tuple[set[str], bytes]:
        async with websockets.connect(address, subprotocols=["foxglove.sdk.v1"]) as socket:
            channels: dict[str, Any] = {}
            while "/cam/scene" not in channels:
                text = json.loads(await asyncio.wait_for(socket.recv(), 5))
                channels |= {one["topic"]: one for one in text.get("channels", ())}
            wanted = channels["/cam/annotations"]["id"]
            await socket.send(json.dumps({"op": "subscribe", "subscriptions": [{"id": 1, "channelId": wanted}]}))
            await asyncio.sleep(0.2)
            sink.write(result(1))
            data = await asyncio.wait_for(socket.recv(), 5)
            return set(channels), data

    topics, data = asyncio.run(watch())
    assert {"/cam/image", "/cam/annotations", "/cam/scene", "/cam/road"} <= topics
    op, subscription, at_ns = struct.unpack("<BIQ", data[:13])
    assert (op, subscription, at_ns) == (1, 1, EPOCH_NS + 10**8)
    assert b"Car 7 10 m" in data
    sink.close()


def test_cuboids_of_the_network_have_their_size_and_heading() -> None:
    # rotation_y of 0 faces right; the ground frame's yaw is counted from ahead to the left
    for rotation_y, yaw in ((-np.pi / 2, 0.0), (0.0, -np.pi / 2), (np.pi, np.pi / 2)):
        given = result(0)
        (track,) = given.tracks
        tracks = Tracks.from_rows([track._replace(size_m=(4.0, 1.8, 1.5), heading_rad=rotation_y)])
        ((_, middle, size, heading),) = boxes_on_ground(replace(given, tracks=tracks), CAMERA)
        assert middle.tolist() == [10, 0, 0.75]
        assert size.tolist() == [4.0, 1.8, 1.5]
        assert np.isclose(heading, yaw)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_the_recording_with_words(tmp_path: Path) -> None:
    sink = McapSink(Path("/dev/full"))
    sink.open(INFO)
    with pytest.raises(OSError, match="No space left"):
        for i in range(2000):
            sink.write(result(i))
    with contextlib.suppress(OSError):
        sink.close()
