"""One training picture at the network's size, with all that it teaches."""

from __future__ import annotations

from dataclasses import dataclass

from perception.types import F32, I64, U8

SMALLEST_HEIGHT = 7.0
"""Network pixels; a lower box is neither taught nor punished."""
SMALLEST_VISIBLE = 0.3
"""Share of a box left by a cut, or by what was pasted over it, under which it is neither taught nor punished."""


@dataclass(frozen=True, eq=False)
class TrainingPicture:
    """What one picture brings into a batch."""

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
    """For each class: does this picture's set label it."""
    masks: U8
    """(3, h/4, w/4) road, vehicle, person: 1 yes, 0 no, 255 not judged."""
    depths: F32
    """(G,) metres ahead over the focal length in network pixels, NaN where unknown."""
