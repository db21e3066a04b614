"""ByteTrack: boxes of high score find their tracks first, boxes of low score keep the rest alive.

Source: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022, with motion
on real time, matching within a class, and the detector's own box as the one that is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from perception.boxes import Floats, iou
from perception.trackers.assignment import assign
from perception.trackers.base import TrackTable, clean
from perception.trackers.kalman import CXCYWH_FROM_XYXY, XYXY_FROM_CXCYWH, Noise, box_size, predict
from perception.types import Detections, Track


@dataclass(frozen=True)
class ByteTrackConfig:
    """Thresholds of the two stages and of a track's life."""

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
    """Matches that make a track known to the outside."""
    lost_s: float = 1.0
    """A confirmed track unseen for longer ends, seconds."""
    noise: Noise = field(default_factory=Noise)
    """Of the Kalman filter."""


class ByteTrackTracker:
    """Two-stage association by score. `perception.trackers.base` says what becomes of bad input."""

    def __init__(self, config: ByteTrackConfig = ByteTrackConfig()) -> None:
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
        high = scores >= config.high_score
        weighted = overlap * scores  # a good box of certain score is worth more than one of doubtful score
        known = [i for i, life in enumerate(table.lives) if life.track_id]
        young = [i for i, life in enumerate(table.lives) if not life.track_id]
        match = _match({}, known, high, weighted - config.high_iou)
        followed = [i for i in known if table.lives[i].seen_frame == table.frame - 1]
        match |= _match(match, followed, ~high, overlap - config.low_iou)
        match |= _match(match, young, high, weighted - config.birth_iou)
        measured = CXCYWH_FROM_XYXY @ boxes
        variance = np.square(config.noise.measurement * box_size(measured))
        table.see(match, measured, variance, scores.tolist())

        for life in table.lives:
            if not life.track_id and life.hits >= config.confirm_hits:
                table.confirm(life)
        told = [match[i] for i, life in enumerate(table.lives) if life.track_id and i in match]
        table.keep([life.track_id > 0 or life.seen_frame == table.frame for life in table.lives])
        rows = [i for i, life in enumerate(table.lives) if life.track_id and life.seen_frame == table.frame]
        free = scores >= max(config.birth_score, config.high_score)
        free[list(match.values())] = False
        table.start(boxes[:, free], scores[free].tolist(), class_ids[free])
        return table.tell(rows, measured[:, told])


def _match(match: dict[int, int], seeking: list[int], offered: np.ndarray, gain: Floats) -> dict[int, int]:
    """One stage: pair tracks that seek and have no detection yet with free detections on offer."""
    rows = [row for row in seeking if row not in match]
    free = offered.copy()
    free[list(match.values())] = False
    columns = free.nonzero()[0].tolist()
    chosen = assign(gain[np.ix_(rows, columns)])
    return {rows[i]: columns[j] for i, j in chosen.items()}
