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
    """best.pt of a run folder."""
    out: Path | None = None
    """File to write (a folder for triton); beside the checkpoint without it."""
    size_hw: str = "384x1248"
    """Height x width of the input, multiples of 32."""
    batch: str = "dynamic"
    """"dynamic", or a fixed number of images."""
    licence: str = "CC BY-NC-SA 3.0 (trained on KITTI and research data)"
    """Terms of the weights, written into the file."""
    verify: bool = True
    """Run frames through checkpoint and file, and say no (exit code 1) where they differ by more than allowed."""
    data: Path | None = None
    """Frames to verify with: a KITTI folder or any folder of pictures; the synthetic street without it."""
    frames: int = 6
    """How many of them."""


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
    from export.checkpoint import export_checkpoint

    size_hw = parse_size(options.size_hw)
    path = export_checkpoint(options.checkpoint, options.out, size_hw, _batch(options.batch), options.licence)
    print(f"done: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if options.verify:
        from export.frames import open_frames
        from export.parity import open_candidate

        frames = open_frames(options.data, options.frames)
        report = _compare(open_candidate(options.checkpoint, size_hw), open_candidate(path), frames)
        print(report.text())
        if not report.passed:
            return 1
    print(f"next: perception run VIDEO --model {path}")
    return 0


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
    report = _compare(a, b, open_frames(options.data, options.frames), options.precision)
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
        raise UserError(f"--batch {text}", "'dynamic' or a number from 1")
    return int(text)
