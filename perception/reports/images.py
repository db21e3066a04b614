"""Street pictures for a report: a small JPEG inside the page, with boxes as vectors or road errors as colour."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np

from perception.cameras.letterbox import resize
from perception.reports.markup import Markup, tag
from perception.reports.plots import svg
from perception.types import U8

KITTI_HW = (375, 1242)
"""Size of the blank canvas where no picture is at hand."""
PICTURE_WIDTH = 720
JPEG_QUALITY = 78

LABEL_PX = 24
"""Size of text on a picture, in its own pixels; the style sheet says the same."""

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
    """Painted beside the box."""
    title: str = ""
    """Shown when the pointer rests on the box."""


def find_picture(folder: Path | None, stem: str) -> Path | None:
    """The picture called `stem` in a folder: PNG (KITTI's own) before JPEG (re-encoded copies)."""
    if folder is None:
        return None
    return next((path for suffix in (".png", ".jpg", ".jpeg") if (path := folder / (stem + suffix)).is_file()), None)


def load_picture(folder: Path | None, stem: str) -> U8 | None:
    """(H, W, 3) BGR, or None where it is missing or can't be decoded: a report shows boxes without it."""
    path = find_picture(folder, stem)
    if path is None:
        return None
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)


def pictured(
    faults: Sequence[Item],
    where: Callable[[Item], tuple[Path | None, str]],
    count: int,
    apart: Callable[[list[Item]], list[Item]] = lambda items: items,
) -> tuple[list[Item], bool]:
    """The first `count` of the faults that have a picture, or of all where none has.

    Args:
        faults: worst first.
        where: folder and stem of a fault's picture.
        apart: drops faults too close to a worse one.

    Returns:
        The chosen, and whether any was passed over for want of a picture.
    """
    with_picture = [one for one in faults if find_picture(*where(one)) is not None]
    pool = with_picture or list(faults)
    return apart(pool)[:count], len(pool) < len(faults)


def data_uri(image_bgr: U8, width: int = PICTURE_WIDTH) -> str:
    """A JPEG of at most `width` pixels across as a data URI."""
    if image_bgr.shape[1] > width:
        image_bgr = resize(image_bgr, (max(1, round(image_bgr.shape[0] * width / image_bgr.shape[1])), width))
    encoded, buffer = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not encoded:
        raise ValueError(f"a picture of shape {image_bgr.shape} can't be encoded")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.tobytes()).decode("ascii")


def corners(box_xyxy: np.ndarray) -> tuple[float, float, float, float]:
    """One box (4,) as plain numbers."""
    left, top, right, bottom = (float(v) for v in box_xyxy)
    return left, top, right, bottom


def scene(image_bgr: U8 | None, boxes: Sequence[DrawnBox], title: str, description: str) -> Markup:
    """Boxes over a picture, or over a blank canvas of KITTI's size where `image_bgr` is None."""
    height, width = KITTI_HW if image_bgr is None else image_bgr.shape[:2]
    parts: list[Markup] = []
    if image_bgr is not None:
        parts.append(tag("image", href=data_uri(image_bgr), width=width, height=height, preserveAspectRatio="none"))
    labels: list[Markup] = []
    taken: list[tuple[float, float, float, float]] = []
    for box in sorted(boxes, key=lambda one: _PAINT_ORDER.index(one.kind)):
        left, top, right, bottom = (float(v) for v in np.clip(box.box_xyxy, -50, max(width, height) + 50))
        parts.append(
            tag(
                "rect",
                tag("title", box.title or box.label or box.kind),
                class_=f"box {box.kind}",
                x=left,
                y=top,
                width=max(right - left, 1.0),
                height=max(bottom - top, 1.0),
            )
        )
        if box.label and (place := _free_place(box.label, (left, top, right, bottom), taken, width)):
            labels.append(tag("text", box.label, x=place[0], y=place[1]))
    return svg(title, description, width, height, parts, labels, class_="scene")


def _free_place(
    label: str, box: tuple[float, float, float, float], taken: list[tuple[float, float, float, float]], width: int
) -> tuple[float, float] | None:
    """Where a label goes: above its box, below it, or nowhere if others are there already (its title remains)."""
    wide, high = LABEL_PX * 0.66 * len(label), LABEL_PX * 1.1
    left = min(max(box[0], 4.0), max(width - wide - 4.0, 4.0))
    for base in (box[1] - 6.0, box[3] + high):
        area = (left, base - high, left + wide, base)
        overlaps = any(area[0] < o[2] and o[0] < area[2] and area[1] < o[3] and o[1] < area[3] for o in taken)
        if area[1] >= 0 and not overlaps:
            taken.append(area)
            return left, base
    return None
