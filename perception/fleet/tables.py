"""The tables of one drive, as Parquet: frames, tracks, events, road."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perception.model import ModelSpec
from perception.sinks.events.engine import SceneEvent
from perception.sinks.jsonl import road_record
from perception.types import TENTATIVE, TRACK_STATES, HealthEvent, Result

SCHEMA = "perception.fleet/1"
"""Name and version. A new column keeps it; a changed or removed one raises it."""
FLUSH_FRAMES = 2000
_POINT = pa.list_(pa.float32(), 2)
_KEY = [("drive", pa.string()), ("source", pa.string()), ("frame_id", pa.int64()), ("timestamp_ns", pa.int64())]
_METRIC = ("x_m", "z_m", "x_std_m", "z_std_m", "distance_m", "vx_mps", "vz_mps", "ttc_s")
_SHAPE = ("length_m", "width_m", "height_m", "heading_rad")
"""Where the network gives 3-D boxes; the heading is KITTI's rotation_y."""
TABLES = {
    "frames": pa.schema(
        [
            *_KEY,
            ("unix_ns", pa.int64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("dropped_before", pa.int32()),
            ("detections", pa.int32()),
            ("tracks", pa.int32()),
            ("road_share", pa.float32()),
        ]
    ),
    "tracks": pa.schema(
        [
            *_KEY,
            ("track_id", pa.int64()),
            ("class", pa.string()),
            ("score", pa.float32()),
            ("state", pa.string()),
            ("age_frames", pa.int32()),
            *((side, pa.float32()) for side in ("left", "top", "right", "bottom")),
            ("on_road", pa.bool_()),
            *((name, pa.float32()) for name in _METRIC),
            *((name, pa.float32()) for name in _SHAPE),
        ]
    ),
    "events": pa.schema(
        [
            *_KEY,
            ("kind", pa.string()),
            ("active", pa.bool_()),
            ("name", pa.string()),
            ("detail", pa.string()),
            ("track_id", pa.int64()),
            ("class", pa.string()),
            ("direction", pa.string()),
            *((name, pa.float32()) for name in ("inside_s", "speed_mps", "distance_m", "ttc_s")),
        ]
    ),
    "road": pa.schema([*_KEY, ("share", pa.float32()), ("outline_xy", pa.list_(_POINT))]),
}


class DriveTables:
    """Rows of one drive on their way into files of a temporary folder."""

    def __init__(self, folder: Path, drive: str, spec: ModelSpec) -> None:
        self._drive, self._spec = drive, spec
        self.paths = {name: folder / f"{name}.parquet" for name in TABLES}
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        meta = {"perception.schema": SCHEMA}
        self._writers = {
            name: pq.ParquetWriter(self.paths[name], schema.with_metadata(meta), compression="zstd")
            for name, schema in TABLES.items()
        }
        self._pending = 0
        self.counts = dict.fromkeys(TABLES, 0)

    def add(self, result: Result, epoch_ns: int | None) -> None:
        """One frame."""
        frame = result.frame
        key = {
            "drive": self._drive,
            "source": frame.source,
            "frame_id": frame.frame_id,
            "timestamp_ns": frame.timestamp_ns,
        }
        road = None if result.road is None else road_record(result.road, self._spec.road_threshold)
        reported = result.tracks[result.tracks.states != TENTATIVE]
        height, width = frame.size_hw
        self._rows["frames"].append(
            key
            | {
                "unix_ns": None if epoch_ns is None else epoch_ns + frame.timestamp_ns,
                "width": width,
                "height": height,
                "dropped_before": frame.dropped_before,
                "detections": len(result.detections),
                "tracks": len(reported),
                "road_share": None if road is None else road["share"],
            }
        )
        if road is not None:
            self._rows["road"].append(key | {"share": road["share"], "outline_xy": road["outline_xy"]})
        if len(reported):
            self._rows["tracks"] += self._track_rows(result, key)
        self._pending += 1
        if self._pending >= FLUSH_FRAMES:
            self._flush()

    def _track_rows(self, result: Result, key: dict[str, Any]) -> list[dict[str, Any]]:
        tracks = result.tracks[result.tracks.states != TENTATIVE]
        on_road: list[bool | None] = [None] * len(tracks)
        if result.road is not None:
            mask = result.road.at_frame_size() >= self._spec.road_threshold
            boxes = tracks.boxes_xyxy
            x = np.clip(boxes[:, [0, 2]].mean(axis=1), 0, mask.shape[1] - 1).astype(int)
            y = np.clip(boxes[:, 3], 0, mask.shape[0] - 1).astype(int)
            on_road = mask[y, x].tolist()
        rows = []
        for row, track in enumerate(tracks):
            left, top, right, bottom = track.box_xyxy.tolist()
            pairs = [track.position_m, track.position_std_m, (track.distance_m, None), track.velocity_mps]
            x_m, z_m, x_std, z_std, distance, _, vx, vz = [v for pair in pairs for v in (pair or (None, None))]
            values = (x_m, z_m, x_std, z_std, distance, vx, vz, track.ttc_s)
            rows.append(
                key
                | {
                    "track_id": track.track_id,
                    "class": self._class_name(track.class_id),
                    "score": track.score,
                    "state": TRACK_STATES[int(tracks.states[row])],
                    "age_frames": track.age_frames,
                    "left": left,
                    "top": top,
                    "right": right,
                    "bottom": bottom,
                    "on_road": on_road[row],
                    **dict(zip(_METRIC, values, strict=True)),
                    **dict(zip(_SHAPE, (*(track.size_m or (None,) * 3), track.heading_rad), strict=True)),
                }
            )
        return rows

    def _class_name(self, class_id: int) -> str:
        names = self._spec.class_names
        return names[class_id] if 0 <= class_id < len(names) else str(class_id)

    def add_scene_event(self, event: SceneEvent) -> None:
        """One event of a zone, line or alarm."""
        names = ("frame_id", "timestamp_ns", "source", "kind", "name", "track_id", "direction")
        row = {name: getattr(event, name) for name in names}
        row |= {name: getattr(event, name) for name in ("inside_s", "speed_mps", "distance_m", "ttc_s")}
        row |= {"drive": self._drive, "active": event.kind != "alarm-over", "class": event.class_name}
        self._rows["events"].append(row | {"detail": event.text()})

    def add_health(self, source: str, events: list[HealthEvent], corrupt: int) -> None:
        """Health of one source, in the order of time; what could not be read is one row with the count.

        When an event is reported depends on threads; when it happened does not.
        """
        kept = [
            event for event in events if event.kind not in ("corrupt", "ended") and event.timestamp_ns is not None
        ]
        for event in sorted(kept, key=lambda e: (e.timestamp_ns or 0, e.kind, e.active)):
            row = {"kind": event.kind, "active": event.active, "detail": event.detail}
            self._rows["events"].append(
                row | {"drive": self._drive, "source": source, "timestamp_ns": event.timestamp_ns}
            )
        if corrupt:
            row = {"kind": "corrupt", "active": True, "detail": f"{corrupt} packets, images or messages unreadable"}
            self._rows["events"].append(row | {"drive": self._drive, "source": source})

    def _flush(self) -> None:
        for name, rows in self._rows.items():
            if rows:
                self._writers[name].write_table(pa.Table.from_pylist(rows, self._writers[name].schema))
                self.counts[name] += len(rows)
                rows.clear()
        self._pending = 0

    def close(self) -> None:
        """Finish the files."""
        try:
            self._flush()
        finally:
            for writer in self._writers.values():
                writer.close()
