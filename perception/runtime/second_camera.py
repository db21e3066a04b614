"""Two cameras with one calibration that look the same way: where one is sure of an object and the other has nothing.

Both have the same lens, look in parallel, and stand side by side in one row, as a rectified stereo pair does. An
object of height H metres and h pixels then lies B · h / H pixels further left in the right camera, B the distance of
the cameras: neither focal length nor depth is needed, only that road users are 0.8 to 4 m high.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from perception.arrays import F32
from perception.runtime.second_opinion import DisagreementConfig, disagreement
from perception.types import Detections, Disagreement, Frame, HealthEvent

HEIGHTS_M = (0.8, 4.0)
"""Lowest and highest object: a child or a sitting person, and a lorry."""


@dataclass(frozen=True)
class CameraPair:
    """Two sources to compare."""

    left: str
    """Name of the first source; the cameras stand as the names say."""
    right: str
    baseline_m: float = 0.0
    """Distance of the cameras, metres; 0: both see the same view."""
    most_apart_s: float = 0.03
    """Frames further apart in time are no pair."""
    unpaired_s: float = 2.0
    """After this long without a pair, though both send frames, that is reported, seconds of stream time."""


def same_object(left: Detections, right: Detections, baseline_m: float) -> np.ndarray:
    """Return which boxes (N, M) of two cameras can be one object, of whatever class.

    Rows overlap by a half, widths differ by less than half, and the shift is one that the baseline allows.
    """
    a, b = (
        left.boxes_xyxy[:, None].astype(np.float64),
        right.boxes_xyxy[None].astype(np.float64),
    )  # (N, 1, 4), (1, M, 4)
    shared = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    whole = np.maximum(a[..., 3], b[..., 3]) - np.minimum(a[..., 1], b[..., 1])
    widths = a[..., 2] - a[..., 0], b[..., 2] - b[..., 0]
    height = ((a[..., 3] - a[..., 1]) + (b[..., 3] - b[..., 1])) / 2
    shift = (a[..., 0] + a[..., 2] - b[..., 0] - b[..., 2]) / 2
    slack = 0.25 * np.maximum(*widths)
    least, most = baseline_m * height / HEIGHTS_M[1] - slack, baseline_m * height / HEIGHTS_M[0] + slack
    return np.asarray(
        (shared >= 0.5 * whole)
        & (np.minimum(*widths) >= 0.5 * np.maximum(*widths))
        & (least <= shift)
        & (shift <= most)
    )


def in_both_views(found: Detections, baseline_m: float, width: int, left: bool) -> np.ndarray:
    """Return which boxes (N,) must lie in the other camera's image too, however near the object is."""
    boxes: F32 = found.boxes_xyxy
    reach = baseline_m * (boxes[:, 3] - boxes[:, 1]) / HEIGHTS_M[0]
    return np.asarray(boxes[:, 0] >= reach) if left else np.asarray(boxes[:, 2] <= width - reach)


class PairMatcher:
    """Pairs the frames of two cameras by time and finds their disagreements."""

    KEPT = 16
    """Frames of each camera that wait for their counterpart."""

    def __init__(self, pair: CameraPair, threshold: float, config: DisagreementConfig | None = None) -> None:
        """Args:
        pair: the two sources.
        threshold: score from which the network is sure.
        config: sizes, see `disagreement`.
        """
        self.pair, self.threshold, self.config = pair, threshold, config
        self._waiting: dict[str, deque[tuple[int, Detections]]] = {
            name: deque(maxlen=self.KEPT) for name in (pair.left, pair.right)
        }
        self._paired_ns: int | None = None
        self._unpaired = False

    def update(self, frame: Frame, detections: Detections) -> tuple[Disagreement | None, list[HealthEvent]]:
        """Take in one frame of either camera; the frame that completes a pair gets its disagreement."""
        pair, now_ns = self.pair, frame.timestamp_ns
        other = pair.right if frame.source == pair.left else pair.left
        if self._paired_ns is None:
            self._paired_ns = now_ns
        near = [item for item in self._waiting[other] if abs(item[0] - now_ns) <= pair.most_apart_s * 1e9]
        if not near:
            self._waiting[frame.source].append((now_ns, detections))
            return None, self._check_time(now_ns, other)
        best = min(near, key=lambda item: abs(item[0] - now_ns))
        queue = self._waiting[other]
        while queue and queue[0][0] <= best[0]:
            queue.popleft()
        self._paired_ns = now_ns
        sides = (detections, best[1]) if frame.source == pair.left else (best[1], detections)
        found = disagreement(
            *sides, (self.threshold, self.threshold), self.config, same_object(*sides, pair.baseline_m)
        )
        width = frame.size_hw[1]
        seen = Disagreement(
            found.only_first[in_both_views(found.only_first, pair.baseline_m, width, True)],
            found.only_second[in_both_views(found.only_second, pair.baseline_m, width, False)],
        )
        return seen, self._check_time(now_ns, other)

    def _check_time(self, now_ns: int, other: str) -> list[HealthEvent]:
        """Report cameras whose clocks or rates do not go together: nothing would be compared, in silence."""
        assert self._paired_ns is not None
        late = now_ns - self._paired_ns > self.pair.unpaired_s * 1e9 and bool(self._waiting[other])
        if late == self._unpaired:
            return []
        self._unpaired = late
        detail = f"no frame of {self.pair.right} within {1000 * self.pair.most_apart_s:g} ms: do their clocks agree?"
        return [HealthEvent("unpaired", self.pair.left, late, now_ns, detail if late else "over")]
