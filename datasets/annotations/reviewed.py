"""Labels that a person reviewed: boxes whose own label leaves open what is in them.

`<name>_reviewed.txt` beside this module has a line for each box whose content differs from its label. The line is
`IMAGE LEFT TOP` and then `hidden` (nobody can be recognised, or the person rides a motorcycle) or `cyclist X1 Y1 X2
Y2` (the full box, bicycle included). Boxes without a line keep their label.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.labels import CYCLIST
from perception.arrays import F32, I64


def reviewed_file(name: str) -> Path:
    """Return the file of a set's reviewed labels."""
    return Path(__file__).with_name(f"{name}_reviewed.txt")


def reviewed(name: str, image: str, boxes_xyxy: F32, class_ids: I64) -> tuple[F32, I64, NDArray[np.bool_]]:
    """Replace an image's labels by the reviewed ones.

    Args:
        name: of the file.
        image: name of the image.
        boxes_xyxy: (N, 4) as labelled; the file identifies them by their left upper corner.
        class_ids: (N,) as labelled.

    Returns:
        (N, 4) boxes, (N,) class ids and (N,) True for boxes to ignore.
    """
    boxes, classes, hidden = boxes_xyxy.copy(), class_ids.copy(), np.zeros(len(boxes_xyxy), bool)
    reviews = _read(name).get(image, {})
    for i, (left, top) in enumerate(boxes_xyxy[:, :2].tolist()):
        if (corner := (round(left, 2), round(top, 2))) in reviews:
            cyclist = reviews[corner]
            if cyclist is None:
                hidden[i] = True
            else:
                boxes[i], classes[i] = cyclist, CYCLIST
    return boxes, classes, hidden


@cache
def _read(name: str) -> Mapping[str, Mapping[tuple[float, float], tuple[float, ...] | None]]:
    """Image → corner of a box → the cyclist's box in it, None for a hidden one."""
    reviews: dict[str, dict[tuple[float, float], tuple[float, ...] | None]] = {}
    for line in reviewed_file(name).read_text().splitlines():
        image, left, top, what, *box = line.split()
        reviews.setdefault(image, {})[float(left), float(top)] = tuple(map(float, box)) if what == "cyclist" else None
    return reviews
