"""What all trackers share: clean input, one clock that never runs back, and the table of tracks.

What happens with bad input, the same in every tracker:

- A detection with a coordinate that is not a number, a score that is not finite, or less than `MIN_BOX_PX` wide or
  high (inverted boxes included), is dropped. Coordinates beyond ±`LIMIT_PX` are cut to it, scores to 0..1.
- At most `MAX_DETECTIONS` detections a frame are used, the best by score.
- Time that stands still moves nothing. Time that runs back (a video that loops) counts as standing still, and runs
  on from the new stamp. After a gap, tracks unseen for longer than the tracker's `lost_s` have ended before the
  frame is looked at, however few frames came between; so no motion is extrapolated for longer.
- A track also ends after `MAX_UNSEEN_FRAMES` frames unseen, and a tracker holds at most `MAX_TRACKS` tracks: what
  would start beyond that is not tracked. So a clock that stands still, or a flood of boxes, fills nothing.
- A change of frame size is no event: boxes are in pixels of the frame they come with, tracks whose boxes no longer
  fit find no match and end.

A track is tentative until its tracker confirms it. Then it gets its id: the first is 1, the next 2.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from perception.arrays import F64, I64
from perception.boxes import Floats, iou
from perception.trackers.kalman import (
    CXCYWH_FROM_XYXY,
    XYXY_FROM_CXCYWH,
    BoxStates,
    Noise,
    box_size,
    correct,
    predict,
)
from perception.types import CONFIRMED, LOST, Detections, Tracks

LIMIT_PX = 1e5
MIN_BOX_PX = 0.1
MAX_DETECTIONS = 1000
MAX_UNSEEN_FRAMES = 900
MAX_TRACKS = 2000
CLOCK_TOLERANCE_S = 1e-6
"""So that a `lost_s` of one second means ten steps of a tenth, whatever their rounding."""

_UNSEEN = np.repeat([0.0, -np.inf], 4)[:, None]
"""Box of a track that has none, and the negative of its variance."""


def whole_numbers(values: list[int]) -> I64:
    """An array of them, in a quarter of the time that numpy takes."""
    return np.frombuffer(array("q", values), np.int64) if values else np.zeros(0, np.int64)


def real_numbers(values: list[float]) -> F64:
    """`whole_numbers` of floats."""
    return np.frombuffer(array("d", values), np.float64) if values else np.zeros(0)


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
class Tracklet:
    """What is known of one track except its box. Frames are the tracker's own count of updates."""

    class_id: int
    score: float
    """Of the latest match."""
    detection: int
    """Index of the latest match among its frame's detections."""
    born_frame: int
    seen_frame: int
    """Of the latest match."""
    seen_s: float
    """Clock at the latest match."""
    reported_frame: int = -1
    """When it was reported last."""
    track_id: int = 0
    """0 while it is tentative."""
    hits: int = 1
    """Matches so far, the first detection included."""
    log_odds: float = 0.0
    """That it is an object, for trackers that count them."""
    young_scores: list[float] = field(default_factory=list)
    """Scores of its matches until it is steady, for trackers that learn from them."""
    is_hidden: bool = False
    """It has vanished behind another track, and was not matched since."""


Sighting = tuple[Tracklet, int, F64, float]
"""A match: whose, number of the frame, box (cx, cy, w, h) and score of the detection."""


class Recorder:
    """Part of every tracker: the history of its tracks, for `offline.py`."""

    _table: TrackTable

    def record(self) -> list[Sighting]:
        """Keep every match from now on until `reset`; returns the list that grows."""
        if self._table.history is None:
            self._table.history = []
        return self._table.history


