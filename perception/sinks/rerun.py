"""A Rerun recording, `recording.rrd`: image, boxes, road, timings and, with a calibration, the road from above.

The plan view has metres to the right and ahead of the camera, which is its lower middle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.errors import MissingDependencyError, UserError
from perception.overlay import shrunk
from perception.sinks import RunInfo, Sink
from perception.types import CONFIRMED, Result, Tracks
from perception.wireframe import UNDECIDED_RAD, cuboids_in_camera, lines_of_cuboid, outlines_from_above

JPEG_QUALITY = 80
LONGEST_EDGE = 4096
"""Larger images are scaled down to it, boxes and road with them."""
ROAD_LABEL = 1
RINGS_M = (10, 20, 40, 60, 80)
QUIET = (130, 140, 150)
"""Colour of the range rings."""


class RerunSink(Sink):
    """One recording for all sources, each under its own name; time is the time of capture."""

    name = "rerun"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._recording: Any = None
        self._planned: list[str] = []
        """Sources that have a plan view."""

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
                class_ids=tracks.track_ids + ROAD_LABEL,
            ),
        )
        if result.frame.camera is not None:
            if name not in self._planned:
                self._begin_plan(name)
            self._log_plan(name, tracks)
            self._log_cuboids(name, tracks, result)
        for stage, value_ms in result.timings_ms.items():
            to.log(f"{name}/ms/{stage}", rr.Scalars(value_ms))

    def _begin_plan(self, name: str) -> None:
        """Log the range rings of a source, and lay the viewer out with a plan view for each calibrated one."""
        import rerun.blueprint as layout

        self._planned.append(name)
        half_turn = np.linspace(0, np.pi, 49)
        circle = np.stack([np.cos(half_turn), -np.sin(half_turn)], axis=1)
        rings = self._rr.LineStrips2D(
            [radius * circle for radius in RINGS_M], colors=QUIET, labels=[f"{radius} m" for radius in RINGS_M]
        )
        self._recording.log(f"{name}/plan/rings", rings, static=True)
        views = [
            layout.Horizontal(
                layout.Spatial2DView(origin=f"{source.name}/image", name=source.name),
                *[layout.Spatial2DView(origin=f"{source.name}/plan", name="from above")]
                * (source.name in self._planned),
                column_shares=[2, 1] if source.name in self._planned else None,
            )
            for source in self.info.sources
        ]
        self._recording.send_blueprint(layout.Blueprint(layout.Vertical(*views)))

    def _log_plan(self, name: str, tracks: Tracks) -> None:
        """Log footprints, headings, and the way of the next second relative to the camera, from above."""
        rr, to = self._rr, self._recording
        position_m = np.full((len(tracks), 2), np.nan) if tracks.position_m is None else tracks.position_m
        is_placed = np.asarray(np.isfinite(position_m).all(axis=1))
        placed, places = tracks[is_placed], position_m[is_placed]
        upwards = np.array([1.0, -1.0])  # a view of pixels, whose second axis points down
        class_ids = placed.track_ids + ROAD_LABEL
        outlines = [outline * upwards for outline in outlines_from_above(placed)]
        to.log(f"{name}/plan/objects", rr.LineStrips2D(outlines, class_ids=class_ids))
        for entity, vectors in (("headings", _headings(placed)), ("velocities", placed.velocity_mps)):
            known = np.zeros(len(placed), bool) if vectors is None else np.isfinite(vectors).all(axis=1)
            arrows = np.zeros((0, 2)) if vectors is None else vectors[known]
            to.log(
                f"{name}/plan/{entity}",
                rr.Arrows2D(vectors=arrows * upwards, origins=places[known] * upwards, class_ids=class_ids[known]),
            )

    def _log_cuboids(self, name: str, tracks: Tracks, result: Result) -> None:
        lines, class_ids = [], []
        decided = {track.track_id: (track.heading_std_rad or 0.0) < UNDECIDED_RAD for track in tracks}
        assert result.frame.camera is not None
        for track_id, corners in cuboids_in_camera(tracks, result.frame.camera).items():
            shown = lines_of_cuboid(corners, result.frame.camera, show_front=decided[track_id])
            lines += list(shown)
            class_ids += [track_id + ROAD_LABEL] * len(shown)
        self._recording.log(f"{name}/image/cuboids", self._rr.LineStrips2D(lines, class_ids=class_ids))

    def close(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.flush()
            recording.disconnect()

    def outputs(self) -> list[str]:
        return [str(self.path)]


def _headings(tracks: Tracks) -> np.ndarray | None:
    """Arrows (N, 2) from the middle to a little ahead of the front, right and ahead; NaN where it is not known."""
    if tracks.size_m is None or tracks.heading_rad is None or tracks.heading_std_rad is None:
        return None
    arrows = np.stack([np.cos(tracks.heading_rad), -np.sin(tracks.heading_rad)], axis=1) * tracks.size_m[:, :1] * 0.7
    arrows[~(tracks.heading_std_rad < UNDECIDED_RAD)] = np.nan
    return np.asarray(arrows)
