"""Backbones: any torchvision network fits, starts from a local file, trains and exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from torchvision import models  # noqa: E402
from training_runs import changed, tiny  # noqa: E402

from datasets.splits import Holdout  # noqa: E402
from export.onnx import OnnxConfig, example_images, export_onnx  # noqa: E402
from perception.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from perception.errors import UserError  # noqa: E402
from perception.model import ModelSpec  # noqa: E402
from perception.types import CLASS_NAMES  # noqa: E402
from training import loop  # noqa: E402
from training.checkpoint import load_checkpoint, load_network, model_config_from_json, save_checkpoint  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.data import collate  # noqa: E402
from training.example import TrainingImage, unknown_cuboids  # noqa: E402
from training.models import backbone as backbones  # noqa: E402
from training.models.backbone import Backbone  # noqa: E402
from training.models.heads.detection import DetectionConfig  # noqa: E402
from training.models.network import DeployedNetwork, ModelConfig, Network  # noqa: E402

SIZE = (64, 96)


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "regnet_y_400mf", "resnet18", "resnet34",
             "resnet50", "convnext_tiny", "vgg16", "vgg16_bn", "efficientnet_b0"],
)  # fmt: skip
def test_backbones_by_torchvisions_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for init in ("kaiming_normal_", "normal_", "trunc_normal_"):  # random numbers for 130 M weights take seconds
        monkeypatch.setattr(torch.nn.init, init, lambda tensor, *_, **__: tensor)
    backbone = Backbone(name).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]


def test_an_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(UserError, match="resnet") as error:
        Backbone("resnet19")
    assert "resnet" in error.value.do
    with pytest.raises(UserError, match="unsupported layout"):
        Backbone("vit_b_16")
    with pytest.raises(UserError, match="'squeezenet1_1' has no maps at stride 8"):
        Backbone("squeezenet1_1")


def test_weights_that_cannot_be_downloaded_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(backbones.models, "get_model", offline)
    with pytest.raises(UserError, match="cannot be downloaded") as error:
        Backbone("resnet18", pretrained=True)
    assert "--model.no-pretrained" in error.value.do


# ---------------------------------------------------------------- a local file of weights


@pytest.fixture(scope="module")
def mobilenet() -> dict[str, torch.Tensor]:
    """A state dict with torchvision's names."""
    torch.manual_seed(7)
    return models.mobilenet_v2(weights=None).state_dict()


