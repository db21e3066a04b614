"""The exported graph says what the network says, for any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from export.onnx import OPSET, OUTPUTS, OnnxConfig, example_images, export_onnx  # noqa: E402
from perception.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from perception.detector import Detector  # noqa: E402
from perception.model import METADATA_KEY, ModelSpec  # noqa: E402
from training.backend import torch_model  # noqa: E402
from training.models.network import DeployedNetwork, ModelConfig, Network  # noqa: E402

SIZE = (96, 160)


@pytest.fixture(scope="module")
def network() -> Network:
    """Random weights with batch statistics of real spread, so that no two scores tie."""
    torch.manual_seed(1)
    network = Network(ModelConfig())
    network.train()
    with torch.no_grad():
        for seed in range(3):
            network(torch.from_numpy(example_images(SIZE, 4, seed)))
        for parameter in network.detection.class_out.parameters():
            parameter.normal_(0, 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def backend(network: Network, tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntimeBackend:
    path: Path = tmp_path_factory.mktemp("export") / "n.onnx"
    spec = ModelSpec(("Car", "Pedestrian", "Cyclist"), SIZE, name="test", road_threshold=90)
    export_onnx(network, spec, path, OnnxConfig(SIZE))
    return OnnxRuntimeBackend(path, "cpu", 1)


def test_inputs_and_outputs_are_the_contract(backend: OnnxRuntimeBackend) -> None:
    assert list(backend.inputs) == ["images"] and tuple(backend.outputs) == OUTPUTS
    assert backend.inputs["images"][1:] == (*SIZE, 3)
    out = backend.run({"images": example_images(SIZE, 2)})
    assert out["boxes_xyxy"].shape == (2, 100, 4) and out["boxes_xyxy"].dtype == np.float32
    assert out["scores"].shape == (2, 100) and out["scores"].dtype == np.float32
    assert out["class_ids"].shape == (2, 100) and out["class_ids"].dtype == np.int64
    assert out["road"].shape == (2, SIZE[0] // 4, SIZE[1] // 4) and out["road"].dtype == np.uint8
    assert (np.diff(out["scores"], axis=1) <= 0).all()


def test_the_file_describes_itself(backend: OnnxRuntimeBackend) -> None:
    spec = ModelSpec.from_metadata(backend.metadata, backend.path)
    assert spec.class_names == ("Car", "Pedestrian", "Cyclist") and spec.size_hw == SIZE and spec.road_threshold == 90
    assert METADATA_KEY in backend.metadata


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_torch_and_onnx_agree_image_by_image(network: Network, backend: OnnxRuntimeBackend, batch: int) -> None:
    images = example_images(SIZE, batch, seed=9)
    got = backend.run({"images": images})
    deployed = DeployedNetwork(network, SIZE)
    for i in range(batch):
        with torch.inference_mode():
            want = dict(zip(OUTPUTS, (v.numpy() for v in deployed(torch.from_numpy(images[i : i + 1]))), strict=True))
        assert np.abs(got["scores"][i] - want["scores"][0]).max() < 1e-4
        sure = want["scores"][0] > 0
        assert np.abs(got["boxes_xyxy"][i][sure] - want["boxes_xyxy"][0][sure]).max() < 1e-2
        assert (got["class_ids"][i][sure] == want["class_ids"][0][sure]).all()
        assert np.abs(got["road"][i].astype(int) - want["road"][0].astype(int)).max() <= 1


def test_colour_order_matters_and_is_inside(backend: OnnxRuntimeBackend) -> None:
    images = example_images(SIZE, 1, seed=2)
    images[..., 0] //= 4
    straight, swapped = (backend.run({"images": np.ascontiguousarray(x)}) for x in (images, images[..., ::-1]))
    assert np.abs(straight["scores"] - swapped["scores"]).max() > 1e-3


def test_bytes_are_cast_first_and_last(backend: OnnxRuntimeBackend) -> None:
    """TensorRT knows no bytes but in a cast: nothing else may read the picture or write the road."""
    graph = onnx.load(str(backend.path)).graph
    assert {node.op_type for node in graph.node if "images" in node.input} == {"Cast"}
    assert {node.op_type for node in graph.node if "road" in node.output} == {"Cast"}


def test_the_file_stands_alone(backend: OnnxRuntimeBackend) -> None:
    """No weights beside it, nothing but standard operators, opset and names as promised."""
    model = onnx.load(str(backend.path), load_external_data=False)
    assert not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    assert [p.name for p in backend.path.parent.iterdir()] == [backend.path.name]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"} and not model.functions
    assert [(o.domain, o.version) for o in model.opset_import if o.domain == ""] == [("", OPSET)]
    onnx.checker.check_model(model, full_check=True)


def test_a_mean_over_padding_keeps_its_digits(tmp_path: Path) -> None:
    """ONNX Runtime's mean in one sum is off by 3e-4, 50 times as much (AVX-512; other processors may differ)."""
    from export.stripped import TwoStepMean

    torch.manual_seed(1)
    # a convolution before it, as in the network: ONNX Runtime then takes its blocked layout, whose mean is one sum
    graph = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 1), torch.nn.Hardswish(), TwoStepMean())
    picture = torch.full((1, 3, 160, 288), 0.7301)
    path = tmp_path / "mean.onnx"
    torch.onnx.export(graph, (picture,), str(path), input_names=["images"], opset_version=OPSET, dynamo=False)
    got = OnnxRuntimeBackend(path, "cpu", 1).run({"images": picture.numpy()})
    with torch.no_grad():
        want = graph.double()(picture.double()).numpy()
    assert np.abs(next(iter(got.values())) - want).max() < 2e-5 * np.abs(want).max()


def test_a_torch_network_is_a_backend(network: Network, backend: OnnxRuntimeBackend) -> None:
    model = torch_model(network, SIZE, name="test")
    assert (model.backend.provider, model.backend.max_batch) == ("torch cpu", None)
    assert {name: len(shape) for name, shape in model.backend.outputs.items()} == {
        name: len(shape) for name, shape in backend.outputs.items()
    }
    assert ModelSpec.from_metadata(model.backend.metadata, "torch") == model.spec
    images = example_images(SIZE, 2, 5)
    outputs = model.backend.run({"images": images})
    kept = {name: value.copy() for name, value in outputs.items()}
    assert all(np.array_equal(kept[k], v) for k, v in model.backend.run({"images": images}).items())
    model.backend.run({"images": 255 - images})
    assert all(np.array_equal(kept[k], outputs[k]) for k in kept), "a later run leaves earlier outputs alone"


def test_a_torch_network_and_its_export_detect_the_same(network: Network, backend: OnnxRuntimeBackend) -> None:
    """Through one `Detector`, on a frame of another size."""
    image = example_images((150, 260), 1, 6)[0]
    model = torch_model(network, SIZE)
    (ours, road), (theirs, exported_road) = Detector(model)(image), Detector((backend, model.spec))(image)
    assert len(ours) == len(theirs) > 0 and road is not None and exported_road is not None
    assert np.allclose(ours.scores, theirs.scores, atol=1e-4)
    assert np.abs(road.at_frame_size().astype(int) - exported_road.at_frame_size()).max() <= 1
