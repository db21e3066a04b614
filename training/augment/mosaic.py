"""Mosaic (Bochkovskiy et al. 2020): one image of four frames, each at its own scale.

Data sets label different classes. A class counts as labelled in the mosaic if any of the four frames labels it, and
the other quarters become ignore regions of that class. Masks are 255 where a quarter has none. Unlabelled objects are
therefore never trained as background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from datasets.sample import ROAD_IGNORE, Sample
from training.example import TrainingImage
from training.models.heads.segmentation import STRIDE

_STEP = 32
"""The borders between quarters are multiples of the coarsest stride."""


class MakeImage(Protocol):
    """Makes an image of a size from a sample, with changes of geometry and without colour and weather."""

    def __call__(self, sample: Sample, size_hw: tuple[int, int]) -> TrainingImage: ...


def mosaic(
    samples: Sequence[Sample], size_hw: tuple[int, int], rng: np.random.Generator, make: MakeImage
) -> TrainingImage:
    """Combine four samples, clockwise from the top left, around a random point near the centre.

    Args:
        samples: four samples.
        size_hw: height and width of the mosaic.
        rng: random generator.
        make: makes an image of a given size from a sample.
    """
    if len(samples) != 4:
        raise ValueError(f"mosaic of {len(samples)} samples: expected 4")
    height, width = size_hw
    y, x = (_cut_at(side, rng) for side in size_hw)
    corners = ((0, 0, x, y), (x, 0, width, y), (x, y, width, height), (0, y, x, height))
    image = np.empty((height, width, 3), np.uint8)
    masks = np.full((3, height // STRIDE, width // STRIDE), ROAD_IGNORE, np.uint8)
    parts = []
    for sample, (left, top, right, bottom) in zip(samples, corners, strict=True):
        part = make(sample, (bottom - top, right - left))
        image[top:bottom, left:right] = part.image_bgr
        masks[:, top // STRIDE : bottom // STRIDE, left // STRIDE : right // STRIDE] = part.masks
        parts.append(part)
    labelled = tuple(any(part.labelled[c] for part in parts) for c in range(len(parts[0].labelled)))
    boxes, ignore, ignore_ids, cuboids = [], [], [], []
    for part, (left, top, right, bottom) in zip(parts, corners, strict=True):
        offset = np.array([left, top, left, top], np.float32)
        unlabelled = [c for c, some in enumerate(labelled) if some and not part.labelled[c]]
        boxes.append(part.boxes_xyxy + offset)
        cuboids.append(part.cuboids + np.array([left, top, 0, 0, 0, 0], np.float32))
        ignore += [part.ignore_xyxy + offset, np.array([[left, top, right, bottom]] * len(unlabelled), np.float32)]
        ignore_ids += [part.ignore_class_ids, np.array(unlabelled, np.int64)]
    return TrainingImage(
        image_bgr=image,
        boxes_xyxy=np.concatenate(boxes),
        class_ids=np.concatenate([part.class_ids for part in parts]),
        ignore_xyxy=np.concatenate([part.reshape(-1, 4) for part in ignore]),
        ignore_class_ids=np.concatenate(ignore_ids),
        labelled=labelled,
        masks=masks,
        depths=np.concatenate([part.depths for part in parts]),
        confidences=np.concatenate([part.confidences for part in parts]),
        cuboids=np.concatenate(cuboids),
    )


def _cut_at(side: int, rng: np.random.Generator) -> int:
    """Draw the border between quarters: from two to three fifths of a side, at least one cell from its ends."""
    cell = min(_STEP, max(STRIDE, side // 4 // STRIDE * STRIDE))
    return int(np.clip(round(side * rng.uniform(0.4, 0.6) / cell) * cell, cell, side - cell))
