"""A real ONNX file small enough to build in a test, pictures, and a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.model import METADATA_KEY, ModelSpec
from perception.types import CLASS_NAMES

TINY_HW = (96, 320)


def write_tiny_model(path: Path, size_hw: tuple[int, int] = TINY_HW, dynamic_batch: bool = True) -> Path:
    """An ONNX file that obeys the contract: the same three boxes and the lower half as road for every picture."""
    onnx = pytest.importorskip("onnx", reason="the tiny model is made with onnx (pip install -e '.[export]')")
    from onnx import TensorProto, helper, numpy_helper

    height, width = size_hw
    boxes = np.array([[40, 30, 90, 70], [150, 40, 180, 80], [0, 0, 5, 5], [0, 0, 0, 0]], np.float32)[None]
    scores = np.array([[0.9, 0.8, 0.05, 0.0]], np.float32)
    class_ids = np.array([[0, 1, 2, 0]], np.int64)
    road = np.zeros((1, height // 4, width // 4), np.uint8)
    road[:, height // 8 :] = 230
    constants = {"boxes_xyxy": boxes, "scores": scores, "class_ids": class_ids, "road": road}
    nodes = [
        helper.make_node("Shape", ["images"], ["count"], start=0, end=1),
    ]
    initializers, outputs = [], []
    for name, value in constants.items():
        initializers.append(numpy_helper.from_array(value, f"{name}_one"))
        initializers.append(numpy_helper.from_array(np.array(value.shape[1:], np.int64), f"{name}_rest"))
        nodes.append(helper.make_node("Concat", ["count", f"{name}_rest"], [f"{name}_shape"], axis=0))
        nodes.append(helper.make_node("Expand", [f"{name}_one", f"{name}_shape"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        outputs.append(helper.make_tensor_value_info(name, kind, ["N", *value.shape[1:]]))
    batch = "N" if dynamic_batch else 1
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, height, width, 3])
    graph = helper.make_graph(nodes, "tiny", [images], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    spec = ModelSpec(CLASS_NAMES, size_hw, name="tiny")
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with a batch of any size."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / f"tiny-{TINY_HW[0]}x{TINY_HW[1]}.onnx")


def write_video(path: Path, frames: int = 20, size_hw: tuple[int, int] = (96, 320), rate: int = 10) -> Path:
    """A short H.264 file: noise, so that no two pictures are the same, and a bright square that moves."""
    from perception.sinks.video import H264Writer

    noise = np.random.default_rng(0)
    writer = H264Writer(path, rate)
    for i in range(frames):
        image = noise.integers(60, 180, (*size_hw, 3)).astype(np.uint8)
        image[20:40, 5 * i : 5 * i + 20] = 255
        writer.write(image, i * 10**9 // rate)
    writer.close()
    return path


@pytest.fixture
def long_video(tmp_path: Path) -> Path:
    """A minute at 10 Hz."""
    return write_video(tmp_path / "long.mp4", frames=600)


@pytest.fixture(scope="session")
def video_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames at 10 Hz, 320×96."""
    return write_video(tmp_path_factory.mktemp("video") / "drive.mp4")
