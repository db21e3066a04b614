"""Tracking with hindsight, for recordings: a tracker runs forward, then whole tracks are looked back upon.

1. Two forward passes: the first learns what the detector's scores are worth, the second starts with that knowledge.
2. A track begins with its first detection, not when it was confirmed. Short tracks are removed, and those whose
   scores speak against them by what the whole recording has taught.
3. Tracks that end and begin again behind an occlusion are joined, where the motion of both ends agrees.
4. Gaps are filled by interpolation.
5. Boxes are smoothed backward and forward in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from perception.arrays import F64, I64
from perception.trackers import Tracker
from perception.trackers.assignment import assign
from perception.trackers.base import CLOCK_TOLERANCE_S
from perception.trackers.drivetrack import DriveTracker
from perception.trackers.kalman import XYXY_FROM_CXCYWH
from perception.types import CONFIRMED, Detections, Tracks

MOTION_SHARE, NOISE_SHARE = 0.4, 0.8
"""Up to the first share of noise boxes are left alone, for a walking person's box bends too; from the second on they
are smoothed in full."""


@dataclass(frozen=True)
class OfflineConfig:
    """What hindsight may change."""

    least_hits: int = 6
    """Tracks with fewer detections are removed."""
    least_log_odds: float = -0.5
    """Tracks whose detections are worth less on average are removed; the whole recording has taught what they are."""
    fill_s: float = 0.7
    """Gaps up to so long are filled, seconds."""
    join_s: float = 3.0
    """Two tracks with a gap up to so long may be one, seconds."""
    join_share: float = 0.2
    """How far the ends of two such tracks may miss each other, in box sizes, at no gap; as much more per second."""
    ends_s: float = 1.0
    """Length of a track's end from which its motion is taken, seconds."""
    smooth_s: float = 0.15
    """Standard deviation of the window that smooths boxes, seconds; 0 leaves them."""


@dataclass(eq=False)
class _Path:
    """All detections of one track."""

    class_id: int
    frames: I64
    """(N,) ascending, index of the frame."""
    boxes: F64
    """(N, 4) cx, cy, w, h."""
    scores: F64


def track_offline(
    tracker: Tracker, frames: Sequence[tuple[int, Detections]], config: OfflineConfig = OfflineConfig()
) -> list[Tracks]:
    """Track a whole recording.

    Args:
        tracker: any tracker of this package; it is reset.
        frames: time stamps in nanoseconds, ascending, and detections.
        config: what hindsight may change.

    Returns:
        The tracks of each frame. Interpolated boxes have `frames_since_seen` above 0.
    """
    tracker.reset()
    if hasattr(tracker, "restart"):
        for timestamp_ns, detections in frames:
            tracker.update(detections, timestamp_ns)
        tracker.restart()
    times_s = np.array([timestamp_ns for timestamp_ns, _ in frames], np.float64) * 1e-9
    paths = _join(_kept(_recorded(tracker, frames), tracker, config), times_s, config)
    noise = {c: _noise_share([path for path in paths if path.class_id == c]) for c in {p.class_id for p in paths}}
    filled = [_filled(path, times_s, noise[path.class_id], config) for path in paths]
    order = sorted(range(len(filled)), key=lambda i: int(filled[i].frames[0]))
    return _by_frame([filled[i] for i in order], [paths[i] for i in order], len(frames))


def _recorded(tracker: Tracker, frames: Iterable[tuple[int, Detections]]) -> list[_Path]:
    """Run forward: every track that was confirmed, with all its detections."""
    history = tracker.record()
    for timestamp_ns, detections in frames:
        tracker.update(detections, timestamp_ns)
    by_track: dict[int, list] = {}
    for tracklet, frame, box, score in history:
        by_track.setdefault(id(tracklet), [tracklet]).append((frame, box, score))
    found = []
    for tracklet, *seen in by_track.values():
        path = _Path(
            tracklet.class_id,
            np.array([frame for frame, _, _ in seen], np.int64),
            np.array([box for _, box, _ in seen]),
            np.array([score for _, _, score in seen]),
        )
        if tracklet.track_id > 0:
            found.append(path)
    return found


def _kept(found: list[_Path], tracker: Tracker, config: OfflineConfig) -> list[_Path]:
    """Tracks that are long and sure enough."""
    kept = [path for path in found if len(path.frames) >= config.least_hits]
    if not isinstance(tracker, DriveTracker):
        return kept
    worth = [[tracker.log_odds(path.class_id, score) for score in path.scores.tolist()] for path in kept]
    return [path for path, values in zip(kept, worth, strict=True) if np.mean(values) >= config.least_log_odds]


def _motion(path: _Path, times_s: F64, config: OfflineConfig, at_end: bool) -> tuple[F64, F64]:
    """Box at one end of a path and its change per second, from a line through the last or first `ends_s`."""
    times = times_s[path.frames]
    edge = times[-1] if at_end else times[0]
    near = np.abs(times - edge) <= config.ends_s
    offset, boxes = times[near] - edge, path.boxes[near]
    if len(offset) < 3:
        return boxes.mean(axis=0), np.zeros(4)
    slope, level = np.polyfit(offset, boxes, 1)
    return level, slope


