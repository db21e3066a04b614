"""`perception export`: checkpoint → model file, compared with the checkpoint. `perception export verify A B`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from export.frames import Frames
    from export.parity import Candidate, ParityReport

T = TypeVar("T")


@dataclass(frozen=True)
class ExportOptions:
    """Turn a checkpoint into one self-contained model file, and compare the two."""

    checkpoint: Path
    """best.pt of a run folder, or an fp32 ONNX file to make another precision, an engine or a repository from."""
    out: Path | None = None
    """File to write (a folder for triton); beside the checkpoint without it."""
    size_hw: str = ""
    """Height x width of the input, multiples of 32; 384x1248 without it. An ONNX file keeps its own."""
    batch: str = "dynamic"
    """"dynamic", or a fixed number of images."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Of everything between the first and the last convolutions; inputs and outputs keep their types."""
    format: Literal["onnx", "triton", "engine"] = "onnx"
    """An ONNX file, a Triton model repository, or a TensorRT engine for this machine's GPU."""
    licence: str = "CC BY-NC-SA 3.0 (trained on KITTI and research data)"
    """Terms of the weights, written into the file."""
    confirm_thresholds: tuple[float, ...] = ()
    """The tracker's confirmation threshold for each class, written into the file. Defaults to what the run measured
    on its held-out frames, else to the tracker's own. Lower values raise recall and false positives."""
    head: Literal["auto", "one-to-one", "one-to-many"] = "auto"
    """Whose boxes leave the graph: the one-to-one head's, which need no suppression, or the main head's; auto takes
    the one-to-one head where the run trained one (--model.one-to-one)."""
    verify: bool = True
    """Run frames through checkpoint and file, and say no (exit code 1) where they differ by more than allowed."""
    data: Path | None = None
    """Frames to verify with: a KITTI folder or any folder of pictures; the synthetic street without it."""
    frames: int = 0
    """How many of them, of each kind of label that the folder has; 0 takes 6, and for int8 100, and those that
    training saw too, because half a point of AP cannot be told from chance on a few."""
    calibration: Path | None = None
    """int8: pictures that give the ranges; without it some of --data that training saw, or of the street."""
    calibration_frames: int = 12
    """int8: how many of them, of each kind of label that the folder has."""
    method: Literal["minmax", "entropy", "percentile"] = "percentile"
    """int8: how a range follows from what calibration saw."""
    budget: float = 0.5
    """int8: points of mean AP or road MaxF that may be lost; costly blocks are left in fp32 until it is kept."""
    symmetric: bool = False
    """int8: ranges symmetric about zero, which TensorRT needs; format engine takes them anyway."""
    batch_profile: tuple[int, int, int] = (1, 1, 4)
    """engine: smallest, best and largest batch."""
    hardware: Literal["same-gpu", "same-compute-capability", "ampere-plus"] = "same-gpu"
    """engine: other GPUs that may run it."""
    version_compatible: bool = False
    """engine: later TensorRT versions of the same major number may run it."""


@dataclass(frozen=True)
class VerifyOptions:
    """Run the same frames through two models and say whether they are the same: exit code 0 yes, 1 no."""

    a: Path
    """The reference: a checkpoint (.pt), an ONNX file or an engine."""
    b: Path
    """What is to be trusted, likewise."""
    data: Path | None = None
    """A KITTI folder or any folder of pictures; the synthetic street without it."""
    frames: int = 12
    """How many frames, of each kind of label that the folder has."""
    split: Literal["held-out", "all"] = "held-out"
    """Frames that training did not see, or all: two models may be compared on either."""
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    """Whose tolerance applies; auto takes the coarser of the two."""
    size_hw: str = ""
    """Input of a checkpoint, height x width; the other model's without it."""
    device: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    """Where model files run."""
    json: bool = False
    """Print the report as JSON."""


