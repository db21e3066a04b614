"""SORT: a Kalman filter, overlap, the best pairing, and nothing else.

Source: Bewley et al., "Simple Online and Realtime Tracking", ICIP 2016, with motion on real time and matching within
a class; the boxes that are told are the filter's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from perception.boxes import iou
from perception.trackers.assignment import assign
from perception.trackers.base import TrackTable, clean
from perception.trackers.kalman import CXCYWH_FROM_XYXY, XYXY_FROM_CXCYWH, Noise, box_size, predict
from perception.types import Detections, Track


@dataclass(frozen=True)
class SortConfig:
    """Thresholds of matching and of a track's life."""

    low_score: float = 0.3
    """Detections below are not used."""
    least_iou: float = 0.3
    """Least overlap of a track with its detection."""
    confirm_hits: int = 3
    """Matches that make a track known to the outside."""
    lost_s: float = 0.3
    """A track unseen for longer ends, seconds."""
    noise: Noise = field(default_factory=Noise)
    """Of the Kalman filter."""


class SortTracker:
    """One stage of matching by overlap. `perception.trackers.base` says what becomes of bad input."""

    def __init__(self, config: SortConfig = SortConfig()) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        self._table = TrackTable(self.config.noise)

    def update(
        self, detections: Detections, timestamp_ns: int, image_bgr: np.ndarray | None = None
    ) -> tuple[Track, ...]:
        """Take one frame's detections; returns the confirmed tracks seen in it, in order of birth."""
        config, table = self.config, self._table
        boxes, scores, class_ids = clean(detections, config.low_score)
        predict(table.states, table.begin(timestamp_ns, config.lost_s), config.noise)

        expected = XYXY_FROM_CXCYWH @ table.states.position
        overlap = iou(expected.T, boxes.T)  # (N, M)
        overlap[table.class_ids[:, None] != class_ids] = 0.0
        match = assign(overlap - config.least_iou)
        measured = CXCYWH_FROM_XYXY @ boxes
        variance = np.square(config.noise.measurement * box_size(measured))
        table.see(match, measured, variance, scores.tolist())

        for life in table.lives:
            if not life.track_id and life.hits >= config.confirm_hits:
                table.confirm(life)
        table.keep([life.track_id > 0 or life.seen_frame == table.frame for life in table.lives])
        free = np.ones(len(scores), bool)
        free[list(match.values())] = False
        table.start(boxes[:, free], scores[free].tolist(), class_ids[free])
        told = [i for i, life in enumerate(table.lives) if life.track_id and life.seen_frame == table.frame]
        return table.tell(told, table.states.position[:, told])
