"""The 3-D box of a detected object: centre in the image, size, heading, distance, with their spreads.

A small network looks at the features inside the box that the detection head has found, so it costs the same for any
size of image, and only the reported boxes are looked at. Sources:

- Sampling features on a grid in a box: RoIAlign of Mask R-CNN (He et al. 2017).
- Projected centre as an offset, sizes as logarithms relative to the means of a class: MonoDIS (Simonelli et al. 2019)
  and SMOKE (Liu et al. 2020).
- Observation angle as a bin and a residual in it, with bins that overlap: MultiBin (Mousavian et al. 2017).
- Distance as a class's height over the height of the box, and a correction: GUPNet (Lu et al. 2021).
- Spread by likelihood: Kendall & Gal 2017. The likelihood is Laplace's, as for the distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN_LWH_M = {"Car": (3.88, 1.63, 1.53), "Pedestrian": (0.84, 0.66, 1.76), "Cyclist": (1.76, 0.60, 1.74)}
"""Mean length, width and height of each class in KITTI's 7,481 object labels."""
UNKNOWN_LWH_M = (2.0, 1.0, 1.6)
"""For a class that was not measured."""
BINS = 4
"""Bins of the observation angle, centred on 0, ±π/2 and π: most objects are seen from behind, ahead or the side."""
REACH_RAD = math.pi / 3
"""A bin's residual is trained for angles this close to its centre, so that neighbouring bins overlap by a third."""
GRID = 4
"""Features are sampled on a grid of this many points across and down a box."""
STRIDE = 16
"""Of the feature map that is sampled."""
LOG_SPREADS = (-5.0, 0.5)
"""Limits of the logarithm of a spread."""
LARGEST_LOG_SIZE = 1.2
"""Limit of the logarithm of a size relative to its mean: a factor of 3.3."""
CENTRE_SCALE = 0.05
"""Scale of the Laplace distribution of the centre, as a share of the box."""
_PARTS = (2, 3, 1, BINS, BINS, 1)
"""Numbers of centre, log sizes, their log spread, bins, residuals, and log spread of the angle."""
SPREAD_ROWS = (5, 14)
"""Rows of the last layer that predict the log spreads of size and angle."""
PREFIX = "detection.cuboid."
"""Of the names of the branch's weights in a network."""
BIN_ROWS = slice(6, 10)
"""Rows that predict the bins."""
USUAL_HEIGHT_M = 1.6
"""Of what a box shows, to begin with."""


@dataclass(frozen=True)
class RawCuboids:
    """Output of the branch for P boxes."""

    centre: Tensor
    """(P, 2) offset of the projected centre from the middle of the box, as a share of its width and height."""
    log_size: Tensor
    """(P, 3) logarithm of length, width and height relative to the class means."""
    log_size_spread: Tensor
    """(P,) logarithm of the scale of that logarithm's Laplace distribution."""
    bins: Tensor
    """(P, BINS) logits."""
    residuals: Tensor
    """(P, BINS) observation angle relative to each bin's centre, radians."""
    log_angle_spread: Tensor
    """(P,) logarithm of the scale of the angle's Laplace distribution."""
    log_depth: Tensor | None = None
    """(P,) logarithm of depth over focal length; None in a branch without distance, and so is the next."""
    log_depth_spread: Tensor | None = None
    """(P,) logarithm of the scale of that logarithm's Laplace distribution."""


