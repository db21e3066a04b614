"""Outputs of detectors of other projects: boxes in input pixels, scores, and class numbers.

A layout is recognised by the outputs of the model:

- ATSS of the Open Model Zoo: `boxes` (N, 5) in input pixels with score, `labels` (N,);
- SSD of the Open Model Zoo: (1, 1, N, 7) rows `image, label, score, x1, y1, x2, y2`, relative;
- YOLOX: (1, A, 85), decoded over strides 8, 16, 32, with COCO's 80 classes.

Any other detector is described by a TOML file of its name beside it (`detector.toml` for `detector.onnx`):

    layout = "yolo"               # or ssd, yolox, boxes
    classes = ["bus", "truck"]    # names of the numbers from `first` on
    first = 1                     # of ssd and boxes: number of the first class; default: 0
    rgb = true                    # colour order of the input; default: blue first
    scale = 0.00392156862745098   # what pixels of 0 to 255 are multiplied by; default: 1

`yolo` is (1, 4 + classes, A): centre and size in input pixels, then a score a class (YOLOv8 and later). `boxes` is
`boxes` (N, 4) in input pixels, `scores` (N,) and `labels` (N,), as torchvision exports them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.errors import UserError
from perception.files import read_toml

COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,"
    "tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,"
    "keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,"
    "hair drier,toothbrush"
).split(",")
ATSS_CLASSES: Mapping[int, tuple[str, ...]] = {1: ("person",), 3: ("vehicle", "person", "bike")}
"""Classes by the number of class outputs; `bike` is one with its rider."""
SSD_CLASSES = {1: "vehicle", 2: "pedestrian"}
LOWEST_SCORE = 0.05
NMS_IOU = 0.6
MOST_CLASSES = 1000
EXPECTED = 'layout = "yolo", "yolox", "ssd" or "boxes", and classes = ["bus", "truck"]'

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
Read = Callable[[Any, tuple[int, int], Mapping[int, int]], Found]
"""Outputs, input size, and the model's wanted class numbers with what they become → boxes (N, 4) in input pixels,
scores (N,), class ids (N,)."""


@dataclass(frozen=True)
class Layout:
    """How to read a detector."""

    classes: Mapping[int, str]
    """Names of the class numbers."""
    read: Read
    rgb: bool = False
    """Whether the input's colour order is red first."""
    scale: float = 1.0
    """Of the input's pixels."""


def layout_of(model: Any, path: Path) -> Layout:
    """Return the layout of a model that OpenVINO has read: described beside it, else recognised by its outputs.

    Raises:
        UserError: a wrong description, or a model that has none of the layouts.
    """
    described = path.with_suffix(".toml")
    if described.is_file():
        return _described(described, model)
    names = {name for output in model.outputs for name in output.names}
    shapes = _shapes(model)
    if {"boxes", "labels"} <= names:
        scores = [op.output(0).partial_shape for op in model.get_ops() if op.get_type_name() == "Sigmoid"]
        count = max((int(s[1].get_length()) for s in scores if len(s) == 2 and s[1].is_static), default=0)
        if count in ATSS_CLASSES:
            return Layout(dict(enumerate(ATSS_CLASSES[count])), _read_atss)
    elif len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][3] == "7":
        return Layout(SSD_CLASSES, _read_ssd)
    elif len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][2] == str(5 + len(COCO)):
        return Layout(dict(enumerate(COCO)), _read_yolox)
    raise UserError(
        f"{path}: outputs of shape {', '.join('x'.join(shape) for shape in shapes)}",
        "an export of this project, an Open Model Zoo ATSS or SSD detector, or YOLOX",
        f"describe the outputs in {described}: {EXPECTED}",
    )


def _shapes(model: Any) -> list[tuple[str, ...]]:
    return [tuple(str(side) for side in output.partial_shape) for output in model.outputs]


