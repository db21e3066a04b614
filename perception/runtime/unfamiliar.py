"""Report frames that are unlike the training set's: a model file that carries `Familiarity` is watched by it."""

from __future__ import annotations

from perception.familiarity import Familiarity, frame_features
from perception.types import Detections, Frame, HealthEvent, RoadMask

INTERVAL_S = 0.2
"""Frames within this time of the last one judged are not judged, seconds of stream time."""
HOLD_S = 1.0
"""An event begins when frames have been unfamiliar for so long, and ends when they have been familiar for so long."""


class FamiliarityMonitor:
    """Watches the frames of one source."""

    def __init__(self, source: str, familiar: Familiarity, score_threshold: float) -> None:
        """Args:
        source: name of the source.
        familiar: of the model file.
        score_threshold: score from which a detection is sure.
        """
        self.source, self.familiar, self.score_threshold = source, familiar, score_threshold
        self._judged_ns: int | None = None
        self._since_ns: int | None = None
        self._active = False

    def update(self, frame: Frame, detections: Detections, road: RoadMask | None) -> list[HealthEvent]:
        """Judge one frame; returns the events that it causes, mostly none."""
        now_ns = frame.timestamp_ns
        if self._judged_ns is not None and 0 <= now_ns - self._judged_ns < INTERVAL_S * 1e9:
            return []
        self._judged_ns = now_ns
        distance = self.familiar.distance(frame_features(frame.image_bgr, detections, road, self.score_threshold))
        if (distance > self.familiar.threshold) == self._active:
            self._since_ns = None
            return []
        if self._since_ns is None or now_ns < self._since_ns:
            self._since_ns = now_ns
        if now_ns - self._since_ns < HOLD_S * 1e9:
            return []
        self._active, self._since_ns = not self._active, None
        detail = (
            f"{distance:.1f} times the usual distance from the training frames, {self.familiar.threshold:.1f} allowed"
        )
        return [HealthEvent("unfamiliar", self.source, self._active, now_ns, detail if self._active else "over")]
