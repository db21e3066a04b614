"""Distillation from a larger network of this project: localization distillation (LD, Zheng et al., CVPR 2022).

Both networks run on the same images. The student is trained on the teacher's class probabilities at all points, and
on its softened distributions over box sides where the teacher detects an object. The paper selects points by label
assignment. Here the teacher's score weights them, so that frames without labels can be used. Where both networks have
a road head, the student is also trained on the teacher's road, in every image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.errors import UserError
from training.distributed import sum_over_ranks
from training.models.heads.detection import RawDetections
from training.models.network import Network
from training.ranges import check_ranges


@dataclass(frozen=True)
class DistillConfig:
    """Distillation from a larger network of this project."""

    network: Path | None = None
    """Checkpoint of the teacher. It needs the same classes and bins; its backbone and width may differ."""
    class_weight: float = 1.0
    """Weight of the class loss."""
    box_weight: float = 0.25
    """Weight of the box loss, as in the paper."""
    road_weight: float = 1.0
    """Weight of the road loss."""
    temperature: float = 10.0
    """Temperature of both distributions over a box side, as in the paper."""
    least_score: float = 0.05
    """Teacher score from which a point is used in the box loss."""

    def __post_init__(self) -> None:
        check_ranges(self, **dict.fromkeys(("class_weight", "box_weight", "road_weight"), (0, math.inf)))
        check_ranges(self, temperature=(0.1, 1000), least_score=(0, 1))


class Distiller:
    """Adds the distillation losses of a teacher network to a step.

    Args:
        config: weights of the losses.
        teacher: larger network; not trained.
        student: network that is trained.

    Raises:
        UserError: the networks differ in classes or bins, or one has no detection head.
    """

    def __init__(self, config: DistillConfig, teacher: Network, student: Network) -> None:
        self.config = config
        theirs, ours = teacher.config, student.config
        for name, a, b in (
            ("classes", theirs.class_names, ours.class_names),
            ("bins", theirs.detection.bins, ours.detection.bins),
        ):
            if a != b:
                raise UserError(f"{config.network}: {name} {a}", f"{b}, as in the student")
        if "detection" not in theirs.heads or "detection" not in ours.heads:
            raise UserError(
                f"distillation from heads {' '.join(theirs.heads)} into heads {' '.join(ours.heads)}",
                "the detection head in both",
                "--model.heads detection segmentation",
            )
        device = next(student.parameters()).device
        self.network = teacher.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)

    @torch.no_grad()
    def outputs(self, images: Tensor) -> dict[str, Any]:
        """Return the teacher's outputs by head for images (B, H, W, 3) uint8."""
        return self.network(images)

    def losses(self, student: Mapping[str, Any], teacher: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses `distill_class` and `distill_box` of a batch, and `distill_road` of two road heads."""
        losses = distillation_losses(student["detection"], teacher["detection"], self.config)
        if "segmentation" in student and "segmentation" in teacher:
            losses["distill_road"] = self.config.road_weight * road_loss(
                student["segmentation"][:, 0], teacher["segmentation"][:, 0]
            )
        return losses


def road_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean divergence of road logits (B, h, w) from a teacher's over all pixels; 0 where equal."""
    wanted = teacher.sigmoid()
    cross = F.binary_cross_entropy_with_logits(student, wanted, reduction="sum")
    least = F.binary_cross_entropy_with_logits(teacher, wanted, reduction="sum")
    pixels = sum_over_ranks(torch.full_like(cross, student.numel()))
    return sum_over_ranks(cross - least) / pixels


def distillation_losses(student: RawDetections, teacher: RawDetections, config: DistillConfig) -> dict[str, Tensor]:
    """Return `distill_class` and `distill_box`, weighted; both are 0 where the student equals the teacher.

    Args:
        student: raw outputs of the student.
        teacher: raw outputs of the teacher for the same images, without gradient.
        config: weights and temperature.
    """
    wanted = teacher.class_logits.sigmoid()  # (B, A, C)
    best = wanted.amax(-1)  # (B, A)
    normaliser = sum_over_ranks(best.sum()).clamp(min=1.0)
    cross = F.binary_cross_entropy_with_logits(student.class_logits, wanted, reduction="sum")
    least = F.binary_cross_entropy_with_logits(teacher.class_logits, wanted, reduction="sum")
    losses = {"distill_class": config.class_weight * sum_over_ranks(cross - least) / normaliser}

    places = best >= config.least_score
    bins = teacher.bin_logits.shape[-1] // 4
    target = teacher.bin_logits[places].unflatten(-1, (4, bins)) / config.temperature  # (P, 4, bins)
    got = student.bin_logits[places].unflatten(-1, (4, bins)) / config.temperature
    divergence = F.kl_div(got.log_softmax(-1), target.log_softmax(-1), reduction="none", log_target=True)
    box = (divergence.sum((-1, -2)) * best[places]).sum() * config.temperature**2
    losses["distill_box"] = config.box_weight * sum_over_ranks(box) / normaliser
    return losses
