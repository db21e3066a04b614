"""A torch network as the runtime's `Backend`, so that training and parity checks use the runtime's detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from perception.backends import Model
from perception.model import METADATA_KEY, ModelSpec
from training.models.network import DeployedNetwork, Network


class TorchBackend:
    """The network with decode, as it is exported. It shares the network's weights, in evaluation mode."""

    max_batch: int | None = None

    def __init__(
        self,
        network: Network,
        spec: ModelSpec,
        device: torch.device | str = "cpu",
        one_to_one: bool | None = None,
    ) -> None:
        """Args:
        network: network to run.
        spec: its metadata, with the input size.
        device: device of the network.
        one_to_one: head whose boxes are returned, see `Network.deployed_heads`.
        """
        self._device = torch.device(device)
        self._network = DeployedNetwork(network, spec.size_hw, one_to_one).to(self._device).eval()
        self.provider = f"torch {self._device}"
        self.metadata: Mapping[str, str] = {METADATA_KEY: spec.to_json()}
        height, width = spec.size_hw
        self.inputs: Mapping[str, tuple[Any, ...]] = {"images": ("N", height, width, 3)}
        with torch.inference_mode():  # only the heads know the shapes of their outputs
            outputs = self._network(torch.zeros(1, height, width, 3, dtype=torch.uint8, device=self._device))
        self.outputs: Mapping[str, tuple[Any, ...]] = {
            name: ("N", *value.shape[1:]) for name, value in zip(network.output_names, outputs, strict=True)
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch: named input arrays → named output arrays."""
        with torch.inference_mode():
            outputs = self._network(torch.from_numpy(inputs["images"]).to(self._device))
        named = {name: value.cpu().numpy() for name, value in zip(self.outputs, outputs, strict=True)}
        return named if "scores" in named else named | _no_boxes(len(inputs["images"]))


def _no_boxes(images: int) -> dict[str, np.ndarray]:
    """Return the outputs of a detection head that finds nothing, for a network that has none."""
    return {
        "boxes_xyxy": np.zeros((images, 0, 4), np.float32),
        "scores": np.zeros((images, 0), np.float32),
        "class_ids": np.zeros((images, 0), np.int64),
    }


def torch_model(
    network: Network,
    size_hw: tuple[int, int],
    device: torch.device | str = "cpu",
    one_to_one: bool | None = None,
    name: str = "",
) -> Model:
    """Wrap a torch network as a model for `Detector`.

    Args:
        network: network, whose weights are shared.
        size_hw: height and width of its input, pixels.
        device: device of the network.
        one_to_one: head whose boxes are returned, see `Network.deployed_heads`.
        name: display name.
    """
    spec = ModelSpec(network.config.class_names, size_hw, name=name)
    return Model(TorchBackend(network, spec, device, one_to_one), spec)
