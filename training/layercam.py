"""Saliency from a checkpoint's gradients: LayerCAM over the three maps of the neck, in the time of a few passes.

Jiang et al., "LayerCAM: exploring hierarchical class activation maps for localization" (IEEE TIP 2021): each value of
a feature map counts by its own positive gradient. The maps of strides 8, 16 and 32 are scaled to their maximum and
averaged. `grad-cam` is not used: it installs a second OpenCV over the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from perception.arrays import F32, U8
from perception.boxes import iou
from perception.cameras.letterbox import Letterbox
from perception.detector import Detector
from perception.trust.explain import REDUCED, Target
from training.backend import torch_model
from training.checkpoint import load_network
from training.models.network import DeployedNetwork, Network

INTERMEDIATE = 4
"""Stride at which the maps are joined."""


class CheckpointExplainer:
    """A checkpoint that finds objects and says why."""

    def __init__(self, network: Network, size_hw: tuple[int, int]) -> None:
        """Args:
        network: in evaluation mode.
        size_hw: height and width of its input.
        """
        self.network, self.size_hw = network.eval(), size_hw
        self.detector = Detector(torch_model(network, size_hw), 0.01, batch=4)
        self._deployed = DeployedNetwork(network, size_hw).eval()

    def saliency(self, image_bgr: U8, targets: Sequence[Target]) -> list[F32]:
        """Map each target, (h, w) at a quarter of the image's size, 0..1; zeros where the network has nothing."""
        images = np.zeros((1, *self.size_hw, 3), np.uint8)
        placed = self.detector.letterbox(image_bgr, images[0])
        kept: dict[str, Any] = {}
        hooks = [self.network.neck.register_forward_hook(lambda _, __, out: kept.update(levels=out))]
        if "segmentation" in self.network.heads:
            hooks.append(
                self.network.segmentation.register_forward_hook(lambda _, __, out: kept.update(segmentation=out))
            )
        try:
            x = torch.from_numpy(images).float().requires_grad_(True)
            outputs = dict(zip(self.network.output_names, self._deployed(x), strict=True))
        finally:
            for hook in hooks:
                hook.remove()
        maps = []
        for target in targets:
            score = self._score(target, outputs, kept.get("segmentation"), placed)
            joined = np.zeros([side // INTERMEDIATE for side in self.size_hw], np.float32)
            if score is not None:
                gradients = torch.autograd.grad(score, kept["levels"], retain_graph=True, allow_unused=True)
                joined = _join(kept["levels"], gradients, self.size_hw)
            maps.append(_to_frame(joined, placed))
        return maps

    def _score(
        self, target: Target, outputs: dict[str, Tensor], road: Tensor | None, placed: Letterbox
    ) -> Tensor | None:
        """What is explained: the logit of the box that supports the target best, or of the road at its point."""
        box = placed.boxes_to_network(target.box_xyxy[None].astype(np.float32))
        if target.kind == "road":
            if road is None:
                return None
            rows, columns = road.shape[2:]
            row = int(np.clip(box[0, 1] * rows / self.size_hw[0], 0, rows - 1))
            return road[0, 0, row, int(np.clip(box[0, 0] * columns / self.size_hw[1], 0, columns - 1))]
        scores = outputs["scores"][0]
        overlaps = iou(box, outputs["boxes_xyxy"][0].detach().numpy())[0]
        strength = overlaps * scores.detach().numpy() * (outputs["class_ids"][0].numpy() == target.class_id)
        best = int(strength.argmax())
        return torch.logit(scores[best], eps=1e-6) if strength[best] > 0 else None

    def shuffled(self, seed: int) -> CheckpointExplainer:
        """The same network with the numbers of each weight tensor in random order."""
        other = Network(self.network.config)
        generator = torch.Generator().manual_seed(seed)
        state = {
            name: value.flatten()[torch.randperm(value.numel(), generator=generator)].view(value.shape)
            if value.ndim >= 2
            else value.clone()
            for name, value in self.network.state_dict().items()
        }
        other.load_state_dict(state)
        return CheckpointExplainer(other, self.size_hw)


def open_explainer(path: Path, size_hw: tuple[int, int]) -> CheckpointExplainer:
    """Read a checkpoint, or the name of a shipped one.

    Raises:
        UserError: it cannot be read, or the size is none of a network.
    """
    network, _ = load_network(path)
    return CheckpointExplainer(network, size_hw)


def _join(levels: Sequence[Tensor], gradients: Sequence[Tensor | None], size_hw: tuple[int, int]) -> F32:
    """Average the LayerCAM maps of all levels, each scaled to its maximum, (H/4, W/4)."""
    height, width = (side // INTERMEDIATE for side in size_hw)
    total = np.zeros((height, width), np.float32)
    for level, gradient in zip(levels, gradients, strict=True):
        if gradient is None:
            continue
        one = (gradient.clamp(min=0) * level.detach()).sum(1).clamp(min=0)[0].numpy()  # (h, w)
        if one.max() > 0:
            total += cv2.resize(one / one.max(), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(total / len(levels), np.float32)


def _to_frame(joined: F32, placed: Letterbox) -> F32:
    whole = placed.mask_to_frame(joined)  # type: ignore[arg-type]
    height, width = (max(1, side // REDUCED) for side in placed.source_hw)
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.float32)
