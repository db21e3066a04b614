"""KITTI's object benchmark: single frames with 2-D and 3-D boxes. Pictures may be PNG or JPEG."""

from __future__ import annotations

from pathlib import Path

from datasets.catalogue import DataSet
from datasets.labels import KITTI_RULE, LabelRule, targets
from datasets.sample import Sample, find_image, image_stems, read_image
from datasets.splits import Division, HoldoutOptions, divide_by_drive, read_drives, read_split
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.formats.kitti import read_calibration, read_objects
from perception.types import CLASS_NAMES


class KittiObject:
    """Frames under `<root>/<part>/image_2` with `label_2` and, where present, `calib`.

    Args:
        root: folder that holds `training/`.
        split: name of a file in `ImageSets/` or a path to one; None takes every frame with an image and a label.
        rule: how class names become targets.
        part: `training`, or `testing` which has no labels.

    Raises:
        UserError: nothing there, or the split names frames without image or label.
    """

    def __init__(
        self, root: Path, split: str | Path | None = None, rule: LabelRule = KITTI_RULE, part: str = "training"
    ) -> None:
        self.root, self.rule = Path(root), rule
        self.folder = self.root / part
        self.labelled = part != "testing"
        self.drives = read_drives(self.root)
        images = image_stems(self.folder / "image_2")
        whole = {name for name in images if not self.labelled or self._label_path(name).exists()}
        if split is None:
            self.names = sorted(whole)
        else:
            self.names = read_split(self.root, split)
            if missing := [name for name in self.names if name not in whole]:
                raise UserError(
                    f"split '{split}': {len(missing)} of {len(self.names)} frames have no image or no label,"
                    f" the first is {missing[0]}",
                    f"{self.folder}/image_2/{missing[0]}.png or .jpg, and label_2/{missing[0]}.txt",
                    f"perception data check {self.root}",
                )
        if not self.names:
            raise UserError(
                f"{self.folder}: no frames",
                "image_2/000000.png with label_2/000000.txt",
                "perception data fetch kitti-object",
            )

    def drive(self, i: int) -> str:
        """Recording of frame `i`; empty where it is not known."""
        return self.drives.get(self.names[i], "")

    def _label_path(self, name: str) -> Path:
        return self.folder / "label_2" / f"{name}.txt"

    def __len__(self) -> int:
        return len(self.names)

    def _image_path(self, name: str) -> Path:
        return find_image(self.folder / "image_2", name) or self.folder / "image_2" / f"{name}.png"

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from, where present; the picture first."""
        name = self.names[i]
        labels = [self._label_path(name)] if self.labelled else []
        return [self._image_path(name), *labels, self.folder / "calib" / f"{name}.txt"]

    def __getitem__(self, i: int) -> Sample:
        name = self.names[i]
        image = read_image(self._image_path(name))
        calibration = self.folder / "calib" / f"{name}.txt"
        camera = PinholeCamera(read_calibration(calibration)["P2"]) if calibration.exists() else None
        drive = self.drive(i)
        if not self.labelled:
            return Sample(image, name, drive, camera=camera)
        rows = read_objects(self._label_path(name), scores=False)
        found = targets(rows, self.rule, (image.shape[0], image.shape[1]))
        return Sample(
            image_bgr=image,
            name=name,
            drive=drive,
            boxes_xyxy=found.boxes_xyxy,
            class_ids=found.class_ids,
            ignore_boxes_xyxy=found.ignore_boxes_xyxy,
            ignore_class_ids=found.ignore_class_ids,
            labelled_classes=self.rule.labelled_classes,
            distances_m=found.distances_m,
            camera=camera,
        )


def present(folder: Path) -> bool:
    """Whether a folder holds labelled object frames."""
    return (folder / "training/image_2").is_dir() and (folder / "training/label_2").is_dir()


def divide(source: KittiObject, options: HoldoutOptions) -> Division:
    """Training and held-out frames: by fold, else by `ImageSets/`, else every fifth drive."""
    return divide_by_drive(source.root, source.names, source.drives, options)


DATA_SET = DataSet(
    name="kitti/object",
    folders=("kitti/object", "object", "."),
    present=present,
    open=lambda folder, labels: KittiObject(folder),
    weight=0.2,
    chosen_for=53,
    licence="CC BY-NC-SA 3.0; Geiger, Lenz, Stiller, Urtasun (KITTI)",
    classes=CLASS_NAMES,
    divide=divide,
    validates="objects",
    order=0,
)
