"""DriveTrack: the tracker for a camera that drives. One likelihood decides who is who.

For every track and detection near it we ask how much more likely it is that the detection shows the track than that
it shows something else, as log-odds (Bar-Shalom's and Blackman's track score). It adds up:

- the density of the detected box around the predicted one. The filter tells how certain the prediction is, so a
  track unseen for long looks further around, and says less about what it finds. Now and then a box slips: an
  occluder cuts it, or two cars share one. A share of the density is therefore wide;
- the detection's score: a doubtful one must fit better;
- the time the track was unseen: it may have left.

The pairing with the largest sum is made, first among confirmed tracks, then among tentative ones with what is left.

Around that:

- Motion is constant velocity in the world, not in the image (`kalman.predict`): near boxes grow faster.
- A track is confirmed when the summed log-odds of its scores reach a level. What a score is worth is learned while
  tracking (`calibration.py`). It starts from `confirm_thresholds`: the score of each class at which detections are
  right half of the time. A sure detection confirms its track at once, a doubtful one after a few frames, a poor one
  never. A tentative track survives one missed frame.
- What is almost surely false starts no track, except in every fourth frame, which shows when it no longer is. A box
  that overlaps a track seen in this frame starts none either.
- An object has one class. Where two tracks of different classes are seen in one place (a pedestrian whom the detector
  calls a cyclist, too), the one with the larger summed log-odds is reported.
- Tracks that start while the whole image moves (the camera turns) start with that motion.
- A confirmed track that vanishes where a nearer one covers it counts as hidden. It is reported for a while longer,
  as "lost", where it must be, as long as most such tracks are found there later.

`perception.ranging.ranger` adds metres. The image is not used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, pi

import numpy as np

from perception.arrays import F64, I64
from perception.boxes import iou
from perception.trackers.assignment import assign_pairs
from perception.trackers.base import CLOCK_TOLERANCE_S, Recorder, Tracklet, TrackTable, clean
from perception.trackers.calibration import STEADY_HITS, STEPS, Calibration
from perception.trackers.kalman import CXCYWH_FROM_XYXY, XYXY_FROM_CXCYWH, Noise, box_size, constants
from perception.types import Detections, Tracks


@dataclass(frozen=True)
class DriveConfig:
    """Assumptions about detectors and traffic. One set for all classes, except the detector's thresholds."""

    confirm_thresholds: tuple[float, ...] = (0.3, 0.6, 0.5)
    """A class's score at which a detection is as likely right as wrong, until the tracker knows better; the last one
    serves all further classes."""
    learn_scores: bool = True
    """Learn what scores and predictions are worth while tracking; False keeps to the thresholds."""
    low_score: float = 0.1
    """Detections below are not used."""
    confirm_log_odds: float = 2.0
    """Summed log-odds of its scores that confirm a track."""
    score_log_odds: float = 8.0
    """What a detection of typical score adds to a pairing, and one of score 0 does not."""
    unseen_log_odds_per_s: float = 2.0
    """What a pairing loses with each second the track was unseen."""
    slip_share: float = 0.2
    """Share of detections whose box has slipped: cut by an occluder, or shared by two objects."""
    slip: float = 0.2
    """How far such a box is off, standard deviation in box sizes."""
    doubt: float = 2.0
    """A detection that scores s times what is typical errs 1 + doubt·(1 − s) times as much."""
    duplicate_iou: float = 0.5
    """A detection that overlaps a track of its class seen in this frame by more starts no track; of two tracks of
    different classes that overlap by more one is reported."""
    tentative_s: float = 0.15
    """A tentative track unseen for longer ends, seconds; it survives one missed frame at 10 Hz."""
    lost_s: float = 2.0
    """A confirmed track unseen for longer ends, seconds."""
    hidden_s: float = 0.5
    """A hidden object is reported for at most so long, seconds; 0 reports only what was detected in this frame."""
    hidden_cover: float = 0.3
    """Share of an object's box that nearer boxes must cover for it to be hidden."""
    smoothing: float = 0.2
    """Of the reported box: 0 the detector's own, 1 the filter's."""
    projective: bool = True
    """Constant velocity in the world; False: in the image."""
    shared_motion: bool = True
    """New tracks start with the sideways motion that most tracks have in common; False: at rest."""
    noise: Noise = field(default_factory=Noise)
    """Of the Kalman filter."""

    def __post_init__(self) -> None:
        if not self.confirm_thresholds or not all(0 < score < 1 for score in self.confirm_thresholds):
            raise ValueError(
                f"confirm_thresholds: found {self.confirm_thresholds}, expected one or more numbers between 0 and 1"
            )
        if not 0 < self.slip_share < 1:
            raise ValueError(f"slip_share: found {self.slip_share}, expected a number between 0 and 1")


