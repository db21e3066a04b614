"""Results as messages of ROS 2 in CDR: what `ros2 bag`, RViz and nodes read, and Foxglove and Rerun too.

Definitions that are not in `rosbags` stand below; a reader finds all of them in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np

from perception.bags.messages import typestore
from perception.cameras.pinhole import PinholeCamera
from perception.sinks import RunInfo
from perception.sinks.mcap.scene import (
    ASIDE_M,
    CELL_M,
    HEALTH_TOPIC,
    Clock,
    Message,
    boxes_on_ground,
    camera_rotation,
    road_grid,
)
from perception.types import CONFIRMED, HealthEvent, Result, Tracks

_VISION_MSGS = {
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n",
    "Point2D": "float64 x\nfloat64 y\n",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n",
    "Detection2D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox2D bbox\nstring id\n",
    "Detection3D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox3D bbox\nstring id\n",
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
    "Detection3DArray": "std_msgs/Header header\nvision_msgs/Detection3D[] detections\n",
}
"""Source: github.com/ros-perception/vision_msgs, branch ros2 (4.x, Humble and later)."""
_ERRORS = frozenset({"lost", "failed", "sink-failed", "stalled"})
_INFO, _WARN, _ERROR = 20, 30, 40
"""Levels of rcl_interfaces/Log."""


@cache
def _store() -> Any:
    from rosbags.typesys import get_types_from_msg

    store = typestore(2)
    types: dict[str, Any] = {}
    for name, text in _VISION_MSGS.items():
        types.update(get_types_from_msg(text, f"vision_msgs/msg/{name}"))
    store.register(types)
    return store


class Ros2Messages:
    """Topics of a source: image, detections; with a calibration also camera_info, detections_3d, tf and road."""

    profile = "ros2"

    def __init__(self, info: RunInfo, jpeg_quality: int) -> None:
        """`jpeg_quality` 0 leaves the images out."""
        self._info, self._quality, self._clock = info, jpeg_quality, Clock(info)
        self._types = _store().types
        self._definitions: dict[str, bytes] = {}

    def sources_changed(self, info: RunInfo) -> None:
        """Know further sources, and forget those that are gone."""
        self._info = info
        self._clock.sources_changed(info)

    def of_result(self, result: Result) -> Iterator[Message]:
        """All messages of one frame."""
        frame, topic = result.frame, f"/{result.frame.source}"
        at_ns = self._clock.of_frame(frame.source, frame.timestamp_ns)
        header = self._header(at_ns, frame.source)
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._quality]
        done, data = cv2.imencode(".jpg", frame.image_bgr, quality) if self._quality else (False, None)
        if done and data is not None:
            image = self._new("sensor_msgs/msg/CompressedImage", header, "jpeg", data.reshape(-1))
            yield self._message(f"{topic}/image/compressed", image, at_ns)
        tracks = result.tracks[result.tracks.states == CONFIRMED]
        yield self._message(f"{topic}/detections", self._detections_2d(tracks, header), at_ns)
        if frame.camera is None:
            return
        ground = self._header(at_ns, f"{frame.source}_ground")
        yield self._message(f"{topic}/camera_info", self._camera_info(result, frame.camera, header), at_ns)
        yield self._message("/tf", self._transform(frame.source, frame.camera, ground), at_ns)
        yield self._message(f"{topic}/detections_3d", self._detections_3d(result, frame.camera, ground), at_ns)
        if result.road is not None:
            grid = road_grid(result.road, frame.camera, frame.size_hw)
            yield self._message(f"{topic}/road", self._grid(grid, ground), at_ns)

    def of_event(self, event: HealthEvent) -> Message:
        """A health event as a log line."""
        from perception.sinks.mcap.foxglove import event_text

        at_ns = self._clock.of_event(event.source, event.timestamp_ns)
        level = _ERROR if event.kind in _ERRORS else _WARN
        if not event.active or event.kind == "ended":
            level = _INFO
        stamp = self._new("builtin_interfaces/msg/Time", at_ns // 10**9, at_ns % 10**9)
        log = self._new("rcl_interfaces/msg/Log", stamp, level, event.source, event_text(event), "", "", 0)
        return self._message(HEALTH_TOPIC, log, at_ns)

    def _detections_2d(self, tracks: Tracks, header: Any) -> Any:
        found = []
        for track in tracks:
            left, top, right, bottom = track.box_xyxy.tolist()
            middle = self._new("vision_msgs/msg/Point2D", (left + right) / 2, (top + bottom) / 2)
            center = self._new("vision_msgs/msg/Pose2D", middle, 0.0)
            box = self._new("vision_msgs/msg/BoundingBox2D", center, right - left, bottom - top)
            hypothesis = self._hypothesis(track.class_id, track.score, self._pose((0, 0, 0)))
            found.append(self._new("vision_msgs/msg/Detection2D", header, [hypothesis], box, str(track.track_id)))
        return self._new("vision_msgs/msg/Detection2DArray", header, found)

    def _detections_3d(self, result: Result, camera: PinholeCamera, header: Any) -> Any:
        found = []
        for row, middle, size, heading in boxes_on_ground(result, camera):
            track = result.tracks[row]
            if track.state != "confirmed":
                continue
            pose = self._pose(middle, (0.0, 0.0, float(np.sin(heading / 2)), float(np.cos(heading / 2))))
            extent = self._new("geometry_msgs/msg/Vector3", *map(float, size))
            box = self._new("vision_msgs/msg/BoundingBox3D", pose, extent)
            variance = np.zeros(36)
            if track.position_std_m is not None:
                std_x, std_z = track.position_std_m
                variance[0], variance[7] = std_z**2, std_x**2  # x ahead, y left
            hypothesis = self._hypothesis(track.class_id, track.score, pose, variance)
            found.append(self._new("vision_msgs/msg/Detection3D", header, [hypothesis], box, str(track.track_id)))
        return self._new("vision_msgs/msg/Detection3DArray", header, found)

    def _hypothesis(self, class_id: int, score: float, pose: Any, variance: np.ndarray | None = None) -> Any:
        names = self._info.spec.class_names
        name = names[class_id] if 0 <= class_id < len(names) else str(class_id)
        at = self._new("geometry_msgs/msg/PoseWithCovariance", pose, np.zeros(36) if variance is None else variance)
        object_ = self._new("vision_msgs/msg/ObjectHypothesis", name, float(score))
        return self._new("vision_msgs/msg/ObjectHypothesisWithPose", object_, at)

    def _camera_info(self, result: Result, camera: PinholeCamera, header: Any) -> Any:
        height, width = result.frame.size_hw
        region = self._new("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        K, P = camera.K_cam2.astype(np.float64).ravel(), camera.P_cam2.astype(np.float64).ravel()
        values = (height, width, "plumb_bob", np.zeros(5), K, np.eye(3).ravel(), P, 0, 0, region)
        return self._new("sensor_msgs/msg/CameraInfo", header, *values)

    def _transform(self, source: str, camera: PinholeCamera, ground: Any) -> Any:
        move = self._new("geometry_msgs/msg/Vector3", 0.0, 0.0, float(camera.height_m))
        turn = self._new("geometry_msgs/msg/Quaternion", *camera_rotation(camera))
        transform = self._new("geometry_msgs/msg/Transform", move, turn)
        stamped = self._new("geometry_msgs/msg/TransformStamped", ground, source, transform)
        return self._new("tf2_msgs/msg/TFMessage", [stamped])

    def _grid(self, grid: np.ndarray, header: Any) -> Any:
        """Occupancy in per cent, where road is free: 0 is certainly road, -1 is not seen."""
        values = np.where(grid.T > 0, 100 - np.round(grid.T / 2.55), -1).astype(np.int8)
        origin = self._pose((0.0, -ASIDE_M, 0.0))
        rows, columns = values.shape
        meta = self._new("nav_msgs/msg/MapMetaData", header.stamp, CELL_M, columns, rows, origin)
        return self._new("nav_msgs/msg/OccupancyGrid", header, meta, values.ravel())

    def _pose(self, xyz: Any, xyzw: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)) -> Any:
        point = self._new("geometry_msgs/msg/Point", *map(float, xyz))
        return self._new("geometry_msgs/msg/Pose", point, self._new("geometry_msgs/msg/Quaternion", *xyzw))

    def _header(self, at_ns: int, frame_id: str) -> Any:
        stamp = self._new("builtin_interfaces/msg/Time", at_ns // 10**9, at_ns % 10**9)
        return self._new("std_msgs/msg/Header", stamp, frame_id)

    def _new(self, name: str, *values: Any) -> Any:
        return self._types[name](*values)

    def _message(self, topic: str, message: Any, at_ns: int) -> Message:
        name, store = message.__msgtype__, _store()
        if name not in self._definitions:
            self._definitions[name] = store.generate_msgdef(name, ros_version=2)[0].encode()
        data = bytes(store.serialize_cdr(message, name))
        return Message(topic, name, "ros2msg", self._definitions[name], "cdr", data, at_ns)
