"""SORT: a Kalman filter, overlap, the best pairing, and nothing else.

Source: Bewley et al., "Simple Online and Realtime Tracking", ICIP 2016, with motion on real time and matching within
a class; the boxes that are told are the filter's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from perception.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from perception.trackers.assignment import assign
from perception.trackers.base import CONFIRMED, LOST, MAX_TRACKS, TENTATIVE, Clock, TrackTable, clean
from perception.trackers.kalman import Noise, box_size, correct, predict
from perception.types import F64, I64, Detections, Track


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
        self._clock = Clock()
        self._next_id = 1
        self._table = self._born(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))

    def update(
        self, detections: Detections, timestamp_ns: int, image_bgr: np.ndarray | None = None
    ) -> tuple[Track, ...]:
        """Take one frame's detections; returns the confirmed tracks seen in it, in order of birth."""
        config, table = self.config, self._table
        boxes, scores, class_ids = clean(detections)
        usable = scores >= config.low_score
        boxes, scores, class_ids = boxes[usable], scores[usable], class_ids[usable]
        dt_s = self._clock.tick(timestamp_ns)
        table.expire(self._clock.now_s, config.lost_s)
        predict(table.states, dt_s, config.noise)
        table.grow_older()

        overlap = iou(cxcywh_to_xyxy(table.states.position), boxes)  # (N, M)
        overlap[table.class_ids[:, None] != class_ids] = 0.0
        rows, columns = assign(overlap - config.least_iou)
        measured = xyxy_to_cxcywh(boxes[columns])
        correct(table.states, rows, measured, (config.noise.measurement * box_size(measured)) ** 2)
        table.see(rows, boxes[columns], scores[columns], self._clock.now_s)

        seen = table.unseen_frames == 0
        table.life[seen & ((table.hits >= config.confirm_hits) | (table.life == LOST))] = CONFIRMED
        table.life[~seen & (table.life == CONFIRMED)] = LOST
        table.forget(~seen & (table.life == TENTATIVE))
        starts = np.setdiff1d(np.arange(len(scores)), columns)[: MAX_TRACKS - len(table)]
        if len(starts):
            table.append(self._born(boxes[starts], scores[starts], class_ids[starts]))
        told = np.flatnonzero((table.life == CONFIRMED) & (table.unseen_frames == 0))
        return table.tracks(told, cxcywh_to_xyxy(table.states.position[told]))

    def _born(self, boxes: F64, scores: F64, class_ids: I64) -> TrackTable:
        born = TrackTable.born(self._next_id, boxes, scores, class_ids, self._clock.now_s, self.config.noise)
        self._next_id += len(scores)
        return born
