"""ONNX Runtime's CUDA graphs without a GPU: what is asked of it, what is refused, and which number a run carries."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.backends import load_model
from perception.backends import onnxruntime as backend_module
from perception.backends.onnxruntime import BoundRuns, OnnxRuntimeBackend, provider_options, why_no_graph
from perception.errors import UserError
from perception.model import METADATA_KEY, ModelSpec

SPEC = ModelSpec(("Car",), (32, 64), name="fake")


class FakeSession:
    """Looks like a session on a GPU; its one score is the mean of each image."""

    def __init__(
        self, provider: str = "CUDAExecutionProvider", batch: int | str = "N", width: int | str = 64
    ) -> None:
        self.provider, self.runs = provider, []
        tensor = types.SimpleNamespace
        self.inputs = [tensor(name="images", shape=[batch, 32, width, 3], type="tensor(uint8)")]
        self.outputs = [
            tensor(name="scores", shape=[batch, 1], type="tensor(float)"),
            tensor(name="boxes_xyxy", shape=[batch, 1, 4], type="tensor(float)"),
            tensor(name="class_ids", shape=[batch, 1], type="tensor(int64)"),
        ]

    def get_providers(self) -> list[str]:
        return [self.provider, "CPUExecutionProvider"]

    def get_inputs(self) -> list[Any]:
        return self.inputs

    def get_outputs(self) -> list[Any]:
        return self.outputs

    def get_modelmeta(self) -> Any:
        return types.SimpleNamespace(custom_metadata_map={METADATA_KEY: SPEC.to_json()})

    def io_binding(self) -> Any:
        bound: dict[str, Any] = {}
        return types.SimpleNamespace(
            bound=bound,
            bind_ortvalue_input=bound.__setitem__,
            bind_ortvalue_output=bound.__setitem__,
            synchronize_outputs=lambda: None,
        )

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        graph = options.get_run_config_entry("gpu_graph_id") if self.named(options) else ""
        images, scores = binding.bound["images"], binding.bound["scores"]
        scores.update_inplace(images.numpy().mean(axis=(1, 2, 3))[:, None].astype(np.float32))
        self.runs.append((graph, images.data_ptr(), scores.data_ptr()))

    @staticmethod
    def named(options: Any) -> bool:
        try:
            return bool(options.get_run_config_entry("gpu_graph_id"))
        except RuntimeError:
            return False


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the backend asked for when it opened a session; `session` is what it gets."""
    found: dict[str, Any] = {"session": FakeSession()}

    def session(path: Path, device: str, threads: int, cuda_graph: bool = False) -> Any:
        found.update(device=device, cuda_graph=cuda_graph)
        if isinstance(found["session"], Exception):
            raise found["session"]
        return found["session"]

    monkeypatch.setattr(backend_module, "_session", session)
    monkeypatch.setattr(backend_module, "load_gpu_libraries", lambda device: "")
    monkeypatch.setattr(backend_module, "_cuda_present", lambda: found.get("gpu", True))
    monkeypatch.setattr(backend_module.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"read by nobody here")
    return path


def test_only_the_first_provider_captures() -> None:
    cuda, cpu = provider_options("cuda", True)
    assert cuda == ("CUDAExecutionProvider", {"use_tf32": "0", "enable_cuda_graph": "1"}) and cpu[1] == {}
    tensorrt, cuda, _ = provider_options("tensorrt", True)
    assert tensorrt[1] == {"trt_cuda_graph_enable": "True"}, "its parser knows True and False alone"
    assert "enable_cuda_graph" not in cuda[1]
    assert provider_options("cuda", False)[0][1] == {"use_tf32": "0"}


def test_each_batch_size_has_its_own_number_and_its_own_buffers() -> None:
    session = FakeSession()
    runs = BoundRuns(session, "cpu", graph_ids=True)  # type: ignore[arg-type]
    for batch in (1, 3, 1, 3):
        images = np.random.default_rng(batch).integers(0, 256, (batch, 32, 64, 3), np.uint8)
        found = runs.run({"images": images})["scores"]
        assert np.allclose(found[:, 0], images.mean(axis=(1, 2, 3)))
    assert [graph for graph, _, _ in session.runs] == ["1", "3", "1", "3"]
    assert session.runs[0] == session.runs[2] and session.runs[1] == session.runs[3], "addresses never move"
    assert session.runs[0][1:] != session.runs[1][1:]


def test_without_a_graph_runs_carry_no_number() -> None:
    session = FakeSession()
    BoundRuns(session, "cpu").run({"images": np.zeros((1, 32, 64, 3), np.uint8)})  # type: ignore[arg-type]
    assert session.runs[0][0] == ""


def test_load_model_hands_the_wish_on(file: Path, asked: dict[str, Any]) -> None:
    backend, spec = load_model(file, "cuda", cuda_graph=True)
    assert asked["device"] == "cuda" and asked["cuda_graph"] is True and spec == SPEC
    assert isinstance(backend, OnnxRuntimeBackend) and backend._runs is not None and backend._runs._graph_ids
    backend, _ = load_model(file, "cuda")
    assert asked["cuda_graph"] is False and not backend._runs._graph_ids  # type: ignore[attr-defined]


def test_a_graph_on_the_cpu_is_refused_and_with_auto_has_no_meaning(file: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="CUDA graph on the CPU"):
        load_model(file, "cpu", cuda_graph=True)
    asked.update(session=FakeSession("CPUExecutionProvider"), gpu=False)
    backend, _ = load_model(file, "auto", cuda_graph=True)
    assert asked["device"] == "cpu" and asked["cuda_graph"] is False and backend._runs is None  # type: ignore[attr-defined]


def test_a_graph_that_cannot_be_had_is_refused_rather_than_replaced(file: Path, asked: dict[str, Any]) -> None:
    """Also with auto: who asks for a graph has a GPU, and must not land on the CPU without a word."""
    asked["session"] = RuntimeError("nodes have not been partitioned to the CUDAExecutionProvider")
    for device in ("cuda", "auto"):
        with pytest.raises(UserError, match=r"with a CUDA graph .nodes have not been partitioned"):
            load_model(file, device, cuda_graph=True)  # type: ignore[arg-type]
    asked["session"] = FakeSession(width="W")
    with pytest.raises(UserError, match="more than the batch"):
        load_model(file, "cuda", cuda_graph=True)
    assert load_model(file, "cuda").backend._runs is None, "no buffers can be made for free shapes"  # type: ignore[attr-defined]


def test_tensorrts_provider_wants_a_fixed_batch(file: Path, asked: dict[str, Any]) -> None:
    free, fixed = FakeSession("TensorrtExecutionProvider"), FakeSession("TensorrtExecutionProvider", batch=2)
    assert "batch is free" in why_no_graph(free, free.provider)  # type: ignore[arg-type]
    assert why_no_graph(fixed, fixed.provider) == "" == why_no_graph(free, "CUDAExecutionProvider")  # type: ignore[arg-type]
    asked["session"] = free
    with pytest.raises(UserError, match="batch is free"):
        load_model(file, "tensorrt", cuda_graph=True)
    asked["session"] = fixed
    assert load_model(file, "tensorrt", cuda_graph=True).backend._runs is not None  # type: ignore[attr-defined]
