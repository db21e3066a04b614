"""Frames of the Udacity clips on a motorway, labelled by hand for this project: cars and road.

Nothing else in the sample data shows a motorway by day, where a concrete barrier is no car and dry grass no road. The
labels are in `annotations/clips_labels.json`, per clip and frame, in pixels of `size_hw`: boxes of cars, boxes
in which nothing is judged, the road's outline, and outlines of what may be road or not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.catalogue import DataSet
from datasets.labels import ALL_CLASSES, CAR
from datasets.sample import ROAD_IGNORE, Sample
from perception.arrays import F32, F64, U8
from perception.errors import UserError

LABELS = Path(__file__).parent / "annotations/clips_labels.json"
CLIPS = ("udacity_project_video_cut.mp4", "udacity_solidWhiteRight.mp4", "udacity_test_small1.mp4")
"""Three of the four; the other shows the same motorway and stays unseen."""


class Clips:
    """The labelled frames of those clips that a folder holds. The drive is the clip.

    Args:
        root: folder of the clips.
        labels: file as `clips_labels.json`.

    Raises:
        UserError: none of the clips is there.
    """

    def __init__(self, root: Path, labels: Path = LABELS) -> None:
        self.root, self.labels = Path(root), labels
        said = json.loads(labels.read_text())
        self.size_hw: tuple[int, int] = tuple(said["size_hw"])
        self.frames: list[tuple[str, int, dict[str, Any]]] = [
            (clip, int(frame), what)
            for clip, frames in said["clips"].items()
            if (self.root / clip).is_file()
            for frame, what in frames.items()
        ]
        if not self.frames:
            raise UserError(f"{self.root}: no labelled clips", ", ".join(said["clips"]))
        self.names = [f"{Path(clip).stem}_{frame:06d}" for clip, frame, _ in self.frames]
        self._images: dict[str, dict[int, U8]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from."""
        return [self.root / self.frames[i][0], self.labels]

    def drive(self, i: int) -> str:
        """The clip of frame `i`."""
        return Path(self.frames[i][0]).stem

    def __getitem__(self, i: int) -> Sample:
        clip, frame, what = self.frames[i]
        if clip not in self._images:  # a clip has no image without those before it, so all are kept
            self._images[clip] = decode_frames(self.root / clip, {f for c, f, _ in self.frames if c == clip})
        image = self._images[clip][frame]
        height, width = image.shape[:2]
        factor = np.array([width / self.size_hw[1], height / self.size_hw[0]])
        cars = _boxes(what["cars"], factor)
        road = np.zeros((height, width), np.uint8)
        cv2.fillPoly(road, [_outline(what["road"], factor)], 1)
        cv2.fillPoly(road, [_outline(points, factor) for points in what["road_unclear"]], ROAD_IGNORE)
        for x0, y0, x1, y1 in cars.round().astype(int):  # what of it is car was not outlined
            road[y0:y1, x0:x1] = ROAD_IGNORE
        unclear = _boxes(what["unclear"], factor)
        return Sample(
            image_bgr=image.copy(),
            name=self.names[i],
            drive=self.drive(i),
            boxes_xyxy=cars,
            class_ids=np.full(len(cars), CAR),
            ignore_boxes_xyxy=unclear,
            ignore_class_ids=np.full(len(unclear), ALL_CLASSES),
            distances_m=np.full(len(cars), np.nan, np.float32),
            road=road,
        )


def _boxes(boxes: list[list[float]], factor: F64) -> F32:
    return (np.array(boxes, np.float32).reshape(-1, 2, 2) * factor).reshape(-1, 4).astype(np.float32)


def _outline(points: list[list[float]], factor: F64) -> NDArray[np.int32]:
    return np.asarray((np.array(points) * factor).round(), np.int32)


def decode_frames(path: Path, wanted: set[int]) -> dict[int, U8]:
    """Frames of a clip by number.

    Raises:
        UserError: unreadable, or shorter than that.
    """
    found: dict[int, U8] = {}
    number = -1
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    found[number] = frame.to_ndarray(format="bgr24")
                if len(found) == len(wanted):
                    return found
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UserError(f"{path}: {error}", "a video that can be read to its end") from error
    raise UserError(f"{path}: {number + 1} frames", f"at least {max(wanted) + 1}, as its labels say")


DATA_SET = DataSet(
    name="videos",
    folders=("videos",),
    present=lambda folder: any((folder / clip).is_file() for clip in CLIPS),
    open=lambda folder, labels: Clips(folder) if labels.hand_labels else None,
    weight=0.1,
    chosen_for=18,
    licence="clips: MIT, Udacity; labels: this project's",
    classes=("Car",),
    road=True,
    order=9,
)
