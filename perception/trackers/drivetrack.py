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

from perception.boxes import intersection
from perception.trackers.assignment import assign
from perception.trackers.base import CLOCK_TOLERANCE_S, TrackTable, clean
from perception.trackers.kalman import CXCYWH_FROM_XYXY, XYXY_FROM_CXCYWH, Noise, box_size, predict
from perception.types import F64, I64, Detections, Track

NOBODY = np.zeros(0, np.int64)
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
        # what the settings come to in the formulas below
        self._deviation = config.noise.measurement * (1 + config.doubt), config.noise.measurement * config.doubt
        self._slip, self._far_slip = config.slip**2, (2 * config.slip) ** 2
        self._log_shares = log(1 - config.slip_share) - 2 * log(2 * pi), log(config.slip_share) - 2 * log(2 * pi)
        self.reset()

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        first = FIRST_TYPICAL_SCORE if self.config.learn_scores else 1.0
        self._typical, self._even_nats = np.zeros((2, len(self.config.even_scores)))
        for kind in range(len(self._typical)):
            self._believe(kind, first)
        self._table = TrackTable(self.config.noise)

    def update(
        self, detections: Detections, timestamp_ns: int, image_bgr: np.ndarray | None = None
    ) -> tuple[Track, ...]:
        """Take one frame's detections.

        Returns:
            In order of birth, the confirmed tracks seen in this frame, and as "lost" those believed hidden.
        """
        config, table = self.config, self._table
        boxes, scores, class_ids = clean(detections, config.low_score)
        dt_s = table.begin(timestamp_ns, config.lost_s)
        predict(table.states, dt_s, config.noise, projective=config.projective)
        if not len(scores):
            self._judge_young(np.full(len(table), -1))
            return ()

        measured = np.dot(CXCYWH_FROM_XYXY, boxes)
        nats = self._log_odds(scores, class_ids)
        match = NOBODY
        if len(table):
            sizes = box_size(measured)
            surety = np.minimum(scores / self._typical.take(class_ids, mode="clip"), 1.0)
            variance = np.square((self._deviation[0] - self._deviation[1] * surety) * sizes)
            match = self._pair(measured, sizes, variance, surety, class_ids)
            seen = table.see(match, measured, variance, scores)
            np.add(table.nats, nats.take(match), out=table.nats, where=seen)
            if config.learn_scores:
                self._learn(seen)
        if np.count_nonzero(match >= 0) < len(scores):
            match = self._start(match, boxes, scores, class_ids, nats)
        match = self._judge_young(match)
        return self._tell(match, measured, boxes)

    def _pair(self, measured: F64, sizes: F64, variance: F64, surety: F64, class_ids: I64) -> I64:
        """The detection of each track, (N,), -1 for none: the pairing that gains most, known tracks first."""
        config, table = self.config, self._table
        position, spread = table.states.position, table.states.var_pp
        # almost all pairs are far apart: look across first, in full only at the rest
        across = position[0][:, None] - measured[0]  # (N, M)
        across *= across
        reach = variance[0] + self._far_slip * np.square(sizes[0])
        near = across < FAR_SIGMAS_SQUARED * (spread[0][:, None] + reach)
        near &= table.class_ids[:, None] == class_ids
        rows, columns = near.nonzero()
        unit = box_size(position).take(rows, axis=1)
        unit *= sizes.take(columns, axis=1)  # (4, K) squared size of the pair's boxes, in which the rest is told
        error = measured.take(columns, axis=1) - position.take(rows, axis=1)
        error *= error
        error /= unit
        spread = spread.take(rows, axis=1) + variance.take(columns, axis=1)
        spread /= unit
        exact, slipped = self._log_shares
        gain = np.logaddexp(exact + _log_density(error, spread), slipped + _log_density(error, spread + self._slip))
        gain += config.score_nats * surety.take(columns)
        missed = table.seen_frame < table.frame - 1
        if np.count_nonzero(missed):
            unseen_s = (table.clock.now_s - table.seen_s) * missed
            gain -= config.unseen_nats_per_s * unseen_s.take(rows)
        gains = np.zeros(near.shape)
        gains[near] = gain
        return assign(gains, table.track_ids > 0)

    def _start(self, match: I64, boxes: F64, scores: F64, class_ids: I64, nats: F64) -> I64:
        """New tracks from detections that nobody claimed; `match` with theirs."""
        config, table = self.config, self._table
        free = np.ones(len(scores), bool)
        seen = match >= 0
        taken = match[seen]
        free[taken] = False
        new = free.nonzero()[0]
        if len(taken):
            ours, theirs = boxes.take(new, axis=1), boxes.take(taken, axis=1)
            shared = intersection(ours.T, theirs.T)  # (K, F)
            both = _area(ours)[:, None] + _area(theirs)
            same = shared > config.duplicate_iou * (both - shared)
            same &= class_ids[new][:, None] == class_ids[taken]
            new = new[~np.logical_or.reduce(same, axis=1)]
        if not len(new):
            return match
        count = table.start(boxes.take(new, axis=1), scores[new], class_ids[new])
        new = new[:count]
        table.nats[len(match) :] = nats[new]
        if config.shared_motion:
            steady = seen & (table.hits[: len(match)] >= SHARED_MOTION_TRACKS)
            if np.count_nonzero(steady) >= SHARED_MOTION_TRACKS:
                velocity = table.states.velocity[0]
                velocity[len(match) :] = _median(velocity[: len(match)][steady])
        return np.concatenate([match, new])

    def _judge_young(self, match: I64) -> I64:
        """Tentative tracks with evidence become known, those missed for too long end; `match` without these."""
        config, table = self.config, self._table
        young = table.track_ids == 0
        if not np.count_nonzero(young):
            return match
        seen = match >= 0
        table.confirm(seen & (table.nats >= config.confirm_nats))
        dead = young & ~seen & (table.seen_s < table.clock.now_s - config.tentative_s - CLOCK_TOLERANCE_S)
        if not np.count_nonzero(dead):
            return match
        table.forget(dead)
        return match[~dead]

    def _tell(self, match: I64, measured: F64, boxes: F64) -> tuple[Track, ...]:
        """The tracks to tell and their boxes."""
        config, table = self.config, self._table
        known = table.track_ids > 0
        columns = ((match >= 0) & known).nonzero()[0]
        filtered = table.states.position.take(columns, axis=1)
        shown = config.smoothing * filtered + (1 - config.smoothing) * measured.take(match.take(columns), axis=1)
        hidden = self._hidden(match, boxes)
        if len(hidden):
            columns = np.concatenate([columns, hidden])
            order = columns.argsort()
            shown = np.concatenate([shown, table.states.position.take(hidden, axis=1)], axis=1).take(order, axis=1)
            columns = columns[order]
        return table.tell(columns, shown)

    def _hidden(self, match: I64, boxes: F64) -> I64:
        """Known tracks (K,) that were told in the last frame and that a nearer box covers in this one."""
        config, table = self.config, self._table
        missing = (match < 0) & (table.told_frame == table.frame - 1)
        if not np.count_nonzero(missing) or config.hidden_s <= 0:
            return NOBODY
        missing &= (table.hits >= HIDDEN_AFTER_HITS) & (
            table.seen_s >= table.clock.now_s - config.hidden_s - CLOCK_TOLERANCE_S
        )
        columns = missing.nonzero()[0]
        expected = np.dot(XYXY_FROM_CXCYWH, table.states.position.take(columns, axis=1))
        front = boxes[:, match[match >= 0]]
        level = GROUND_TOLERANCE * (expected[3] - expected[1])
        cover = front[3] >= (expected[3] - level)[:, None]  # (K, F)
        cover &= intersection(expected.T, front.T) > (config.hidden_cover * _area(expected))[:, None]
        return columns[np.logical_or.reduce(cover, axis=1)]

    # ------------------------------------------------------------ what a score is worth

    def _believe(self, kind: int, typical: float) -> None:
        """Take a score to be typical for a class; so the score that is as likely right as wrong is known too."""
        even = min(self.config.even_scores[kind], EVEN_SHARE * typical)
        self._typical[kind], self._even_nats[kind] = typical, log(even / (1 - even))

    def _log_odds(self, scores: F64, class_ids: I64) -> F64:
        """How much a detection of such a score speaks for an object, in nats, (N,)."""
        scores = np.minimum(np.maximum(scores, 1 - SURE_SCORE), SURE_SCORE)
        return np.log(scores / (1 - scores)) - self._even_nats.take(class_ids, mode="clip")

    def _learn(self, seen: np.ndarray) -> None:
        """Move the typical score of each class by what its steady tracks scored in this frame."""
        table = self._table
        typical = self._typical.tolist()
        moves = [0.0] * len(typical)
        for is_seen, hits, score, class_id in zip(
            seen.tolist(), table.hits.tolist(), table.scores.tolist(), table.class_ids.tolist(), strict=True
        ):
            if is_seen and hits >= STEADY_HITS:
                kind = min(max(class_id, 0), len(typical) - 1)
                moves[kind] += TYPICAL_QUANTILE - (score < typical[kind])
        for kind, move in enumerate(moves):
            if move:
                moved = typical[kind] + TYPICAL_STEP * move
                self._believe(kind, min(max(moved, LEAST_TYPICAL_SCORE), 1.0))


def _area(boxes: F64) -> F64:
    """Of boxes in columns (4, N), (N,)."""
    return (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])


def _median(values: F64) -> float:
    """The upper median; NumPy's takes longer than all else that a new track costs."""
    return float(np.sort(values)[len(values) // 2])


def _log_density(error: F64, spread: F64) -> F64:
    """Of a normal distribution of four independent coordinates, but for the constant, (K,).

    Args:
        error: (4, K) squared.
        spread: (4, K) variances.
    """
    terms = error / spread
    terms += np.log(spread)
    return -0.5 * np.add.reduce(terms, axis=0)
