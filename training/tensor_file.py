"""Read files of tensors without running anything that is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from perception.errors import UserError, lfs_pointer


def read_tensor_file(path: Path, expected: str, do: str) -> Any:
    """Return the content of a file that `torch.save` wrote: tensors, numbers, text and containers of them.

    Args:
        path: the file.
        expected: what it should hold, for the error.
        do: what to type instead, for the error.

    Raises:
        UserError: missing, damaged, a Git LFS pointer, or holds anything that would have to be run.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file", expected, do)
    if pointer := lfs_pointer(path):
        raise pointer
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own text is a page about its options, and tells how to run what is in the file
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason})", expected, do) from None