def _described(path: Path, model: Any) -> Layout:
    """Read the description of a detector, and compare it with the model's outputs."""
    table = read_toml(path, EXPECTED)
    if unknown := sorted(set(table) - {"layout", "classes", "first", "rgb", "scale"}):
        raise UserError(f"{path}: unknown key '{unknown[0]}'", "layout, classes, first, rgb, scale")
    kind: Any = table.get("layout")
    classes: Any = table.get("classes")
    first: Any = table.get("first", 0)
    if kind not in READERS:
        raise UserError(f"{path}: layout {kind!r}", f"one of {', '.join(READERS)}")
    is_list = isinstance(classes, list) and 0 < len(classes) <= MOST_CLASSES
    if not is_list or not all(isinstance(name, str) and name for name in classes):
        raise UserError(f"{path}: classes {str(classes)[:60]}", "a list of names, in the order of the numbers")
    if type(first) is not int or not 0 <= first < MOST_CLASSES or not isinstance(table.get("rgb", False), bool):
        raise UserError(f"{path}: first {first!r}, rgb {table.get('rgb')!r}", "first = 0 or 1, rgb = true or false")
    if first and kind not in ("ssd", "boxes"):
        raise UserError(f"{path}: first = {first} with layout {kind}", "no `first`: its scores are in order")
    scale = table.get("scale", 1.0)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise UserError(f"{path}: scale {scale!r}", "a number above 0, such as 0.00392156862745098")
    shapes, names = _shapes(model), {name for output in model.outputs for name in output.names}
    fits = {
        "boxes": {"boxes", "scores", "labels"} <= names,
        "ssd": len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][3] == "7",
        "yolox": len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][2] in ("?", str(5 + len(classes))),
        "yolo": len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][1] in ("?", str(4 + len(classes))),
    }
    if not fits[kind]:
        found = f"{', '.join(sorted(names))} of shape {', '.join('x'.join(shape) for shape in shapes)}"
        raise UserError(
            f"{path}: layout {kind} and {len(classes)} classes, but outputs {found}",
            "the layout and classes of the model",
        )
    numbered = {number: name.lower() for number, name in enumerate(classes, first)}
    return Layout(numbered, READERS[kind], table.get("rgb", False), float(scale))


def _read_atss(values: Any, size_hw: tuple[int, int], wanted: Mapping[int, int]) -> Found:
    boxes, (kept, class_ids) = values["boxes"], _mapped(values["labels"], wanted)
    return boxes[kept, :4], boxes[kept, 4], class_ids


def _read_boxes(values: Any, size_hw: tuple[int, int], wanted: Mapping[int, int]) -> Found:
    kept, class_ids = _mapped(values["labels"], wanted)
    return values["boxes"].reshape(-1, 4)[kept], values["scores"].reshape(-1)[kept], class_ids


def _read_ssd(values: Any, size_hw: tuple[int, int], wanted: Mapping[int, int]) -> Found:
    rows = values[0].reshape(-1, 7)
    rows = rows[rows[:, 0] >= 0]
    kept, class_ids = _mapped(rows[:, 1], wanted)
    height, width = size_hw
    return rows[kept, 3:] * np.array([width, height, width, height]), rows[kept, 2], class_ids


def _mapped(numbers: np.ndarray, wanted: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the model's class numbers are wanted, (N,) bool, and the class ids of those."""
    numbers = numbers.reshape(-1).astype(np.int64)
    kept = np.isin(numbers, list(wanted))
    return kept, np.array([wanted[number] for number in numbers[kept].tolist()], np.int64)


def _read_yolox(values: Any, size_hw: tuple[int, int], wanted: Mapping[int, int]) -> Found:
    """Decode YOLOX (Ge et al. 2021): objectness times class score, the best class at each point, NMS."""
    raw = values[0][0]  # (A, 5 + classes)
    points, strides = [], []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: size_hw[0] // stride, : size_hw[1] // stride]
        points.append(np.stack([x, y], -1).reshape(-1, 2))
        strides.append(np.full((x.size, 1), stride))
    grid, stride_of = np.concatenate(points), np.concatenate(strides)
    centre, size = (raw[:, :2] + grid) * stride_of, np.exp(raw[:, 2:4]) * stride_of
    return _best(centre, size, raw[:, 4:5] * raw[:, 5:], size_hw, wanted)


def _read_yolo(values: Any, size_hw: tuple[int, int], wanted: Mapping[int, int]) -> Found:
    raw = values[0][0].T  # (A, 4 + classes)
    return _best(raw[:, :2], raw[:, 2:4], raw[:, 4:], size_hw, wanted)


def _best(
    centre: np.ndarray, size: np.ndarray, scores: np.ndarray, size_hw: tuple[int, int], wanted: Mapping[int, int]
) -> Found:
    """Return the best wanted class of each point, after NMS by class."""
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1)
    scores = scores[:, list(wanted)]  # (A, K)
    class_ids = np.array(list(wanted.values()), np.int64)[scores.argmax(1)]
    scores = scores.max(1)
    chosen = np.flatnonzero((scores > LOWEST_SCORE) & np.isfinite(boxes).all(axis=1))
    boxes, scores, class_ids = boxes[chosen], scores[chosen], class_ids[chosen]
    apart = boxes + (class_ids * 2 * max(size_hw))[:, None]  # so that boxes of different classes do not overlap
    xywh = np.concatenate([apart[:, :2], apart[:, 2:] - apart[:, :2]], 1)
    kept = np.array(cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), LOWEST_SCORE, NMS_IOU), np.int64).reshape(-1)
    return boxes[kept], scores[kept], class_ids[kept]


READERS: Mapping[str, Read] = {"yolo": _read_yolo, "yolox": _read_yolox, "ssd": _read_ssd, "boxes": _read_boxes}
"""Layouts that a description can name."""
