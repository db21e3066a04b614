"""What a person saw who looked at boxes whose labels leave open what is in them.

`<name>_reviewed.txt` beside this module has a line for each box
that is not what its set calls it, `PICTURE LEFT TOP` and
then `hidden` (nobody can be told, or it is somebody on a motorcycle) or `cyclist X1 Y1 X2 Y2` (its box, bicycle and
all). Boxes that are not in the file are what they are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.labels import CYCLIST
from perception.types import F32, I64


def seen_file(name: str) -> Path:
    """The file about a set."""
    return Path(__file__).with_name(f"{name}_reviewed.txt")


def as_seen(name: str, picture: str, boxes_xyxy: F32, class_ids: I64) -> tuple[F32, I64, NDArray[np.bool_]]:
    """Boxes of a picture as they were seen.

    Args:
        name: of the file.
        picture: name of the picture.
        boxes_xyxy: (N, 4) as labelled; they are known by their left upper corner.
        class_ids: (N,) as labelled.

    Returns:
        (N, 4) boxes, (N,) class ids and (N,) True for what has to be ignored.
    """
    boxes, classes, hidden = boxes_xyxy.copy(), class_ids.copy(), np.zeros(len(boxes_xyxy), bool)
    seen = _read(name).get(picture, {})
    for i, (left, top) in enumerate(boxes_xyxy[:, :2].tolist()):
        if (corner := (round(left, 2), round(top, 2))) in seen:
            cyclist = seen[corner]
            if cyclist is None:
                hidden[i] = True
            else:
                boxes[i], classes[i] = cyclist, CYCLIST
    return boxes, classes, hidden


@cache
def _read(name: str) -> Mapping[str, Mapping[tuple[float, float], tuple[float, ...] | None]]:
    """Picture → corner of a box → the cyclist's box in it, None for a hidden one."""
    seen: dict[str, dict[tuple[float, float], tuple[float, ...] | None]] = {}
    for line in seen_file(name).read_text().splitlines():
        picture, left, top, what, *box = line.split()
        seen.setdefault(picture, {})[float(left), float(top)] = tuple(map(float, box)) if what == "cyclist" else None
    return seen
