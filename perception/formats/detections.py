"""Stored detections: text files, one a sequence, either KITTI tracking rows or `frame,x1,y1,x2,y2,score`.

Where a folder holds folders named after classes (`Car/0000.txt`, `Pedestrian/0000.txt`), as published detections
often come, their files belong together by name. Boxes that cannot be used, as inverted ones, are passed on: what
becomes of them is the tracker's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from perception.errors import UserError
from perception.files import data_files, read_text
from perception.formats.kitti import OBJECT_CLASSES
from perception.formats.kitti_table import read_tracking_fast
from perception.types import CLASS_NAMES, F64, I64, Detections

CSV_COLUMNS = ("frame", "x1", "y1", "x2", "y2", "score")
Layout = Literal["kitti", "csv"]


@dataclass(frozen=True, eq=False)
class DetectionSequence:
    """All detections of one sequence, in the order of frames."""

    frame_ids: I64
    """(N,) ascending."""
    detections: Detections
    """N rows."""

    def frames(self, most_empty: int) -> Iterator[tuple[int, Detections]]:
        """Frames from 0 to the last with a detection; of a run of empty ones, the first `most_empty` only."""
        empty, reached = Detections.empty(), 0
        numbers, starts, counts = np.unique(self.frame_ids, return_index=True, return_counts=True)
        for number, start, count in zip(numbers.tolist(), starts.tolist(), counts.tolist(), strict=True):
            for gap in range(reached, min(number, reached + most_empty)):
                yield gap, empty
            yield number, self.detections[start : start + count]
            reached = number + 1


@dataclass(frozen=True)
class DetectionFolder:
    """The files of a folder of detections."""

    class_names: tuple[str, ...]
    """In the order of `class_ids`; this project's three first, whatever is wanted."""
    wanted: frozenset[str]
    """Those whose detections are read."""
    files: dict[str, tuple[tuple[Path, str | None], ...]]
    """By sequence: files, and the class that all rows of a file have; None where the rows say it."""
    layout: Layout

    def read(self, sequence: str) -> DetectionSequence:
        """Detections of the wanted classes in one sequence.

        Raises:
            UserError: with file, line and column.
        """
        parts = [self._read_file(path, class_name) for path, class_name in self.files[sequence]]
        frame_ids, boxes, scores, class_ids = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(frame_ids, kind="stable")
        detections = Detections(
            boxes[order].astype(np.float32), scores[order].astype(np.float32), class_ids[order].astype(np.int64)
        )
        return DetectionSequence(frame_ids[order].astype(np.int64), detections)

    def _read_file(self, path: Path, class_name: str | None) -> tuple[I64, F64, F64, I64]:
        lower = {name.lower(): i for i, name in enumerate(self.class_names) if name in self.wanted}
        if self.layout == "csv":
            assert class_name is not None
            table = parse_csv(read_text(path), path)
            class_ids = np.full(len(table), lower[class_name.lower()])
            return table[:, 0].astype(np.int64), table[:, 1:5], table[:, 5], class_ids
        rows, _ = read_tracking_fast(path, allow_inverted=True, allow_extra=True)
        class_ids = np.array([lower.get(name.lower(), -1) for name in rows.objects.names], np.int64)
        if class_name is not None:
            class_ids[class_ids != lower[class_name.lower()]] = -1
        wanted = class_ids >= 0
        scores = np.ones(len(rows)) if rows.objects.scores is None else rows.objects.scores
        return rows.frame_ids[wanted], rows.objects.boxes_xyxy[wanted], scores[wanted], class_ids[wanted]


