"""`perception ros2`: a ROS 2 node, images in, detections out.

`rclpy` comes with ROS and not from PyPI. This file is written against its documented interface and tested with a
stand-in for it; it has not been run on a robot. Messages travel serialised, so decoding needs no message package.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from perception.bags.images import compressed_to_bgr, pixels_to_bgr
from perception.bags.messages import image_of, read_ros, typestore
from perception.cli.options import CommandOptions, parse_options
from perception.cli.run_summary import as_text, summarise
from perception.errors import MissingDependencyError, UserError
from perception.sinks import RunInfo, Sink
from perception.source_options import SourceOptions
from perception.sources import Source
from perception.types import Frame, Result

WAITING = 2
"""Images that wait for the network; older ones are dropped and counted."""


@dataclass(frozen=True)
class Ros2Options(CommandOptions):
    """Run as a ROS 2 node: subscribe to an image topic, publish detections. Needs a ROS 2 installation.

    Publishes NAME/detections, and with a calibration NAME/detections_3d, NAME/road, NAME/camera_info and /tf.
    """

    topic: str = "/image_raw"
    """Image topic."""
    compressed: bool = False
    """The topic holds sensor_msgs/CompressedImage instead of sensor_msgs/Image."""
    name: str = "camera"
    """Namespace of the topics that are published, and name of the node."""
    model: Path | None = None
    """ONNX file. Default: the shipped one for wide images."""
    camera: Path | None = None
    """Calibration for distances, from perception calibrate."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """Where the network runs."""
    threads: int = 0
    """CPU threads of the network; 0: one per core."""
    json: bool = False
    """Print the summary as JSON."""


class RosTopic(Source):
    """The images of a subscription. Its time is the header's stamp, nanoseconds since 1970."""

    kind = "ros2"
    live = True

    def __init__(self, topic: str, msgtype: str, name: str) -> None:
        super().__init__(topic, name, SourceOptions())
        self.epoch_ns = 0
        self._msgtype = msgtype
        self._waiting: queue.Queue[tuple[bytes, int]] = queue.Queue(WAITING)
        self._dropped, self._lock = 0, threading.Lock()

    def take(self, data: bytes) -> None:
        """Callback of the subscription: one serialised message."""
        with self._lock:
            if self._waiting.full():
                with contextlib.suppress(queue.Empty):
                    self._waiting.get_nowait()
                    self._dropped += 1
            self._waiting.put_nowait((bytes(data), time.monotonic_ns()))

    def read(self) -> Iterator[Frame]:
        number, last_ns = 0, -1
        while not self.stopped.is_set():
            try:
                data, arrival_ns = self._waiting.get(timeout=0.1)
            except queue.Empty:
                continue
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            number += dropped
            start = time.perf_counter()
            try:
                message = image_of(read_ros(data, self._msgtype, "cdr"), self._msgtype)
                read = pixels_to_bgr if message.size_hw is not None else compressed_to_bgr
                image = read(message, self.options.max_megapixels)
            except (ValueError, UserError) as error:
                self.emit_corrupt(f"a message of {self.location}: {getattr(error, 'found', error)}; skipped")
                with self._lock:
                    self._dropped += dropped + 1
                continue
            self.decode_ms = (time.perf_counter() - start) * 1e3
            stamp_ns = message.stamp_ns or time.time_ns() - (time.monotonic_ns() - arrival_ns)
            last_ns = max(stamp_ns, last_ns + 1)
            age_ns = max(0, time.time_ns() - stamp_ns)
            yield Frame(image, last_ns, number, self.name, None, dropped, time.monotonic_ns() - age_ns)
            number += 1


class RosPublisher(Sink):
    """Publishes the messages that the MCAP sink writes with `ros2=True`, without the images."""

    name = "ros2"
    lossless = False

    def __init__(self, node: Any, message_class: Any) -> None:
        """
        Args:
            node: of rclpy.
            message_class: a type's name → its class.
        """
        self._node, self._message_class = node, message_class
        self._publishers: dict[str, Any] = {}

    @classmethod
    def in_folder(cls, folder: Path) -> RosPublisher:
        raise UserError("the sink 'ros2' belongs to perception ros2", do="perception ros2 --topic /image_raw")

    def open(self, info: RunInfo) -> None:
        from perception.sinks.mcap.ros2 import Ros2Messages

        self._messages = Ros2Messages(info, 0)

    def write(self, result: Result) -> None:
        for message in self._messages.of_result(result):
            publisher = self._publishers.get(message.topic)
            if publisher is None:
                kind = self._message_class(message.schema)
                publisher = self._publishers[message.topic] = self._node.create_publisher(kind, message.topic, 10)
            publisher.publish(message.data)  # rclpy takes serialised messages as bytes

    def close(self) -> None:
        self._publishers.clear()


def main(argv: list[str]) -> int:
    """Run until ROS or Ctrl-C ends it; 0 where images came."""
    options = parse_options(Ros2Options, argv, "perception ros2")
    try:
        import rclpy
        from rclpy.qos import qos_profile_sensor_data
        from rosidl_runtime_py.utilities import get_message
    except ImportError as error:
        raise UserError(
            f"'{error.name}' cannot be imported: ROS 2 is not installed for this Python (it is not on PyPI)",
            "a ROS 2 installation",
            "source /opt/ros/DISTRO/setup.bash   (without ROS, bags are read: perception run BAG --mcap)",
        ) from None
    try:
        typestore(2)
    except ImportError:
        raise MissingDependencyError("rosbags", "ros", "perception ros2") from None
    msgtype = "sensor_msgs/msg/CompressedImage" if options.compressed else "sensor_msgs/msg/Image"
    source = RosTopic(options.topic, msgtype, options.name)
    rclpy.init(args=[])
    node = rclpy.create_node(f"perception_{options.name}")
    try:
        node.create_subscription(get_message(msgtype), options.topic, source.take, qos_profile_sensor_data, raw=True)
        return _run(options, source, RosPublisher(node, get_message), lambda: rclpy.spin(node))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _run(options: Ros2Options, source: RosTopic, publisher: RosPublisher, spin: Any) -> int:
    from perception.backends import load_model
    from perception.cameras.files import read_camera
    from perception.model import default_model
    from perception.runtime.pipeline import Pipeline

    begin = time.perf_counter()
    model_path = options.model or default_model(None)
    if options.camera:
        source.calibration = read_camera(options.camera)
    pipeline = Pipeline([source], load_model(model_path, options.device, options.threads), [publisher])

    def listen() -> None:
        try:
            spin()
        finally:
            pipeline.stop()  # ROS is shutting down

    threading.Thread(target=listen, name="ros2", daemon=True).start()
    print(f"{options.topic} → /{options.name}/detections", file=sys.stderr)
    try:
        for _ in pipeline:
            pass
    except KeyboardInterrupt:
        pipeline.stop()
        pipeline.close()
    summary = summarise(pipeline, model_path, time.perf_counter() - begin, "")
    print(json.dumps(summary) if options.json else as_text(summary))
    return 0 if summary["frames"] else 1
