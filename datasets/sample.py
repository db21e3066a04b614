"""The sample that every data set returns: an image with its labels, and which labels it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.arrays import F32, I64, U8
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.files import data_files
from perception.formats.images import SUFFIXES, read_unchanged
from perception.types import CLASS_NAMES

ROAD_IGNORE = 255


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled image. The labels of an unlabelled task are None and add nothing to the loss."""

    image_bgr: U8
    """(H, W, 3) uint8."""
    name: str
    """Name for messages and result files, unique in the data set."""
    drive: str = ""
    """Recording of the image; splits never divide a recording."""
    boxes_xyxy: F32 | None = None
    """(N, 4) pixels; None where objects are not labelled."""
    class_ids: I64 | None = None
    """(N,) index into `class_names`."""
    ignore_boxes_xyxy: F32 | None = None
    """(M, 4) ignore regions, such as DontCare, Van for Car, Person_sitting for Pedestrian."""
    ignore_class_ids: I64 | None = None
    """(M,) class for which the region is ignored, -1 for all classes."""
    class_names: tuple[str, ...] = CLASS_NAMES
    """What class ids count: `CLASS_NAMES`, then the other classes of a run (`datasets.labels.numbering`)."""
    labelled_classes: tuple[bool, ...] = (True,) * len(CLASS_NAMES)
    """Classes that the data set labels. Objects of the others may be present without a label."""
    confidences: F32 | None = None
    """(N,) confidence of each label, 0..1; None: all 1. Less than 1 for the labels of a teacher."""
    distances_m: F32 | None = None
    """(N,) metres along the road to each box, NaN where unknown."""
    boxes_xyzlhwr: F32 | None = None
    """(N, 7) 3-D box of each object in camera coordinates, see `perception.boxes3d`; rows of NaN where unknown."""
    road: U8 | None = None
    """(H, W) 1 road, 0 other, 255 ignored; None where road is not labelled."""
    semantic: U8 | None = None
    """(H, W) 0 other, 1 vehicle, 2 person, 3 rider or bicyclist, 255 ignored; None without such a mask."""
    camera: PinholeCamera | None = None


def read_index_mask(path: Path, size_hw: tuple[int, int]) -> U8:
    """Read a one-channel label image as (H, W) uint8.

    Raises:
        UserError: the file is missing, unreadable, in colour, or differs from the image in size.
    """
    mask = read_unchanged(path, "a PNG of class numbers")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise UserError(f"{path}: found shape {mask.shape} of {mask.dtype}", "one channel of 8-bit class numbers")
    if mask.shape != size_hw:
        raise UserError(f"{path}: found {mask.shape[1]}x{mask.shape[0]}", f"its image's {size_hw[1]}x{size_hw[0]}")
    return np.asarray(mask, np.uint8)


def image_stems(folder: Path) -> list[str]:
    """Return the sorted names of the images in a folder, without suffix; empty where the folder is missing."""
    return sorted({path.stem for path in data_files(folder, SUFFIXES)})
