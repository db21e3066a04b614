"""Engines without a GPU: keys, refusals, sidecars and the order of calls, on fakes of TensorRT and CUDA."""

from __future__ import annotations

import dataclasses
import hashlib
import types
from pathlib import Path

import numpy as np
import pytest

from perception.backends import load_model
from perception.backends.tensorrt import TensorRTBackend, find_host
from perception.engine import (
    EngineKey,
    Host,
    Sidecar,
    read_sidecar,
    sidecar_path,
    why_not_here,
    why_rebuild,
    write_sidecar,
)
from perception.errors import UserError
from perception.model import METADATA_KEY, ModelSpec

HOST = Host("10.16.1.11", "NVIDIA RTX A2000", "8.6", "580.65.06")
KEY = EngineKey("ab" * 32, "fp16", (1, 2, 4), HOST)
PLAN = b"plan of a fake engine"
SPEC = ModelSpec(("Car", "Pedestrian", "Cyclist"), (32, 64), name="fake", precision="fp16")
SHAPES = {
    "images": (-1, 32, 64, 3),
    "boxes_xyxy": (-1, 5, 4),
    "scores": (-1, 5),
    "class_ids": (-1, 5),
    "road": (-1, 8, 16),
}
TYPES = dict(zip(SHAPES, (np.uint8, np.float32, np.float32, np.int64, np.uint8), strict=True))


# ---------------------------------------------------------------- keys


def _host(**changes: str) -> Host:
    return dataclasses.replace(HOST, **changes)


def test_an_engine_runs_where_it_was_built() -> None:
    assert why_not_here(KEY, HOST) == ""


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"tensorrt_version": "10.16.1.12"}, "built with TensorRT 10.16.1.11, this machine has 10.16.1.12"),
        ({"tensorrt_version": "11.4.0.106"}, "this machine has 11.4.0.106"),
        (
            {"gpu_name": "NVIDIA T4", "compute_capability": "7.5"},
            "built for NVIDIA RTX A2000, this machine has NVIDIA T4",
        ),
        ({"driver": "575.1"}, "built with driver 580.65.06, this machine has 575.1"),
    ],
)
def test_another_machine_is_refused_in_one_line(changes: dict[str, str], word: str) -> None:
    reason = why_not_here(KEY, _host(**changes))
    assert word in reason and "\n" not in reason


def test_compatible_engines_meet_later_versions_and_other_gpus() -> None:
    later = dataclasses.replace(KEY, version_compatible=True)
    assert why_not_here(later, _host(tensorrt_version="10.17.0.1")) == ""
    assert "cannot run" in why_not_here(later, _host(tensorrt_version="10.2.0.1"))
    assert "cannot run" in why_not_here(later, _host(tensorrt_version="11.0.0.1"))
    ampere = dataclasses.replace(KEY, hardware="ampere-plus")
    assert why_not_here(ampere, _host(gpu_name="NVIDIA H200", compute_capability="9.0", driver="600")) == ""
    assert why_not_here(ampere, _host(gpu_name="NVIDIA B200", compute_capability="10.0")) == ""
    assert "Ampere" in why_not_here(ampere, _host(gpu_name="NVIDIA T4", compute_capability="7.5"))
    same = dataclasses.replace(KEY, hardware="same-compute-capability")
    assert why_not_here(same, _host(gpu_name="NVIDIA RTX 3060")) == ""
    assert "8.9" in why_not_here(same, _host(gpu_name="NVIDIA L4", compute_capability="8.9"))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"onnx_sha256": "cd" * 32}, "the ONNX file has changed"),
        ({"precision": "int8"}, "precision fp16, now int8"),
        ({"batch_profile": (1, 1, 8)}, "batch profile (1, 2, 4), now (1, 1, 8)"),
        ({"hardware": "ampere-plus"}, "other compatibility"),
        ({"version_compatible": True}, "other compatibility"),
        ({"host": _host(driver="600")}, "driver"),
    ],
)
def test_a_wish_that_differs_means_building_again(changes: dict, word: str) -> None:
    assert word in why_rebuild(KEY, dataclasses.replace(KEY, **changes))
    assert why_rebuild(KEY, KEY) == ""