def test_a_local_file_starts_the_backbone(mobilenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(mobilenet, tmp_path / "w.pth")
    backbone = Backbone("mobilenet_v2", pretrained=True, weights=tmp_path / "w.pth")  # downloads nothing
    assert torch.equal(backbone.stages[0][0][0].weight, mobilenet["features.0.0.weight"])
    assert torch.equal(backbone.stages[3][-1].conv[2].weight, mobilenet["features.17.conv.2.weight"])
    used, unused = len(backbone.state_dict()), "classifier.1.bias, classifier.1.weight, features.18.0.weight"
    assert backbone.loaded.startswith(f"{used} of {used} tensors of mobilenet_v2 from {tmp_path}")
    assert "missing: none" in backbone.loaded and f"not used: {unused}" in backbone.loaded


def test_what_a_file_lacks_and_what_does_not_fit_is_named(mobilenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    part = {name: value for name, value in mobilenet.items() if not name.startswith("features.17.")}
    torch.save(part | {"features.0.0.weight": torch.zeros(4, 3, 3, 3), "extra": torch.ones(1)}, tmp_path / "w.pth")
    loaded = Backbone("mobilenet_v2", weights=tmp_path / "w.pth").loaded
    assert "missing: features.0.0.weight, features.17.conv.0.0.weight" in loaded
    assert "not used: classifier.1.bias, classifier.1.weight, extra, features.0.0.weight" in loaded


def test_a_file_of_another_network_is_refused(mobilenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(mobilenet, tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=r"no weight fits backbone resnet18 \(it holds features\.0\.0\.weight"
    ) as error:
        Backbone("resnet18", weights=tmp_path / "w.pth")
    assert "it holds features.0.0.weight" in error.value.found
    assert "conv1.weight (64, 3, 7, 7)" in error.value.expected
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no tensors")
    for name, words in (("list", "no weight fits"), ("text", "cannot be read"), ("none", "no such file")):
        with pytest.raises(UserError, match=words):
            Backbone("mobilenet_v2", weights=tmp_path / f"{name}.pth")


class Harm:
    """Pickled, it would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"features.0.0.weight": Harm(tmp_path / "harm")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="cannot be read"):
        Backbone("mobilenet_v2", weights=tmp_path / "w.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["mobilenet_v2_coco", "mobilenet_v2_imagenet"])
def test_the_given_backbones_fit_whole(name: str, request: pytest.FixtureRequest) -> None:
    folder = Path(request.config.getoption("--data")).resolve().parent / "teachers" / name
    if not folder.is_dir():
        pytest.skip(f"no backbone weights at {folder} (pytest --data FOLDER, beside which 'teachers' lies)")
    backbone = Backbone("mobilenet_v2", weights=folder / "mobilenet_v2_features_torchvision_keys.pth")
    assert "missing: none" in backbone.loaded
    assert backbone.channels == (24, 32, 96, 320)


def test_a_run_starts_from_the_file_and_its_checkpoint_needs_it_no_more(
    mobilenet: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "w.pth"
    torch.save(mobilenet, weights)
    model = ModelConfig("mobilenet_v2", backbone_weights=weights, channels=16)
    config = tiny(model=model)
    learner = loop.build_learner(config, torch.device("cpu"), None)
    assert "backbone: 306 of 306 tensors" in capsys.readouterr().err
    assert torch.equal(learner.average.backbone.stages[0][0][0].weight, mobilenet["features.0.0.weight"])
    state = loop._state(learner, config, {}, loop.Progress(), {}, Holdout())
    assert model_config_from_json(state["model_config"]) == replace(model, backbone_weights=None)
    save_checkpoint(tmp_path / "last.pt", state)
    with pytest.raises(UserError, match="both set the weights of mobilenet_v2"):
        loop.build_learner(config, torch.device("cpu"), tmp_path / "last.pt")
    weights.unlink()
    loop.build_learner(config, torch.device("cpu"), None, goes_on=True)
    assert load_network(tmp_path / "last.pt")[0].config.backbone_weights is None


def test_a_checkpoint_cannot_name_another_file_to_read(tmp_path: Path) -> None:
    network = Network(ModelConfig(channels=16))
    config = '{"backbone": "mobilenet_v3_small", "channels": 16, "backbone_weights": "/nowhere/secret.pth"'
    config += ', "class_names": ["Car", "Pedestrian", "Cyclist"], "detection": {}, "segmentation": {}}'
    save_checkpoint(tmp_path / "c.pt", {"model_config": config, "ema": network.state_dict()})
    load_network(tmp_path / "c.pt")
    assert "model_config" in load_checkpoint(tmp_path / "c.pt")


# ---------------------------------------------------------------- train, export, verify


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "resnet34", "resnet50", "mobilenet_v2"])
def test_a_backbone_trains_exports_and_agrees_with_torch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    with monkeypatch.context() as patch:  # random numbers for VGG's classifier, which is cut off, take seconds
        patch.setattr(torch.nn.init, "normal_", lambda tensor, *_, **__: tensor)
        network = Network(ModelConfig(name, channels=16, detection=DetectionConfig(max_detections=20))).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average over the steps, so that activations keep their spread
    config = changed(TrainConfig(), batch=2)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(3):
        losses, norm = loop.train_step(network, collate([street_image(0), street_image(1)]), optimiser, config)
        assert np.isfinite([norm, *losses.values()]).all()
    assert not [n for n, p in network.backbone.named_parameters() if p.grad is None or not p.grad.any()]
    with torch.no_grad():  # scores of real spread, so that no two tie
        for parameter in (*network.detection.class_out.parameters(), *network.detection.box_out.parameters()):
            parameter.normal_(0, 0.1)
    network.eval()
    spec = ModelSpec(CLASS_NAMES, SIZE, name="test")
    export_onnx(network, spec, tmp_path / "n.onnx", OnnxConfig(SIZE))
    images = example_images(SIZE, 2, seed=3)
    got = OnnxRuntimeBackend(tmp_path / "n.onnx", "cpu", 1).run({"images": images})
    with torch.inference_mode():
        boxes, scores, _, road = (v.numpy() for v in DeployedNetwork(network, SIZE)(torch.from_numpy(images)))
    found = scores > 0  # suppressed boxes come in any order
    assert np.abs(got["scores"] - scores).max() < 1e-4 and found.any()
    assert np.abs(got["boxes_xyxy"][found] - boxes[found]).max() < 0.05
    assert np.abs(got["road"].astype(int) - road.astype(int)).max() <= 1


def street_image(seed: int) -> TrainingImage:
    """Noise with a car and a road in its lower half."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((3, 16, 24), np.uint8)
    masks[0, 8:] = 1
    nothing, none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    box, one = np.array([[20, 10, 60, 40]], np.float32), np.ones(1, np.float32)
    image = rng.integers(0, 255, (*SIZE, 3), np.uint8)
    return TrainingImage(
        image, box, np.zeros(1, np.int64), nothing, none, (True,) * 3, masks, one, one, unknown_cuboids(1)
    )
