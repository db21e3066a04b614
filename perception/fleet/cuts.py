"""Video and images around the rows of an answer, from the recordings themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from perception.errors import UserError
from perception.files import write_atomically
from perception.fleet.drives import Drive
from perception.fleet.worker import fetch_drive
from perception.types import Frame

BEFORE_S, AFTER_S = 3.0, 3.0


class Hit(NamedTuple):
    """One moment of one source."""

    drive: str
    source: str
    timestamp_ns: int


class Cuts(NamedTuple):
    """What was written."""

    paths: list[Path]
    missed: list[str]
    """Why some hits have none."""


def hits_of(records: Sequence[Mapping[str, Any]], most: int) -> tuple[list[Hit], int]:
    """Moments in an answer, each once, at most `most`; and how many there were.

    Raises:
        UserError: the answer does not say where and when.
    """
    needed = ("drive", "source", "timestamp_ns")
    if records and any(name not in records[0] for name in needed):
        raise UserError(
            f"an answer with {', '.join(records[0])}",
            "columns drive, source and timestamp_ns, for --clips and --frames",
            "SELECT drive, source, timestamp_ns, … FROM tracks",
        )
    known = [row for row in records if all(row[name] is not None for name in needed)]
    found = list(dict.fromkeys(Hit(str(r["drive"]), str(r["source"]), int(r["timestamp_ns"])) for r in known))
    return found[:most], len(found)


def cut(hits: Sequence[Hit], drives: Mapping[str, Drive], clips: Path | None, frames: Path | None) -> Cuts:
    """Write a clip and an image for each hit; each source is read once.

    Args:
        hits: moments.
        drives: the input's drives, by their number.
        clips: folder of videos of `BEFORE_S` before each hit to `AFTER_S` after it.
        frames: folder of PNG images.
    """
    paths: list[Path] = []
    missed: list[str] = []
    for name in sorted({hit.drive for hit in hits}):
        drive = drives.get(name)
        if drive is None:
            missed.append(f"{name}: its recording is not in the input")
            continue
        of_drive = [hit for hit in hits if hit.drive == name]
        with tempfile.TemporaryDirectory(prefix="perception-fleet-") as folder:
            try:
                location = fetch_drive(drive, Path(folder))
                for source_name in sorted({hit.source for hit in of_drive}):
                    moments = [hit for hit in of_drive if hit.source == source_name]
                    paths += _cut_source(location, drive, moments, clips, frames)
            except UserError as error:
                missed.append(f"{drive.shown}: {error.found}")
    return Cuts(paths, missed)


def _cut_source(
    location: Path, drive: Drive, hits: list[Hit], clips: Path | None, frames: Path | None
) -> Iterator[Path]:
    from perception.fleet.worker import open_drive
    from perception.sinks.video import H264Writer
    from perception.source_options import SourceOptions

    before_ns, after_ns = round(BEFORE_S * 1e9), round(AFTER_S * 1e9)
    last_ns = max(hit.timestamp_ns for hit in hits) + after_ns
    writers: dict[Hit, H264Writer] = {}
    pending = sorted(hits, key=lambda hit: hit.timestamp_ns)
    try:
        for source in open_drive(location, drive.is_bag, SourceOptions()):
            if source.name != hits[0].source:
                source.close()
                continue
            for frame in source:
                if frame.timestamp_ns > last_ns:
                    break
                for hit in hits if clips is not None else ():
                    if hit.timestamp_ns - before_ns <= frame.timestamp_ns <= hit.timestamp_ns + after_ns:
                        if hit not in writers:
                            assert clips is not None
                            clips.mkdir(parents=True, exist_ok=True)
                            writers[hit] = H264Writer(clips / f"{_stem(hit)}.mp4", source.rate_hz or 25.0)
                        writers[hit].write(frame.image_bgr, frame.timestamp_ns)
                while frames is not None and pending and frame.timestamp_ns >= pending[0].timestamp_ns:
                    yield _image(frames, pending.pop(0), frame)
            source.close()
            break
    finally:
        for writer in writers.values():
            writer.close()
    yield from (writer.path for writer in writers.values())


def _image(folder: Path, hit: Hit, frame: Frame) -> Path:
    path = folder / f"{_stem(hit)}.png"
    write_atomically(path, cv2.imencode(".png", frame.image_bgr)[1].tobytes())
    return path


def _stem(hit: Hit) -> str:
    return f"{hit.drive}-{hit.source}-{hit.timestamp_ns // 10**6:010d}"
