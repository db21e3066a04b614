"""Write files so that a reader sees the whole file or none."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from perception.errors import UserError

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
