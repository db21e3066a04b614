"""Box sets that label only some classes: `image_2` and `label_2` in KITTI's columns, with names of their own.

A class that a set does not label is masked out of the loss there (`Sample.labelled_classes`), never taught as
background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.annotations.reviewed import reviewed, reviewed_file
from datasets.catalogue import DataSet, Layout
from datasets.checks.files import check_labels_and_images, text_stems
from datasets.checks.findings import SetReport, list_images
from datasets.labels import ALL_CLASSES, KITTI_RULE, LabelRule, targets
from datasets.sample import Sample, image_stems
from perception.errors import UserError
from perception.formats.images import find_image, read_image
from perception.formats.kitti import read_objects


@dataclass(frozen=True)
class PartialSet:
    """What one such set labels."""

    name: str
    """Folder name, and the first part of `Sample.drive`."""
    rule: LabelRule
    scenes_apart: bool = False
    """True: every image is a recording of its own. False: the image's name up to its underscore says which."""
    widest: float = math.inf
    """Width over height from which a box is of something else and ignored."""
    lowest: float = 0.0
    """Height in pixels below which a box is ignored."""
    reviewed: str = ""
    """Name of its file of reviewed labels (`datasets/annotations/reviewed.py`)."""


class PartialBoxes:
    """Images under `<root>/image_2` with `<root>/label_2`.

    Args:
        root: folder of the set.
        partial_set: what it labels.

    Raises:
        UserError: no frames, or an image without a label file.
    """

    def __init__(self, root: Path, partial_set: PartialSet) -> None:
        self.root, self.set = Path(root), partial_set
        self.names = image_stems(self.root / "image_2")
        if not self.names:
            raise UserError(f"{self.root}: no frames", "image_2/NAME.jpg with label_2/NAME.txt")
        if missing := [name for name in self.names if not self._label_path(name).exists()]:
            raise UserError(
                f"{self._label_path(missing[0])}: no such file ({len(missing)} labels are missing)",
                "a label file for every image; an empty one means no objects",
            )

    def _label_path(self, name: str) -> Path:
        return self.root / "label_2" / f"{name}.txt"

    def __len__(self) -> int:
        return len(self.names)

    def drive(self, i: int) -> str:
        """Recording of image `i`."""
        name = self.names[i]
        return f"{self.set.name}_{name if self.set.scenes_apart else name.split('_')[0]}"

    def _image_path(self, name: str) -> Path:
        return find_image(self.root / "image_2", name) or self.root / "image_2" / f"{name}.png"

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from, where present; the image first."""
        reviews = [reviewed_file(self.set.reviewed)] if self.set.reviewed else []
        return [self._image_path(self.names[i]), self._label_path(self.names[i]), *reviews]

    def __getitem__(self, i: int) -> Sample:
        name = self.names[i]
        image = read_image(self._image_path(name))
        rows = read_objects(self._label_path(name), scores=False, classes=self.set.rule.names)
        found = targets(rows, self.set.rule, (image.shape[0], image.shape[1]))
        boxes, class_ids = found.boxes_xyxy, found.class_ids
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        unsure = (width > self.set.widest * height) | (height < self.set.lowest)
        if self.set.reviewed:
            boxes, class_ids, hidden = reviewed(self.set.reviewed, name, boxes, class_ids)
            unsure |= hidden
        return Sample(
            image_bgr=image,
            name=name,
            drive=self.drive(i),
            boxes_xyxy=boxes[~unsure],
            class_ids=class_ids[~unsure],
            ignore_boxes_xyxy=np.concatenate([found.ignore_boxes_xyxy, boxes[unsure]]),
            ignore_class_ids=np.concatenate([found.ignore_class_ids, np.full(unsure.sum(), ALL_CLASSES)]),
            labelled_classes=self.set.rule.labelled_classes,
            distances_m=found.distances_m[~unsure],
        )


def check_partial_boxes(root: Path, data_sets: Sequence[DataSet]) -> SetReport:
    """Check `image_2` with `label_2` in KITTI's columns; a set that no file declares may use any class names."""
    declared: dict[str, PartialSet] = {data_set.spec.name: data_set.spec for data_set in data_sets}
    known = declared.get(root.name)
    report = SetReport(known.name if known else "boxes", root)
    images, labels = list_images(report, root / "image_2"), text_stems(root / "label_2")
    report.counts |= {"images": len(images), "labels": len(labels)}
    if known is None:
        said = "known are " + ", ".join(declared)
        report.add("warning", "set that no reader knows", "image_2 and label_2", said)
    rule = known.rule if known else KITTI_RULE
    check_labels_and_images(report, root, images, labels, rule, known.rule.names if known else None)
    drives = [name if known and known.scenes_apart else name.split("_")[0] for name in images]
    report.images_by_drive.update(drives)
    report.counts["drives"] = len(set(drives))
    return report


LAYOUT = Layout(
    "boxes",
    "image_2 with label_2 (DAWN, CityPersons, CARLA)",
    lambda folder: (folder / "image_2").is_dir() and (folder / "label_2").is_dir(),
    check_partial_boxes,
)
