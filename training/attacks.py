"""Hostile input for a checkpoint: small changes of the pixels that the network's own gradient points to.

FGSM (Goodfellow et al. 2015) takes one step along the sign of the gradient, PGD (Madry et al. 2018) several small
ones from a random start, projected back to at most ε grey levels. The attacker knows the weights and no labels. The
result is rounded to whole grey levels, so it could stand in an image file.

The few lines are written out: the Adversarial Robustness Toolbox expects detectors that take training targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perception.arrays import U8
from perception.errors import UserError
from training.models.network import Network

Goal = Literal["disappear", "invent", "road"]
Method = Literal["noise", "fgsm", "pgd"]
GOALS: tuple[Goal, ...] = ("disappear", "invent", "road")
SURE = 0.05
"""Points with at least this score are those that the attack hides."""
INVENTED = 200
"""Points of the background that the attack raises, those nearest to an object."""


@dataclass(frozen=True)
class AttackConfig:
    """How an attack searches."""

    method: Method = "pgd"
    """noise: the same amount of random change, for comparison; fgsm: one step; pgd: several."""
    steps: int = 10
    """Steps of PGD."""
    seed: int = 0
    """Random seed of the start."""


def attack(network: Network, images: U8, goal: Goal, epsilon: float, config: AttackConfig) -> U8:
    """Change images (B, H, W, 3) uint8 BGR by at most `epsilon` grey levels each value.

    Args:
        network: in evaluation mode; its weights are not changed.
        images: as the network takes them, letterboxed.
        goal: make objects disappear, invent some, or break the road.
        epsilon: grey levels of 255.
        config: how to search.

    Raises:
        UserError: the network lacks the head that the goal needs.
    """
    head = "segmentation" if goal == "road" else "detection"
    if head not in network.heads:
        raise UserError(f"the network has no {head} head", f"one for the goal '{goal}'", "--goals with another goal")
    clean = torch.from_numpy(images).float()
    generator = torch.Generator().manual_seed(config.seed)
    start = (torch.rand(clean.shape, generator=generator) * 2 - 1) * epsilon
    if epsilon <= 0:
        return images.copy()
    if config.method == "noise":
        return _whole(clean + start, clean, epsilon)
    with torch.no_grad():
        gain = _gain(network, network(clean), goal)
    x = clean.clone() if config.method == "fgsm" else (clean + start).clamp(0, 255)
    steps = 1 if config.method == "fgsm" else config.steps
    # 2.5 ε / steps, as Madry et al. take: the steps can cross the whole range and back
    size = epsilon if config.method == "fgsm" else 2.5 * epsilon / steps
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(gain(network(x)), x)
        x = (x + size * gradient.sign()).detach()
        x = torch.minimum(torch.maximum(x, clean - epsilon), clean + epsilon).clamp(0, 255)
    return _whole(x, clean, epsilon)


def _gain(network: Network, before: dict[str, Any], goal: Goal) -> Callable[[dict[str, Any]], Tensor]:
    """What the attacker raises, as a function of the network's raw output; `before` is that of the clean images."""
    if goal == "road":
        label = (before["segmentation"][:, 0] > 0).float()
        return lambda raw: F.binary_cross_entropy_with_logits(raw["segmentation"][:, 0], label)
    names = [name for name in network.heads if name in ("detection", "one_to_one")]  # either may be deployed
    if goal == "disappear":
        sure = {name: before[name].class_logits.sigmoid() >= SURE for name in names}
        return lambda raw: (
            -torch.stack([F.softplus(raw[name].class_logits)[sure[name]].sum() for name in names]).sum()
        )

    def invented(raw: dict[str, Any]) -> Tensor:
        parts = []
        for name in names:
            background = before[name].class_logits.sigmoid().amax(dim=2) < SURE  # (B, A)
            best = raw[name].class_logits.amax(dim=2).masked_fill(~background, -1e4)
            parts.append(F.logsigmoid(best.topk(min(INVENTED, best.shape[1]), dim=1).values).sum())
        return torch.stack(parts).sum()

    return invented


def _whole(x: Tensor, clean: Tensor, epsilon: float) -> U8:
    """Round to whole grey levels, still within `epsilon` of the clean image."""
    change = torch.trunc((x - clean).clamp(-epsilon, epsilon) + torch.sign(x - clean) * 0.5)
    change = change.clamp(-int(epsilon), int(epsilon))
    return np.asarray((clean + change).clamp(0, 255).to(torch.uint8).numpy(), np.uint8)
