"""Distillation from a larger network of this project: localization distillation (LD, Zheng et al., CVPR 2022).

Both networks run on the same images. The student is trained on the teacher's class probabilities at all points, and
on its softened distributions over box sides where the teacher detects an object. The paper selects points by label
assignment. Here the teacher's score weights them, so that frames without labels can be used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

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
    temperature: float = 10.0
    """Temperature of both distributions over a box side, as in the paper."""
    least_score: float = 0.05
    """Teacher score from which a point is used in the box loss."""

    def __post_init__(self) -> None:
        check_ranges(self, class_weight=(0, math.inf), box_weight=(0, math.inf), temperature=(0.1, 1000))
        check_ranges(self, least_score=(0, 1))


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
    def outputs(self, images: Tensor) -> RawDetections:
        """Return the teacher's outputs for images (B, H, W, 3) uint8."""
        return self.network(images)["detection"]

    def losses(self, student: RawDetections, teacher: RawDetections) -> dict[str, Tensor]:
        """Return the losses `distill_class` and `distill_box` of a batch."""
        return distillation_losses(student, teacher, self.config)


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