class TrackTable:
    """All living tracks of a tracker in order of birth: boxes in arrays, tracklets in a list, one row for each."""

    def __init__(self, noise: Noise) -> None:
        self.noise = noise
        self.clock = Clock()
        self.frame = -1
        """Number of the latest frame."""
        self.tracklets: list[Tracklet] = []
        self.ended: list[Tracklet] = []
        """Those that ended in this frame so far."""
        self.history: list[Sighting] | None = None
        """Every match of every track, where somebody asks for it."""
        self.class_ids: I64 = np.zeros(0, np.int64)
        """(N,)"""
        self.states = BoxStates.born(np.zeros((4, 0)), noise)
        self._last_id = 0
        self._check_s, self._check_frame = 0.0, 0
        """No track can have been unseen for too long before this time and frame."""

    def __len__(self) -> int:
        return len(self.tracklets)

    def advance(self, timestamp_ns: int, lost_s: float, *, projective: bool = False) -> None:
        """Begin a frame: end tracks unseen for longer than `lost_s` or for too many frames, predict the others."""
        step_s = self.clock.tick(timestamp_ns)
        self.frame += 1
        self.ended = []
        now_s, frame = self.clock.now_s, self.frame
        if now_s > self._check_s or frame > self._check_frame:
            patience_s = lost_s + CLOCK_TOLERANCE_S
            self.keep(
                [
                    now_s - tracklet.seen_s <= patience_s and frame - tracklet.seen_frame <= MAX_UNSEEN_FRAMES
                    for tracklet in self.tracklets
                ]
            )
            self._check_s = min((tracklet.seen_s for tracklet in self.tracklets), default=now_s) + patience_s
            oldest_frame = min((tracklet.seen_frame for tracklet in self.tracklets), default=frame)
            self._check_frame = oldest_frame + MAX_UNSEEN_FRAMES
        predict(self.states, step_s, self.noise, projective=projective)

    def overlaps(self, boxes_xyxy: F64, class_ids: I64) -> Floats:
        """IoU of predicted boxes and detections (4, M), (N, M); 0 between classes."""
        expected = XYXY_FROM_CXCYWH @ self.states.position
        overlap = iou(expected.T, boxes_xyxy.T)
        overlap[self.class_ids[:, None] != class_ids] = 0.0
        return overlap

    def match(self, detection_of: dict[int, int], boxes_xyxy: F64, scores: F64) -> None:
        """Correct tracks by their detections, boxes (4, M), with the noise of a usual detector."""
        boxes_cxcywh = CXCYWH_FROM_XYXY @ boxes_xyxy
        variance = np.square(self.noise.measurement * box_size(boxes_cxcywh))
        self.correct(detection_of, np.concatenate([boxes_cxcywh, -variance]), scores.tolist())

    def correct(
        self, detection_of: dict[int, int], measured: F64, scores: Sequence[float], *, robust: bool = False
    ) -> None:
        """Correct tracks by their detections and note that they were seen.

        Args:
            detection_of: detection of each track that was seen.
            measured: (8, M) of all detections: cx, cy, w, h and the negative of their variance.
            scores: (M,)
            robust: as for `kalman.correct`.
        """
        if not detection_of:
            return
        tracklets, frame, now_s = self.tracklets, self.frame, self.clock.now_s
        columns = [-1] * len(tracklets)  # a track without a detection takes what is put at the end
        for row, column in detection_of.items():
            columns[row], tracklet = column, tracklets[row]
            tracklet.score, tracklet.detection = scores[column], column
            tracklet.seen_frame, tracklet.seen_s = frame, now_s
            tracklet.hits += 1
        own = np.concatenate([measured, _UNSEEN], axis=1).take(whole_numbers(columns), 1)
        correct(self.states, own.reshape(2, 4, -1), robust=robust)
        if self.history is not None:
            self.history += [(tracklets[i], frame, measured[:4, j], scores[j]) for i, j in detection_of.items()]

    def start(
        self, columns: Sequence[int], boxes_cxcywh: F64, scores: Sequence[float], class_ids: I64
    ) -> list[Tracklet]:
        """One tentative track for each chosen detection, as far as there is room; they come last in the table.

        Args:
            columns: the detections that start tracks.
            boxes_cxcywh: (4, M) of all detections.
            scores: (M,)
            class_ids: (M,)
        """
        columns = columns[: max(0, MAX_TRACKS - len(self))]
        if not len(columns):
            return []
        boxes = boxes_cxcywh.take(columns, 1)
        self.states.append(BoxStates.born(boxes, self.noise))
        own_classes = class_ids.take(columns)
        self.class_ids = np.concatenate([self.class_ids, own_classes])
        born = [
            Tracklet(class_id, scores[column], column, self.frame, self.frame, self.clock.now_s)
            for class_id, column in zip(own_classes.tolist(), columns, strict=True)
        ]
        self.tracklets += born
        if self.history is not None:
            self.history += [(t, self.frame, boxes[:, i], t.score) for i, t in enumerate(born)]
        return born

    def start_unmatched(
        self, detection_of: dict[int, int], boxes_xyxy: F64, scores: F64, class_ids: I64, least_score: float = 0.0
    ) -> None:
        """A tentative track for each detection of at least `least_score` that no track took."""
        free = scores >= least_score
        free[list(detection_of.values())] = False
        self.start(free.nonzero()[0].tolist(), CXCYWH_FROM_XYXY @ boxes_xyxy, scores.tolist(), class_ids)

    def confirm(self, tracklet: Tracklet) -> None:
        """Give a tentative track the next id."""
        self._last_id += 1
        tracklet.track_id = self._last_id

    def confirm_or_end(self, hits: int) -> None:
        """Confirm tentative tracks that have so many matches, and end those without a match in this frame."""
        for tracklet in self.tracklets:
            if not tracklet.track_id and tracklet.hits >= hits:
                self.confirm(tracklet)
        self.keep([tracklet.track_id > 0 or tracklet.seen_frame == self.frame for tracklet in self.tracklets])

    def seen_rows(self) -> list[int]:
        """Rows of the confirmed tracks that were matched in this frame."""
        return [i for i, t in enumerate(self.tracklets) if t.track_id and t.seen_frame == self.frame]

    def keep(self, wanted: list[bool]) -> None:
        """End the tracks whose entry of N is False."""
        if not all(wanted):
            self.ended += [t for t, is_wanted in zip(self.tracklets, wanted, strict=True) if not is_wanted]
            self.tracklets = [t for t, is_wanted in zip(self.tracklets, wanted, strict=True) if is_wanted]
            kept = np.array(wanted)
            self.states.keep(kept)
            self.class_ids = self.class_ids.compress(kept)

    def report(self, rows: Sequence[int], boxes_of: Callable[[I64, I64], F64]) -> Tracks:
        """The values that leave the tracker.

        Args:
            rows: confirmed tracks to report.
            boxes_of: corners (K, 4) to show, from these rows and the latest detection of each (K,).
        """
        tracklets, frame = self.tracklets, self.frame
        numbers: list[int] = []
        scores: list[float] = []
        for row in rows:
            t = tracklets[row]
            t.reported_frame = frame
            unseen = frame - t.seen_frame
            state = LOST if unseen else CONFIRMED
            numbers += (row, t.detection, t.track_id, t.class_id, state, frame - t.born_frame + 1, unseen)
            scores.append(t.score)
        own, found, track_ids, class_ids, states, ages, frames_since_seen = whole_numbers(numbers).reshape(-1, 7).T
        boxes_xyxy = boxes_of(own, found).astype(np.float32)
        return Tracks(track_ids, class_ids, boxes_xyxy, real_numbers(scores), states, ages, frames_since_seen)
