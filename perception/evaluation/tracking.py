"""KITTI's tracking scores: HOTA, CLEAR, Identity. (Signatures; the body follows.)"""

from __future__ import annotations

from collections.abc import Sequence

from perception.evaluation.results import TrackingEvaluation, TrackingScore, TrackingSequence
from perception.formats.kitti import TrackingRows


def combine(sequences: Sequence[TrackingSequence]) -> TrackingScore:
    """The scores of several sequences of one class together; repeat a sequence to weight it (bootstrap)."""
    raise NotImplementedError


class TrackingEvaluator:
    """reset / process / evaluate."""

    def process(self, sequence: str, gt: TrackingRows, results: TrackingRows, n_frames: int) -> None: ...

    def evaluate(self) -> TrackingEvaluation: ...
