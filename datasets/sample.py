"""What every dataset yields: one image with the labels it has, and which labels it does not have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.files import data_files
from perception.formats.images import SUFFIXES, read_unchanged
from perception.types import CLASS_NAMES, F32, I64, U8

ROAD_IGNORE = 255


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled image. A task without labels is None, and adds nothing to the loss."""

    image_bgr: U8
    """(H, W, 3) uint8."""
    name: str
    """Unique in its dataset, for messages and result files."""
    drive: str = ""
    """Recording it comes from; splits never cut through one."""
    boxes_xyxy: F32 | None = None
    """(N, 4) pixels; None where objects are not labelled at all."""
    class_ids: I64 | None = None
    """(N,) index into `perception.types.CLASS_NAMES`."""
    ignore_boxes_xyxy: F32 | None = None
    """(M, 4) regions that neither reward nor punish: DontCare, Van for Car, Person_sitting for Pedestrian."""
    ignore_class_ids: I64 | None = None
    """(M,) class for which the region is ignored, -1 for all classes."""
    labelled_classes: tuple[bool, ...] = (True,) * len(CLASS_NAMES)
    """False for a class this dataset does not label: there its absence means nothing."""
    confidences: F32 | None = None
    """(N,) 0..1, how sure each box is; None: all are certain. Below 1 for boxes that a teacher found."""
    distances_m: F32 | None = None
    """(N,) metres along the road to each box, NaN where unknown."""
    road: U8 | None = None
    """(H, W) 1 road, 0 not road, 255 not judged; None where road is not labelled."""
    semantic: U8 | None = None
    """(H, W) 0 other, 1 vehicle, 2 person, 3 rider or bicyclist, 255 not judged; None where there is no such mask."""
    camera: PinholeCamera | None = None


def read_index_mask(path: Path, size_hw: tuple[int, int]) -> U8:
    """A one-channel label image as (H, W) uint8.

    Raises:
        UserError: missing, unreadable, in colour, or of another size than its image.
    """
    mask = read_unchanged(path, "a PNG of class numbers")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise UserError(f"{path}: found shape {mask.shape} of {mask.dtype}", "one channel of 8-bit class numbers")
    if mask.shape != size_hw:
        raise UserError(f"{path}: found {mask.shape[1]}x{mask.shape[0]}", f"its image's {size_hw[1]}x{size_hw[0]}")
    return np.asarray(mask, np.uint8)


def image_stems(folder: Path) -> list[str]:
    """Names without suffix of the images in a folder, sorted; empty where the folder is missing."""
    return sorted({path.stem for path in data_files(folder, SUFFIXES)})
