"""CamVid in SegNet's 12 classes: street pictures of 480x360 with a class number at every pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from datasets.index_masks import PERSON, RIDER, VEHICLE, IndexMasks, Legend
from datasets.labels import CAR, CYCLIST, PEDESTRIAN
from datasets.mask_boxes import Shape, boxes_from_mask
from datasets.sample import Sample
from perception.types import U8

LEGEND = Legend(
    name="camvid",
    classes=frozenset(range(12)),
    road=3,
    void=11,
    semantic={8: VEHICLE, 9: PERSON, 10: RIDER},
)
"""3 road, 8 car, 9 pedestrian, 10 bicyclist, 11 unlabelled."""


PAVEMENT = 4
SHAPES = {
    9: Shape(PEDESTRIAN, aspect=(0.2, 0.5), filled=0.42),
    10: Shape(CYCLIST, aspect=(0.25, 1.1), filled=0.35),
}
"""Two people side by side are wider than this, as are most parked bicycles."""
VEHICLES = {8: CAR}
"""Cars, vans, buses and lorries, in rows that no mask parts."""


class CamVid(IndexMasks):
    """Folders `train`, `val`, `test` with masks in `<split>annot`. The drive is the name up to its underscore.

    SegNet's train and val share the recording 0016E5.

    Args:
        root: folder that holds `train/` and `trainannot/`.
        split: `train`, `val` or `test`.
        boxes: give single people and cyclists boxes (`datasets/mask_boxes.py`); vehicles and what is not single are
            ignored, the rest is background for all classes. False: what the set itself says, which is no boxes.
    """

    def __init__(self, root: Path, split: str = "train", boxes: bool = False) -> None:
        super().__init__(root, split, LEGEND)
        self.boxes = boxes
        self.variant = "boxes" if boxes else ""  # copies in a cache are told apart by it

    def sample(self, sample: Sample, numbers: U8) -> Sample:
        """The sample with its boxes."""
        if not self.boxes:
            return sample
        found = boxes_from_mask(numbers, SHAPES, VEHICLES, ground=(LEGEND.road, PAVEMENT))
        return replace(
            sample,
            boxes_xyxy=found.boxes_xyxy,
            class_ids=found.class_ids,
            ignore_boxes_xyxy=found.ignore_boxes_xyxy,
            ignore_class_ids=found.ignore_class_ids,
        )
