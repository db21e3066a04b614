"""From detections to labels: sure boxes are labels, doubtful ones are regions to ignore, the rest is nothing.

In a recording, the offline tracker runs first. A box is then as sure as its own score and its track together: a car
that is hardly seen in one frame is a label because it was plain in the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.arrays import F32, F64, I64
from perception.boxes import clip, iou
from perception.errors import FieldError
from perception.trackers import create_tracker
from perception.trackers.offline import OfflineConfig, track_offline
from perception.types import Detections, Tracks

SAME_IOU = 0.5
"""Boxes of one class that overlap by more are one object."""
SAME_PLACE_IOU = 0.7
"""Boxes of different classes that overlap by more are one object."""
FILL_S = 0.3
"""Gaps of tracks up to so long are filled, seconds: longer ones are mostly occlusions, where people draw no box."""


@dataclass(frozen=True)
class VerdictConfig:
    """What becomes of a box by its confidence."""

    sure: float = 0.4
    """Boxes from this confidence on are labels, 0..1."""
    doubtful: float = 0.15
    """Boxes from this confidence on are regions to ignore; below, they are nothing."""

    def __post_init__(self) -> None:
        if not 0 < self.sure <= 1:
            raise FieldError(self, "sure", "more than 0, up to 1")
        if not 0 < self.doubtful <= self.sure:
            raise FieldError(self, "doubtful", f"more than 0, up to --sure {self.sure:g}")


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one frame by machine, the most confident first."""

    boxes_xyxy: F32
    """(N, 4) pixels of the image."""
    class_ids: I64
    """(N,)"""
    confidences: F64
    """(N,) 0..1."""
    track_ids: I64
    """(N,) 0 without a track."""
    sure: NDArray[np.bool_]
    """(N,) True for labels, False for regions to ignore."""

    def __len__(self) -> int:
        return len(self.sure)

    def __getitem__(self, index: np.ndarray) -> Labels:
        """A subset by boolean mask or integer array."""
        return Labels(
            self.boxes_xyxy[index],
            self.class_ids[index],
            self.confidences[index],
            self.track_ids[index],
            self.sure[index],
        )


def track(frames: Sequence[tuple[int, Detections]]) -> list[tuple[Tracks, F64]]:
    """Track a recording with hindsight.

    Args:
        frames: time stamps in nanoseconds, ascending, and detections.

    Returns:
        For each frame its tracks, and the confidences of their boxes: the mean of the box's own score, interpolated
        where it was not detected, and the median score of its track.
    """
    tracks = track_offline(create_tracker("drivetrack"), frames, OfflineConfig(fill_s=FILL_S))
    scores: dict[int, list[float]] = {}
    for one in tracks:
        for track_id, score, unseen in zip(one.track_ids.tolist(), one.scores, one.frames_since_seen, strict=True):
            if not unseen:
                scores.setdefault(track_id, []).append(float(score))
    of_track = {track_id: float(np.median(seen)) for track_id, seen in scores.items()}
    return [
        (one, (one.scores + np.array([of_track.get(track_id, 0.0) for track_id in one.track_ids.tolist()])) / 2)
        for one in tracks
    ]


def decide(
    found: Detections,
    size_hw: tuple[int, int],
    tracked: tuple[Tracks, F64] | None = None,
    config: VerdictConfig = VerdictConfig(),
) -> Labels:
    """Decide what becomes of what was found in one frame.

    Args:
        found: fused detections.
        size_hw: of the image; boxes are cut to it.
        tracked: the frame's tracks with their confidences, in a recording.
        config: the two thresholds.
    """
    boxes, confidences, class_ids = found.boxes_xyxy, found.scores.astype(np.float64), found.class_ids
    track_ids = np.zeros(len(found), np.int64)
    if tracked is not None:
        tracks, sure_of = tracked
        same = iou(boxes, tracks.boxes_xyxy) * (class_ids[:, None] == tracks.class_ids)  # (N, T)
        lone = same.max(axis=1, initial=0) < SAME_IOU
        boxes = np.concatenate([tracks.boxes_xyxy, boxes[lone]])
        confidences = np.concatenate([sure_of, confidences[lone]])
        class_ids = np.concatenate([tracks.class_ids, class_ids[lone]])
        track_ids = np.concatenate([tracks.track_ids, track_ids[lone]])
    order = np.argsort(-confidences, kind="stable")
    labels = Labels(
        clip(boxes, size_hw)[order], class_ids[order], confidences[order], track_ids[order],
        confidences[order] >= config.sure,
    )  # fmt: skip
    sides = labels.boxes_xyxy[:, 2:] - labels.boxes_xyxy[:, :2]
    return _once(labels[(labels.confidences >= config.doubtful) & (sides >= 1).all(axis=1)])


def _once(labels: Labels) -> Labels:
    """Keep the most confident of boxes that mean the same object."""
    overlap = iou(labels.boxes_xyxy, labels.boxes_xyxy)
    same_class = labels.class_ids[:, None] == labels.class_ids
    repeats = overlap >= np.where(same_class, SAME_IOU, SAME_PLACE_IOU)
    # two tracks are two objects, however near, as long as their classes agree
    both_tracked = (labels.track_ids[:, None] > 0) & (labels.track_ids > 0)
    repeats &= ~(both_tracked & same_class)
    kept = np.ones(len(labels), bool)
    for i in range(len(labels)):
        if kept[i]:
            kept[i + 1 :] &= ~repeats[i, i + 1 :]
    return labels[kept]
