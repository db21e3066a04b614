"""Results as messages with Foxglove's schemas, in Protobuf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import foxglove.messages as fm
import numpy as np

from perception.cameras.pinhole import PinholeCamera
from perception.redact import printable, redact
from perception.sinks import RunInfo
from perception.sinks.jsonl import road_record
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

_COLORS = ((0.2, 0.8, 0.3), (1.0, 0.6, 0.1), (0.3, 0.6, 1.0), (0.9, 0.3, 0.8))
_ERRORS = frozenset({"lost", "failed", "sink-failed", "stalled"})


class FoxgloveMessages:
    """Topics of a source: image, annotations, road; with a calibration also calibration, scene and transform."""

    profile = ""

    def __init__(self, info: RunInfo, jpeg_quality: int) -> None:
        self._info, self._quality, self._clock = info, jpeg_quality, Clock(info)
        self._calibrated: dict[str, tuple[PinholeCamera, int]] = {}

    def sources_changed(self, info: RunInfo) -> None:
        """Know further sources, and forget those that are gone."""
        self._info = info
        self._clock.sources_changed(info)

    def of_result(self, result: Result) -> Iterator[Message]:
        """All messages of one frame."""
        frame = result.frame
        at_ns = self._clock.of_frame(frame.source, frame.timestamp_ns)
        stamp = fm.Timestamp(at_ns // 10**9, at_ns % 10**9)
        topic = f"/{frame.source}"
        tracks = result.tracks[result.tracks.states == CONFIRMED]
        done, data = cv2.imencode(".jpg", frame.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        if done:
            image = fm.CompressedImage(timestamp=stamp, frame_id=frame.source, data=data.tobytes(), format="jpeg")
            yield _message(f"{topic}/image", image, at_ns)
        yield _message(f"{topic}/annotations", self._annotations(result, tracks, stamp), at_ns)
        if frame.camera is None:
            return
        known = self._calibrated.get(frame.source)
        if known is None or known[0] is not frame.camera or not 0 <= at_ns - known[1] < 10**9:
            self._calibrated[frame.source] = (frame.camera, at_ns)  # again each second, for who joins late
            yield _message(f"{topic}/calibration", _calibration(result, frame.camera, stamp), at_ns)
            yield _message(f"{topic}/transform", _transform(result, frame.camera, stamp), at_ns)
        yield _message(f"{topic}/scene", self._scene(result, frame.camera, stamp), at_ns)
        if result.road is not None:
            grid = road_grid(result.road, frame.camera, frame.size_hw)
            yield _message(f"{topic}/road", _grid(grid, frame.source, stamp), at_ns)

    def of_event(self, event: HealthEvent) -> Message:
        """A health event as a log line."""
        at_ns = self._clock.of_event(event.source, event.timestamp_ns)
        level = fm.LogLevel.Error if event.kind in _ERRORS else fm.LogLevel.Warning
        log = fm.Log(
            timestamp=fm.Timestamp(at_ns // 10**9, at_ns % 10**9),
            level=level if event.active and event.kind != "ended" else fm.LogLevel.Info,
            message=event_text(event),
            name=event.source,
        )
        return _message(HEALTH_TOPIC, log, at_ns)

    def _label(self, class_id: int, track_id: int) -> str:
        names = self._info.spec.class_names
        return f"{names[class_id] if 0 <= class_id < len(names) else class_id} {track_id}"

    def _annotations(self, result: Result, tracks: Tracks, stamp: Any) -> Any:
        """Boxes with their labels, and the outline of the road."""
        points, texts = [], []
        for track in tracks:
            left, top, right, bottom = track.box_xyxy.tolist()
            color = _color(track.class_id)
            corners = [fm.Point2(x=x, y=y) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]
            points.append(_loop(stamp, corners, color, 2.0))
            distance = "" if track.distance_m is None else f" {track.distance_m:.0f} m"
            texts.append(
                fm.TextAnnotation(
                    timestamp=stamp,
                    position=fm.Point2(x=left, y=top),
                    text=self._label(track.class_id, track.track_id) + distance,
                    font_size=14.0,
                    text_color=fm.Color(r=1.0, g=1.0, b=1.0, a=1.0),
                    background_color=color,
                )
            )
        if result.road is not None:
            outline = road_record(result.road, self._info.spec.road_threshold)["outline_xy"]
            if outline:
                corners = [fm.Point2(x=x, y=y) for x, y in outline]
                points.append(_loop(stamp, corners, fm.Color(r=0.1, g=0.7, b=0.8, a=1.0), 2.0))
        return fm.ImageAnnotations(timestamp=stamp, points=points, texts=texts)

    def _scene(self, result: Result, camera: PinholeCamera, stamp: Any) -> Any:
        """A cube, an arrow of the velocity and a label for each object; what was there before is deleted."""
        source = result.frame.source
        entities = []
        for row, middle, size, heading in boxes_on_ground(result, camera):
            track = result.tracks[row]
            if track.state == "tentative":
                continue
            position = fm.Vector3(x=float(middle[0]), y=float(middle[1]), z=float(middle[2]))
            pose = fm.Pose(position=position, orientation=_about_z(heading))
            extent = fm.Vector3(x=float(size[0]), y=float(size[1]), z=float(size[2]))
            above = fm.Vector3(x=float(middle[0]), y=float(middle[1]), z=float(size[2]) + 0.5)
            entities.append(
                fm.SceneEntity(
                    timestamp=stamp,
                    frame_id=f"{source}_ground",
                    id=str(track.track_id),
                    cubes=[fm.CubePrimitive(pose=pose, size=extent, color=_color(track.class_id, 0.6))],
                    texts=[
                        fm.TextPrimitive(
                            pose=fm.Pose(position=above, orientation=_about_z(0.0)),
                            billboard=True,
                            font_size=0.7,
                            color=fm.Color(r=1.0, g=1.0, b=1.0, a=1.0),
                            text=self._label(track.class_id, track.track_id),
                        )
                    ],
                    arrows=_arrows(track.velocity_mps, position, track.class_id),
                )
            )
        gone = fm.SceneEntityDeletion(timestamp=stamp, type=fm.SceneEntityDeletionType.All)
        return fm.SceneUpdate(deletions=[gone], entities=entities)


def event_text(event: HealthEvent) -> str:
    """One line for people."""
    return printable(redact(f"{event.kind}{'' if event.active else ' over'}: {event.detail}".rstrip(": ")))


def _message(topic: str, message: Any, at_ns: int) -> Message:
    schema = message.get_schema()
    return Message(topic, schema.name, schema.encoding, schema.data, "protobuf", message.encode(), at_ns)


def _color(class_id: int, alpha: float = 1.0) -> Any:
    red, green, blue = _COLORS[class_id % len(_COLORS)]
    return fm.Color(r=red, g=green, b=blue, a=alpha)


def _loop(stamp: Any, points: list[Any], color: Any, thickness: float) -> Any:
    kind = fm.PointsAnnotationType.LineLoop
    return fm.PointsAnnotation(timestamp=stamp, type=kind, points=points, outline_color=color, thickness=thickness)


def _about_z(angle_rad: float) -> Any:
    return fm.Quaternion(x=0.0, y=0.0, z=float(np.sin(angle_rad / 2)), w=float(np.cos(angle_rad / 2)))


def _arrows(velocity_mps: tuple[float, float] | None, position: Any, class_id: int) -> list[Any]:
    """Where the object will be in a second, seen from the camera; none below walking pace."""
    if velocity_mps is None:
        return []
    right, ahead = velocity_mps
    speed_mps = float(np.hypot(right, ahead))
    if not speed_mps > 0.5:
        return []
    pose = fm.Pose(position=position, orientation=_about_z(float(np.arctan2(-right, ahead))))
    return [
        fm.ArrowPrimitive(
            pose=pose,
            shaft_length=speed_mps,
            shaft_diameter=0.15,
            head_length=0.4,
            head_diameter=0.4,
            color=_color(class_id),
        )
    ]


def _calibration(result: Result, camera: PinholeCamera, stamp: Any) -> Any:
    height, width = result.frame.size_hw
    return fm.CameraCalibration(
        timestamp=stamp,
        frame_id=result.frame.source,
        width=width,
        height=height,
        K=camera.K_cam2.ravel().tolist(),
        R=np.eye(3).ravel().tolist(),
        P=camera.P_cam2.ravel().tolist(),
    )


def _transform(result: Result, camera: PinholeCamera, stamp: Any) -> Any:
    x, y, z, w = camera_rotation(camera)
    return fm.FrameTransform(
        timestamp=stamp,
        parent_frame_id=f"{result.frame.source}_ground",
        child_frame_id=result.frame.source,
        translation=fm.Vector3(x=0.0, y=0.0, z=camera.height_m),
        rotation=fm.Quaternion(x=x, y=y, z=z, w=w),
    )


def _grid(grid: np.ndarray, source: str, stamp: Any) -> Any:
    """Cells of RGBA: how certainly each is road is its opacity. Columns go along x (ahead), rows along y (left)."""
    cells = np.empty((*grid.T.shape, 4), np.uint8)  # Foxglove's columns are along x
    cells[..., :3], cells[..., 3] = (25, 180, 200), grid.T
    numeric = fm.PackedElementFieldNumericType.Uint8
    names = ("red", "green", "blue", "alpha")
    return fm.Grid(
        timestamp=stamp,
        frame_id=f"{source}_ground",
        pose=fm.Pose(position=fm.Vector3(x=0.0, y=-ASIDE_M, z=0.0), orientation=_about_z(0.0)),
        column_count=cells.shape[1],
        cell_size=fm.Vector2(x=CELL_M, y=CELL_M),
        row_stride=cells.shape[1] * 4,
        cell_stride=4,
        fields=[fm.PackedElementField(name=name, offset=i, type=numeric) for i, name in enumerate(names)],
        data=cells.tobytes(),
    )
