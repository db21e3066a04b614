"""From images to detections and road: letterbox, run, read. The only path from pixels to boxes.

The runtime, evaluation, parity checks, training and tools all find objects through this class, so what is measured is
what drives. The network is a `Backend`: a model file, or a torch network during training.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from perception.arrays import U8
from perception.backends import Backend, Model
from perception.cameras.cuboids import HEIGHT, LENGTH, WIDTHS
from perception.cameras.letterbox import Letterbox, letterbox
from perception.errors import UserError
from perception.model import ModelSpec
from perception.timing import timed
from perception.types import Detections, RoadMask

_OTHER_MODEL = "a model of another precision, or perception export CHECKPOINT"
INPUT = "images"
"""The network's one input: (N, H, W, 3) uint8, blue first."""
OPTIONAL_COLUMNS = {"distances": (2,), "cuboids": WIDTHS}
"""Outputs (N, K, …) that a model file may have: one row a box, with so many numbers."""


class Finder(Protocol):
    """Whatever finds objects and road in an image: a `Detector`, or several fused (`perception.trust.ensemble`)."""

    @property
    def spec(self) -> ModelSpec:
        """Class names and thresholds of what it returns."""

    @property
    def provider(self) -> str:
        """What runs the network, for people."""

    def __call__(self, image_bgr: U8) -> tuple[Detections, RoadMask | None]:
        """Detect in one image (H, W, 3) uint8; the results are in its pixels."""


class BatchFinder(Finder, Protocol):
    """A finder that takes several images at once, as the runtime hands them over."""

    @property
    def backend(self) -> Backend:
        """What runs its first network."""

    @property
    def batch(self) -> int:
        """Most images in one run."""

    def run(
        self, images_bgr: Sequence[U8], timings_ms: Sequence[dict[str, float]] | None = None
    ) -> list[tuple[Detections, RoadMask | None]]:
        """Detect in several images, see `Detector.run`."""


class Detector:
    """A network with all that lies between it and frames of any size. Not for two threads at once."""

    def __init__(self, model: Model | tuple[Backend, ModelSpec], minimum_score: float = 0.0, batch: int = 1) -> None:
        """Allocate the input of one batch.

        Args:
            model: what `load_model` returns, or any backend with its description.
            minimum_score: detections below it are left out.
            batch: most images in one run of the network; a model may allow fewer.

        Raises:
            UserError: the model has other inputs than one named 'images'.
        """
        self.backend: Backend = model[0]
        self.spec: ModelSpec = model[1]
        self.minimum_score = minimum_score
        fixed = _fixed_batch(self.backend)
        self.batch = min(batch, fixed or self.backend.max_batch or batch)
        """Most images in one run."""
        self._images = np.zeros((fixed or self.batch, *self.spec.size_hw, 3), np.uint8)
        self._always_full = fixed is not None

    @property
    def provider(self) -> str:
        """What runs the network, for people."""
        return self.backend.provider

    def __call__(self, image_bgr: U8) -> tuple[Detections, RoadMask | None]:
        """Detect in one image (H, W, 3) uint8; the results are in its pixels."""
        return self.run([image_bgr])[0]

    def run(
        self, images_bgr: Sequence[U8], timings_ms: Sequence[dict[str, float]] | None = None
    ) -> list[tuple[Detections, RoadMask | None]]:
        """Detect in several images, `batch` of them in each run of the network.

        Args:
            images_bgr: (H, W, 3) uint8 each, of any sizes.
            timings_ms: one dictionary an image. It gets the stages 'letterbox', 'network' (an even share of the run)
                and 'read', milliseconds.

        Returns:
            For each image its detections, highest score first, and the road where the network finds one; both in
            pixels of that image.
        """
        timings_ms = [{} for _ in images_bgr] if timings_ms is None else timings_ms
        found: list[tuple[Detections, RoadMask | None]] = []
        for start in range(0, len(images_bgr), self.batch):
            part = slice(start, start + self.batch)
            found += self._run_batch(images_bgr[part], timings_ms[part])
        return found

    def _run_batch(
        self, images_bgr: Sequence[U8], timings_ms: Sequence[dict[str, float]]
    ) -> list[tuple[Detections, RoadMask | None]]:
        # letterbox
        letterboxes: list[Letterbox] = []
        for slot, image_bgr in enumerate(images_bgr):
            with timed(timings_ms[slot], "letterbox"):
                letterboxes.append(self.letterbox(image_bgr, self._images[slot]))

        # run; the slots of a fixed batch that have no image keep what they held
        start_ns = time.perf_counter_ns()
        outputs = self.backend.run({INPUT: self._images if self._always_full else self._images[: len(images_bgr)]})
        check_outputs(outputs, len(images_bgr), len(self.spec.class_names))
        network_ms = (time.perf_counter_ns() - start_ns) / 1e6 / len(images_bgr)

        # read
        found = []
        for slot, placed in enumerate(letterboxes):
            timings_ms[slot]["network"] = network_ms
            with timed(timings_ms[slot], "read"):
                found.append(read_outputs(outputs, slot, placed, self.minimum_score))
        return found

    def letterbox(self, image_bgr: U8, out: U8) -> Letterbox:
        """Write an image (H, W, 3) into its slot (h, w, 3) of the network's input; returns the way back."""
        return letterbox(image_bgr, self.spec.size_hw, out)[1]


