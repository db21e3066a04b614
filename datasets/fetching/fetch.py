"""KITTI's public archives, from KITTI's own storage, unpacked where the readers of this package look for them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.fetching.download import PATIENT, Patience, download
from datasets.fetching.unpack import BadArchiveError, unpack
from perception.errors import UserError

BASE_URL = "https://s3.eu-central-1.amazonaws.com/avg-kitti"

LICENCE = """\
KITTI is licensed CC BY-NC-SA 3.0: for non-commercial use, share alike, and weights trained on it inherit that.
Cite A. Geiger, P. Lenz, C. Stiller, R. Urtasun: Vision meets Robotics: The KITTI Dataset, IJRR 2013
(road: J. Fritsch, T. Kühnl, A. Geiger: A New Performance Measure and Evaluation Benchmark for Road Detection
Algorithms, ITSC 2013). Terms: https://www.cvlibs.net/datasets/kitti/"""


@dataclass(frozen=True)
class Archive:
    """One zip of a data set. Sizes and checksums are those that TensorFlow Datasets records, where it has them."""

    name: str
    units: tuple[str, ...]
    """Folders it fills; each is put into place whole. The first must be in the archive, the rest may."""
    strip: str = ""
    """Leading folder inside the archive that is left out."""
    into: str = ""
    """Folder to unpack below."""
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class RemoteSet:
    """The archives of one benchmark and the folder below ROOT that they fill."""

    folder: str
    archives: tuple[Archive, ...]


SETS = {
    "kitti-object": RemoteSet(
        "object",
        (
            Archive(
                "data_object_label_2.zip",
                ("training/label_2",),
                size=5_601_213,
                sha256="4efc76220d867e1c31bb980bbf8cbc02599f02a9cb4350effa98dbb04aaed880",
            ),
            Archive("data_object_calib.zip", ("training/calib", "testing/calib")),
            # its mapping/ tells which drive each frame comes from
            Archive(
                "devkit_object.zip",
                ("devkit",),
                strip="devkit_object",
                into="devkit",
                size=63_794,
                sha256="ce0b76b69c0c5f89690a0d65b7302bbbdb962a0c7e8aba6efc7050d1b04b4cf1",
            ),
            Archive(
                "data_object_image_2.zip",
                ("training/image_2", "testing/image_2"),
                size=12_569_945_557,
                sha256="351c5a2aa0cd9238b50174a3a62b846bc5855da256b82a196431d60ff8d43617",
            ),
        ),
    ),
    "kitti-road": RemoteSet(
        "road",
        (
            Archive(
                "data_road.zip",
                ("training/image_2", "training/gt_image_2", "training/calib", "testing/image_2", "testing/calib"),
                strip="data_road",
            ),
        ),
    ),
    "kitti-tracking": RemoteSet(
        "tracking",
        (
            Archive("data_tracking_label_2.zip", ("training/label_02",)),
            Archive("data_tracking_calib.zip", ("training/calib", "testing/calib")),
            Archive("data_tracking_image_2.zip", ("training/image_02", "testing/image_02")),
        ),
    ),
}


@dataclass(frozen=True)
class Fetched:
    """What became of one archive."""

    archive: str
    state: str
    """'fetched', or 'present' where its folders were there already."""
    files: int = 0


def fetch(
    name: str,
    root: Path,
    *,
    base_url: str = BASE_URL,
    keep_archives: bool = False,
    patience: Patience = PATIENT,
    sets: dict[str, RemoteSet] = SETS,
) -> list[Fetched]:
    """Fetch one of `SETS` into `<root>/<folder>`. Safe to break off and to run again; never overwrites a folder.

    Args:
        name: `kitti-object`, `kitti-road` or `kitti-tracking`.
        root: folder for all sets.
        base_url: address of the folder that holds the archives.
        keep_archives: leave the zips in `<root>/archives`.
        patience: how long to keep trying.
        sets: the catalogue; tests bring their own.

    Raises:
        UserError: an unknown set, or whatever stops a download or an archive from being whole.
    """
    if name not in sets:
        raise UserError(f"data set '{name}'", "one of " + ", ".join(sets))
    chosen = sets[name]
    folder, store = root / chosen.folder, root / "archives"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        store.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}", "a folder that can be written to", "another --root"
        ) from None
    with _alone(folder):
        done = [_fetch_one(archive, folder, store, base_url, keep_archives, patience) for archive in chosen.archives]
    if not any(store.iterdir()):
        store.rmdir()
    return done


def _fetch_one(
    archive: Archive, folder: Path, store: Path, base_url: str, keep_archives: bool, patience: Patience
) -> Fetched:
    marker = folder / ".fetched" / f"{archive.name}.json"
    ready = folder / ".ready" / archive.name  # unpacked and checked, not yet in place
    if not ready.exists():
        if (folder / archive.units[0]).exists():
            if not marker.exists():
                print(f"{folder / archive.units[0]} is there already and stays as it is", file=sys.stderr)
            return Fetched(archive.name, "present")
        url, path = f"{base_url.rstrip('/')}/{archive.name}", store / archive.name
        if not path.exists():
            print(f"fetching {url}", file=sys.stderr)
            # room for the zip and for what comes out of it
            download(url, path, size=archive.size, sha256=archive.sha256, room_factor=2.05, patience=patience)
        _unpack_checked(archive, path, ready)
    files = _put_in_place(archive, ready, folder)
    marker.parent.mkdir(exist_ok=True)
    marker.write_text(json.dumps({"archive": archive.name, "files": files}) + "\n", encoding="utf-8")
    if not keep_archives:
        (store / archive.name).unlink(missing_ok=True)
    return Fetched(archive.name, "fetched", files)


def _unpack_checked(archive: Archive, path: Path, ready: Path) -> None:
    try:
        ready.parent.mkdir(exist_ok=True)
        unpack(path, ready, archive.strip)
        below = archive.units[0].removeprefix(archive.into).lstrip("/")
        if not (ready / below).is_dir():
            found = ", ".join(sorted(p.name for p in ready.iterdir())[:5]) or "nothing"
            shutil.rmtree(ready)
            raise BadArchiveError(f"{archive.name}: holds {found}", f"a folder {below}", "another --base-url")
    except BadArchiveError:
        path.unlink(missing_ok=True)  # of the right length and still wrong: it will not get better by keeping it
        raise


def _put_in_place(archive: Archive, ready: Path, folder: Path) -> int:
    """Rename each unit into place. Broken off half-way, the next run goes on here."""
    for unit in archive.units:
        source = ready / unit.removeprefix(archive.into).lstrip("/")
        target = folder / unit
        if not source.exists():
            continue
        if target.exists():
            print(f"{target} is there already and stays as it is", file=sys.stderr)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    shutil.rmtree(ready, ignore_errors=True)
    if ready.parent.exists() and not any(ready.parent.iterdir()):
        ready.parent.rmdir()
    return sum(1 for unit in archive.units for path in (folder / unit).rglob("*") if path.is_file())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second fetch into the same folder out. The lock goes with the process, however that ends."""
    import fcntl

    with (folder / ".fetch.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another fetch is running there", "one at a time", "wait for it") from None
        yield
