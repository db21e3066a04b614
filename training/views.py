"""Two random views of each unlabelled frame, with the place of every feature cell in the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from perception.arrays import F32, U8
from perception.errors import UserError
from perception.formats.images import read_image
from training.augment.pipeline import vary
from training.config import AugmentConfig

STRIDE = 16
"""Stride of the feature cells."""
NEIGHBOURS = 20
"""Frames after an unreadable one that are tried in its place."""
CACHE_BYTES = 800_000_000
"""Memory for decoded frames in each loader process."""
LARGEST_WIDTH = 1280
"""Wider frames are reduced to this width, pixels."""
CHANGES = replace(AugmentConfig(), colour=0.8, exposure=0.5, blur=0.3, noise=0.3, haze=0.1, rain=0.0, night=0.1)
"""Changes of light and colour that the features must ignore."""


@dataclass(frozen=True)
class ViewBatch:
    """Two views of B frames."""

    images: tuple[Tensor, Tensor]
    """(B, h, w, 3) uint8 BGR each."""
    places: tuple[Tensor, Tensor]
    """(B, h/16, w/16, 2) each: x and y of the cell in the frame, over the frame's width."""
    broken: tuple[str, ...]
    """Errors of the frames that could not be read."""


class Views(Dataset):
    """Map-style dataset that returns the views number n of a run, which depend on the seed and n alone.

    Args:
        frames: image files.
        crop_hw: height and width of a view, pixels.
        area: least and largest share of the frame that a view shows.
        seed: random seed.
    """

    def __init__(
        self, frames: Sequence[Path], crop_hw: tuple[int, int], area: tuple[float, float], seed: int
    ) -> None:
        self.frames, self.crop_hw, self.area, self.seed = frames, crop_hw, area, seed
        self._cache: dict[int, U8] = {}
        self._bytes = 0

    def __getitem__(self, n: int) -> tuple[list[U8], list[F32], list[str]]:
        cv2.setNumThreads(1)
        rng = np.random.default_rng((self.seed, n))
        broken: list[str] = []
        frame = self._frame(int(rng.integers(len(self.frames))), broken)
        views = [view(frame, self.crop_hw, self.area, rng) for _ in range(2)]
        return [image for image, _ in views], [places for _, places in views], broken

    def _frame(self, first: int, broken: list[str]) -> U8:
        """Return a frame, or the next readable one.

        Raises:
            UserError: `NEIGHBOURS` frames in a row are unreadable.
        """
        for step in range(min(NEIGHBOURS, len(self.frames))):
            i = (first + step) % len(self.frames)
            if i in self._cache:
                return self._cache[i]
            try:
                image = read_image(self.frames[i])
            except UserError as error:
                broken.append(error.found)
                continue
            if image.shape[1] > LARGEST_WIDTH:
                scale = LARGEST_WIDTH / image.shape[1]
                image = np.asarray(
                    cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
                )
            if self._bytes < CACHE_BYTES:
                self._cache[i] = image
                self._bytes += image.nbytes
            return image
        raise UserError(f"{len(broken)} unreadable frames in a row ({broken[0]})", "readable images")


def view(frame: U8, size_hw: tuple[int, int], area: tuple[float, float], rng: np.random.Generator) -> tuple[U8, F32]:
    """Cut a random part out of a frame, resize, mirror and recolour it.

    Returns:
        The image (h, w, 3), and the place of each feature cell (h/16, w/16, 2): x and y in the frame over its width.
    """
    height, width = frame.shape[:2]
    aspect = size_hw[1] / size_hw[0] * math.exp(rng.uniform(-0.2, 0.2))
    share = math.exp(rng.uniform(math.log(area[0]), math.log(area[1])))
    wide = min(width, max(8, round(math.sqrt(share * height * width * aspect))))
    high = min(height, max(8, round(wide / aspect)))
    left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
    part = frame[top : top + high, left : left + wide]
    shrinks = part.shape[0] > size_hw[0]
    image = cv2.resize(part, size_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    rows, columns = size_hw[0] // STRIDE, size_hw[1] // STRIDE
    x = (left + (np.arange(columns) + 0.5) * wide / columns) / width
    y = (top + (np.arange(rows) + 0.5) * high / rows) / width
    if rng.random() < 0.5:
        image, x = image[:, ::-1], x[::-1]
    places = np.stack(np.meshgrid(x, y), -1).astype(np.float32)  # (rows, columns, 2)
    return vary(np.ascontiguousarray(image, np.uint8), rng, CHANGES), places


def collate(items: list[tuple[list[U8], list[F32], list[str]]]) -> ViewBatch:
    """Stack the views of a batch."""

    def stacked(part: int, k: int) -> Tensor:
        return torch.from_numpy(np.stack([item[part][k] for item in items]))  # type: ignore[arg-type]

    return ViewBatch(
        images=(stacked(0, 0), stacked(0, 1)),
        places=(stacked(1, 0), stacked(1, 1)),
        broken=tuple(dict.fromkeys(text for item in items for text in item[2])),
    )
