"""The network: one backbone, one neck, two heads; and the same network as the exported graph.

A third head may be trained beside the first: one point for each object, so that its boxes need no suppression
(one-to-one head of YOLOv10, Wang et al. 2024). Both use the same matching metric; the one-to-one head learns on
features that it does not shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from perception.errors import UserError
from perception.types import CLASS_NAMES
from training.models.backbone import Backbone
from training.models.heads.detection import STRIDES as HEAD_STRIDES
from training.models.heads.detection import DetectionConfig, DetectionHead, DetectionTargets, RawDetections
from training.models.heads.segmentation import SegmentationConfig, SegmentationHead
from training.models.neck import PanNeck
from training.ranges import check_ranges

SIZE_MULTIPLE = 32
"""Input height and width are multiples of the coarsest stride."""

# ImageNet statistics, RGB 0..255, as torchvision's weights expect them
_MEAN_RGB = (123.675, 116.28, 103.53)
_STD_RGB = (58.395, 57.12, 57.375)

OUTPUTS = ("boxes_xyxy", "scores", "class_ids", "road")
"""Of every exported graph; optional ones follow, see `Network.output_names`."""
ONE_TO_ONE = "one_"
"""Before the names of the one-to-one head's losses."""
_TASKS = (("class", "box", "bins"), ("distance",), ("road",), ("semantic",))
"""Losses that share a learnt weight."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network."""

    backbone: str = "mobilenet_v3_small"
    """torchvision's name."""
    pretrained: bool = False
    """Start from torchvision's ImageNet weights."""
    backbone_weights: Path | None = None
    """Start from this file instead: a state dict of the same torchvision network, whole or its features alone."""
    channels: int = 80
    """Width of neck and detection head."""
    class_names: tuple[str, ...] = CLASS_NAMES
    """What is detected, in the order of the exported file: some or all of the classes that the data sets label."""
    one_to_one: bool = False
    """Train a second detection head that gives each object one box, and deploy that one: no suppression."""
    dropout: float = 0.0
    """Share of the neck's channels that are blanked in training."""
    task_weights: Literal["fixed", "uncertainty"] = "fixed"
    """As the heads' configs say, or times a factor learnt for each task (Kendall et al. 2018)."""
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)

    def __post_init__(self) -> None:
        check_ranges(self, dropout=(0, 0.99), channels=(1, float("inf")))
        weights = self.detection.class_weights
        if weights and len(weights) != len(self.class_names):
            raise UserError(f"{len(weights)} class_weights", f"one for each of {' '.join(self.class_names)}")
        if self.task_weights not in ("fixed", "uncertainty"):
            raise UserError(f"task_weights {self.task_weights!r}", "'fixed' or 'uncertainty'")