# ---------------------------------------------------------------- sidecar


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "fake.engine"
    path.write_bytes(PLAN)
    metadata = {METADATA_KEY: SPEC.to_json()}
    write_sidecar(path, Sidecar(KEY, metadata, hashlib.sha256(PLAN).hexdigest(), 12.5))
    return path


def test_a_sidecar_comes_back_as_it_was(engine: Path) -> None:
    sidecar = read_sidecar(engine)
    assert sidecar.key == KEY and sidecar.build_seconds == 12.5
    assert ModelSpec.from_metadata(sidecar.metadata, engine) == SPEC
    assert not list(engine.parent.glob(".*.part"))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "key": 3, "metadata": {}}']
)
def test_a_broken_sidecar_is_a_sentence(engine: Path, content: str) -> None:
    sidecar_path(engine).write_text(content)
    with pytest.raises(UserError, match=r"broken sidecar|not JSON"):
        read_sidecar(engine)


def test_a_missing_or_newer_sidecar_is_a_sentence(engine: Path) -> None:
    sidecar_path(engine).write_text('{"format": 2}')
    with pytest.raises(UserError, match="format 2"):
        read_sidecar(engine)
    sidecar_path(engine).unlink()
    with pytest.raises(UserError, match="no such file"):
        read_sidecar(engine)


# ---------------------------------------------------------------- the backend on fakes


class FakeCuda:
    """Device memory is host memory; every call is written down."""

    cudaStreamNonBlocking, cudaHostAllocDefault = 1, 0
    cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, host: Host = HOST) -> None:
        self.host, self.calls, self.memory, self.capturing, self.captured = host, [], {}, False, []
        self.contexts: list[FakeContext] = []

    def cudaGetDeviceProperties(self, device: int):
        major, minor = self.host.compute_capability.split(".")
        name = self.host.gpu_name.encode()
        return 0, types.SimpleNamespace(name=name, major=int(major), minor=int(minor))

    def cudaDriverGetVersion(self):
        return 0, 13020

    def _allocate(self, size: int):
        array = np.zeros(size, np.uint8)
        self.memory[array.ctypes.data] = array
        return 0, array.ctypes.data

    def cudaHostAlloc(self, size: int, flags: int):
        self.calls.append("pinned")
        return self._allocate(size)

    def cudaMalloc(self, size: int):
        self.calls.append("device")
        return self._allocate(size)

    def cudaFree(self, address: int):
        del self.memory[address]
        return (0,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int):
        self._do(lambda: self.memory[to].__setitem__(slice(0, size), self.memory[source][:size]), f"copy{kind}")
        return (0,)

    def _do(self, work, name: str) -> None:
        self.calls.append(name)
        if self.capturing:
            self.captured.append(work)
        else:
            work()

    def cudaStreamCreateWithFlags(self, flags: int):
        return 0, 77

    def cudaStreamSynchronize(self, stream: int):
        self.calls.append("wait")
        return (0,)

    def cudaStreamDestroy(self, stream: int):
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int):
        self.capturing, self.captured = True, []
        return (0,)

    def cudaStreamEndCapture(self, stream: int):
        self.capturing = False
        return 0, list(self.captured)

    def cudaGraphInstantiate(self, graph: list, flags: int):
        return 0, types.SimpleNamespace(work=graph)

    def cudaGraphDestroy(self, graph: list):
        return (0,)

    def cudaGraphExecDestroy(self, graph):
        return (0,)

    def cudaGraphLaunch(self, graph, stream: int):
        self.calls.append("graph")
        for work in graph.work:
            work()
        return (0,)


