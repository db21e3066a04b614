"""Pictures with a mask of class numbers beside them, laid out as `<split>/` and `<split>annot/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.sample import ROAD_IGNORE, Sample, find_image, image_stems, read_image, read_index_mask
from perception.errors import UserError
from perception.types import U8

VEHICLE, PERSON, RIDER = 1, 2, 3
"""Numbers in `Sample.semantic`; 0 is anything else."""


@dataclass(frozen=True)
class Legend:
    """What the numbers of a mask mean."""

    name: str
    """First part of `Sample.drive`; the rest is the image's name up to its underscore."""
    classes: frozenset[int]
    """Every legal number, void included."""
    road: int
    void: int
    semantic: dict[int, int] = field(default_factory=dict)
    """Number in the file → number in `Sample.semantic`."""

    def table(self, meaning: dict[int, int]) -> U8:
        """(256,) lookup: number in the file → its meaning, 0 for the rest, 255 for void."""
        table = np.zeros(256, np.uint8)
        for number, value in meaning.items():
            table[number] = value
        table[self.void] = ROAD_IGNORE
        return table


class IndexMasks:
    """One split of such a folder.

    Args:
        root: folder that holds `train/` and `trainannot/`.
        split: `train`, `val` or `test`.
        legend: what the numbers mean.

    Raises:
        UserError: no images in the split, or an image without a mask.
    """

    def __init__(self, root: Path, split: str, legend: Legend) -> None:
        self.images, self.masks = Path(root) / split, Path(root) / f"{split}annot"
        self.legend = legend
        self.names = image_stems(self.images)
        if not self.names:
            raise UserError(f"{self.images}: no images", f"pictures there and masks in {self.masks.name}/")
        if missing := [name for name in self.names if not self._mask_path(name).exists()]:
            raise UserError(
                f"{self._mask_path(missing[0])}: no such file ({len(missing)} masks are missing)",
                "a mask for every image",
                f"perception data check {root}",
            )

    def _mask_path(self, name: str) -> Path:
        return self.masks / f"{name}.png"

    def __len__(self) -> int:
        return len(self.names)

    def drive(self, i: int) -> str:
        """Recording of image `i`."""
        return f"{self.legend.name}_{self.names[i].split('_')[0]}"

    def _image_path(self, name: str) -> Path:
        return find_image(self.images, name) or self.images / f"{name}.png"

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from, where present; the picture first."""
        return [self._image_path(self.names[i]), self._mask_path(self.names[i])]

    def __getitem__(self, i: int) -> Sample:
        name = self.names[i]
        image = read_image(self._image_path(name))
        numbers = self.numbers(i, (image.shape[0], image.shape[1]))
        road, semantic = self.legend.table({self.legend.road: 1}), self.legend.table(self.legend.semantic)
        sample = Sample(image, name, self.drive(i), road=road[numbers], semantic=semantic[numbers])
        return self.sample(sample, numbers)

    def numbers(self, i: int, size_hw: tuple[int, int]) -> U8:
        """(H, W) class number of each pixel of picture `i`.

        Raises:
            UserError: unreadable, of another size, or a number that the set does not have.
        """
        name = self.names[i]
        numbers = read_index_mask(self._mask_path(name), size_hw)
        if unknown := set(np.unique(numbers).tolist()) - self.legend.classes:
            raise UserError(
                f"{self._mask_path(name)}: found class {min(unknown)}", f"one of {sorted(self.legend.classes)}"
            )
        return numbers

    def sample(self, sample: Sample, numbers: U8) -> Sample:
        """What a set makes of its (H, W) class numbers beyond masks: here nothing."""
        return sample
