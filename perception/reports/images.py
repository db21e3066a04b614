"""Camera images of a report: a small JPEG inside the page, with boxes as vectors or road errors in colour."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np

from perception.arrays import U8
from perception.cameras.letterbox import resize
from perception.formats.images import find_image, read_image_or_none

KITTI_HW = (375, 1242)
"""Size of the blank canvas that stands for a missing image."""
IMAGE_WIDTH = 720
JPEG_QUALITY = 78

LABEL_PX = 24
"""Height of text in a scene, in pixels of its image; the style sheet says the same."""

Item = TypeVar("Item")
Kind = Literal["truth", "found", "missed", "switched", "false", "ignored"]

_PAINT_ORDER: tuple[Kind, ...] = ("ignored", "truth", "found", "false", "missed", "switched")
"""What matters is painted last."""


@dataclass(frozen=True)
class DrawnBox:
    """One box of a scene."""

    box_xyxy: tuple[float, float, float, float]
    kind: Kind
    label: str = ""
    """Written beside the box."""
    title: str = ""
    """Shown when the pointer rests on the box."""


@dataclass(frozen=True)
class PlacedBox:
    """A box as the page draws it."""

    kind: Kind
    left: float
    top: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class PlacedLabel:
    """A label and the left end of its base line."""

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """Boxes over an image."""

    title: str
    description: str
    """The scene in words, for readers who cannot see it."""
    size_hw: tuple[int, int]
    href: str | None
    """The image as a data URI; None draws a blank canvas."""
    boxes: tuple[PlacedBox, ...]
    labels: tuple[PlacedLabel, ...]


@dataclass(frozen=True)
class Photo:
    """An image as it is."""

    href: str
    """Data URI."""
    description: str


def load_image(folder: Path | None, stem: str) -> U8 | None:
    """Read the image called `stem`, (H, W, 3) BGR; None where it is missing or cannot be decoded."""
    path = None if folder is None else find_image(folder, stem)
    return None if path is None else read_image_or_none(path)


def _has_image(folder: Path | None, stem: str) -> bool:
    return folder is not None and find_image(folder, stem) is not None


def with_images(
    faults: Sequence[Item],
    where: Callable[[Item], tuple[Path | None, str]],
    count: int,
    apart: Callable[[list[Item]], list[Item]] = lambda items: items,
) -> tuple[list[Item], bool]:
    """Choose the first `count` of the faults that have an image, or of all where none has.

    Args:
        faults: worst first.
        where: folder and stem of a fault's image.
        count: how many to choose.
        apart: drops faults too close to a worse one.

    Returns:
        The chosen faults, and whether any was skipped because it has no image.
    """
    shown = [one for one in faults if _has_image(*where(one))]
    pool = shown or list(faults)
    return apart(pool)[:count], len(pool) < len(faults)


def data_uri(image_bgr: U8, width: int = IMAGE_WIDTH) -> str:
    """Encode an image as a JPEG data URI, at most `width` pixels across."""
    if image_bgr.shape[1] > width:
        image_bgr = resize(image_bgr, (max(1, round(image_bgr.shape[0] * width / image_bgr.shape[1])), width))
    encoded, buffer = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not encoded:
        raise ValueError(f"an image of shape {image_bgr.shape} cannot be encoded")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.tobytes()).decode("ascii")


def corners(box_xyxy: np.ndarray) -> tuple[float, float, float, float]:
    """One box (4,) as plain numbers."""
    left, top, right, bottom = (float(v) for v in box_xyxy)
    return left, top, right, bottom


def scene(image_bgr: U8 | None, boxes: Sequence[DrawnBox], title: str, description: str) -> Scene:
    """Place boxes and labels over an image, or over a blank canvas of KITTI's size where `image_bgr` is None."""
    height, width = KITTI_HW if image_bgr is None else image_bgr.shape[:2]
    placed: list[PlacedBox] = []
    labels: list[PlacedLabel] = []
    taken: list[tuple[float, float, float, float]] = []
    for box in sorted(boxes, key=lambda one: _PAINT_ORDER.index(one.kind)):
        left, top, right, bottom = (round(float(v), 1) for v in np.clip(box.box_xyxy, -50, max(width, height) + 50))
        words = box.title or box.label or box.kind
        size = round(max(right - left, 1.0), 1), round(max(bottom - top, 1.0), 1)
        placed.append(PlacedBox(box.kind, left, top, *size, words))
        if box.label and (place := _free_place(box.label, (left, top, right, bottom), taken, width)):
            labels.append(PlacedLabel(box.label, round(place[0], 1), round(place[1], 1)))
    href = None if image_bgr is None else data_uri(image_bgr)
    return Scene(title, description, (height, width), href, tuple(placed), tuple(labels))


def _free_place(
    label: str, box: tuple[float, float, float, float], taken: list[tuple[float, float, float, float]], width: int
) -> tuple[float, float] | None:
    """Where a label goes: above its box, below it, or nowhere if both places are taken (its title remains)."""
    wide, high = LABEL_PX * 0.66 * len(label), LABEL_PX * 1.1
    left = min(max(box[0], 4.0), max(width - wide - 4.0, 4.0))
    for base in (box[1] - 6.0, box[3] + high):
        area = (left, base - high, left + wide, base)
        overlaps = any(area[0] < o[2] and o[0] < area[2] and area[1] < o[3] and o[1] < area[3] for o in taken)
        if area[1] >= 0 and not overlaps:
            taken.append(area)
            return left, base
    return None
