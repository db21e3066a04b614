"""KITTI's road scores. (Signatures; the body follows.)"""

from __future__ import annotations

from collections.abc import Sequence

from perception.evaluation.results import RoadEvaluation, RoadImage, RoadScore
from perception.types import F64, U8


def pr_curve(images: Sequence[RoadImage], category: str, weights: F64 | None = None) -> RoadScore:
    """Pool the histograms of images (weights: how often each counts) and score them."""
    raise NotImplementedError


def road_planes(image: RoadImage, space: str) -> tuple[U8, U8, U8]:
    """Read one evaluated picture again for drawing: (judged, road, confidence), each (H, W) uint8."""
    raise NotImplementedError


class RoadEvaluator:
    """reset / process / evaluate."""

    def evaluate(self) -> RoadEvaluation: ...
