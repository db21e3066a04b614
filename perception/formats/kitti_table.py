"""Many KITTI object files at once, as one table of columns: what an evaluator of thousands of frames reads.

The grammar is `formats/kitti.py`'s. Here all files are joined and their numbers converted in one go, which is ten
times faster; whatever is not plainly right is handed to `parse_objects`, file by file, which says what is wrong.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.errors import UserError
from perception.formats.kitti import ObjectRows, parse_objects, read_text
from perception.types import F64, I64

_PLAIN = bytes([9, 10, 13, *range(32, 127)])
_NUMERIC = b"0123456789+-.eE \t\r\n"
_LONGEST_NAME = 32
_BLOCK = 1 << 15
"""Read at once: more than a label file holds, and small enough that the buffer costs nothing."""


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
        """One table from the rows of each frame. With `scores`, rows without scores must be empty."""
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
    paths: Sequence[Path | None],
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
        allow_inverted: take boxes whose right is less than their left, as the official evaluator does.

    Raises:
        UserError: a missing file or a bad row, with file, line, column and what was expected.
    """
    contents = [b"" if path is None else _read_bytes(path) for path in paths]
    table = _parse_plain(frame_names, contents, scores, allow_inverted)
    if table is not None and (
        classes is None or {name.lower() for name in table.class_names} <= {name.lower() for name in classes}
    ):
        return table
    rows = [
        parse_objects(
            "" if path is None else read_text(path),
            path or "",
            scores=scores,
            classes=classes,
            allow_inverted=allow_inverted,
        )
        for path in paths
    ]
    return ObjectTable.from_rows(frame_names, rows, scores=scores)


def _read_bytes(path: Path) -> bytes:
    """A whole file in three system calls; thousands of them are read for one evaluation."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            parts = [os.read(handle, _BLOCK)]
            while len(parts[-1]) == _BLOCK:
                parts.append(os.read(handle, _BLOCK))
        finally:
            os.close(handle)
    except OSError:
        return read_text(path).encode()  # finds the words for what is wrong
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _parse_plain(
    frame_names: Sequence[str], contents: list[bytes], scores: bool, allow_inverted: bool
) -> ObjectTable | None:
    """All files in one go, or None where anything is out of the ordinary."""
    width = 16 if scores else 15
    text = b"\n".join(contents) + b"\n"
    if text.translate(None, _PLAIN):
        return None
    buffer = np.frombuffer(text, np.uint8)
    solid = buffer > 32
    starts = np.flatnonzero(solid[1:] & ~solid[:-1]) + 1  # of tokens
    if solid[0]:
        starts = np.concatenate([[0], starts])
    if len(starts) % width:
        return None
    table = starts.reshape(-1, width)
    newlines = np.flatnonzero(buffer == 10)
    lines = np.searchsorted(newlines, table[:, [0, -1]])  # line of the first and of the last token of each row
    if (lines[:, 0] != lines[:, 1]).any() or (lines[1:, 0] <= lines[:-1, 1]).any():
        return None

    # class names: take them out, so that only numbers are left
    begin = table[:, 0]
    end = np.flatnonzero(solid[:-1] & ~solid[1:])[::width] + 1
    names = [text[i:j] for i, j in zip(begin.tolist(), end.tolist(), strict=True)]
    longest = max(map(len, names), default=0)
    if longest > _LONGEST_NAME:
        return None
    ids = {name: i for i, name in enumerate(dict.fromkeys(names))}
    blank = buffer.copy()
    for offset in range(longest):
        blank[begin[end - begin > offset] + offset] = 32
    numeric = blank.tobytes()
    if numeric.translate(None, _NUMERIC):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy before 2.3 stops at a bad token with a warning
        try:
            numbers = np.fromstring(numeric, sep=" ") if names else np.zeros(0)
        except ValueError:
            return None
    if len(numbers) != len(names) * (width - 1):
        return None
    numbers = numbers.reshape(-1, width - 1)
    occlusion, boxes = numbers[:, 1], numbers[:, 3:7]
    if (
        not np.isfinite(numbers).all()
        or (occlusion != np.floor(occlusion)).any()
        or (not allow_inverted and (boxes[:, 2:] < boxes[:, :2]).any())
    ):
        return None
    file_ends = np.cumsum([len(content) + 1 for content in contents]) if contents else np.zeros(0, np.int64)
    return ObjectTable(
        frame_names=tuple(frame_names),
        frames=np.searchsorted(file_ends, begin, side="right"),
        class_names=tuple(name.decode("ascii") for name in ids),
        class_ids=np.array([ids[name] for name in names], np.int64),
        truncation=numbers[:, 0],
        occlusion=occlusion.astype(np.int64),
        alpha=numbers[:, 2],
        boxes_xyxy=boxes,
        dimensions_hwl=numbers[:, 7:10],
        location_cam2=numbers[:, 10:13],
        rotation_y=numbers[:, 13],
        scores=numbers[:, 14] if scores else None,
    )


def find_object_files(folder: Path, frame_names: Sequence[str]) -> list[Path | None]:
    """The file of each frame, None where there is none. One look into the folder, not one for each frame."""
    try:
        there = set(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}", "a folder of KITTI text files", "check the path") from None
    return [folder / f"{name}.txt" if f"{name}.txt" in there else None for name in frame_names]
