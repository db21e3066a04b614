"""`perception export` writes a model file and verifies it. `perception export verify A B` compares two models."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from export.config import EngineConfig, QuantizeConfig
from perception.cli.options import GROUP, CommandOptions, parse_options
from perception.devices import Device, Precision
from perception.errors import UserError
from perception.files import write_atomically
from perception.provenance import record

if TYPE_CHECKING:
    from export.frames import Frames
    from export.int8 import QuantizeReport
    from export.parity import Candidate, ParityReport

EVERYDAY = (
    "checkpoint", "out", "size-hw", "batch", "precision", "format", "verify", "data", "frames", "config",
    "calibration", "budget", "batch-profile", "hardware",
)  # fmt: skip
"""What `perception export --help` shows."""


@dataclass(frozen=True)
class Int8Options(QuantizeConfig):
    """Options of --precision int8."""

    calibration: Path | None = None
    """Folder of calibration images. Default: training frames of --data, or of the synthetic street."""
    calibration_frames: int = 12
    """Number of calibration images, per kind of label in the folder."""


@dataclass(frozen=True)
class ExportOptions(CommandOptions):
    """Export a checkpoint as one self-contained model file, and verify the file against the checkpoint.

    Also: perception export verify A B, perception export doubt MODEL, perception export familiar MODEL.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """best.pt of a run directory, or an fp32 ONNX file to convert to another precision or format."""
    out: Path | None = None
    """Output file (a folder for triton). Default: beside the checkpoint."""
    size_hw: str = ""
    """Input height x width, multiples of 32. Default: 384x1248, or the size of the ONNX file."""
    batch: str = "dynamic"
    """Batch size: "dynamic", or a fixed number of images."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Precision between the first and the last convolutions."""
    format: Literal["onnx", "triton", "engine"] = "onnx"
    """ONNX file, Triton model repository, or TensorRT engine for this machine's GPU."""
    licence: str = "CC BY-NC-SA 3.0 (trained on KITTI and research data)"
    """Licence of the weights, written into the file."""
    confirm_thresholds: tuple[float, ...] = ()
    """Confirmation threshold of each class, written into the file. Lower values raise recall and false positives.
    Default: the thresholds that the run measured on its validation set, else the tracker's defaults."""
    head: Literal["auto", "one-to-one", "one-to-many"] = "auto"
    """Head whose boxes the model outputs. The one-to-one head needs no NMS. auto: one-to-one if it was trained."""
    verify: bool = True
    """Compare the outputs of both files; exit with 1 if they differ by more than the tolerance."""
    data: Path | None = None
    """Verification frames: a KITTI folder or any folder of images. Default: the synthetic street."""
    frames: int = 0
    """Verification frames per kind of label; 0: 6, or 100 including training frames for int8."""
    int8: Annotated[Int8Options, GROUP] = field(default_factory=Int8Options)
    engine: Annotated[EngineConfig, GROUP] = field(default_factory=EngineConfig)


@dataclass(frozen=True)
class VerifyOptions(CommandOptions):
    """Compare the outputs of two models on the same frames. Exits with 0 if they agree, else with 1."""

    a: Annotated[Path, tyro.conf.Positional]
    """Reference: a checkpoint (.pt), an ONNX file or an engine."""
    b: Annotated[Path, tyro.conf.Positional]
    """Model to compare with it: a checkpoint, an ONNX file or an engine."""
    data: Path | None = None
    """KITTI folder or any folder of images. Default: the synthetic street."""
    frames: int = 12
    """Number of frames, per kind of label in the folder."""
    split: Literal["held-out", "all"] = "held-out"
    """Held-out frames only, or all frames."""
    tolerance: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    """Precision whose tolerance applies; auto: the lowest of both files and of the arithmetic."""
    size_hw: str = ""
    """Input height x width of a checkpoint. Default: the size of the other model."""
    device: Device = "cpu"
    """Device of B. An engine runs on its own."""
    precision: Precision = "fp32"
    """Arithmetic of B on OpenVINO."""
    reference_device: Device = "cpu"
    """Device of A."""
    json: bool = False
    """Print the report as JSON."""


