"""The network without what its outputs do not need: what is written to the file.

`training.models.network.DeployedNetwork` is the reference that the export is compared with. Here

- scale and colour order of the pixels are folded into the first convolution. Its padding stays zero, which means
  the mean colour on both sides, so borders are exact. The mean cannot go into the bias: padding would change;
- each head computes its outputs by `Head.deploy`, and loses what serves training alone by `Head.strip`;
- means over a whole map are taken in two steps: one long sum in fp32 loses digits where an image is mostly padding.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.head import Features
from training.models.network import Network


class StrippedNetwork(nn.Module):
    """Same inputs and outputs as `DeployedNetwork`, from a copy of the network's weights.

    Args:
        network: in evaluation mode; left as it is.
        size_hw: height and width of the input.
        one_to_one: which heads' outputs leave the graph, see `Network.deployed_heads`.

    Raises:
        UserError: a size that the strides do not divide, or that a head cannot serve.
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
        """(B, H, W, 3) uint8 BGR → the outputs of `Network.output_names`, in that order."""
        network = self.network
        # cast first: TensorRT takes bytes into a cast alone (NVIDIA/TensorRT#3985), and here it is no slower
        x = images.float().permute(0, 3, 1, 2) - self.mean
        c2, c3, c4, c5 = network.backbone(x)
        features = Features(c2, network.neck([c3, c4, c5]))
        outputs = dict[str, Tensor]()
        for head in self.deployed:
            outputs |= zip(head.outputs, head.deploy(features, self.size_hw), strict=True)
        return network.in_order(outputs)


def fold_pixels(network: Network) -> None:
    """Move 1/std and the step from BGR to RGB into the first convolution, in place.

    The network then takes (pixel − mean) in BGR order; `mean` stays in BGR order.
    """
    first = next(module for module in network.backbone.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1) / network.std)  # (O, 3, k, k), std (1, 3, 1, 1) BGR


class TwoStepMean(nn.Module):
    """Mean over height and width, (B, C, H, W) → (B, C, 1, 1): over blocks first, where they divide the map.

    Measured on a KITTI frame in a 1152×640 input, half of it padding: ONNX Runtime's mean of 46,080 nearly equal
    numbers moved boxes by 0.07 px.
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
