"""SORT: a Kalman filter, overlap, the best pairing, and nothing else.

Source: Bewley et al., "Simple Online and Realtime Tracking", ICIP 2016, with motion on real time and matching within
a class. The reported boxes are the filter's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from perception.trackers.assignment import assign
from perception.trackers.base import Recorder, TrackTable, clean
from perception.trackers.kalman import XYXY_FROM_CXCYWH, Noise
from perception.types import Detections, Tracks


@dataclass(frozen=True)
class SortConfig:
    """Thresholds of matching and of track states."""

    low_score: float = 0.3
    """Detections below are not used."""
    least_iou: float = 0.3
    """Least overlap of a track with its detection."""
    confirm_hits: int = 3
    """Matches that confirm a track."""
    lost_s: float = 0.3
    """A track unseen for longer ends, seconds."""
    noise: Noise = field(default_factory=Noise)
    """Of the Kalman filter."""


class SortTracker(Recorder):
    """One stage of matching by overlap. `perception.trackers.base` says what happens with bad input."""

    def __init__(self, config: SortConfig = SortConfig()) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        self._table = TrackTable(self.config.noise)

    def update(self, detections: Detections, timestamp_ns: int, image_bgr: np.ndarray | None = None) -> Tracks:
        """Take one frame's detections; returns the confirmed tracks seen in it, in order of birth."""
        config, table = self.config, self._table
        # 1. Predict where every track is now.
        boxes, scores, class_ids = clean(detections, config.low_score)
        table.advance(timestamp_ns, config.lost_s)
        # 2. Pair tracks with detections by overlap.
        detection_of = assign(table.overlaps(boxes, class_ids) - config.least_iou)
        # 3. Correct the tracks that were seen.
        table.match(detection_of, boxes, scores)
        # 4. Confirm tracks with enough matches; end tentative ones that missed.
        table.confirm_or_end(config.confirm_hits)
        # 5. Start a tentative track from every detection left.
        table.start_unmatched(detection_of, boxes, scores, class_ids)
        # 6. Report the filter's boxes.
        return table.report(
            table.seen_rows(), lambda rows, _: table.states.position.take(rows, 1).T @ XYXY_FROM_CXCYWH.T
        )
