"""Adversarial training: each step also learns from images changed within ε grey levels to raise its own loss.

One gradient step from a random start is fast adversarial training (Wong, Rice and Kolter, ICLR 2020), several are
PGD (Madry et al., ICLR 2018). The loss is the one that is trained, so ignore regions and classes without labels move
no pixel. Boxes, classes and masks stay those of the clean image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from training.models.network import Network
from training.ranges import check_ranges

if TYPE_CHECKING:
    from training.data import Batch


@dataclass(frozen=True)
class AdversarialConfig:
    """Adversarial training."""

    epsilon: float = 0.0
    """Largest adversarial change of a value, grey levels of 255; 0: none."""
    share: float = 0.5
    """Fraction of each batch that is changed adversarially."""
    steps: int = 1
    """Gradient steps of a change. One adds about a third of a step's time at a share of a half."""

    def __post_init__(self) -> None:
        check_ranges(self, epsilon=(0, 255), share=(0, 1), steps=(1, 100))


def harden(network: Network, batch: Batch, config: AdversarialConfig, precision: torch.dtype) -> Batch:
    """Return the batch with its first images changed to raise the loss; weights and batch statistics stay.

    Args:
        network: the network that is trained.
        batch: images and targets.
        config: strength of the change.
        precision: of the forward pass. fp16 is replaced by fp32, because small gradients vanish in it.
    """
    count = round(config.share * len(batch.images))
    if config.epsilon <= 0 or count == 0:
        return batch
    part = batch.map(lambda tensor: tensor[:count])
    clean = part.images.float()
    x = (clean + (torch.rand_like(clean) * 2 - 1) * config.epsilon).clamp(0, 255)
    # Wong et al. step 1.25 ε; 2.5 ε / steps can cross the whole range and back
    size = 1.25 * config.epsilon if config.steps == 1 else 2.5 * config.epsilon / config.steps
    low, high = (clean - config.epsilon).clamp(min=0), (clean + config.epsilon).clamp(max=255)
    enabled = precision is torch.bfloat16
    with _as_deployed(network):
        for _ in range(config.steps):
            x.requires_grad_(True)
            with torch.autocast(x.device.type, precision if enabled else torch.bfloat16, enabled=enabled):
                raw = network(x)
            total = torch.stack(list(network.loss(raw, part).values())).sum()
            (gradient,) = torch.autograd.grad(total, x)
            step = size * torch.nan_to_num(gradient).sign()
            x = torch.minimum(torch.maximum(x.detach() + step, low), high)
    return replace(batch, images=torch.cat([x, batch.images[count:].to(x.dtype)]))


@contextmanager
def _as_deployed(network: nn.Module) -> Iterator[None]:
    """Put the network in evaluation mode, so that no batch statistic and no dropout is touched; then back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