def main(argv: Sequence[str]) -> int:
    """Parse the options, export, compare, name the next command."""
    _require("onnx", "torch")
    if argv and argv[0] == "verify":
        return verify(list(argv[1:]))
    options = _parse(ExportOptions, list(argv), "perception export")
    from export.checkpoint import export_precision
    from export.frames import open_frames
    from export.int8 import QuantizeConfig

    _check_out(options)
    size_hw = _size_of(options)
    calibration = None
    if options.precision == "int8":
        folder, count = options.calibration or options.data, options.calibration_frames
        calibration = open_frames(folder, count, "seen")
        frames = open_frames(options.data, options.frames or 100, "all", calibration)
    else:
        frames = open_frames(options.data, options.frames or 6)
    path, report = export_precision(
        options.checkpoint,
        options.out if options.format == "onnx" else None,
        size_hw,
        _batch(options.batch),
        options.licence,
        options.precision,
        calibration,
        frames,
        QuantizeConfig(
            options.method, symmetric=options.symmetric or options.format == "engine", budget=options.budget
        ),
        _say,
        {"auto": None, "one-to-one": True, "one-to-many": False}[options.head],
        options.confirm_thresholds,
    )
    print(f"done: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if options.checkpoint.suffix == ".pt" and not options.confirm_thresholds:
        _report_confirm_thresholds(path)
    if report:
        print(report.text())
        print(_int8_speed(path, options, size_hw))
    made = _finish(path, options)
    if options.verify:
        from export.parity import open_candidate

        b = open_candidate(made if options.format == "engine" else path)
        a = open_candidate(options.checkpoint, size_hw, one_to_one=not b.spec.suppression)
        parity = _compare(a, b, frames)
        print(parity.text())
        if not parity.passed:
            return 1
    print(f"next: {_next_command(made, options)}")
    return 0


def _check_out(options: ExportOptions) -> None:
    """A file is read by its suffix, so it must have the one of what is in it."""
    from perception.errors import UserError

    suffix = {"onnx": ".onnx", "engine": ".engine", "triton": None}[options.format]
    if suffix and options.out and options.out.suffix != suffix:
        other = {".onnx": "onnx", ".engine": "engine"}.get(options.out.suffix)
        raise UserError(
            f"--out {options.out} with --format {options.format}",
            f"a name that ends in {suffix}",
            f"--format {other}" if other else f"--out {options.out.with_suffix(suffix)}",
        )


def _size_of(options: ExportOptions) -> tuple[int, int]:
    """Input size: as asked for, or the ONNX file's own, which cannot be changed any more."""
    from perception.errors import UserError

    if options.checkpoint.suffix != ".onnx":
        return parse_size(options.size_hw or "384x1248")
    from export.graph import load_onnx, read_spec

    model = load_onnx(options.checkpoint)
    first, size_hw = model.graph.input[0].type.tensor_type.shape.dim[0], read_spec(model).size_hw
    if options.precision == "fp32" and options.format == "onnx":
        raise UserError(
            f"{options.checkpoint}: an ONNX file already",
            "a checkpoint, or another precision or format",
            "--precision fp16, or --format engine",
        )
    if options.confirm_thresholds:
        raise UserError(
            f"{options.checkpoint}: an ONNX file keeps its confirmation thresholds",
            "a checkpoint",
            "no --confirm-thresholds here",
        )
    size_differs = options.size_hw and parse_size(options.size_hw) != size_hw
    if size_differs or (options.batch != "dynamic" and _batch(options.batch) != first.dim_value):
        raise UserError(
            f"{options.checkpoint}: made for {size_hw[0]}x{size_hw[1]}, batch {first.dim_value or 'dynamic'}",
            "the same, for they are part of the graph",
            "export the checkpoint with --size-hw and --batch",
        )
    return size_hw


def _report_confirm_thresholds(path: Path) -> None:
    """What the run chose for a user who did not choose."""
    from export.graph import load_onnx, read_spec

    if scores := read_spec(load_onnx(path)).confirm_thresholds:
        values = " ".join(map(str, scores))
        print(f"confirmation thresholds {values}, measured by the run (override with --confirm-thresholds)")


def _finish(path: Path, options: ExportOptions) -> Path:
    """The ONNX file in the format that was asked for, beside the checkpoint where no place is named."""
    beside = options.checkpoint.parent / path.name  # a shipped file lies elsewhere
    if options.format == "triton":
        from export.triton import write_repository

        folder = write_repository(path, options.out or beside.parent / "triton")
        print(f"done: {folder} (Triton model repository {folder.parent})")
        return folder
    if options.format == "engine":
        from export.engine import EngineConfig, build_engine

        config = EngineConfig(options.batch_profile, options.hardware, options.version_compatible)
        engine = build_engine(path, options.out or beside.with_suffix(".engine"), config, _say)
        print(f"done: {engine} ({engine.stat().st_size / 1e6:.1f} MB)")
        return engine
    return path


def _next_command(made: Path, options: ExportOptions) -> str:
    if options.format == "triton":
        return f"tritonserver --model-repository {made.parent.resolve()}"
    return f"perception run VIDEO --model {made}"


def _int8_speed(path: Path, options: ExportOptions, size_hw: tuple[int, int]) -> str:
    """Whether int8 is faster on this machine, measured: it must earn its place."""
    import tempfile

    from export.benchmark import BenchOptions, bench, slower_than_fp32
    from export.checkpoint import export_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        plain = options.checkpoint
        if plain.suffix != ".onnx":
            plain = export_checkpoint(
                plain, Path(folder) / "fp32.onnx", size_hw, _batch(options.batch), options.licence
            )
        result = bench(BenchOptions((plain, path), rounds=10, warmup=2, floor=False))
    return "\n".join(slower_than_fp32(result.measurements))


def _say(text: str) -> None:
    import sys

    print(text, file=sys.stderr)


def verify(argv: list[str]) -> int:
    """Compare two models over the same frames."""
    import json

    options = _parse(VerifyOptions, argv, "perception export verify")
    from export.frames import open_frames
    from export.parity import open_candidate

    size_hw = parse_size(options.size_hw) if options.size_hw else None
    # a checkpoint takes the size of the model file beside it
    b = open_candidate(options.b, size_hw, options.device) if options.b.suffix != ".pt" else None
    a = open_candidate(options.a, size_hw or (b.spec.size_hw if b else None), options.device)
    b = b or open_candidate(options.b, size_hw or a.spec.size_hw, options.device)
    report = _compare(a, b, open_frames(options.data, options.frames, options.split), options.precision)
    print(json.dumps(report.to_json(), indent=1) if options.json else report.text())
    return 0 if report.passed else 1


def _compare(a: Candidate, b: Candidate, frames: Frames, precision: str = "auto") -> ParityReport:
    import sys

    from export.parity import compare

    print(f"comparing over {len(frames)} frames ({frames.source}) …", file=sys.stderr)
    return compare(a, b, frames, precision, frames.source)


def _parse(kind: type[T], argv: list[str], command: str) -> T:
    import tyro

    return tyro.cli(kind, args=argv, prog=command, config=(tyro.conf.PositionalRequiredArgs,))


def _require(*packages: str) -> None:
    import importlib

    from perception.errors import MissingDependencyError

    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(str(error.name), "export", "exporting") from None


def parse_size(text: str) -> tuple[int, int]:
    """`384x1248` → (384, 1248)."""
    from perception.errors import UserError

    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UserError(f"--size-hw {text}", "HEIGHTxWIDTH in pixels", "--size-hw 384x1248")
    return int(height), int(width)


def _batch(text: str) -> int | None:
    from perception.errors import UserError

    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--batch {text}", "'dynamic' or a number from 1", "--batch 1")
    return int(text)
