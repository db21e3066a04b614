"""Labelled images in memory, independent of any file format.

Coordinates are continuous pixels of the upright image: 0 is the left (upper) edge of the first pixel and `width`
(`height`) the right (lower) edge of the last. Each format's file says how its own numbers differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from datasets.formats.masks import Mask
from datasets.sample import ROAD_IGNORE
from perception.arrays import U8
from perception.errors import UserError
from perception.formats.images import read_unchanged

BoxXYXY = tuple[float, float, float, float]
Polygon = tuple[float, ...]
"""x0 y0 x1 y1 …"""
DONT_CARE = "DontCare"
"""Label of ignore regions that belong to no class of the set."""
ROAD_FOLDER = "road"
"""Folder of road masks beside the images of a set: 0 other, 128 ignored, any other value road."""
MASK_IGNORED = 128
MASK_ROAD = 255


@dataclass(frozen=True, slots=True)
class Box:
    """One labelled object, or a region to ignore."""

    label: str
    """Class name as the file writes it; of ignore regions also `DONT_CARE`."""
    xyxy: BoxXYXY
    score: float | None = None
    """0..1, for labels that a machine made."""
    track_id: int | None = None
    ignore: bool = False
    """Nobody should be trained or judged here: COCO's crowds, KITTI's DontCare, VOC's difficult objects."""
    truncation: float | None = None
    """Share of the object outside the image, 0..1."""
    occlusion: int | None = None
    """KITTI's 0 visible, 1 partly, 2 largely, 3 unknown."""
    polygons: tuple[Polygon, ...] = ()
    """Outlines."""
    mask: Mask | None = None
    """Pixels of the object."""
    area: float | None = None
    """Pixels that the file says the object covers, where that is not its box."""
    attributes: tuple[tuple[str, str], ...] = ()
    """Anything else, as name and text."""
    pose3d: tuple[float, ...] | None = None
    """KITTI's alpha, height, width, length, x, y, z, rotation_y."""


@dataclass(frozen=True, slots=True)
class RoadPart:
    """A polygon or mask of a road label. Parts are painted in order, the later over the earlier."""

    shape: Polygon | Mask
    value: int = 1
    """1 road, 0 something else on it, 255 ignored."""


Road = Path | tuple[RoadPart, ...] | None
"""A mask in a PNG, see `ROAD_FOLDER`; or its parts; or None where road is not labelled."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image with its labels."""

    name: str
    """Unique in the set: the path without suffix, with forward slashes."""
    path: Path
    size_hw: tuple[int, int] = (0, 0)
    """Size that the labels belong to; (0, 0) where the file does not say."""
    boxes: tuple[Box, ...] = ()
    drive: str = ""
    """Recording; empty where it is not known."""
    split: str = ""
    """`train`, `val`, `test`, or empty."""
    road: Road = None
    label_file: Path | None = None
    """File that the labels were read from, where the format is trained from as it is."""


@dataclass(frozen=True, slots=True)
class AnnotationSet:
    """A set of labelled images."""

    root: Path
    labels: tuple[str, ...]
    """Class names in the order of the format's numbers. The set labels all of them in every image."""
    images: tuple[AnnotatedImage, ...]
    label_ids: tuple[int, ...] = ()
    """The format's number of each label, where they are not 0, 1, 2 …"""

    def __post_init__(self) -> None:
        if self.label_ids and len(self.label_ids) != len(self.labels):
            raise ValueError(f"{len(self.label_ids)} numbers for {len(self.labels)} labels")


@dataclass
class Problems:
    """What is wrong with labels or does not survive a conversion: counted by kind, with the places."""

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    """The first `kept` places of each kind."""
    kept: int = 1000

    def add(self, kind: str, where: Path | str, count: int = 1) -> None:
        """Count a problem. `kind` names it in the same words each time, and says what was done about it."""
        self.counts[kind] += count
        places = self.places.setdefault(kind, [])
        if len(places) < self.kept:
            places.append(str(where))

    def lines(self, shown: int | None = 5) -> list[str]:
        """Return the problems as text, the most frequent first, with up to `shown` places each."""
        lines = []
        for kind, count in self.counts.most_common():
            lines.append(f"{kind}: {count}")
            lines += [f"    {place}" for place in self.places[kind][:shown]]
            if shown is not None and len(self.places[kind]) > shown:
                lines.append("    …")
        return lines