class FakeContext:
    """A network whose scores are the sum of the image's first row."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.addresses, self.batch, self.batches = cuda, {}, 0, []
        cuda.contexts.append(self)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.batch = shape[0]
        self.batches.append(self.batch)
        return True

    def execute_async_v3(self, stream: int) -> bool:
        def work() -> None:
            batch = self.batch  # when it runs, not when it was captured: a context that changes spoils its graph
            images = self.cuda.memory[self.addresses["images"]].reshape(4, 32, 64, 3)[:batch]
            scores = self.cuda.memory[self.addresses["scores"]].view(np.float32).reshape(4, 5)
            scores[:batch] = images[:, 0].sum((1, 2))[:, None]

        self.cuda._do(work, "execute")
        return True


def fake_tensorrt(cuda: FakeCuda, version: str = HOST.tensorrt_version) -> types.SimpleNamespace:
    """Just what the backend touches."""
    names = list(SHAPES)
    engine = types.SimpleNamespace(
        num_io_tensors=len(names),
        get_tensor_name=lambda i: names[i],
        get_tensor_mode=lambda name: "in" if name == "images" else "out",
        get_tensor_shape=SHAPES.__getitem__,
        get_tensor_dtype=TYPES.__getitem__,
        create_execution_context=lambda: FakeContext(cuda),
    )
    runtime = types.SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if plan == PLAN else None)
    logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None})
    return types.SimpleNamespace(
        __version__=version,
        Logger=logger,
        Runtime=lambda log: runtime,
        TensorIOMode=types.SimpleNamespace(INPUT="in"),
        nptype=lambda dtype: dtype,
    )


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    monkeypatch.setattr("perception.backends.tensorrt._driver", lambda cudart: cudart.host.driver)
    return FakeCuda()


def test_a_batch_goes_through_and_comes_back(engine: Path, cuda: FakeCuda) -> None:
    backend = TensorRTBackend(engine, modules=(fake_tensorrt(cuda), cuda))
    assert backend.inputs == {"images": ("N", 32, 64, 3)}
    assert (backend.provider, backend.max_batch) == ("TensorRT", 4)
    assert backend.outputs["road"] == ("N", 8, 16) and next(iter(backend.outputs)) == "boxes_xyxy"
    assert ModelSpec.from_metadata(backend.metadata, engine) == SPEC
    allocated = cuda.calls.count("pinned"), cuda.calls.count("device")
    images = np.random.default_rng(0).integers(0, 255, (3, 32, 64, 3), np.uint8)
    for _ in range(3):
        images = images[::-1].copy()
        out = backend.run({"images": images})
        assert np.array_equal(out["scores"][:, 0], images[:, 0].sum((1, 2), dtype=np.float32))
        assert out["class_ids"].dtype == np.int64 and out["boxes_xyxy"].shape == (3, 5, 4)
    assert (cuda.calls.count("pinned"), cuda.calls.count("device")) == allocated == (5, 5)
    assert cuda.calls.count("graph") == 2, "one plain run, then the captured graph"
    first = backend.run({"images": images[:1]})
    assert first["scores"].shape == (1, 5) and np.array_equal(first["scores"][0], out["scores"][0])
    again = backend.run({"images": images})
    assert np.array_equal(again["scores"], out["scores"]) and cuda.calls.count("graph") == 3
    assert [c.batches for c in cuda.contexts] == [[3], [1]], "a context for each batch size, never told another"
    backend.close()
    backend.close()
    assert not cuda.memory


def test_a_network_that_cannot_be_captured_runs_kernel_by_kernel(engine: Path, cuda: FakeCuda) -> None:
    for name in ("cudaStreamEndCapture", "cudaGraphInstantiate"):
        cuda.calls.clear()
        broken = type(
            "Broken", (FakeCuda,), {name: lambda self, *args: (setattr(self, "capturing", False), (901, None))[1]}
        )
        backend = TensorRTBackend(engine, modules=(fake_tensorrt(other := broken()), other))
        images = np.full((2, 32, 64, 3), 3, np.uint8)
        for _ in range(3):
            assert np.array_equal(backend.run({"images": images})["scores"], np.full((2, 5), 3 * 64 * 3, np.float32))
        assert "graph" not in other.calls and other.calls.count("execute") == 4, "three runs and the attempt"
        backend.close()
        assert not other.memory


def test_sides_that_only_a_context_knows_get_buffers_of_their_size(engine: Path, cuda: FakeCuda) -> None:
    """TensorRT says -1 for sides that the graph computes; as sizes, two of them would make one tiny buffer."""
    trt = fake_tensorrt(cuda)
    loaded = trt.Runtime(None).deserialize_cuda_engine(PLAN)
    loaded.get_tensor_shape = lambda name: (-1, -1, -1) if name == "boxes_xyxy" else SHAPES[name]

    class Context(FakeContext):
        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return (self.batch, *SHAPES[name][1:])

    loaded.create_execution_context = lambda: Context(cuda)
    backend = TensorRTBackend(engine, modules=(trt, cuda))
    assert backend.outputs["boxes_xyxy"] == ("N", 5, 4) and cuda.contexts[0].batches == [4]
    assert backend.run({"images": np.ones((2, 32, 64, 3), np.uint8)})["boxes_xyxy"].shape == (2, 5, 4)
    backend.close()
    Context.get_tensor_shape = lambda self, name: (self.batch, -1, 4)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="boxes_xyxy has no fixed shape"):
        TensorRTBackend(engine, modules=(trt, cuda))


def test_results_are_not_overwritten_by_the_next_batch(engine: Path, cuda: FakeCuda) -> None:
    backend = TensorRTBackend(engine, cuda_graph=False, modules=(fake_tensorrt(cuda), cuda))
    one = backend.run({"images": np.ones((1, 32, 64, 3), np.uint8)})["scores"]
    kept = one.copy()
    backend.run({"images": np.full((1, 32, 64, 3), 9, np.uint8)})
    assert np.array_equal(one, kept) and "graph" not in cuda.calls
    backend.close()


def test_a_batch_outside_the_profile_is_refused(engine: Path, cuda: FakeCuda) -> None:
    backend = TensorRTBackend(engine, modules=(fake_tensorrt(cuda), cuda))
    with pytest.raises(UserError, match="a batch of 5"):
        backend.run({"images": np.zeros((5, 32, 64, 3), np.uint8)})
    with pytest.raises(ValueError, match="images"):
        backend.run({"images": np.zeros((1, 32, 60, 3), np.uint8)})
    with pytest.raises(ValueError, match="expected"):
        backend.run({"pictures": np.zeros((1, 32, 64, 3), np.uint8)})
    backend.close()


def test_a_stranger_is_refused_before_anything_is_loaded(engine: Path, cuda: FakeCuda) -> None:
    with pytest.raises(UserError, match=r"built with TensorRT 10.16.1.11, this machine has 11.4.0.106"):
        TensorRTBackend(engine, modules=(fake_tensorrt(cuda, "11.4.0.106"), cuda))
    engine.write_bytes(PLAN + b"!")
    with pytest.raises(UserError, match="not the engine that"):
        TensorRTBackend(engine, modules=(fake_tensorrt(cuda), cuda))


def test_an_engine_on_the_cpu_is_refused(engine: Path) -> None:
    with pytest.raises(UserError, match="on the CPU"):
        load_model(engine, "cpu")


def test_without_tensorrt_the_sentence_says_what_to_install(engine: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except (ImportError, OSError):
        with pytest.raises(UserError, match=r"perception-pipeline\[tensorrt\]"):
            load_model(engine)
    else:
        pytest.skip("TensorRT is installed here")


def test_the_host_is_described(cuda: FakeCuda) -> None:
    assert find_host(fake_tensorrt(cuda), cuda) == HOST
