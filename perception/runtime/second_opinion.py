"""Two networks in one car: where one is sure of an object and the other has nothing at all.

A disagreement that lasts at one place is a health event. Its counterpart may score low: a box at the edge of a
threshold would otherwise come and go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.arrays import F32
from perception.boxes import iou
from perception.types import Detections, Disagreement, HealthEvent


@dataclass(frozen=True)
class DisagreementConfig:
    """When two networks disagree."""

    min_iou: float = 0.3
    """Overlap from which a box of the other network, of any class, is the same object."""
    min_height_px: float = 25.0
    """Lower boxes are left out: far objects are matters of taste, as in KITTI's rules."""
    hold_s: float = 0.6
    """A disagreement at one place is reported after it has held this long, seconds of stream time."""
    gap_s: float = 0.35
    """It may be missing this long in between, seconds."""


def disagreement(
    first: Detections,
    second: Detections,
    thresholds: tuple[float, float],
    config: DisagreementConfig | None = None,
    same: np.ndarray | None = None,
) -> Disagreement:
    """Find the sure boxes of each network that no box of the other overlaps.

    Args:
        first: all boxes down to a low score, pixels of the frame.
        second: the other network's.
        thresholds: scores from which each network is sure.
        config: overlaps and sizes.
        same: which boxes (N, M) mean one object, for two cameras; by default those that overlap.
    """
    config = config or DisagreementConfig()
    overlaps = same if same is not None else np.asarray(iou(first.boxes_xyxy, second.boxes_xyxy) >= config.min_iou)

    def alone(found: Detections, threshold: float, matched: Any) -> Detections:
        height = found.boxes_xyxy[:, 3] - found.boxes_xyxy[:, 1]
        return found[(found.scores >= threshold) & (height >= config.min_height_px) & ~matched]

    return Disagreement(
        alone(first, thresholds[0], overlaps.any(axis=1)), alone(second, thresholds[1], overlaps.any(axis=0))
    )


@dataclass
class _Place:
    """A disagreement that is followed from frame to frame."""

    side: int
    box_xyxy: F32
    class_id: int
    since_ns: int
    seen_ns: int


class DisagreementMonitor:
    """Watches the disagreements of one source."""

    def __init__(
        self,
        source: str,
        names: tuple[str, str],
        class_names: tuple[Sequence[str], Sequence[str]],
        config: DisagreementConfig | None = None,
    ) -> None:
        """Args:
        source: name of the source.
        names: of the two networks, for people.
        class_names: of the two networks.
        config: when a disagreement lasts.
        """
        self.source, self.config = source, config or DisagreementConfig()
        self._names, self._class_names = names, class_names
        self._places: list[_Place] = []
        self._active = False

    def update(self, found: Disagreement, timestamp_ns: int) -> list[HealthEvent]:
        """Take in one frame; returns the events that it causes, mostly none."""
        for side, boxes in enumerate((found.only_first, found.only_second)):
            self._follow(side, boxes, timestamp_ns)
        gap_ns, hold_ns = self.config.gap_s * 1e9, self.config.hold_s * 1e9
        self._places = [place for place in self._places if timestamp_ns - place.seen_ns <= gap_ns]
        lasting = [place for place in self._places if place.seen_ns - place.since_ns >= hold_ns]
        if bool(lasting) == self._active:
            return []
        self._active = bool(lasting)
        detail = "; ".join(map(self._describe, lasting)) or "over"
        return [HealthEvent("disagreement", self.source, self._active, timestamp_ns, detail)]

    def _follow(self, side: int, found: Detections, timestamp_ns: int) -> None:
        """Continue places that a box overlaps, and open new ones."""
        own = [place for place in self._places if place.side == side]
        known = np.array([place.box_xyxy for place in own], np.float32).reshape(-1, 4)
        overlaps = iou(found.boxes_xyxy, known)  # (N, P)
        for row, (box, class_id) in enumerate(zip(found.boxes_xyxy, found.class_ids.tolist(), strict=True)):
            best = int(overlaps[row].argmax()) if len(own) else -1
            if best >= 0 and overlaps[row, best] >= self.config.min_iou:
                own[best].box_xyxy, own[best].class_id, own[best].seen_ns = box, class_id, timestamp_ns
                overlaps[:, best] = 0
            else:
                self._places.append(_Place(side, box, class_id, timestamp_ns, timestamp_ns))

    def _describe(self, place: _Place) -> str:
        left, top, right, bottom = (round(float(side)) for side in place.box_xyxy)
        name = self._class_names[place.side][place.class_id]
        return f"only {self._names[place.side]} sees a {name} at {left},{top}–{right},{bottom}"
