"""KITTI tracking rows, one file a source: what `perception evaluate tracking` reads."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np

from perception.cameras.cuboids import wrap
from perception.cameras.level import places_in_camera
from perception.cameras.pinhole import PinholeCamera
from perception.formats.kitti import (
    UNKNOWN_ALPHA,
    UNKNOWN_DIMENSION,
    UNKNOWN_LOCATION,
    ObjectRows,
    TrackingRows,
    format_tracking,
)
from perception.sinks import RunInfo, Sink
from perception.types import CONFIRMED, Result, Tracks


class KittiSink(Sink):
    """`kitti/NAME.txt`: confirmed tracks that were seen in the frame, in the tracking kit's 18 columns."""

    name = "kitti"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, IO[str]] = {}
        self._paths: list[str] = []

    @classmethod
    def in_folder(cls, folder: Path) -> KittiSink:
        return cls(folder / "kitti")

    def open(self, info: RunInfo) -> None:
        self.class_names = info.spec.result_names
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sources_changed(info)

    def sources_changed(self, info: RunInfo) -> None:
        self._paths += open_files(self._files, self.folder, info)

    def write(self, result: Result) -> None:
        tracks = seen_tracks(result.tracks)
        file = self._files[result.frame.source]
        rows = tracking_rows(result.frame.frame_id, tracks, self.class_names, result.frame.camera)
        file.write(format_tracking(rows))
        file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def outputs(self) -> list[str]:
        return list(self._paths)


def open_files(files: dict[str, IO[str]], folder: Path, info: RunInfo) -> list[str]:
    """Open `NAME.txt` of each new source, so that one without objects leaves an empty file; close those of sources
    that are gone. Returns the paths of the new ones."""
    names = {source.name for source in info.sources}
    for name in [name for name in files if name not in names]:
        files.pop(name).close()
    new = [name for name in sorted(names) if name not in files]
    for name in new:
        files[name] = (folder / f"{name}.txt").open("w", encoding="utf-8")
    return [str(folder / f"{name}.txt") for name in new]


def seen_tracks(tracks: Tracks) -> Tracks:
    """Those that are confirmed: detected in the frame, or interpolated with hindsight."""
    return tracks[tracks.states == CONFIRMED]


def tracking_rows(
    frame_id: int, tracks: Tracks, class_names: tuple[str, ...], camera: PinholeCamera | None = None
) -> TrackingRows:
    """Tracks of one frame as KITTI rows, in coordinates of the camera; -1, -10 and -1000 where something is unknown.

    A known position without a size is written all the same, as the point on the road.
    """
    count = len(tracks)
    location, dimensions = np.full((count, 3), UNKNOWN_LOCATION), np.full((count, 3), UNKNOWN_DIMENSION)
    rotation_y, alpha = np.full(count, UNKNOWN_ALPHA), np.full(count, UNKNOWN_ALPHA)
    if camera is not None:
        places = places_in_camera(tracks, camera)
        known = np.isfinite(places).all(axis=1)
        location[known] = places[known]
        if tracks.size_m is not None and tracks.heading_rad is not None:
            known &= np.isfinite(tracks.size_m).all(axis=1) & np.isfinite(tracks.heading_rad)
            dimensions[known] = tracks.size_m[known][:, (2, 1, 0)]  # height, width, length
            rotation_y[known] = tracks.heading_rad[known]
            alpha[known] = wrap(rotation_y[known] - np.arctan2(location[known, 0], location[known, 2]))
    rows = ObjectRows.from_boxes(
        [class_names[class_id] for class_id in tracks.class_ids.tolist()],
        np.round(tracks.boxes_xyxy.astype(np.float64), 3),
        np.array([round(score, 6) for score in tracks.scores.tolist()], np.float64),
        alpha=np.round(alpha, 4),
        dimensions_hwl=np.round(dimensions, 3),
        location_cam2=np.round(location, 3),
        rotation_y=np.round(rotation_y, 4),
    )
    return TrackingRows(np.full(count, frame_id, np.int64), tracks.track_ids, rows)
