"""Pruned networks: what is removed, and that checkpoint, training and export build the same network again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

import training_runs as runs  # noqa: E402

from perception.errors import UserError  # noqa: E402
from tools.recipes.prune import multiply_adds, prune, without_cuboids  # noqa: E402
from training.checkpoint import load_network, model_config_to_json, save_checkpoint  # noqa: E402
from training.loop import train  # noqa: E402
from training.models.config import ModelConfig  # noqa: E402
from training.models.network import Network  # noqa: E402
from training.models.widths import set_widths, widths_of  # noqa: E402

IMAGE = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pruned() -> Network:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = Network(ModelConfig(channels=16)).eval()
    before = multiply_adds(network)
    prune(network, 0.4)
    assert 0.5 < multiply_adds(network) / before <= 0.6
    return network


def checkpoint(network: Network, path: Path) -> Path:
    config = replace(network.config, widths=widths_of(network))
    description = json.dumps({"config": {"preset": "nano"}, "commit": "0", "data_hash": ""})
    state = {"ema": network.state_dict(), "model_config": model_config_to_json(config), "description": description}
    save_checkpoint(path, {**state, "step": 0, "scores": {}})
    return path


def test_outputs_keep_their_channels(pruned: Network) -> None:
    raw = pruned(IMAGE)
    assert raw["detection"].class_logits.shape[-1] == 3 and raw["segmentation"].shape == (1, 3, 16, 24)


def test_a_checkpoint_builds_the_pruned_network_again(pruned: Network, tmp_path: Path) -> None:
    network, _ = load_network(checkpoint(pruned, tmp_path / "a.pt"))
    assert network.config.widths == widths_of(pruned) == widths_of(network)
    assert torch.equal(network(IMAGE)["segmentation"], pruned(IMAGE)["segmentation"])


def test_training_starts_from_a_pruned_checkpoint_and_can_be_resumed(pruned: Network, tmp_path: Path) -> None:
    start = checkpoint(pruned, tmp_path / "a.pt")
    config = runs.tiny(steps=2, model=ModelConfig(channels=16))
    best = train(config, tmp_path / "run", init=start)
    network, _ = load_network(best)
    assert widths_of(network) == widths_of(pruned)
    stored = json.loads((tmp_path / "run/config.json").read_text())["config"]["model"]["widths"]
    assert tuple(stored) == widths_of(pruned)


def test_widths_cut_layers_and_never_grow_them() -> None:
    """Two convolutions, 3 → 8 → 4 channels, the first with batch norm: 3 → 5 → 2."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 1))
    first = network[0].weight.clone()
    set_widths(network, (3, 5, 5, 2))
    assert torch.equal(network[0].weight, first[:5]) and network[1].num_features == 5
    assert network(torch.zeros(1, 3, 2, 2)).shape == (1, 2, 2, 2)
    for wrong in ((3, 6, 5, 2), (3, 5, 5, 0), (3, 5)):
        with pytest.raises(UserError):
            set_widths(network, wrong)


def test_a_branch_of_3d_boxes_is_left_out() -> None:
    config = ModelConfig(channels=16)
    network = Network(replace(config, detection=replace(config.detection, distance=True, cuboid=True))).eval()
    with pytest.raises(UserError, match="Linear"):
        prune(network, 0.2)
    plain = without_cuboids(network)
    assert not plain.config.detection.cuboid
    assert torch.equal(plain(IMAGE)["segmentation"], network(IMAGE)["segmentation"])
