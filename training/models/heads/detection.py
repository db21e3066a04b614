"""Anchor-free decoupled detection head: module, target assignment, losses, in-graph decode, distance and 3-D boxes.

Sources:

- Task-aligned assignment: TOOD (Feng et al. 2021).
- Distribution focal loss: GFL (Li et al. 2020).
- Complete IoU: Zheng et al. 2020. Generalised IoU: Rezatofighi et al. 2019.
- Parallel non-maximum suppression: Fast NMS of YOLACT (Bolya et al. 2019), iterated until it equals greedy NMS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.errors import FieldError, UserError
from training.distributed import sum_over_ranks
from training.models.blocks import separable_block
from training.models.cuboid import STRIDE, CuboidBranch
from training.models.head import Features, Head, HeadConfig, SizeHW
from training.ranges import check_ranges

if TYPE_CHECKING:
    from training.data import Batch
    from training.models.config import ModelConfig

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class DetectionConfig(HeadConfig):
    """Head, assignment, losses and decode."""

    bins: int = 16
    """Bins of the distance from a point to each side of its box; a bin is one stride wide."""
    assign_by: Literal["alignment", "centre"] = "alignment"
    """"alignment": task-aligned assignment, each object trains the points that predict it best. "centre": each object
    trains the points nearest to its centre, on the level of its size."""
    topk: int = 10
    """Points that each object trains."""
    alpha: float = 0.5
    """Exponent of the class score in the alignment of a point with an object."""
    beta: float = 6.0
    """Exponent of the IoU in the alignment of a point with an object."""
    class_weight: float = 1.0
    """Weight of the classification loss."""
    class_weights: tuple[float, ...] = ()
    """Weight of each class in the classification loss, in the network's order; empty: 1 each."""
    box_weight: float = 5.0
    """Weight of the IoU loss."""
    box_loss: Literal["ciou", "giou"] = "ciou"
    """IoU loss: complete IoU or generalised IoU."""
    bins_weight: float = 1.0
    """Weight of the distribution focal loss."""
    max_detections: int = 100
    """Largest number of boxes that the graph outputs."""
    nms_iou: float = 0.6
    """IoU with a better box of the same class above which NMS suppresses a box."""
    nms_rounds: int = 4
    """Rounds of parallel NMS. Chains of up to this many boxes are resolved as in greedy NMS. 0: no NMS."""
    distance: bool = False
    """Predict the distance of each object. Trained on images with KITTI's 3-D labels and a calibration."""
    distance_weight: float = 0.5
    """Weight of the distance loss."""
    cuboid: bool = False
    """Predict the 3-D box of each object: centre, size and heading, see `training.models.cuboid`. Trained where
    distances are; together they place the box in space."""
    cuboid_distance: bool = False
    """Take the distance from the branch of the 3-D box, which looks into the box, instead of from one point."""
    cuboid_weight: float = 0.5
    """Weight of the losses of the 3-D box."""

    def __post_init__(self) -> None:
        if self.assign_by not in ("alignment", "centre"):
            raise UserError(f"assign_by {self.assign_by!r}", "'alignment' or 'centre'")
        if self.box_loss not in ("ciou", "giou"):
            raise FieldError(self, "box_loss", "ciou or giou")
        weights = ("alpha", "beta", "class_weight", "box_weight", "bins_weight")
        check_ranges(self, **dict.fromkeys((*weights, "distance_weight", "cuboid_weight"), (0, math.inf)))
        check_ranges(self, bins=(2, 1000), topk=(1, math.inf), max_detections=(1, 10_000))
        check_ranges(self, nms_iou=(0, 1), nms_rounds=(0, 1000))
        if self.cuboid_distance and not (self.distance and self.cuboid):
            raise UserError(
                "distances from 3-D boxes without 3-D boxes",
                "all three",
                "--model.detection.distance --model.detection.cuboid",
            )
        if not all(0 <= weight < math.inf for weight in self.class_weights):
            raise FieldError(self, "class_weights", "numbers from 0")

    def check(self, model: ModelConfig) -> None:
        """Raise `UserError` where `class_weights` does not have one weight for each class."""
        if self.class_weights and len(self.class_weights) != len(model.class_names):
            raise UserError(
                f"{len(self.class_weights)} class_weights", f"one for each of {' '.join(model.class_names)}"
            )

    def check_size(self, model: ModelConfig, size_hw: SizeHW) -> None:
        """Raise `UserError` where `max_detections` exceeds the points and classes of an input."""
        places = len(model.class_names) * sum((size_hw[0] // s) * (size_hw[1] // s) for s in STRIDES)
        if self.max_detections > places:
            raise UserError(
                f"max_detections {self.max_detections} for an input of {size_hw[0]}x{size_hw[1]}",
                f"at most {places}, one per point and class",
                "a larger input, or a smaller --model.detection.max-detections",
            )


Config = DetectionConfig


@dataclass(frozen=True)
class DetectionTargets:
    """Labels of a batch, padded to the largest image; G objects, M ignore regions."""

    boxes_xyxy: Tensor
    """(B, G, 4) network pixels."""
    class_ids: Tensor
    """(B, G) int64, -1 where padded."""
    ignore_xyxy: Tensor
    """(B, M, 4)."""
    ignore_class_ids: Tensor
    """(B, M) int64: ignored class, -1 for all classes, -2 for padding."""
    confidences: Tensor
    """(B, G) confidence of each label, 0..1. It scales the class target and the weight of the box."""
    labelled: Tensor
    """(B, C) bool: classes that are labelled in the image; all False for a road image."""
    depths: Tensor
    """(B, G) metres ahead over the focal length in network pixels, NaN where unknown.

    Scaling an image by s scales its focal length by s, so this ratio depends only on the object's apparent size, not
    on the camera or the crop. The runtime multiplies it by its focal length.
    """
    cuboids: Tensor
    """(B, G, 6) 3-D box of each object as the image shows it, NaN where unknown, see `TrainingImage.cuboids`."""


@dataclass(frozen=True)
class RawDetections:
    """Output of the head before decode, for A points of all levels."""

    class_logits: Tensor
    """(B, A, C)."""
    bin_logits: Tensor
    """(B, A, 4·bins)."""
    depth_logits: Tensor | None
    """(B, A, 2), see `DetectionHead.depths`; None without a distance head."""
    box_features: Tensor | None = None
    """(B, A, F) of the box branch, for 3-D boxes; None without them, and so is the next."""
    level: Tensor | None = None
    """(B, F, H/16, W/16) map of the neck that 3-D boxes look at."""


class DetectionHead(Head[RawDetections, DetectionTargets]):
    """Detection head whose weights are shared by all levels, because labelled objects are few."""

    tasks: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("class", "box", "bins"),
        ("distance", "cuboid_centre", "cuboid_size", "cuboid_angle", "cuboid_distance"),
    )

    def __init__(self, channels: int, class_names: tuple[str, ...], config: DetectionConfig) -> None:
        super().__init__()
        self.config, self.class_count = config, len(class_names)
        self.stem = separable_block(channels, channels)
        self.class_branch = separable_block(channels, channels)
        self.box_branch = separable_block(channels, channels)
        self.class_out = nn.Conv2d(channels, self.class_count, 1)
        self.box_out = nn.Conv2d(channels, 4 * config.bins, 1)
        self.depth_out = nn.Conv2d(channels, 2, 1) if config.distance else None
        self.class_names = class_names
        self.cuboid: CuboidBranch | None = None
        self.fit_channels()
        # initial score 0.01, so that the first steps do not have to lower the scores of the background
        nn.init.constant_(self.class_out.bias, -math.log(99.0))  # type: ignore[arg-type]
        self.register_buffer("bin_values", torch.arange(config.bins, dtype=torch.float32), persistent=False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of boxes, scores and classes, and of distances and cuboids where they are predicted."""
        optional = {"distances": self.config.distance, "cuboids": self.config.cuboid}
        return ("boxes_xyxy", "scores", "class_ids", *(name for name, present in optional.items() if present))

    def fit_channels(self) -> None:
        """Build the branch of 3-D boxes anew for the channels that the other layers have."""
        if self.config.cuboid:
            channels, box_channels = self.stem[0].in_channels, self.box_out.in_channels
            self.cuboid = CuboidBranch(channels, self.class_names, self.config.cuboid_distance, box_channels)

    @property
    def described(self) -> dict[str, Any]:
        """Return whether the graph suppresses duplicates."""
        return {"suppression": self.config.nms_rounds > 0}

    def targets(self, batch: Batch) -> DetectionTargets:
        """Return the boxes of a batch."""
        return batch.targets

    def forward(self, features: Features) -> RawDetections:
        """Return the logits of all points."""
        classes, boxes, depths, box_features = [], [], [], []
        for feature in features.levels:
            x = self.stem(feature)
            box = self.box_branch(x)
            classes.append(self.class_out(self.class_branch(x)).flatten(2).transpose(1, 2))  # (B, HW, C)
            boxes.append(self.box_out(box).flatten(2).transpose(1, 2))  # (B, HW, 4·bins)
            if self.depth_out is not None:
                depths.append(self.depth_out(box).flatten(2).transpose(1, 2))  # (B, HW, 2)
            if self.cuboid is not None:
                box_features.append(box.flatten(2).transpose(1, 2))  # (B, HW, F)
        return RawDetections(
            torch.cat(classes, 1).float(),
            torch.cat(boxes, 1).float(),
            torch.cat(depths, 1).float() if depths else None,
            torch.cat(box_features, 1) if box_features else None,
            features.levels[STRIDES.index(STRIDE)] if box_features else None,
        )

    def boxes(self, bin_logits: Tensor, points: Tensor, strides: Tensor) -> Tensor:
        """Return boxes (…, A, 4) from bin logits (…, A, 4·bins), points (…, A, 2) and strides (…, A, 1) in pixels."""
        bins = bin_logits.unflatten(-1, (4, self.config.bins)).softmax(-1)
        sides = (bins * self.bin_values).sum(-1) * strides  # (…, A, 4) left, top, right, bottom
        return torch.cat([points - sides[..., :2], points + sides[..., 2:]], -1)

    def depths(self, depth_logits: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log of depth over focal length, and the log of its spread, (…, A) each.

        The depth is relative to the stride, as boxes are, because the weights are shared by all levels. The spread is
        the scale of a Laplace distribution of the log depth.

        Args:
            depth_logits: (…, A, 2).
            strides: (…, A, 1).
        """
        return depth_logits[..., 0] - strides[..., 0].log(), depth_logits[..., 1].clamp(-4.0, 2.0)

    def decode(self, raw: RawDetections, size_hw: SizeHW) -> tuple[Tensor, ...]:
        """Return boxes_xyxy (B, K, 4), scores (B, K) sorted, class_ids (B, K) int64.

        With a distance branch also distances (B, K, 2): depth over focal length, and its relative standard deviation.
        With 3-D boxes also cuboids (B, K, 9), see `Detections.cuboids`, in network pixels.

        Boxes are computed only for the best K pairs of point and class. Parallel NMS on a K×K matrix removes
        duplicates; it has a fixed shape and uses only operators that every runtime has. A suppressed box has score 0.
        """
        scores, class_ids, point_ids = self.best(raw.class_logits)

        def chosen(values: Tensor) -> Tensor:
            return values.gather(1, point_ids[..., None].expand(-1, -1, values.shape[2]))  # (B, K, …)

        depths = chosen(raw.depth_logits) if raw.depth_logits is not None else None
        seen = None
        if raw.box_features is not None and raw.level is not None:
            seen = raw.level, chosen(raw.box_features)
        return self.decode_best(scores, class_ids, point_ids, chosen(raw.bin_logits), size_hw, depths, seen)

    def deploy(self, features: Features, size_hw: SizeHW) -> tuple[Tensor, ...]:
        """Return the same as `decode`, with box and depth logits computed only at the best K points."""
        logits, box_features = [], []
        for feature in features.levels:
            x = self.stem(feature)
            logits.append(self.class_out(self.class_branch(x)).flatten(2))  # (B, C, HW)
            box_features.append(self.box_branch(x).flatten(2))  # (B, F, HW)
        scores, class_ids, point_ids = self.best(torch.cat(logits, 2).transpose(1, 2))
        everywhere = torch.cat(box_features, 2)  # (B, F, A)
        chosen = everywhere.gather(2, point_ids[:, None].expand(-1, everywhere.shape[1], -1))  # (B, F, K)
        bins = _at_points(self.box_out, chosen)  # (B, K, 4·bins)
        depths = _at_points(self.depth_out, chosen) if self.depth_out is not None else None  # (B, K, 2)
        seen = None
        if self.cuboid is not None:
            seen = features.levels[STRIDES.index(STRIDE)], chosen.transpose(1, 2)
        return self.decode_best(scores, class_ids, point_ids, bins, size_hw, depths, seen)

    def best(self, class_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, class ids and point ids (B, K) of the best pairs, by score, from class logits (B, A, C)."""
        scores, index = class_logits.flatten(1).topk(self.config.max_detections, dim=1)  # (B, K)
        return scores.sigmoid(), index % self.class_count, index // self.class_count

    def decode_best(
        self,
        scores: Tensor,
        class_ids: Tensor,
        point_ids: Tensor,
        chosen: Tensor,
        size_hw: SizeHW,
        chosen_depths: Tensor | None = None,
        seen: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """Return the outputs of `decode` from the logits of the chosen points, (B, K, 4·bins) and (B, K, 2).

        3-D boxes also need the neck's map and the box features (B, K, F) of the points, `seen`.
        """
        config = self.config
        points, strides = grid_points(size_hw, scores.device)
        boxes = self.boxes(chosen, points[point_ids], strides[point_ids])
        height, width = size_hw
        limits = torch.tensor([width, height, width, height], dtype=boxes.dtype, device=boxes.device)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        optional: list[Tensor] = []
        if chosen_depths is not None:
            middle, spread = self.depths(chosen_depths, strides[point_ids])
            optional.append(reported(middle, spread))  # (B, K, 2)
        if seen is not None:
            cuboids, distances = self.cuboids(*seen, boxes, class_ids)  # (B, K, 9), (B, K, 2)
            optional = [*(optional if distances is None else [distances]), cuboids]
        if config.nms_rounds == 0:
            return boxes, scores, class_ids, *optional
        overlap = pairwise_iou(boxes, boxes)  # (B, K, K)
        same = class_ids[:, :, None] == class_ids[:, None, :]
        better = torch.ones(config.max_detections, config.max_detections, device=boxes.device).triu(
            1
        )  # [i, j]: i before j
        suppresses = ((overlap > config.nms_iou) & same).float() * better
        keep = torch.ones_like(scores)
        for _ in range(config.nms_rounds):
            keep = 1.0 - (keep[:, :, None] * suppresses).amax(1)
        scores, order = (scores * keep).topk(config.max_detections, dim=1)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        optional = [values.gather(1, order[..., None].expand(-1, -1, values.shape[2])) for values in optional]
        return boxes, scores, class_ids.gather(1, order), *optional

    def cuboids(
        self, level: Tensor, box_features: Tensor, boxes: Tensor, class_ids: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the 3-D boxes of boxes (B, K, 4), from the neck's map and box features (B, K, F).

        Returns:
            cuboids (B, K, 9).
            distances (B, K, 2) as `decode` returns them, where the branch predicts them.
        """
        assert self.cuboid is not None
        image_ids = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand(-1, boxes.shape[1]).flatten()
        flat = boxes.flatten(0, 1)
        raw = self.cuboid(level, image_ids, flat, box_features.flatten(0, 1))
        cuboids = self.cuboid.decode(raw, flat, class_ids.flatten()).unflatten(0, boxes.shape[:2])
        if raw.log_depth is None or raw.log_depth_spread is None:
            return cuboids, None
        return cuboids, reported(raw.log_depth, raw.log_depth_spread).unflatten(0, boxes.shape[:2])

    def loss(self, raw: RawDetections, targets: DetectionTargets, size_hw: SizeHW) -> dict[str, Tensor]:
        """Return the losses `class`, `box` and `bins`; those of `distance` and `cuboid` where they are predicted.

        Each is weighted, and normalised by the assigned quality over the batch of all processes: sums pass through
        `sum_over_ranks` before the division.
        """
        config = self.config
        points, strides = grid_points(size_hw, raw.class_logits.device)
        boxes = self.boxes(raw.bin_logits, points, strides)  # (B, A, 4)
        scores = raw.class_logits.detach().sigmoid()
        assigned, quality = task_aligned_assign(scores, boxes.detach(), points, strides, targets, config)
        batch, point = (assigned >= 0).nonzero(as_tuple=True)  # (P,) each: the points that an object trains
        object_ids = assigned[batch, point]
        point_weights = quality[batch, point] * targets.confidences[batch, object_ids]
        truth = targets.boxes_xyxy[batch, object_ids]  # (P, 4)

        # classification: binary cross-entropy, the target is the quality of the point
        class_targets = torch.zeros_like(raw.class_logits)
        class_targets[batch, point, targets.class_ids[batch, object_ids]] = point_weights
        normaliser = sum_over_ranks(class_targets.sum()).clamp(min=1.0)
        class_loss = quality_bce_loss(raw.class_logits, class_targets, points, targets, config.class_weights)
        losses = {"class": config.class_weight * sum_over_ranks(class_loss) / normaliser}

        # box regression: IoU loss
        iou_loss = complete_iou_loss if config.box_loss == "ciou" else generalized_iou_loss
        box_loss = (iou_loss(boxes[batch, point], truth) * point_weights).sum()
        losses["box"] = config.box_weight * sum_over_ranks(box_loss) / normaliser

        # distribution of each side over the bins: distribution focal loss
        sides = torch.cat([points[point] - truth[:, :2], truth[:, 2:] - points[point]], -1) / strides[point]
        bins_loss = distribution_focal_loss(raw.bin_logits[batch, point], sides, config.bins)
        losses["bins"] = config.bins_weight * sum_over_ranks((bins_loss * point_weights).sum()) / normaliser

        # distance: likelihood of the log depth
        if raw.depth_logits is not None:
            depths = targets.depths[batch, object_ids]
            middle, spread = self.depths(raw.depth_logits[batch, point], strides[point])
            sums = sum_over_ranks(torch.stack(laplace_loss(middle, spread, depths, point_weights)))
            losses["distance"] = config.distance_weight * sums[0] / sums[1].clamp(min=1.0)

        # 3-D box: likelihood of centre, size and observation angle, in the boxes as they are found
        if raw.level is not None and raw.box_features is not None:
            assert self.cuboid is not None
            limits = boxes.new_tensor([size_hw[1], size_hw[0]] * 2)
            found = torch.minimum(boxes.detach()[batch, point].clamp(min=0), limits)
            raw_cuboids = self.cuboid(raw.level, batch, found, raw.box_features[batch, point])
            class_ids = targets.class_ids[batch, object_ids]
            known = targets.cuboids[batch, object_ids], point_weights, targets.depths[batch, object_ids]
            parts = self.cuboid.losses(raw_cuboids, found, class_ids, *known)
            *sums, weight = sum_over_ranks(torch.stack(list(parts.values())))
            for name, value in zip(parts, sums, strict=False):
                losses[name] = config.cuboid_weight * value / weight.clamp(min=1.0)
        return losses


def build(model: ModelConfig, stride4_channels: int) -> DetectionHead:
    """Return the head for a network of this shape."""
    return DetectionHead(model.channels, model.class_names, model.detection)


def reported(log_depth: Tensor, log_spread: Tensor) -> Tensor:
    """Return depth over focal length, and its relative standard deviation, (…, 2)."""
    return torch.stack([log_depth.exp(), math.sqrt(2) * log_spread.exp()], -1)


def _at_points(out: nn.Conv2d, chosen: Tensor) -> Tensor:
    """Apply a 1×1 convolution at chosen points: features (B, F, K) → (B, K, O)."""
    return F.linear(chosen.transpose(1, 2), out.weight.flatten(1), out.bias)


def quality_bce_loss(
    logits: Tensor,
    class_targets: Tensor,
    points: Tensor,
    targets: DetectionTargets,
    class_weights: tuple[float, ...] = (),
) -> Tensor:
    """Return the sum of the binary cross-entropy with soft targets (TOOD, eq. 8, without its focusing factor).

    Args:
        logits: (B, A, C).
        class_targets: (B, A, C) quality of a point for the class of its object, 0 elsewhere.
        points: (A, 2).
        targets: labelled classes and ignore regions.
        class_weights: weight of each class; empty: 1 each.
    """
    weight = class_loss_weight(points, class_targets, targets)
    if class_weights:
        weight = weight * weight.new_tensor(class_weights)
    return F.binary_cross_entropy_with_logits(logits, class_targets, weight, reduction="sum")


def complete_iou_loss(boxes: Tensor, truth: Tensor) -> Tensor:
    """Return 1 − complete IoU (P,) of boxes (P, 4) and (P, 4)."""
    return 1 - complete_iou(boxes, truth)


def generalized_iou_loss(boxes: Tensor, truth: Tensor) -> Tensor:
    """Return 1 − generalised IoU (P,) of boxes (P, 4) and (P, 4)."""
    return 1 - generalised_iou(boxes, truth)


def distribution_focal_loss(logits: Tensor, sides: Tensor, bins: int) -> Tensor:
    """Return the cross-entropy with the two bins around each side's distance, mean of the four sides (GFL, eq. 6).

    Args:
        logits: (P, 4·bins).
        sides: (P, 4) distances to left, top, right and bottom in strides.
        bins: bins of one side.

    Returns:
        (P,).
    """
    sides = sides.clamp(0, bins - 1.01)
    low = sides.floor()
    high_share = (sides - low).flatten()  # (P·4,)
    logits = logits.unflatten(-1, (4, bins)).flatten(0, 1)  # (P·4, bins)
    low_index = low.long().flatten()
    loss = F.cross_entropy(logits, low_index, reduction="none") * (1 - high_share)
    loss = loss + F.cross_entropy(logits, low_index + 1, reduction="none") * high_share
    return loss.unflatten(0, (-1, 4)).mean(-1)


def laplace_loss(middle: Tensor, spread: Tensor, depths: Tensor, weights: Tensor) -> list[Tensor]:
    """Return the weighted negative log likelihood of the log depth under a Laplace distribution, and the weight sum.

    Args:
        middle: (P,) log depth over focal length.
        spread: (P,) log of the distribution's scale, also predicted (Kendall & Gal 2017).
        depths: (P,) true depth over focal length, NaN where unknown; such a point is in neither sum.
        weights: (P,) quality of each point.

    Returns:
        The two sums, over this process.
    """
    known = torch.isfinite(depths) & (depths > 0)
    error = (middle - torch.where(known, depths, torch.ones_like(depths)).log()).abs()
    weights = weights * known
    return [((error * (-spread).exp() + spread) * weights).sum(), weights.sum()]


def grid_points(size_hw: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return centres (A, 2) in pixels and strides (A, 1) of all points, finest level first, row by row."""
    points, strides = [], []
    for stride in STRIDES:
        height, width = size_hw[0] // stride, size_hw[1] // stride
        y, x = torch.meshgrid(
            torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32), indexing="ij"
        )
        points.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((height * width, 1), float(stride)))
    return torch.cat(points).to(device), torch.cat(strides).to(device)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU (B, N, M) of boxes (B, N, 4) and (B, M, 4)."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    size = (high - low).clamp(min=0)
    shared = size[..., 0] * size[..., 1]
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    return shared / (area_a[:, :, None] + area_b[:, None, :] - shared).clamp(min=1e-6)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the complete IoU (P,) of boxes (P, 4) and (P, 4): IoU less centre distance and aspect ratio terms."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    size_a, size_b = (a[:, 2:] - a[:, :2]).clamp(min=1e-3), (b[:, 2:] - b[:, :2]).clamp(min=1e-3)
    iou = shared / (size_a.prod(-1) + size_b.prod(-1) - shared)
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    distance = ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2).square().sum(-1)
    shape = torch.atan(size_a[:, 0] / size_a[:, 1]) - torch.atan(size_b[:, 0] / size_b[:, 1])
    shape = (4 / math.pi**2) * shape.square()
    with torch.no_grad():
        shape_weight = shape / (1 - iou + shape).clamp(min=1e-6)
    return iou - distance / hull.square().sum(-1).clamp(min=1e-6) - shape_weight * shape


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised IoU (P,) of boxes (P, 4) and (P, 4): IoU less the empty share of their hull."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - shared
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(-1).clamp(min=1e-6)
    return shared / union.clamp(min=1e-6) - (hull - union) / hull


@torch.no_grad()
def task_aligned_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    targets: DetectionTargets,
    config: DetectionConfig,
) -> tuple[Tensor, Tensor]:
    """Assign objects to the points that predict them best, by score^alpha · IoU^beta (TOOD, eq. 1).

    With `assign_by` "centre", `centre_prior` replaces this alignment.

    Args:
        scores: (B, A, C) probabilities.
        boxes: (B, A, 4) decoded.
        points: (A, 2) centres of the points, pixels.
        strides: (A, 1).
        targets: objects of the batch.
        config: `topk`, `alpha`, `beta`, `assign_by`.

    Returns:
        (B, A) index of the object that trains each point, -1 for none, and (B, A) the target score.
    """
    object_count = targets.boxes_xyxy.shape[1]
    if object_count == 0:
        empty = scores.new_zeros(scores.shape[:2])
        return empty.long() - 1, empty
    # 1. candidates: points inside the object
    centre, longest, inside = _candidates(points, strides, targets, config.bins)

    # 2. alignment of every point with every object
    class_scores = scores.transpose(1, 2).gather(  # (B, G, A)
        1, targets.class_ids.clamp(min=0)[..., None].expand(-1, -1, scores.shape[1])
    )
    overlap = pairwise_iou(targets.boxes_xyxy, boxes)  # (B, G, A)
    if config.assign_by == "centre":
        alignment = centre_prior(centre, longest, points, strides)
        inside &= alignment > 0
    else:
        alignment = class_scores.pow(config.alpha) * overlap.pow(config.beta)
    alignment = torch.where(inside, alignment + 1e-9, torch.zeros_like(alignment))

    # 3. the best aligned points of each object
    top = alignment.topk(min(config.topk, alignment.shape[-1]), dim=-1)
    candidate = torch.zeros_like(inside).scatter(-1, top.indices, top.values > 0)  # (B, G, A)
    alignment = torch.where(candidate, alignment, torch.zeros_like(alignment))

    # 4. a disputed point goes to the object that it overlaps most
    best_overlap = torch.where(candidate, overlap, torch.full_like(overlap, -1.0))
    value, owner = best_overlap.max(dim=1)  # (B, A)
    assigned = torch.where(value >= 0, owner, torch.full_like(owner, -1))

    # 5. quality: alignment, scaled so that an object's best point gets the object's best overlap
    if config.assign_by == "centre":
        return assigned, value.clamp(min=0)
    peak_alignment = alignment.amax(-1, keepdim=True).clamp(min=1e-9)  # (B, G, 1)
    peak_overlap = torch.where(candidate, overlap, torch.zeros_like(overlap)).amax(-1, keepdim=True)
    quality = (alignment / peak_alignment * peak_overlap).gather(1, owner[:, None])[:, 0]  # (B, A)
    return assigned, torch.where(assigned >= 0, quality, torch.zeros_like(quality))


def _candidates(
    points: Tensor, strides: Tensor, targets: DetectionTargets, bins: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each object's centre (B, G, 2), half of its longer side (B, G, 1), and its candidate points (B, G, A).

    Candidates are the points inside the object whose level can represent its size. An object smaller than the grid
    gets the points around its centre.
    """
    centre = (targets.boxes_xyxy[..., :2] + targets.boxes_xyxy[..., 2:]) / 2
    half = ((targets.boxes_xyxy[..., 2:] - targets.boxes_xyxy[..., :2]) / 2).clamp(min=STRIDES[0] * 0.75)
    inside = ((points[None, None] - centre[:, :, None]).abs() < half[:, :, None]).all(-1)  # (B, G, A)
    reach = (bins - 1) * strides[:, 0]  # (A,) longest side that the bins of a level can represent
    longest = torch.maximum(half[..., 0], half[..., 1])[:, :, None]  # (B, G, 1)
    real = targets.class_ids >= 0  # (B, G)
    inside &= (longest < reach[None, None]) & real[..., None]
    return centre, longest, inside


def centre_prior(centre: Tensor, longest: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Return a prior (B, G, A) that falls from 1 at an object's centre to 0 at 1.5 strides of its level.

    It is 0 on the other levels. Sizes up to 64 px belong to stride 8, up to 128 px to stride 16 (centre sampling of
    FCOS, Tian et al. 2019).

    Args:
        centre: (B, G, 2).
        longest: (B, G, 1) half of the longer side.
        points: (A, 2).
        strides: (A, 1).
    """
    stride = strides[:, 0]  # (A,)
    fits = (longest < 4 * stride) | (stride == STRIDES[-1])
    fits &= (longest >= 2 * stride) | (stride == STRIDES[0])
    away = (points[None, None] - centre[:, :, None]).abs().amax(-1) / stride  # (B, G, A)
    return (1 - away / 1.5).clamp(min=0) * fits


@torch.no_grad()
def class_loss_weight(points: Tensor, class_targets: Tensor, targets: DetectionTargets) -> Tensor:
    """Return 1 where a class counts, else 0 (B, A, C).

    A class counts where it is labelled in the image and the point is positive or outside the ignore regions.
    """
    weight = targets.labelled[:, None, :].expand_as(class_targets).to(class_targets.dtype)
    if targets.ignore_xyxy.shape[1] == 0:
        return weight
    low = points[None, None] >= targets.ignore_xyxy[:, :, None, :2]
    high = points[None, None] <= targets.ignore_xyxy[:, :, None, 2:]
    inside = (low & high).all(-1)  # (B, M, A)
    for class_id in range(class_targets.shape[-1]):
        applies = (targets.ignore_class_ids == class_id) | (targets.ignore_class_ids == -1)  # (B, M)
        ignored = (inside & applies[..., None]).any(1)  # (B, A)
        blank = ignored & (class_targets[..., class_id] == 0)
        weight = weight.clone()
        weight[..., class_id] = torch.where(blank, torch.zeros_like(weight[..., class_id]), weight[..., class_id])
    return weight
