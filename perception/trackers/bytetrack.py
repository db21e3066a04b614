"""ByteTrack: boxes of high score find their tracks first, boxes of low score keep the rest alive.

Source: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022, with motion
on real time and matching within a class. The reported boxes are the detector's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from perception.arrays import F64
from perception.boxes import Floats
from perception.trackers.assignment import assign
from perception.trackers.base import Recorder, TrackTable, clean
from perception.trackers.kalman import Noise
from perception.types import Detections, Tracks


@dataclass(frozen=True)
class ByteTrackConfig:
    """Thresholds of the stages and of track states."""

    high_score: float = 0.6
    """Detections from here on match first, and alone can start a track."""
    low_score: float = 0.1
    """Detections below are not used."""
    birth_score: float = 0.7
    """A new track starts from a detection of at least this score."""
    high_iou: float = 0.2
    """Least overlap of a track with a detection of high score."""
    low_iou: float = 0.5
    """Least overlap of a track with a detection of low score."""
    birth_iou: float = 0.3
    """Least overlap of a tentative track with a detection of high score."""
    confirm_hits: int = 2
    """Matches that confirm a track."""
    lost_s: float = 1.0
    """A confirmed track unseen for longer ends, seconds."""
    noise: Noise = field(default_factory=Noise)
    """Of the Kalman filter."""


class ByteTrackTracker(Recorder):
    """Two-stage association by score. `perception.trackers.base` says what happens with bad input."""

    def __init__(self, config: ByteTrackConfig = ByteTrackConfig()) -> None:
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
        # 2. Pair tracks with detections in three stages of score.
        detection_of = self._pair(table.overlaps(boxes, class_ids), scores)
        # 3. Correct the tracks that were seen.
        table.match(detection_of, boxes, scores)
        # 4. Confirm tracks with enough matches; end tentative ones that missed.
        table.confirm_or_end(config.confirm_hits)
        # 5. Start a tentative track from every detection left that scores high enough.
        birth_score = max(config.birth_score, config.high_score)
        table.start_unmatched(detection_of, boxes, scores, class_ids, birth_score)
        # 6. Report the detector's own boxes.
        return table.report(table.seen_rows(), lambda _, found: boxes.take(found, 1).T)

    def _pair(self, overlap: Floats, scores: F64) -> dict[int, int]:
        """The detection of each track that gets one.

        Args:
            overlap: (N, M) of tracks and detections.
            scores: (M,)
        """
        config, tracklets = self.config, self._table.tracklets
        high = scores >= config.high_score
        weighted = overlap * scores  # a good box of certain score is worth more than one of doubtful score
        confirmed = [i for i, t in enumerate(tracklets) if t.track_id]
        tentative = [i for i, t in enumerate(tracklets) if not t.track_id]
        recent = [i for i in confirmed if tracklets[i].seen_frame == self._table.frame - 1]
        match = _match({}, confirmed, high, weighted - config.high_iou)
        match |= _match(match, recent, ~high, overlap - config.low_iou)
        return match | _match(match, tentative, high, weighted - config.birth_iou)


def _match(match: dict[int, int], seeking: list[int], offered: np.ndarray, gain: Floats) -> dict[int, int]:
    """One stage: pair tracks that seek and have no detection yet with free detections on offer."""
    rows = [row for row in seeking if row not in match]
    free = offered.copy()
    free[list(match.values())] = False
    columns = free.nonzero()[0].tolist()
    chosen = assign(gain[np.ix_(rows, columns)])
    return {rows[i]: columns[j] for i, j in chosen.items()}
