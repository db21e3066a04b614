"""What each channel of a network is worth: the change of its outputs if the channel were gone.

The outputs are distributions: a class at each point, a bin at each side of a box, road at each pixel. Their
Kullback-Leibler divergence grows with the square of the change of a gate at a channel, and
the factor is the Fisher information of the gate (Molchanov et al., CVPR 2019). Labels are sampled from the network's
own outputs, so images need none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.heads.detection import RawDetections

ROAD_WEIGHT = 3.0
"""Weight of the mean divergence of a road pixel against that of a detected object."""
BOX_WEIGHT = 0.25
"""Weight of a side of a box against the class of its point, as in distillation."""


def channel_importance(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the Fisher information of each channel that a batch norm gates, by the name of the batch norm.

    Args:
        network: network in evaluation mode.
        images: (N, H, W, 3) uint8 BGR.
    """
    norms = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    gates = [p.requires_grad_(True) for m in norms.values() for p in (m.weight, m.bias)]
    sums = {name: torch.zeros(m.num_features) for name, m in norms.items()}
    for image in images:
        surprise = sampled_loss(network(image[None]))
        gradients = iter(torch.autograd.grad(surprise, gates, allow_unused=True))
        for name, norm in norms.items():
            weight, bias = next(gradients), next(gradients)
            if weight is not None and bias is not None:  # a gate scales both
                sums[name] += (norm.weight.detach() * weight + norm.bias.detach() * bias).square()
    return {name: total / len(images) for name, total in sums.items()}


def sampled_loss(raw: Mapping[str, Any]) -> Tensor:
    """Return the loss against labels drawn from the outputs; its gradient has the variance that counts."""
    total = torch.zeros(())
    if isinstance(detections := raw.get("detection"), RawDetections):
        scores = detections.class_logits.sigmoid().detach()  # (B, A, C)
        best = scores.amax(-1)  # (B, A)
        objects = best.sum().clamp(min=1.0)
        drawn = torch.bernoulli(scores)
        classes = F.binary_cross_entropy_with_logits(detections.class_logits, drawn, reduction="none")
        total = total + classes.sum() / objects.sqrt()
        bins = detections.bin_logits.unflatten(-1, (4, -1)).flatten(0, 2)  # (B·A·4, bins)
        sides = torch.multinomial(bins.detach().softmax(-1), 1)[:, 0]
        surprise = F.cross_entropy(bins, sides, reduction="none")
        weights = (best * BOX_WEIGHT).sqrt().flatten().repeat_interleave(4)
        total = total + (surprise * weights).sum() / objects.sqrt()
    if isinstance(road := raw.get("segmentation"), Tensor):
        logits = road[:, 0]
        drawn = torch.bernoulli(logits.detach().sigmoid())
        surprise = F.binary_cross_entropy_with_logits(logits, drawn, reduction="sum")
        total = total + surprise * (ROAD_WEIGHT / logits.numel()) ** 0.5
    return total
