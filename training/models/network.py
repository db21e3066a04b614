"""The network: one backbone, one neck, two heads; and the same network as the exported graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from perception.errors import UserError
from perception.types import CLASS_NAMES
from training.models.backbone import Backbone
from training.models.heads.detection import DetectionConfig, DetectionHead, DetectionTargets
from training.models.heads.segmentation import SegmentationConfig, SegmentationHead
from training.models.neck import PanNeck

SIZE_MULTIPLE = 32
"""Input height and width are multiples of the coarsest stride."""

# ImageNet statistics, RGB 0..255, as torchvision's weights expect them
_MEAN_RGB = (123.675, 116.28, 103.53)
_STD_RGB = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network."""

    backbone: str = "mobilenet_v3_small"
    """torchvision's name."""
    pretrained: bool = False
    """Start from torchvision's ImageNet weights."""
    channels: int = 80
    """Width of neck and detection head."""
    class_names: tuple[str, ...] = CLASS_NAMES
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)


def check_size(size_hw: tuple[int, int]) -> None:
    """Raise where a size does not divide into the network's strides."""
    if any(side < SIZE_MULTIPLE or side % SIZE_MULTIPLE for side in size_hw):
        near = tuple(max(1, round(side / SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in size_hw)
        raise UserError(
            f"network size {size_hw[0]}x{size_hw[1]}",
            f"height and width that are multiples of {SIZE_MULTIPLE}",
            f"{near[0]}x{near[1]}",
        )


@dataclass(frozen=True)
class RawOutputs:
    """What the heads say before decode."""

    class_logits: Tensor
    """(B, A, C)."""
    bin_logits: Tensor
    """(B, A, 4·bins)."""
    mask_logits: Tensor
    """(B, 3, H/4, W/4)."""


class Network(nn.Module):
    """Camera pixels in, raw outputs out. Colour order and normalisation are part of the network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.pretrained)
        c2, c3, c4, c5 = self.backbone.channels
        self.neck = PanNeck((c3, c4, c5), config.channels)
        self.detection = DetectionHead(config.channels, len(config.class_names), config.detection)
        self.segmentation = SegmentationHead(c2, config.channels, config.segmentation)
        self.register_buffer("mean", torch.tensor(_MEAN_RGB[::-1]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD_RGB[::-1]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> RawOutputs:
        """(B, H, W, 3) uint8 BGR → raw outputs."""
        x = images.permute(0, 3, 1, 2).to(self.mean.dtype)
        x = ((x - self.mean) / self.std).flip(1)  # BGR statistics, then RGB order for the backbone
        if x.is_cpu and not torch.onnx.is_in_onnx_export():
            x = x.contiguous(memory_format=torch.channels_last)
        c2, c3, c4, c5 = self.backbone(x)
        features = self.neck([c3, c4, c5])
        class_logits, bin_logits = self.detection(features)
        return RawOutputs(class_logits.float(), bin_logits.float(), self.segmentation(c2, features).float())

    def loss(
        self, outputs: RawOutputs, targets: DetectionTargets, masks: Tensor, size_hw: tuple[int, int]
    ) -> dict[str, Tensor]:
        """All losses by name, weighted; their sum is what is minimised."""
        return {
            **self.detection.loss(outputs.class_logits, outputs.bin_logits, targets, size_hw),
            **self.segmentation.loss(outputs.mask_logits, masks),
        }


class DeployedNetwork(nn.Module):
    """The network with decode: exactly the graph that is exported."""

    def __init__(self, network: Network, size_hw: tuple[int, int]) -> None:
        super().__init__()
        check_size(size_hw)
        self.network, self.size_hw = network, size_hw

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, H, W, 3) uint8 BGR → boxes_xyxy (B, K, 4), scores (B, K), class_ids (B, K), road (B, H/4, W/4)."""
        raw = self.network(images)
        boxes, scores, class_ids = self.network.detection.decode(raw.class_logits, raw.bin_logits, self.size_hw)
        return boxes, scores, class_ids, self.network.segmentation.decode(raw.mask_logits)
