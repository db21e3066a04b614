"""A Rerun recording, `recording.rrd`: image, boxes, road and timings to scrub through in the Rerun viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.errors import MissingDependencyError, UserError
from perception.overlay import shrunk
from perception.sinks import RunInfo, Sink
from perception.types import CONFIRMED, Result

JPEG_QUALITY = 80
LONGEST_EDGE = 4096
"""Larger images are scaled down to it, boxes and road with them."""
ROAD_LABEL = 1


class RerunSink(Sink):
    """One recording for all sources, each under its own name; time is the time of capture."""

    name = "rerun"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._recording: Any = None

    @classmethod
    def in_folder(cls, folder: Path) -> RerunSink:
        return cls(folder / "recording.rrd")

    def open(self, info: RunInfo) -> None:
        try:
            import rerun
        except ImportError:
            raise MissingDependencyError("rerun-sdk", "rerun", "Rerun recordings") from None
        self._rr, self.info = rerun, info
        self.lossless = not info.live
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._recording = rerun.RecordingStream("perception")
        self._recording.save(str(self.path))
        self.sources_changed(info)

    def sources_changed(self, info: RunInfo) -> None:
        road = self._rr.AnnotationInfo(id=ROAD_LABEL, label="road", color=(30, 160, 190))
        for source in info.sources:
            self._recording.log(source.name, self._rr.AnnotationContext([road]), static=True)

    def write(self, result: Result) -> None:
        try:
            self._log(result)
        except RuntimeError as error:  # its writer has given up; why, it has printed itself
            raise UserError(f"{self.path}: {error}", "a place with room", "df -h, or --out FOLDER") from None

    def _log(self, result: Result) -> None:
        rr, to, name = self._rr, self._recording, result.frame.source
        result = shrunk(result, LONGEST_EDGE)
        to.set_time("capture", duration=result.frame.timestamp_ns / 1e9)
        to.set_time("frame", sequence=result.frame.frame_id)
        done, data = cv2.imencode(".jpg", result.frame.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if done:
            to.log(f"{name}/image", rr.EncodedImage(contents=data.tobytes(), media_type="image/jpeg"))
        if result.road is not None:
            mask = result.road.at_frame_size() >= self.info.spec.road_threshold
            to.log(f"{name}/image/road", rr.SegmentationImage(mask.astype(np.uint8) * ROAD_LABEL))
        tracks = result.tracks[result.tracks.states == CONFIRMED]
        names = self.info.spec.class_names
        to.log(
            f"{name}/image/tracks",
            rr.Boxes2D(
                array=tracks.boxes_xyxy,
                array_format=rr.Box2DFormat.XYXY,
                labels=[f"{names[track.class_id]} {track.track_id}" for track in tracks],
                class_ids=[track.track_id + ROAD_LABEL for track in tracks],
            ),
        )
        for stage, value_ms in result.timings_ms.items():
            to.log(f"{name}/ms/{stage}", rr.Scalars(value_ms))

    def close(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.flush()
            recording.disconnect()

    def outputs(self) -> list[str]:
        return [str(self.path)]
