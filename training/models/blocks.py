"""The convolution blocks of neck and heads."""

from __future__ import annotations

from torch import nn


def conv_block(channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Return a block of convolution, batch norm and ReLU, which runtimes fuse and int8 keeps exact."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def separable_block(channels_in: int, channels_out: int, kernel: int = 5, stride: int = 1) -> nn.Sequential:
    """Return depthwise and pointwise convolutions with batch norm and ReLU (MobileNet, Howard et al. 2017)."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, kernel, stride, kernel // 2, groups=channels_in, bias=False),
        nn.BatchNorm2d(channels_in),
        nn.ReLU(inplace=True),
        *conv_block(channels_in, channels_out),
    )