Corners = list[float]
"""Left, top, right, bottom of a box."""
MAX_CLASSES = 16
"""Classes of which the tracker learns; higher class numbers share the last one's calibration."""
BIRTH_LOG_ODDS, EXPLORE_EVERY = -1.0, 4
"""A detection worth less starts a track only in every so many frames."""
LEARN_EVERY = 8
"""Frames between looks at what steady tracks score, and how far boxes are from where they were predicted."""
LEAST_WORTH_AGAIN = -1.5
"""A poor score says no more than this against a track that is found again: the scores of one object are alike."""
LEAST_LOG_ODDS = -5.0
"""Summed log-odds of a track never fall lower, so that it can be confirmed once its scores are worth more."""
FOUND_IOU = 0.5
"""A hidden track was where it was predicted, if the box that is found overlaps the prediction by so much."""
SHARED_MOTION_TRACKS = 3
"""So many tracks must agree on a common motion, each seen so many times."""
HIDDEN_AFTER_HITS = 3
"""A track with fewer matches never counts as hidden."""
GROUND_TOLERANCE = 0.02
"""A box stands nearer if its foot is lower; within this share of the height the two are level."""
FAR_SIGMAS_SQUARED = 20.0
"""Beyond so many variances in one coordinate no pairing gains, whatever the others say."""
FEW_ROWS = 16
"""Of up to so many tracks, boxes are compared one by one."""
_ZERO, _ONE, _FAR = constants(0.0, 1.0, FAR_SIGMAS_SQUARED)
_MINUS_HALF_OF_FOUR = np.repeat(-0.5 * np.eye(2), 4, axis=1)
"""Left factor (2, 8): the sums of the first and of the last four rows, times -0.5."""


