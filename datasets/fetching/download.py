"""One file over HTTP, however often the line drops: resumed, checked for size and checksum. Standard library only."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from perception.errors import UserError
from perception.progress import Progress, byte_count

CHUNK = 1 << 20
_GONE = (400, 401, 403, 404, 405, 410)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG)
"""What waiting does not mend."""


@dataclass(frozen=True)
class Patience:
    """How long to keep trying."""

    retries: int = 6
    """Attempts in a row that bring nothing new before giving up."""
    wait_s: float = 2.0
    """Before the first new attempt; doubles each time, up to a minute."""
    timeout_s: float = 60.0
    """Without a single byte."""


PATIENT = Patience()


def part_path(path: Path) -> Path:
    """Where a download lies until it is whole."""
    return path.with_name(path.name + ".part")


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    room_factor: float = 1.0,
    patience: Patience = PATIENT,
) -> None:
    """Fetch `url` into `path`, which appears only when it is whole; what came so far is kept in `<path>.part`.

    Args:
        url: http or https.
        path: the file to make.
        size: bytes it must have, where known; else what the server says.
        sha256: checksum it must have, where known.
        room_factor: the disk must hold this many times the file before the download starts.
        patience: how long to keep trying.

    Raises:
        UserError: not found, another size or checksum than expected, no room, or no connection.
    """
    try:
        host = urlsplit(url).hostname if url.startswith(("http://", "https://")) else None
    except ValueError:  # as for http://[
        host = None
    if not host:
        raise UserError(
            f"{url}: not a web address",
            "an address that starts with http:// or https://",
            "--base-url https://HOST/FOLDER",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part, most, failures = part_path(path), 0, 0
    while True:
        problem = _attempt(url, part, size, room_factor, patience.timeout_s)
        if not problem:
            break
        have = part.stat().st_size if part.exists() else 0
        failures = 0 if have > most else failures + 1
        most = max(most, have)
        if failures > patience.retries:
            raise UserError(
                f"{url}: {problem}; {byte_count(have)} so far are kept",
                "a connection that lasts",
                "run the same command again: it goes on from there",
            )
        wait_s = min(60.0, patience.wait_s * 2**failures)
        print(f"{problem}; again in {wait_s:.0f} s", file=sys.stderr, flush=True)
        time.sleep(wait_s)
    if sha256 is not None and (found := _checksum(part)) != sha256:
        part.unlink()
        _tag_path(part).unlink(missing_ok=True)
        raise UserError(
            f"{url}: SHA-256 is {found}; the file was deleted", sha256, "run again, or another --base-url"
        )
    part.replace(path)
    _tag_path(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path, size: int | None, room_factor: float, timeout_s: float) -> str:
    """Transfer what is missing of `part`; returns the problem that a later attempt may not meet, empty when whole."""
    try:
        total = _transfer(url, part, size, room_factor, timeout_s)
        return "" if part.stat().st_size == total else "the connection ended early"
    except urllib.error.HTTPError as error:
        if error.code in _GONE:
            raise UserError(f"{url}: HTTP {error.code} {error.reason}", "the archive", "another --base-url") from None
        return f"HTTP {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise UserError(f"{part}: {error.strerror}", "room and the right to write there") from None
        return str(getattr(error, "reason", "") or error) or type(error).__name__


def _tag_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_tag(part: Path, url: str) -> str:
    """The server's tag of the file that `part` began with, so that a changed file is not stitched to an old one."""
    try:
        stored = json.loads(_tag_path(part).read_text(encoding="utf-8"))
        return str(stored["etag"]) if stored.get("url") == url else ""
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return ""


def _transfer(url: str, part: Path, size: int | None, room_factor: float, timeout_s: float) -> int:
    """One attempt; returns the size that the whole file has."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have == size:
        return size
    headers = {"Accept-Encoding": "identity", "User-Agent": "perception-pipeline"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag := _read_tag(part, url):
            headers["If-Range"] = tag
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing beyond what is here: whole already, or more than the file has
            total = _total_of_range(error.headers.get("Content-Range", ""))
            if total == have:
                return have
            part.unlink()
            raise ConnectionError("the part on disk does not fit the file on the server; starting over") from None
        raise
    with response:
        if response.status == 206:
            start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if start is None or int(start[1]) != have:
                part.unlink(missing_ok=True)
                raise ConnectionError("the server sent another range than was asked for; starting over")
            total = _total_of_range(response.headers["Content-Range"])
        else:  # no ranges here, or the file has changed: from the start
            have = 0
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        total = _agreed_size(url, total, size)
        _check_room(part.parent, int(room_factor * total) - have)
        tag = response.headers.get("ETag", "")
        if tag and not tag.startswith("W/"):
            _tag_path(part).write_text(json.dumps({"url": url, "etag": tag}), encoding="utf-8")
        progress = Progress(part.name.removesuffix(".part"), total, in_bytes=True, done=have)
        with part.open("ab" if have else "wb") as file:
            # no more than promised, so that an endless answer cannot fill the disk
            while have < total and (block := response.read(min(CHUNK, total - have))):
                file.write(block)
                have += len(block)
                progress.update(have)
        progress.close()
    return total


def _total_of_range(content_range: str) -> int | None:
    match = re.match(r"bytes (?:\d+-\d+|\*)/(\d+)$", content_range)
    return int(match[1]) if match else None


def _agreed_size(url: str, offered: int | None, expected: int | None) -> int:
    if offered is None and expected is None:
        raise UserError(
            f"{url}: the server does not say how long the file is", "a Content-Length", "another --base-url"
        )
    if offered is not None and expected is not None and offered != expected:
        raise UserError(f"{url}: the server offers {offered} bytes", f"{expected} bytes", "another --base-url")
    return offered if offered is not None else expected  # type: ignore[return-value]


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {byte_count(free)} free", f"{byte_count(needed)}, unpacking included", "another --root"
        )


def _checksum(path: Path) -> str:
    digest, done = hashlib.sha256(), 0
    progress = Progress(f"checking {path.name.removesuffix('.part')}", path.stat().st_size, in_bytes=True)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
            done += len(block)
            progress.update(done)
    progress.close()
    return digest.hexdigest()
