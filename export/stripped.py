"""The network as it is exported, without the parts that its outputs do not need.

The export is verified against `training.models.network.DeployedNetwork`. The differences:

- The scale and colour order of the pixels are folded into the first convolution. The mean is subtracted outside,
  because in the bias it would change the zero padding, which stands for the mean colour.
- Each head computes its outputs by `Head.deploy`, and `Head.strip` removes its parts for training.
- The mean over a whole map is computed in two steps, because a long fp32 sum loses digits where an image is mostly
  padding.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.head import Features
from training.models.network import Network


class StrippedNetwork(nn.Module):
    """A network with the inputs and outputs of `DeployedNetwork`, from a copy of the network's weights.

    Args:
        network: network in evaluation mode; not changed.
        size_hw: height and width of the input.
        one_to_one: heads whose outputs the graph returns, see `Network.deployed_heads`.

    Raises:
        UserError: the strides do not divide the size, or a head does not support it.
    """

    def __init__(self, network: Network, size_hw: tuple[int, int], one_to_one: bool | None = None) -> None:
        super().__init__()
        network.config.check_size(size_hw)
        self.network, self.size_hw = copy.deepcopy(network).eval().to("cpu"), size_hw
        self.deployed = tuple(self.network.deployed_heads(one_to_one))
        fold_pixels(self.network)
        for head in self.deployed:
            head.strip()
        mean_in_two_steps(self.network)
        self.register_buffer("mean", self.network.mean.clone(), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of `Network.output_names`, in that order, for images (B, H, W, 3) uint8 BGR."""
        network = self.network
        # cast first, because TensorRT accepts uint8 only in a cast (NVIDIA/TensorRT#3985)
        x = images.float().permute(0, 3, 1, 2) - self.mean
        c2, c3, c4, c5 = network.backbone(x)
        features = Features(c2, network.neck([c3, c4, c5]))
        outputs = dict[str, Tensor]()
        for head in self.deployed:
            outputs |= zip(head.outputs, head.deploy(features, self.size_hw), strict=True)
        return network.in_order(outputs)


def fold_pixels(network: Network) -> None:
    """Fold 1/std and the conversion from BGR to RGB into the first convolution, in place.

    The input of the network is then (pixel − mean) in BGR order.
    """
    first = next(module for module in network.backbone.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1) / network.std)  # (O, 3, k, k), std (1, 3, 1, 1) BGR


class TwoStepMean(nn.Module):
    """Mean over height and width, (B, C, H, W) → (B, C, 1, 1), over blocks first where they divide the map.

    In a 1152×640 input that is half padding, a single mean of 46,080 nearly equal numbers in ONNX Runtime moves boxes
    by 0.07 px.
    """

    BLOCK = 8

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] % self.BLOCK == 0 and x.shape[-1] % self.BLOCK == 0:
            x = F.avg_pool2d(x, self.BLOCK)
        return F.adaptive_avg_pool2d(x, 1)


def mean_in_two_steps(network: Network) -> None:
    """Replace the pooling of the backbone's squeeze-and-excitation blocks, in place."""
    for module in list(network.backbone.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(module, name, TwoStepMean())
