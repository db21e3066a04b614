"""A printable patch that hides the objects that carry it.

An adversarial patch (Brown et al. 2017; for detectors Thys, Van Ranst and Goedemé, CVPR workshops 2019), optimised in
expectation over transformations (EOT, Athalye et al., ICML 2018): each step pastes it onto objects of some frames at
random places, sizes, angles and brightness, and moves its pixels along the sign of the gradient. Its size in images
follows from the object's height in metres and in pixels, so a patch has a size on paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perception.arrays import F32, F64, U8
from perception.formats.kitti import ObjectRows
from training.models.heads.detection import grid_points
from training.models.network import Network

SMALLEST_PX, LEAST_SIDE_PX = 40.0, 6.0
"""An object carries a patch if it is this high and its patch this wide, in pixels of the network's input."""
PIXEL_M = 0.01
"""Side of one pixel of the patch: coarse enough to survive printing and a few metres of distance."""


@dataclass(frozen=True)
class PatchConfig:
    """How a patch is found."""

    size_m: float = 0.5
    """Width and height, metres."""
    steps: int = 120
    """Steps of the search, two frames each."""
    seed: int = 0
    """Random seed of the start and of all placements."""
    shift: float = 0.12
    """Largest shift from the object's centre, as a share of its box."""
    scale: float = 0.15
    """Largest change of size, as a share."""
    turn_deg: float = 8.0
    """Largest rotation, degrees."""
    gain: float = 0.3
    """Largest change of brightness, as a share."""


@dataclass(frozen=True, eq=False)
class Carriers:
    """The objects of one frame that carry the patch, in pixels of the network's input."""

    image_bgr: U8
    """(h, w, 3), letterboxed."""
    boxes_xyxy: F32
    """(N, 4)."""
    sides_px: F64
    """(N,) of the patch on each."""


def carriers(
    image_bgr: U8, rows: ObjectRows, to_network: Callable[[F32], F32], class_name: str, size_m: float
) -> Carriers:
    """Choose the objects of a frame that can carry a patch: seen nearly whole, large enough, and wider than it."""
    boxes = to_network(rows.boxes_xyxy.astype(np.float32))
    heights_px, heights_m = boxes[:, 3] - boxes[:, 1], rows.dimensions_hwl[:, 0]
    sides = size_m * heights_px / np.maximum(heights_m, 0.1)
    keep = (np.array(rows.names, dtype=object) == class_name) & (heights_m > 0) & (heights_px >= SMALLEST_PX)
    keep &= (rows.occlusion <= 1) & (rows.truncation <= 0.15)
    keep &= (sides >= LEAST_SIDE_PX) & (sides <= np.minimum(heights_px, boxes[:, 2] - boxes[:, 0]))
    return Carriers(image_bgr, boxes[keep], sides[keep])


def paste(image: Tensor, patch: Tensor, box: Sequence[float], side_px: float, look: Sequence[float]) -> Tensor:
    """Paste a patch (3, p, p) onto one box of an image (h, w, 3), both in grey levels; differentiable.

    Args:
        image: the image.
        patch: the patch.
        box: left, top, right, bottom.
        side_px: width of the patch in the image.
        look: shift in x and y as shares of the box, factor of size, angle in radians, factor of brightness.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = box
    x = (left + right) / 2 + look[0] * (right - left)
    y = (top + bottom) / 2 + look[1] * (bottom - top)
    side = side_px * look[2]
    # shrink by area, as a lens does, before the pixels are looked up
    small = F.interpolate(patch[None], size=(min(patch.shape[1], max(2, round(side))),) * 2, mode="area")
    reach = side * 0.75  # half of a turned square, and some
    x0, x1 = max(0, int(x - reach)), min(width, int(x + reach) + 1)
    y0, y1 = max(0, int(y - reach)), min(height, int(y + reach) + 1)
    if x0 >= x1 or y0 >= y1:
        return image
    rows, columns = torch.meshgrid(torch.arange(y0, y1) + 0.5 - y, torch.arange(x0, x1) + 0.5 - x, indexing="ij")
    cosine, sine = float(np.cos(look[3])), float(np.sin(look[3]))
    u, v = (columns * cosine + rows * sine) * 2 / side, (rows * cosine - columns * sine) * 2 / side  # -1..1 inside
    seen = F.grid_sample(small, torch.stack([u, v], -1)[None].float(), padding_mode="border", align_corners=False)
    inside = ((u.abs() <= 1) & (v.abs() <= 1))[..., None]
    shown = (seen[0].permute(1, 2, 0) * look[4]).clamp(0, 255)
    out = image.clone()
    out[y0:y1, x0:x1] = torch.where(inside, shown, image[y0:y1, x0:x1])
    return out


def dressed(frame: Carriers, patch: Tensor, rng: np.random.Generator, config: PatchConfig) -> Tensor:
    """Return the frame (h, w, 3) with the patch on each carrier, each placed at random."""
    image = torch.from_numpy(frame.image_bgr).float()
    for box, side in zip(frame.boxes_xyxy.tolist(), frame.sides_px.tolist(), strict=True):
        image = paste(image, patch, box, side, draw_look(rng, config))
    return image


def draw_look(rng: np.random.Generator, config: PatchConfig) -> list[float]:
    """Draw where and how a patch is seen, see `paste`."""
    shift, turn = config.shift, np.radians(config.turn_deg)
    low, high = (
        np.array([-shift, -shift, 1 - config.scale, -turn, 1 - config.gain]),
        np.array([shift, shift, 1 + config.scale, turn, 1 + config.gain]),
    )
    return [float(value) for value in rng.uniform(low, high)]


def find_patch(
    network: Network,
    frames: Sequence[Carriers],
    class_id: int,
    config: PatchConfig,
    progress: Callable[[int], None] = lambda step: None,
) -> U8:
    """Search for a patch (p, p, 3) BGR that hides the class on the frames given; the network is not changed."""
    rng = np.random.default_rng(config.seed)
    pixels = max(8, round(config.size_m / PIXEL_M))
    patch = torch.from_numpy(rng.uniform(64, 192, (3, pixels, pixels)).astype(np.float32))
    size_hw = frames[0].image_bgr.shape[:2]
    points = grid_points((size_hw[0], size_hw[1]), torch.device("cpu"))[0]  # (A, 2)
    for step in range(config.steps):
        patch.requires_grad_(True)
        chosen = [frames[i] for i in rng.choice(len(frames), min(2, len(frames)), replace=False)]
        raw = network(torch.stack([dressed(frame, patch, rng, config) for frame in chosen]))
        total = torch.zeros(())
        for i, frame in enumerate(chosen):
            boxes = torch.from_numpy(frame.boxes_xyxy)
            inside = (points[:, None] >= boxes[None, :, :2]) & (points[:, None] <= boxes[None, :, 2:])  # (A, N, 2)
            on_carrier = inside.all(-1).any(-1)
            for head in ("detection", "one_to_one"):  # either may be deployed
                if head in raw:
                    total = total + F.softplus(raw[head].class_logits[i, on_carrier, class_id]).sum()
        (gradient,) = torch.autograd.grad(total, patch)
        rate = 16 * (1 - step / config.steps) + 1  # grey levels
        patch = (patch - rate * gradient.sign()).detach().clamp(0, 255)
        progress(step + 1)
    return np.asarray(patch.round().byte().permute(1, 2, 0).numpy(), np.uint8)