class DistanceBranch(nn.Module):
    """Predicts the distance of a box from the features in it: a usual height over that of the box, and a correction.

    Args:
        channels: channels of the neck's maps.
        box_channels: channels of the box features.
    """

    def __init__(self, channels: int, box_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, 16)
        self.hidden = nn.Linear(16 * GRID**2 + box_channels + 2, 64)
        self.out = nn.Linear(64, 2)

    def forward(self, sampled: Tensor, box_features: Tensor, log_sides: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of depth over focal length, and of its spread, (P,) each.

        Args:
            sampled: (P, GRID², C).
            box_features: (P, F).
            log_sides: (P, 2) logarithms of the width and height of the boxes, network pixels.
        """
        inside = self.reduce(sampled).relu().flatten(1)
        seen = torch.cat([inside, box_features, log_sides - math.log(64)], 1)
        out = self.out(self.hidden(seen).relu()).float()
        log_depth = 0.1 * out[:, 0] + math.log(USUAL_HEIGHT_M) - log_sides[:, 1]
        return log_depth, (out[:, 1] - 2).clamp(*LOG_SPREADS)


class CuboidBranch(nn.Module):
    """The part of a detection head that predicts 3-D boxes.

    Args:
        channels: channels C of the neck's maps.
        class_names: classes of the network.
        distance: predict the distance as well.
        box_channels: channels F of the box features, if they differ, as in a pruned network.
    """

    def __init__(
        self, channels: int, class_names: tuple[str, ...], distance: bool = False, box_channels: int | None = None
    ) -> None:
        super().__init__()
        self.channels, self.box_channels = channels, box_channels or channels
        self.reduce = nn.Linear(channels, 32)
        self.hidden = nn.Linear(32 * GRID**2 + self.box_channels + 2, 128)
        self.out = nn.Linear(128, sum(_PARTS))
        self.distance = DistanceBranch(channels, self.box_channels) if distance else None
        means = torch.tensor([MEAN_LWH_M.get(name, UNKNOWN_LWH_M) for name in class_names])
        self.register_buffer("mean_lwh", means, persistent=False)
        self.register_buffer("bin_centres", torch.arange(BINS) * (2 * math.pi / BINS), persistent=False)
        at = (torch.arange(GRID) + 0.5) / GRID
        grid = torch.stack([at.repeat(GRID), at.repeat_interleave(GRID)], -1)
        self.register_buffer("grid", grid, persistent=False)  # (GRID², 2) x, y as shares of a box

    def forward(self, level: Tensor, image_ids: Tensor, boxes: Tensor, box_features: Tensor) -> RawCuboids:
        """Predict the 3-D boxes of P boxes.

        Args:
            level: (B, C, h, w) map of stride `STRIDE`.
            image_ids: (P,) image of each box.
            boxes: (P, 4) network pixels, without gradient.
            box_features: (P, F) features of the box branch at the point that found the box.
        """
        return self.predict(self.sample(level, image_ids, boxes), boxes, box_features)

    def predict(self, sampled: Tensor, boxes: Tensor, box_features: Tensor) -> RawCuboids:
        """Predict from the output of `sample`; see `forward`."""
        inside = self.reduce(sampled).relu().flatten(1)  # (P, 32·GRID²)
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
        out = self.out(self.hidden(torch.cat([inside, box_features, (sides / 64).log()], 1)).relu()).float()
        centre, log_size, size_spread, bins, residuals, angle_spread = out.split(_PARTS, 1)
        raw = RawCuboids(
            0.1 * centre,
            (0.2 * log_size).clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE),
            (size_spread[:, 0] - 2).clamp(*LOG_SPREADS),
            bins,
            0.5 * residuals,
            (angle_spread[:, 0] - 2).clamp(*LOG_SPREADS),
        )
        if self.distance is None:
            return raw
        log_depth, log_spread = self.distance(sampled, box_features, sides.log())
        return replace(raw, log_depth=log_depth, log_depth_spread=log_spread)

    def sample(self, level: Tensor, image_ids: Tensor, boxes: Tensor) -> Tensor:
        """Return features on a grid in each box, (P, GRID², C), interpolated bilinearly.

        Whole rows of a map with the channels last are gathered, which costs a runtime a fraction of `grid_sample`.
        """
        _, channels, height, width = level.shape
        rows = level.flatten(2).transpose(1, 2).reshape(-1, channels)  # (B·h·w, C)
        sides = boxes[:, None, 2:] - boxes[:, None, :2]
        at = (boxes[:, None, :2] + sides * self.grid) / STRIDE - 0.5  # (P, GRID², 2)
        last = torch.tensor([width - 1.0, height - 1.0], dtype=at.dtype, device=at.device)
        at = torch.minimum(at.clamp(min=0), last)
        low = at.floor()
        high = torch.minimum(low + 1, last)
        share = at - low

        def corner(x: Tensor, y: Tensor) -> Tensor:
            index = image_ids[:, None] * (height * width) + y.long() * width + x.long()
            return rows.index_select(0, index.flatten()).reshape(*index.shape, channels)

        right, down = share[..., :1], share[..., 1:]
        upper = corner(low[..., 0], low[..., 1]) * (1 - right) + corner(high[..., 0], low[..., 1]) * right
        lower = corner(low[..., 0], high[..., 1]) * (1 - right) + corner(high[..., 0], high[..., 1]) * right
        return upper * (1 - down) + lower * down

    def decode(self, raw: RawCuboids, boxes: Tensor, class_ids: Tensor) -> Tensor:
        """Return cuboids (P, 9), see `Detections.cuboids`, in network pixels, of boxes (P, 4) and classes (P,).

        Each bin says an angle, with a probability. Those that point to the other side of the circle are the doubt
        about front and rear; what the others leave open about the axis is part of its standard deviation.
        """
        middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        shares = raw.bins.softmax(1)  # (P, BINS)
        best = raw.bins.argmax(1, keepdim=True)  # (P, 1)
        angles = raw.residuals + self.bin_centres
        angle = angles.gather(1, best)
        away = angles - angle
        of_axis = away - math.pi * (away / math.pi + 0.5).floor()  # in [-π/2, π/2)
        axis_var = 2 * (2 * raw.log_angle_spread).exp() + (shares * of_axis.square()).sum(1)
        return torch.cat(
            [
                middle + raw.centre * sides,
                self.mean_lwh[class_ids] * raw.log_size.exp(),
                wrap(angle),
                math.sqrt(2) * raw.log_size_spread.exp()[:, None],
                axis_var.sqrt()[:, None],
                (shares * (away.cos() < 0)).sum(1, keepdim=True).clamp(max=0.5),
            ],
            1,
        )

    def losses(
        self, raw: RawCuboids, boxes: Tensor, class_ids: Tensor, truth: Tensor, weights: Tensor, depths: Tensor
    ) -> dict[str, Tensor]:
        """Return the weighted sum of each loss over this process, and `weight`, the sum of the weights.

        Args:
            raw: output of `forward` for P boxes.
            boxes: (P, 4) network pixels.
            class_ids: (P,) class of each object.
            truth: (P, 6) as `TrainingImage.cuboids`; a row with NaN is in no sum.
            weights: (P,) quality of each box.
            depths: (P,) depth over focal length; NaN is in no sum.
        """
        known = torch.isfinite(truth).all(1)
        truth = torch.where(known[:, None], truth, torch.ones_like(truth))
        weights = weights * known

        # centre: likelihood of a Laplace distribution of fixed scale
        middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
        offset = ((truth[:, :2] - middle) / sides).clamp(-3, 3)
        centre = (raw.centre - offset).abs().mean(1) / CENTRE_SCALE

        # size: likelihood of the logarithms
        wanted = (truth[:, 2:5] / self.mean_lwh[class_ids]).log()
        size = laplace(raw.log_size - wanted, raw.log_size_spread[:, None]).mean(1)

        # angle: cross-entropy of the nearest bin, likelihood of the residuals of the bins in reach
        residuals = wrap(truth[:, 5:] - self.bin_centres)  # (P, BINS)
        near = (residuals.abs() < REACH_RAD).float()
        of_bins = laplace(raw.residuals - residuals, raw.log_angle_spread[:, None])
        angle = F.cross_entropy(raw.bins, residuals.abs().argmin(1), reduction="none")
        angle = angle + (of_bins * near).sum(1) / near.sum(1)
        named = {"cuboid_centre": centre, "cuboid_size": size, "cuboid_angle": angle}
        if raw.log_depth is not None and raw.log_depth_spread is not None:
            measured = torch.isfinite(depths)
            error = raw.log_depth - torch.where(measured, depths, torch.ones_like(depths)).log()
            named["cuboid_distance"] = laplace(error, raw.log_depth_spread) * measured
        return {**{name: (loss * weights).sum() for name, loss in named.items()}, "weight": weights.sum()}


def widen(
    weights: dict[str, Tensor], size: float = 1, angle: float = 1, doubt: float = 1, distance: float = 1
) -> None:
    """Change in place how sure a network is of its 3-D boxes; what it reports otherwise stays.

    Args:
        weights: of the whole network, by name.
        size: factor on the spread of sizes.
        angle: factor on the spread of angles.
        doubt: temperature of the bins, which say how sure front and rear are.
        distance: factor on the spread of distances, of the branch where it predicts them, else of the distance head.
    """
    bias, inside = weights[PREFIX + "out.bias"], PREFIX + "distance.out.bias"
    for row, factor in zip(SPREAD_ROWS, (size, angle), strict=True):
        bias[row] += math.log(factor)
    for rows in (weights[PREFIX + "out.weight"], bias):
        rows[BIN_ROWS] /= doubt
    weights[inside if inside in weights else "detection.depth_out.bias"][1] += math.log(distance)


def laplace(error: Tensor, log_spread: Tensor) -> Tensor:
    """Return the negative log likelihood of an error, up to a constant."""
    return error.abs() * (-log_spread).exp() + log_spread


def wrap(angle: Tensor) -> Tensor:
    """Return angles in [-π, π)."""
    return angle - 2 * math.pi * ((angle + math.pi) / (2 * math.pi)).floor()
