"""Frames of the Udacity clips that nobody labelled by hand, with teachers' labels alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.catalogue import DataSet, ExtraLabels
from datasets.clips import CLIPS, Clips, decode_frames
from datasets.readers.teacher_labels import TeacherRows, rows_of
from datasets.sample import Sample
from perception.arrays import U8
from perception.errors import UserError
from perception.types import CLASS_NAMES

FOLDER = "videos"
"""Of the rows, whose files are called CLIP_FRAME, the frame counted from 0."""


class ClipFrames:
    """Frames that have rows, of those clips that `datasets/clips.py` trains on, without its own frames.

    Args:
        root: folder of the clips.
        rows: of their frames.

    Raises:
        UserError: none of the clips has rows.
    """

    def __init__(self, root: Path, rows: TeacherRows) -> None:
        self.root, self.rows = root, rows
        drawn = {(Path(clip).stem, frame) for clip, frame, _ in Clips(root).frames}
        self._frames: list[tuple[str, int]] = []
        for stem in sorted(rows.stems):
            clip, _, number = stem.rpartition("_")
            known = f"{clip}.mp4" in CLIPS and (root / f"{clip}.mp4").is_file()
            if known and number.isdecimal() and (clip, int(number)) not in drawn:
                self._frames.append((stem, int(number)))
        if not self._frames:
            raise UserError(f"{rows.path}: no rows of the clips in {root}", "CLIP_FRAME.txt")
        self.names = [stem for stem, _ in self._frames]
        self._images: dict[str, dict[int, U8]] = {}

    def _clip(self, i: int) -> Path:
        return self.root / f"{self.names[i].rpartition('_')[0]}.mp4"

    def __len__(self) -> int:
        return len(self.names)

    def drive(self, i: int) -> str:
        """The clip."""
        return self._clip(i).stem

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from; the clip first."""
        return [self._clip(i), self.rows.file(self.names[i])]

    def __getitem__(self, i: int) -> Sample:
        clip, number = self._clip(i), self._frames[i][1]
        if clip.name not in self._images:  # a frame needs all those before it, so a clip is decoded once
            wanted = {n for stem, n in self._frames if stem.rpartition("_")[0] == clip.stem}
            self._images[clip.name] = decode_frames(clip, wanted)
        image = self._images[clip.name][number]
        found = self.rows.targets(self.names[i], (image.shape[0], image.shape[1]))
        return Sample(
            image_bgr=image.copy(),
            name=self.names[i],
            drive=clip.stem,
            boxes_xyxy=found.boxes_xyxy,
            class_ids=found.class_ids,
            confidences=found.confidences,
            ignore_boxes_xyxy=found.ignore_boxes_xyxy,
            ignore_class_ids=found.ignore_class_ids,
            distances_m=np.full(len(found.boxes_xyxy), np.nan, np.float32),
        )


def open_frames(folder: Path, labels: ExtraLabels) -> ClipFrames | None:
    """Open the frames; None without teachers' labels of them."""
    rows = rows_of(labels.teacher_labels, FOLDER)
    return None if rows is None else ClipFrames(folder, rows)


DATA_SET = DataSet(
    name="clip_frames",
    folders=("videos",),
    present=lambda folder: any((folder / clip).is_file() for clip in CLIPS),
    open=open_frames,
    weight=0.03,
    chosen_for=70,
    licence="clips: MIT, Udacity",
    classes=CLASS_NAMES,
    order=13,
)
