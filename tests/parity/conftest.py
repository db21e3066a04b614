"""A small network that is sure of things, and frames that need fitting: what comparisons are tried on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

SIZE = (96, 160)
FRAME = (132, 220)
"""Larger than the network's input, and of the same shape, so that a frame is really resized."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with batch statistics and scores of real spread, so that no two boxes tie."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from export.onnx import example_images
    from training.checkpoint import model_config_to_json, save_checkpoint
    from training.models.network import ModelConfig, Network

    torch.manual_seed(1)
    network = Network(ModelConfig()).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average over the batches below: activations keep their spread
    with torch.no_grad():
        for seed in range(3):
            network(torch.from_numpy(example_images(SIZE, 4, seed)))
        for parameter in network.detection.class_out.parameters():
            parameter.normal_(0, 0.2)
        for parameter in network.detection.box_out.parameters():
            parameter.normal_(0, 0.2)
    path = tmp_path_factory.mktemp("checkpoint") / "last.pt"
    description = {"config": {"preset": "nano"}, "commit": "0" * 40, "data_hash": "none"}
    state = {"model_config": model_config_to_json(network.config), "ema": network.state_dict(), "step": 3}
    save_checkpoint(path, {**state, "description": json.dumps(description), "scores": {}})
    return path


@pytest.fixture(scope="session")
def fp32_file(checkpoint: Path) -> Path:
    """The checkpoint as an ONNX file of any batch."""
    from export.checkpoint import export_checkpoint

    return export_checkpoint(checkpoint, checkpoint.parent / "fp32.onnx", SIZE, None, "test")


@pytest.fixture(scope="session")
def frames() -> list:
    """Four frames of smooth coloured noise, blue stronger than red: a swapped colour order shows."""
    import cv2

    from export.frames import TestFrame

    found = []
    for seed in range(4):
        coarse = np.random.default_rng(seed).integers(0, 256, (12, 20, 3)).astype(np.float32)
        image = cv2.resize(coarse, FRAME[::-1], interpolation=cv2.INTER_CUBIC) * np.array([1.0, 0.7, 0.4])
        found.append(TestFrame(f"noise_{seed}", np.clip(image, 0, 255).astype(np.uint8)))
    return found
