"""A light path-aggregation neck (PANet, Liu et al. 2018): a top-down path, then a bottom-up path."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from training.models.attention import EncoderLayer
from training.models.blocks import conv_block, separable_block


class PanNeck(nn.Module):
    """Fuses maps at strides 8, 16 and 32 into three maps of `channels` each.

    Maps are added instead of concatenated, which halves the multiplications of the following block.

    Args:
        channels_in: channels of the three maps.
        channels: channels of each result.
        channel_attention: weigh the channels of each result by its mean (squeeze and excitation, Hu et al. 2018).
        encoder_layer: apply a transformer encoder layer to the map at stride 32.
    """

    def __init__(
        self,
        channels_in: tuple[int, int, int],
        channels: int,
        channel_attention: bool = False,
        encoder_layer: bool = False,
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv_block(c, channels) for c in channels_in)
        self.down = nn.ModuleList(separable_block(channels, channels) for _ in range(2))
        self.stride = nn.ModuleList(separable_block(channels, channels, stride=2) for _ in range(2))
        self.up = nn.ModuleList(separable_block(channels, channels) for _ in range(2))
        self.encoder = EncoderLayer(channels) if encoder_layer else nn.Identity()
        self.weigh = nn.ModuleList(
            SqueezeExcitation(channels, max(1, channels // 4)) if channel_attention else nn.Identity()
            for _ in range(3)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return three maps (B, C, H/s, W/s), s = 8, 16, 32, from three maps in the same order."""
        c3, c4, c5 = (block(f) for block, f in zip(self.lateral, features, strict=True))
        c5 = self.encoder(c5)
        p4 = self.down[0](c4 + F.interpolate(c5, scale_factor=2.0, mode="nearest"))
        p3 = self.down[1](c3 + F.interpolate(p4, scale_factor=2.0, mode="nearest"))
        n4 = self.up[0](p4 + self.stride[0](p3))
        n5 = self.up[1](c5 + self.stride[1](n4))
        return [weigh(level) for weigh, level in zip(self.weigh, (p3, n4, n5), strict=True)]
