"""`perception export`: checkpoint → ONNX file. `perception export verify A B` compares two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportOptions:
    """Turn a checkpoint into one self-contained ONNX file."""

    checkpoint: Path
    """best.pt of a run folder."""
    out: Path | None = None
    """File to write; beside the checkpoint without it."""
    size_hw: str = "384x1248"
    """Height x width of the input, multiples of 32."""
    batch: str = "dynamic"
    """"dynamic", or a fixed number of images."""
    licence: str = "CC BY-NC-SA 3.0 (trained on KITTI and research data)"
    """Terms of the weights, written into the file."""


def main(argv: Sequence[str]) -> int:
    """Parse the options, export, name the next command."""
    from perception.errors import MissingDependencyError

    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError(str(error.name), "export", "exporting") from None
    import tyro

    options = tyro.cli(
        ExportOptions, args=list(argv), prog="perception export", config=(tyro.conf.PositionalRequiredArgs,)
    )
    from export.checkpoint import export_checkpoint

    path = export_checkpoint(
        options.checkpoint, options.out, parse_size(options.size_hw), _batch(options.batch), options.licence
    )
    print(f"done: {path} ({path.stat().st_size / 1e6:.1f} MB)\nnext: perception run VIDEO --model {path}")
    return 0


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
