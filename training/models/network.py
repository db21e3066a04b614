"""The network: one backbone, one neck, and the heads that the config names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from perception.errors import UserError
from training.models.backbone import Backbone
from training.models.config import HEADS, SIZE_MULTIPLE, ModelConfig, check_size
from training.models.head import Features, Head
from training.models.neck import PanNeck
from training.models.widths import set_widths

if TYPE_CHECKING:
    from training.data import Batch
    from training.models.heads.detection import DetectionHead
    from training.models.heads.one_to_one import OneToOneHead
    from training.models.heads.segmentation import SegmentationHead

__all__ = ["OUTPUTS", "SIZE_MULTIPLE", "DeployedNetwork", "ModelConfig", "Network", "check_size", "weigh"]

# ImageNet statistics, RGB 0..255, as torchvision's weights expect them
MEAN_RGB = (123.675, 116.28, 103.53)
STD_RGB = (58.395, 57.12, 57.375)

OUTPUTS = ("boxes_xyxy", "scores", "class_ids", "road")
"""First outputs of an exported graph, in this order; a head's other outputs follow."""


class Network(nn.Module):
    """Maps camera pixels to the output of each head. Colour order and normalisation are part of the network."""

    if TYPE_CHECKING:  # heads are attributes under their names
        detection: DetectionHead
        one_to_one: OneToOneHead
        segmentation: SegmentationHead

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.pretrained, config.backbone_weights)
        c2, c3, c4, c5 = self.backbone.channels
        self.neck = PanNeck((c3, c4, c5), config.channels, config.channel_attention, config.encoder_layer)
        for name in config.trained_heads:
            setattr(self, name, HEADS[name].build(config, c2))
        self.dropout = nn.Dropout2d(config.dropout)
        learnt = config.task_weights == "uncertainty"
        # one-dimensional, so without weight decay
        self.log_variances = nn.Parameter(torch.zeros(len(self.tasks))) if learnt else None
        self.register_buffer("mean", torch.tensor(MEAN_RGB[::-1]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD_RGB[::-1]).view(1, 3, 1, 1), persistent=False)
        if config.widths:
            set_widths(self, config.widths)
            for head in self.heads.values():
                head.fit_channels()

    @property
    def heads(self) -> dict[str, Head[Any, Any]]:
        """Return the heads by name."""
        return {name: getattr(self, name) for name in self.config.trained_heads}

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Return the output of each head by name, for images (B, H, W, 3) uint8 BGR."""
        x = images.permute(0, 3, 1, 2).to(self.mean.dtype)
        x = ((x - self.mean) / self.std).flip(1)  # BGR statistics, then RGB order for the backbone
        if x.is_cpu and not torch.onnx.is_in_onnx_export():
            x = x.contiguous(memory_format=torch.channels_last)
        c2, c3, c4, c5 = self.backbone(x)
        features = Features(c2, [self.dropout(feature) for feature in self.neck([c3, c4, c5])])
        return {name: head(features.detach() if head.detached else features) for name, head in self.heads.items()}

    def deployed_heads(self, one_to_one: bool | None = None) -> list[Head[Any, Any]]:
        """Return the heads whose outputs the graph returns.

        Args:
            one_to_one: True: heads that replace another; False: the replaced heads; None: True where possible.

        Raises:
            UserError: it is True, and no head of the network replaces another.
        """
        heads = self.heads
        replacing = {name: head.replaces for name, head in heads.items() if head.replaces}
        if one_to_one and not replacing:
            raise UserError(
                "this network has no one-to-one head", "a run with --model.one-to-one", "leave --one-to-one out"
            )
        left_out = replacing.keys() if one_to_one is False else replacing.values()
        return [head for name, head in heads.items() if name not in left_out]

    @property
    def output_names(self) -> tuple[str, ...]:
        """Return the names of the exported graph's outputs, in order."""
        names = [name for head in self.deployed_heads() for name in head.outputs]
        return (*(name for name in OUTPUTS if name in names), *(name for name in names if name not in OUTPUTS))

    def in_order(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs in the order of `output_names`."""
        return tuple(outputs[name] for name in self.output_names)

    @property
    def tasks(self) -> tuple[tuple[str, ...], ...]:
        """Return the names of the losses that share a trained weight. A head shares with the one it replaces."""
        tasks = {name: head.tasks for name, head in self.heads.items() if not head.replaces}
        for head in self.heads.values():
            if head.replaces:
                pairs = zip(tasks[head.replaces], head.tasks, strict=True)
                tasks[head.replaces] = tuple(names + others for names, others in pairs)
        return tuple(names for of_head in tasks.values() for names in of_head)

    def loss(self, raw: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """Return the weighted losses by name; their sum is minimised."""
        size_hw = (batch.images.shape[1], batch.images.shape[2])
        losses: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            losses |= head.loss(raw[name], head.targets(batch), size_hw)
        return losses if self.log_variances is None else weigh(losses, self.log_variances, self.tasks)


def weigh(losses: dict[str, Tensor], log_variances: Tensor, tasks: tuple[tuple[str, ...], ...]) -> dict[str, Tensor]:
    """Return the losses with trained weights, and `task_weights`, the penalty of low weights.

    A task with loss L and variance e^s adds L·e^-s + s (Kendall et al. 2018), so a difficult task has a lower weight.
    A task without labels in the batch does not change its weight.
    """
    weighed, price = dict(losses), torch.zeros_like(log_variances[0])
    for s, names in zip(log_variances, tasks, strict=True):
        members = [name for name in losses if name in names]
        present = sum((losses[name].detach().abs() for name in members), torch.zeros_like(price)) > 0
        for name in members:
            weighed[name] = losses[name] * (-s).exp()
        price = price + s * present
    return {**weighed, "task_weights": price}


class DeployedNetwork(nn.Module):
    """The network with decode: the reference for the exported graph.

    Args:
        network: network, whose weights are shared.
        size_hw: height and width of the input.
        one_to_one: heads whose outputs the graph returns, see `Network.deployed_heads`.
    """

    def __init__(self, network: Network, size_hw: tuple[int, int], one_to_one: bool | None = None) -> None:
        super().__init__()
        network.config.check_size(size_hw)
        self.network, self.size_hw = network, size_hw
        deployed = network.deployed_heads(one_to_one)
        self.deployed = {name: head for name, head in network.heads.items() if head in deployed}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of `Network.output_names`, in that order, for images (B, H, W, 3) uint8 BGR."""
        raw, outputs = self.network(images), dict[str, Tensor]()
        for name, head in self.deployed.items():
            outputs |= zip(head.outputs, head.decode(raw[name], self.size_hw), strict=True)
        return self.network.in_order(outputs)
