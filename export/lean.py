"""The network with nothing in it that its outputs do not need: what is written to the file.

`training.models.network.DeployedNetwork` is the reference; the export is compared with it. Here

- scale and colour order of the pixels are folded into the first convolution. Its padding stays zero, which means
  the mean colour on both sides, so borders are exact. The mean cannot go into the bias: padding would change.
- box distances are computed for the chosen points alone, not for all of them;
- the mask channels that exist for training are left out;
- means over a whole map are taken in two steps: one long sum in fp32 loses digits where a picture is mostly padding.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.errors import UserError
from training.models.heads.detection import STRIDES
from training.models.network import Network, check_size


class LeanNetwork(nn.Module):
    """Same inputs and outputs as `DeployedNetwork`, from a copy of the network's weights.

    Args:
        network: in evaluation mode; left as it is.
        size_hw: height and width of the input.
        one_to_one: which head's boxes leave the graph, see `Network.deployed_head`.

    Raises:
        UserError: a size that the strides do not divide.
    """

    def __init__(self, network: Network, size_hw: tuple[int, int], one_to_one: bool | None = None) -> None:
        super().__init__()
        check_size(size_hw)
        pairs = network.detection.class_count * sum((size_hw[0] // s) * (size_hw[1] // s) for s in STRIDES)
        if pairs < network.config.detection.top_k:
            raise UserError(
                f"network size {size_hw[0]}x{size_hw[1]}: {pairs} places for an object",
                f"at least the {network.config.detection.top_k} boxes that leave the graph",
                "64x64 or larger",
            )
        self.network, self.size_hw = copy.deepcopy(network).eval().to("cpu"), size_hw
        self.head = self.network.deployed_head(one_to_one)
        fold_pixels(self.network)
        keep_road_alone(self.network)
        mean_in_two_steps(self.network)
        self.register_buffer("mean", self.network.mean.clone(), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, 3) uint8 BGR → boxes_xyxy (B, K, 4), scores (B, K), class_ids (B, K), road (B, H/4, W/4).

        With a distance head also distances (B, K, 2).
        """
        network, head = self.network, self.head
        # cast first: TensorRT takes bytes into a cast alone (NVIDIA/TensorRT#3985), and here it is no slower
        x = images.float().permute(0, 3, 1, 2) - self.mean
        c2, c3, c4, c5 = network.backbone(x)
        features = network.neck([c3, c4, c5])

        logits, box_features = [], []
        for feature in features:
            x = head.stem(feature)
            logits.append(head.class_out(head.class_branch(x)).flatten(2))  # (B, C, HW)
            box_features.append(head.box_branch(x).flatten(2))  # (B, F, HW)
        scores, class_ids, point_ids = head.best(torch.cat(logits, 2).transpose(1, 2))
        points = torch.cat(box_features, 2)  # (B, F, A)
        chosen = points.gather(2, point_ids[:, None].expand(-1, points.shape[1], -1))  # (B, F, K)
        bins = _at_points(head.box_out, chosen)  # (B, K, 4·bins)
        depths = _at_points(head.depth_out, chosen) if head.depth_out is not None else None  # (B, K, 2)
        boxes, scores, class_ids, *distances = head.decode_best(
            scores, class_ids, point_ids, bins, self.size_hw, depths
        )
        road = network.segmentation.decode(network.segmentation(c2, features))
        return boxes, scores, class_ids, road, *distances


def _at_points(out: nn.Conv2d, chosen: Tensor) -> Tensor:
    """A 1×1 convolution at chosen points: features (B, F, K) → (B, K, O)."""
    return F.linear(chosen.transpose(1, 2), out.weight.flatten(1), out.bias)


def fold_pixels(network: Network) -> None:
    """Move 1/std and the step from BGR to RGB into the first convolution, in place.

    The network then takes (pixel − mean) in BGR order; `mean` stays in BGR order.
    """
    first = next(module for module in network.backbone.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1) / network.std)  # (O, 3, k, k), std (1, 3, 1, 1) BGR


def keep_road_alone(network: Network) -> None:
    """Cut the mask head's last convolution to its first channel, in place."""
    out = network.segmentation.out
    road = nn.Conv2d(out.in_channels, 1, 1)
    assert road.bias is not None and out.bias is not None
    with torch.no_grad():
        road.weight.copy_(out.weight[:1])
        road.bias.copy_(out.bias[:1])
    network.segmentation.out = road


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