def _fixed_batch(backend: Backend) -> int | None:
    """The batch that every run must have; None where it is free."""
    shape = backend.inputs.get(INPUT)
    if shape is None or len(backend.inputs) != 1:
        raise UserError(
            f"the model's inputs are {', '.join(backend.inputs)}",
            f"one input named '{INPUT}'",
            "perception export CHECKPOINT",
        )
    return shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else None


def check_outputs(outputs: Mapping[str, np.ndarray], images: int, classes: int) -> None:
    """Check what a network returned for a batch: a graph may compute other shapes and values than it declares.

    Raises:
        UserError: rows that do not belong together, numbers out of their range, or unknown classes.
    """
    scores, boxes, class_ids = outputs["scores"], outputs["boxes_xyxy"], outputs["class_ids"]
    rows = scores.shape[:2]
    road = outputs.get("road")
    optional = {name: outputs[name] for name in OPTIONAL_COLUMNS if name in outputs}
    if (
        len(scores) < images
        or scores.ndim != 2
        or boxes.shape != (*rows, 4)
        or class_ids.shape != rows
        or any(
            array.shape not in [(*rows, width) for width in OPTIONAL_COLUMNS[name]]
            for name, array in optional.items()
        )
        or (road is not None and (road.ndim != 3 or len(road) < images or 0 in road.shape))
    ):
        found = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
        raise UserError(
            f"the network returned {found} for {images} images",
            "boxes_xyxy (N, K, 4), scores (N, K), class_ids (N, K), road (N, H, W), "
            "distances (N, K, 2), cuboids (N, K, 9)",
            "perception export CHECKPOINT",
        )
    real = scores[:images] > 0  # (N, K)
    if not (scores[:images] <= 1).all():  # nor is a NaN
        raise UserError("the network returned scores that are no probabilities", "numbers from 0 to 1", _OTHER_MODEL)
    for name, array in {"boxes": boxes, **optional}.items():
        if not np.isfinite(array[:images][real]).all():
            raise UserError(f"the network returned {name} that are not finite", "numbers", _OTHER_MODEL)
    if "cuboids" in optional and not (optional["cuboids"][:images][real][:, LENGTH : HEIGHT + 1] > 0).all():
        raise UserError("the network returned cuboids without a size", "sizes above 0 m", _OTHER_MODEL)
    if ((class_ids[:images] < 0) | (class_ids[:images] >= classes))[real].any():
        raise UserError(
            "the network returned a class that it does not name",
            f"class_ids from 0 to {classes - 1}",
            "perception export CHECKPOINT",
        )


def read_outputs(
    outputs: Mapping[str, np.ndarray], index: int, placed: Letterbox, minimum_score: float = 0.0
) -> tuple[Detections, RoadMask | None]:
    """Read one image's outputs: detections in frame pixels, and the road mask.

    Args:
        outputs: named arrays of a batch as a backend returns them, see `ModelSpec`.
        index: which image of the batch.
        placed: how that image lies in the network's input.
        minimum_score: lower ones are left out; scores come sorted, so this is a cut.
    """
    scores = outputs["scores"][index]  # (K,), sorted, highest first
    count = (
        int(np.searchsorted(-scores, -minimum_score, side="right")) if minimum_score > 0 else int((scores > 0).sum())
    )
    depths = cuboids = None
    if "distances" in outputs:
        # the network sees a focal length `scale` times the camera's
        depths = outputs["distances"][index, :count] * np.array([placed.scale_xy[1], 1], np.float32)
    if "cuboids" in outputs:
        cuboids = outputs["cuboids"][index, :count].copy()
        cuboids[:, :2] = placed.points_to_frame(cuboids[:, :2])
    detections = Detections(
        boxes_xyxy=placed.boxes_to_frame(outputs["boxes_xyxy"][index, :count]),
        scores=scores[:count].astype(np.float32),
        class_ids=outputs["class_ids"][index, :count].astype(np.int64),
        depths=depths,
        cuboids=cuboids,
    )
    road = RoadMask(outputs["road"][index], placed) if "road" in outputs else None
    return detections, road
