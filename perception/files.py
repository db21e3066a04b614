"""Files: which of a folder are data, text whatever its byte order mark, and writing all of a file or nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

from perception.errors import UserError

log = logging.getLogger("perception.files")

BESIDE_DATA = frozenset(
    "classes predefined_classes labels obj readme license licence notes evaluate_tracking.seqmap".split()
)
"""Stems of files that lie beside label files and images and are neither, in lower case."""
MAX_MEGAPIXELS = 100.0
"""Largest image that is decoded by default."""


def data_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """List the files of a folder that are data, by name.

    Hidden files (such as `._000000.txt`, which macOS leaves), those of `BESIDE_DATA`, and text files with a suffix in
    upper case are passed over, and named in one warning a folder.

    Args:
        folder: need not exist.
        suffixes: in lower case; images may have them in upper case.
    """
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes) if folder.is_dir() else []
    others = [
        p.name
        for p in found
        if p.name.startswith(".") or p.stem.lower() in BESIDE_DATA or p.suffix == ".TXT"  # read by their exact name
    ]
    if others:
        _name_others(folder, tuple(others))
    return [p for p in found if p.name not in set(others)]


@cache
def _name_others(folder: Path, names: tuple[str, ...]) -> None:
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    log.warning("%s: %d files are no data and are passed over: %s", folder, len(names), shown)


def read_text(path: Path, expected: str = "a plain text file") -> str:
    """Read a text file as UTF-8, without a byte order mark.

    Raises:
        UserError: no such file, not UTF-8, or not readable.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", expected, "check the path") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: byte {error.start} is not UTF-8 text", expected, "is this another kind of file?"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", expected, "check the path") from None


Content = str | bytes | memoryview | Callable[[BinaryIO], object]
"""Text (written as UTF-8), bytes, or a function that writes to an open binary file."""


def write_atomically(
    path: Path, content: Content, *, sync: bool = False, do: str = "free some space, or choose another output folder"
) -> None:
    """Write a temporary file beside `path`, then rename it; the temporary file is removed on any failure.

    Missing parent folders are made. A file of that name is replaced, and stays as it is where writing fails.

    Args:
        path: the file to make.
        content: what to write.
        sync: flush to the disk before renaming, so that a power cut leaves the old file or the new one.
        do: what the error tells the user to try.

    Raises:
        UserError: no space, no permission, or `path` is a folder.
    """
    # a name of its own, short enough beside any name the file system takes
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # as where the folder is a file; the first error is the one to report
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise UserError(
                f"{path}: cannot be written ({reason})", "a writable folder with free space", do
            ) from None
        raise
