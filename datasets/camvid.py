"""CamVid in SegNet's 12 classes: street images of 480x360 with a class number at every pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.catalogue import DataSet, ExtraLabels, SampleSource
from datasets.labels import CAR, CYCLIST, PEDESTRIAN, LabelRule, targets
from datasets.readers.index_masks import LAYOUT, PERSON, RIDER, VEHICLE, IndexMasks, Legend
from datasets.readers.mask_boxes import Shape, boxes_from_mask
from datasets.readers.teacher_labels import TeacherLabelled, rows_of
from datasets.sample import Sample
from perception.arrays import U8
from perception.errors import UserError
from perception.formats.kitti import read_objects
from perception.types import CLASS_NAMES

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
FOUND = LabelRule(positive={"car": CAR, "pedestrian": PEDESTRIAN, "cyclist": CYCLIST})
"""What the rows of `found` may say."""


class CamVid(IndexMasks):
    """Folders `train`, `val`, `test` with masks in `<split>annot`. The drive is the name up to its underscore.

    SegNet's train and val share the recording 0016E5.

    Args:
        root: folder that holds `train/` and `trainannot/`.
        split: `train`, `val` or `test`.
        boxes: derive boxes of single people and cyclists from the masks (`datasets/readers/mask_boxes.py`). Vehicles
            and groups are ignored, the rest is background for all classes. False: no boxes, as the set has none.
        found: folder of KITTI result rows, one file an image: boxes that a network found and the masks confirm
            (`tools/recipes/self_labels.py`), beside those of the masks.

    Raises:
        UserError: as `IndexMasks`, or images without a file in `found`.
    """

    def __init__(self, root: Path, split: str = "train", boxes: bool = False, found: Path | None = None) -> None:
        super().__init__(root, split, LEGEND)
        self.boxes = boxes or found is not None
        self.found = found
        self.variant = "boxes" if self.boxes else ""  # copies in a cache are told apart by it
        if found and (missing := [name for name in self.names if not (found / f"{name}.txt").is_file()]):
            raise UserError(
                f"{found / missing[0]}.txt: no such file ({len(missing)} are missing)",
                "rows for every image, none where nothing was found",
                f"python -m tools.recipes.self_labels --checkpoint LAST.pt --root {Path(root).parent} --out {found}",
            )

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from; the image first."""
        return super().files(i) + ([self.found / f"{self.names[i]}.txt"] if self.found else [])

    def sample(self, sample: Sample, numbers: U8) -> Sample:
        """The sample with its boxes."""
        if not self.boxes:
            return sample
        masked = boxes_from_mask(numbers, SHAPES, VEHICLES, ground=(LEGEND.road, PAVEMENT))
        boxes, class_ids = masked.boxes_xyxy, masked.class_ids
        if self.found:
            rows = read_objects(self.found / f"{sample.name}.txt", classes=FOUND.names)
            more = targets(rows, FOUND, (numbers.shape[0], numbers.shape[1]))
            boxes = np.concatenate([boxes, more.boxes_xyxy])
            class_ids = np.concatenate([class_ids, more.class_ids])
        return replace(
            sample,
            boxes_xyxy=boxes,
            class_ids=class_ids,
            ignore_boxes_xyxy=masked.ignore_boxes_xyxy,
            ignore_class_ids=masked.ignore_class_ids,
        )


def open_split(folder: Path, split: str, labels: ExtraLabels) -> SampleSource:
    """Open a split with the labels that a run asks for; teachers' boxes need the ignore regions of the masks."""
    rows = rows_of(labels.teacher_labels, f"camvid_{split}")
    if rows is None:
        return CamVid(folder, split, labels.mask_boxes, labels.self_labels)
    return TeacherLabelled(CamVid(folder, split, True, labels.self_labels), rows, drawn=False)


DATA_SET = DataSet(
    name="camvid",
    folders=("camvid",),
    present=lambda folder: (folder / "train").is_dir(),
    open=lambda folder, labels: open_split(folder, "train", labels),
    weight=0.16,
    chosen_for=367,
    licence="research use; Brostow, Fauqueur, Cipolla (CamVid), masks of the SegNet tutorial",
    classes=CLASS_NAMES,
    road=True,
    layout=LAYOUT,
    spec=LEGEND,
    order=4,
)
