"""One process at a time in a run folder: two would write the same files at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from perception.errors import UserError


@contextmanager
def alone_in(run: Path, made: bool = False) -> Iterator[None]:
    """Hold `run/lock` for the length of a block. The system lets go of it whatever ends this process.

    A run that never began leaves nothing: neither the lock nor, where it was `made` for this run, the folder.

    A POSIX record lock: loader processes do not inherit it, so one that outlives us holds nothing up. Where the file
    system or the platform has no locks, nothing is held.

    Raises:
        UserError: another process holds it.
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
            with suppress(OSError):  # what goes wrong in the block is what is told
                if [path.name for path in run.iterdir()] == ["lock"]:
                    (run / "lock").unlink()
                    if made:
                        run.rmdir()
