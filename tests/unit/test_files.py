"""A reader sees the whole file or none, and a failure leaves neither a partial nor a temporary file."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from perception import files
from perception.errors import UserError
from perception.files import write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "content", ["ä\n", "ä\n".encode(), memoryview("ä\n".encode()), lambda file: file.write("ä\n".encode())]
)
@pytest.mark.parametrize("sync", [False, True])
def test_text_bytes_and_writers_give_the_same_file(
    tmp_path: Path, content: str | bytes | memoryview | Callable[[BinaryIO], object], sync: bool
) -> None:
    path = tmp_path / "made/on the way/a.txt"
    write_atomically(path, content, sync=sync)
    assert path.read_bytes() == b"\xc3\xa4\n" and names(path.parent) == ["a.txt"]


def test_a_file_of_that_name_is_replaced_and_has_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a longer earlier text")
    write_atomically(path, "new")
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.read_text() == "new" and path.stat().st_mode == plain.stat().st_mode


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("ä" * 127), "x")
    assert names(tmp_path) == ["ä" * 127]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_earlier_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("earlier")

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        assert path.read_text() == "earlier" and len(names(tmp_path)) == 2
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_text() == "earlier" and names(tmp_path) == ["a.txt"]


def test_a_rename_that_fails_removes_the_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: cannot be written \(Is a directory\)"):
        write_atomically(tmp_path / "folder", "x")
    assert names(tmp_path) == ["folder"]


def test_a_flush_that_fails_removes_the_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.txt: cannot be written \(No space left on device\)\n.*\n.*--out FILE"):
        write_atomically(tmp_path / "a.txt", "x", sync=True, do="--out FILE")
    assert names(tmp_path) == []


def test_a_full_disk_is_a_user_error(tmp_path: Path) -> None:
    """A real write that fails half way: the limit on file size lies below the content's."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.bin"
    path.write_bytes(b"earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"a\.bin: cannot be written \(File too large\)"):
            write_atomically(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"earlier" and names(tmp_path) == ["a.bin"]


def test_a_folder_that_is_a_file_and_one_that_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"a\.txt: cannot be written \((File exists|Not a directory)\)"):
        write_atomically(tmp_path / "file/a.txt", "x")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(UserError, match=r"a\.txt: cannot be written \(Permission denied\)"):
        write_atomically(locked / "a.txt", "x")


def test_devices_and_pipes_are_refused_and_links_are_followed(tmp_path: Path) -> None:
    """As root, a renaming onto /dev/null takes it away from every program."""
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    (tmp_path / "to_pipe").symlink_to(pipe)
    for path in (pipe, tmp_path / "to_pipe"):
        with pytest.raises(UserError, match="a device or pipe"):
            write_atomically(path, "text")
    assert pipe.is_fifo()
    link.symlink_to(target)
    for text in ("first", "second"):
        write_atomically(link, text)
        assert link.is_symlink() and target.read_text() == text
