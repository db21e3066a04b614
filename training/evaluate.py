"""Score a network on held-out frames with the official metrics, through the exported graph's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from perception.camera import fit_frame
from perception.model import read_outputs
from perception.types import Detections, RoadMask
from training.data import Subset
from training.models.network import DeployedNetwork, Network

OUTPUTS = ("boxes_xyxy", "scores", "class_ids", "road")


def predictor(
    network: Network, size_hw: tuple[int, int], device: torch.device
) -> Callable[[np.ndarray], tuple[Detections, RoadMask | None]]:
    """A function from a frame (H, W, 3) to detections and road, in frame pixels."""
    deployed = DeployedNetwork(network, size_hw).to(device).eval()

    def predict(image_bgr: np.ndarray) -> tuple[Detections, RoadMask | None]:
        fitted, fit = fit_frame(image_bgr, size_hw)
        with torch.inference_mode():
            outputs = deployed(torch.from_numpy(fitted)[None].to(device))
        named = {name: value.cpu().numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}
        return read_outputs(named, 0, fit)

    return predict


def predictions(
    network: Network, subset: Subset, size_hw: tuple[int, int], device: torch.device
) -> Iterator[tuple[int, Detections, RoadMask | None]]:
    """Index in the subset's source, detections and road of every frame."""
    predict = predictor(network, size_hw, device)
    for i in subset.indices:
        yield i, *predict(subset.source[i].image_bgr)


def evaluate(network: Network, sets, config, device: torch.device) -> dict[str, float]:
    return {}
