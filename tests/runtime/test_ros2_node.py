"""The ROS 2 node with a stand-in for rclpy, which nobody can install from PyPI: what goes in and what comes out."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rosbags", reason="needs the extra 'ros'")

from perception.cli.main import main
from perception.sinks.mcap.ros2 import _store
from tests.runtime.bags import EPOCH_NS, jpeg_image, raw_image, ros_store, stamp_of
from tests.runtime.clips import numbered


class Node:
    """Keeps what was published, and spins through given messages."""

    def __init__(self, messages: list[bytes]) -> None:
        self.messages, self.published, self.subscribed = messages, [], []
        self.take: Callable[[bytes], None] = lambda data: None
        self.destroyed = False

    def create_subscription(self, kind: Any, topic: str, callback: Any, qos: Any, *, raw: bool) -> None:
        assert raw
        self.subscribed.append((kind, topic, qos))
        self.take = callback

    def create_publisher(self, kind: Any, topic: str, depth: int) -> Any:
        return SimpleNamespace(publish=lambda data: self.published.append((topic, kind, bytes(data))))

    def destroy_node(self) -> None:
        self.destroyed = True

    def spin(self) -> None:
        for data in self.messages:
            count = len(self.published)
            self.take(data)
            end = time.monotonic() + 10
            while len(self.published) == count and time.monotonic() < end and len(data) > 10:
                time.sleep(0.01)


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[bytes]], Node]:
    """Installs the stand-in; returns a function that makes the node."""

    def install(messages: list[bytes]) -> Node:
        node = Node(messages)
        rclpy, qos = ModuleType("rclpy"), ModuleType("rclpy.qos")
        utilities = ModuleType("rosidl_runtime_py.utilities")
        names = {"init": lambda args: None, "create_node": lambda name: node, "try_shutdown": lambda: None}
        for name, value in {**names, "spin": lambda n: n.spin()}.items():
            setattr(rclpy, name, value)
        qos.qos_profile_sensor_data = "sensor data"  # type: ignore[attr-defined]
        utilities.get_message = lambda name: name  # type: ignore[attr-defined]
        for module in (rclpy, qos, utilities, ModuleType("rosidl_runtime_py")):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return node

    return install


@pytest.mark.parametrize("compressed", [False, True])
def test_images_in_detections_out(
    compressed: bool, ros: Any, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ros_store()
    make = jpeg_image if compressed else raw_image
    images = [make(store, numbered(i, (96, 320)), stamp_of(i)) for i in range(4)]
    messages = [bytes(store.serialize_cdr(image, image.__msgtype__)) for image in images]
    node = ros([messages[0], b"\0\1\0\0no", *messages[1:]])
    words = ["ros2", "--topic", "/front", "--name", "front", "--model", str(tiny_model), "--json"]
    assert main([*words, *(["--compressed"] if compressed else [])]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["frames"] == 4
    kind = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
    assert node.subscribed == [(kind, "/front", "sensor data")]
    assert node.destroyed
    topics = {(topic, kind) for topic, kind, _ in node.published}
    assert topics == {("/front/detections", "vision_msgs/msg/Detection2DArray")}
    read = [_store().deserialize_cdr(data, kind) for _, kind, data in node.published]
    assert [r.header.stamp.sec * 10**9 + r.header.stamp.nanosec for r in read] == [stamp_of(i) for i in range(4)]
    assert stamp_of(0) == EPOCH_NS
    assert read[-1].detections[0].results[0].hypothesis.class_id == "Car"
    assert threading.active_count() < 20


def test_without_ros_a_sentence_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rclpy", None)
    assert main(["ros2"]) == 2
    assert "ROS 2 is not installed for this Python (it is not on PyPI)" in capsys.readouterr().err
