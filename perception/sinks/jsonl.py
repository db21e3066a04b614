"""One JSON object a line: a frame, or a health event. The schema is `perception/schemas/record-1.json`.

Every line is handed to the system whole before the next begins, so after a kill all lines but at most the last are
valid.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from perception.health import HealthEvent
from perception.sinks import RunInfo, Sink
from perception.types import Result, RoadMask, Track

SCHEMA = "perception.record/1"
"""Name and version. A new field keeps it; a changed or removed one raises it."""
FILE_NAME = "tracks.jsonl"
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)


class JsonLinesSink(Sink):
    """`tracks.jsonl`, or any text stream."""

    name = "jsonl"
    lossless = True

    def __init__(self, target: Path | IO[str]) -> None:
        self.target = target
        self._file: IO[str] | None = None
        self._class_names: tuple[str, ...] = ()
        self._road_threshold = 128

    @classmethod
    def in_folder(cls, folder: Path) -> JsonLinesSink:
        return cls(folder / FILE_NAME)

    def open(self, info: RunInfo) -> None:
        self._class_names, self._road_threshold = info.spec.class_names, info.spec.road_threshold
        if isinstance(self.target, Path):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.target.open("w", encoding="utf-8")
        else:
            self._file = self.target

    def write(self, result: Result) -> None:
        self._write(frame_record(result, self._class_names, self._road_threshold))

    def event(self, event: HealthEvent) -> None:
        self._write(event_record(event))

    def _write(self, record: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(_ENCODER.encode(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None and isinstance(self.target, Path):
            self._file.close()
        self._file = None

    def outputs(self) -> list[str]:
        return [str(self.target)] if isinstance(self.target, Path) else []


def frame_record(result: Result, class_names: tuple[str, ...], road_threshold: int = 128) -> dict[str, Any]:
    """One frame's line as a dict of plain values. Units are in the names; what is unknown is null."""
    frame = result.frame
    return {
        "schema": SCHEMA,
        "type": "frame",
        "source": frame.source,
        "frame_id": frame.frame_id,
        "timestamp_ns": frame.timestamp_ns,
        "dropped_before": frame.dropped_before,
        "size_hw": list(frame.size_hw),
        "age_ms": _rounded(result.age_ms, 2),
        "timings_ms": {stage: round(value, 3) for stage, value in result.timings_ms.items()},
        "detections": len(result.detections),
        "tracks": [_track_record(track, class_names) for track in result.tracks if track.state != "tentative"],
        "road": None if result.road is None else road_record(result.road, road_threshold),
    }


def event_record(event: HealthEvent) -> dict[str, Any]:
    """One health event's line."""
    return {
        "schema": SCHEMA,
        "type": "event",
        "kind": event.kind,
        "source": event.source,
        "active": event.active,
        "timestamp_ns": event.timestamp_ns,
        "detail": event.detail,
    }


def road_record(road: RoadMask, threshold: int) -> dict[str, Any]:
    """Share of the picture that is road, and the outline of its largest piece in frame pixels, simplified."""
    fit, (mask_height, mask_width) = road.fit, road.confidence.shape
    stride_y, stride_x = fit.network_hw[0] / mask_height, fit.network_hw[1] / mask_width
    left, top = round(fit.offset_xy[0] / stride_x), round(fit.offset_xy[1] / stride_y)
    width, height = round(fit.placed_hw[1] / stride_x), round(fit.placed_hw[0] / stride_y)
    is_road = (road.confidence[top : top + height, left : left + width] >= threshold).astype(np.uint8)
    contours, _ = cv2.findContours(is_road, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline: list[list[float]] = []
    if contours:
        largest = cv2.approxPolyDP(max(contours, key=cv2.contourArea), 1.0, True)[:, 0].astype(np.float32)
        network_xy = (largest + [left + 0.5, top + 0.5]) * np.array([stride_x, stride_y], np.float32)
        outline = np.round(fit.points_to_frame(network_xy.astype(np.float32)), 1).tolist()
    return {"share": round(float(is_road.mean()), 4) if is_road.size else 0.0, "outline_xy": outline}


def _track_record(track: Track, class_names: tuple[str, ...]) -> dict[str, Any]:
    known = 0 <= track.class_id < len(class_names)
    return {
        "track_id": track.track_id,
        "class": class_names[track.class_id] if known else str(track.class_id),
        "box_xyxy": [round(v, 2) for v in track.box_xyxy.tolist()],
        "score": round(float(track.score), 4),
        "state": track.state,
        "age_frames": track.age_frames,
        "frames_since_seen": track.frames_since_seen,
        "position_m": _pair(track.position_m),
        "position_std_m": _pair(track.position_std_m),
        "distance_m": _rounded(track.distance_m, 3),
        "velocity_mps": _pair(track.velocity_mps),
        "ttc_s": _rounded(track.ttc_s, 3),
    }


# plain floats and `math` here: numpy takes some microseconds for each number, and a frame has hundreds


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def _pair(value: tuple[float, float] | None) -> list[float] | None:
    if value is None or not (math.isfinite(value[0]) and math.isfinite(value[1])):
        return None
    return [round(float(value[0]), 3), round(float(value[1]), 3)]
