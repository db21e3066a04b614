"""One training image at the network's size, with all that it teaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from perception.types import CLASS_NAMES, F32, I64, U8

SMALLEST_HEIGHT = 7.0
"""Network pixels; a lower box is neither taught nor punished."""
SMALLEST_VISIBLE = 0.3
"""Share of a box left by a cut, or by what was pasted over it, under which it is neither taught nor punished."""


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """What one image brings into a batch."""

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
    """For each class: does this image's set label it."""
    masks: U8
    """(3, h/4, w/4) road, vehicle, person: 1 yes, 0 no, 255 not judged."""
    depths: F32
    """(G,) metres ahead over the focal length in network pixels, NaN where unknown."""
    confidences: F32
    """(G,) 0..1, how sure each label is: the highest class target that it gives."""


def of_classes(example: TrainingImage, class_names: Sequence[str]) -> TrainingImage:
    """The image as a network with these classes learns it: the data sets number theirs by `CLASS_NAMES`.

    Objects of other classes are background. -1, an ignore region of all classes, stays.
    """
    if tuple(class_names) == CLASS_NAMES:
        return example
    chosen = [CLASS_NAMES.index(name) for name in class_names]
    number = np.full(len(CLASS_NAMES) + 1, -2)  # the last entry is that of -1
    number[chosen], number[-1] = range(len(chosen)), -1
    class_ids, ignore_class_ids = number[example.class_ids], number[example.ignore_class_ids]
    keep, ignored = class_ids >= 0, ignore_class_ids >= -1
    return replace(
        example,
        boxes_xyxy=example.boxes_xyxy[keep],
        class_ids=class_ids[keep],
        depths=example.depths[keep],
        confidences=example.confidences[keep],
        ignore_xyxy=example.ignore_xyxy[ignored],
        ignore_class_ids=ignore_class_ids[ignored],
        labelled=tuple(example.labelled[i] for i in chosen),
    )