def _join(paths: list[_Path], times_s: F64, config: OfflineConfig) -> list[_Path]:
    """Join paths whose ends fit, the best pairing over the whole recording."""
    if len(paths) < 2:
        return paths
    ends = [_motion(path, times_s, config, True) for path in paths]
    starts = [_motion(path, times_s, config, False) for path in paths]
    end_s = np.array([times_s[path.frames[-1]] for path in paths])
    start_s = np.array([times_s[path.frames[0]] for path in paths])
    class_ids = np.array([path.class_id for path in paths])
    gap_s = start_s[None, :] - end_s[:, None]  # (N, N) from the end of a row to the start of a column
    possible = (gap_s > 0) & (gap_s <= config.join_s) & (class_ids[:, None] == class_ids)
    gain = np.zeros(gap_s.shape)
    for i, j in np.argwhere(possible).tolist():
        (end, end_rate), (start, start_rate), gap = ends[i], starts[j], float(gap_s[i, j])
        size = np.tile(np.sqrt(np.maximum(end[2:], 1) * np.maximum(start[2:], 1)), 2)
        middle = np.abs((end + 0.5 * gap * end_rate) - (start - 0.5 * gap * start_rate)) / size
        gain[i, j] = 1 - middle.max() / (config.join_share * (1 + gap))
    following = assign(gain)
    joined, begun = [], set(following.values())
    for i in range(len(paths)):
        if i in begun:
            continue
        chain = [i]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        parts = [paths[k] for k in chain]
        joined.append(
            _Path(
                parts[0].class_id,
                np.concatenate([part.frames for part in parts]),
                np.concatenate([part.boxes for part in parts]),
                np.concatenate([part.scores for part in parts]),
            )
        )
    return joined


def _noise_share(paths: list[_Path]) -> F64:
    """How far a class's boxes are to be smoothed, (4,) of 0..1, by how much of what they do is the detector's noise.

    Second differences of white noise are correlated from one to the next by -2/3, those of real motion hardly. So
    exact boxes are left as they are.
    """
    product, square = np.zeros(4), np.zeros(4)
    for path in paths:
        whole = np.flatnonzero(path.frames[4:] - path.frames[:-4] == 4)  # five frames in a row
        bends = np.diff(path.boxes, n=2, axis=0) / path.boxes[1:-1, [2, 3, 2, 3]]
        before, after = bends[whole], bends[whole + 1]
        product += (before * after).sum(axis=0)
        square += 0.5 * (np.square(before) + np.square(after)).sum(axis=0)
    share = -1.5 * np.divide(product, square, out=np.zeros(4), where=square > 0)
    return np.minimum(np.maximum((share - MOTION_SHARE) / (NOISE_SHARE - MOTION_SHARE), 0.0), 1.0)


def _filled(path: _Path, times_s: F64, noise_share: F64, config: OfflineConfig) -> _Path:
    """A path with its short gaps filled and its boxes smoothed."""
    times = times_s[path.frames]
    boxes = path.boxes
    if config.smooth_s > 0:
        boxes = boxes + noise_share * (_smoothed(times, boxes, config.smooth_s) - boxes)
    frames = np.arange(path.frames[0], path.frames[-1] + 1)
    at = np.searchsorted(path.frames, frames, side="right") - 1  # detection at or before each frame
    gap_s = np.append(np.diff(times), 0.0)[at]
    frames = frames[(path.frames[at] == frames) | (gap_s <= config.fill_s + CLOCK_TOLERANCE_S)]
    now = times_s[frames]
    filled = np.stack([np.interp(now, times, column) for column in boxes.T], axis=1)
    scores = np.interp(now, times, path.scores)
    return _Path(path.class_id, frames, filled, scores)


def _smoothed(times: F64, boxes: F64, sigma_s: float) -> F64:
    """Local linear regression with a Gaussian window, so that steady motion is left as it is."""
    out = np.empty_like(boxes)
    for i, now in enumerate(times.tolist()):
        low, high = np.searchsorted(times, [now - 3 * sigma_s, now + 3 * sigma_s])
        offset = times[low : high + 1] - now
        weight = np.exp(-0.5 * np.square(offset / sigma_s))
        total, mean = weight.sum(), (weight * offset).sum() / weight.sum()
        spread = (weight * np.square(offset - mean)).sum()
        near = boxes[low : high + 1]
        level = (weight[:, None] * near).sum(axis=0) / total
        if spread > 1e-12:
            level -= mean * ((weight * (offset - mean))[:, None] * near).sum(axis=0) / spread
        out[i] = level
    return out


def _by_frame(filled: list[_Path], paths: list[_Path], count: int) -> list[Tracks]:
    """Columns of each frame; ids from 1 in the order in which tracks begin."""
    numbers, boxes, scores = [], [], []
    for i, (path, seen) in enumerate(zip(filled, paths, strict=True)):
        latest = seen.frames[np.searchsorted(seen.frames, path.frames, side="right") - 1]
        size = len(path.frames)
        numbers.append(
            np.stack(
                [
                    path.frames,
                    np.full(size, i + 1),
                    np.full(size, path.class_id),
                    path.frames - path.frames[0] + 1,
                    path.frames - latest,
                ]
            )
        )
        boxes.append(path.boxes @ XYXY_FROM_CXCYWH.T)
        scores.append(path.scores)
    table = np.concatenate(numbers, axis=1) if numbers else np.zeros((5, 0), np.int64)
    order = np.argsort(table[0], kind="stable")
    table = table[:, order]
    all_boxes = (np.concatenate(boxes) if boxes else np.zeros((0, 4)))[order].astype(np.float32)
    all_scores = (np.concatenate(scores) if scores else np.zeros(0))[order]
    bounds = np.searchsorted(table[0], np.arange(count + 1))
    result = []
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        part = table[:, low:high]
        result.append(
            Tracks(
                track_ids=part[1],
                class_ids=part[2],
                boxes_xyxy=all_boxes[low:high],
                scores=all_scores[low:high],
                states=np.full(high - low, CONFIRMED),
                ages=part[3],
                frames_since_seen=part[4],
            )
        )
    return result
