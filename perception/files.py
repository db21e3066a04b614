"""Files: which of a folder are data, reading text, TOML and JSON, and writing all of a file or nothing."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sys
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

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


MOST_TOML = 1 << 20
"""Longest TOML text that is parsed, characters."""
MOST_DOTS = 500
"""Most dots in a line of TOML: the time for a dotted key grows with the square of its parts."""
MOST_JSON = 32 << 20
"""Longest JSON text that is parsed, characters."""


def read_text(path: Path, expected: str = "a plain text file", do: str = "check the path", most: int = -1) -> str:
    """Read a text file as UTF-8, without a byte order mark.

    Args:
        path: the file.
        expected: what it should hold, for the error.
        do: what to type instead, for the error.
        most: characters of the longest text; negative for any.

    Raises:
        UserError: no such file, not UTF-8, longer, or not readable.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(most + 1 if most >= 0 else -1)
        if 0 <= most < len(text):
            raise UserError(f"{path}: longer than {most:,} characters", expected, do)
        return text
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", expected, do) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: byte {error.start} is not UTF-8 text", expected, "is this another kind of file?"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", expected, do) from None


def read_toml(path: Path, expected: str = 'lines like  device = "cpu"', do: str = "check the path") -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: what `read_text` and `parse_toml` raise.
    """
    return parse_toml(read_text(path, expected, do, MOST_TOML), path, expected)


def parse_toml(text: str, where: Path | str, expected: str) -> dict[str, Any]:
    """Parse TOML.

    Args:
        text: the content.
        where: the file, for the error.
        expected: what it should hold, for the error.

    Raises:
        UserError: not TOML, or too long or too deeply nested to be meant.
    """
    if len(text) > MOST_TOML:
        raise UserError(f"{where}: longer than {MOST_TOML:,} characters", expected)
    if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise UserError(f"{where}: a line with more than {MOST_DOTS} dots", expected)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{where}: not TOML (nested too deeply)", expected) from None
    except ValueError as error:
        raise UserError(f"{where}: not TOML ({error})", expected) from None


def read_json(path: Path, expected: str, do: str = "check the path", most: int = MOST_JSON) -> Any:
    """Read a JSON file.

    Raises:
        UserError: what `read_text` raises, not JSON, or too long or too deeply nested to be meant.
    """
    text = read_text(path, expected, do, most)
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{path}: not JSON (nested too deeply)", expected, do) from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})", expected, do) from None


def inside(folder: Path, name: str) -> Path | None:
    """Return the path of a name that a file gives; None where it would leave the folder or is no path at all.

    Links inside the folder are followed: the folder's owner made them.
    """
    pure = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name or not pure.parts or pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        return None
    path = folder / pure
    try:
        return path if len(os.fsencode(path)) < 4000 and len(os.fsencode(pure.name)) < 256 else None
    except UnicodeEncodeError:
        return None


Content = str | bytes | memoryview | Callable[[BinaryIO], object]
"""Text, bytes, or a function that writes to an open binary file. Text is written as UTF-8. Lone surrogates, as in
names of files that are not UTF-8, become escapes such as `\\udce9`, which JSON reads back."""


def write_atomically(
    path: Path, content: Content, *, sync: bool = False, do: str = "free some space, or choose another output folder"
) -> None:
    """Write a temporary file beside `path`, then rename it; the temporary file is removed on any failure.

    Missing parent folders are made. A file of that name is replaced, and stays as it is where writing fails. Of a
    symbolic link the target is replaced. Devices, such as /dev/null, and pipes are refused.

    Args:
        path: the file to make.
        content: what to write.
        sync: flush to the disk before renaming, so that a power cut leaves the old file or the new one.
        do: what the error tells the user to try.

    Raises:
        UserError: no space, no permission, or `path` is a folder or a device.
    """
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not (path.is_file() or path.is_dir()):  # the renaming would replace it for all programs
        raise UserError(f"{path}: a device or pipe, which cannot be replaced", "a file name", do)
    # a name of its own, short enough beside any name the file system takes
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
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


def make_folder(folder: Path, new: bool = False) -> bool:
    """Make an output folder and those above it; returns whether it was not there.

    Args:
        folder: may exist, unless `new`.
        new: refuse one that somebody has made in the meantime.

    Raises:
        UserError: it cannot be made, or nothing can be written there.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}", "a folder that can be written", "--out FOLDER") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: not writable", "a folder that can be written", "--out FOLDER")
    return made


def user_cache(name: str) -> Path | None:
    """Make this user's folder for what can be computed again; None where it cannot be made.

    The place is the system's: `$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`.
    """
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library/Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "perception" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: nobody knows the home folder
        return None
    return folder if os.access(folder, os.W_OK) else None


def keep_newest(folder: Path, pattern: str, count: int) -> None:
    """Delete all but the newest files of a pattern; one that another process deletes first is no error."""
    dated = []
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            dated.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(dated)[: max(0, len(dated) - count)]:
        with contextlib.suppress(OSError):
            path.unlink()
