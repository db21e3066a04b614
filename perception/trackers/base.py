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

A track is tentative until its tracker believes in it. Then it is known and gets its id: the first is 1, the next 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from perception.trackers.kalman import CXCYWH_FROM_XYXY, XYXY_FROM_CXCYWH, BoxStates, Noise, correct
from perception.types import F64, I64, Detections, Track

LIMIT_PX = 1e5
MIN_BOX_PX = 0.1
MAX_DETECTIONS = 1000
MAX_UNSEEN_FRAMES = 900
MAX_TRACKS = 2000
CLOCK_TOLERANCE_S = 1e-6
"""So that a patience of one second means ten steps of a tenth, whatever their rounding."""

_NEW_TRACK = object.__new__
_UNSEEN = np.full((4, 1), np.inf)
"""Variance of the box of a track that has none."""
_XYXY_FROM_CXCYWH_ROWS = np.ascontiguousarray(XYXY_FROM_CXCYWH.T)


def clean(detections: Detections, low_score: float = 0.0) -> tuple[F64, F64, I64]:
    """Usable detections of at least `low_score`: boxes as columns (4, N), scores (N,) in 0..1 and class ids (N,)."""
    boxes = detections.boxes_xyxy.T.astype(np.float64, order="C")
    scores = detections.scores.astype(np.float64)
    class_ids = detections.class_ids
    if len(scores) <= MAX_DETECTIONS and _all_usable(detections, low_score):
        return boxes, scores, class_ids
    boxes = np.minimum(np.maximum(boxes, -LIMIT_PX), LIMIT_PX)  # NaN stays
    usable = (boxes[2:] - boxes[:2] >= MIN_BOX_PX).all(axis=0) & np.isfinite(scores)
    scores = np.minimum(np.maximum(scores, 0.0), 1.0)
    usable &= scores >= low_score
    boxes, scores, class_ids = boxes[:, usable], scores[usable], class_ids[usable]
    best = np.sort(np.argsort(-scores, kind="stable")[:MAX_DETECTIONS])
    return boxes[:, best], scores[best], class_ids[best]


def _all_usable(detections: Detections, low_score: float) -> bool:
    """Whether `clean` has nothing to do, as almost always. What is not a number fails every comparison."""
    for left, top, right, bottom in detections.boxes_xyxy.tolist():
        if not -LIMIT_PX <= left <= right - MIN_BOX_PX <= LIMIT_PX:
            return False
        if not -LIMIT_PX <= top <= bottom - MIN_BOX_PX <= LIMIT_PX:
            return False
    scores = detections.scores.tolist()
    return not scores or (low_score <= min(scores) and max(scores) <= 1 and sum(scores) <= len(scores))


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


@dataclass(slots=True, eq=False)
class Life:
    """What is known of one track but for its place. Frames are the tracker's own count of updates."""

    class_id: int
    score: float
    """Of the latest match."""
    born_frame: int
    seen_frame: int
    """Of the latest match."""
    seen_s: float
    """Clock at the latest match."""
    told_frame: int = -1
    """When it was told last."""
    track_id: int = 0
    """0 while it is tentative."""
    hits: int = 1
    """Matches so far, the first detection included."""
    nats: float = 0.0
    """Log odds that it is an object, for trackers that count them."""


