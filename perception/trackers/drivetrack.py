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

- Motion is constant velocity in the world, not in the image (`kalman.predict`): near boxes grow faster. Where an
  occluder cuts a box, its velocity hardly changes (`kalman.correct`), so the track is found again behind it.
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
    unseen_log_odds_per_s: float = 1.0
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
    cut_boxes: bool = True
    """Occluders cut boxes and detectors change their size, which is little motion; False: all of it is motion."""
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
MANY_PAIRS = 500
"""From so many pairs on, those of two classes are left out before the others are compared."""
_ONE, _FAR = constants(1.0, FAR_SIGMAS_SQUARED)
_MINUS_HALF_OF_FOUR = np.repeat(-0.5 * np.eye(2), 4, axis=1)
"""Left factor (2, 8): the sums of the first and of the last four rows, times -0.5."""
# rows of what is known of detections (`_measure`), one column each; those of tracks are the first eight of these
_BOX, _VARIANCE, _SCORE, _SPREAD, _ROWS = slice(0, 4), slice(4, 8), 8, slice(9, 13), 13
_UNIT_ROWS, _ERROR_ROWS = np.array([0, 1, 0, 1, 0, 1, 0, 1]), np.array([0, 1, 2, 3, 0, 1, 2, 3])


class DriveTracker(Recorder):
    """See the top of this file; `perception.trackers.base` says what happens with bad input."""

    def __init__(self, config: DriveConfig = DriveConfig()) -> None:
        self.config = config
        # what the settings come to in the formulas below
        error = config.noise.measurement
        # overlap above t means shared area above t / (1 + t) of both areas together
        self._double = config.duplicate_iou / (1 + config.duplicate_iou)
        self._slip, self._slip_odds = constants(config.slip**2, log(config.slip_share / (1 - config.slip_share)))
        # the least variance of a pair, in squared widths, at which nothing is missed
        (self._reach,) = constants(-((error * (1 + config.doubt)) ** 2 + (2 * config.slip) ** 2))
        # from how sure a detection is: the error of its box, four times, and what it adds to a pairing
        exact = log(1 - config.slip_share) - 2 * log(2 * pi)
        box_error = [error * (1 + config.doubt), -error * config.doubt]
        self._from_surety = np.array([*[box_error] * 4, [exact, config.score_log_odds]])
        # from predicted and detected boxes to the corners that are shown
        shown = [config.smoothing * XYXY_FROM_CXCYWH, (1 - config.smoothing) * XYXY_FROM_CXCYWH]
        self._shown = np.ascontiguousarray(np.concatenate(shown, axis=1).T)
        self.reset()

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        thresholds, learn = self.config.confirm_thresholds, self.config.learn_scores
        self.calibrations = [
            Calibration(thresholds[min(class_id, len(thresholds) - 1)], learn) for class_id in range(MAX_CLASSES)
        ]
        """By class id."""
        self._habits = np.ones((5, MAX_CLASSES))
        """Of each class: `Calibration.typical_score` and `spread`."""
        self._habits[0] = [c.typical_score for c in self.calibrations]
        self.restart()

    def restart(self) -> None:
        """Forget all tracks, and keep what was learned of the detector; ids start at 1 again."""
        self._table = TrackTable(self.config.noise)
        self._hidden_tracks: list[Tracklet] = []
        self._young: list[Tracklet] = []
        """Those that are not steady yet, or not confirmed."""

    def log_odds(self, class_id: int, score: float) -> float:
        """What a score from 0 to 1 is worth, by what was learned so far."""
        return self._of(class_id).worth[int(score * STEPS)]

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
        found, score_list, kinds = self._measure(boxes, scores, class_ids), scores.tolist(), class_ids.tolist()
        match = self._match(found, score_list, kinds) if len(table) and score_list else {}
        # 3. Start tentative tracks from detections that no track took.
        if len(match) < len(score_list):
            self._start(match, boxes, found, score_list, class_ids)
        # 4. Choose the tracks to report: one class for one place. Confirm those that are new.
        rows, missing, is_one_over = self._reportable()
        rows = self._of_one_class(rows, boxes)
        for row in rows:
            if not table.tracklets[row].track_id:
                table.confirm(table.tracklets[row])
        # 5. Add confirmed tracks that a nearer object hides, and report.
        hidden = self._hidden(missing, match, boxes) if missing and match and config.hidden_s > 0 else []
        tracks = self._report(rows, hidden, found)
        # 6. End tentative tracks that were not seen for too long, and learn from all that ended.
        if is_one_over:
            table.keep([t.track_id > 0 or t.seen_s >= self._earliest_s(config.tentative_s) for t in table.tracklets])
        if table.ended:
            self._learn_from_ended()
        return tracks

    def _measure(self, boxes: F64, scores: F64, class_ids: I64) -> F64:
        """What is known of detections, (13, M): box, the negative of its variance, what the score adds, spread."""
        found = np.empty((_ROWS, len(scores)))
        measured = CXCYWH_FROM_XYXY.dot(boxes, out=found[_BOX])
        self._habits.take(class_ids, 1, out=found[_SCORE:], mode="clip")
        surety = np.ones((2, len(scores)))
        np.minimum(scores / found[_SCORE], _ONE, out=surety[1])
        self._from_surety.dot(surety, out=found[4:9])
        variance = found[_VARIANCE]
        variance *= box_size(measured)
        np.negative(np.square(variance, out=variance), out=variance)
        return found

    def _match(self, found: F64, scores: list[float], kinds: list[int]) -> dict[int, int]:
        """Pair and correct; the detection of each track that has one."""
        config, table = self.config, self._table
        match = self._pair(found, kinds)
        if self._hidden_tracks or table.frame % LEARN_EVERY == 0:
            self._learn_from_predictions(match, found)
        table.correct(match, found[:8], scores, robust=config.cut_boxes)
        if table.frame % LEARN_EVERY == 0:
            self._weigh([t for t in table.tracklets if t.seen_frame == table.frame])
        elif self._young:
            self._young = [t for t in self._young if t.hits <= STEADY_HITS or not t.track_id]
            self._weigh([t for t in self._young if t.seen_frame == table.frame])
        return match

    def _pair(self, found: F64, kinds: list[int]) -> dict[int, int]:
        """The detection of each track that has one: the pairing that gains most, confirmed tracks first."""
        table, tracklets = self._table, self._table.tracklets
        expected = table.states.data[:2]  # boxes and their variance, (2, 4, N)
        # almost all pairs are far apart: look across first, in full only at the rest
        reach = np.empty((2, found.shape[1]))
        reach[0] = found[0]
        np.multiply(np.square(found[2]), self._reach, out=reach[1])
        apart = expected[:, 0, :, None] - reach[:, None]  # (2, N, M)
        near = np.square(apart[0]) < _FAR * apart[1]
        if near.size > MANY_PAIRS:
            near &= table.class_ids[:, None] == np.array(kinds)
        rows, columns = near.nonzero()
        tracks, detections = expected.reshape(8, -1).take(rows, 1), found.take(columns, 1)
        # all that follows is in units of the size of the pair's boxes; its square, (8, K)
        unit = (tracks[2:4] * detections[2:4]).take(_UNIT_ROWS, 0)
        pairs = tracks - detections[:8]
        error, variance = pairs[_BOX], pairs[_VARIANCE]
        np.square(error, out=error)
        pairs /= unit
        # the variance of an exact box and of a slipped one, below each other
        either = np.empty(pairs.shape)
        exact = np.multiply(variance, detections[_SPREAD], out=either[:4])
        np.add(exact, self._slip, out=either[4:])
        # of four independent coordinates; they are summed by a product, the quickest way
        terms = pairs.take(_ERROR_ROWS, 0)
        terms /= either
        terms += np.log(either)
        density = _MINUS_HALF_OF_FOUR.dot(terms)  # (2, K)
        gain = np.logaddexp(density[0], density[1] + self._slip_odds)
        gain += detections[_SCORE]
        now_s, last, cost = table.clock.now_s, table.frame - 1, self.config.unseen_log_odds_per_s
        unseen = [0.0 if t.seen_frame == last else cost * (now_s - t.seen_s) for t in tracklets]
        own = table.class_ids.tolist()
        possible = [
            (row, column, value - unseen[row])
            for row, column, value in zip(rows.tolist(), columns.tolist(), gain.tolist(), strict=True)
            if value > unseen[row] and own[row] == kinds[column]
        ]
        return assign_pairs(possible, is_later=lambda row: not tracklets[row].track_id)

    def _start(self, match: dict[int, int], boxes: F64, found: F64, scores: list[float], class_ids: I64) -> None:
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
        born = table.start(new, found[_BOX], scores, class_ids)
        self._young += born
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

    def _report(self, rows: list[int], hidden: list[int], found: F64) -> Tracks:
        """Report in order of birth: smoothed boxes of tracks that were seen, predicted ones of hidden tracks."""
        order = sorted(rows + hidden) if hidden else rows

        def boxes_of(own: I64, columns: I64) -> F64:
            both = np.empty((8, len(own)))
            self._table.states.position.take(own, 1, out=both[:4], mode="clip")
            found[_BOX].take(columns, 1, out=both[4:], mode="clip")
            for row in hidden:
                both[4:, order.index(row)] = both[:4, order.index(row)]
            return both.T.dot(self._shown)

        return self._table.report(order, boxes_of)

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
        looks = self._table.frame % LEARN_EVERY == 0
        for t in seen:
            class_id, score = t.class_id, t.score
            if not 0 <= class_id < MAX_CLASSES:
                class_id = min(max(class_id, 0), MAX_CLASSES - 1)
            calibration = self.calibrations[class_id]
            worth = calibration.worth[int(score * STEPS)]
            if t.hits > 1:
                worth = max(worth, LEAST_WORTH_AGAIN) + calibration.again_log_odds
            log_odds = t.log_odds + worth
            t.log_odds = log_odds if log_odds > LEAST_LOG_ODDS else LEAST_LOG_ODDS
            if t.hits < STEADY_HITS:
                t.young_scores.append(score)
                continue
            if looks:
                self._habits[0, class_id] = calibration.see_steady(score)
            if t.young_scores:
                calibration.resolve(t.young_scores, True)
                t.young_scores = []
            elif looks:  # old tracks add a little evidence too
                calibration.resolve((score,), True)

    def _learn_from_predictions(self, match: dict[int, int], found: F64) -> None:
        """Before tracks are corrected: whether hidden ones are where they should be, and how far all others are."""
        table, states, measured = self._table, self._table.states, found[_BOX]
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
            error, expected = states.data[:2].take(rows, 2) - found[:8].take(columns, 1).reshape(2, 4, -1)
            self._habits[1:, class_id] = self.calibrations[class_id].see_errors(np.square(error) / expected)

    def _learn_from_ended(self) -> None:
        """Tracks that ended before they were steady were false; hidden ones were not found again."""
        self._hidden_tracks = [t for t in self._hidden_tracks if t not in self._table.ended]
        self._young = [t for t in self._young if t not in self._table.ended]
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
