"""Bags that tests make, with the libraries of others: rosbags' writers, mcap's for ROS 2, Foxglove's SDK."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs the extra 'ros'")

EPOCH_NS = 1_700_000_000 * 10**9
"""Stamp of the first image."""
STEP_NS = 10**8
K = [200.0, 0, 48, 0, 200, 32, 0, 0, 1]
P = [190.0, 0, 47, 0, 0, 190, 31, 0, 0, 0, 1, 0]


def stamp_of(number: int) -> int:
    return EPOCH_NS + number * STEP_NS


def ros_store(version: int = 2) -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS1_NOETIC if version == 1 else Stores.ROS2_HUMBLE)


def _header(store: Any, stamp_ns: int, version: int) -> Any:
    time = store.types["builtin_interfaces/msg/Time"](stamp_ns // 10**9, stamp_ns % 10**9)
    kind = store.types["std_msgs/msg/Header"]
    return kind(0, time, "front") if version == 1 else kind(time, "front")


def raw_image(store: Any, pixels: np.ndarray, stamp_ns: int, encoding: str = "bgr8", version: int = 2) -> Any:
    """A sensor_msgs/Image; `pixels` (H, W) or (H, W, C) of any type."""
    flat = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    kind = store.types["sensor_msgs/msg/Image"]
    header = _header(store, stamp_ns, version)
    return kind(header, *pixels.shape[:2], encoding, 0, flat.shape[1], flat.reshape(-1))


def jpeg_image(store: Any, image_bgr: np.ndarray, stamp_ns: int, version: int = 2, suffix: str = ".png") -> Any:
    data = cv2.imencode(suffix, image_bgr)[1].reshape(-1)
    return store.types["sensor_msgs/msg/CompressedImage"](_header(store, stamp_ns, version), suffix[1:], data)


def camera_info(store: Any, size_hw: tuple[int, int], version: int = 2, coefficients: Sequence[float] = ()) -> Any:
    region = store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return store.types["sensor_msgs/msg/CameraInfo"](
        _header(store, EPOCH_NS, version),
        *size_hw,
        "plumb_bob",
        np.array(coefficients, np.float64),
        np.array(K),
        np.eye(3).reshape(-1),
        np.array(P),
        0,
        0,
        region,
    )


def write_bag(path: Path, topics: dict[str, Iterable[tuple[int, Any]]], kind: str = "mcap") -> Path:
    """A bag of (recording time, message) by topic, with rosbags' writers.

    Args:
        path: of the bag; its folder's own for ROS 2.
        topics: messages of one type each.
        kind: `mcap` or `db3` for ROS 2, `bag` for ROS 1.
    """
    from rosbags.rosbag1 import Writer as Writer1
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer as Writer2

    store = ros_store(1 if kind == "bag" else 2)
    if kind == "bag":
        writer: Any = Writer1(path)
    else:
        plugin = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
        writer = Writer2(path, version=9, storage_plugin=plugin)
    serialize = store.serialize_ros1 if kind == "bag" else store.serialize_cdr
    with writer:
        rows = []
        for topic, messages in topics.items():
            messages = list(messages)
            name = messages[0][1].__msgtype__
            connection = writer.add_connection(topic, name, typestore=store)
            rows += [(log_ns, connection, serialize(message, name)) for log_ns, message in messages]
        for log_ns, connection, data in sorted(rows, key=lambda row: row[0]):
            writer.write(connection, log_ns, bytes(data))
    return path


def write_mcap_ros2(path: Path, topic: str, images: Iterable[tuple[int, np.ndarray]], **options: Any) -> Path:
    """Raw images with mcap's own writer for ROS 2; `options` go to it."""
    from mcap_ros2.writer import Writer

    definition = (
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\n"
        "uint8[] data\n" + "=" * 80 + "\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
        "" + "=" * 80 + "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
    )
    with path.open("wb") as file:
        writer = Writer(file, **options)
        schema = writer.register_msgdef("sensor_msgs/msg/Image", definition)
        for number, (stamp_ns, image) in enumerate(images):
            message = {
                "header": {"stamp": {"sec": stamp_ns // 10**9, "nanosec": stamp_ns % 10**9}, "frame_id": "front"},
                "height": image.shape[0],
                "width": image.shape[1],
                "encoding": "bgr8",
                "is_bigendian": 0,
                "step": image.shape[1] * 3,
                "data": image.tobytes(),
            }
            writer.write_message(topic, schema, message, log_time=stamp_ns + 10**7, sequence=number)
        writer.finish()
    return path


def encoded_packets(images: Sequence[np.ndarray], codec: str = "libx264") -> list[bytes]:
    """One Annex B packet an image, without reordering, as Foxglove's CompressedVideo has it."""
    import av

    context: Any = av.CodecContext.create(codec, "w")
    context.height, context.width = images[0].shape[:2]
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, 10)
    tune = {"x265-params": "bframes=0:keyint=5:log-level=none", "tune": "zerolatency"}
    context.options = tune if codec == "libx265" else {"bf": "0", "g": "5", "crf": "10", "tune": "zerolatency"}
    packets: list[bytes] = []
    for number, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, "bgr24").reformat(format="yuv420p")
        frame.pts = number
        packets += [bytes(packet) for packet in context.encode(frame)]
    return packets + [bytes(packet) for packet in context.encode(None)]


def write_foxglove_video(path: Path, topic: str, packets: Iterable[bytes], codec: str = "h264") -> Path:
    """CompressedVideo and CameraCalibration in Protobuf, with Foxglove's SDK."""
    import foxglove
    from foxglove.channels import CameraCalibrationChannel, CompressedVideoChannel
    from foxglove.messages import CameraCalibration, CompressedVideo, Timestamp

    context = foxglove.Context()
    with foxglove.open_mcap(str(path), context=context):
        calibration = CameraCalibrationChannel(topic.rpartition("/")[0] + "/calibration", context=context)
        channel = CompressedVideoChannel(topic, context=context)
        calibration.log(CameraCalibration(width=96, height=64, K=K, P=P, D=[], R=[]), log_time=EPOCH_NS)
        for number, packet in enumerate(packets):
            stamp = Timestamp(stamp_of(number) // 10**9, stamp_of(number) % 10**9)
            channel.log(
                CompressedVideo(timestamp=stamp, frame_id="front", data=packet, format=codec),
                log_time=stamp_of(number),
            )
    return path
