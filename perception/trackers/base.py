"""What all trackers share: clean input, one clock that never runs back, and the table of tracks.

What happens with bad input, the same in every tracker:

- A detection with a coordinate that is not a number, a score that is not finite, or less than `MIN_BOX_PX` wide or
  high (inverted boxes included), is dropped. Coordinates beyond ±`LIMIT_PX` are cut to it, scores to 0..1.
- At most `MAX_DETECTIONS` detections a frame are used, the best by score.
- Time that stands still moves nothing. Time that runs back (a video that loops) counts as standing still, and runs
  on from the new stamp. After a gap, tracks unseen for longer than the tracker's patience have ended before the
  frame is looked at, however few frames came between; so no motion is extrapolated for longer.
- A track also ends after `MAX_UNSEEN_FRAMES` frames unseen, and a tracker holds at most `MAX_TRACKS` tracks: what
  would start beyond that is not followed. So a clock that stands still, or a flood of boxes, fills nothing.
- A change of frame size is no event: boxes are in pixels of the frame they come with, tracks whose boxes no longer
  fit find no match and end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from perception.boxes import Floats, xyxy_to_cxcywh
from perception.trackers.kalman import BoxStates, Columns, Noise
from perception.types import F32, F64, I64, Detections, Track, TrackState

LIMIT_PX = 1e5
MIN_BOX_PX = 0.1
MAX_DETECTIONS = 1000
MAX_UNSEEN_FRAMES = 900
MAX_TRACKS = 2000
CLOCK_TOLERANCE_S = 1e-6
"""So that a patience of one second means ten steps of a tenth, whatever their rounding."""

TENTATIVE, CONFIRMED, LOST = 0, 1, 2
STATE_NAMES: tuple[TrackState, ...] = ("tentative", "confirmed", "lost")


def clean(detections: Detections) -> tuple[F64, F64, I64]:
    """Usable detections as boxes (N, 4) float64, scores (N,) float64 in 0..1 and class ids (N,)."""
    boxes = np.asarray(detections.boxes_xyxy, np.float64)
    scores = np.asarray(detections.scores, np.float64)
    class_ids = np.asarray(detections.class_ids, np.int64)
    if not len(scores):
        return boxes, scores, class_ids
    boxes = np.minimum(np.maximum(boxes, -LIMIT_PX), LIMIT_PX)  # NaN stays
    size = boxes[:, 2:] - boxes[:, :2]
    usable = (size[:, 0] >= MIN_BOX_PX) & (size[:, 1] >= MIN_BOX_PX) & np.isfinite(scores)
    if not usable.all():
        boxes, scores, class_ids = boxes[usable], scores[usable], class_ids[usable]
    if len(scores) > MAX_DETECTIONS:
        best = np.sort(np.argsort(-scores, kind="stable")[:MAX_DETECTIONS])
        boxes, scores, class_ids = boxes[best], scores[best], class_ids[best]
    return boxes, np.minimum(np.maximum(scores, 0.0), 1.0), class_ids


class Clock:
    """Seconds between frames, never negative."""

    def __init__(self) -> None:
        self.last_ns: int | None = None
        self.now_s = 0.0

    def tick(self, timestamp_ns: int) -> float:
        """Move to a timestamp; returns the step in seconds, 0 where time stood still or ran back."""
        step_s = 0.0 if self.last_ns is None else max(0, timestamp_ns - self.last_ns) * 1e-9
        self.last_ns = timestamp_ns
        self.now_s += step_s
        return step_s


@dataclass(eq=False)
class TrackTable(Columns):
    """All living tracks of a tracker, N rows in order of birth."""

    states: BoxStates
    track_ids: I64
    """(N,)"""
    class_ids: I64
    """(N,)"""
    life: I64
    """(N,) TENTATIVE, CONFIRMED or LOST."""
    scores: F64
    """(N,) of the latest match."""
    boxes_xyxy: F64
    """(N, 4) latest matched detection."""
    seen_s: F64
    """(N,) clock at the latest match."""
    hits: I64
    """(N,) matches so far."""
    age_frames: I64
    """(N,) frames since birth, the first included."""
    unseen_frames: I64
    """(N,) frames since the latest match."""

    def __len__(self) -> int:
        return len(self.track_ids)

    @classmethod
    def born(
        cls,
        first_id: int,
        boxes_xyxy: F64,
        scores: F64,
        class_ids: I64,
        now_s: float,
        noise: Noise,
        **further: np.ndarray,
    ) -> Self:
        """One tentative track for each detection, with ids from `first_id` on; `further` columns of a subclass."""
        count = len(scores)
        return cls(
            states=BoxStates.born(xyxy_to_cxcywh(boxes_xyxy), noise),
            track_ids=np.arange(first_id, first_id + count),
            class_ids=class_ids.copy(),
            life=np.full(count, TENTATIVE),
            scores=scores.copy(),
            boxes_xyxy=boxes_xyxy.copy(),
            seen_s=np.full(count, now_s),
            hits=np.ones(count, np.int64),
            age_frames=np.ones(count, np.int64),
            unseen_frames=np.zeros(count, np.int64),
            **further,
        )

    def grow_older(self) -> None:
        """Another frame has come; nobody has been seen in it yet."""
        self.age_frames += 1
        self.unseen_frames += 1

    def see(self, rows: I64, boxes_xyxy: F64, scores: F64, now_s: float) -> None:
        """Note which detections matched; the filter is the caller's."""
        self.boxes_xyxy[rows], self.scores[rows], self.seen_s[rows] = boxes_xyxy, scores, now_s
        self.unseen_frames[rows] = 0
        self.hits[rows] += 1

    def expire(self, now_s: float, lost_s: float) -> None:
        """Forget tracks that nobody has seen for longer than `lost_s`, or for too many frames."""
        self.forget((now_s - self.seen_s > lost_s + CLOCK_TOLERANCE_S) | (self.unseen_frames > MAX_UNSEEN_FRAMES))

    def forget(self, dead: np.ndarray) -> None:
        """End the tracks where the mask (N,) is True."""
        if dead.any():
            self.keep(~dead)

    def tracks(self, rows: I64, boxes_xyxy: Floats) -> tuple[Track, ...]:
        """Some rows as the values that leave the tracker, with the boxes (K, 4) to show."""
        shown: F32 = boxes_xyxy.astype(np.float32)
        columns = (self.track_ids, self.class_ids, self.scores, self.life, self.age_frames, self.unseen_frames)
        return tuple(
            Track(track_id, class_id, box, score, STATE_NAMES[life], age, unseen)
            for box, track_id, class_id, score, life, age, unseen in zip(
                shown, *(column[rows].tolist() for column in columns), strict=True
            )
        )
