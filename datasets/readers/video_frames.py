"""`perception data frames`: single frames of videos, to be labelled."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from datasets.checks.similar import NEAR_BITS, distance, image_hash
from datasets.formats import check_new
from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.files import write_atomically
from perception.progress import Progress

LONGEST_S = 3600.0


@dataclass(frozen=True)
class FramesOptions(CommandOptions):
    """Take frames from videos at an interval, upright and without overlays, as OUT/VIDEO/000000.jpg.

    Frames that look like the one before them are left out: the car stands still.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")] = ()
    """Videos, image folders or KITTI sequences; NAME=VIDEO sets the folder's name."""
    out: Path = Path("frames")
    """New folder for the frames. Each video is a folder, and so a recording, which the split never divides."""
    every_s: float = 1.0
    """Interval, seconds."""
    still: bool = False
    """Keep frames that look like the one before them."""
    quality: int = 95
    """JPEG quality, 1 to 100."""
    json: bool = False
    """Print the result as JSON."""


@dataclass
class Taken:
    """What was taken from one video."""

    name: str
    frames: list[int] = field(default_factory=list)
    """Numbers of the frames in the video."""
    still: int = 0
    """Frames left out because they look like the one before them."""


def main(argv: list[str]) -> int:
    """Take the frames; returns 1 where there are none."""
    options = parse_options(FramesOptions, argv, "perception data frames")
    if not options.sources:
        raise UserError("no video given", "one video or more", "perception data frames VIDEO --out frames")
    if not 0 < options.every_s <= LONGEST_S:
        raise UserError(f"--every-s {options.every_s:g}", f"more than 0, up to {LONGEST_S:g}", "--every-s 1")
    if not 1 <= options.quality <= 100:
        raise UserError(f"--quality {options.quality}", "from 1 to 100", "--quality 95")
    check_new(options.out)
    taken = take_frames(options)
    if options.json:
        rows = [{"video": one.name, "frames": one.frames, "still": one.still} for one in taken]
        print(json.dumps({"out": str(options.out), "videos": rows}))
    else:
        for one in taken:
            print(f"{options.out / one.name}: {len(one.frames)} frames, {one.still} left out: the car stands still")
    return 0 if any(one.frames for one in taken) else 1


def take_frames(options: FramesOptions) -> list[Taken]:
    """Write the frames of every video.

    Raises:
        UserError: a source cannot be read, or two have one name.
    """
    from perception.sources import open_sources

    sources, found = open_sources(options.sources), []
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise UserError(
            f"two sources are named {max(names, key=names.count)}", "names that differ", "a=1.mp4 b=2.mp4"
        )
    for source in sources:
        if source.live:
            raise UserError(f"{source.name}: a live source", "recordings", "perception run SOURCE records one")
        one, next_ns, before = Taken(source.name), 0, None
        try:
            with Progress(f"frames of {source.name}") as progress:
                for frame in source:
                    if frame.timestamp_ns < next_ns:
                        continue
                    next_ns = frame.timestamp_ns + round(options.every_s * 1e9)
                    value = image_hash(frame.image_bgr)
                    if before is not None and not options.still and distance(value, before) <= NEAR_BITS:
                        one.still += 1
                        continue
                    before = value
                    _write(options.out / source.name / f"{frame.frame_id:06d}.jpg", frame.image_bgr, options.quality)
                    one.frames.append(frame.frame_id)
                    progress.update(len(one.frames))
        finally:
            source.close()
        found.append(one)
    return found


def _write(path: Path, image_bgr: object, quality: int) -> None:
    import cv2

    data = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]  # type: ignore[call-overload]
    write_atomically(path, data.tobytes(), do="free some space, or --out FOLDER on another disk")
