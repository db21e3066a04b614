"""IDD-Lite: Indian roads, 320x227, seven coarse classes at every pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.annotations.reviewed import reviewed, reviewed_file
from datasets.catalogue import DataSet, ExtraLabels, SampleSource
from datasets.labels import ALL_CLASSES, PEDESTRIAN
from datasets.readers.index_masks import LAYOUT, PERSON, VEHICLE, IndexMasks, Legend
from datasets.readers.mask_boxes import Shape, boxes_from_mask
from datasets.readers.teacher_labels import TeacherLabelled, rows_of
from datasets.sample import Sample
from perception.arrays import U8

LEGEND = Legend(
    name="idd",
    classes=frozenset({0, 1, 2, 3, 4, 5, 6, 255}),
    road=0,
    void=255,
    semantic={2: PERSON, 3: VEHICLE},
)
"""0 drivable, 1 other ground, 2 people and riders (together), 3 vehicles, 4 roadside, 5 far objects, 6 sky."""
OTHER_GROUND = 1
SHAPES = {2: Shape(PEDESTRIAN, aspect=(0.2, 0.5), filled=0.42)}
"""Most riders are no people here: what is under them is no ground but a vehicle."""
LOWEST = 17
"""Pixels; lower people are ignored. All others were looked at: many ride, seen from the front or from behind."""
REVIEWED = "idd_lite"
"""Name of its file of reviewed labels."""
VEHICLES = {3: ALL_CLASSES}
"""Cars, lorries, rickshaws and motorcycles, none told apart."""


class IddLite(IndexMasks):
    """Folders `train`, `val` with masks in `<split>annot`. The drive is the name up to its underscore.

    Args:
        root: folder that holds `train/` and `trainannot/`.
        split: `train` or `val`.
        boxes: derive boxes of single people from the masks (`datasets.readers.mask_boxes`, `annotations.reviewed`).
            Vehicles, riders and groups are ignored, the rest is background for all classes. False: no boxes, as the
            set has none.
    """

    def __init__(self, root: Path, split: str = "train", boxes: bool = False) -> None:
        super().__init__(root, split, LEGEND)
        self.boxes = boxes
        self.variant = "boxes" if boxes else ""  # copies in a cache are told apart by it

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from; the image first."""
        return super().files(i) + ([reviewed_file(REVIEWED)] if self.boxes else [])

    def sample(self, sample: Sample, numbers: U8) -> Sample:
        """The sample with its boxes."""
        if not self.boxes:
            return sample
        masked = boxes_from_mask(numbers, SHAPES, VEHICLES, ground=(LEGEND.road, OTHER_GROUND))
        boxes, class_ids, unsure = reviewed(REVIEWED, sample.name, masked.boxes_xyxy, masked.class_ids)
        unsure |= boxes[:, 3] - boxes[:, 1] < LOWEST
        return replace(
            sample,
            boxes_xyxy=boxes[~unsure],
            class_ids=class_ids[~unsure],
            ignore_boxes_xyxy=np.concatenate([masked.ignore_boxes_xyxy, boxes[unsure]]),
            ignore_class_ids=np.concatenate([masked.ignore_class_ids, np.full(unsure.sum(), ALL_CLASSES)]),
        )


def open_train(folder: Path, labels: ExtraLabels) -> SampleSource:
    """Open the training split with the labels that a run asks for."""
    rows = rows_of(labels.teacher_labels, "idd_lite_train")
    if rows is None:
        return IddLite(folder, "train", labels.mask_boxes)
    return TeacherLabelled(IddLite(folder, "train", True), rows, drawn=False)


DATA_SET = DataSet(
    name="idd_lite",
    folders=("extra/idd_lite",),
    present=lambda folder: (folder / "train").is_dir(),
    open=open_train,
    weight=0.1,
    chosen_for=702,
    licence="research use; Varma et al. (India Driving Dataset)",
    classes=("Pedestrian", "Cyclist"),
    road=True,
    layout=LAYOUT,
    spec=LEGEND,
    order=5,
)
