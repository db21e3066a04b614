"""Pretrained detectors as teachers, which output detections of this project's classes.

A file of `perception export` is recognised by its metadata; `teacher_layouts` reads all others. OpenVINO runs those.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.arrays import U8
from perception.backends import Model, checked
from perception.backends.onnxruntime import OnnxRuntimeBackend
from perception.backends.openvino import compile_graph, import_openvino, read_graph
from perception.detector import Detector
from perception.errors import UserError
from perception.model import METADATA_KEY, ModelSpec
from perception.types import CLASS_NAMES, Detections, RoadMask
from training.teacher_layouts import layout_of

log = logging.getLogger("training.teachers")

SIZE_MULTIPLE = 32
NAMES: Mapping[str, str] = {
    "person": "Pedestrian",
    "pedestrian": "Pedestrian",
    "car": "Car",
    "vehicle": "Car",
    "bus": "Car",
    "truck": "Car",
    "bike": "Cyclist",
}
"""What the classes of other projects are called here. COCO's bicycle is none: it is labelled without its rider."""


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


def load_teacher(path: Path, size_hw: tuple[int, int], threads: int = 1, names: Mapping[str, str] = NAMES) -> Teacher:
    """Open a model file as a teacher.

    Args:
        path: `.onnx` or OpenVINO's `.xml`.
        size_hw: network input size; a model with a fixed size keeps its own.
        threads: CPU threads.
        names: classes of other projects' models in lower case → what they are called here; others are not used.

    Raises:
        UserError: the file is missing, its layout is unknown, or it has none of the classes.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such model", "an .onnx or OpenVINO .xml file", "--teacher FILE")
    if path.suffix == ".onnx" and (own := _own(path, threads)) is not None:
        return own
    backend = _OpenVino(path, size_hw, threads, names)
    known = tuple(CLASS_NAMES.index(name) for name in backend.class_names if name in CLASS_NAMES)
    return Teacher(Model(backend, ModelSpec(backend.class_names, size_hw, name=path.stem)), known)


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

    def __init__(self, path: Path, size_hw: tuple[int, int], threads: int, names: Mapping[str, str]) -> None:
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
        self._layout = layout_of(model, path)
        found = {names[name] for name in self._layout.classes.values() if name in names}
        if not found:
            raise UserError(
                f"{path}: classes {', '.join(list(self._layout.classes.values())[:20])}",
                f"some of {', '.join(names)}",
                "--teacher-classes NAME=OURS of perception label",
            )
        ordered = [name for name in CLASS_NAMES if name in found]
        self.class_names = (*ordered, *sorted(found - set(ordered)))
        self._ids = {
            number: self.class_names.index(names[name])
            for number, name in self._layout.classes.items()
            if name in names
        }
        self._model = compile_graph(model, threads=threads)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one image: named input arrays → named output arrays."""
        images = inputs["images"][..., ::-1] if self._layout.rgb else inputs["images"]
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        if self._layout.scale != 1:
            pixels *= np.float32(self._layout.scale)
        boxes, scores, class_ids = self._layout.read(self._model(pixels), self._size_hw, self._ids)
        order = np.argsort(-scores, kind="stable")
        return {
            "boxes_xyxy": boxes[None, order].astype(np.float32),
            "scores": scores[None, order].astype(np.float32),
            "class_ids": class_ids[None, order].astype(np.int64),
        }