class TrackTable:
    """All living tracks of a tracker in order of birth: numbers in arrays, lives in a list, one row for each."""

    def __init__(self, noise: Noise) -> None:
        self.noise = noise
        self.clock = Clock()
        self.frame = -1
        """Number of the latest frame."""
        self.lives: list[Life] = []
        self.class_ids: I64 = np.zeros(0, np.int64)
        """(N,)"""
        self.states = BoxStates.born(np.zeros((4, 0)), noise)
        self._last_id = 0
        self._check_s, self._check_frame = 0.0, 0
        """Before this time and frame nobody can have been unseen for too long."""

    def __len__(self) -> int:
        return len(self.lives)

    def begin(self, timestamp_ns: int, lost_s: float) -> float:
        """A new frame: the step in seconds. Tracks unseen for longer than `lost_s`, or for too many frames, end."""
        step_s = self.clock.tick(timestamp_ns)
        self.frame += 1
        now_s, frame = self.clock.now_s, self.frame
        if now_s > self._check_s or frame > self._check_frame:
            patience_s = lost_s + CLOCK_TOLERANCE_S
            self.keep(
                [
                    now_s - life.seen_s <= patience_s and frame - life.seen_frame <= MAX_UNSEEN_FRAMES
                    for life in self.lives
                ]
            )
            self._check_s = min((life.seen_s for life in self.lives), default=now_s) + patience_s
            self._check_frame = min((life.seen_frame for life in self.lives), default=frame) + MAX_UNSEEN_FRAMES
        return step_s

    def see(self, match: dict[int, int], boxes_cxcywh: F64, variance: F64, scores: Sequence[float]) -> None:
        """Correct tracks by their detections and note that they were seen.

        Args:
            match: detection of each track that was seen.
            boxes_cxcywh: (4, M) of all detections.
            variance: (4, M) of all detections.
            scores: (M,)
        """
        if not match:
            return
        column_of = match.get
        columns = np.array([column_of(row, -1) for row in range(len(self.lives))])
        # -1: who has no detection gets the last one's box, and as its variance the infinite one put at the end
        spread = np.concatenate([variance, _UNSEEN], axis=1).take(columns, 1)
        correct(self.states, boxes_cxcywh.take(columns, 1), spread)
        lives, frame, now_s = self.lives, self.frame, self.clock.now_s
        for row, column in match.items():
            life = lives[row]
            life.score, life.seen_frame, life.seen_s = scores[column], frame, now_s
            life.hits += 1

    def start(self, boxes_xyxy: F64, scores: Sequence[float], class_ids: I64) -> list[Life]:
        """One tentative track for each detection, as far as there is room; they come last in the table."""
        count = min(len(scores), MAX_TRACKS - len(self))
        if count <= 0:
            return []
        self.states.append(BoxStates.born(CXCYWH_FROM_XYXY @ boxes_xyxy[:, :count], self.noise))
        self.class_ids = np.concatenate([self.class_ids, class_ids[:count]])
        born = [
            Life(class_id, score, self.frame, self.frame, self.clock.now_s)
            for class_id, score in zip(class_ids[:count].tolist(), scores[:count], strict=True)
        ]
        self.lives += born
        return born

    def confirm(self, life: Life) -> None:
        """Give a tentative track the next id."""
        self._last_id += 1
        life.track_id = self._last_id

    def keep(self, wanted: list[bool]) -> None:
        """End the tracks whose entry of N is False."""
        if not all(wanted):
            self.lives = [life for life, is_wanted in zip(self.lives, wanted, strict=True) if is_wanted]
            kept = np.array(wanted)
            self.states.keep(kept)
            self.class_ids = self.class_ids[kept]

    def tell(self, rows: Iterable[int], boxes_cxcywh: F64) -> tuple[Track, ...]:
        """Some tracks as the values that leave the tracker, with the boxes (4, K) to show."""
        shown = boxes_cxcywh.T.dot(_XYXY_FROM_CXCYWH_ROWS).astype(np.float32)
        lives, frame = self.lives, self.frame
        tracks = []
        for row, box in zip(rows, shown, strict=True):
            life = lives[row]
            life.told_frame = frame
            # a frozen dataclass takes 12 slow steps to make; fields that keep their default need none
            track = _NEW_TRACK(Track)
            fields = track.__dict__
            fields["track_id"], fields["class_id"], fields["box_xyxy"] = life.track_id, life.class_id, box
            fields["score"], fields["state"] = life.score, "confirmed" if life.seen_frame == frame else "lost"
            fields["age_frames"], fields["frames_since_seen"] = frame - life.born_frame + 1, frame - life.seen_frame
            tracks.append(track)
        return tuple(tracks)