def parse_csv(text: str, path: Path | str = "<text>") -> F64:
    """Rows `frame,x1,y1,x2,y2,score` as (N, 6); an empty text has none, and a first line that names them is skipped.

    Raises:
        UserError: a row with other than six columns, something that is not a number, or a frame that is not a whole
            number from 0.
    """
    lines = [(i, line.split(",")) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if lines and [cell.strip().lower() for cell in lines[0][1]] == list(CSV_COLUMNS):
        lines = lines[1:]
    if not lines:
        return np.zeros((0, 6))
    try:
        table = np.array([cells for _, cells in lines], np.float64)
        good = table.shape[1] == len(CSV_COLUMNS)
    except ValueError:
        good = False
    if not good:
        raise _first_bad(lines, path)
    frames = table[:, 0]
    wrong = ~((frames >= 0) & (frames == np.floor(frames)) & (frames < 2**53))
    if wrong.any():
        line, cells = lines[int(np.argmax(wrong))]
        raise UserError(f"{path}:{line}: column 'frame': found {cells[0].strip()!r}", "a whole number from 0")
    return table


def _first_bad(lines: list[tuple[int, list[str]]], path: Path | str) -> UserError:
    """What is wrong with the first row that cannot be read."""
    for line, cells in lines:
        if len(cells) != len(CSV_COLUMNS):
            return UserError(f"{path}:{line}: found {len(cells)} columns", "six: " + ",".join(CSV_COLUMNS))
        for column, cell in zip(CSV_COLUMNS, cells, strict=True):
            try:
                float(cell)
            except ValueError:
                return UserError(f"{path}:{line}: column '{column}': found {cell.strip()!r}", "a number")
    raise AssertionError("called without a bad row")


def find_detections(folder: Path, layout: Layout, classes: Sequence[str] = ()) -> DetectionFolder:
    """The files of a folder, or of the one folder of detections somewhere below it.

    Args:
        folder: with files `0000.txt`, or with folders `Car`, `Pedestrian`, … that hold them.
        layout: of the files.
        classes: those that are wanted; by default all that there are.

    Raises:
        UserError: no such folder, no files, or more than one place that holds them.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        raise UserError(
            f"{folder}: {problem}", "a folder of detections, one .txt file a sequence", "--detections DIR"
        )
    found = sorted({path.parent for path in folder.rglob("*.txt") if data_files(path.parent, (".txt",))})
    if not found:
        raise UserError(f"{folder}: holds no .txt file", "one .txt file a sequence, as 0000.txt", "--detections DIR")
    known = {name.lower(): name for name in (*CLASS_NAMES, *OBJECT_CLASSES)}
    of_class = {place: known.get(place.name.lower()) for place in found}
    wanted = {name.lower() for name in classes}
    if classes:
        there = ", ".join(dict.fromkeys(place.name for place in found))
        found = [place for place in found if of_class[place] is None or place.name.lower() in wanted]
        if not found:
            asked = " ".join(classes)
            raise UserError(f"{folder}: nothing of {asked}", f"classes that have folders: {there}", "--class CLASS")
    parents = {place.parent if of_class[place] else place for place in found}
    if len(parents) != 1:
        held = ", ".join(str(path) for path in sorted(parents)[:4])
        raise UserError(f"{folder}: found {held}", "one set of detections", f"--detections {min(parents)}")
    if layout == "csv" and None in (of_class[place] for place in found) and len(classes) != 1:
        raise UserError(
            f"{found[0]}: its rows name no class",
            "one class for all of them",
            "--class Car, or files in folders named after classes",
        )
    files: dict[str, list[tuple[Path, str | None]]] = {}
    for place in found:
        class_name = of_class[place] or (classes[0] if layout == "csv" else None)
        for path in data_files(place, (".txt",)):
            files.setdefault(path.stem, []).append((path, class_name))
    names = [known.get(name.lower(), name) for name in classes]
    names = names or [name for place in found if (name := of_class[place])] or list(OBJECT_CLASSES[:-1])
    class_names = tuple(dict.fromkeys((*CLASS_NAMES, *names)))
    return DetectionFolder(class_names, frozenset(names), {k: tuple(files[k]) for k in sorted(files)}, layout)
