"""Lock of a run directory, so that only one process writes to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from perception.errors import UserError


@contextmanager
def alone_in(run: Path, made: bool = False) -> Iterator[None]:
    """Hold `run/lock` for the length of a block. The operating system releases it when this process ends.

    It is a POSIX record lock, which loader processes do not inherit. Where the file system or the platform has no
    locks, nothing is locked.

    Args:
        run: run directory.
        made: whether the directory was created for this run. It is then removed if the run writes nothing.

    Raises:
        UserError: another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(run / "lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(
                f"{run}: another process is training in it", "one at a time", "wait for it, end it, or --out ANOTHER"
            ) from None
        except OSError:  # no locks here
            pass
        try:
            yield
        finally:
            with suppress(OSError):  # keep the block's own error
                if [path.name for path in run.iterdir()] == ["lock"]:
                    (run / "lock").unlink()
                    if made:
                        run.rmdir()
