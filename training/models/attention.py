"""Attention on maps of the neck: one transformer encoder layer on the coarsest map."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 8
"""Attention heads; fewer where they do not divide the channels."""


class EncoderLayer(nn.Module):
    """Self-attention over all places of a map, as RT-DETR has at stride 32 (Zhao et al. 2024).

    Places are encoded by a depthwise convolution with zero padding (Chu et al. 2023), which follows any input size.
    The layer changes nothing until it is trained, so that it can be added to a trained network.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.place = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.heads = math.gcd(HEADS, channels)
        # nn.MultiheadAttention takes a fused path in evaluation mode that the exporter does not know
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels))
        for last in (self.place, self.out, self.mlp[2]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map (B, C, H, W) of the same shape."""
        height, width = x.shape[2:]
        tokens = (x + self.place(x)).flatten(2).transpose(1, 2)  # (B, H·W, C)
        qkv = self.qkv(self.norm1(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])  # (B, heads, H·W, C/heads)
        tokens = tokens + self.out(seen.transpose(1, 2).flatten(2))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.transpose(1, 2).unflatten(2, (height, width))
