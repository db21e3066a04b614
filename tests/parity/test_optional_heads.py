"""A one-to-one head and distances survive the export, say so in the file, and reach the runtime in its own terms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from export.fp16 import to_fp16  # noqa: E402
from export.onnx import OnnxConfig, example_images, export_onnx  # noqa: E402
from perception.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from perception.cameras.letterbox import letterbox  # noqa: E402
from perception.detector import read_outputs  # noqa: E402
from perception.errors import UserError  # noqa: E402
from perception.model import ModelSpec  # noqa: E402
from training.models.heads.detection import DetectionConfig  # noqa: E402
from training.models.network import DeployedNetwork, ModelConfig, Network  # noqa: E402

SIZE = (64, 96)
SPEC = ModelSpec(("Car", "Pedestrian", "Cyclist"), SIZE, name="test")


@pytest.fixture(scope="module")
def network() -> Network:
    """Random weights with batch statistics of real spread, so that no two scores tie."""
    torch.manual_seed(1)
    detection = DetectionConfig(distance=True, cuboid=True, max_detections=20)
    network = Network(ModelConfig(channels=16, one_to_one=True, detection=detection))
    network.train()
    with torch.no_grad():
        for seed in range(3):
            network(torch.from_numpy(example_images(SIZE, 4, seed)))
        for head in (network.detection, network.one_to_one):
            for parameter in head.class_out.parameters():
                parameter.normal_(0, 0.5)
    return network.eval()


@pytest.mark.parametrize("one_to_one", [True, False])
def test_each_head_leaves_the_graph_as_torch_says(network: Network, tmp_path: Path, one_to_one: bool) -> None:
    path = tmp_path / "n.onnx"
    model = export_onnx(network, SPEC, path, OnnxConfig(SIZE, one_to_one=one_to_one))
    backend = OnnxRuntimeBackend(path, "cpu", 1)
    assert tuple(backend.outputs) == network.output_names and backend.outputs["distances"][1:] == (20, 2)
    assert backend.outputs["cuboids"][1:] == (20, 9)
    images = example_images(SIZE, 3, 7)
    got = backend.run({"images": images})
    with torch.inference_mode():
        outputs = DeployedNetwork(network, SIZE, one_to_one)(torch.from_numpy(images))
    found = got["scores"] > 0  # what is suppressed lies about in any order
    assert found.sum() >= 3
    for name, value in zip(network.output_names, outputs, strict=True):
        mine, theirs = (got[name], value.numpy()) if name == "road" else (got[name][found], value.numpy()[found])
        assert np.allclose(mine, theirs, rtol=1e-3, atol=1e-3 if name != "road" else 1), name
    assert ModelSpec.from_metadata(backend.metadata, path).suppression is not one_to_one
    # what suppresses is a product of overlaps: the one-to-one graph has none of it, and one top-k less
    top_k = sum(node.op_type == "TopK" for node in model.graph.node)
    assert top_k == (1 if one_to_one else 2)


def test_the_one_to_one_head_is_taken_where_there_is_one(network: Network, tmp_path: Path) -> None:
    export_onnx(network, SPEC, tmp_path / "n.onnx", OnnxConfig(SIZE))
    assert not ModelSpec.from_metadata(OnnxRuntimeBackend(tmp_path / "n.onnx", "cpu", 1).metadata, "n").suppression
    with pytest.raises(UserError, match="no one-to-one head"):
        export_onnx(Network(ModelConfig(channels=16)), SPEC, tmp_path / "m.onnx", OnnxConfig(SIZE, one_to_one=True))


def test_half_precision_keeps_the_types_of_optional_outputs(network: Network, tmp_path: Path) -> None:
    model = to_fp16(export_onnx(network, SPEC, tmp_path / "n.onnx", OnnxConfig(SIZE)))
    onnx.save(model, str(tmp_path / "half.onnx"))
    images = example_images(SIZE, 1, 7)
    half, full = (OnnxRuntimeBackend(tmp_path / n, "cpu", 1).run({"images": images}) for n in ("half.onnx", "n.onnx"))
    assert half["distances"].dtype == np.float32
    # scores that nearly tie may change places, so the sorted values are compared
    assert np.allclose(np.sort(half["distances"][0, :, 0]), np.sort(full["distances"][0, :, 0]), rtol=0.1)


def test_depth_is_told_in_the_frames_own_pixels(network: Network) -> None:
    """A frame of twice the network's size has twice the focal length: depth over focal length is half as much."""
    frame = np.zeros((128, 192, 3), np.uint8)
    _, placed = letterbox(frame, SIZE)
    outputs = {
        "boxes_xyxy": np.array([[[10, 10, 20, 20], [30, 30, 40, 40]]], np.float32),
        "scores": np.array([[0.9, 0.2]], np.float32),
        "class_ids": np.array([[0, 1]]),
        "distances": np.array([[[0.04, 0.1], [0.08, 0.2]]], np.float32),
    }
    detections, _ = read_outputs(outputs, 0, placed, 0.5)
    assert detections.depths is not None and len(detections) == 1
    assert detections.depths[0].tolist() == pytest.approx([0.02, 0.1])
    assert read_outputs({k: v for k, v in outputs.items() if k != "distances"}, 0, placed)[0].depths is None
    everything, _ = read_outputs(outputs, 0, placed)
    chosen = everything[np.array([False, True])].depths
    assert chosen is not None and chosen[0, 0] == pytest.approx(0.04)
