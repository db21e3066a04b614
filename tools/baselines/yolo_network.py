"""A network of YOLOX-nano's class, for comparison only: our own writing of what papers describe, no foreign weights.

Sources: YOLOX (Ge et al. 2021: decoupled head with objectness, SimOTA; depth 0.33, width 0.25, depthwise layers);
cross-stage partial blocks, CSPNet (Wang et al. 2020); SPP as in YOLOv4 (Bochkovskiy et al. 2020); path aggregation by
concatenation, PANet (Liu et al. 2018). With COCO's 80 classes it has 0.91 M parameters and 1.05 GFLOPs at 416×416
(theirs: 0.91 M, 1.08); with our three 0.90 M and 2.8 GFLOPs at 1248×384.

It stands where our `Network` stands: same pixels in, same grid points, same suppression, same trainer. Two things
differ from the papers. Our images label different classes, so objectness is taught as "nothing here" only where
every class is judged; elsewhere the product of objectness and class is, for each class that is judged. The L1 loss
of YOLOX's last epochs is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data import Batch
from training.distributed import sum_over_ranks
from training.models.head import Features, Head, SizeHW
from training.models.heads.detection import (
    DetectionConfig,
    DetectionHead,
    DetectionTargets,
    RawDetections,
    class_loss_weight,
    grid_points,
    pairwise_iou,
)
from training.models.heads.segmentation import STRIDE
from training.models.network import ModelConfig, Network

WIDTH = 16
"""Channels of the stem: 64 × 0.25. Every further stage has twice as many."""
DEPTHS = (1, 3, 3, 1)
"""Bottlenecks of the stages at strides 4, 8, 16, 32: (3, 9, 9, 3) × 0.33."""
CENTRE_RADIUS = 2.5
"""Strides around an object's centre within which a point may learn it."""
MOST_POINTS = 10
"""Points that learn from one object, at most."""
IOU_COST, OUTSIDE_COST = 3.0, 1e5
BOX_WEIGHT = 5.0


def conv(channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, SiLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out, eps=1e-3, momentum=0.03),
        nn.SiLU(inplace=True),
    )


