"""Unpack a zip all or nothing, and nothing outside its folder: no slip, no bomb, no half a folder."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from perception.errors import UserError
from perception.progress import Progress, byte_count

MAX_MEMBERS = 500_000
MAX_RATIO = 40
"""KITTI's images hardly shrink and its label files shrink to a fifth; far beyond that is an attack or a mistake."""
FREE_BYTES = 64 << 20
"""Small archives may unpack to this much whatever their ratio."""
CHUNK = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # encrypted, or packed in a way that this Python cannot undo
    FileExistsError,  # one path twice, or a file where a folder should be
    NotADirectoryError,
    UnicodeError,
)


class BadArchiveError(UserError):
    """The archive itself is wrong, not the place it should go to."""


def unpack(archive: Path, folder: Path, strip: str = "") -> int:
    """Unpack into `folder`, which appears only when every file is written and its checksum has been compared.

    Args:
        archive: the zip.
        folder: must not exist yet.
        strip: leading folder inside the archive to leave out, where it is there.

    Returns:
        Number of files.

    Raises:
        BadArchiveError: not a zip, damaged, paths that leave the folder, links, or more data than reason allows.
        UserError: no room, or no right to write.
    """
    work = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as source:
            members = _plan(archive, source, strip)
            _check_amount(archive, folder.parent, [info for info, _ in members])
            work.mkdir(parents=True)
            _extract(source, members, work)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if isinstance(error, _DAMAGE):
            raise BadArchiveError(
                f"{archive.name}: damaged ({error})", "a whole zip archive", "fetch it again"
            ) from None
        if isinstance(error, OSError):
            raise UserError(f"{folder.parent}: {error.strerror}", f"room for {archive.name} unpacked") from None
        raise
    work.replace(folder)
    return len(members)


def _plan(archive: Path, source: zipfile.ZipFile, strip: str) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Each file with the relative path it gets."""
    infos = source.infolist()
    if len(infos) > MAX_MEMBERS:
        raise BadArchiveError(f"{archive.name}: {len(infos)} entries", f"at most {MAX_MEMBERS}")
    members = []
    for info in infos:
        name = info.filename
        path = PurePosixPath(name)
        unsafe = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
        if unsafe or stat.S_ISLNK(info.external_attr >> 16):
            raise BadArchiveError(
                f"{archive.name}: holds '{name[:80]}', which leads outside its folder",
                "plain files and folders below it",
                "do not use this archive; fetch it from KITTI's own address",
            )
        if info.is_dir():
            continue
        if strip and path.parts[0] == strip:
            path = PurePosixPath(*path.parts[1:])
        if path.parts:
            members.append((info, path))
    return members


def _check_amount(archive: Path, folder: Path, infos: Sequence[zipfile.ZipInfo]) -> None:
    total = sum(info.file_size for info in infos)
    limit = max(MAX_RATIO * archive.stat().st_size, FREE_BYTES)
    if total > limit:
        raise BadArchiveError(
            f"{archive.name}: says that it unpacks to {byte_count(total)}",
            f"at most {byte_count(limit)} from {byte_count(archive.stat().st_size)}",
            "do not use this archive; fetch it from KITTI's own address",
        )
    free = shutil.disk_usage(folder).free
    if total > free:
        raise UserError(f"{folder}: {byte_count(free)} free", f"{byte_count(total)} to unpack {archive.name}")


def _extract(source: zipfile.ZipFile, members: list[tuple[zipfile.ZipInfo, PurePosixPath]], work: Path) -> None:
    total = sum(info.file_size for info, _ in members)
    progress, done = Progress("unpacking", total, in_bytes=True), 0
    for info, path in members:
        target = work.joinpath(*path.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        left = info.file_size
        # zipfile compares the checksum when the last byte is read; 'x' refuses the same path twice
        with source.open(info) as packed, target.open("xb") as file:
            while block := packed.read(CHUNK):
                left -= len(block)
                if left < 0:
                    raise zipfile.BadZipFile(f"{info.filename} is longer than it says")
                file.write(block)
                done += len(block)
                progress.update(done)
        if left:
            raise zipfile.BadZipFile(f"{info.filename} is shorter than it says")
    progress.close()
