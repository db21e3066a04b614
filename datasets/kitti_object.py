"""KITTI's object benchmark: single frames with 2-D and 3-D boxes. Images may be PNG or JPEG."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from datasets.catalogue import DataSet, ExtraLabels, Layout
from datasets.checks.files import check_calibrations, check_labels_and_images, one_line, text_stems
from datasets.checks.findings import SetReport, list_images, read_images
from datasets.checks.similar import Hash, check_leaks, image_hash
from datasets.kitti_road import is_road_name
from datasets.labels import KITTI_RULE, LabelRule, rule_of, targets
from datasets.sample import Sample, image_stems
from datasets.splits import Division, HoldoutOptions, divide_by_drive, read_drives, read_split
from perception.arrays import U8
from perception.cameras.pinhole import PinholeCamera
from perception.classes import DEFAULT_CLASSES, ClassInfo, is_class_name
from perception.errors import UserError
from perception.files import read_text
from perception.formats.images import find_image, read_image
from perception.formats.kitti import OBJECT_CLASSES, ObjectRows, read_calibration, read_objects
from perception.types import CLASS_NAMES

log = logging.getLogger("datasets.kitti_object")

CLASSES_FILE = "classes.txt"
"""In the root: names that own data in KITTI's layout labels, one a line."""


class KittiObject:
    """Frames under `<root>/<part>/image_2` with `label_2` and, where present, `calib`.

    Args:
        root: folder that holds `training/`.
        split: name of a file in `ImageSets/` or a path to one; None takes every frame with an image and a label.
        rule: how class names become targets.
        known: names that rows may have.
        part: `training`, or `testing` which has no labels.

    Raises:
        UserError: nothing there, or the split names frames without image or label.
    """

    def __init__(
        self,
        root: Path,
        split: str | Path | None = None,
        rule: LabelRule = KITTI_RULE,
        part: str = "training",
        known: tuple[str, ...] = OBJECT_CLASSES,
    ) -> None:
        self.root, self.rule, self.known = Path(root), rule, known
        self.variant = "" if rule == KITTI_RULE else repr(rule)
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

    def rows(self, name: str) -> ObjectRows:
        """Label rows of a frame.

        Raises:
            UserError: no such file, or a wrong row.
        """
        return read_objects(self._label_path(name), scores=False, classes=self.known)

    def __len__(self) -> int:
        return len(self.names)

    def _image_path(self, name: str) -> Path:
        return find_image(self.folder / "image_2", name) or self.folder / "image_2" / f"{name}.png"

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from, where present; the image first."""
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
        found = targets(self.rows(name), self.rule, (image.shape[0], image.shape[1]))
        return Sample(
            image_bgr=image,
            name=name,
            drive=drive,
            boxes_xyxy=found.boxes_xyxy,
            class_ids=found.class_ids,
            ignore_boxes_xyxy=found.ignore_boxes_xyxy,
            ignore_class_ids=found.ignore_class_ids,
            class_names=self.rule.class_names,
            labelled_classes=self.rule.labelled_classes,
            distances_m=found.distances_m,
            boxes_xyzlhwr=found.boxes_xyzlhwr,
            camera=camera,
        )


def label_names(root: Path) -> tuple[str, ...]:
    """Names that the labels may have: those of `classes.txt`, one a line, else KITTI's.

    Raises:
        UserError: the file is empty or holds names with spaces.
    """
    if not (root / CLASSES_FILE).is_file():
        return OBJECT_CLASSES
    names = read_text(root / CLASSES_FILE, most=100_000).splitlines()
    names = [name.strip() for name in names if name.strip()]
    if not names or not all(map(is_class_name, names)):
        raise UserError(f"{root / CLASSES_FILE}: {names[:3] or 'empty'}", "one class name a line, without spaces")
    return tuple(dict.fromkeys((*names, "DontCare")))


def open_objects(folder: Path, labels: ExtraLabels) -> KittiObject:
    """Open the training frames with the classes of the network."""
    names = label_names(folder)
    return KittiObject(folder, rule=rule_of(labels.classes, names), known=names)


def present(folder: Path) -> bool:
    """Whether a folder holds labelled object frames."""
    return (folder / "training/image_2").is_dir() and (folder / "training/label_2").is_dir()


def divide(source: KittiObject, options: HoldoutOptions) -> Division:
    """Training and held-out frames: by fold, else by `ImageSets/`, else every fifth drive."""
    division = divide_by_drive(source.root, source.names, source.drives, options)
    _warn_without_objects(source, division.train)
    return division


def _warn_without_objects(source: KittiObject, names: Sequence[str]) -> None:
    """Name what the labels hold where none of them has an object of a trained class. Mostly the first one has."""
    found: Counter[str] = Counter()
    for name in names:
        try:
            rows = source.rows(name)
        except UserError:  # reported when the frame is read for training
            continue
        if any(row.lower() in source.rule.positive for row in rows.names):
            return
        found.update(rows.names)
    log.warning(
        "%s: none of %d labels has an object of a trained class (%s); found: %s",
        source.folder / "label_2",
        len(names),
        ", ".join(source.rule.positive),
        ", ".join(f"{name} {count}" for name, count in found.most_common(8)) or "no objects at all",
    )


def check_kitti_object(root: Path, data_sets: Sequence[DataSet]) -> SetReport:
    """`training/{image_2,label_2,calib}`, `testing/{image_2,calib}`, `ImageSets`, `drives.json` or the object kit."""
    report = SetReport("kitti-object", root)
    drives = _drives(report)
    folder = root / "training"
    images = [name for name in list_images(report, folder / "image_2") if not is_road_name(name)]
    labels = text_stems(folder / "label_2")
    report.counts |= {"images": len(images), "labels": len(labels)}
    try:
        names = label_names(root)
    except UserError as error:
        report.add("error", "unreadable list of classes", CLASSES_FILE, error.found)
        names = OBJECT_CLASSES
    own = tuple(ClassInfo(name) for name in names if name not in OBJECT_CLASSES)
    rule = rule_of((*DEFAULT_CLASSES, *own), names) if own else KITTI_RULE
    hashes: dict[str, Hash] = {}

    def seen(name: str, image: U8) -> None:
        hashes[name] = image_hash(image)

    check_labels_and_images(report, folder, images, labels, rule, names, seen)
    if labels and not report.boxes:
        report.add("warning", "no object of a trained class in any label", folder / "label_2")
    check_calibrations(report, folder / "calib", set(images))
    report.images_by_drive.update(drives.get(name, "unknown") for name in images)
    report.counts["drives"] = len({drives[name] for name in images if name in drives})
    if drives:
        unknown = [name for name in images if name not in drives]
        report.add_all("warning", "frame of unknown drive", unknown)
    splits = _check_splits(report, set(images), set(labels), drives)
    train, val = (splits.get(split, set()) & set(hashes) for split in ("train", "val"))
    check_leaks(report, *([(n, hashes[n]) for n in sorted(side)] for side in (train, val - train)))
    testing = list_images(report, root / "testing" / "image_2")
    testing = [name for name in testing if not is_road_name(name)]
    if testing:
        report.counts["test images"] = len(testing)
        for _ in read_images(report, root / "testing" / "image_2", testing):
            pass
        check_calibrations(report, root / "testing" / "calib", set(testing))
    return report


def _drives(report: SetReport) -> dict[str, str]:
    try:
        return read_drives(report.root)
    except UserError as error:
        report.add("error", "unreadable list of drives", "drives.json", error.found)
        return {}


def _check_splits(
    report: SetReport, images: set[str], labels: set[str], drives: dict[str, str]
) -> dict[str, set[str]]:
    """Check that splits name frames that exist, and that no two share a frame or a drive; return the splits."""
    splits: dict[str, set[str]] = {}
    for name in text_stems(report.root / "ImageSets"):
        path = report.root / "ImageSets" / f"{name}.txt"
        try:
            splits[name] = set(read_split(report.root, path))
        except UserError as error:
            report.add("error", "bad split", path, one_line(error))
            continue
        report.counts[f"frames in split {name}"] = len(splits[name])
        if not name.startswith("test"):
            missing = sorted(splits[name] - (images & labels))
            report.add_all("error", "split names a frame without image or label", [f"{name}: {n}" for n in missing])
    for (a, frames_a), (b, frames_b) in combinations(splits.items(), 2):
        if frames_a <= frames_b or frames_b <= frames_a or a.startswith("test") or b.startswith("test"):
            continue  # trainval holds train; test frames are of another numbering
        if shared := sorted(frames_a & frames_b):
            report.add("error", "splits share frames", f"{a} and {b}", f"{len(shared)}, the first is {shared[0]}")
        drives_of = [{drives[n] for n in frames if n in drives} for frames in (frames_a, frames_b)]
        report.add_all(
            "error", "splits share a drive", [f"{a} and {b}: {d}" for d in sorted(set.intersection(*drives_of))]
        )
    return splits


def looks_like(folder: Path) -> bool:
    """Whether a folder holds object frames, labelled or not."""
    images = image_stems(folder / "training/image_2")
    return (folder / "training/label_2").is_dir() or any(not is_road_name(name) for name in images)


DATA_SET = DataSet(
    name="kitti/object",
    folders=("kitti/object", "object", "."),
    present=present,
    open=open_objects,
    weight=0.2,
    chosen_for=53,
    licence="CC BY-NC-SA 3.0; Geiger, Lenz, Stiller, Urtasun (KITTI)",
    classes=CLASS_NAMES,
    divide=divide,
    validates="objects",
    layout=Layout("kitti-object", "training/image_2 with label_2", looks_like, check_kitti_object),
    order=0,
)
