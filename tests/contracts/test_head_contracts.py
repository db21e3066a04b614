"""What every head promises: a file put into `training/models/heads` is checked here without a test of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from torch import Tensor  # noqa: E402

from export.onnx import OnnxConfig, example_images, export_onnx  # noqa: E402
from perception.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from perception.model import ModelSpec  # noqa: E402
from perception.types import CLASS_NAMES  # noqa: E402
from training.data import Batch, collate  # noqa: E402
from training.example import TrainingImage  # noqa: E402
from training.models.config import HEADS, ModelConfig  # noqa: E402
from training.models.head import Features, Head, HeadConfig  # noqa: E402
from training.models.network import Network  # noqa: E402

SIZE = (64, 96)
CHANNELS, STRIDE4_CHANNELS = 16, 8

every_head = pytest.mark.parametrize("name", HEADS)


def model(name: str) -> ModelConfig:
    """A small network with this head, every optional output of it switched on."""
    base = ModelConfig(channels=CHANNELS)
    detection = replace(base.detection, distance=True, cuboid=True, cuboid_distance=True, max_detections=20)
    # a head may need the one that it replaces
    return replace(base, heads=tuple(sorted({name, "detection"})), detection=detection)


def head(name: str, seed: int = 0) -> Head[Any, Any]:
    torch.manual_seed(seed)
    made = HEADS[name].build(model(name), STRIDE4_CHANNELS)
    with torch.no_grad():  # outputs of real spread, so that no two tie
        for parameter in made.parameters():
            parameter.normal_(0, 0.5)
    return made.eval()


def features(seed: int = 0, images: int = 2) -> Features:
    rng = torch.Generator().manual_seed(seed)

    def noise(channels: int, stride: int) -> Tensor:
        return torch.randn(images, channels, SIZE[0] // stride, SIZE[1] // stride, generator=rng).requires_grad_()

    return Features(noise(STRIDE4_CHANNELS, 4), [noise(CHANNELS, stride) for stride in (8, 16, 32)])


def image(objects: bool, masks: bool, labelled: bool = True) -> TrainingImage:
    """Noise with or without a car, a pedestrian, an ignore region and a road."""
    boxes = np.array([[20, 10, 60, 40], [70, 20, 80, 50]] if objects else np.zeros((0, 4)), np.float32)
    truth = np.full((3, 16, 24), 255, np.uint8)
    if masks:
        truth[:], truth[0, 8:] = 0, 1
    return TrainingImage(
        np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8),
        boxes,
        np.arange(len(boxes)),
        np.array([[0, 0, 12, 12]] if objects else np.zeros((0, 4)), np.float32),
        np.full(int(objects), -1),
        (labelled,) * 3,
        truth,
        np.full(len(boxes), 0.03, np.float32),
        np.ones(len(boxes), np.float32),
        np.array([[42, 26, 3.9, 1.6, 1.5, -1.5], [74, 36, 0.8, 0.7, 1.8, 3.0]], np.float32)[: len(boxes)],
    )


BATCHES = {
    "all labels": collate([image(True, True), image(True, True)]),
    "no object, no road": collate([image(False, False), image(False, False)]),
    "nothing labelled": collate([image(False, False, labelled=False)] * 2),
    "one of each": collate([image(True, False), image(False, True, labelled=False)]),
}


def losses(name: str, maps: Features, batch: Batch, seed: int = 0) -> tuple[Head[Any, Any], dict[str, Tensor]]:
    made = head(name, seed).train()
    return made, made.loss(made(maps), made.targets(batch), SIZE)


@every_head
def test_a_head_has_names_of_its_own(name: str) -> None:
    made = head(name)
    assert isinstance(made, Head) and made.outputs and len(set(made.outputs)) == len(made.outputs)
    if hasattr(HEADS[name], "Config"):
        assert issubclass(HEADS[name].Config, HeadConfig)
    assert set(made.described) <= set(ModelSpec.__dataclass_fields__)
    maps = features()
    mine = set(losses(name, maps, BATCHES["all labels"])[1])
    assert {task for names in made.tasks for task in names} <= mine
    for other in HEADS:
        if other != name:
            assert not mine & set(losses(other, maps, BATCHES["all labels"])[1]), other
            rivals = made.replaces == other or head(other).replaces == name
            assert rivals or not set(made.outputs) & set(head(other).outputs), other


@every_head
@pytest.mark.parametrize("what", BATCHES)
def test_losses_and_gradients_are_finite(name: str, what: str) -> None:
    maps = features()
    made, found = losses(name, maps, BATCHES[what])
    total = torch.stack(list(found.values())).sum()
    total.backward()
    assert all(value.shape == () and value.isfinite() for value in found.values())
    gradients = [p.grad for p in (*made.parameters(), maps.stride4, *maps.levels) if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    if what == "all labels":
        assert not [n for n, p in made.named_parameters() if p.grad is None or not p.grad.any()], (
            "every weight learns"
        )


@every_head
def test_the_same_input_gives_the_same_output(name: str) -> None:
    a, b = (losses(name, features(), BATCHES["one of each"])[1] for _ in range(2))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@every_head
def test_outputs_are_one_for_each_image_and_do_not_depend_on_the_others(name: str) -> None:
    made, maps = head(name), features(images=3)
    with torch.inference_mode():
        together = made.decode(made(maps), SIZE)
        first = Features(maps.stride4[:1], [level[:1] for level in maps.levels])
        alone = made.decode(made(first), SIZE)
    assert len(together) == len(made.outputs)
    for value, single in zip(together, alone, strict=True):
        assert len(value) == 3 and value.dtype in (torch.float32, torch.int64, torch.uint8)
        assert torch.allclose(value[:1].double(), single.double(), atol=1e-4)


@every_head
def test_what_is_deployed_equals_decode(name: str) -> None:
    made, maps = head(name), features()
    with torch.inference_mode():
        dense = made.decode(made(maps), SIZE)
        made.strip()
        deployed = made.deploy(maps, SIZE)
    for output, want, got in zip(made.outputs, dense, deployed, strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype, output
        assert torch.allclose(got.double(), want.double(), rtol=1e-4, atol=1e-3), output


@every_head
def test_two_instances_share_nothing(name: str) -> None:
    a, b = head(name, seed=1), head(name, seed=2)
    before = {key: value.clone() for key, value in b.state_dict().items()}
    a.train()(features())
    with torch.no_grad():
        for parameter in a.parameters():
            parameter.zero_()
    assert not {t.data_ptr() for t in a.state_dict().values()} & {t.data_ptr() for t in b.state_dict().values()}
    assert all(torch.equal(before[key], value) for key, value in b.state_dict().items())


@every_head
def test_a_network_with_the_head_is_exported(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network(model(name)).eval()
    export_onnx(network, ModelSpec(CLASS_NAMES, SIZE, name="test"), tmp_path / "n.onnx", OnnxConfig(SIZE))
    outputs = OnnxRuntimeBackend(tmp_path / "n.onnx", "cpu", 1).run({"images": example_images(SIZE, 2)})
    assert tuple(outputs) == network.output_names and set(network.heads[name].outputs) <= set(outputs)
    assert all(len(value) == 2 for value in outputs.values())
