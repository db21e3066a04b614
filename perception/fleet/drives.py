"""Find the drives in a folder, a list or a bucket: videos, bags, folders of images."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perception.bags.reading import SUFFIXES as BAG_SUFFIXES
from perception.errors import UserError
from perception.files import read_text
from perception.fleet.storage import Store
from perception.redact import redact
from perception.sources.images import SUFFIXES as IMAGE_SUFFIXES
from perception.sources.images import VIDEO_SUFFIXES

FEWEST_IMAGES = 2
"""A folder with fewer is no drive."""


@dataclass(frozen=True)
class Drive:
    """One recording: a file, or a folder of images or parts of a bag."""

    drive_id: str
    """Part of the names of its output files."""
    base: str
    """The folder or bucket that it was found in."""
    path: str
    """Relative to it."""
    is_bag: bool
    files: tuple[str, ...]
    """What belongs to it, with calibrations and time stamps beside it."""
    fingerprint: str
    """Of the names and sizes of its files."""

    @property
    def shown(self) -> str:
        return posixpath.join(redact(self.base).partition("?")[0], self.path)


def find_drives(location: str) -> list[Drive]:
    """The drives of a folder, a bucket, or a text file with one location a line; sorted.

    Raises:
        UserError: nothing there.
    """
    if location.endswith(".txt") and "://" not in location:
        lines = [line.strip() for line in read_text(Path(location), "one location a line").splitlines()]
        found = [drive for line in lines if line and not line.startswith("#") for drive in _at(line)]
    else:
        found = _at(location)
    if not found:
        raise UserError(
            f"{redact(location)}: no drives",
            "videos, bags or folders of images",
            "perception fleet run FOLDER --out OUTPUT",
        )
    once = {drive.drive_id: drive for drive in found}
    return [once[name] for name in sorted(once)]


def _at(location: str) -> list[Drive]:
    """Drives at one location, which is a folder or a single file."""
    store = Store(location)
    if store.is_local and Path(store.root).is_file():
        path = Path(store.root)
        return _in_listing(str(path.parent), {path.name: path.stat().st_size})
    listing = store.sizes()
    if not listing and store.is_local:
        raise UserError(f"{location}: no such folder, or an empty one", "a folder with drives", "check the path")
    if not listing and posixpath.splitext(location.partition("?")[0])[1]:  # one object
        head, question, query = location.partition("?")
        folder, _, name = head.rpartition("/")
        base = folder + question + query
        sizes = {path: size for path, size in Store(base).sizes().items() if path == name}
        return _in_listing(base, sizes)
    return _in_listing(location, listing)


def _in_listing(base: str, sizes: Mapping[str, int]) -> list[Drive]:
    bag_folders = {
        posixpath.dirname(path)
        for path in sizes
        if posixpath.basename(path) == "metadata.yaml"
        and any(p.endswith((".db3", ".mcap")) for p in sizes if posixpath.dirname(p) == posixpath.dirname(path))
    }
    drives: list[Drive] = []
    images: dict[str, list[str]] = {}
    for path in sizes:
        folder, suffix = posixpath.dirname(path), posixpath.splitext(path)[1].lower()
        if folder in bag_folders:
            continue
        if suffix in VIDEO_SUFFIXES or suffix in BAG_SUFFIXES:
            drives.append(_drive(base, path, suffix in BAG_SUFFIXES, [path], sizes))
        elif suffix in IMAGE_SUFFIXES:
            images.setdefault(folder, []).append(path)
    for folder in bag_folders:
        files = [path for path in sizes if posixpath.dirname(path) == folder]
        drives.append(_drive(base, folder, True, files, sizes))
    for folder, files in images.items():
        if len(files) >= FEWEST_IMAGES:
            drives.append(_drive(base, folder, False, [*files, *_beside(folder, sizes)], sizes))
    return drives


def _beside(folder: str, sizes: Mapping[str, int]) -> list[str]:
    """Calibrations and time stamps where KITTI's layouts have them, see `perception.sources.kitti`."""
    up, name = posixpath.split(folder)
    wanted = {
        posixpath.join(up, "timestamps.txt"),
        posixpath.join(up, "times.txt"),
        posixpath.join(up, "calib.txt"),
        posixpath.normpath(posixpath.join(up, "..", "calib", f"{name}.txt")),
        posixpath.normpath(posixpath.join(up, "..", "..", "calib_cam_to_cam.txt")),
    }
    calibrations = posixpath.join(up, "calib") + "/"
    return [path for path in sizes if path in wanted or (path.startswith(calibrations) and path.endswith(".txt"))]


def _drive(base: str, path: str, is_bag: bool, files: list[str], sizes: Mapping[str, int]) -> Drive:
    files = sorted(files)
    digest = hashlib.sha256("\n".join(f"{file} {sizes[file]}" for file in files).encode()).hexdigest()[:16]
    where = hashlib.sha256(f"{base.partition('?')[0]}\n{path}".encode()).hexdigest()[:8]
    safe = re.sub(r"[^\w.-]+", "_", path).strip("_.")[-80:] or "drive"
    return Drive(f"{safe}-{where}", base, path, is_bag, tuple(files), digest)
