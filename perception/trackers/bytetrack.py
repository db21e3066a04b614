"""ByteTrack: boxes of high score find their tracks first, boxes of low score keep the rest alive.

Source: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022, with motion
on real time, matching within a class, and the detector's own box as the one that is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from perception.boxes import Floats, cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from perception.trackers.assignment import assign
from perception.trackers.base import (
    CONFIRMED,
    LOST,
    MAX_TRACKS,
    TENTATIVE,
    Clock,
    TrackTable,
    clean,
)
from perception.trackers.kalman import Noise, box_size, correct, predict
from perception.types import F64, I64, Detections, Track


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
        self._clock = Clock()
        self._next_id = 1
        self._table = self._born(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))

    def update(
        self, detections: Detections, timestamp_ns: int, image_bgr: np.ndarray | None = None
    ) -> tuple[Track, ...]:
        """Take one frame's detections; returns the confirmed tracks seen in it, in order of birth."""
        config, table = self.config, self._table
        boxes, scores, class_ids = clean(detections)
        dt_s = self._clock.tick(timestamp_ns)
        table.expire(self._clock.now_s, config.lost_s)
        predict(table.states, dt_s, config.noise)
        table.grow_older()

        gain = iou(cxcywh_to_xyxy(table.states.position), boxes)  # (N, M)
        gain[table.class_ids[:, None] != class_ids[None, :]] = 0.0
        free = np.ones(len(scores), bool)
        high, low = scores >= config.high_score, (scores >= config.low_score) & (scores < config.high_score)
        # a good box of certain score is worth more than one of doubtful score
        self._match(table.life != TENTATIVE, high, free, gain * scores, config.high_iou, boxes, scores)
        self._match(table.life == CONFIRMED, low, free, gain, config.low_iou, boxes, scores)
        self._match(table.life == TENTATIVE, high, free, gain * scores, config.birth_iou, boxes, scores)
        self._age()

        starts = np.flatnonzero(free & (scores >= max(config.birth_score, config.high_score)))
        starts = starts[: MAX_TRACKS - len(table)]
        if len(starts):
            table.append(self._born(boxes[starts], scores[starts], class_ids[starts]))
        shown = np.flatnonzero((table.life == CONFIRMED) & (table.unseen_frames == 0))
        return table.tracks(shown, table.boxes_xyxy[shown])

    def _match(
        self,
        seeking: np.ndarray,
        offered: np.ndarray,
        free: np.ndarray,
        gain: Floats,
        least: float,
        boxes: F64,
        scores: F64,
    ) -> None:
        """One stage: pair unseen tracks with free detections, and correct the tracks."""
        table = self._table
        rows, columns = np.flatnonzero(seeking & (table.unseen_frames > 0)), np.flatnonzero(offered & free)
        if not len(rows) or not len(columns):
            return
        i, j = assign(gain[np.ix_(rows, columns)] - least)
        rows, columns = rows[i], columns[j]
        measured = xyxy_to_cxcywh(boxes[columns])
        correct(table.states, rows, measured, (self.config.noise.measurement * box_size(measured)) ** 2)
        table.see(rows, boxes[columns], scores[columns], self._clock.now_s)
        free[columns] = False

    def _age(self) -> None:
        """Promote, mark as lost, and end young tracks that were missed."""
        table = self._table
        seen = table.unseen_frames == 0
        table.life[seen & ((table.hits >= self.config.confirm_hits) | (table.life == LOST))] = CONFIRMED
        table.life[~seen & (table.life == CONFIRMED)] = LOST
        table.forget(~seen & (table.life == TENTATIVE))

    def _born(self, boxes: F64, scores: F64, class_ids: I64) -> TrackTable:
        born = TrackTable.born(self._next_id, boxes, scores, class_ids, self._clock.now_s, self.config.noise)
        self._next_id += len(scores)
        return born
