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
- What is more likely wrong than right starts no track, nor does a box that overlaps a track seen in this frame.
- A thing is of one class. Where two tracks of different classes are seen in one place (a pedestrian whom the detector
  calls a cyclist, too), the one is told for which all its scores together speak more.
- What starts while the whole picture moves (the camera turns) starts with that motion.
- A known object that vanishes where a nearer one covers it is taken to be hidden. It is told for a while longer,
  as "lost", where it must be.

Metres are not this file's business: `perception.ranging.ranger` adds them. The picture is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, pi

import numpy as np

from perception.trackers.assignment import assign_pairs
from perception.trackers.base import CLOCK_TOLERANCE_S, Life, TrackTable, clean
from perception.trackers.kalman import CXCYWH_FROM_XYXY, XYXY_FROM_CXCYWH, Noise, box_size, constants, predict
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
    """A detection that overlaps a track of its class seen in this frame by more starts no track; of two tracks of
    different classes that overlap by more one is told."""
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
        if not 0 < self.slip_share < 1:
            raise ValueError(f"slip_share: found {self.slip_share}, expected a number between 0 and 1")


Corners = list[float]
"""Left, top, right, bottom of a box."""
FIRST_TYPICAL_SCORE, LEAST_TYPICAL_SCORE = 0.9, 0.2
"""What steady objects are taken to score before any were seen, and the least that is believed."""
TYPICAL_QUANTILE, TYPICAL_STEP, STEADY_HITS = 0.75, 0.02, 5
"""The typical score is this quantile over tracks with so many matches; each moves it by about one step."""
STRANGE_SCORES = 50
"""Before so many scores of steady objects of a class were seen, detections below even odds start tracks as well."""
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
_ZERO, _ONE, _FAR = constants(0.0, 1.0, FAR_SIGMAS_SQUARED)
_MINUS_HALF_OF_FOUR = np.repeat(-0.5 * np.eye(2), 4, axis=1)
"""Left factor (2, 8): the sums of the first and of the last four rows, times -0.5."""


