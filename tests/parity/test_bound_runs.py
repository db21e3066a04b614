"""I/O binding: the same answers from buffers that are allocated once; on a GPU the provider that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.backends.onnxruntime import BoundRuns, OnnxRuntimeBackend
from perception.errors import UserError


def _images(batch: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, 96, 160, 3), np.uint8)


def test_bound_runs_say_what_plain_runs_say(fp32_file: Path) -> None:
    """On CPU buffers, which is the same code with another device's name."""
    backend = OnnxRuntimeBackend(fp32_file, "cpu", 1)
    runs = BoundRuns(backend.session, "cpu")
    kept = None
    for batch, seed in ((1, 0), (3, 1), (1, 2), (3, 3)):
        images = _images(batch, seed)
        bound, plain = runs.run({"images": images}), backend.run({"images": images})
        assert list(bound) == list(plain)
        for name, values in plain.items():
            assert bound[name].dtype == values.dtype and np.array_equal(bound[name], values), name
        kept = kept or (bound["boxes_xyxy"], bound["boxes_xyxy"].copy())
    assert len(runs._bound) == 2, "one set of buffers for each batch size"
    assert np.array_equal(*kept), "results must not be overwritten by later runs"


def test_a_device_that_is_not_there_is_refused(fp32_file: Path) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("a GPU is here")
    for device in ("cuda", "tensorrt"):
        with pytest.raises(UserError, match=device):
            OnnxRuntimeBackend(fp32_file, device, 1)
    assert OnnxRuntimeBackend(fp32_file, "auto", 1).provider == "CPUExecutionProvider"


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_gpu_says_what_the_cpu_says(fp32_file: Path, device: str) -> None:
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("no GPU here")
    gpu, cpu = OnnxRuntimeBackend(fp32_file, device), OnnxRuntimeBackend(fp32_file, "cpu")
    assert gpu.provider == {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[device]
    for batch in (1, 3, 8):
        images = _images(batch, batch)
        a, b = gpu.run({"images": images}), cpu.run({"images": images})
        assert np.abs(a["scores"] - b["scores"]).max() < 1e-3


@pytest.mark.gpu
def test_a_cuda_graph_says_what_the_cpu_says(checkpoint: Path, tmp_path: Path) -> None:
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("no GPU here")
    from export.checkpoint import export_checkpoint

    path = export_checkpoint(checkpoint, tmp_path / "one.onnx", (96, 160), 1, "test")
    gpu, cpu = OnnxRuntimeBackend(path, "cuda", cuda_graph=True), OnnxRuntimeBackend(path, "cpu")
    for seed in range(4):
        a, b = gpu.run({"images": _images(1, seed)}), cpu.run({"images": _images(1, seed)})
        assert np.abs(a["scores"] - b["scores"]).max() < 1e-3


@pytest.mark.gpu
def test_an_engine_says_what_onnx_says(fp32_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt")
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("no GPU here")
    from export.engine import EngineConfig, build_engine
    from perception.backends.tensorrt import TensorRTBackend

    said: list[str] = []
    engine = build_engine(fp32_file, tmp_path / "n.engine", EngineConfig((1, 2, 8)), said.append)
    assert build_engine(fp32_file, engine, EngineConfig((1, 2, 8)), said.append) == engine and "fits" in said[-1]
    trt, cpu = TensorRTBackend(engine), OnnxRuntimeBackend(fp32_file, "cpu")
    for batch in (1, 3, 8, 1):
        images = _images(batch, batch)
        a, b = trt.run({"images": images}), cpu.run({"images": images})
        assert np.abs(a["scores"] - b["scores"]).max() < 1e-3
    trt.close()