def depthwise(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """3×3 of each channel by itself, then 1×1."""
    return nn.Sequential(conv(channels_in, channels_in, 3, stride, channels_in), conv(channels_in, channels_out))


class Bottleneck(nn.Module):
    """1×1 and depthwise 3×3, added to what came in."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels), depthwise(channels, channels))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


class CspBlock(nn.Module):
    """Half the channels go through the bottlenecks, half pass by, both are joined."""

    def __init__(self, channels_in: int, channels_out: int, depth: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        half = channels_out // 2
        self.through, self.past = conv(channels_in, half), conv(channels_in, half)
        self.body = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(depth)))
        self.join = conv(2 * half, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.body(self.through(x)), self.past(x)], 1))


class SpatialPyramid(nn.Module):
    """What lies around each place at four scales: max pooling over 5, 9 and 13 cells beside the map itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = conv(channels, channels // 2)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.join = conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return self.join(torch.cat([x, *(pool(x) for pool in self.pools)], 1))


class CspDarknet(nn.Module):
    """Maps at strides 4, 8, 16 and 32."""

    loaded = ""
    """It starts from random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = tuple(WIDTH * 2**k for k in (1, 2, 3, 4))
        self.stem = conv(12, WIDTH, 3)
        stages = []
        for k, (channels, depth) in enumerate(zip(self.channels, DEPTHS, strict=True)):
            last = k == len(DEPTHS) - 1
            stages.append(
                nn.Sequential(
                    depthwise(channels // 2, channels, stride=2),
                    *([SpatialPyramid(channels)] if last else []),
                    CspBlock(channels, channels, depth, shortcut=not last),
                )
            )
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) → four maps (B, C, H/s, W/s)."""
        x = self.stem(F.pixel_unshuffle(x, 2))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class PathAggregation(nn.Module):
    """Coarse maps inform fine ones, then back; maps are concatenated."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        c3, c4, c5 = channels
        self.reduce5, self.reduce4 = conv(c5, c4), conv(c4, c3)
        self.down4, self.down3 = CspBlock(2 * c4, c4, shortcut=False), CspBlock(2 * c3, c3, shortcut=False)
        self.stride3, self.stride4 = depthwise(c3, c3, stride=2), depthwise(c4, c4, stride=2)
        self.up4, self.up5 = CspBlock(2 * c3, c4, shortcut=False), CspBlock(2 * c4, c5, shortcut=False)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Three maps, fine to coarse → three maps of the same shapes."""
        c3, c4, c5 = features
        r5 = self.reduce5(c5)
        r4 = self.reduce4(self.down4(torch.cat([F.interpolate(r5, scale_factor=2.0), c4], 1)))
        n3 = self.down3(torch.cat([F.interpolate(r4, scale_factor=2.0), c3], 1))
        n4 = self.up4(torch.cat([self.stride3(n3), r4], 1))
        return [n3, n4, self.up5(torch.cat([self.stride4(n4), r5], 1))]


@dataclass(frozen=True, kw_only=True)
class YoloRaw(RawDetections):
    """`class_logits` are those of objectness times class; `bin_logits` (B, A, 4) centre and log size in strides."""

    objectness: Tensor
    """(B, A) logits."""
    alone: Tensor
    """(B, A, C) logits of the class of what is there."""


class YoloHead(DetectionHead):
    """Decoupled, with its own weights at every level. `decode` is inherited."""

    def __init__(self, channels_in: tuple[int, ...], class_count: int, config: DetectionConfig) -> None:
        nn.Module.__init__(self)
        self.config, self.class_count = config, class_count
        channels = 4 * WIDTH
        branch = [nn.Sequential(depthwise(channels, channels), depthwise(channels, channels)) for _ in range(6)]
        self.stems = nn.ModuleList(conv(c, channels) for c in channels_in)
        self.class_branches, self.box_branches = nn.ModuleList(branch[:3]), nn.ModuleList(branch[3:])
        self.class_outs = nn.ModuleList(nn.Conv2d(channels, class_count, 1) for _ in channels_in)
        self.box_outs = nn.ModuleList(nn.Conv2d(channels, 5, 1) for _ in channels_in)  # four numbers, objectness
        rare = -math.log(99.0)  # start from one object in a hundred points
        for class_out, box_out in zip(self.class_outs, self.box_outs, strict=True):
            nn.init.constant_(class_out.bias, rare)  # type: ignore[arg-type]
            nn.init.constant_(box_out.bias[4:], rare)  # type: ignore[index]

    def forward(self, features: Features) -> YoloRaw:
        """Return the logits of all points."""
        classes, boxes = [], []
        for k, feature in enumerate(features.levels):
            x = self.stems[k](feature)
            classes.append(self.class_outs[k](self.class_branches[k](x)).flatten(2).transpose(1, 2))
            boxes.append(self.box_outs[k](self.box_branches[k](x)).flatten(2).transpose(1, 2))
        alone, box = torch.cat(classes, 1).float(), torch.cat(boxes, 1).float()
        objectness = box[..., 4]
        return YoloRaw(joint_logits(objectness, alone), box[..., :4], None, objectness=objectness, alone=alone)

    def deploy(self, features: Features, size_hw: SizeHW) -> tuple[Tensor, ...]:
        """Return the outputs from the logits of all points: levels share no layer that could run at a few."""
        return self.decode(self(features), size_hw)

    def boxes(self, bin_logits: Tensor, points: Tensor, strides: Tensor) -> Tensor:
        """Numbers (…, A, 4), points (…, A, 2) and strides (…, A, 1) in pixels → boxes (…, A, 4)."""
        centre = points + (bin_logits[..., :2] - 0.5) * strides  # from the corner of the cell
        half = bin_logits[..., 2:].clamp(max=8.0).exp() * strides / 2
        return torch.cat([centre - half, centre + half], -1)

    def loss(self, raw: RawDetections, targets: DetectionTargets, size_hw: SizeHW) -> dict[str, Tensor]:
        """Losses `class`, `box` and `objectness`, over the number of points that learn an object."""
        assert isinstance(raw, YoloRaw)
        points, strides = grid_points(size_hw, raw.objectness.device)
        boxes = self.boxes(raw.bin_logits, points, strides)  # (B, A, 4)
        owner = sim_ota(raw.class_logits.detach(), boxes.detach(), points, strides, targets)
        positive = owner >= 0  # (B, A)
        batch, point = positive.nonzero(as_tuple=True)
        wanted = targets.boxes_xyxy[batch, owner[batch, point]]
        overlap = pairwise_iou(boxes[batch, point][:, None], wanted[:, None])[:, 0, 0]  # (P,)
        class_targets = torch.zeros_like(raw.alone)
        class_targets[batch, point, targets.class_ids[batch, owner[batch, point]]] = overlap.detach().clamp(min=1e-6)
        judged = class_loss_weight(points, class_targets, targets)  # (B, A, C)
        class_loss = F.binary_cross_entropy_with_logits(
            raw.alone[batch, point], class_targets[batch, point], judged[batch, point], reduction="sum"
        )
        everything_judged = judged.bool().all(-1)  # (B, A)
        objectness = F.binary_cross_entropy_with_logits(
            raw.objectness, positive.float(), (positive | everything_judged).float(), reduction="sum"
        )
        rest = judged * ~(positive | everything_judged)[..., None]
        rest_loss = (F.softplus(raw.class_logits) * rest).sum()
        sums = torch.stack(
            [class_loss, BOX_WEIGHT * (1 - overlap.square()).sum(), objectness + rest_loss, positive.sum().float()]
        )
        sums = sum_over_ranks(sums)
        class_mean, box_mean, objectness_mean = sums[:3] / sums[3].detach().clamp(min=1.0)
        return {"class": class_mean, "box": box_mean, "objectness": objectness_mean}


def joint_logits(objectness: Tensor, alone: Tensor) -> Tensor:
    """Logits (B, A), (B, A, C) of two probabilities → logits (B, A, C) of their product."""
    objectness, alone = torch.broadcast_tensors(objectness[..., None], alone)
    return -torch.logsumexp(torch.stack([-objectness, -alone, -objectness - alone]), 0)


@torch.no_grad()
def sim_ota(joint: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, targets: DetectionTargets) -> Tensor:
    """SimOTA: each object takes the points that are cheapest for it, as many as its best overlaps add up to.

    Args:
        joint: (B, A, C) logits of objectness times class.
        boxes: (B, A, 4) decoded.

    Returns:
        (B, A) index of the object each point learns, -1 for none.
    """
    truth, real = targets.boxes_xyxy, targets.class_ids >= 0  # (B, G, 4), (B, G)
    if truth.shape[1] == 0:
        return torch.full(joint.shape[:2], -1, device=joint.device)
    at = points[None, None]  # (1, 1, A, 2)
    inside = ((at > truth[:, :, None, :2]) & (at < truth[:, :, None, 2:])).all(-1)  # (B, G, A)
    centre = (truth[..., :2] + truth[..., 2:]) / 2
    near = ((at - centre[:, :, None]).abs() < CENTRE_RADIUS * strides).all(-1)  # (B, G, A)
    candidate = (inside | near) & real[..., None]
    overlap = pairwise_iou(truth, boxes) * candidate  # (B, G, A)
    chance = joint.sigmoid().sqrt().clamp(1e-6, 1 - 1e-6)  # (B, A, C)
    yes, no = -chance.log(), -torch.log1p(-chance)
    class_ids = targets.class_ids.clamp(min=0)[..., None].expand(-1, -1, joint.shape[1])  # (B, G, A)
    class_cost = no.sum(-1)[:, None] + (yes - no).transpose(1, 2).gather(1, class_ids)
    cost = class_cost - IOU_COST * (overlap + 1e-8).log() + OUTSIDE_COST * ~(inside & near)
    cost = cost.masked_fill(~candidate, math.inf)
    most = min(MOST_POINTS, cost.shape[-1])
    count = overlap.topk(most).values.sum(-1).int().clamp(min=1)  # (B, G)
    cheapest, index = cost.topk(most, largest=False)  # sorted
    taken = (torch.arange(most, device=cost.device) < count[..., None]) & cheapest.isfinite()
    chosen = torch.zeros_like(candidate).scatter(-1, index, taken)
    least, owner = cost.masked_fill(~chosen, math.inf).min(1)  # (B, A): a disputed point goes where it costs least
    return torch.where(least.isfinite(), owner, torch.full_like(owner, -1))


class NoRoad(Head[Tensor, None]):
    """Takes the place of the road head: it outputs no road anywhere and learns nothing."""

    outputs = ("road",)

    def forward(self, features: Features) -> Tensor:
        """Return zeros (B, H/4, W/4)."""
        return features.stride4.new_zeros(len(features.stride4), *features.stride4.shape[2:])

    def targets(self, batch: Batch) -> None:
        """Return nothing."""

    def loss(self, raw: Tensor, targets: None, size_hw: SizeHW) -> dict[str, Tensor]:
        """Return no loss."""
        return {}

    def decode(self, raw: Tensor, size_hw: SizeHW) -> tuple[Tensor, ...]:
        """Return no road anywhere."""
        return (raw.to(torch.uint8),)


class YoloNano(Network):
    """The whole network. Of the config, class names and suppression count."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(
            replace(config, pretrained=False, backbone_weights=None, one_to_one=False, task_weights="fixed")
        )
        self.backbone = CspDarknet()  # type: ignore[assignment]
        c3, c4, c5 = self.backbone.channels[1:]
        self.neck = PathAggregation((c3, c4, c5))  # type: ignore[assignment]
        self.detection = YoloHead((c3, c4, c5), len(config.class_names), config.detection)
        self.segmentation = NoRoad()  # type: ignore[assignment]


assert STRIDE == 4, "NoRoad takes the size of its maps from stride 4"
