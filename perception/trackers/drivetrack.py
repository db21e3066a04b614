"""DriveTrack: the tracker for a camera that drives. One likelihood decides who is who.

For every track and detection near it we ask how much more likely it is that the detection shows the track than that
it shows something else, in nats (Bar-Shalom's and Blackman's track score). It adds up:

- the density of the detected box around the predicted one. The filter tells how certain the prediction is, so a
  track unseen for long looks further around, and says less about what it finds. Now and then a box slips: an
  occluder cuts it, or two cars share one. A share of the density is therefore wide;
- the detection's score: a doubtful one must fit better;
- the time the track was unseen: it may have left.

The pairing with the largest sum is made, first among known tracks, then among young ones with what is left.

Around that:

- Motion is constant velocity in the world, not in the picture (`kalman.predict`): boxes grow the faster, the nearer.
- A track is told when its scores together speak for it. A score is turned into log odds by the score at which the
  detector is right half of the time, one number a class; so a sure detection is told at once, a doubtful one after
  a few, and one that stays below even odds never. One missed frame does not end a young track.
- Detectors differ in what they call a high score. What the steady objects of a class score is learned on the way:
  a score counts in proportion to it, and if it is low, so is the score of even odds.
- A box that overlaps a track already seen in this frame does not start another.
- What starts while the whole picture moves (the camera turns) starts with that motion.
- A known object that vanishes where a nearer one covers it is taken to be hidden. It is told for a while longer,
  as "lost", where it must be.

Metres are not this file's business: `perception.ranging` adds them. The picture is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, pi

import numpy as np

from perception.boxes import Floats, cxcywh_to_xyxy, intersection_over_area, iou, xyxy_to_cxcywh
from perception.trackers.assignment import assign
from perception.trackers.base import (
    CLOCK_TOLERANCE_S,
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

SURE_SCORE = 0.999
"""No detection counts as surer than this, none as less sure than its complement."""


@dataclass(frozen=True)
class DriveConfig:
    """What is believed of detectors and of traffic. One set for all classes, but for the detector's even scores."""

    even_scores: tuple[float, ...] = (0.3, 0.6, 0.5)
    """A class's score at which a detection is as likely right as wrong; the last one serves all further classes."""
    learn_scores: bool = True
    """Learn what steady objects score; False: 1."""
    low_score: float = 0.1
    """Detections below are not used."""
    confirm_nats: float = 2.0
    """Log odds from which a track is told."""
    score_nats: float = 8.0
    """What a detection of typical score adds to a pairing, and one of score 0 does not."""
    unseen_nats_per_s: float = 2.0
    """What a pairing loses with each second the track was unseen."""
    slip_share: float = 0.2
    """Share of detections whose box has slipped: cut by an occluder, or shared by two objects."""
    slip: float = 0.2
    """How far such a box is off, standard deviation in box sizes."""
    doubt: float = 2.0
    """A detection that scores s times what is typical errs 1 + doubt·(1 − s) times as much."""
    duplicate_iou: float = 0.5
    """A detection that overlaps a track seen in this frame by more starts no track."""
    tentative_s: float = 0.15
    """A young track unseen for longer ends, seconds; it survives one missed frame at 10 Hz."""
    lost_s: float = 2.0
    """A known track unseen for longer ends, seconds."""
    hidden_s: float = 0.5
    """A hidden object is told for so long, seconds; 0: only what was detected in this frame is told."""
    hidden_cover: float = 0.3
    """Share of an object's box that nearer boxes must cover for it to be hidden."""
    smoothing: float = 0.5
    """Of the box that is told: 0 the detector's own, 1 the filter's."""
    projective: bool = True
    """Constant velocity in the world; False: in the picture."""
    shared_motion: bool = True
    """New tracks start with the sideways motion that most tracks have in common; False: at rest."""
    noise: Noise = field(default_factory=Noise)
    """Of the Kalman filter."""

    def __post_init__(self) -> None:
        if not self.even_scores or not all(0 < score < 1 for score in self.even_scores):
            raise ValueError(f"even_scores: found {self.even_scores}, expected one or more numbers between 0 and 1")


@dataclass(eq=False)
class DriveTable(TrackTable):
    """Tracks with the evidence for their existence."""

    nats: F64
    """(N,) log odds that the track is an object, from its scores so far."""


FIRST_TYPICAL_SCORE, LEAST_TYPICAL_SCORE = 0.9, 0.2
"""What steady objects are taken to score before any were seen, and the least that is believed."""
TYPICAL_QUANTILE, TYPICAL_STEP, STEADY_HITS = 0.75, 0.02, 5
"""The typical score is this quantile over tracks with so many matches; each moves it by about one step."""
EVEN_SHARE = 0.75
"""The score of even odds is at most this share of the typical one."""
SHARED_MOTION_TRACKS = 3
"""So many tracks must agree on a common motion, each seen so many times."""
HIDDEN_AFTER_HITS = 3
"""A track seen less often is not believed to be hidden."""
GROUND_TOLERANCE = 0.02
"""A box stands nearer if its foot is lower; within this share of the height the two are level."""
FAR_SIGMAS_SQUARED = 20.0
"""Beyond so many variances in one coordinate no pairing gains, whatever the others say."""


