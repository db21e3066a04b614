"""Channels of a pruned network: read from one network, and set in another that is built from the same options."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from perception.errors import UserError


def widths_of(network: nn.Module) -> tuple[int, ...]:
    """Return input and output channels of each convolution, one after the other, in the network's order.

    Raises:
        UserError: the network has weights elsewhere than in convolutions and batch norm, or convolutions in groups.
    """
    for module in network.modules():
        known = isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) and _is_plain(module)
        if list(module.parameters(recurse=False)) and not known:
            raise UserError(
                f"a network with {type(module).__name__} layers",
                "convolutions, in no groups or one group a channel, and batch norm alone",
                "a network with a MobileNet or a ResNet, without 3-D boxes",
            )
    return tuple(side for conv in _convolutions(network) for side in (conv.in_channels, conv.out_channels))


@torch.no_grad()
def set_widths(network: nn.Module, widths: Sequence[int]) -> None:
    """Cut each convolution, and the batch norm that follows it, to these channels, in place.

    Args:
        network: network as its other options build it.
        widths: from `widths_of`.

    Raises:
        UserError: the widths belong to another network, or a layer would grow.
    """
    convolutions = _convolutions(network)
    if len(widths) != 2 * len(convolutions):
        raise UserError(
            f"widths of {len(widths) / 2:g} convolutions for a network of {len(convolutions)}",
            "a network with the heads and the backbone of the pruned one",
            "--preset and --model options as in the run that was pruned",
        )
    norms = {id(a): b for a, b in pairwise(network.modules()) if isinstance(b, nn.BatchNorm2d)}
    for conv, inside, outside in zip(convolutions, widths[::2], widths[1::2], strict=True):
        alone = conv.groups > 1  # one group a channel
        fits = 1 <= inside <= conv.in_channels and 1 <= outside <= conv.out_channels
        if not (fits and _is_plain(conv) and (not alone or inside == outside)):
            raise UserError(
                f"{inside} to {outside} channels in place of {conv.in_channels} to {conv.out_channels}",
                "channels that pruning can leave",
                "the checkpoint as `tools.recipes.prune` wrote it",
            )
        conv.weight = nn.Parameter(conv.weight[:outside, : 1 if alone else inside].clone())
        if conv.bias is not None:
            conv.bias = nn.Parameter(conv.bias[:outside].clone())
        conv.in_channels, conv.out_channels, conv.groups = inside, outside, inside if alone else 1
        if (norm := norms.get(id(conv))) is not None:
            norm.num_features = outside
            norm.weight = nn.Parameter(norm.weight[:outside].clone())
            norm.bias = nn.Parameter(norm.bias[:outside].clone())
            for name in ("running_mean", "running_var"):
                setattr(norm, name, getattr(norm, name)[:outside].clone())


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer has no groups, or one for each channel."""
    return not isinstance(module, nn.Conv2d) or module.groups in (1, module.in_channels)
