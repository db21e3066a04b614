"""Road head: module, loss and in-graph decode together. Vehicle and person channels exist for training alone.

The two extra channels take supervision from sets that have masks and no boxes (CamVid, IDD-Lite). They are not
exported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.distributed import sum_over_ranks
from training.models.blocks import conv_block, separable_block
from training.ranges import check_ranges

CHANNELS = ("road", "vehicle", "person")
STRIDE = 4
IGNORE = 255


@dataclass(frozen=True)
class SegmentationConfig:
    """Road head."""

    channels: int = 24
    """Width of the head."""
    road_weight: float = 2.0
    """Of the road loss."""
    semantic_weight: float = 0.5
    """Of the vehicle and person masks, where a set has them."""

    def __post_init__(self) -> None:
        check_ranges(self, channels=(1, math.inf), road_weight=(0, math.inf), semantic_weight=(0, math.inf))


class SegmentationHead(nn.Module):
    """Coarse context from stride 8 to 32, edges from stride 4."""

    def __init__(self, channels_stride4: int, channels: int, config: SegmentationConfig) -> None:
        super().__init__()
        self.config = config
        self.edges = conv_block(channels_stride4, config.channels)
        self.context = nn.ModuleList(conv_block(channels, config.channels) for _ in range(3))
        self.mix8 = separable_block(config.channels, config.channels)
        self.mix4 = separable_block(config.channels, config.channels, kernel=3)
        self.out = nn.Conv2d(config.channels, len(CHANNELS), 1)

    def forward(self, stride4: Tensor, features: list[Tensor]) -> Tensor:
        """Backbone map at stride 4 and the neck's three → logits (B, 3, H/4, W/4)."""
        f8, f16, f32 = (block(f) for block, f in zip(self.context, features, strict=True))
        f16 = f16 + F.interpolate(f32, scale_factor=2.0, mode="nearest")
        x = self.mix8(f8 + F.interpolate(f16, scale_factor=2.0, mode="nearest"))
        x = self.mix4(self.edges(stride4) + F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.out(x)

    @staticmethod
    def decode(logits: Tensor) -> Tensor:
        """Logits → road confidence (B, H/4, W/4) uint8, 255 = certainly road."""
        return (logits[:, 0].sigmoid() * 255.0 + 0.5).to(torch.uint8)

    def loss(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Losses `road` and `semantic` from masks (B, 3, H/4, W/4) uint8: 1 yes, 0 no, 255 not judged.

        A batch without a judged pixel of a channel adds exactly nothing.
        """
        judged = (masks != IGNORE).float()
        wanted = torch.where(masks == 1, 1.0, 0.0)
        pixel = F.binary_cross_entropy_with_logits(logits, wanted, judged, reduction="none")
        # overlap term: small or unbalanced areas count as much as large ones (V-Net, Milletari et al. 2016)
        shared = (logits.sigmoid() * wanted * judged).sum((0, 2, 3))
        total = (logits.sigmoid() * judged).sum((0, 2, 3)) + (wanted * judged).sum((0, 2, 3))
        sums = torch.stack([pixel.sum((0, 2, 3)), judged.sum((0, 2, 3)), shared, total])  # (4, 3)
        pixel_sum, judged_sum, shared, total = sum_over_ranks(sums)
        mean = pixel_sum / judged_sum.clamp(min=1.0)  # (3,)
        dice = (1 - (2 * shared + 1) / (total + 1)) * (judged_sum > 0)
        both = mean + 0.5 * dice
        return {
            "road": self.config.road_weight * both[0],
            "semantic": self.config.semantic_weight * both[1:].mean(),
        }
