"""The frames of the yardstick with their truth; `datasets/yardstick_split.py` says which they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datasets.kitti_object import KittiObject
from datasets.kitti_road import KittiRoad
from datasets.labels import ALL_CLASSES, CAR, CYCLIST, PEDESTRIAN
from datasets.readers.teacher_labels import rows_of
from datasets.sample import Sample, image_stems
from datasets.yardstick_split import PartName, part
from perception.arrays import F32, I64, U8
from perception.errors import UserError
from perception.formats.images import find_image, read_image
from perception.formats.kitti import UNKNOWN_LOCATION, ObjectRows, read_objects

TEACHER_LABELS = "teacher_labels/labels.zip"
CITYPERSONS = "extra/citypersons_sample"
NEAR_M = 40.0
CUT = 0.3


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame with its truth."""

    group: Literal["kitti", "citypersons", "dawn"]
    name: str
    image_bgr: U8
    """(H, W, 3) uint8."""
    boxes_xyxy: F32
    """(N, 4) pixels."""
    class_ids: I64
    """(N,)"""
    occlusion: I64
    """(N,) KITTI's 0 visible, 1 partly, 2 largely, 3 unknown; 0 where the set does not say."""
    plain: NDArray[np.bool_]
    """(N,) plainly visible within `NEAR_M`: not largely hidden, at most `CUT` of it outside the image. False where
    the distance is not known."""
    ignore_boxes_xyxy: F32
    """(M, 4)"""
    ignore_class_ids: I64
    """(M,) class, -1 for all."""
    scored: tuple[int, ...]
    """Classes whose truth is complete."""
    label: Path | None = None
    """KITTI's own label file, for KITTI's own protocol."""


@dataclass(frozen=True)
class _Names:
    """What the rows of a set mean here. Large vehicles are ignored for cars: other sets call them vehicles."""

    positive: dict[str, int]
    ignore: dict[str, tuple[int, ...]]


_VEHICLES = dict.fromkeys(("van", "truck", "tram", "misc", "bus"), (CAR,))
_KITTI = _Names(
    {"car": CAR, "pedestrian": PEDESTRIAN, "cyclist": CYCLIST},
    {**_VEHICLES, "person_sitting": (PEDESTRIAN,), "dontcare": (ALL_CLASSES,)},
)
_DAWN = _Names({"car": CAR}, {**_VEHICLES, "motorcycle": (CAR,), "pedestrian": (), "cyclist": ()})
_CITYPERSONS = _Names(
    {"pedestrian": PEDESTRIAN, "cyclist": CYCLIST},
    {"rider": (PEDESTRIAN, CYCLIST), "person_sitting": (PEDESTRIAN,), "dontcare": (ALL_CLASSES,)},
)


def frames(root: Path, name: PartName) -> list[Frame]:
    """Return the frames of a part with boxes, as far as they are under the root.

    CityPersons' cyclists are its official riders joined to their bicycle by machine; riders that were not joined are
    ignored.

    Raises:
        UserError: none of them is there.
    """
    held = part(name)
    found: list[Frame] = []
    if (root / "kitti/object/training/image_2").is_dir():
        kitti = KittiObject(root / "kitti/object")
        for i, stem in enumerate(kitti.names):
            if kitti.drives.get(stem) in held.kitti_drives:
                image, label = kitti.files(i)[:2]
                rows = read_objects(label, scores=False)
                found.append(_frame("kitti", stem, image, rows, _KITTI, (CAR, PEDESTRIAN, CYCLIST), label))
    folder = root / CITYPERSONS
    if (folder / "image_2").is_dir() and (folder / "label_2_official").is_dir():
        joined = rows_of(root / TEACHER_LABELS, "citypersons_sample_merged")
        if joined is None:
            raise UserError(f"{root / TEACHER_LABELS}: no rows of citypersons_sample_merged", "riders with bicycles")
        for stem in image_stems(folder / "image_2"):
            if stem.split("_")[0] in held.citypersons_cities:
                rows = joined.rows(stem)
                rows = rows[np.flatnonzero([name.lower() != "car" for name in rows.names])]
                found.append(
                    _frame(
                        "citypersons",
                        stem,
                        find_image(folder / "image_2", stem),
                        rows,
                        _CITYPERSONS,
                        (PEDESTRIAN, CYCLIST),
                    )
                )
    folder = root / "extra/dawn_fog"
    for stem in image_stems(folder / "image_2"):
        if stem in held.dawn:
            classes = (*_DAWN.positive, *_DAWN.ignore)
            rows = read_objects(folder / "label_2" / f"{stem}.txt", scores=False, classes=classes)
            found.append(_frame("dawn", stem, find_image(folder / "image_2", stem), rows, _DAWN, (CAR,)))
    if not found:
        raise UserError(
            f"{root}: no frame of the {name} part", "kitti/object, extra/citypersons_sample or extra/dawn_fog"
        )
    return found


def road_frames(root: Path, name: PartName) -> list[Sample]:
    """Return the road frames of a part; none where the set is not there."""
    if not (root / "kitti/road/training/gt_image_2").is_dir():
        return []
    road = KittiRoad(root / "kitti/road")
    return [road[i] for i, stem in enumerate(road.names) if stem in part(name).kitti_road]


def _frame(
    group: Literal["kitti", "citypersons", "dawn"],
    name: str,
    image: Path | None,
    rows: ObjectRows,
    names: _Names,
    scored: tuple[int, ...],
    label: Path | None = None,
) -> Frame:
    assert image is not None  # its name was read from the folder
    lower = [n.lower() for n in rows.names]
    positive = np.flatnonzero([n in names.positive for n in lower])
    ignored = [(i, class_id) for i, n in enumerate(lower) for class_id in names.ignore.get(n, ())]
    boxes = rows.boxes_xyxy.astype(np.float32)
    occlusion = np.maximum(rows.occlusion[positive], 0).astype(np.int64)
    z = rows.location_cam2[positive, 2]
    return Frame(
        group=group,
        name=name,
        image_bgr=read_image(image),
        boxes_xyxy=boxes[positive],
        class_ids=np.array([names.positive[lower[i]] for i in positive], np.int64),
        occlusion=occlusion,
        plain=(occlusion <= 1) & (rows.truncation[positive] <= CUT) & (z != UNKNOWN_LOCATION) & (z <= NEAR_M),
        ignore_boxes_xyxy=boxes[[i for i, _ in ignored]].reshape(-1, 4),
        ignore_class_ids=np.array([class_id for _, class_id in ignored], np.int64),
        scored=scored,
        label=label,
    )
