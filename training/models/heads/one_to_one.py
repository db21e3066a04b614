"""One-to-one detection head of YOLOv10 (Wang et al. 2024): each object trains one point, so boxes need no NMS.

It uses the matching metric of the one-to-many head, and its gradient stops at its input.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from perception.errors import UserError
from training.models.head import SizeHW
from training.models.heads.detection import DetectionHead, DetectionTargets, RawDetections

if TYPE_CHECKING:
    from training.models.config import ModelConfig

PREFIX = "one_"
"""Prefix of the names of the losses."""


class OneToOneHead(DetectionHead):
    """A detection head in which each object trains one point."""

    tasks: ClassVar[tuple[tuple[str, ...], ...]] = tuple(
        tuple(PREFIX + name for name in names) for names in DetectionHead.tasks
    )
    replaces: ClassVar[str] = "detection"
    detached: ClassVar[bool] = True

    def loss(self, raw: RawDetections, targets: DetectionTargets, size_hw: SizeHW) -> dict[str, Tensor]:
        """Return the losses of `DetectionHead` with the prefix `PREFIX`."""
        return {PREFIX + name: value for name, value in super().loss(raw, targets, size_hw).items()}


def build(model: ModelConfig, stride4_channels: int) -> OneToOneHead:
    """Return the head for a network of this shape, with the options of the detection head.

    Raises:
        UserError: the network has no detection head.
    """
    if "detection" not in model.heads:
        raise UserError(
            "a one-to-one head without the detection head", "both", "--model.heads detection one_to_one segmentation"
        )
    return OneToOneHead(model.channels, model.class_names, replace(model.detection, topk=1, nms_rounds=0))
