"""Build a TensorRT 10 or 11 engine from an ONNX file, on the machine that will run it.

The precision is that of the ONNX file. TensorRT 11 supports only strongly typed networks, and TensorRT 10 is set to
use them. Precision flags and calibrators are therefore not needed: fp16 is casts in the graph, int8 is Q/DQ.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.config import EngineConfig
from export.graph import load_onnx, read_spec
from perception.backends.tensorrt import find_host, import_tensorrt
from perception.engine import (
    EngineKey,
    Sidecar,
    file_sha256,
    read_sidecar,
    sidecar_path,
    why_rebuild,
    write_sidecar,
)
from perception.errors import UserError
from perception.files import write_atomically

Say = Callable[[str], None]
_HARDWARE = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


def build_engine(
    onnx_path: Path,
    engine_path: Path | None = None,
    config: EngineConfig | None = None,
    say: Say = lambda text: None,
    modules: tuple[Any, Any] | None = None,
) -> Path:
    """Build an engine beside its ONNX file, unless a current one exists.

    Args:
        onnx_path: file of `perception export`, of any precision.
        engine_path: default `<onnx>.engine`; the sidecar and the timing cache are in the same folder.
        config: profile and compatibility.
        say: receives progress messages.
        modules: `tensorrt` and `cuda.bindings.runtime`, for tests.

    Raises:
        UserError: no GPU or TensorRT is found, TensorRT cannot read the ONNX file, or the build failed.
    """
    config = config or EngineConfig()
    engine_path = engine_path or onnx_path.with_suffix(".engine")
    model = load_onnx(onnx_path)
    spec = read_spec(model, onnx_path)
    metadata = {p.key: p.value for p in model.metadata_props}
    first = model.graph.input[0]
    profile = _profile(first.type.tensor_type.shape.dim[0].dim_value, config)
    trt, cudart = modules or import_tensorrt()
    key = EngineKey(
        file_sha256(onnx_path),
        spec.precision,
        profile,
        find_host(trt, cudart),
        config.hardware,
        config.version_compatible,
    )
    if engine_path.exists() and sidecar_path(engine_path).exists():
        reason = _stale(engine_path, key)
        if not reason:
            say(f"{engine_path} is up to date: built from the same file for this machine")
            return engine_path
        say(f"{engine_path}: rebuilding, {reason}")
    say(f"building for {key.host.gpu_name} with TensorRT {key.host.tensorrt_version}, which takes minutes")
    begin = time.monotonic()
    plan = _build(trt, onnx_path, first.name, (*spec.size_hw, 3), key, config, engine_path, say)
    write_atomically(engine_path, plan, do="--out FILE")
    seconds = round(time.monotonic() - begin, 1)
    write_sidecar(engine_path, Sidecar(key, metadata, hashlib.sha256(plan).hexdigest(), seconds))
    say(f"built in {time.monotonic() - begin:.0f} s")
    return engine_path


def _profile(fixed_batch: int, config: EngineConfig) -> tuple[int, int, int]:
    return (fixed_batch,) * 3 if fixed_batch else config.batch_profile


def _stale(engine_path: Path, key: EngineKey) -> str:
    try:
        sidecar = read_sidecar(engine_path)
        if sidecar.engine_sha256 != file_sha256(engine_path):
            return "engine and sidecar are from different builds"
        return why_rebuild(sidecar.key, key)
    except UserError as error:
        return error.found


def _build(
    trt: Any,
    onnx_path: Path,
    input_name: str,
    image_shape: tuple[int, ...],
    key: EngineKey,
    config: EngineConfig,
    engine_path: Path,
    say: Say,
) -> bytes:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # required by TensorRT 10; 11 has no other networks, and may drop the flag
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_path.read_bytes()):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise UserError(f"{onnx_path}: TensorRT cannot read it ({reasons[:400]})", "an ONNX file of this project")
    options = builder.create_builder_config()
    options.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(config.workspace_gb * 2**30))
    if not config.tf32:  # TensorRT's default, with which the outputs differ from the checkpoint
        options.clear_flag(trt.BuilderFlag.TF32)
    if config.version_compatible:
        options.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if level := _HARDWARE.get(config.hardware):
        if not hasattr(trt.HardwareCompatibilityLevel, level):  # early releases of TensorRT 10 have fewer levels
            raise UserError(
                f"--hardware {config.hardware} is not supported by TensorRT {trt.__version__}",
                "a later TensorRT 10 or 11",
                "--hardware ampere-plus, or pip install -U tensorrt",
            )
        options.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    profile = builder.create_optimization_profile()
    profile.set_shape(input_name, *((batch, *image_shape) for batch in key.batch_profile))
    options.add_optimization_profile(profile)
    cache_path = _cache_path(engine_path, key)
    cache = options.create_timing_cache(cache_path.read_bytes() if cache_path.exists() else b"")
    # TensorRT rejects a damaged cache or one of another machine; the build then starts without it
    if cache is None or not options.set_timing_cache(cache, False):
        cache = options.create_timing_cache(b"")
        options.set_timing_cache(cache, False)
    options.progress_monitor = monitor = _monitor(trt, say)
    plan = builder.build_serialized_network(network, options)
    del monitor, cache  # both must outlive the build
    if plan is None:
        raise UserError(
            f"{onnx_path}: TensorRT could not build an engine", "see its messages above", "--batch-profile 1 1 1"
        )
    if (timing := options.get_timing_cache()) is not None:
        write_atomically(cache_path, bytes(timing.serialize()), do="--out FILE")
    return bytes(plan)


def _cache_path(engine_path: Path, key: EngineKey) -> Path:
    """Return the path of the timing cache, one per GPU and TensorRT version, shared by all engines of a folder."""
    gpu = "".join(c if c.isalnum() else "-" for c in key.host.gpu_name.lower())
    return engine_path.parent / f"tensorrt-{key.host.tensorrt_version}-{gpu}.timing"


def _monitor(trt: Any, say: Say) -> Any:
    """Return a progress monitor that reports the build. TensorRT calls it from several threads."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}
            self.outermost = ""
            self.said_s = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            if parent_phase is None:
                self.outermost = phase_name

        def step_complete(self, phase_name: str, step: int) -> bool:
            now = time.monotonic()
            is_last = phase_name == self.outermost and step + 1 == self.steps.get(phase_name)
            if is_last or now - self.said_s >= 2.0:
                self.said_s = now
                say(f"{phase_name}: {step + 1} of {self.steps.get(phase_name, 0)}")
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()
