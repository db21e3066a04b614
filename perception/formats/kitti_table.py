"""Read KITTI's text files in bulk: thousands of object files as one table of columns, and long tracking files.

The grammar is that of `formats/kitti.py`. Here the numbers of all rows are converted at once, which is several times
faster. Anything unusual goes to `formats/kitti.py`, file by file, which accepts it or names the fault.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.arrays import F64, I64
from perception.errors import UserError
from perception.files import read_text
from perception.formats.decimals import MARGIN, parse_decimals
from perception.formats.kitti import MAX_WHOLE, ObjectRows, TrackingRows, parse_objects, parse_tracking

_PLAIN = bytes([9, 10, 13, *range(32, 127)])
_READ = 1 << 15
"""Bytes read at once: more than a label file holds."""
_BLOCK = 1 << 22
"""Bytes of text parsed at once, which bounds the memory."""


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """The rows of many object files, column by column: N rows of F frames, in order of frame and then of file."""

    frame_names: tuple[str, ...]
    """Names of the F frames, such as '000042'."""
    frames: I64
    """(N,) index into `frame_names`, non-decreasing."""
    class_names: tuple[str, ...]
    """The different class names as written."""
    class_ids: I64
    """(N,) index into `class_names`."""
    truncation: F64
    """(N,) and so on: see `ObjectRows`."""
    occlusion: I64
    alpha: F64
    boxes_xyxy: F64
    """(N, 4) pixels."""
    dimensions_hwl: F64
    location_cam2: F64
    rotation_y: F64
    scores: F64 | None
    """(N,) for results, None for labels."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def first_rows(self) -> I64:
        """(F + 1,) first row of each frame, and the number of rows as the last entry."""
        return np.searchsorted(self.frames, np.arange(len(self.frame_names) + 1))

    @property
    def heights(self) -> F64:
        """(N,) of the boxes, pixels."""
        return self.boxes_xyxy[:, 3] - self.boxes_xyxy[:, 1]

    def is_class(self, *names: str) -> np.ndarray:
        """(N,) bool: rows whose class is one of `names`, compared without case."""
        wanted = {name.lower() for name in names}
        chosen = np.array([name.lower() in wanted for name in self.class_names], bool)
        return chosen[self.class_ids] if len(self) else np.zeros(0, bool)

    def frame(self, index: int) -> ObjectRows:
        """The rows of one frame, as `read_objects` gives them."""
        start, stop = np.searchsorted(self.frames, [index, index + 1])
        return ObjectRows(
            names=tuple(self.class_names[i] for i in self.class_ids[start:stop]),
            truncation=self.truncation[start:stop],
            occlusion=self.occlusion[start:stop],
            alpha=self.alpha[start:stop],
            boxes_xyxy=self.boxes_xyxy[start:stop],
            dimensions_hwl=self.dimensions_hwl[start:stop],
            location_cam2=self.location_cam2[start:stop],
            rotation_y=self.rotation_y[start:stop],
            scores=None if self.scores is None else self.scores[start:stop],
        )

    @staticmethod
    def from_rows(frame_names: Sequence[str], rows: Sequence[ObjectRows], *, scores: bool) -> ObjectTable:
        """Join the rows of each frame into a table. With `scores`, rows without scores must be empty."""
        names = list(dict.fromkeys(name for frame in rows for name in frame.names))
        index = {name: i for i, name in enumerate(names)}

        def column(name: str, width: int = 0) -> np.ndarray:
            parts = [getattr(frame, name) for frame in rows if len(frame)]
            return np.concatenate(parts) if parts else np.zeros((0, width) if width else 0)

        return ObjectTable(
            frame_names=tuple(frame_names),
            frames=np.repeat(np.arange(len(rows)), [len(frame) for frame in rows]),
            class_names=tuple(names),
            class_ids=np.array([index[name] for frame in rows for name in frame.names], np.int64),
            truncation=column("truncation"),
            occlusion=column("occlusion").astype(np.int64),
            alpha=column("alpha"),
            boxes_xyxy=column("boxes_xyxy", 4),
            dimensions_hwl=column("dimensions_hwl", 3),
            location_cam2=column("location_cam2", 3),
            rotation_y=column("rotation_y"),
            scores=column("scores") if scores else None,
        )


