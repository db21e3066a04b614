"""Pretrained detectors as teachers, which output detections of this project's classes.

The layout of a model is recognised by its inputs and outputs:

- a file of `perception export`;
- ATSS of the Open Model Zoo: `boxes` (N, 5) in input pixels with score, `labels` (N,);
- SSD of the Open Model Zoo: (1, 1, N, 7) rows `image, label, score, x1, y1, x2, y2`, relative;
- YOLOX: (1, A, 85), decoded over strides 8, 16, 32, with COCO's 80 classes.

OpenVINO reads IR and ONNX, so it runs all layouts but the first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.labels import CAR, CYCLIST, PEDESTRIAN
from perception.arrays import U8
from perception.backends import Model, checked
from perception.backends.onnxruntime import OnnxRuntimeBackend
from perception.backends.openvino import compile_graph, import_openvino, read_graph
from perception.detector import Detector
from perception.errors import UserError
from perception.model import METADATA_KEY, ModelSpec
from perception.types import CLASS_NAMES, Detections, RoadMask

log = logging.getLogger("training.teachers")

SIZE_MULTIPLE = 32
ATSS_CLASSES: Mapping[int, tuple[int, ...]] = {1: (PEDESTRIAN,), 3: (CAR, PEDESTRIAN, CYCLIST)}
"""Classes by the number of class outputs: vehicle, person, bike with rider."""
SSD_CLASSES = {1: CAR, 2: PEDESTRIAN}
COCO_CLASSES = {0: PEDESTRIAN, 2: CAR, 5: CAR, 7: CAR}
"""person, car, bus, truck. Bicycles are excluded, because COCO does not label their riders."""
LOWEST_SCORE = 0.05
NMS_IOU = 0.6


@dataclass(frozen=True)
class TeacherConfig:
    """Pretrained detectors that label frames."""

    teacher: tuple[Path, ...] = ()
    """Detectors (.onnx or OpenVINO .xml) that label the frames of `data.unlabelled` at the start. Their labels are
    written to `data.teacher_labels`, else to the run directory."""
    teacher_hw: tuple[int, int] = (384, 1248)
    """Height and width of the network input of third-party teachers, pixels."""


class Teacher:
    """A detector whose detections label frames."""

    def __init__(self, model: Model, class_ids: tuple[int, ...]) -> None:
        self._detector = Detector(model)
        names = model.spec.class_names
        self._ids = np.array([CLASS_NAMES.index(n) if n in CLASS_NAMES else -1 for n in names], np.int64)
        self.class_ids = class_ids
        """Classes that it detects. It gives no evidence about the others."""
        self.road: RoadMask | None = None
        """Road of the last image; None for a teacher without a road head."""

    @property
    def finder(self) -> Detector:
        """The detector itself, with the class names of its own model."""
        return self._detector

    def __call__(self, image_bgr: U8) -> Detections:
        """Return the detections of all scores, in pixels of the image (H, W, 3) uint8."""
        found, self.road = self._detector(image_bgr)
        ids = self._ids[found.class_ids]
        return Detections(found.boxes_xyxy, found.scores, ids)[ids >= 0]


def load_teacher(path: Path, size_hw: tuple[int, int], threads: int = 1) -> Teacher:
    """Open a model file as a teacher.

    Args:
        path: `.onnx` or OpenVINO's `.xml`.
        size_hw: network input size; a model with a fixed size keeps its own.
        threads: CPU threads.

    Raises:
        UserError: the file is missing, or its layout is unknown.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such model", "an .onnx or OpenVINO .xml file", "--teacher FILE")
    if path.suffix == ".onnx" and (own := _own(path, threads)) is not None:
        return own
    backend = _OpenVino(path, size_hw, threads)
    return Teacher(Model(backend, ModelSpec(CLASS_NAMES, size_hw, name=path.stem)), backend.class_ids)


def _own(path: Path, threads: int) -> Teacher | None:
    """Open an export of this project; None for another file."""
    backend = OnnxRuntimeBackend(path, "cpu", threads)
    if METADATA_KEY not in backend.metadata:
        return None
    model = checked(backend, path)
    known = tuple(name for name in model.spec.class_names if name in CLASS_NAMES)
    if not known:
        raise UserError(
            f"{path}: a teacher of {', '.join(model.spec.class_names)}", f"one of {', '.join(CLASS_NAMES)}"
        )
    if len(known) < len(model.spec.class_names):
        others = ", ".join(name for name in model.spec.class_names if name not in known)
        log.warning("%s: detections of %s are not used; teachers label %s", path, others, ", ".join(CLASS_NAMES))
    return Teacher(model, tuple(CLASS_NAMES.index(name) for name in known))