class DriveTracker(Recorder):
    """See the top of this file; `perception.trackers.base` says what happens with bad input."""

    def __init__(self, config: DriveConfig = DriveConfig()) -> None:
        self.config = config
        # what the settings come to in the formulas below
        error = config.noise.measurement
        self._doubtful, self._doubt = constants(error * (1 + config.doubt), error * config.doubt)
        # overlap above t means shared area above t / (1 + t) of both areas together
        self._double = config.duplicate_iou / (1 + config.duplicate_iou)
        self._slip, self._far_slip = constants(config.slip**2, (2 * config.slip) ** 2)
        shares = np.log([1 - config.slip_share, config.slip_share]) - 2 * log(2 * pi)
        self._shares = shares[:, None]
        (self._score_log_odds,) = constants(config.score_log_odds)
        self._smooth, self._raw = constants(config.smoothing, 1 - config.smoothing)
        self.reset()

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        thresholds, learn = self.config.confirm_thresholds, self.config.learn_scores
        self.calibrations = [
            Calibration(thresholds[min(class_id, len(thresholds) - 1)], learn) for class_id in range(MAX_CLASSES)
        ]
        """By class id."""
        self._typical = np.array([c.typical_score for c in self.calibrations])
        self._spread = np.ones((4, MAX_CLASSES))
        self.restart()

    def restart(self) -> None:
        """Forget all tracks, and keep what was learned of the detector; ids start at 1 again."""
        self._table = TrackTable(self.config.noise)
        self._hidden_tracks: list[Tracklet] = []

    def update(self, detections: Detections, timestamp_ns: int, image_bgr: np.ndarray | None = None) -> Tracks:
        """Take one frame's detections.

        Returns:
            In order of birth: confirmed tracks seen in this frame, and those that count as hidden, as "lost".
        """
        config, table = self.config, self._table
        # 1. Predict where every track is now.
        boxes, scores, class_ids = clean(detections, config.low_score)
        table.advance(timestamp_ns, config.lost_s, projective=config.projective)
        # 2. Pair tracks with detections by likelihood, and correct those that were seen.
        measured, score_list = CXCYWH_FROM_XYXY.dot(boxes), scores.tolist()
        match = self._match(measured, scores, class_ids) if len(table) and score_list else {}
        # 3. Start tentative tracks from detections that no track took.
        if len(match) < len(score_list):
            self._start(match, boxes, score_list, class_ids)
        # 4. Choose the tracks to report: one class for one place. Confirm those that are new.
        rows, missing, is_one_over = self._reportable()
        rows = self._of_one_class(rows, boxes)
        for row in rows:
            if not table.tracklets[row].track_id:
                table.confirm(table.tracklets[row])
        # 5. Add confirmed tracks that a nearer object hides, and report.
        hidden = self._hidden(missing, match, boxes) if missing and match and config.hidden_s > 0 else []
        tracks = table.report(*self._shown(rows, hidden, measured))
        # 6. End tentative tracks that were not seen for too long, and learn from all that ended.
        if is_one_over:
            table.keep([t.track_id > 0 or t.seen_s >= self._earliest_s(config.tentative_s) for t in table.tracklets])
        if table.ended:
            self._learn_from_ended()
        return tracks

    def _match(self, measured: F64, scores: F64, class_ids: I64) -> dict[int, int]:
        """Pair and correct; the detection of each track that has one."""
        table = self._table
        surety = np.minimum(scores / self._typical.take(class_ids, mode="clip"), _ONE)
        variance = np.square((self._doubtful - self._doubt * surety) * box_size(measured))
        match = self._pair(measured, variance, surety, class_ids)
        if self._hidden_tracks or table.frame % LEARN_EVERY == 0:
            self._learn_from_predictions(match, measured, variance)
        table.correct(match, measured, variance, scores.tolist())
        self._weigh([table.tracklets[row] for row in match])
        return match

    def _pair(self, measured: F64, variance: F64, surety: F64, class_ids: I64) -> dict[int, int]:
        """The detection of each track that has one: the pairing that gains most, confirmed tracks first."""
        table, tracklets = self._table, self._table.tracklets
        position, spread = table.states.position, table.states.var_pp
        # almost all pairs are far apart: look across first, in full only at the rest
        reach = variance[0] + self._far_slip * np.square(measured[2])
        across = np.square(position[0][:, None] - measured[0])  # (N, M)
        near = across < _FAR * (spread[0][:, None] + reach)
        near &= table.class_ids[:, None] == class_ids
        rows, columns = near.nonzero()
        expected, found = position.take(rows, 1), measured.take(columns, 1)
        # all that follows is in units of the size of the pair's boxes; its square, (4, K)
        unit = box_size(expected * found)
        error = np.square(found - expected)
        error /= unit
        # the variance of an exact box and of a slipped one, side by side
        either = np.empty((2, *unit.shape))  # (2, 4, K)
        exact = np.divide(spread.take(rows, 1) + variance.take(columns, 1), unit, out=either[0])
        exact *= self._spread.take(class_ids.take(columns), 1, mode="clip")
        np.add(exact, self._slip, out=either[1])
        # of four independent coordinates; they are summed by a product, the quickest way
        terms = np.log(either)
        terms += error / either
        density = _MINUS_HALF_OF_FOUR.dot(terms.reshape(8, -1))  # (2, K)
        density += self._shares
        gain = np.logaddexp(density[0], density[1])
        gain += (self._score_log_odds * surety).take(columns)
        now_s, last, cost = table.clock.now_s, table.frame - 1, self.config.unseen_log_odds_per_s
        unseen = [0.0 if tracklet.seen_frame == last else cost * (now_s - tracklet.seen_s) for tracklet in tracklets]
        if any(unseen):
            gain -= np.array(unseen).take(rows)
        good = (gain > _ZERO).nonzero()[0]
        rows, columns, gain = rows.take(good), columns.take(good), gain.take(good)
        pairs = zip(rows.tolist(), columns.tolist(), gain.tolist(), strict=True)
        return assign_pairs(pairs, is_later=lambda row: not tracklets[row].track_id)

    def _start(self, match: dict[int, int], boxes: F64, scores: list[float], class_ids: I64) -> None:
        """New tracks from detections that nobody claimed; they join the match."""
        config, table = self.config, self._table
        free = set(range(len(scores))).difference(match.values())
        kinds = class_ids.tolist()
        explores = table.frame % EXPLORE_EVERY == 0
        candidates = [
            column
            for column in sorted(free)
            if explores or self._of(kinds[column]).worth[int(scores[column] * STEPS)] > BIRTH_LOG_ODDS
        ]
        if not candidates:
            return
        corners = boxes.T.tolist()
        taken = [(corners[column], kinds[column]) for column in match.values()]
        new = []
        for column in candidates:
            box, kind = corners[column], kinds[column]
            for other, other_kind in taken:
                if kind == other_kind and _shared(box, other) > self._double * (_area(box) + _area(other)):
                    break
            else:
                new.append(column)
        if not new:
            return
        count = len(table)
        born = table.start(new, boxes, scores, class_ids)
        self._weigh(born)
        match |= zip(range(count, count + len(born)), new, strict=False)
        if config.shared_motion:
            steady = [row for row in match if row < count and table.tracklets[row].hits >= SHARED_MOTION_TRACKS]
            if len(steady) >= SHARED_MOTION_TRACKS:
                velocity = table.states.velocity[0]
                velocity[count:] = sorted(velocity[steady].tolist())[len(steady) // 2]

    def _earliest_s(self, patience_s: float) -> float:
        """The clock at which a track seen `patience_s` ago was seen."""
        return self._table.clock.now_s - patience_s - CLOCK_TOLERANCE_S

    def _reportable(self) -> tuple[list[int], list[int], bool]:
        """Rows seen in this frame that are confirmed or have the evidence; rows that may be hidden; any to end."""
        config, frame = self.config, self._table.frame
        earliest_s, earliest_hidden_s = self._earliest_s(config.tentative_s), self._earliest_s(config.hidden_s)
        rows, missing, is_one_over = [], [], False
        for row, t in enumerate(self._table.tracklets):
            if t.seen_frame == frame:
                if t.track_id or t.log_odds >= config.confirm_log_odds:
                    rows.append(row)
            elif not t.track_id:
                is_one_over = is_one_over or t.seen_s < earliest_s
            elif t.reported_frame == frame - 1 and t.seen_s >= earliest_hidden_s and t.hits >= HIDDEN_AFTER_HITS:
                missing.append(row)
        return rows, missing, is_one_over

    def _of_one_class(self, rows: list[int], boxes: F64) -> list[int]:
        """Those of the rows that are not seen where a row of another class with higher log-odds is."""
        tracklets = self._table.tracklets
        if len({tracklets[row].class_id for row in rows}) < 2:
            return rows
        if len(rows) > FEW_ROWS and not self._any_shares(rows, boxes):
            return rows
        corners = boxes.T.tolist()
        kept: list[tuple[int, Corners, float, int]] = []
        for row in sorted(rows, key=lambda row: -tracklets[row].log_odds):
            class_id, box = tracklets[row].class_id, corners[tracklets[row].detection]
            area = _area(box)
            for other_id, other, other_area, _ in kept:
                if class_id != other_id and _shared(box, other) > self._double * (area + other_area):
                    break
            else:
                kept.append((class_id, box, area, row))
        return sorted(row for _, _, _, row in kept)

    def _any_shares(self, rows: list[int], boxes: F64) -> bool:
        """Whether two of the rows have different classes and boxes that are one."""
        own = boxes.take([self._table.tracklets[row].detection for row in rows], 1).T
        class_ids = self._table.class_ids.take(rows)
        return bool(((iou(own, own) > self.config.duplicate_iou) & (class_ids[:, None] != class_ids)).any())

    def _shown(self, rows: list[int], hidden: list[int], measured: F64) -> tuple[list[int], F64]:
        """All rows to report in order of birth, and their boxes (4, K): smoothed where seen, else predicted."""
        position, tracklets = self._table.states.position, self._table.tracklets
        seen, columns = np.array([rows, [tracklets[row].detection for row in rows]], np.int64)
        shown = self._smooth * position.take(seen, 1) + self._raw * measured.take(columns, 1)
        if not hidden:
            return rows, shown
        shown = np.concatenate([shown, position.take(hidden, 1)], axis=1)
        rows = rows + hidden
        order = sorted(range(len(rows)), key=rows.__getitem__)
        return sorted(rows), shown.take(order, 1)

    def _hidden(self, rows: list[int], match: dict[int, int], boxes: F64) -> list[int]:
        """Mark those of the rows that a nearer box covers, one matched in this frame; returns the ones to report."""
        front = boxes.take(list(match.values()), 1).T.tolist()
        hidden = []
        expected = XYXY_FROM_CXCYWH.dot(self._table.states.position.take(rows, 1)).T.tolist()
        for row, box in zip(rows, expected, strict=True):
            foot = box[3] - GROUND_TOLERANCE * (box[3] - box[1])
            least = self.config.hidden_cover * _area(box)
            for other in front:
                if other[3] >= foot and _shared(box, other) > least:
                    t = self._table.tracklets[row]
                    if not t.is_hidden:
                        t.is_hidden = True
                        self._hidden_tracks.append(t)
                    if self._of(t.class_id).reports_hidden:
                        hidden.append(row)
                    break
        return hidden

    # ------------------------------------------------------------ what is learned

    def _of(self, class_id: int) -> Calibration:
        return self.calibrations[min(max(class_id, 0), MAX_CLASSES - 1)]

    def _weigh(self, seen: list[Tracklet]) -> None:
        """Add what their latest scores are worth to these tracks; learn from those that are or become steady."""
        calibrations, looks = self.calibrations, self._table.frame % LEARN_EVERY == 0
        for t in seen:
            if t.hits > STEADY_HITS and t.track_id and not looks:
                continue
            class_id, score = t.class_id, t.score
            if not 0 <= class_id < MAX_CLASSES:
                class_id = min(max(class_id, 0), MAX_CLASSES - 1)
            calibration = calibrations[class_id]
            worth = calibration.worth[int(score * STEPS)]
            if t.hits > 1:
                worth = max(worth, LEAST_WORTH_AGAIN) + calibration.again_log_odds
            log_odds = t.log_odds + worth
            t.log_odds = log_odds if log_odds > LEAST_LOG_ODDS else LEAST_LOG_ODDS
            if t.hits < STEADY_HITS:
                t.young_scores.append(score)
                continue
            if looks:
                self._typical[class_id] = calibration.see_steady(score)
            if t.young_scores:
                calibration.resolve(t.young_scores, True)
                t.young_scores = []
            elif looks:  # old tracks add a little evidence too
                calibration.resolve((score,), True)

    def _learn_from_predictions(self, match: dict[int, int], measured: F64, variance: F64) -> None:
        """Before tracks are corrected: whether hidden ones are where they should be, and how far all others are."""
        table, states = self._table, self._table.states
        for t in self._hidden_tracks:
            row = table.tracklets.index(t) if t in table.tracklets else -1  # -1: it ended in this frame
            if row in match:
                t.is_hidden = False
                boxes = np.stack([states.position[:, row], measured[:, match[row]]], axis=1)
                a, b = XYXY_FROM_CXCYWH.dot(boxes).T.tolist()
                shared = _shared(a, b)
                self._of(t.class_id).see_hidden(shared >= FOUND_IOU * (_area(a) + _area(b) - shared))
        self._hidden_tracks = [t for t in self._hidden_tracks if t.is_hidden]
        if not self.config.learn_scores or table.frame % LEARN_EVERY:
            return
        steady: dict[int, list[int]] = {}
        last_frame = table.frame - 1
        for row in match:
            t = table.tracklets[row]
            if t.hits >= STEADY_HITS and t.seen_frame == last_frame:
                steady.setdefault(min(max(t.class_id, 0), MAX_CLASSES - 1), []).append(row)
        for class_id, rows in steady.items():
            columns = [match[row] for row in rows]
            error = measured.take(columns, 1) - states.position.take(rows, 1)
            expected = states.var_pp.take(rows, 1) + variance.take(columns, 1)
            self._spread[:, class_id] = self.calibrations[class_id].see_errors(np.square(error) / expected)

    def _learn_from_ended(self) -> None:
        """Tracks that ended before they were steady were false; hidden ones were not found again."""
        self._hidden_tracks = [t for t in self._hidden_tracks if t not in self._table.ended]
        for t in self._table.ended:
            if t.young_scores:
                self._of(t.class_id).resolve(t.young_scores, False)
            if t.is_hidden:
                t.is_hidden = False
                self._of(t.class_id).see_hidden(False)


def _area(box: Corners) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _shared(a: Corners, b: Corners) -> float:
    """Area that two boxes share; most share none, and of few boxes numbers are quicker than arrays."""
    if a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]:
        return 0.0
    return (min(a[2], b[2]) - max(a[0], b[0])) * (min(a[3], b[3]) - max(a[1], b[1]))
