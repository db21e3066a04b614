"""What networks find in every frame of a pool, kept in a file, so that an interrupted look can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from datasets.checks.similar import Hash, image_hash
from datasets.labelling.pool import Pool, PoolFrame
from perception.arrays import U8
from perception.errors import UserError
from perception.files import make_folder, read_text
from perception.labelling.committee import Committee
from perception.progress import Progress
from perception.types import Detections

FILE = "detections.jsonl"
THUMB_HW = (6, 12)
"""Size of the thumbnails by which frames are compared."""
DECIMALS = 4


@dataclass(frozen=True, eq=False)
class Seen:
    """One frame and what each network found in it."""

    frame: PoolFrame
    """Without its pixels."""
    size_hw: tuple[int, int]
    hash: Hash
    thumb: U8
    """`THUMB_HW` x 3, Lab."""
    parts: tuple[Detections, ...]
    """Of each network."""


@dataclass
class Look:
    """All frames of a pool."""

    seen: list[Seen]
    unreadable: list[str]
    """Names of images that could not be read."""
    before: int
    """Frames whose detections were there already."""


def look_through(pool: Pool, committee: Committee, settings: Mapping[str, Any], out: Path) -> Look:
    """Run networks over every frame of a pool, except those that `out/detections.jsonl` holds.

    Args:
        pool: where frames come from.
        committee: the networks.
        settings: what decides the detections. Another run with others does not continue the file.
        out: folder of the file; made.

    Raises:
        UserError: the file belongs to other settings, or nothing can be read or written.
    """
    make_folder(out)
    path = out / FILE
    known = _read(path, settings, committee)
    look = Look([], [], 0)
    with _opened(path, settings) as file, Progress("frames looked at", pool.count()) as progress:
        for frame in pool.frames():
            bare = replace(frame, image_bgr=None)
            frame.keep()
            if (old := known.get(frame.name)) is not None:
                look.seen.append(_seen(old, bare))
                look.before += 1
            else:
                try:
                    image = frame.read()
                except UserError:
                    look.unreadable.append(frame.name)
                    continue
                row = _row(frame.name, image, committee.look(image))
                file.write(json.dumps(row, separators=(",", ":")) + "\n")
                file.flush()
                look.seen.append(_seen(row, bare))
            progress.update(len(look.seen) + len(look.unreadable))
    if not look.seen:
        raise UserError(f"{', '.join(pool.locations)}: no readable image", "PNG or JPEG files, or a video")
    return look


def _row(name: str, image_bgr: U8, parts: Sequence[Detections]) -> dict[str, Any]:
    small = cv2.resize(image_bgr, THUMB_HW[::-1], interpolation=cv2.INTER_AREA)
    thumb = cv2.cvtColor(small, cv2.COLOR_BGR2LAB)
    rows = [
        [
            [*(round(v, 2) for v in box), round(score, DECIMALS), class_id]
            for box, score, class_id in zip(
                p.boxes_xyxy.tolist(), p.scores.tolist(), p.class_ids.tolist(), strict=True
            )
        ]
        for p in parts
    ]
    value = image_hash(image_bgr).tobytes().hex()
    return {
        "name": name,
        "size_hw": image_bgr.shape[:2],
        "hash": value,
        "thumb": thumb.tobytes().hex(),
        "parts": rows,
    }


def _seen(row: Mapping[str, Any], frame: PoolFrame) -> Seen:
    parts = []
    for rows in row["parts"]:
        table = np.array(rows, np.float64).reshape(-1, 6)
        boxes, scores = table[:, :4].astype(np.float32), table[:, 4].astype(np.float32)
        parts.append(Detections(boxes, scores, table[:, 5].astype(np.int64)))
    thumb = np.frombuffer(bytes.fromhex(row["thumb"]), np.uint8).reshape(*THUMB_HW, 3)
    value = np.frombuffer(bytes.fromhex(row["hash"]), np.uint64)
    height, width = row["size_hw"]
    return Seen(frame, (height, width), value, thumb, tuple(parts))


def _opened(path: Path, settings: Mapping[str, Any]) -> IO[str]:
    """Open the file to append to it; a new one begins with the settings."""
    try:
        is_new = not path.exists()
        file = path.open("a", encoding="utf-8")
        if is_new:
            file.write(json.dumps(settings) + "\n")
            file.flush()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "a folder that can be written", "--out FOLDER") from None
    return file


def _read(path: Path, settings: Mapping[str, Any], committee: Committee) -> dict[str, dict[str, Any]]:
    """Return the rows of an earlier look by name. A last line that was cut short is removed from the file."""
    if not path.exists():
        return {}
    text = read_text(path)
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    head, *lines = whole.splitlines() or [""]
    mend = f"another --out, or remove {path}"
    try:
        if (before := json.loads(head)) != json.loads(json.dumps(settings)):
            other = [key for key in settings if before.get(key) != json.loads(json.dumps(settings[key]))]
            raise UserError(f"{path}: detections with other {', '.join(other)}", "the same options", mend)
        rows = [json.loads(line) for line in lines]
        for row in rows:  # whatever is missing or of another type shows here
            parts = _seen(row, PoolFrame("", "", 0, path)).parts
            known = all(
                ((part.class_ids >= 0) & (part.class_ids < len(committee.class_names))).all() for part in parts
            )
            if len(parts) != len(committee.members) or not known:
                raise ValueError
        return {row["name"]: row for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise UserError(f"{path}: not what this command writes", "the file of an earlier run", mend) from None
