"""A training image at the network's input size, with its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from perception.arrays import F32, I64, U8
from perception.types import CLASS_NAMES

SMALLEST_HEIGHT = 7.0
"""Height below which a box becomes an ignore region, network pixels."""
SMALLEST_VISIBLE = 0.3
"""Visible fraction of a box, after crops and pasted objects, below which it becomes an ignore region."""


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """One image of a batch, with its targets."""

    image_bgr: U8
    """(h, w, 3) uint8, network size."""
    boxes_xyxy: F32
    """(G, 4) network pixels."""
    class_ids: I64
    """(G,)."""
    ignore_xyxy: F32
    """(M, 4)."""
    ignore_class_ids: I64
    """(M,) class, or -1 for all."""
    labelled: tuple[bool, ...]
    """For each class, whether the image's data set labels it."""
    masks: U8
    """(3, h/4, w/4) road, vehicle, person: 1 yes, 0 no, 255 ignored."""
    depths: F32
    """(G,) metres ahead over the focal length in network pixels, NaN where unknown."""
    confidences: F32
    """(G,) confidence of each label, 0..1: the upper bound of its class target."""
    cuboids: F32
    """(G, 6) 3-D box of each object as the image shows it, the first columns of `perception.cameras.cuboids.COLUMNS`:
    u and v of its centre in network pixels, length, width, height, observation angle; NaN where unknown."""


def unknown_cuboids(count: int) -> F32:
    """Return `TrainingImage.cuboids` of objects without a known 3-D box."""
    return np.full((count, 6), np.nan, np.float32)


def of_classes(
    example: TrainingImage, class_names: Sequence[str], names: Sequence[str] = CLASS_NAMES
) -> TrainingImage:
    """Return the image with class ids of a network, from the numbering of a run's samples (`numbering`).

    Objects of other classes become background. Ignore regions of all classes (-1) are kept.

    Args:
        example: the image.
        class_names: of the network.
        names: what the ids of the image count.
    """
    if tuple(class_names) == tuple(names):
        return example
    chosen = [names.index(name) for name in class_names]
    number = np.full(len(names) + 1, -2)  # the last entry is that of -1
    number[chosen], number[-1] = range(len(chosen)), -1
    class_ids, ignore_class_ids = number[example.class_ids], number[example.ignore_class_ids]
    keep, ignored = class_ids >= 0, ignore_class_ids >= -1
    return replace(
        example,
        boxes_xyxy=example.boxes_xyxy[keep],
        class_ids=class_ids[keep],
        depths=example.depths[keep],
        confidences=example.confidences[keep],
        cuboids=example.cuboids[keep],
        ignore_xyxy=example.ignore_xyxy[ignored],
        ignore_class_ids=ignore_class_ids[ignored],
        labelled=tuple(example.labelled[i] for i in chosen),
    )