def check_size(size_hw: tuple[int, int]) -> None:
    """Raise where a size does not divide into the network's strides."""
    if any(side < SIZE_MULTIPLE or side % SIZE_MULTIPLE for side in size_hw):
        near = tuple(max(1, round(side / SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in size_hw)
        raise UserError(
            f"network size {size_hw[0]}x{size_hw[1]}",
            f"height and width that are multiples of {SIZE_MULTIPLE}",
            f"{near[0]}x{near[1]}",
        )


def check_top_k(config: ModelConfig, size_hw: tuple[int, int]) -> None:
    """Raise where more boxes are to leave the graph than an input of that size can hold."""
    places = len(config.class_names) * sum((size_hw[0] // s) * (size_hw[1] // s) for s in HEAD_STRIDES)
    if config.detection.top_k > places:
        raise UserError(
            f"{config.detection.top_k} boxes (top_k) of an input of {size_hw[0]}x{size_hw[1]}",
            f"at most {places}, one a point and class",
            "a larger input, or a smaller --model.detection.top-k",
        )


@dataclass(frozen=True)
class RawOutputs:
    """What the heads say before decode."""

    detections: RawDetections
    """Of the main head, which several points may teach one object."""
    single: RawDetections | None
    """Of the one-to-one head; None without one."""
    mask_logits: Tensor
    """(B, 3, H/4, W/4)."""


class Network(nn.Module):
    """Camera pixels in, raw outputs out. Colour order and normalisation are part of the network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.pretrained, config.backbone_weights)
        c2, c3, c4, c5 = self.backbone.channels
        self.neck = PanNeck((c3, c4, c5), config.channels)
        self.detection = DetectionHead(config.channels, len(config.class_names), config.detection)
        self.single: DetectionHead | None = None
        if config.one_to_one:
            alone = replace(config.detection, assign_top=1, nms_rounds=0)
            self.single = DetectionHead(config.channels, len(config.class_names), alone)
        self.segmentation = SegmentationHead(c2, config.channels, config.segmentation)
        self.dropout = nn.Dropout2d(config.dropout)
        learnt = config.task_weights == "uncertainty"
        self.log_variances = nn.Parameter(torch.zeros(len(_TASKS))) if learnt else None  # one dimension: no decay
        self.register_buffer("mean", torch.tensor(_MEAN_RGB[::-1]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD_RGB[::-1]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> RawOutputs:
        """(B, H, W, 3) uint8 BGR → raw outputs."""
        x = images.permute(0, 3, 1, 2).to(self.mean.dtype)
        x = ((x - self.mean) / self.std).flip(1)  # BGR statistics, then RGB order for the backbone
        if x.is_cpu and not torch.onnx.is_in_onnx_export():
            x = x.contiguous(memory_format=torch.channels_last)
        c2, c3, c4, c5 = self.backbone(x)
        features = [self.dropout(feature) for feature in self.neck([c3, c4, c5])]
        single = self.single([feature.detach() for feature in features]) if self.single is not None else None
        return RawOutputs(self.detection(features), single, self.segmentation(c2, features).float())

    def deployed_head(self, one_to_one: bool | None = None) -> DetectionHead:
        """The head whose boxes leave the graph: the one-to-one head where there is one, unless told otherwise.

        Raises:
            UserError: a one-to-one head is asked for and was not trained.
        """
        if one_to_one and self.single is None:
            raise UserError(
                "this network has no one-to-one head", "a run with --model.one-to-one", "leave --one-to-one out"
            )
        return self.detection if self.single is None or one_to_one is False else self.single

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of the exported graph."""
        return (*OUTPUTS, "distances") if self.config.detection.distance else OUTPUTS

    def loss(
        self, outputs: RawOutputs, targets: DetectionTargets, masks: Tensor, size_hw: tuple[int, int]
    ) -> dict[str, Tensor]:
        """All losses by name, weighted; their sum is what is minimised."""
        losses = {
            **self.detection.loss(outputs.detections, targets, size_hw),
            **self.segmentation.loss(outputs.mask_logits, masks),
        }
        if self.single is not None and outputs.single is not None:
            alone = self.single.loss(outputs.single, targets, size_hw)
            losses |= {ONE_TO_ONE + name: value for name, value in alone.items()}
        return losses if self.log_variances is None else weigh(losses, self.log_variances)


def weigh(losses: dict[str, Tensor], log_variances: Tensor) -> dict[str, Tensor]:
    """Losses under learnt weights, and `task_weights`, the price of low ones.

    A task with loss L and variance e^s costs L·e^-s + s (Kendall et al. 2018): a task that is hard to get right is
    allowed to count less. A task without a label in this batch leaves its weight alone.
    """
    weighed, price = dict(losses), torch.zeros_like(log_variances[0])
    for s, names in zip(log_variances, _TASKS, strict=True):
        members = [name for name in losses if name.removeprefix(ONE_TO_ONE) in names]
        present = sum((losses[name].detach().abs() for name in members), torch.zeros_like(price)) > 0
        for name in members:
            weighed[name] = losses[name] * (-s).exp()
        price = price + s * present
    return {**weighed, "task_weights": price}


class DeployedNetwork(nn.Module):
    """The network with decode: exactly the graph that is exported.

    Args:
        network: its weights are shared, not copied.
        size_hw: of the input.
        one_to_one: which head's boxes leave the graph, see `Network.deployed_head`.
    """

    def __init__(self, network: Network, size_hw: tuple[int, int], one_to_one: bool | None = None) -> None:
        super().__init__()
        check_size(size_hw)
        check_top_k(network.config, size_hw)
        self.network, self.size_hw = network, size_hw
        self.head = network.deployed_head(one_to_one)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, 3) uint8 BGR → boxes_xyxy (B, K, 4), scores (B, K), class_ids (B, K), road (B, H/4, W/4).

        With a distance head also distances (B, K, 2), see `DetectionHead.decode`.
        """
        raw = self.network(images)
        chosen = raw.single if self.head is self.network.single else raw.detections
        boxes, scores, class_ids, *distances = self.head.decode(chosen, self.size_hw)
        return boxes, scores, class_ids, self.network.segmentation.decode(raw.mask_logits), *distances
