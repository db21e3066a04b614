"""Boxes of single people and cyclists from masks of class numbers.

A mask does not tell neighbours apart. So a connected piece counts as an object where it has the shape of one, stands
on the ground and is cut by nothing; every other piece is a region to ignore, and what is neither is background.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.labels import ALL_CLASSES
from perception.arrays import F32, I64, U8

SMALLEST_HEIGHT = 12
"""Mask pixels; lower pieces are regions to ignore."""
FEET_ON_GROUND = 0.6
"""Least share of the pixels under an object's feet that are road or pavement."""


@dataclass(frozen=True)
class Shape:
    """What a whole single object of a class looks like in a mask."""

    class_id: int
    """What it becomes, an index into `perception.types.CLASS_NAMES`."""
    aspect: tuple[float, float]
    """Least and largest width over height."""
    filled: float
    """Least share of its box."""


@dataclass(frozen=True, eq=False)
class MaskBoxes:
    """What a mask says about objects."""

    boxes_xyxy: F32
    """(N, 4) pixels."""
    class_ids: I64
    """(N,)"""
    ignore_boxes_xyxy: F32
    """(M, 4)"""
    ignore_class_ids: I64
    """(M,) class, -1 for all."""


def boxes_from_mask(
    numbers: U8, shapes: dict[int, Shape], crowds: dict[int, int], ground: tuple[int, ...]
) -> MaskBoxes:
    """Boxes of the pieces of a mask.

    Args:
        numbers: (H, W) class number of each pixel.
        shapes: number in the mask → what a single object looks like.
        crowds: number in the mask → class id of objects that are never told apart: ignored, for that class.
        ground: numbers on which people stand.
    """
    found: list[tuple[tuple[int, int, int, int], int]] = []
    ignored: list[tuple[tuple[int, int, int, int], int]] = []
    for number in (*shapes, *crowds):
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(
            (numbers == number).astype(np.uint8), connectivity=8
        )
        for k in range(1, count):
            x, y, w, h, area = stats[k].tolist()
            box = (x, y, x + w, y + h)
            shape = shapes.get(number)
            if shape is None:
                ignored.append((box, crowds[number]))
            elif _is_single(box, area, shape, numbers.shape) and _stands(numbers, pieces == k, box, ground):
                found.append((box, shape.class_id))
            else:  # a part or a group: of what, is not sure
                ignored.append((box, ALL_CLASSES))
    return MaskBoxes(*_arrays(found), *_arrays(ignored))


def _is_single(box: tuple[int, int, int, int], area: int, shape: Shape, size_hw: tuple[int, ...]) -> bool:
    """Whether a piece is whole, large enough to tell, and shaped as one object."""
    height, width = size_hw
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    inside = x0 > 0 and y0 > 0 and x1 < width and y1 < height
    return (
        inside
        and h >= SMALLEST_HEIGHT
        and shape.aspect[0] <= w / h <= shape.aspect[1]
        and area >= shape.filled * w * h
    )


def _stands(numbers: U8, piece: np.ndarray, box: tuple[int, int, int, int], ground: tuple[int, ...]) -> bool:
    """Whether ground is seen under the feet: otherwise something nearer hides them."""
    x0, y0, x1, y1 = box
    seen = piece[y0:y1, x0:x1]
    columns = np.flatnonzero(seen.any(0))
    lowest = y1 - 1 - seen[::-1].argmax(0)[columns]
    feet = lowest >= y1 - 1 - max(1, (y1 - y0) // 10)
    beneath = numbers[lowest[feet] + 1, x0 + columns[feet]]
    return bool(np.isin(beneath, ground).mean() >= FEET_ON_GROUND)


def _arrays(pairs: list[tuple[tuple[int, int, int, int], int]]) -> tuple[F32, I64]:
    boxes = np.array([box for box, _ in pairs], np.float32).reshape(-1, 4)
    return boxes, np.array([class_id for _, class_id in pairs], np.int64)
