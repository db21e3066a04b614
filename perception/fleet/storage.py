"""Files on this machine and in buckets, by one interface: each is written whole or not at all, and failures retried.

`s3://` and `gs://` go through the clients in `pyarrow`, other schemes through `fsspec` and the package it names.
Credentials come from where those clients look for them, never from us.
"""

from __future__ import annotations

import logging
import posixpath
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from perception.clocks import Backoff
from perception.errors import MissingDependencyError, UserError
from perception.files import write_atomically
from perception.redact import redact

log = logging.getLogger("perception.fleet")

T = TypeVar("T")
ATTEMPTS = 6
"""Of one operation on a bucket."""
AT_ONCE = 16
"""Files that are read at the same time."""
_FINAL = (PermissionError, FileNotFoundError, UserError)
_DENIED = (
    "access denied",
    "accessdenied",
    "forbidden",
    "code 403",
    "signature",
    "invalid access key",
    "no credential",
)


class Store:
    """A folder, local or in a bucket. Paths are relative to it, with `/`."""

    def __init__(self, url: str, first_wait_s: float = 0.3) -> None:
        """
        Args:
            url: a folder, or `s3://BUCKET/PREFIX` and the like.
            first_wait_s: before the second attempt; it doubles.

        Raises:
            UserError: not a location that can be opened.
            MissingDependencyError: the package for this scheme is not installed.
        """
        self.url = url
        self.shown = redact(url)
        self.is_local = "://" not in url or url.startswith("file://")
        self._first_wait_s = first_wait_s
        if self.is_local:
            self.root = str(Path(url.removeprefix("file://")).resolve())
        else:
            self._fs, self.root = _bucket(url)

    def sizes(self) -> dict[str, int]:
        """All files below, with their sizes."""
        if self.is_local:
            root = Path(self.root)
            if not root.is_dir():
                return {}
            return {
                path.relative_to(root).as_posix(): path.stat().st_size
                for path in sorted(root.rglob("*"))
                if path.is_file() and not path.name.startswith(".")
            }
        found = self._again(self._listing, "listing", {})
        start = len(self.root.rstrip("/")) + 1
        return {path[start:]: size for path, size in sorted(found.items()) if path[start:]}

    def read(self, path: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is none.
        """
        if self.is_local:
            return (Path(self.root) / path).read_bytes()
        return self._again(lambda: self._fs.cat_file(self._full(path)), f"reading {path}")

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        """The contents of many small files, several at a time: a bucket takes tens of milliseconds for each."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(paths, pool.map(self.read, paths), strict=True))

    def write(self, path: str, content: bytes | Path) -> None:
        """Make or replace a file.

        Args:
            path: where.
            content: bytes, or a local file with them.
        """
        if self.is_local:
            target = Path(self.root) / path
            if isinstance(content, Path):
                write_atomically(target, lambda file: _copy(content, file))
            else:
                write_atomically(target, content)
            return
        full = self._full(path)
        size = content.stat().st_size if isinstance(content, Path) else len(content)

        def once() -> None:
            if isinstance(content, Path):
                self._fs.put_file(str(content), full)
            else:
                self._fs.pipe_file(full, content)
            if (found := int(self._fs.size(full))) != size:
                raise OSError(f"{found} bytes arrived, {size} were sent")

        self._again(once, f"writing {path}")

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file to this machine."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._again(lambda: self._fs.get_file(self._full(path), str(target)), f"reading {path}")

    def remove(self, path: str) -> None:
        """Remove a file that may not be there."""
        if self.is_local:
            (Path(self.root) / path).unlink(missing_ok=True)
            return
        self._again(lambda: self._fs.rm_file(self._full(path)), f"removing {path}", None)

    def files(self, paths: list[str]) -> tuple[list[str], Any]:
        """Full paths, and the file system for `pyarrow.dataset`."""
        if self.is_local:
            return [str(Path(self.root) / path) for path in paths], None
        return [self._full(path) for path in paths], getattr(self._fs, "fs", self._fs)

    def _listing(self) -> dict[str, int]:
        """Full paths below the root, with their sizes. A folder that cannot be listed is an error, not empty."""
        from fsspec import AbstractFileSystem
        from fsspec.implementations.arrow import ArrowFSWrapper

        if isinstance(self._fs, ArrowFSWrapper):
            from pyarrow.fs import FileSelector

            below = FileSelector(self.root, recursive=True, allow_not_found=True)
            return {info.path: int(info.size or 0) for info in self._fs.fs.get_file_info(below) if info.is_file}
        # fsspec's own way leaves out folders that fail, unless told otherwise
        strict = {"on_error": "raise"} if type(self._fs).find is AbstractFileSystem.find else {}
        return {path: int(i["size"] or 0) for path, i in self._fs.find(self.root, detail=True, **strict).items()}

    def _full(self, path: str) -> str:
        return posixpath.join(self.root, path)

    def _again(self, work: Callable[[], T], doing: str, missing: Any = _FINAL) -> T:
        """Call until it works.

        Args:
            missing: returned where the file is not there; by default that is raised.

        Raises:
            UserError: no rights, or it failed each time.
        """
        backoff, reason = Backoff(self._first_wait_s), ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(backoff.next_s())
            try:
                return work()
            except FileNotFoundError:
                if missing is _FINAL:
                    raise
                return missing  # type: ignore[no-any-return]
            except Exception as error:  # each client has errors of its own
                reason = redact(f"{type(error).__name__}: {error}")[:300]
                if isinstance(error, PermissionError) or any(word in reason.lower() for word in _DENIED):
                    raise UserError(
                        f"{self.shown}: {doing}: {reason}",
                        "a bucket that these credentials may use",
                        "aws sts get-caller-identity",
                    ) from None
                log.info("%s: %s: %s; trying again", self.shown, doing, reason)
        raise UserError(f"{self.shown}: {doing} failed {ATTEMPTS} times ({reason})", "a bucket that answers")


def _copy(source: Path, file: Any) -> None:
    import shutil

    with source.open("rb") as content:
        shutil.copyfileobj(content, file, 1 << 20)


def _bucket(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    try:
        if scheme in ("s3", "gs", "gcs"):
            from fsspec.implementations.arrow import ArrowFSWrapper
            from pyarrow.fs import FileSystem

            found, root = FileSystem.from_uri(url)
            return ArrowFSWrapper(found), root
        from fsspec.core import url_to_fs

        found, root = url_to_fs(url)
        return found, root
    except ImportError as error:
        known = {"az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}.get(scheme)
        if known is None:
            raise MissingDependencyError(error.name or "fsspec", "fleet", f"{scheme}:// locations") from None
        raise UserError(
            f"the package '{known}' is not installed", f"{known}, for {scheme}:// locations", f"pip install {known}"
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{redact(url)}: {redact(str(error))[:200]}", "s3://BUCKET/PREFIX, gs:// or az://") from None
