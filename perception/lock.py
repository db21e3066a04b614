"""Lock of an output directory, so that only one process writes to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from perception.errors import UserError


@contextmanager
def alone_in(folder: Path, doing: str, made: bool = False) -> Iterator[None]:
    """Hold `folder/lock` for the length of a block. The operating system releases it when this process ends.

    It is a POSIX record lock, which child processes do not inherit. Where the file system or the platform has no
    locks, nothing is locked. The file is removed after the block.

    Args:
        folder: an existing directory.
        doing: what the other process does there, for the error: "training".
        made: whether the directory was created for this block. It is then removed if the block writes nothing.

    Raises:
        UserError: another process holds the lock, or nothing can be written there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = folder / "lock"
    while True:
        try:
            file = path.open("a")
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}", "a folder that can be written", "--out ANOTHER") from None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            raise UserError(
                f"{folder}: another process is {doing} in it",
                "one at a time",
                "wait for it, end it, or --out ANOTHER",
            ) from None
        except OSError:  # no locks here
            pass
        if _is_at(path, file):
            break
        file.close()  # its holder has removed it in the meantime
    with file:
        try:
            yield
        finally:
            with suppress(OSError):  # keep the block's own error
                path.unlink()
                if made and not any(folder.iterdir()):
                    folder.rmdir()


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