class _OpenVino:
    """A third-party model of fixed size, as a `Backend` with the outputs of this project's exports."""

    provider = "OpenVINO CPU"
    max_batch: int | None = 1

    def __init__(self, path: Path, size_hw: tuple[int, int], threads: int) -> None:
        import_openvino("teachers")
        if any(side % SIZE_MULTIPLE for side in size_hw):
            raise UserError(f"teacher size {size_hw[0]}x{size_hw[1]}", f"multiples of {SIZE_MULTIPLE}")
        model = read_graph(path, "an ONNX file, or an .xml with its .bin")
        try:
            model.reshape([1, 3, *size_hw])
        except RuntimeError as error:
            raise UserError(
                f"{path}: no input of size {size_hw[0]}x{size_hw[1]} ({str(error).splitlines()[0]})",
                "a detector that takes one image",
            ) from None
        self._size_hw = size_hw
        self.inputs: Mapping[str, tuple[Any, ...]] = {"images": (1, *size_hw, 3)}
        self.outputs: Mapping[str, tuple[Any, ...]] = {
            "boxes_xyxy": (1, "K", 4),
            "scores": (1, "K"),
            "class_ids": (1, "K"),
        }
        self.metadata: Mapping[str, str] = {}
        self.class_ids, self._read = _layout(model, path)
        self._model = compile_graph(model, threads=threads)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one image: named input arrays → named output arrays."""
        values = self._model(np.ascontiguousarray(inputs["images"].transpose(0, 3, 1, 2), np.float32))
        boxes, scores, class_ids = self._read(values, self._size_hw)
        order = np.argsort(-scores, kind="stable")
        return {
            "boxes_xyxy": boxes[None, order].astype(np.float32),
            "scores": scores[None, order].astype(np.float32),
            "class_ids": class_ids[None, order].astype(np.int64),
        }


Found = tuple[np.ndarray, np.ndarray, np.ndarray]
Read = Callable[[Any, tuple[int, int]], Found]
"""Outputs and input size → boxes (N, 4) in input pixels, scores (N,), class ids (N,)."""


def _layout(model: Any, path: Path) -> tuple[tuple[int, ...], Read]:
    """Return the classes and the reader of a model, from its outputs.

    Raises:
        UserError: the model has none of the layouts.
    """
    names = {name for output in model.outputs for name in output.names}
    shapes = [tuple(str(side) for side in output.partial_shape) for output in model.outputs]
    if {"boxes", "labels"} <= names:
        scores = [op.output(0).partial_shape for op in model.get_ops() if op.get_type_name() == "Sigmoid"]
        count = max((int(s[1].get_length()) for s in scores if len(s) == 2 and s[1].is_static), default=0)
        if count in ATSS_CLASSES:
            return ATSS_CLASSES[count], partial(_read_atss, classes=ATSS_CLASSES[count])
    elif len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][3] == "7":
        return tuple(SSD_CLASSES.values()), _read_ssd
    elif len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][2] == "85":
        return tuple(sorted(set(COCO_CLASSES.values()))), _read_yolox
    raise UserError(
        f"{path}: outputs of shape {', '.join('x'.join(shape) for shape in shapes)}",
        "an export of this project, an Open Model Zoo ATSS or SSD detector, or YOLOX",
    )


def _read_atss(values: Any, size_hw: tuple[int, int], classes: tuple[int, ...]) -> Found:
    boxes, labels = values["boxes"], values["labels"]
    return boxes[:, :4], boxes[:, 4], np.array(classes, np.int64)[labels.astype(np.int64)]


def _read_ssd(values: Any, size_hw: tuple[int, int]) -> Found:
    rows = values[0].reshape(-1, 7)
    rows = rows[(rows[:, 0] >= 0) & np.isin(rows[:, 1], list(SSD_CLASSES))]
    height, width = size_hw
    classes = np.array([SSD_CLASSES[int(label)] for label in rows[:, 1]], np.int64)
    return rows[:, 3:] * np.array([width, height, width, height]), rows[:, 2], classes


def _read_yolox(values: Any, size_hw: tuple[int, int]) -> Found:
    """Decode YOLOX (Ge et al. 2021): objectness times class score, the best class at each point, NMS."""
    raw = values[0][0]  # (A, 85)
    points, strides = [], []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: size_hw[0] // stride, : size_hw[1] // stride]
        points.append(np.stack([x, y], -1).reshape(-1, 2))
        strides.append(np.full((x.size, 1), stride))
    grid, stride_of = np.concatenate(points), np.concatenate(strides)
    centre, size = (raw[:, :2] + grid) * stride_of, np.exp(raw[:, 2:4]) * stride_of
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1)
    known = list(COCO_CLASSES)
    scores = raw[:, 4:5] * raw[:, [5 + number for number in known]]  # (A, K)
    class_ids = np.array([COCO_CLASSES[number] for number in known], np.int64)[scores.argmax(1)]
    scores = scores.max(1)
    chosen = np.flatnonzero(scores > LOWEST_SCORE)
    boxes, scores, class_ids = boxes[chosen], scores[chosen], class_ids[chosen]
    apart = boxes + (class_ids * 2 * max(size_hw))[:, None]  # so that boxes of different classes do not overlap
    xywh = np.concatenate([apart[:, :2], apart[:, 2:] - apart[:, :2]], 1)
    kept = np.array(cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), LOWEST_SCORE, NMS_IOU), np.int64).reshape(-1)
    return boxes[kept], scores[kept], class_ids[kept]