def read_object_table(
    frame_names: Sequence[str],
    paths: Sequence[str | Path | None],
    *,
    scores: bool,
    classes: Iterable[str] | None = None,
    allow_inverted: bool = False,
) -> ObjectTable:
    """Read many object files as one table.

    Args:
        frame_names: F names.
        paths: F files; None counts as an empty one.
        scores: True for results (16 columns), False for labels (15).
        classes: legal names, compared without case; None allows any.
        allow_inverted: accept boxes whose right is less than their left, as the official evaluator does.

    Raises:
        UserError: a missing file or a bad row, with file, line, column and what was expected.
    """
    table = _plain_objects(frame_names, paths, scores, allow_inverted)
    if table is not None and (
        classes is None or {name.lower() for name in table.class_names} <= {name.lower() for name in classes}
    ):
        return table
    rows = [
        parse_objects(
            "" if path is None else read_text(Path(path)),
            path or "",
            scores=scores,
            classes=classes,
            allow_inverted=allow_inverted,
        )
        for path in paths
    ]
    return ObjectTable.from_rows(frame_names, rows, scores=scores)


def _read_bytes(path: str | Path) -> bytes:
    """Read a whole file in three system calls; one evaluation reads thousands."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            parts = [os.read(handle, _READ)]
            while len(parts[-1]) == _READ:
                parts.append(os.read(handle, _READ))
        finally:
            os.close(handle)
    except OSError:
        return read_text(Path(path)).encode()  # raises the error that names the cause
    return (parts[0] if len(parts) == 1 else b"".join(parts)).removeprefix(BOM_UTF8)


@dataclass(frozen=True, eq=False)
class _Plain:
    """Rows of one width, as numbers and names."""

    numbers: F64
    """(N, width - 1): all columns but the name."""
    names: list[bytes]
    offsets: I64
    """(N,) where each row starts in the text."""


def _parse_plain(text: bytes, width: int, name_column: int) -> _Plain | None:
    """Parse rows of `width` columns, one of them a name; None where anything is unusual."""
    if text.translate(None, _PLAIN):
        return None
    text = b"\n" * MARGIN + text + b"\n"
    buffer = np.frombuffer(text, np.uint8)
    solid = buffer > 32
    edges = np.flatnonzero(solid[1:] != solid[:-1]) + 1
    tokens = edges.reshape(-1, 2)  # start and end
    if len(tokens) % width:
        return None
    table = tokens.reshape(-1, width, 2)
    newlines = np.flatnonzero(buffer == 10)
    first, last = np.searchsorted(newlines, table[:, 0, 0]), np.searchsorted(newlines, table[:, -1, 0])
    if (first != last).any() or (first[1:] <= last[:-1]).any():  # rows are not lines
        return None
    names = [text[i:j] for i, j in table[:, name_column].tolist()]
    numeric = np.delete(table, name_column, axis=1).reshape(-1, 2)
    numbers = parse_decimals(text, numeric[:, 0], numeric[:, 1])
    if numbers is None:
        return None
    return _Plain(numbers.reshape(-1, width - 1), names, table[:, 0, 0] - MARGIN)


def _odd(whole: np.ndarray, boxes: np.ndarray, allow_inverted: bool) -> bool:
    """Tell whether `formats/kitti.py` would refuse these whole numbers and boxes."""
    return bool(
        (whole != np.floor(whole)).any()
        or (np.abs(whole) > MAX_WHOLE).any()
        or (not allow_inverted and (boxes[:, 2:] < boxes[:, :2]).any())
    )


def _plain_objects(
    frame_names: Sequence[str], paths: Sequence[str | Path | None], scores: bool, allow_inverted: bool
) -> ObjectTable | None:
    """Parse all files in blocks of a few megabytes; None where anything is unusual."""
    width = 16 if scores else 15
    blocks, frames, names = [np.zeros((0, width - 1))], [np.zeros(0, np.int64)], []
    start = 0
    while start < len(paths):
        contents, size, stop = [], 0, start
        while stop < len(paths) and size < _BLOCK:
            path = paths[stop]
            contents.append(b"" if path is None else _read_bytes(path))
            size, stop = size + len(contents[-1]), stop + 1
        plain = _parse_plain(b"\n".join(contents), width, 0)
        if plain is None or _odd(plain.numbers[:, 1], plain.numbers[:, 3:7], allow_inverted):
            return None
        ends = np.cumsum([len(content) + 1 for content in contents])
        blocks.append(plain.numbers)
        frames.append(np.searchsorted(ends, plain.offsets, side="right") + start)
        names += plain.names
        start = stop
    numbers = np.concatenate(blocks)
    ids = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return ObjectTable(
        frame_names=tuple(frame_names),
        frames=np.concatenate(frames),
        class_names=tuple(name.decode("ascii") for name in ids),
        class_ids=np.array([ids[name] for name in names], np.int64),
        truncation=numbers[:, 0],
        occlusion=numbers[:, 1].astype(np.int64),
        alpha=numbers[:, 2],
        boxes_xyxy=numbers[:, 3:7],
        dimensions_hwl=numbers[:, 7:10],
        location_cam2=numbers[:, 10:13],
        rotation_y=numbers[:, 13],
        scores=numbers[:, 14] if scores else None,
    )


def read_tracking_fast(
    path: Path,
    *,
    scores: bool | None = None,
    classes: Iterable[str] | None = None,
    allow_inverted: bool = False,
    allow_extra: bool = False,
) -> tuple[TrackingRows, int]:
    """Read a tracking file as `parse_tracking` does, several times as fast where nothing is unusual.

    Args:
        allow_extra: ignore columns after the score, as the official evaluator does.

    Returns:
        The rows, and the number of ignored columns in each.

    Raises:
        UserError: as `parse_tracking`.
    """
    content = _read_bytes(path)
    found = len(next((tokens for line in content.split(b"\n") if (tokens := line.split())), []))
    extra = max(0, found - 18) if allow_extra else 0
    legal = {None: (17, 18), True: (18,), False: (17,)}[scores]
    plain = _parse_plain(content, found, 2) if found - extra in legal else None
    rows = None if plain is None else _plain_tracking(plain, found - extra == 18, classes, allow_inverted)
    if rows is None:
        text = read_text(path)
        if extra:
            text = "\n".join(" ".join(line.split()[:18]) for line in text.split("\n"))
        rows = parse_tracking(text, path, scores=scores, classes=classes, allow_inverted=allow_inverted)
    return rows, extra


def _plain_tracking(
    plain: _Plain, scores: bool, classes: Iterable[str] | None, allow_inverted: bool
) -> TrackingRows | None:
    """Return the rows as columns; None where `parse_tracking` would refuse them."""
    numbers = plain.numbers
    boxes = numbers[:, 5:9]
    words = {name: name.decode("ascii") for name in set(plain.names)}
    names = tuple(map(words.__getitem__, plain.names))
    if (
        _odd(numbers[:, [0, 1, 3]], boxes, allow_inverted)
        or (numbers[:, 0] < 0).any()
        or (classes is not None and not {n.lower() for n in words.values()} <= {n.lower() for n in classes})
    ):
        return None
    return TrackingRows(
        frame_ids=numbers[:, 0].astype(np.int64),
        track_ids=numbers[:, 1].astype(np.int64),
        objects=ObjectRows(
            names=names,
            truncation=numbers[:, 2],
            occlusion=numbers[:, 3].astype(np.int64),
            alpha=numbers[:, 4],
            boxes_xyxy=boxes,
            dimensions_hwl=numbers[:, 9:12],
            location_cam2=numbers[:, 12:15],
            rotation_y=numbers[:, 15],
            scores=numbers[:, 16] if scores else None,
        ),
    )


def find_object_files(folder: Path, frame_names: Sequence[str]) -> list[str | None]:
    """Find the file of each frame, None where there is none; lists the folder once."""
    try:
        there = set(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}", "a folder of KITTI text files", "check the path") from None
    start = os.path.join(folder, "")  # thousands of Path objects would take as long as reading the files
    return [start + name if (name := f"{frame}.txt") in there else None for frame in frame_names]
