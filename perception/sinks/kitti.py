"""KITTI tracking rows, one file a source: what `perception evaluate tracking` reads."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np

from perception.formats.kitti import UNKNOWN_LOCATION, ObjectRows, TrackingRows, format_tracking
from perception.sinks import RunInfo, Sink
from perception.types import Result, Track


class KittiSink(Sink):
    """`kitti/NAME.txt`: confirmed tracks that were seen in the frame, in the tracking kit's 18 columns."""

    name = "kitti"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, IO[str]] = {}

    @classmethod
    def in_folder(cls, folder: Path) -> KittiSink:
        return cls(folder / "kitti")

    def open(self, info: RunInfo) -> None:
        self.class_names = info.spec.class_names
        self.folder.mkdir(parents=True, exist_ok=True)
        for source in info.sources:  # a run without objects leaves an empty file, which is legal
            self._files[source.name] = (self.folder / f"{source.name}.txt").open("w", encoding="utf-8")

    def write(self, result: Result) -> None:
        tracks = [t for t in result.tracks if t.state == "confirmed" and t.frames_since_seen == 0]
        file = self._files[result.frame.source]
        height_m = result.frame.camera.height_m if result.frame.camera else 0.0
        file.write(format_tracking(tracking_rows(result.frame.frame_id, tracks, self.class_names, height_m)))
        file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def outputs(self) -> list[str]:
        return [str(self.folder / f"{name}.txt") for name in self._files]


def tracking_rows(
    frame_id: int, tracks: list[Track], class_names: tuple[str, ...], height_m: float = 0.0
) -> TrackingRows:
    """Tracks of one frame as KITTI rows. A known position is written at the road, `height_m` below the camera."""
    count = len(tracks)
    location = np.full((count, 3), UNKNOWN_LOCATION)
    for i, track in enumerate(tracks):
        if track.position_m is not None:
            location[i] = track.position_m[0], height_m, track.position_m[1]
    rows = ObjectRows.from_boxes(
        [class_names[t.class_id] for t in tracks],
        np.array([np.round(t.box_xyxy.astype(np.float64), 3) for t in tracks]).reshape(count, 4),
        np.array([round(float(t.score), 6) for t in tracks]),
        location_cam2=np.round(location, 3),
    )
    ids = np.array([t.track_id for t in tracks], np.int64)
    return TrackingRows(np.full(count, frame_id, np.int64), ids, rows)
