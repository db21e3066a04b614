"""The only overlaps and areas of boxes. Boxes are (N, 4) left, top, right, bottom unless the name says otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def area(boxes_xyxy: Floats) -> Floats:
    """Area of each box, (N,). Inverted boxes count as empty."""
    size = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)
    return size[:, 0] * size[:, 1]


def intersection(boxes_a: Floats, boxes_b: Floats) -> Floats:
    """Shared area of every pair, (N, M)."""
    top_left = np.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])  # (N, M, 2)
    bottom_right = np.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])  # (N, M, 2)
    size = np.maximum(bottom_right - top_left, 0)
    return size[..., 0] * size[..., 1]


def iou(boxes_a: Floats, boxes_b: Floats) -> Floats:
    """Intersection over union of every pair, (N, M), 0 where both are empty."""
    shared = intersection(boxes_a, boxes_b)
    union = area(boxes_a)[:, None] + area(boxes_b)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def intersection_over_area(boxes_a: Floats, boxes_b: Floats) -> Floats:
    """Shared area over the area of the box in `boxes_a`, (N, M): how much of a lies in b."""
    shared = intersection(boxes_a, boxes_b)
    own = np.broadcast_to(area(boxes_a)[:, None], shared.shape)
    return np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)


def clip(boxes_xyxy: Floats, size_hw: tuple[int, int]) -> Floats:
    """Boxes cut to an image of `size_hw` pixels, coordinates in [0, W] × [0, H]."""
    height, width = size_hw
    return np.clip(boxes_xyxy, 0, np.array([width, height, width, height], boxes_xyxy.dtype))
