"""Read files of tensors without executing their content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from perception.errors import UserError, lfs_pointer


def read_tensor_file(path: Path, expected: str, do: str) -> Any:
    """Return the content of a file of `torch.save`: tensors, numbers, text and containers of them.

    Args:
        path: file to read.
        expected: expected content, for the error.
        do: suggestion, for the error.

    Raises:
        UserError: the file is missing, damaged or a Git LFS pointer, or holds objects that need code to load.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file", expected, do)
    if pointer := lfs_pointer(path):
        raise pointer
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's text is long, and explains how to load the file unsafely
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason})", expected, do) from None
