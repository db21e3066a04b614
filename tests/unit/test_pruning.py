"""Pruned networks: what is removed, and that checkpoint, training and export build the same network again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
tp = pytest.importorskip("torch_pruning")

import training_runs as runs  # noqa: E402

from perception.errors import UserError  # noqa: E402
from tools.recipes.importance import channel_importance  # noqa: E402
from tools.recipes.prune import (  # noqa: E402
    TRACED_HW,
    VALUE_COST,
    Channels,
    Places,
    places_of,
    prune,
    tensors_of,
    through,
    without_cuboids,
    work_of,
)
from tools.recipes.reconstruct import fit_layer, reconstruct  # noqa: E402
from training.checkpoint import load_network, model_config_to_json, save_checkpoint, with_widths_of  # noqa: E402
from training.loop import train  # noqa: E402
from training.models.config import ModelConfig  # noqa: E402
from training.models.heads.detection import DetectionConfig  # noqa: E402
from training.models.network import Network  # noqa: E402
from training.models.widths import set_widths, widths_of  # noqa: E402

IMAGE = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randint(0, 256, (6, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pruned() -> Network:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = Network(ModelConfig(channels=16)).eval()
    before = work_of(network)
    prune(network, 0.4, IMAGE, multiple=4)
    assert 0.5 < work_of(network) / before <= 0.6
    return network


def test_work_counts_what_is_computed_read_and_written() -> None:
    """3×3, 3 → 4 channels, stride 2: 96×320 pixels are read, 48×160 written."""

    class Halves(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.conv(images.permute(0, 3, 1, 2).float())

    assert places_of(Halves()) == {"conv": Places(read=96 * 320, written=48 * 160)}
    computed, read, written = 48 * 160 * 9 * 3 * 4, 96 * 320 * 3, 48 * 160 * 4
    assert work_of(Halves()) == computed + VALUE_COST * (read + written)


def test_what_a_channel_saves_is_what_the_work_falls_by() -> None:
    """A depthwise layer goes along, and the layer behind it reads less."""
    torch.manual_seed(0)
    network = normalised()
    before, places = work_of(network), places_of(network)
    importance = channel_importance(network, IMAGE)
    network.requires_grad_(True)
    graph = tp.DependencyGraph().build_dependency(
        network, torch.zeros((1, *TRACED_HW, 3), dtype=torch.uint8), output_transform=tensors_of
    )
    conv = network.backbone.stages[1][0].block[0][0]
    group = graph.get_pruning_group(conv, tp.prune_conv_out_channels, list(range(conv.out_channels)))
    block = Channels(network, importance, multiple=8).least_block(group)
    graph.get_pruning_group(conv, tp.prune_conv_out_channels, block.idxs).prune()
    assert work_of(network, places) == before - block.cost


def test_channels_stay_a_multiple() -> None:
    network = Network(ModelConfig(channels=16)).eval()
    expanded = {
        name: m.out_channels
        for name, m in network.named_modules()
        if isinstance(m, torch.nn.Conv2d) and m.groups > 1 and name.startswith("backbone")
    }
    prune(network, 0.3, IMAGE, multiple=16)
    left = {name: network.get_submodule(name).out_channels for name in expanded}
    cut = [channels for name, channels in left.items() if channels < expanded[name]]
    assert len(cut) > 3 and all(channels % 16 == 0 for channels in cut)


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


def test_channels_of_the_checkpoint_replace_those_of_a_preset(pruned: Network, tmp_path: Path) -> None:
    start = checkpoint(pruned, tmp_path / "a.pt")
    whole = Network(replace(pruned.config, widths=()))
    preset = runs.tiny(steps=2, model=replace(ModelConfig(channels=16), widths=widths_of(whole)))
    assert with_widths_of(preset, start).model.widths == widths_of(pruned) != preset.model.widths


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
    network = Network(
        replace(config, detection=replace(config.detection, distance=True, cuboid=True, cuboid_distance=True))
    ).eval()
    with pytest.raises(UserError, match="Linear"):
        prune(network, 0.2, IMAGE)
    plain = without_cuboids(network)
    assert not plain.config.detection.cuboid
    assert torch.equal(plain(IMAGE)["segmentation"], network(IMAGE)["segmentation"])


def test_a_pruned_network_gets_a_branch_of_3d_boxes() -> None:
    """The branch fits the channels that are left in the neck and in the branch of boxes."""
    config = ModelConfig(channels=32, detection=DetectionConfig(distance=True))
    torch.manual_seed(0)
    pruned = Network(config).eval()
    prune(pruned, 0.6, IMAGE, multiple=4)
    detection = replace(config.detection, cuboid=True, cuboid_distance=True)
    network = Network(replace(config, detection=detection, widths=widths_of(pruned))).eval()
    network.load_state_dict({**network.state_dict(), **pruned.state_dict()})
    branch = network.detection.cuboid
    assert branch is not None
    assert branch.channels == pruned.neck.up[0][3].out_channels < 32
    assert branch.box_channels == pruned.detection.box_branch[3].out_channels < 32
    boxes, *_, cuboids = network.detection.decode(network(IMAGES)["detection"], (64, 96))
    assert cuboids.shape == (*boxes.shape[:2], 9)
    assert torch.equal(boxes, pruned.detection.decode(pruned(IMAGES)["detection"], (64, 96))[0])


def normalised() -> Network:
    """A network of random weights whose maps vary: its statistics are those of `IMAGES`."""
    torch.manual_seed(0)
    network = Network(ModelConfig(channels=16))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(IMAGES)
    return network.eval()


class Doubles(torch.nn.Module):
    """1×1 convolution to three channels with batch norm, of which the second repeats the first; then one to two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = torch.nn.Conv2d(3, 3, 1, bias=False), torch.nn.BatchNorm2d(3)
        self.last = torch.nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.first.weight[1] = self.first.weight[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(images.permute(0, 3, 1, 2).float())))


