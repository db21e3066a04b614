"""Many KITTI object files at once, as one table of columns: what an evaluator of thousands of frames reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.formats.kitti import ObjectRows
from perception.types import F64, I64


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

    def is_class(self, *names: str) -> np.ndarray:
        """(N,) bool: rows whose class is one of `names`, compared without case."""
        wanted = {name.lower() for name in names}
        chosen = np.array([name.lower() in wanted for name in self.class_names], bool)
        return chosen[self.class_ids] if len(self.class_names) else np.zeros(len(self), bool)

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
    def from_rows(frame_names: Sequence[str], rows: Sequence[ObjectRows]) -> ObjectTable:
        """One table from the rows of each frame."""
        raise NotImplementedError


def read_object_table(
    frame_names: Sequence[str],
    paths: Sequence[Path | None],
    *,
    scores: bool | None = None,
    classes: Iterable[str] | None = None,
) -> ObjectTable:
    """Read many object files as one table. A path of None counts as an empty file."""
    raise NotImplementedError
