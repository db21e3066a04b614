"""Road head: module, loss and in-graph decode.

Vehicle and person channels are used only in training, with data sets that have masks and no boxes (CamVid, IDD-Lite).
They are not exported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.distributed import sum_over_ranks
from training.models.blocks import conv_block, separable_block
from training.models.head import Features, Head, HeadConfig, SizeHW
from training.ranges import check_ranges

if TYPE_CHECKING:
    from training.data import Batch
    from training.models.config import ModelConfig

CHANNELS = ("road", "vehicle", "person")
STRIDE = 4
IGNORE = 255


@dataclass(frozen=True)
class SegmentationConfig(HeadConfig):
    """Road head."""

    channels: int = 24
    """Channels of the head."""
    road_weight: float = 2.0
    """Weight of the road loss."""
    semantic_weight: float = 0.5
    """Weight of the loss of vehicle and person masks."""

    def __post_init__(self) -> None:
        check_ranges(self, channels=(1, math.inf), road_weight=(0, math.inf), semantic_weight=(0, math.inf))


Config = SegmentationConfig


class SegmentationHead(Head[Tensor, Tensor]):
    """Computes logits (B, 3, H/4, W/4), with context from strides 8 to 32 and edges from stride 4."""

    tasks: ClassVar[tuple[tuple[str, ...], ...]] = (("road",), ("semantic",))

    def __init__(self, stride4_channels: int, channels: int, config: SegmentationConfig) -> None:
        super().__init__()
        self.config = config
        self.edges = conv_block(stride4_channels, config.channels)
        self.context = nn.ModuleList(conv_block(channels, config.channels) for _ in range(3))
        self.mix8 = separable_block(config.channels, config.channels)
        self.mix4 = separable_block(config.channels, config.channels, kernel=3)
        self.out = nn.Conv2d(config.channels, len(CHANNELS), 1)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the name of the road output."""
        return ("road",)

    def targets(self, batch: Batch) -> Tensor:
        """Return the masks of a batch: (B, 3, H/4, W/4) uint8, 1 yes, 0 no, 255 ignored."""
        return batch.masks

    def forward(self, features: Features) -> Tensor:
        """Return the logits of the three masks."""
        f8, f16, f32 = (block(f) for block, f in zip(self.context, features.levels, strict=True))
        f16 = f16 + F.interpolate(f32, scale_factor=2.0, mode="nearest")
        x = self.mix8(f8 + F.interpolate(f16, scale_factor=2.0, mode="nearest"))
        x = self.mix4(self.edges(features.stride4) + F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.out(x).float()

    def decode(self, raw: Tensor, size_hw: SizeHW) -> tuple[Tensor, ...]:
        """Return the road's confidence (B, H/4, W/4) uint8, 255 = certainly road."""
        return ((raw[:, 0].sigmoid() * 255.0 + 0.5).to(torch.uint8),)

    def strip(self) -> None:
        """Cut the last convolution to its first channel."""
        road = nn.Conv2d(self.out.in_channels, 1, 1)
        assert road.bias is not None and self.out.bias is not None
        with torch.no_grad():
            road.weight.copy_(self.out.weight[:1])
            road.bias.copy_(self.out.bias[:1])
        self.out = road

    def loss(self, raw: Tensor, targets: Tensor, size_hw: SizeHW) -> dict[str, Tensor]:
        """Return the losses `road` and `semantic`; a channel without a labelled pixel adds 0."""
        judged = (targets != IGNORE).float()
        truth = torch.where(targets == 1, 1.0, 0.0)
        both = bce_dice_loss(raw, truth, judged)  # (3,)
        return {
            "road": self.config.road_weight * both[0],
            "semantic": self.config.semantic_weight * both[1:].mean(),
        }


def build(model: ModelConfig, stride4_channels: int) -> SegmentationHead:
    """Return the head for a network of this shape."""
    return SegmentationHead(stride4_channels, model.channels, model.segmentation)


def bce_dice_loss(logits: Tensor, truth: Tensor, judged: Tensor) -> Tensor:
    """Return binary cross-entropy plus half the Dice loss of each channel, over the batch of all processes.

    The Dice loss counts small areas as much as large ones (V-Net, Milletari et al. 2016).

    Args:
        logits: (B, C, h, w).
        truth: (B, C, h, w) 0 or 1.
        judged: (B, C, h, w) 1 where the truth is known, else 0.

    Returns:
        (C,), 0 for a channel without a labelled pixel.
    """
    # binary cross-entropy
    pixel = F.binary_cross_entropy_with_logits(logits, truth, judged, reduction="none")
    # Dice
    shared = (logits.sigmoid() * truth * judged).sum((0, 2, 3))
    total = (logits.sigmoid() * judged).sum((0, 2, 3)) + (truth * judged).sum((0, 2, 3))
    sums = torch.stack([pixel.sum((0, 2, 3)), judged.sum((0, 2, 3)), shared, total])  # (4, C)
    pixel_sum, judged_sum, shared, total = sum_over_ranks(sums)
    mean = pixel_sum / judged_sum.clamp(min=1.0)
    dice = (1 - (2 * shared + 1) / (total + 1)) * (judged_sum > 0)
    return mean + 0.5 * dice