def test_what_a_removed_channel_did_moves_to_its_like() -> None:
    """Without the second channel, the last layer must weigh the first by both weights, and the outputs stay."""
    torch.manual_seed(0)
    whole = Doubles().eval()
    cut = Doubles().eval()
    set_widths(cut, (3, 2, 2, 2))
    kept = torch.tensor([0, 2])
    with torch.no_grad():
        cut.first.weight.copy_(whole.first.weight[kept])
        cut.last.weight.copy_(whole.last.weight[:, kept])
    before = (cut(IMAGES) - whole(IMAGES)).abs().max()
    missed = reconstruct(cut, whole, {"first": kept}, IMAGES)
    assert (cut(IMAGES) - whole(IMAGES)).abs().max() < 0.02 * before and missed["last"] < 1e-4
    weights = whole.last.weight
    both = (weights[:, 0] + weights[:, 1]) / (1 + 1e-5) ** 0.5  # batch norm's own scale is in the new batch norm
    scale = cut.norm.weight[0] / (cut.norm.running_var[0] + cut.norm.eps) ** 0.5
    assert torch.allclose(cut.last.weight[:, 0, 0, 0] * scale, both[:, 0, 0], rtol=0.02)


def test_a_layer_is_fitted_to_inputs_of_very_different_size() -> None:
    """y = 2·a + 3·b + 1, where a is a thousand times b."""
    conv, generator = torch.nn.Conv2d(2, 1, 1), torch.Generator().manual_seed(0)
    seen = torch.randn((500, 2, 1), generator=generator) * torch.tensor([1000.0, 1.0])[:, None]
    wanted = 2 * seen[:, 0] + 3 * seen[:, 1] + 1
    with torch.no_grad():
        fit_layer(conv, None, seen, wanted)
    assert conv.weight.flatten().tolist() == pytest.approx([2, 3], rel=0.01)
    assert float(conv.bias.detach()[0]) == pytest.approx(1, abs=0.3)


def test_refitted_outputs_are_nearer_to_the_unpruned_ones() -> None:
    whole = normalised()
    cut = Network(ModelConfig(channels=16)).eval()
    cut.load_state_dict(whole.state_dict())
    kept = prune(cut, 0.2, IMAGE)
    wanted = whole(IMAGES)["segmentation"]
    before = (cut(IMAGES)["segmentation"] - wanted).square().mean()
    reconstruct(cut, whole, kept, IMAGES)
    assert (cut(IMAGES)["segmentation"] - wanted).square().mean() < 0.8 * before
    again = Network(replace(cut.config, widths=widths_of(cut))).eval()
    again.load_state_dict(cut.state_dict())
    assert torch.equal(again(IMAGES)["segmentation"], cut(IMAGES)["segmentation"])


def test_a_channel_that_no_output_sees_is_worth_nothing() -> None:
    torch.manual_seed(0)
    network = Network(ModelConfig(channels=16)).eval()
    name = "segmentation.context.0"
    with torch.no_grad():
        for norm in (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.bias.uniform_(0.5, 1.0)  # no channel is cut off by its ReLU
        network.get_submodule(f"{name}.1").weight[3] = network.get_submodule(f"{name}.1").bias[3] = 0
    worth = channel_importance(network, IMAGE)[f"{name}.1"]
    assert worth[3] == 0 and (worth > 0).sum() > len(worth) / 2


def test_channels_that_two_rounds_leave() -> None:
    kept = through({"a": torch.tensor([1, 4, 6])}, {"a": torch.tensor([0, 2]), "b": torch.tensor([5])})
    assert kept["a"].tolist() == [1, 6] and kept["b"].tolist() == [5]
