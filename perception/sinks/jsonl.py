"""One JSON object a line: a frame, or a health event. The schema is `perception/schemas/record-2.json`.

Every line is handed to the system whole before the next begins, so after a kill all lines but at most the last are
valid.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from perception.sinks import RunInfo, Sink
from perception.types import Disagreement, HealthEvent, Result, RoadMask, Track

SCHEMA = "perception.record/2"
"""Name and version. A new required field raises it, as does a changed or removed one."""
FILE_NAME = "tracks.jsonl"
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)


class JsonLinesSink(Sink):
    """`tracks.jsonl`, or any text stream."""

    name = "jsonl"
    lossless = True

    def __init__(self, target: Path | IO[str]) -> None:
        self.target = target
        self._file: IO[str] | None = None
        self._class_names: list[str] = []
        self._road_threshold = 128

    @classmethod
    def in_folder(cls, folder: Path) -> JsonLinesSink:
        return cls(folder / FILE_NAME)

    def open(self, info: RunInfo) -> None:
        self._class_names = [json_text(name) for name in info.spec.class_names]
        self._road_threshold = info.spec.road_threshold
        if isinstance(self.target, Path):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.target.open("w", encoding="utf-8", errors="backslashreplace")  # JSON's own escape
        else:
            self._file = self.target

    def write(self, result: Result) -> None:
        self._write(frame_line(result, self._class_names, self._road_threshold))

    def event(self, event: HealthEvent) -> None:
        self._write(_ENCODER.encode(event_record(event)))

    def _write(self, line: str) -> None:
        assert self._file is not None
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None and isinstance(self.target, Path):
            self._file.close()
        self._file = None

    def outputs(self) -> list[str]:
        return [str(self.target)] if isinstance(self.target, Path) else []


def frame_line(result: Result, class_names: Sequence[str], road_threshold: int = 128) -> str:
    """One frame as JSON. Units are in the names; what is unknown is null.

    Args:
        result: the frame; tentative tracks are left out.
        class_names: as `json_text` gives them.
        road_threshold: confidence from which a pixel counts as road.
    """
    frame = result.frame
    head = {
        "schema": SCHEMA,
        "type": "frame",
        "source": frame.source,
        "frame_id": frame.frame_id,
        "timestamp_ns": frame.timestamp_ns,
        "dropped_before": frame.dropped_before,
        "size_hw": frame.size_hw,
        "age_ms": None if result.age_ms is None else round(result.age_ms, 2),
        "timings_ms": {stage: round(value, 3) for stage, value in result.timings_ms.items()},
        "detections": len(result.detections),
    }
    tracks = ",".join([_track_text(track, class_names) for track in result.tracks if track.state != "tentative"])
    road = None if result.road is None else road_record(result.road, road_threshold)
    tracks = _LAST_ZEROS.sub(r"\1", tracks)
    differs = ""
    if result.disagreement is not None:
        differs = f',"disagreement":{_ENCODER.encode(disagreement_record(result.disagreement))}'
    return f'{_ENCODER.encode(head)[:-1]},"tracks":[{tracks}],"road":{_ENCODER.encode(road)}{differs}}}'


def disagreement_record(found: Disagreement) -> dict[str, list[dict[str, Any]]]:
    """Boxes that one network is sure of and the other has nothing at, pixels of the original image."""
    return {
        name: [
            {"class_id": class_id, "box_xyxy": [round(side, 2) for side in box], "score": round(score, 4)}
            for box, score, class_id in zip(
                part.boxes_xyxy.tolist(), part.scores.tolist(), part.class_ids.tolist(), strict=True
            )
        ]
        for name, part in (("only_first", found.only_first), ("only_second", found.only_second))
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
    """Share of the image that is road, and the outline of its largest piece in frame pixels, simplified."""
    placed, (mask_height, mask_width) = road.letterbox, road.confidence.shape
    stride_y, stride_x = placed.network_hw[0] / mask_height, placed.network_hw[1] / mask_width
    left, top = round(placed.offset_xy[0] / stride_x), round(placed.offset_xy[1] / stride_y)
    width, height = round(placed.placed_hw[1] / stride_x), round(placed.placed_hw[0] / stride_y)
    seen = road.confidence[top : top + height, left : left + width]
    if not seen.size:
        return {"share": 0.0, "outline_xy": []}
    is_road = cv2.threshold(seen, threshold - 1, 1, cv2.THRESH_BINARY)[1]
    contours, _ = cv2.findContours(is_road, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline: list[list[float]] = []
    if contours:
        largest = cv2.approxPolyDP(max(contours, key=cv2.contourArea), 1.0, True)[:, 0]  # (N, 2)
        network_xy = (largest + (left + 0.5, top + 0.5)) * (stride_x, stride_y)
        # a float32 of one decimal has many as a Python number
        outline = placed.points_to_frame(network_xy.astype(np.float32)).astype(np.float64).round(1).tolist()
    return {"share": round(cv2.countNonZero(is_road) / is_road.size, 4), "outline_xy": outline}


# The tracks are most of a line, and going through dicts takes twice as long: each number is turned into decimals once
# here, and three times by `round` and the encoder.

_TRACK = (
    '{"track_id":%d,"class":%s,"box_xyxy":[%.2f,%.2f,%.2f,%.2f],"score":%.4f,"state":"%s","age_frames":%d,'
    '"frames_since_seen":%d,"position_m":%s,"position_std_m":%s,"distance_m":%s,"velocity_mps":%s,"ttc_s":%s,'
    '"bottom_m":%s,"size_m":%s,"size_std_m":%s,"heading_rad":%s,"heading_std_rad":%s}'
)
_LAST_ZEROS = re.compile(r"(\.\d\d*?)0+(?=[],}])")
"""Of a decimal number; the zero after the point stays."""


def json_text(name: str) -> str:
    """A class name as it stands in a line, in quotes; a point is escaped, so that no name looks like a number."""
    return json.dumps(name, ensure_ascii=False).replace(".", "\\u002e")


def _track_text(track: Track, class_names: Sequence[str]) -> str:
    left, top, right, bottom = track.box_xyxy.tolist()
    if not math.isfinite(left + top + right + bottom + track.score):
        raise ValueError(f"track {track.track_id}: found box {track.box_xyxy}, score {track.score}, expected numbers")
    return _TRACK % (
        track.track_id,
        class_names[track.class_id] if 0 <= track.class_id < len(class_names) else f'"{track.class_id}"',
        left,
        top,
        right,
        bottom,
        track.score,
        track.state,
        track.age_frames,
        track.frames_since_seen,
        _numbers(track.position_m),
        _numbers(track.position_std_m),
        _number(track.distance_m),
        _numbers(track.velocity_mps),
        _number(track.ttc_s),
        _number(track.bottom_m),
        _numbers(track.size_m),
        _numbers(track.size_std_m),
        _number(track.heading_rad),
        _number(track.heading_std_rad),
    )


def _number(value: float | None) -> str:
    return "null" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _numbers(values: tuple[float, ...] | None) -> str:
    if values is None or not math.isfinite(sum(values)):
        return "null"
    return f"[{','.join([f'{value:.3f}' for value in values])}]"
