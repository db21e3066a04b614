"""A TensorRT engine's sidecar: what it was built from and for, so that another machine refuses it clearly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from perception.errors import UserError
from perception.files import read_json, write_atomically

FORMAT = 1
Hardware = Literal["same-gpu", "same-compute-capability", "ampere-plus"]


@dataclass(frozen=True)
class Host:
    """What an engine depends on, as found on a machine."""

    tensorrt_version: str
    """As `10.16.1.11`."""
    gpu_name: str
    compute_capability: str
    """As `9.0`."""
    driver: str
    """Version of the NVIDIA driver."""


@dataclass(frozen=True)
class EngineKey:
    """Everything that decides whether an engine may be reused."""

    onnx_sha256: str
    """Hash of the file it was built from."""
    precision: str
    """fp32, fp16 or int8, as in that file's metadata."""
    batch_profile: tuple[int, int, int]
    """Smallest, best and largest batch."""
    host: Host
    """Where it was built."""
    hardware: Hardware = "same-gpu"
    """Which other GPUs may run it."""
    version_compatible: bool = False
    """Whether later TensorRT versions may run it."""


@dataclass(frozen=True)
class Sidecar:
    """The JSON file beside an engine."""

    key: EngineKey
    metadata: Mapping[str, str]
    """The ONNX file's metadata, which holds the `ModelSpec`."""
    engine_sha256: str
    """Hash of the engine. It differs if a build was interrupted between the two files."""
    build_seconds: float = 0.0
    format: int = field(default=FORMAT)


def sidecar_path(engine: Path) -> Path:
    """`nano.engine` → `nano.engine.json`."""
    return engine.with_name(engine.name + ".json")


def write_sidecar(engine: Path, sidecar: Sidecar) -> None:
    """Write the sidecar of an engine.

    Raises:
        UserError: it cannot be written.
    """
    write_atomically(sidecar_path(engine), json.dumps(asdict(sidecar), indent=1), do="--out FILE")


def read_sidecar(engine: Path) -> Sidecar:
    """Read the sidecar of an engine.

    Raises:
        UserError: missing, broken or of another format.
    """
    path, again = sidecar_path(engine), "perception export CHECKPOINT --format engine"
    try:
        values = read_json(path, "the sidecar that was written with the engine", again)
        if values["format"] != FORMAT:
            raise UserError(f"{path}: format {values['format']!r}", f"format {FORMAT}", again)
        key = _known(EngineKey, values["key"])
        key["host"] = Host(**_known(Host, key["host"]))
        key["batch_profile"] = tuple(int(n) for n in key["batch_profile"])
        metadata = {str(k): str(v) for k, v in values["metadata"].items()}
        seconds = float(values.get("build_seconds", 0.0))
        return Sidecar(EngineKey(**key), metadata, str(values["engine_sha256"]), seconds)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: broken sidecar ({error})", "the JSON that was written with the engine", again
        ) from None


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def why_not_here(key: EngineKey, host: Host) -> str:
    """Why an engine must not run on this machine, in one line; empty if it may.

    Engines built for compatibility also run with later versions of the same major number, and on GPUs from Ampere on
    or of the same compute capability (TensorRT, engine compatibility).
    """
    built = key.host
    if built.tensorrt_version != host.tensorrt_version:
        theirs, ours = _numbers(built.tensorrt_version), _numbers(host.tensorrt_version)
        if not key.version_compatible:
            return f"built with TensorRT {built.tensorrt_version}, this machine has {host.tensorrt_version}"
        if theirs[:1] != ours[:1] or theirs > ours:
            return f"built with TensorRT {built.tensorrt_version}, which {host.tensorrt_version} cannot run"
    if key.hardware == "ampere-plus":
        if _numbers(host.compute_capability) < (8, 0):
            return f"built for Ampere and later GPUs, this machine has {host.gpu_name} ({host.compute_capability})"
    elif key.hardware == "same-compute-capability":
        if built.compute_capability != host.compute_capability:
            return f"built for compute capability {built.compute_capability}, here is {host.compute_capability}"
    else:
        if built.gpu_name != host.gpu_name:
            return f"built for {built.gpu_name}, this machine has {host.gpu_name}"
        if built.driver != host.driver:
            return f"built with driver {built.driver}, this machine has {host.driver}"
    return ""


def why_rebuild(found: EngineKey, wanted: EngineKey) -> str:
    """Why an existing engine is not the wanted one, in one line; empty if it is."""
    if found.onnx_sha256 != wanted.onnx_sha256:
        return "the ONNX file has changed"
    if found.precision != wanted.precision:
        return f"precision {found.precision}, now {wanted.precision}"
    if found.batch_profile != wanted.batch_profile:
        return f"batch profile {found.batch_profile}, now {wanted.batch_profile}"
    if (found.hardware, found.version_compatible) != (wanted.hardware, wanted.version_compatible):
        return "other compatibility requested"
    return why_not_here(found, wanted.host)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
