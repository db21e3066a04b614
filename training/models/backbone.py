"""Any torchvision classification network as a backbone: features at strides 4, 8, 16 and 32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision import models

from perception.errors import UserError

STRIDES = (4, 8, 16, 32)


def _trunk(model: nn.Module, name: str) -> list[nn.Module]:
    """The network's blocks in the order they run, without its classifier."""
    if hasattr(model, "features"):  # MobileNet, EfficientNet, ConvNeXt, VGG
        blocks = list(model.features.children())
        last = blocks[-1]
        # MobileNets end in a 1×1 expansion that serves the classifier alone
        if isinstance(last, nn.Sequential) and isinstance(last[0], nn.Conv2d) and last[0].kernel_size == (1, 1):
            blocks = blocks[:-1]
        return blocks
    if hasattr(model, "trunk_output"):  # RegNet
        return [model.stem, *model.trunk_output.children()]
    if hasattr(model, "layer4"):  # ResNet
        stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
        return [stem, model.layer1, model.layer2, model.layer3, model.layer4]
    raise UserError(
        f"backbone '{name}' has no layout this project knows",
        "a torchvision MobileNet, EfficientNet, RegNet, ResNet, ConvNeXt or VGG",
        "--model.backbone mobilenet_v3_small",
    )


class Backbone(nn.Module):
    """A torchvision network cut after the last block of each stride.

    Args:
        name: torchvision's name, as `mobilenet_v3_small`.
        pretrained: load torchvision's ImageNet weights (downloads them once).

    Raises:
        UserError: unknown name, or the weights cannot be downloaded.
    """

    def __init__(self, name: str, pretrained: bool = False) -> None:
        super().__init__()
        if name not in models.list_models(models):
            import difflib

            near = difflib.get_close_matches(name, models.list_models(models), n=3)
            raise UserError(f"unknown backbone '{name}'", "a torchvision model", " or ".join(near))
        try:
            model = models.get_model(name, weights="DEFAULT" if pretrained else None)
        except OSError as error:  # URLError is one: no network, no server
            raise UserError(
                f"the ImageNet weights of {name} cannot be downloaded ({error})",
                "network access to torchvision's weights, or a copy in TORCH_HOME",
                "--model.no-pretrained trains from scratch, --init CHECKPOINT goes on from other weights",
            ) from None
        blocks = _trunk(model, name)
        stages: dict[int, list[nn.Module]] = {}
        self.channels: tuple[int, ...] = ()
        channels: dict[int, int] = {}
        was_training = [block.training for block in blocks]
        with torch.no_grad():
            x = torch.zeros(1, 3, 64, 64)
            for block in blocks:
                x = block.eval()(x)
                stride = 64 // x.shape[-1]
                # strides 1 and 2 belong to the stage that ends at 4
                stage = max(stride, STRIDES[0])
                stages.setdefault(stage, []).append(block)
                channels[stage] = x.shape[1]
        for block, training in zip(blocks, was_training, strict=True):
            block.train(training)
        if missing := [stride for stride in STRIDES if stride not in stages]:
            raise UserError(
                f"backbone '{name}' has no maps at stride {missing[0]}",
                "maps at strides 4, 8, 16 and 32, as MobileNet, EfficientNet, RegNet, ResNet, ConvNeXt and VGG have",
                "--model.backbone mobilenet_v3_small",
            )
        self.stages = nn.ModuleList(nn.Sequential(*stages[stride]) for stride in STRIDES)
        self.channels = tuple(channels[stride] for stride in STRIDES)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised → four maps (B, C, H/s, W/s), s = 4, 8, 16, 32."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