class DriveTracker:
    """See the top of this file; `perception.trackers.base` says what becomes of bad input."""

    def __init__(self, config: DriveConfig = DriveConfig()) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        self._clock = Clock()
        self._next_id = 1
        self._typical = np.full(
            len(self.config.even_scores), FIRST_TYPICAL_SCORE if self.config.learn_scores else 1.0
        )
        self._even_nats = self._odds_of_even()
        nothing = np.zeros(0)
        self._table = self._born(np.zeros((0, 4)), nothing, nothing.astype(np.int64))

    def update(
        self, detections: Detections, timestamp_ns: int, image_bgr: np.ndarray | None = None
    ) -> tuple[Track, ...]:
        """Take one frame's detections.

        Returns:
            In order of birth, the confirmed tracks seen in this frame, and as "lost" those believed hidden.
        """
        config, table = self.config, self._table
        boxes, scores, class_ids = clean(detections)
        usable = scores >= config.low_score
        if not usable.all():
            boxes, scores, class_ids = boxes[usable], scores[usable], class_ids[usable]

        dt_s = self._clock.tick(timestamp_ns)
        table.expire(self._clock.now_s, config.lost_s)
        predict(table.states, dt_s, config.noise, projective=config.projective)
        table.grow_older()

        free = np.ones(len(scores), bool)
        if len(table) and len(scores):
            measured = xyxy_to_cxcywh(boxes)
            surety = np.minimum(scores / self._typical[self._kind(class_ids)], 1.0)
            deviation = config.noise.measurement * (1 + config.doubt * (1 - surety))
            variance = (deviation[:, None] * box_size(measured)) ** 2
            gain = self._gain(measured, variance, surety, class_ids)
            known = table.life != TENTATIVE
            for stage in (known, ~known):
                rows, columns = stage.nonzero()[0], free.nonzero()[0]
                if len(rows) and len(columns):
                    i, j = assign(gain[rows[:, None], columns])
                    rows, columns = rows[i], columns[j]
                    correct(table.states, rows, measured[columns], variance[columns])
                    table.see(rows, boxes[columns], scores[columns], self._clock.now_s)
                    table.nats[rows] += self._log_odds(scores[columns], class_ids[columns])
                    free[columns] = False

        if config.learn_scores:
            self._learn()
        self._age()
        if free.any():
            self._start(boxes[free], scores[free], class_ids[free])
        return self._told()

    def _gain(self, measured: Floats, variance: Floats, surety: F64, class_ids: I64) -> F64:
        """What pairing every track with every detection gains, in nats, (N, M); -1 where they are far apart."""
        config, table = self.config, self._table
        states, sizes = table.states, box_size(measured)
        gain = np.full((len(table), len(surety)), -1.0)
        # almost all pairs are far apart: look across first, in full only at the rest
        across = states.position[:, :1] - measured[:, 0]  # (N, M)
        reach = states.var_pp[:, :1] + (variance[:, 0] + (2 * config.slip * sizes[:, 0]) ** 2)
        near = (across * across < FAR_SIGMAS_SQUARED * reach) & (table.class_ids[:, None] == class_ids)
        rows, columns = np.nonzero(near)
        if not len(rows):
            return gain
        unit = box_size(states.position)[rows] * sizes[columns]  # (K, 4) squared size of the pair's boxes
        spread = (states.var_pp[rows] + variance[columns]) / unit  # in squared box sizes
        error = (measured[columns] - states.position[rows]) ** 2 / unit
        exact, slipped = _log_density(error, spread), _log_density(error, spread + config.slip**2)
        density = np.logaddexp(log(1 - config.slip_share) + exact, log(config.slip_share) + slipped)
        unseen_s = self._clock.now_s - table.seen_s[rows]
        missed = table.unseen_frames[rows] > 1
        gain[rows, columns] = (
            density + config.score_nats * surety[columns] - config.unseen_nats_per_s * unseen_s * missed
        )
        return gain

    def _log_odds(self, scores: F64, class_ids: I64) -> F64:
        """How much a detection of such a score speaks for an object, in nats, (N,)."""
        scores = np.minimum(np.maximum(scores, 1 - SURE_SCORE), SURE_SCORE)
        return np.log(scores / (1 - scores)) - self._even_nats[self._kind(class_ids)]

    def _kind(self, class_ids: I64) -> I64:
        """Which of `even_scores` serves each class, (N,)."""
        last = len(self._typical) - 1
        return np.minimum(np.where(class_ids < 0, last, class_ids), last)

    def _odds_of_even(self) -> F64:
        even = np.minimum(self.config.even_scores, EVEN_SHARE * self._typical)
        return np.log(even / (1 - even))

    def _learn(self) -> None:
        """Move the typical score of each class by what its steady tracks scored in this frame."""
        table = self._table
        steady = (table.unseen_frames == 0) & (table.hits >= STEADY_HITS)
        if steady.any():
            kind = self._kind(table.class_ids[steady])
            below = table.scores[steady] < self._typical[kind]
            move = np.bincount(kind, TYPICAL_QUANTILE - below, len(self._typical))
            moved = self._typical + TYPICAL_STEP * move
            self._typical = np.minimum(np.maximum(moved, LEAST_TYPICAL_SCORE), 1.0)
            self._even_nats = self._odds_of_even()

    def _age(self) -> None:
        """Promote tracks with evidence, mark as lost, end young tracks that were missed for too long."""
        table, now_s = self._table, self._clock.now_s
        seen = table.unseen_frames == 0
        table.life[seen & ((table.nats >= self.config.confirm_nats) | (table.life == LOST))] = CONFIRMED
        table.life[~seen & (table.life == CONFIRMED)] = LOST
        missed_s = now_s - table.seen_s - CLOCK_TOLERANCE_S
        table.forget(~seen & (table.life == TENTATIVE) & (missed_s > self.config.tentative_s))

    def _start(self, boxes: F64, scores: F64, class_ids: I64) -> None:
        """New tracks from detections that nobody claimed."""
        config, table = self.config, self._table
        taken = table.unseen_frames == 0
        if taken.any():
            overlap = iou(boxes, table.boxes_xyxy[taken])
            overlap[class_ids[:, None] != table.class_ids[taken]] = 0.0
            new = (overlap <= config.duplicate_iou).all(axis=1)
            boxes, scores, class_ids = boxes[new], scores[new], class_ids[new]
        room = MAX_TRACKS - len(table)
        if not len(scores) or not room:
            return
        born = self._born(boxes[:room], scores[:room], class_ids[:room])
        steady = taken & (table.hits >= SHARED_MOTION_TRACKS)
        if config.shared_motion and np.count_nonzero(steady) >= SHARED_MOTION_TRACKS:
            born.states.velocity[:, 0] = _median(table.states.velocity[steady, 0])
        born.life[born.nats >= config.confirm_nats] = CONFIRMED
        table.append(born)

    def _born(self, boxes: F64, scores: F64, class_ids: I64) -> DriveTable:
        now_s, noise = self._clock.now_s, self.config.noise
        nats = self._log_odds(scores, class_ids)
        born = DriveTable.born(self._next_id, boxes, scores, class_ids, now_s, noise, nats=nats)
        self._next_id += len(scores)
        return born

    def _told(self) -> tuple[Track, ...]:
        """The tracks to tell and their boxes."""
        config, table = self.config, self._table
        seen = (table.life == CONFIRMED) & (table.unseen_frames == 0)
        told = seen | self._hidden() if config.hidden_s > 0 else seen
        rows = np.flatnonzero(told)
        filtered = cxcywh_to_xyxy(table.states.position[rows])
        weight = np.where(seen[rows, None], config.smoothing, 1.0)
        return table.tracks(rows, weight * filtered + (1 - weight) * table.boxes_xyxy[rows])

    def _hidden(self) -> np.ndarray:
        """(N,) True for known tracks, lately unseen, that a nearer box of this frame covers."""
        config, table = self.config, self._table
        hidden = (table.life == LOST) & (table.hits >= HIDDEN_AFTER_HITS)
        hidden &= table.seen_s >= self._clock.now_s - config.hidden_s - CLOCK_TOLERANCE_S
        rows = np.flatnonzero(hidden)
        if len(rows):
            expected = cxcywh_to_xyxy(table.states.position[rows])
            front = table.boxes_xyxy[table.unseen_frames == 0]
            level = GROUND_TOLERANCE * (expected[:, 3] - expected[:, 1])
            nearer = front[:, 3] >= (expected[:, 3] - level)[:, None]  # (K, F)
            cover = intersection_over_area(expected, front) * nearer
            hidden[rows] = (cover > config.hidden_cover).any(axis=1)
        return hidden


def _median(values: F64) -> float:
    """The upper median; NumPy's takes longer than all else that a new track costs."""
    return float(np.sort(values)[len(values) // 2])


def _log_density(error: F64, spread: F64) -> F64:
    """Of a normal distribution of four independent coordinates, from squared errors and variances (K, 4); (K,)."""
    return -0.5 * ((error / spread).sum(axis=1) + np.log(spread.prod(axis=1))) - 2 * log(2 * pi)
