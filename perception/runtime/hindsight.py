"""`perception run --offline`: the detections of a recording first, then its tracks with hindsight, then the results.

The recording is read twice, and the network runs twice: detections fit into memory, frames and road masks do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from perception.backends import Model
from perception.errors import UserError
from perception.runtime.pipeline import Pipeline, PipelineConfig
from perception.sources import Source
from perception.trackers import Tracker
from perception.trackers.base import Sighting
from perception.trackers.offline import track_offline
from perception.types import Detections, Tracks


class _Playback:
    """A tracker that keeps detections, or reports the tracks that are known already."""

    def __init__(self, tracks: dict[int, Tracks] | None = None) -> None:
        self.config: Any = None
        self.frames: list[tuple[int, Detections]] = []
        self._tracks = tracks or {}

    def update(self, detections: Detections, timestamp_ns: int, image_bgr: np.ndarray | None = None) -> Tracks:
        if not self._tracks:
            self.frames.append((timestamp_ns, detections))
        return self._tracks.get(timestamp_ns, Tracks.empty())

    def reset(self) -> None:
        self.frames = []

    def record(self) -> list[Sighting]:
        return []


def check_recording(sources: Sequence[Source]) -> None:
    """Refuse what cannot be read twice.

    Raises:
        UserError: several sources, or one that is live or standard input.
    """
    for source in sources:
        if len(sources) > 1 or source.behaves_live or source.location == "-":
            found = f"{len(sources)} sources" if len(sources) > 1 else f"{source.name}: a live source"
            raise UserError(f"--offline with {found}", "one recording, which can be read twice", "no --offline here")


def tracks_of(
    source: Source, model: Model, config: PipelineConfig, tracker: Tracker, on_frame: Callable[[int], None]
) -> Callable[[], Tracker]:
    """Detect in a whole recording and track with hindsight; returns what makes the tracker of the second reading.

    Args:
        source: is read to its end.
        model: of the run.
        config: of the run.
        tracker: of the run.
        on_frame: called with the number of frames so far.
    """
    listener = _Playback()
    first = Pipeline([source], model, (), replace(config, health=False), tracker_factory=lambda: listener)
    for count, _ in enumerate(first, start=1):
        on_frame(count)
    stamps = [timestamp_ns for timestamp_ns, _ in listener.frames]
    tracks = dict(zip(stamps, track_offline(tracker, listener.frames), strict=True))
    return lambda: _Playback(tracks)