class DriveTracker:
    """See the top of this file; `perception.trackers.base` says what becomes of bad input."""

    def __init__(self, config: DriveConfig = DriveConfig()) -> None:
        self.config = config
        # what the settings come to in the formulas below
        error = config.noise.measurement
        self._doubtful, self._doubt = constants(error * (1 + config.doubt), error * config.doubt)
        # overlap above t means shared area above t / (1 + t) of both areas together
        self._double = config.duplicate_iou / (1 + config.duplicate_iou)
        self._slip, self._far_slip = constants(config.slip**2, (2 * config.slip) ** 2)
        shares = np.log([1 - config.slip_share, config.slip_share]) - 2 * log(2 * pi)
        self._exact_share, self._slipped_share, self._score_nats = constants(*shares, config.score_nats)
        self._smooth, self._raw = constants(config.smoothing, 1 - config.smoothing)
        self.reset()

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        first = FIRST_TYPICAL_SCORE if self.config.learn_scores else 1.0
        kinds = len(self.config.even_scores)
        self._typical, self._even, self._even_nats = np.zeros(kinds), [0.0] * kinds, [0.0] * kinds
        self._strange = [STRANGE_SCORES if self.config.learn_scores else 0] * kinds
        for kind in range(kinds):
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
        measured = CXCYWH_FROM_XYXY.dot(boxes)
        told_scores, match = scores.tolist(), {}
        if len(table) and len(scores):
            surety = np.minimum(scores / self._typical.take(class_ids, mode="clip"), _ONE)
            variance = np.square((self._doubtful - self._doubt * surety) * box_size(measured))
            match = self._pair(measured, variance, surety, class_ids)
            table.see(match, measured, variance, told_scores)
            self._weigh([table.lives[row] for row in match], config.learn_scores)
        if len(match) < len(told_scores):
            self._start(match, boxes, told_scores, class_ids)
        return self._tell(match, measured, boxes)

    def _pair(self, measured: F64, variance: F64, surety: F64, class_ids: I64) -> dict[int, int]:
        """The detection of each track that has one: the pairing that gains most, known tracks first."""
        table, lives = self._table, self._table.lives
        position, spread = table.states.position, table.states.var_pp
        # almost all pairs are far apart: look across first, in full only at the rest
        reach = variance[0] + self._far_slip * np.square(measured[2])
        across = np.square(position[0][:, None] - measured[0])  # (N, M)
        near = across < _FAR * (spread[0][:, None] + reach)
        near &= table.class_ids[:, None] == class_ids
        rows, columns = near.nonzero()
        # all that follows is told in the size of the pair's boxes; its square, (4, K)
        expected, found = position.take(rows, 1), measured.take(columns, 1)
        unit = box_size(expected * found)
        error = np.square(found - expected) / unit
        # the variance of an exact box and of a slipped one, side by side
        either = np.empty((2, *unit.shape))  # (2, 4, K)
        exact = np.divide(spread.take(rows, 1) + variance.take(columns, 1), unit, out=either[0])
        np.add(exact, self._slip, out=either[1])
        # of four independent coordinates; they are summed by a product, the quickest way
        density = _MINUS_HALF_OF_FOUR.dot((error / either + np.log(either)).reshape(8, -1))  # (2, K)
        gain = np.logaddexp(density[0] + self._exact_share, density[1] + self._slipped_share)
        gain += (self._score_nats * surety).take(columns)
        now_s, last, cost = table.clock.now_s, table.frame - 1, self.config.unseen_nats_per_s
        unseen = [0.0 if life.seen_frame == last else cost * (now_s - life.seen_s) for life in lives]
        if any(unseen):
            gain -= np.array(unseen).take(rows)
        good = (gain > _ZERO).nonzero()[0]
        pairs = zip(rows.take(good).tolist(), columns.take(good).tolist(), gain.take(good).tolist(), strict=True)
        return assign_pairs(pairs, is_later=lambda row: not lives[row].track_id)

    def _start(self, match: dict[int, int], boxes: F64, scores: list[float], class_ids: I64) -> None:
        """New tracks from detections that nobody claimed; they join the match."""
        config, table = self.config, self._table
        free = set(range(len(scores))).difference(match.values())
        kinds = class_ids.tolist()
        last = len(self._even) - 1
        believed = []
        for column in sorted(free):
            kind = min(max(kinds[column], 0), last)
            if scores[column] > self._even[kind] or self._strange[kind]:
                believed.append(column)
        if not believed:
            return
        corners = boxes.T.tolist()
        taken = [(corners[column], kinds[column]) for column in match.values()]
        new = []
        for column in believed:
            box, kind = corners[column], kinds[column]
            for other, other_kind in taken:
                if kind == other_kind and _shared(box, other) > self._double * (_area(box) + _area(other)):
                    break
            else:
                new.append(column)
        if not new:
            return
        count = len(table)
        born = table.start(boxes.take(new, axis=1), [scores[column] for column in new], class_ids.take(new))
        self._weigh(born, learn=False)
        match |= zip(range(count, count + len(born)), new, strict=False)
        if config.shared_motion:
            steady = [row for row in match if row < count and table.lives[row].hits >= SHARED_MOTION_TRACKS]
            if len(steady) >= SHARED_MOTION_TRACKS:
                velocity = table.states.velocity[0]
                velocity[count:] = sorted(velocity[steady].tolist())[len(steady) // 2]

    def _tell(self, match: dict[int, int], measured: F64, boxes: F64) -> tuple[Track, ...]:
        """The tracks to tell and their boxes. Young tracks with evidence become known, those missed for long end."""
        config, table = self.config, self._table
        frame, now_s = table.frame, table.clock.now_s
        earliest_s = now_s - config.tentative_s - CLOCK_TOLERANCE_S
        earliest_hidden_s = now_s - config.hidden_s - CLOCK_TOLERANCE_S
        told, missing, dead = [], [], False
        for row, life in enumerate(table.lives):
            if life.seen_frame == frame:
                if life.track_id or life.nats >= config.confirm_nats:
                    told.append(row)
            elif not life.track_id:
                dead = dead or life.seen_s < earliest_s
            elif life.told_frame == frame - 1 and life.seen_s >= earliest_hidden_s and life.hits >= HIDDEN_AFTER_HITS:
                missing.append(row)
        if len({table.lives[row].class_id for row in told}) > 1:
            told = self._of_one_class(told, match, boxes)
        for row in told:
            if not table.lives[row].track_id:
                table.confirm(table.lives[row])
        position = table.states.position
        rows, columns = np.array([told, [match[row] for row in told]], np.int64)
        shown = self._smooth * position.take(rows, 1) + self._raw * measured.take(columns, 1)
        hidden = self._hidden(missing, match, boxes) if missing and match and config.hidden_s > 0 else []
        if hidden:
            shown = np.concatenate([shown, position.take(hidden, 1)], axis=1)
            told += hidden
            order = sorted(range(len(told)), key=told.__getitem__)
            told, shown = sorted(told), shown.take(order, 1)
        tracks = table.tell(told, shown)
        if dead:
            table.keep([life.track_id > 0 or life.seen_s >= earliest_s for life in table.lives])
        return tracks

    def _of_one_class(self, rows: list[int], match: dict[int, int], boxes: F64) -> list[int]:
        """Those of the tracks in `rows` that are not seen where one of another class is for which more speaks."""
        lives, corners = self._table.lives, boxes.T.tolist()
        kept: list[tuple[int, Corners, int]] = []
        for row in sorted(rows, key=lambda row: -lives[row].nats):
            kind, box = lives[row].class_id, corners[match[row]]
            for other_kind, other, _ in kept:
                if kind != other_kind and _shared(box, other) > self._double * (_area(box) + _area(other)):
                    break
            else:
                kept.append((kind, box, row))
        return sorted(row for _, _, row in kept)

    def _hidden(self, rows: list[int], match: dict[int, int], boxes: F64) -> list[int]:
        """Those of the tracks in `rows` that a nearer box covers, one that was matched in this frame."""
        front = boxes.take(list(match.values()), 1).T.tolist()
        hidden = []
        expected = XYXY_FROM_CXCYWH.dot(self._table.states.position.take(rows, 1)).T.tolist()
        for row, box in zip(rows, expected, strict=True):
            foot = box[3] - GROUND_TOLERANCE * (box[3] - box[1])
            least = self.config.hidden_cover * _area(box)
            for other in front:
                if other[3] >= foot and _shared(box, other) > least:
                    hidden.append(row)
                    break
        return hidden

    # ------------------------------------------------------------ what a score is worth

    def _believe(self, kind: int, typical: float) -> None:
        """Take a score to be typical for a class; so the score that is as likely right as wrong is known too."""
        self._typical[kind] = typical
        self._even[kind] = even = min(self.config.even_scores[kind], EVEN_SHARE * typical)
        self._even_nats[kind] = log(even / (1 - even))

    def _weigh(self, seen: list[Life], learn: bool) -> None:
        """Add what their latest scores speak for these tracks; learn from steady ones what is typical of a class."""
        even_nats, strange, typical = self._even_nats, self._strange, self._typical.tolist()
        last, moves = len(typical) - 1, [0.0] * len(typical)
        for life in seen:
            kind, score, sure = life.class_id, life.score, life.score
            # most are within these bounds, and to compare is quicker than to call
            if not 0 <= kind <= last:
                kind = min(max(kind, 0), last)
            if not 1 - SURE_SCORE <= sure <= SURE_SCORE:
                sure = min(max(sure, 1 - SURE_SCORE), SURE_SCORE)
            life.nats += log(sure / (1 - sure)) - even_nats[kind]
            if life.hits >= STEADY_HITS:
                moves[kind] += TYPICAL_QUANTILE - (score < typical[kind])
                if strange[kind]:
                    strange[kind] -= 1
        if learn:
            for kind, move in enumerate(moves):
                if move:
                    moved = typical[kind] + TYPICAL_STEP * move
                    self._believe(kind, min(max(moved, LEAST_TYPICAL_SCORE), 1.0))


def _area(box: Corners) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _shared(a: Corners, b: Corners) -> float:
    """Area that two boxes share; most share none, and of few boxes numbers are quicker than arrays."""
    if a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]:
        return 0.0
    return (min(a[2], b[2]) - max(a[0], b[0])) * (min(a[3], b[3]) - max(a[1], b[1]))
