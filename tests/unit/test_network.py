"""The whole network: presets cost what they say, options do what they say and add nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

from perception.errors import UserError  # noqa: E402
from training.checkpoint import load_network, model_config_to_json, save_checkpoint  # noqa: E402
from training.cli import stored_run  # noqa: E402
from training.config import PRESETS, OptimiserConfig, TrainConfig  # noqa: E402
from training.data import collate  # noqa: E402
from training.example import TrainingImage  # noqa: E402
from training.loop import _parameter_groups, train_step  # noqa: E402
from training.models.heads.detection import DetectionConfig  # noqa: E402
from training.models.network import DeployedNetwork, ModelConfig, Network, weigh  # noqa: E402

SIZE = (64, 96)
TINY = ModelConfig(channels=16, detection=DetectionConfig(max_detections=20))


CUBOID = np.array([[40, 24, 3.9, 1.6, 1.5, -1.5]], np.float32)


def examples() -> list[TrainingImage]:
    """One with a car 20 m away, one with road alone."""
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    nothing, none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    masks = np.full((3, 16, 24), 255, np.uint8)
    road = masks.copy()
    road[0] = 1
    box, far = np.array([[20, 10, 60, 40]], np.float32), np.array([20 / 720], np.float32)
    car = TrainingImage(
        image, box, np.array([0]), nothing, none, (True,) * 3, masks, far, np.ones(1, np.float32), CUBOID
    )
    empty = np.zeros(0, np.float32)
    bare = TrainingImage(image, nothing, none, nothing, none, (False,) * 3, road, empty, empty, CUBOID[:0])
    return [car, bare]


def losses(config: ModelConfig) -> tuple[Network, dict[str, Tensor]]:
    torch.manual_seed(0)
    network, batch = Network(config), collate(examples())
    return network, network.loss(network(batch.images), batch)


# ---------------------------------------------------------------- presets


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [("pico", 1, 2), ("nano", 1, 2), ("small", 6, 7), ("medium", 15, 25), ("large", 60, 100)],
)
def test_presets_cost_what_they_promise(preset: str, low: float, high: float) -> None:
    """Billions of operations at 1248×384, two for a multiply-add, without the few of decode and activation."""
    from torch.utils.flop_counter import FlopCounterMode

    network = Network(replace(PRESETS[preset]().model, pretrained=False)).eval().to("meta")
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 384, 1248, 3, dtype=torch.uint8, device="meta"))
    # the exported graph computes boxes for the chosen points alone and one of three masks
    outputs = network.detection.box_out
    spared = 2 * outputs.in_channels * outputs.out_channels * 9828
    assert low <= (counter.get_total_flops() - spared) / 1e9 <= high


def test_the_cost_tool_agrees() -> None:
    pytest.importorskip("onnx")
    from torch.utils.flop_counter import FlopCounterMode

    from export.flops import model_cost
    from export.onnx import OnnxConfig, _trace

    network = Network(TINY).eval()
    counted = model_cost(_trace(network, OnnxConfig((64, 96)))).conv_flops
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    points = 96 + 24 + 6
    spared = 2 * 16 * 64 * (points - 20) + 2 * 24 * 2 * 16 * 24
    assert counted == pytest.approx(counter.get_total_flops() - spared, rel=0.01)


# ---------------------------------------------------------------- options


def test_the_one_to_one_head_learns_beside_and_shapes_nothing() -> None:
    network, found = losses(replace(TINY, one_to_one=True))
    assert {"class", "box", "bins", "one_class", "one_box", "one_bins", "road"} <= set(found)
    alone = [value for name, value in found.items() if name.startswith("one_")]
    torch.stack(alone).sum().backward()
    assert all(p.grad is not None for p in network.one_to_one.parameters())
    assert all(p.grad is None for p in network.neck.parameters()), "its gradient stops before the neck"
    assert all(p.grad is None for p in network.detection.parameters())


def test_which_head_is_deployed() -> None:
    network = Network(replace(TINY, one_to_one=True)).eval()
    one, many, road = network.one_to_one, network.detection, network.segmentation
    assert network.deployed_heads() == network.deployed_heads(True) == [one, road]
    assert network.deployed_heads(False) == [many, road]
    assert one.config.nms_rounds == 0 and one.config.topk == 1
    images = torch.randint(0, 255, (1, *SIZE, 3), dtype=torch.uint8)
    one, many = (DeployedNetwork(network, SIZE, choice)(images) for choice in (None, False))
    assert one[0].shape == many[0].shape and not torch.equal(one[1], many[1])
    with pytest.raises(UserError, match="no one-to-one head"):
        Network(TINY).deployed_heads(True)


OLD_NAMES = {
    "topk": "assign_top",
    "alpha": "assign_score_power",
    "beta": "assign_iou_power",
    "max_detections": "top_k",
}


def test_options_that_are_off_add_no_weight() -> None:
    plain = set(Network(TINY).state_dict())
    assert not any("one_to_one" in name or "depth" in name or "variances" in name for name in plain)
    assert plain < set(Network(replace(TINY, one_to_one=True, task_weights="uncertainty")).state_dict())


def test_files_with_former_names_are_read(tmp_path: Path) -> None:
    """A checkpoint and a config.json as they were written when the one-to-one head was called `single`."""
    config = replace(TINY, one_to_one=True, detection=replace(TINY.detection, topk=7, alpha=0.7, beta=3.0))
    network = Network(config)
    former = {name.replace("one_to_one.", "single."): value for name, value in network.state_dict().items()}
    shape = json.loads(model_config_to_json(config))
    shape["detection"] = {OLD_NAMES.get(name, name): value for name, value in shape["detection"].items()}
    for new in ("heads", "backbone_weights"):
        del shape[new]
    assert "single.stem.0.weight" in former and shape["detection"]["assign_top"] == 7
    save_checkpoint(tmp_path / "best.pt", {"model_config": json.dumps(shape), "ema": former, "network": former})
    loaded, state = load_network(tmp_path / "best.pt")
    assert loaded.config == config
    assert torch.equal(loaded.one_to_one.stem[0].weight, network.one_to_one.stem[0].weight)
    assert state["network"].keys() == network.state_dict().keys()
    (tmp_path / "config.json").write_text(json.dumps({"config": {"preset": "nano", "model": shape}}))
    assert stored_run(tmp_path)[0].model == config


@pytest.mark.parametrize(
    ("options", "expected", "norm"),
    [
        ({}, [6.2497, 2.23594, 1.39244, 0.22871, 5.01866, 0.38749, 0.2506, 0.05151, 1.82371, 0], 115.17),
        (
            {"box_loss": "giou", "assign_by": "centre", "class_weights": (1.0, 2.0, 3.0)},
            [10.51864, 2.29751, 1.48783, 0.21464, 9.5616, 0.35486, 0.2272, 0.05449, 1.82371, 0],
            119.47,
        ),
    ],
    ids=["ciou, alignment", "giou, centre"],
)
def test_the_first_step_has_the_recorded_losses(
    options: dict[str, object], expected: list[float], norm: float
) -> None:
    """Recorded numbers: a change of any loss, of the assignment or of the first weights shows."""
    torch.manual_seed(0)
    detection = replace(TINY.detection, distance=True, **options)  # type: ignore[arg-type]
    network, config = Network(replace(TINY, one_to_one=True, detection=detection)), TrainConfig()
    optimiser = torch.optim.AdamW(_parameter_groups(network, config), lr=config.optimiser.learning_rate)
    found, length = train_step(network, collate(examples()), optimiser, config)
    names = ["class", "box", "bins", "distance"]
    assert list(found) == [*names, *(f"one_{name}" for name in names), "road", "semantic"]
    assert list(found.values()) == pytest.approx(expected, rel=1e-4) and length == pytest.approx(norm, rel=1e-3)


def test_learnt_weights_by_hand() -> None:
    """L·e^-s + s: with s = ln 2 a loss of 4 counts as 2, and costs ln 2."""
    four, zero = torch.tensor(4.0), torch.tensor(0.0)
    s = torch.tensor([math_log2 := float(np.log(2)), 0.3, math_log2, 0.0], requires_grad=True)
    tasks = (("class", "one_box"), ("distance",), ("road",), ("semantic",))
    found = weigh({"class": four, "one_box": four, "road": zero, "semantic": four}, s, tasks)
    assert found["class"].item() == pytest.approx(2) == found["one_box"].item()
    assert found["semantic"].item() == 4
    assert found["task_weights"].item() == pytest.approx(np.log(2)), "road and distance had no label in this batch"
    torch.stack(list(found.values())).sum().backward()
    assert s.grad is not None and s.grad.tolist() == pytest.approx([-2 - 2 + 1, 0, 0, -4 + 1])


def test_learnt_weights_train_without_decay() -> None:
    network, found = losses(replace(TINY, task_weights="uncertainty"))
    torch.stack(list(found.values())).sum().backward()
    assert network.log_variances is not None and network.log_variances.grad is not None
    decayed, free = _parameter_groups(network, TrainConfig())
    assert any(p is network.log_variances for p in free["params"]) and free["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {
        id(m.weight) for m in network.modules() if isinstance(m, torch.nn.Conv2d)
    }


def test_a_pretrained_backbone_takes_small_steps_and_frozen_stages_none() -> None:
    torch.manual_seed(0)
    config = replace(TrainConfig(), optimiser=OptimiserConfig(backbone_learning_rate=0.1, frozen_norm=True))
    network = Network(TINY)
    network.backbone.stages[0].requires_grad_(False)
    groups = _parameter_groups(network, config)
    assert [group["factor"] for group in groups] == [1, 1, 0.1, 0.1]
    assert [group["weight_decay"] for group in groups] == [0.03, 0, 0.03, 0]
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    train_step(network, collate(examples()), torch.optim.AdamW(groups, lr=1e-3), config)
    changed = {name for name, value in network.backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any("running" in name or name.startswith("stages.0") for name in changed)


def test_scales_of_channels_are_not_decayed() -> None:
    config = replace(TrainConfig(), optimiser=OptimiserConfig(weight_decay=0.1))
    layers = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(4, 8, 3, groups=4), "norm": torch.nn.LayerNorm(8)})
    layers.register_parameter("layer_scale", torch.nn.Parameter(torch.ones(8, 1, 1)))
    decayed, free = _parameter_groups(layers, config)  # type: ignore[arg-type]
    assert [p.shape for p in decayed["params"]] == [(8, 1, 3, 3)] and len(free["params"]) == 4


def test_dropout_blanks_channels_in_training_alone() -> None:
    network = Network(replace(TINY, dropout=0.5))
    images = torch.randint(0, 255, (1, *SIZE, 3), dtype=torch.uint8)
    batch_norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]

    def logits(training: bool, seed: int) -> Tensor:
        network.train(training)
        for norm in batch_norms:
            norm.eval()  # so that what differs is dropout
        torch.manual_seed(seed)
        return network(images)["detection"].class_logits

    assert torch.equal(logits(False, 0), logits(False, 1))
    assert torch.equal(logits(True, 0), logits(True, 0)) and not torch.equal(logits(True, 0), logits(True, 1))


@pytest.mark.parametrize(
    "wrong",
    [lambda: ModelConfig(dropout=1.0), lambda: ModelConfig(task_weights="equal")],  # type: ignore[arg-type]
)
def test_nonsense_is_refused(wrong: Callable[[], ModelConfig]) -> None:
    with pytest.raises(UserError, match="expected"):
        wrong()


# ---------------------------------------------------------------- distance


def test_distance_is_an_optional_output_and_needs_no_other() -> None:
    network, found = losses(replace(TINY, detection=replace(TINY.detection, distance=True), one_to_one=True))
    assert found["distance"].isfinite() and found["one_distance"].isfinite() and found["distance"] != 0
    assert network.output_names == ("boxes_xyxy", "scores", "class_ids", "road", "distances")
    assert Network(TINY).output_names == ("boxes_xyxy", "scores", "class_ids", "road")
    outputs = DeployedNetwork(network.eval(), SIZE)(torch.zeros(2, *SIZE, 3, dtype=torch.uint8))
    assert [tuple(o.shape) for o in outputs] == [(2, 20, 4), (2, 20), (2, 20), (2, 16, 24), (2, 20, 2)]
