"""Stored detections: text files, one a sequence, either KITTI tracking rows or `frame,x1,y1,x2,y2,score`.

Where a folder holds folders named after classes (`Car/0000.txt`, `Pedestrian/0000.txt`), as published detections
often come, their files belong together by name. Boxes that cannot be used, as inverted ones, are passed on: what
becomes of them is the tracker's business.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from perception.arrays import F64, I64
from perception.errors import UserError
from perception.files import data_files, read_text
from perception.formats.kitti import OBJECT_CLASSES
from perception.formats.kitti_table import read_tracking_fast
from perception.types import CLASS_NAMES, Detections

CSV_COLUMNS = ("frame", "x1", "y1", "x2", "y2", "score")
Layout = Literal["kitti", "csv"]
SCORE_TOLERANCE = 1e-3
"""Scores outside 0..1 by less are rounding."""
MOST_LOG_ODDS = 20.0
"""No network is surer than this."""


@dataclass(frozen=True, eq=False)
class DetectionSequence:
    """All detections of one sequence, in the order of frames."""

    frame_ids: I64
    """(N,) ascending."""
    detections: Detections
    """N rows, scores as the detector gave them."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Rows of classes that are not wanted, by class name."""
    inverted: int = 0
    """Boxes whose right edge is left of the left one, or whose lower edge is above the upper one."""

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
    """By sequence: files, and the class that all rows of a file have; None where rows name it."""
    layout: Layout

    def read(self, sequence: str) -> DetectionSequence:
        """Detections of the wanted classes in one sequence.

        Raises:
            UserError: with file, line and column.
        """
        skipped: dict[str, int] = {}
        parts = [self._read_file(path, class_name, skipped) for path, class_name in self.files[sequence]]
        frame_ids, boxes, scores, class_ids = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(frame_ids, kind="stable")
        detections = Detections(
            boxes[order].astype(np.float32), scores[order].astype(np.float32), class_ids[order].astype(np.int64)
        )
        inverted = int((boxes[:, 2:] < boxes[:, :2]).any(axis=1).sum())
        return DetectionSequence(frame_ids[order].astype(np.int64), detections, skipped, inverted)

    def _read_file(self, path: Path, class_name: str | None, skipped: dict[str, int]) -> tuple[I64, F64, F64, I64]:
        lower = {name.lower(): i for i, name in enumerate(self.class_names) if name in self.wanted}
        if self.layout == "csv":
            assert class_name is not None
            table = parse_csv(read_text(path), path)
            class_ids = np.full(len(table), lower[class_name.lower()])
            return table[:, 0].astype(np.int64), table[:, 1:5], table[:, 5], class_ids
        rows, _ = read_tracking_fast(path, allow_inverted=True, allow_extra=True)
        class_ids = np.array([lower.get(name.lower(), -1) for name in rows.objects.names], np.int64)
        wanted = class_ids >= 0
        for name in itertools.compress(rows.objects.names, ~wanted):
            skipped[name] = skipped.get(name, 0) + 1
        scores = np.ones(len(rows)) if rows.objects.scores is None else rows.objects.scores
        return rows.frame_ids[wanted], rows.objects.boxes_xyxy[wanted], scores[wanted], class_ids[wanted]


ScoreScale = Literal["share", "percent", "log-odds"]
SCALES: dict[ScoreScale, str] = {
    "share": "0..1",
    "percent": "0..100: divided by 100",
    "log-odds": "log-odds: mapped by 1 / (1 + exp(-score))",
}


def score_scale(sequences: Iterable[DetectionSequence]) -> ScoreScale:
    """What the scores of a detector are: shares, percent or log-odds, by their range over all sequences.

    Scores below 0 are log-odds, as networks give them before the last step; so are scores up to 20.
    Scores up to 100 are percent. Scores beyond 1 by rounding do not count.

    Raises:
        UserError: scores above 100, which are none of these.
    """
    low, high = 0.0, 1.0
    for sequence in sequences:
        scores = sequence.detections.scores[np.isfinite(sequence.detections.scores)]
        low, high = min([low, *scores.tolist()]), max([high, *scores.tolist()])
    if high > 100:
        raise UserError(f"a score of {high:g}", "scores of 0 to 1, percent, or log-odds", "scale them")
    if low < -SCORE_TOLERANCE:
        return "log-odds"
    if high <= 1 + SCORE_TOLERANCE:
        return "share"
    return "percent" if high > MOST_LOG_ODDS else "log-odds"


def as_shares(detections: Detections, scale: ScoreScale) -> Detections:
    """The same detections with scores in 0..1."""
    scores = detections.scores
    if scale == "percent":
        return replace(detections, scores=scores * np.float32(0.01))
    if scale == "log-odds":
        return replace(detections, scores=(1 / (1 + np.exp(-scores.astype(np.float64)))).astype(np.float32))
    return detections


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
    known = {name.lower(): name for name in (*classes, *CLASS_NAMES, *OBJECT_CLASSES)}
    of_class = {place: known.get(place.name.lower()) for place in found}
    wanted = {name.lower() for name in classes}
    if classes:
        there = ", ".join(dict.fromkeys(place.name for place in found))
        asked_for = [place for place in found if of_class[place] is None or place.name.lower() in wanted]
        found = found if layout == "kitti" and not asked_for else asked_for
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
    if not names and layout == "csv":
        names = [name for place in found if (name := of_class[place])]
    names = names or list(OBJECT_CLASSES[:-1])  # KITTI rows name their class, whatever the folder is called
    class_names = tuple(dict.fromkeys((*CLASS_NAMES, *names)))
    return DetectionFolder(class_names, frozenset(names), {k: tuple(files[k]) for k in sorted(files)}, layout)
