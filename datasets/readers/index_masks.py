"""Images with a mask of class numbers beside them, laid out as `<split>/` and `<split>annot/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path

import cv2
import numpy as np

from datasets.catalogue import DataSet, Layout
from datasets.checks.findings import SetReport, list_images, read_images
from datasets.sample import ROAD_IGNORE, Sample, image_stems, read_index_mask
from perception.arrays import U8
from perception.errors import UserError
from perception.formats.images import find_image, read_image

SPLITS = ("train", "val", "test")
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
            raise UserError(f"{self.images}: no images", f"images there and masks in {self.masks.name}/")
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
        """Every file that sample `i` is read from, where present; the image first."""
        return [self._image_path(self.names[i]), self._mask_path(self.names[i])]

    def __getitem__(self, i: int) -> Sample:
        name = self.names[i]
        image = read_image(self._image_path(name))
        numbers = self.numbers(i, (image.shape[0], image.shape[1]))
        road, semantic = self.legend.table({self.legend.road: 1}), self.legend.table(self.legend.semantic)
        sample = Sample(image, name, self.drive(i), road=road[numbers], semantic=semantic[numbers])
        return self.sample(sample, numbers)

    def numbers(self, i: int, size_hw: tuple[int, int]) -> U8:
        """(H, W) class number of each pixel of image `i`.

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


def check_index_masks(root: Path, data_sets: Sequence[DataSet]) -> SetReport:
    """Check `train` with `trainannot`, `val` with `valannot`; the class numbers decide which data set it is."""
    legend, numbers = _legend(root, [data_set.spec for data_set in data_sets])
    report = SetReport(legend.name if legend else "masks", root)
    if legend is None:
        report.add("error", "masks of unknown classes", "trainannot", f"class numbers {sorted(numbers)}")
    names: dict[str, list[str]] = {}
    for split in SPLITS:
        images = list_images(report, root / split)
        masks = set(image_stems(root / f"{split}annot"))
        if not images and not masks:
            continue
        names[split] = images
        report.counts |= {f"{split} images": len(images), f"{split} masks": len(masks)}
        report.add_all("error", "image without mask", [root / split / n for n in images if n not in masks])
        report.add_all(
            "warning", "mask without image", [root / f"{split}annot" / n for n in sorted(masks - set(images))]
        )
        for name, image in read_images(report, root / split, images):
            if image is not None and name in masks:
                _check_mask(report, root / f"{split}annot" / f"{name}.png", image, legend)
        report.images_by_drive.update(name.split("_")[0] for name in images)
    report.counts["drives"] = len(report.images_by_drive)
    drives = {split: {name.split("_")[0] for name in images} for split, images in names.items()}
    for a, b in combinations(drives, 2):
        shared = [f"{a} and {b}: {drive}" for drive in sorted(drives[a] & drives[b])]
        report.add_all("warning", "splits share a drive", shared, "as published; do not choose a model by it")
    return report


def _legend(root: Path, legends: Sequence[Legend]) -> tuple[Legend | None, set[int]]:
    """Return the legend whose numbers fit the first masks; where several fit, the folder's name decides."""
    numbers: set[int] = set()
    for path in islice(sorted((root / "trainannot").glob("*.png")), 20):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if mask is not None and mask.ndim == 2:
            numbers |= set(np.unique(mask).tolist())
    fitting = [legend for legend in legends if numbers <= legend.classes]
    named = [legend for legend in fitting if legend.name in root.name.lower()]
    return next(iter(named or fitting), None), numbers


def _check_mask(report: SetReport, path: Path, image: U8, legend: Legend | None) -> None:
    try:
        mask = read_index_mask(path, (image.shape[0], image.shape[1]))
    except UserError as error:
        report.add("error", "bad mask", path, error.found.rsplit("/", 1)[-1])
        return
    if legend is None:
        return
    if unknown := sorted(set(np.unique(mask).tolist()) - legend.classes):
        report.add("error", "mask with unknown class numbers", path, ", ".join(map(str, unknown)))
        return
    if (mask == legend.void).all():
        report.add("warning", "mask without a judged pixel", path)
    report.add_road(legend.table({legend.road: 1})[mask])


LAYOUT = Layout(
    "masks",
    "train with trainannot (CamVid, IDD-Lite)",
    lambda folder: (folder / "train").is_dir() and (folder / "trainannot").is_dir(),
    check_index_masks,
)
