"""The engine builder on a fake TensorRT: what it asks for, when it builds again, and when it need not."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from export.engine import EngineConfig, build_engine  # noqa: E402
from export.graph import write_spec  # noqa: E402
from perception.engine import Host, file_sha256, read_sidecar, sidecar_path  # noqa: E402
from perception.errors import UserError  # noqa: E402
from perception.model import ModelSpec  # noqa: E402

HOST = Host("11.4.0.106", "NVIDIA H200", "9.0", "580.1")


class _Monitor:
    """The base class that a monitor must call the constructor of."""

    def __init__(self) -> None:
        self.ready = True


class FakeTensorRT:
    """Writes down what a build asks for; the plan is made of the answers."""

    Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None})
    NetworkDefinitionCreationFlag = types.SimpleNamespace(STRONGLY_TYPED=1)
    MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
    BuilderFlag = types.SimpleNamespace(TF32="tf32", VERSION_COMPATIBLE="versions")
    HardwareCompatibilityLevel = types.SimpleNamespace(AMPERE_PLUS="ampere", SAME_COMPUTE_CAPABILITY="same")
    IProgressMonitor = _Monitor

    def __init__(self, version: str = HOST.tensorrt_version, plan: bool = True, reads: bool = True) -> None:
        self.__version__, self.plan, self.reads, self.builds = version, plan, reads, 0
        self.asked: dict[str, Any] = {"flags": [], "cleared": [], "cache": None}

    def Builder(self, logger: Any) -> Any:
        profile = types.SimpleNamespace(set_shape=lambda name, *shapes: self.asked.update(profile=(name, *shapes)))
        return types.SimpleNamespace(
            create_network=lambda flags: self.asked.update(network=flags) or "network",
            create_builder_config=self._config,
            create_optimization_profile=lambda: profile,
            build_serialized_network=self._build,
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return types.SimpleNamespace(parse=lambda data: self.reads, num_errors=1, get_error=lambda i: "no kernel")

    def _config(self) -> Any:
        cache = types.SimpleNamespace(serialize=lambda: b"timings")
        self.config = types.SimpleNamespace(
            set_memory_pool_limit=lambda pool, size: self.asked.update(workspace=size),
            clear_flag=self.asked["cleared"].append,
            set_flag=self.asked["flags"].append,
            add_optimization_profile=lambda profile: 0,
            create_timing_cache=lambda data: self.asked.update(cache=data) or cache,
            set_timing_cache=lambda cache, ignore: True,
            get_timing_cache=lambda: cache,
            hardware_compatibility_level="none",
        )
        return self.config

    def _build(self, network: Any, config: Any) -> bytes | None:
        self.builds += 1
        monitor = config.progress_monitor
        assert monitor.ready
        monitor.phase_start("Building", None, 2)
        assert monitor.step_complete("Building", 0) is True and monitor.step_complete("Building", 1) is True
        monitor.phase_finish("Building")
        return b"plan %d" % self.builds if self.plan else None


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(trt: Any, cudart: Any) -> Host:
        return Host(trt.__version__, HOST.gpu_name, HOST.compute_capability, HOST.driver)

    monkeypatch.setattr("export.engine.find_host", find)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    value = helper.make_tensor_value_info
    shape = ("N", 32, 64, 3)
    nodes = [helper.make_node("Identity", ["images"], ["road"], "same")]
    ends = [value("images", TensorProto.UINT8, shape)], [value("road", TensorProto.UINT8, shape)]
    model = helper.make_model(helper.make_graph(nodes, "x", *ends), opset_imports=[helper.make_opsetid("", 18)])
    write_spec(model, ModelSpec(("Car",), (32, 64), precision="fp16"))
    onnx.save(model, str(tmp_path / "x.onnx"))
    return tmp_path / "x.onnx"


def test_a_build_asks_for_what_was_wanted(file: Path) -> None:
    trt, said = FakeTensorRT(), []
    engine = build_engine(file, None, EngineConfig((1, 2, 8)), said.append, (trt, None))
    assert engine == file.with_suffix(".engine") and engine.read_bytes() == b"plan 1"
    assert trt.asked["network"] == 1 << 1, "strongly typed, as TensorRT 10 must be asked"
    assert trt.asked["profile"] == ("images", (1, 32, 64, 3), (2, 32, 64, 3), (8, 32, 64, 3))
    assert trt.asked["cleared"] == ["tf32"] and trt.asked["flags"] == [] and trt.asked["cache"] == b""
    key = read_sidecar(engine).key
    assert (key.host, key.precision, key.batch_profile) == (HOST, "fp16", (1, 2, 8))
    assert key.onnx_sha256 == file_sha256(file)
    assert "Building: 2 of 2" in said and any("takes minutes" in line for line in said)


def test_the_timing_cache_is_taken_up_again(file: Path) -> None:
    build_engine(file, None, None, modules=(FakeTensorRT(), None))
    caches = list(file.parent.glob("*.timing"))
    assert [c.name for c in caches] == ["tensorrt-11.4.0.106-nvidia-h200.timing"] and caches[
        0
    ].read_bytes() == b"timings"
    again = FakeTensorRT()
    build_engine(file, file.with_name("other.engine"), None, modules=(again, None))
    assert again.asked["cache"] == b"timings"


def test_an_engine_that_fits_is_not_built_again(file: Path) -> None:
    trt, said = FakeTensorRT(), []
    for _ in range(2):
        engine = build_engine(file, None, None, said.append, (trt, None))
    assert trt.builds == 1 and "fits" in said[-1]
    build_engine(file, None, EngineConfig((1, 1, 8)), said.append, (trt, None))
    assert trt.builds == 2 and any("rebuilding, batch profile (1, 1, 4), now (1, 1, 8)" in s for s in said)
    newer = FakeTensorRT("11.5.0.1")
    build_engine(file, None, EngineConfig((1, 1, 8)), said.append, (newer, None))
    assert newer.builds == 1 and any("built with TensorRT 11.4.0.106, this machine has 11.5.0.1" in s for s in said)
    engine.write_bytes(b"cut short")
    build_engine(file, None, EngineConfig((1, 1, 8)), said.append, (newer, None))
    assert newer.builds == 2 and any("from different builds" in s for s in said)
    sidecar_path(engine).write_text("{")
    build_engine(file, None, EngineConfig((1, 1, 8)), said.append, (newer, None))
    assert newer.builds == 3 and any("not JSON" in s for s in said)


def test_engines_that_may_travel(file: Path) -> None:
    trt = FakeTensorRT()
    config = EngineConfig(hardware="ampere-plus", version_compatible=True, tf32=True)
    engine = build_engine(file, None, config, modules=(trt, None))
    assert trt.asked["flags"] == ["versions"] and trt.asked["cleared"] == []
    assert trt.config.hardware_compatibility_level == "ampere"
    assert read_sidecar(engine).key.version_compatible


def test_a_cache_of_another_machine_is_left_aside(file: Path) -> None:
    """TensorRT refuses it; a fresh one takes its place, and must live until the build is over."""
    alive: list[bytes] = []

    class Cache:
        def __init__(self, data: bytes) -> None:
            self.data = data
            alive.append(data)

        def __del__(self) -> None:
            alive.remove(self.data)

        def serialize(self) -> bytes:
            return b"new timings"

    class Picky(FakeTensorRT):
        def _config(self) -> Any:
            config = super()._config()
            config.create_timing_cache = Cache
            config.set_timing_cache = lambda cache, ignore: cache.data == b""
            return config

        def _build(self, network: Any, config: Any) -> bytes | None:
            assert alive == [b""]
            return super()._build(network, config)

    (file.parent / "tensorrt-11.4.0.106-nvidia-h200.timing").write_bytes(b"strange")
    trt = Picky()
    build_engine(file, None, None, modules=(trt, None))
    assert trt.builds == 1


def test_a_broken_cache_is_left_aside(file: Path) -> None:
    """TensorRT makes no cache of it at all."""

    class Picky(FakeTensorRT):
        def _config(self) -> Any:
            config, given = super()._config(), []
            whole, attach = config.create_timing_cache, config.set_timing_cache
            config.create_timing_cache = lambda data: None if data else whole(data)
            config.set_timing_cache = lambda cache, ignore: given.append(cache.serialize()) or attach(cache, ignore)
            return config

    (file.parent / "tensorrt-11.4.0.106-nvidia-h200.timing").write_bytes(b"broken")
    trt = Picky()
    build_engine(file, None, None, modules=(trt, None))
    assert trt.builds == 1


def test_a_compatibility_that_this_tensorrt_lacks_is_a_sentence(file: Path) -> None:
    """SAME_COMPUTE_CAPABILITY is not in TensorRT 10.3."""
    old = FakeTensorRT("10.3.0")
    old.HardwareCompatibilityLevel = types.SimpleNamespace(AMPERE_PLUS="ampere")  # type: ignore[misc]
    with pytest.raises(UserError, match=r"not supported by TensorRT 10\.3\.0"):
        build_engine(file, None, EngineConfig(hardware="same-compute-capability"), modules=(old, None))


def test_failures_are_sentences_and_leave_nothing_behind(file: Path) -> None:
    with pytest.raises(UserError, match="no kernel"):
        build_engine(file, None, None, modules=(FakeTensorRT(reads=False), None))
    with pytest.raises(UserError, match="could not build"):
        build_engine(file, None, None, modules=(FakeTensorRT(plan=False), None))
    assert not list(file.parent.glob("*.engine*"))
    with pytest.raises(UserError, match="MIN BEST MAX"):
        EngineConfig((4, 2, 8))
