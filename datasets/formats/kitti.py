"""KITTI's object labels: `training/image_2`, `training/label_2`, and our `classes.txt`, `ImageSets/`, `drives.json`.

Boxes are left, top, right, bottom, which the project takes as continuous coordinates (`perception/formats/kitti.py`).
`DontCare` is an ignore region of all classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.formats.annotations import DONT_CARE, AnnotatedImage, AnnotationSet, Box, Format, Problems
from datasets.formats.paths import road_of
from datasets.kitti_object import CLASSES_FILE, label_names
from datasets.sample import image_stems
from datasets.splits import read_drives
from perception.errors import UserError
from perception.files import read_text, write_atomically
from perception.formats.images import find_image
from perception.formats.kitti import ObjectRows, format_objects, read_objects

EXPECTED = "training/image_2/000000.png with training/label_2/000000.txt"
UNKNOWN_POSE = (-10.0, -1.0, -1.0, -1.0, -1000.0, -1000.0, -1000.0, -10.0)


def present(path: Path) -> bool:
    """Whether a folder holds images with labels in KITTI's layout."""
    return (path / "training/image_2").is_dir() and (path / "training/label_2").is_dir()


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read the labelled frames.

    Raises:
        UserError: a broken list of classes, splits or drives.
    """
    folder, drives = path / "training", read_drives(path)
    splits = {
        name: split
        for split in ("test", "val", "train")
        if (file := path / "ImageSets" / f"{split}.txt").is_file()
        for name in read_text(file).split()
    }
    given = label_names(path) if (path / CLASSES_FILE).is_file() else ()
    labels = dict.fromkeys(name for name in given if name != DONT_CARE)
    images = []
    for name in image_stems(folder / "image_2"):
        label, image = folder / "label_2" / f"{name}.txt", find_image(folder / "image_2", name)
        if not label.is_file() or image is None:
            problems.add("image without a label file: left out", name)
            continue
        try:
            rows = read_objects(label, scores=None, classes=None)
        except UserError as error:
            problems.add("label file that cannot be read: its image is left out", error.found)
            continue
        boxes = tuple(_box(rows, i) for i in range(len(rows)))
        labels |= dict.fromkeys(box.label for box in boxes if box.label != DONT_CARE)
        split = splits.get(name, "")
        images.append(AnnotatedImage(name, image, (0, 0), boxes, drives.get(name, ""), split, road_of(path, name)))
    stems = set(image_stems(folder / "image_2"))
    for file in sorted((folder / "label_2").glob("*.txt")):
        if file.stem not in stems:
            problems.add("label file without an image: left out", file.name)
    if (calibrations := folder / "calib").is_dir():
        problems.add("calibrations (calib/): not carried over", calibrations, sum(1 for _ in calibrations.iterdir()))
    return AnnotationSet(path, tuple(labels), tuple(images))


def _box(rows: ObjectRows, i: int) -> Box:
    left, top, right, bottom = rows.boxes_xyxy[i].tolist()
    pose = (rows.alpha[i], *rows.dimensions_hwl[i], *rows.location_cam2[i], rows.rotation_y[i])
    pose3d = tuple(float(value) for value in pose)
    ignored = rows.names[i].lower() == DONT_CARE.lower()
    return Box(
        DONT_CARE if ignored else rows.names[i],
        (left, top, right, bottom),
        score=None if rows.scores is None else float(rows.scores[i]),
        ignore=ignored,
        truncation=None if rows.truncation[i] < 0 else float(rows.truncation[i]),
        occlusion=None if rows.occlusion[i] < 0 else int(rows.occlusion[i]),
        pose3d=None if pose3d == UNKNOWN_POSE else pose3d,
    )


def write(found: AnnotationSet, out: Path) -> None:
    """Write `label_2`, `classes.txt`, and `ImageSets` and `drives.json` where the set knows them."""
    for image in found.images:
        write_atomically(out / "training/label_2" / f"{flat(image.name)}.txt", _text(image.boxes))
    names = sorted({_word(label) for label in found.labels}, key=[_word(label) for label in found.labels].index)
    write_atomically(out / CLASSES_FILE, "".join(f"{name}\n" for name in names))
    drives = {flat(image.name): image.drive for image in sorted(found.images, key=_flat_name) if image.drive}
    if drives:
        write_atomically(out / "drives.json", json.dumps(drives, indent=0) + "\n")
    splits = {image.split for image in found.images} - {""}
    for split in splits:
        listed = sorted(flat(image.name) for image in found.images if image.split == split)
        write_atomically(out / "ImageSets" / f"{split}.txt", "".join(f"{name}\n" for name in listed))


def flat(name: str) -> str:
    """Return an image's name without folders, as KITTI's layout needs it."""
    return name.replace("/", "__")


def _flat_name(image: AnnotatedImage) -> str:
    return flat(image.name)


def _word(label: str) -> str:
    """Return a label as one word of a row; `Dont Care` could be read as an ignore region."""
    return "_".join(label.split()) or "unnamed"


def _text(boxes: Sequence[Box]) -> str:
    poses = np.array([box.pose3d or UNKNOWN_POSE for box in boxes], np.float64).reshape(-1, 8)
    unknown = [-1.0 if box.truncation is None else box.truncation for box in boxes]
    hidden = [-1 if box.occlusion is None else box.occlusion for box in boxes]
    rows = ObjectRows(
        names=tuple(DONT_CARE if box.ignore else _word(box.label) for box in boxes),
        truncation=np.array(unknown, np.float64),
        occlusion=np.array(hidden, np.int64),
        alpha=poses[:, 0],
        boxes_xyxy=np.array([box.xyxy for box in boxes], np.float64).reshape(-1, 4),
        dimensions_hwl=poses[:, 1:4],
        location_cam2=poses[:, 4:7],
        rotation_y=poses[:, 7],
    )
    return format_objects(rows)


FORMAT = Format(
    name="kitti",
    shape="training/image_2 with training/label_2 (KITTI)",
    present=present,
    read=read,
    write=write,
    image_path=lambda image: f"training/image_2/{flat(image.name)}",
    carries=frozenset(
        {
            "ignore regions",
            "truncation",
            "occlusion",
            "3-D poses",
            "recordings (drives)",
            "splits",
            "splits besides train and val",
        }
    ),
)
