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


def clean(detections: Detections, low_score: float = 0.0) -> tuple[F64, F64, I64]:
    """Usable detections of at least `low_score`: boxes as columns (4, N), scores (N,) in 0..1 and class ids (N,)."""
    boxes = detections.boxes_xyxy.T.astype(np.float64, order="C")
    scores = detections.scores.astype(np.float64)
    class_ids = detections.class_ids
    if not len(scores):
        return boxes, scores, class_ids
    boxes = np.minimum(np.maximum(boxes, -LIMIT_PX), LIMIT_PX)  # NaN stays
    size = boxes[2:] - boxes[:2]
    usable = (np.minimum(size[0], size[1]) >= MIN_BOX_PX) & np.isfinite(scores)
    scores = np.minimum(np.maximum(scores, 0.0), 1.0)
    usable &= scores >= low_score
    if not all(usable.tolist()):
        boxes, scores, class_ids = boxes[:, usable], scores[usable], class_ids[usable]
    if len(scores) > MAX_DETECTIONS:
        best = np.sort(np.argsort(-scores, kind="stable")[:MAX_DETECTIONS])
        boxes, scores, class_ids = boxes[:, best], scores[best], class_ids[best]
    return boxes, scores, class_ids


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


class TrackTable:
    """All living tracks of a tracker, N columns in order of birth."""

    def __init__(self, noise: Noise) -> None:
        self.noise = noise
        self.clock = Clock()
        self.frame = -1
        """Number of the latest frame."""
        self.states = BoxStates.born(np.zeros((4, 0)), noise)
        self._counts: I64 = np.zeros((6, 0), np.int64)
        self._facts: F64 = np.zeros((3, 0))
        self._last_id = 0
        self._check_s, self._check_frame = 0.0, 0
        """Before this time and frame nobody can have been unseen for too long."""

    def __len__(self) -> int:
        return self._facts.shape[1]

    @property
    def track_ids(self) -> I64:
        """(N,) view, 0 for tentative tracks."""
        return self._counts[0]

    @property
    def class_ids(self) -> I64:
        """(N,) view."""
        return self._counts[1]

    @property
    def hits(self) -> I64:
        """(N,) view, matches so far, the first detection included."""
        return self._counts[2]

    @property
    def seen_frame(self) -> I64:
        """(N,) view, frame of the latest match."""
        return self._counts[3]

    @property
    def born_frame(self) -> I64:
        """(N,) view."""
        return self._counts[4]

    @property
    def told_frame(self) -> I64:
        """(N,) view, frame in which the track was told last; -1 for never."""
        return self._counts[5]

    @property
    def scores(self) -> F64:
        """(N,) view, of the latest match."""
        return self._facts[0]

    @property
    def seen_s(self) -> F64:
        """(N,) view, clock at the latest match."""
        return self._facts[1]

    @property
    def nats(self) -> F64:
        """(N,) view, log odds that the track is an object, for trackers that count them."""
        return self._facts[2]

    def begin(self, timestamp_ns: int, lost_s: float) -> float:
        """A new frame: the step in seconds. Tracks unseen for longer than `lost_s`, or for too many frames, end."""
        step_s = self.clock.tick(timestamp_ns)
        self.frame += 1
        now_s, frame = self.clock.now_s, self.frame
        if now_s > self._check_s or frame > self._check_frame:
            patience_s = lost_s + CLOCK_TOLERANCE_S
            self.forget((self.seen_s < now_s - patience_s) | (self.seen_frame < frame - MAX_UNSEEN_FRAMES))
            self._check_s = min(self.seen_s.tolist(), default=now_s) + patience_s
            self._check_frame = min(self.seen_frame.tolist(), default=frame) + MAX_UNSEEN_FRAMES
        return step_s

    def see(self, match: I64, boxes_cxcywh: F64, variance: F64, scores: F64) -> np.ndarray:
        """Correct the tracks by their detections and note that they were seen.

        Args:
            match: (N,) column of each track's detection, -1 for none.
            boxes_cxcywh: (4, M) of all detections.
            variance: (4, M) of all detections.
            scores: (M,)

        Returns:
            (N,) True for tracks that were seen.
        """
        seen = match >= 0
        if not np.count_nonzero(seen):
            return seen
        spread = variance.take(match, axis=1)
        if not all(seen.tolist()):
            spread[:, ~seen] = np.inf
        correct(self.states, boxes_cxcywh.take(match, axis=1), spread)
        hits = self.hits
        hits += seen
        np.copyto(self.seen_frame, self.frame, where=seen)
        np.copyto(self.seen_s, self.clock.now_s, where=seen)
        np.copyto(self.scores, scores.take(match), where=seen)
        return seen

    def start(self, boxes_xyxy: F64, scores: F64, class_ids: I64) -> int:
        """One tentative track for each detection, as far as there is room; how many. They are the last columns."""
        count = min(len(scores), MAX_TRACKS - len(self))
        if count <= 0:
            return 0
        self.states.append(BoxStates.born(CXCYWH_FROM_XYXY @ boxes_xyxy[:, :count], self.noise))
        counts, facts = np.zeros((6, count), np.int64), np.zeros((3, count))
        counts[1], counts[2], counts[3:5], counts[5] = class_ids[:count], 1, self.frame, -1
        facts[0], facts[1] = scores[:count], self.clock.now_s
        self._counts = np.concatenate([self._counts, counts], axis=1)
        self._facts = np.concatenate([self._facts, facts], axis=1)
        return count

    def confirm(self, ready: np.ndarray) -> None:
        """Give ids to those tentative tracks where the mask (N,) is True, in order of birth."""
        ids = self.track_ids
        new = (ready & (ids == 0)).nonzero()[0]
        if len(new):
            ids[new] = range(self._last_id + 1, self._last_id + 1 + len(new))
            self._last_id += len(new)

    def forget(self, dead: np.ndarray) -> None:
        """End the tracks where the mask (N,) is True."""
        if np.count_nonzero(dead):
            kept = ~dead
            self.states.keep(kept)
            self._counts, self._facts = self._counts[:, kept], self._facts[:, kept]

    def tell(self, columns: I64, boxes_cxcywh: F64) -> tuple[Track, ...]:
        """Some tracks as the values that leave the tracker, with the boxes (4, K) to show."""
        shown = np.dot(boxes_cxcywh.T, XYXY_FROM_CXCYWH.T).astype(np.float32)
        track_ids, class_ids, _, seen_frame, born_frame, _ = self._counts.take(columns, axis=1).tolist()
        self.told_frame[columns] = self.frame
        scores, frame = self.scores.take(columns).tolist(), self.frame
        tracks = []
        for box, track_id, class_id, score, seen, born in zip(
            shown, track_ids, class_ids, scores, seen_frame, born_frame, strict=True
        ):
            # a frozen dataclass takes 12 slow steps to make; fields that keep their default need none
            track = _NEW_TRACK(Track)
            track.__dict__.update(
                track_id=track_id,
                class_id=class_id,
                box_xyxy=box,
                score=score,
                state="confirmed" if seen == frame else "lost",
                age_frames=frame - born + 1,
                frames_since_seen=frame - seen,
            )
            tracks.append(track)
        return tuple(tracks)
