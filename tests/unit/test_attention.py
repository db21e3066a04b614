"""Attention in the neck: off by default, without effect before training where promised, and the same in ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from export.onnx import OnnxConfig, example_images, export_onnx  # noqa: E402
from perception.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from perception.model import ModelSpec  # noqa: E402
from perception.types import CLASS_NAMES  # noqa: E402
from training.models.attention import EncoderLayer  # noqa: E402
from training.models.heads.detection import DetectionConfig  # noqa: E402
from training.models.neck import PanNeck  # noqa: E402
from training.models.network import DeployedNetwork, ModelConfig, Network  # noqa: E402

SIZE = (64, 96)


def test_without_options_the_neck_has_no_further_weights() -> None:
    plain = set(PanNeck((8, 8, 8), 16).state_dict())
    assert not [name for name in plain if name.startswith(("encoder", "weigh"))]
    more = set(PanNeck((8, 8, 8), 16, channel_attention=True, encoder_layer=True).state_dict())
    assert plain < more and {name.split(".")[0] for name in more - plain} == {"encoder", "weigh"}


def test_a_new_encoder_layer_changes_nothing_and_learns() -> None:
    layer, x = EncoderLayer(16), torch.randn(2, 16, 3, 5)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.place.weight.grad.any() and layer.out.weight.grad.any() and layer.mlp[2].weight.grad.any()


def test_every_place_sees_every_other() -> None:
    torch.manual_seed(0)
    layer = EncoderLayer(16)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    x = torch.randn(1, 16, 6, 8, requires_grad=True)
    layer(x)[0, :, 0, 0].sum().backward()
    assert (x.grad[0].abs().sum(0) > 0).all()


def test_channel_attention_weighs_whole_channels() -> None:
    torch.manual_seed(0)
    neck = PanNeck((8, 8, 8), 16, channel_attention=True).eval()
    maps = [torch.randn(1, 8, 16 // 2**k, 24 // 2**k) for k in range(3)]
    weighed = neck(maps)
    neck.weigh = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    for after, before in zip(weighed, neck(maps), strict=True):
        factor = (after / before)[before.abs() > 1e-3]
        assert factor.min() > 0 and factor.max() < 1
        one = before[0, 0].abs() > 1e-3
        assert torch.allclose((after / before)[0, 0][one], (after / before)[0, 0][one][0])


@pytest.mark.parametrize("options", [{"channel_attention": True}, {"encoder_layer": True}])
def test_the_exported_graph_agrees_with_torch(options: dict[str, bool], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(channels=16, detection=DetectionConfig(max_detections=20), **options)
    network = Network(config)
    for parameter in network.neck.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.2)
    for parameter in (*network.detection.class_out.parameters(), *network.detection.box_out.parameters()):
        torch.nn.init.normal_(parameter, 0, 0.3)  # scores of real spread, so that no two tie
    network.eval()
    export_onnx(network, ModelSpec(CLASS_NAMES, SIZE, name="test"), tmp_path / "n.onnx", OnnxConfig(SIZE))
    images = example_images(SIZE, 2, seed=3)
    got = OnnxRuntimeBackend(tmp_path / "n.onnx", "cpu", 1).run({"images": images})
    with torch.inference_mode():
        boxes, scores, _, road = (v.numpy() for v in DeployedNetwork(network, SIZE)(torch.from_numpy(images)))
    found = scores > 0
    assert np.abs(got["scores"] - scores).max() < 1e-4 and found.any()
    assert np.abs(got["boxes_xyxy"][found] - boxes[found]).max() < 0.05
    assert np.abs(got["road"].astype(int) - road.astype(int)).max() <= 1