def main(argv: list[str]) -> int:
    """Export, verify against the checkpoint, and print the next command."""
    if argv and argv[0] == "verify":
        return verify(list(argv[1:]))
    if argv and argv[0] in ("doubt", "familiar"):
        from export import doubt, familiar

        return {"doubt": doubt, "familiar": familiar}[argv[0]].main(list(argv[1:]))
    options = parse_options(ExportOptions, list(argv), "perception export", everyday=EVERYDAY)
    _check_out(options)
    if _device(options) == "openvino":
        from export.nncf_int8 import require_nncf

        require_nncf()  # what is missing ends the export here
    if options.format == "engine":
        from perception.backends.tensorrt import find_host, import_tensorrt

        find_host(*import_tensorrt())  # what is missing ends the export here, not after minutes of work
    size_hw = _size_of(options)
    path, frames, report = _export(options, size_hw)
    print(f"done: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if options.checkpoint.suffix == ".pt" and not options.confirm_thresholds:
        _report_confirm_thresholds(path)
    if report:
        print(report.text())
        print(_int8_speed(path, options, size_hw))
    made = _finish(path, options)
    _write_record(made, options)
    if options.verify and not _verified(made if options.format == "engine" else path, options, size_hw, frames):
        return 1
    print(f"next: {_next_command(made, options)}")
    return 0


def _write_record(made: Path, options: ExportOptions) -> None:
    """Write a provenance record beside the file, or beside the repository for Triton, which scans its folder."""
    read = tuple(path for path in (options.checkpoint, options.data, options.int8.calibration) if path is not None)
    text = json.dumps(record("perception export", options, read, file=made.name), indent=1, default=str)
    folder = made.parent.parent if options.format == "triton" else made.parent
    write_atomically(folder / f"{made.name}.json", text + "\n", do="--out FILE in another folder")


def _export(options: ExportOptions, size_hw: tuple[int, int]) -> tuple[Path, Frames, QuantizeReport | None]:
    """Write the ONNX file; return its path, the verification frames and the report of int8."""
    from export.checkpoint import export_precision
    from export.frames import holdout_for, open_frames

    calibration = None
    if options.precision == "int8":
        folder = options.int8.calibration or options.data
        held_out = holdout_for(folder, options.checkpoint)
        calibration = open_frames(
            folder,
            options.int8.calibration_frames,
            "seen",
            holdout=held_out,
            data_option="--calibration" if options.int8.calibration else "--data",
            count_option="--calibration-frames",
        )
        frames = open_frames(options.data, options.frames or 100, "all", calibration)
    else:
        held_out = holdout_for(options.data, options.checkpoint)
        frames = open_frames(options.data, options.frames or 6, holdout=held_out)
    path, report = export_precision(
        options.checkpoint,
        options.out if options.format == "onnx" else None,
        size_hw,
        _batch(options.batch),
        options.licence,
        options.precision,
        calibration,
        frames,
        _int8_config(options),
        _say,
        {"auto": None, "one-to-one": True, "one-to-many": False}[options.head],
        options.confirm_thresholds,
    )
    return path, frames, report


def _int8_config(options: ExportOptions) -> QuantizeConfig:
    """Return the options of int8. Engines and Triton repositories take the ranges of ONNX Runtime."""
    if options.format == "onnx":
        return options.int8
    return replace(
        options.int8, runtime="onnxruntime", symmetric=options.int8.symmetric or options.format == "engine"
    )


def _device(options: ExportOptions) -> Device:
    """Return the device that runs the exported file."""
    for_openvino = options.precision == "int8" and _int8_config(options).runtime == "openvino"
    return "openvino" if for_openvino else "cpu"


def _verified(made: Path, options: ExportOptions, size_hw: tuple[int, int], frames: Frames) -> bool:
    """Print the comparison of the file with its checkpoint; return whether it is within the tolerance."""
    from export.parity import open_candidate

    b = open_candidate(made, device=_device(options))
    parity = _compare(open_candidate(options.checkpoint, size_hw, one_to_one=not b.spec.suppression), b, frames)
    print(parity.text())
    return parity.passed


def _check_out(options: ExportOptions) -> None:
    """Raise where the suffix of --out does not match the format: the runtime selects the backend by the suffix."""
    suffix = {"onnx": ".onnx", "engine": ".engine", "triton": None}[options.format]
    if suffix and options.out and options.out.suffix != suffix:
        other = {".onnx": "onnx", ".engine": "engine"}.get(options.out.suffix)
        raise UserError(
            f"--out {options.out} with --format {options.format}",
            f"a name that ends in {suffix}",
            f"--format {other}" if other else f"--out {options.out.with_suffix(suffix)}",
        )


def _size_of(options: ExportOptions) -> tuple[int, int]:
    """Return the requested input size, or that of an ONNX file, which is fixed."""
    if options.checkpoint.suffix != ".onnx":
        return parse_size(options.size_hw or "384x1248")
    from export.graph import load_onnx, read_spec

    model = load_onnx(options.checkpoint)
    size_hw = read_spec(model, options.checkpoint).size_hw
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    if options.precision == "fp32" and options.format == "onnx":
        raise UserError(
            f"{options.checkpoint}: already an ONNX file",
            "a checkpoint, or another precision or format",
            "--precision fp16, or --format engine",
        )
    if options.confirm_thresholds:
        raise UserError(
            f"{options.checkpoint}: the confirmation thresholds of an ONNX file are fixed",
            "a checkpoint",
            "omit --confirm-thresholds",
        )
    size_differs = options.size_hw and parse_size(options.size_hw) != size_hw
    if size_differs or (options.batch != "dynamic" and _batch(options.batch) != first.dim_value):
        raise UserError(
            f"{options.checkpoint}: exported for {size_hw[0]}x{size_hw[1]}, batch {first.dim_value or 'dynamic'}",
            "the same size and batch, which are part of the graph",
            "export the checkpoint with --size-hw and --batch",
        )
    return size_hw


def _report_confirm_thresholds(path: Path) -> None:
    """Print the confirmation thresholds in the file that the run measured."""
    from export.graph import load_onnx, read_spec

    if scores := read_spec(load_onnx(path), path).confirm_thresholds:
        values = " ".join(map(str, scores))
        print(f"confirmation thresholds {values}, measured by the run (override with --confirm-thresholds)")


def _finish(path: Path, options: ExportOptions) -> Path:
    """Convert the ONNX file to the requested format; return the path of the result.

    The default place is beside the checkpoint.
    """
    beside = options.checkpoint.parent / path.name  # a shipped file is in the package instead
    if options.format == "triton":
        from export.triton import write_repository

        folder = write_repository(path, options.out or beside.parent / "triton")
        print(f"done: {folder} (Triton model repository {folder.parent})")
        return folder
    if options.format == "engine":
        from export.engine import build_engine

        engine = build_engine(path, options.out or beside.with_suffix(".engine"), options.engine, _say)
        print(f"done: {engine} ({engine.stat().st_size / 1e6:.1f} MB)")
        return engine
    return path


def _next_command(made: Path, options: ExportOptions) -> str:
    if options.format == "triton":
        return f"tritonserver --model-repository {made.parent.resolve()}"
    device = "" if _device(options) == "cpu" else f" --device {_device(options)}"
    return f"perception run VIDEO --model {made}{device}"


def _int8_speed(path: Path, options: ExportOptions, size_hw: tuple[int, int]) -> str:
    """Measure fp32 and int8 on this machine, and return which one is faster."""
    from export.benchmark import BenchOptions, bench, slower_than_fp32
    from export.checkpoint import export_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        plain = options.checkpoint
        if plain.suffix != ".onnx":
            plain = export_checkpoint(
                plain, Path(folder) / "fp32.onnx", size_hw, _batch(options.batch), options.licence
            )
        result = bench(BenchOptions((plain, path), (_device(options),), rounds=10, warmup=2, floor=False))
    return "\n".join(slower_than_fp32(result.measurements))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def verify(argv: list[str]) -> int:
    """Compare two models on the same frames."""
    options = parse_options(VerifyOptions, argv, "perception export verify")
    from export.frames import holdout_for, open_frames
    from export.parity import open_candidate

    size_hw = parse_size(options.size_hw) if options.size_hw else None
    # a checkpoint takes the input size of the model file that it is compared with
    b = None
    if options.b.suffix != ".pt":
        b = open_candidate(options.b, size_hw, options.device, precision=options.precision)
    a = open_candidate(options.a, size_hw or (b.spec.size_hw if b else None), options.reference_device)
    b = b or open_candidate(options.b, size_hw or a.spec.size_hw)
    held_out = holdout_for(options.data, options.a, options.b)
    frames = open_frames(options.data, options.frames, options.split, holdout=held_out)
    report = _compare(a, b, frames, options.tolerance)
    print(json.dumps(report.to_json(), indent=1) if options.json else report.text())
    return 0 if report.passed else 1


def _compare(a: Candidate, b: Candidate, frames: Frames, precision: str = "auto") -> ParityReport:
    from export.parity import compare

    print(f"comparing on {len(frames)} frames ({frames.source}) …", file=sys.stderr)
    return compare(a, b, frames, precision, frames.source)


def parse_size(text: str) -> tuple[int, int]:
    """Parse a size: `384x1248` → (384, 1248).

    Raises:
        UserError: the text has another form.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UserError(f"--size-hw {text}", "HEIGHTxWIDTH in pixels", "--size-hw 384x1248")
    return int(height), int(width)


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--batch {text}", "'dynamic' or a number from 1", "--batch 1")
    return int(text)
