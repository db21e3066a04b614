"""The two convolution blocks that neck and heads are made of."""

from __future__ import annotations

from torch import nn


def conv_block(channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU. ReLU because runtimes fuse it into the convolution and int8 keeps it exact."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def separable_block(channels_in: int, channels_out: int, kernel: int = 5, stride: int = 1) -> nn.Sequential:
    """Depthwise then pointwise convolution, each with batch norm and ReLU (MobileNet, Howard et al. 2017)."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, kernel, stride, kernel // 2, groups=channels_in, bias=False),
        nn.BatchNorm2d(channels_in),
        nn.ReLU(inplace=True),
        *conv_block(channels_in, channels_out),
    )