@dataclass(frozen=True)
class Format:
    """One format of label files, as its file in this folder declares it."""

    name: str
    shape: str
    """Description of the layout, for messages."""
    present: Callable[[Path], bool]
    """Returns whether a file or folder has the format. Reads little."""
    read: Callable[[Path, Problems], AnnotationSet]
    """Reads a file or folder. What is wrong with single labels goes to the problems."""
    write: Callable[[AnnotationSet, Path], None] | None = None
    """Writes labels beside the images, which `convert` has put in place; None: the format is only read."""
    image_path: Callable[[AnnotatedImage], str] | None = None
    """Returns where an image lies in a written set, as a path without suffix."""
    carries: frozenset[str] = frozenset()
    """Keys of `FEATURES` that the written format can hold."""


FEATURES: Mapping[str, Callable[[AnnotatedImage], int]] = {
    "scores": lambda image: sum(box.score is not None for box in image.boxes),
    "track ids": lambda image: sum(box.track_id is not None for box in image.boxes),
    "ignore regions": lambda image: sum(box.ignore for box in image.boxes),
    "classes of ignore regions": lambda image: sum(box.ignore and box.label != DONT_CARE for box in image.boxes),
    "truncation": lambda image: sum(box.truncation is not None for box in image.boxes),
    "occlusion": lambda image: sum(box.occlusion is not None for box in image.boxes),
    "outlines (polygons)": lambda image: sum(bool(box.polygons) for box in image.boxes),
    "run-length masks": lambda image: sum(box.mask is not None for box in image.boxes),
    "areas of shapes": lambda image: sum(box.area is not None for box in image.boxes),
    "attributes": lambda image: sum(bool(box.attributes) for box in image.boxes),
    "3-D poses": lambda image: sum(box.pose3d is not None for box in image.boxes),
    "recordings (drives)": lambda image: bool(image.drive),
    "road as polygons or run-length masks (a PNG is written)": lambda image: isinstance(image.road, tuple),
    "labels with spaces (written with _)": lambda image: sum(" " in box.label for box in image.boxes),
    "splits": lambda image: image.split in ("train", "val"),
    "splits besides train and val": lambda image: image.split not in ("", "train", "val"),
}
"""What labels may hold besides class and box → how often an image has it."""


def lost(images: Iterable[AnnotatedImage], carries: frozenset[str]) -> Counter[str]:
    """Count what a format cannot carry of these images, by name."""
    images = list(images)
    totals = {name: sum(map(count, images)) for name, count in FEATURES.items() if name not in carries}
    return Counter({name: total for name, total in totals.items() if total})


BAD_CORNER = (math.nan, math.nan)
"""Stands for a corner that is no pair of numbers, so that its polygon is counted and left out."""


def is_finite(polygon: Polygon) -> bool:
    """Whether all corners of a polygon are finite numbers."""
    return len(polygon) % 2 == 0 and all(map(math.isfinite, polygon))


def envelope(polygons: Sequence[Polygon]) -> BoxXYXY:
    """Return the box around the polygons that enclose something; NaN without any."""
    good = [polygon for polygon in polygons if len(polygon) >= 6 and is_finite(polygon)]
    if not good:
        return (math.nan,) * 4
    x = [value for polygon in good for value in polygon[0::2]]
    y = [value for polygon in good for value in polygon[1::2]]
    return min(x), min(y), max(x), max(y)


def road_mask(road: Road, size_hw: tuple[int, int]) -> U8 | None:
    """Return a road label as (H, W) uint8: 1 road, 0 other, 255 ignored; None where road is not labelled.

    Raises:
        UserError: the mask is missing, unreadable, or of another size.
    """
    if road is None:
        return None
    if isinstance(road, Path):
        mask = read_unchanged(road, "a PNG of road")
        mask = mask if mask.ndim == 2 else mask[..., :3].max(axis=2)
        if mask.shape != size_hw:
            raise UserError(f"{road}: found {mask.shape[1]}x{mask.shape[0]}", f"{size_hw[1]}x{size_hw[0]}")
        return np.where(mask == MASK_IGNORED, ROAD_IGNORE, mask > 0).astype(np.uint8)
    painted = np.zeros(size_hw, np.uint8)
    for part in road:
        if isinstance(part.shape, Mask):
            painted[part.shape.pixels()] = part.value
            continue
        if not is_finite(part.shape):
            raise ValueError("a polygon with a corner that is no finite number")
        points = np.round(np.array(part.shape, np.float64).reshape(-1, 2) - 0.5).clip(-(2**15), 2**15)
        cv2.fillPoly(painted, [points.astype(np.int32)], (part.value,))
    return painted


def as_mask_file(road: U8) -> bytes:
    """Encode a road mask of `road_mask` as a PNG of `ROAD_FOLDER`."""
    table = np.zeros(256, np.uint8)
    table[1], table[ROAD_IGNORE] = MASK_ROAD, MASK_IGNORED
    return cv2.imencode(".png", table[road])[1].tobytes()
