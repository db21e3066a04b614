"""Frames for verification, calibration and benchmarks: KITTI folders, any images, or the synthetic street."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np

from datasets.catalogue import divide, open_sets
from datasets.kitti_object import KittiObject
from datasets.kitti_road import KittiRoad, ground_truth_name
from datasets.kitti_tracking import KittiTracking
from datasets.sample import ROAD_IGNORE, Sample
from datasets.splits import HeldOut, Holdout, common
from datasets.synthetic_street import street_sample
from perception.arrays import U8
from perception.errors import UserError
from perception.formats.images import read_image
from perception.formats.kitti import ObjectRows
from perception.sources.images import list_images
from perception.types import CLASS_NAMES
from training.checkpoint import holdout_of, holdout_options_of, load_checkpoint

_NEIGHBOURS = {CLASS_NAMES.index("Car"): "Van", CLASS_NAMES.index("Pedestrian"): "Person_sitting"}
STREET_SEED = 1_000_003
"""First seed of the synthetic frames, far from the seeds of a training run."""


@dataclass(frozen=True, eq=False)
class TestFrame:
    """One image, with ground truth where it exists."""

    __test__ = False  # pytest: not a test

    name: str
    image_bgr: U8
    """(H, W, 3) uint8."""
    objects: ObjectRows | None = None
    """Label rows, including DontCare; None where objects are not labelled."""
    road: U8 | None = None
    """(H, W) 1 road, 0 other, 255 ignored; None where road is not labelled."""


class Frames(Protocol):
    """Frames that are read on each iteration. They can be iterated several times."""

    @property
    def source(self) -> str: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[TestFrame]: ...


Split = Literal["held-out", "seen", "all"]
"""Frames that are held out from training, frames of the training set, or both."""


class StreetFrames:
    """Independent scenes of the synthetic street, rendered once."""

    source = "synthetic street"

    def __init__(self, count: int, size_hw: tuple[int, int], seed: int = STREET_SEED) -> None:
        self.count, self.size_hw, self.seed = count, size_hw, seed
        self._drawn: list[TestFrame] = []

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[TestFrame]:
        for i in range(self.count):
            if i == len(self._drawn):
                sample = street_sample(self.seed + i, self.size_hw)
                self._drawn.append(TestFrame(sample.name, sample.image_bgr, label_rows(sample), sample.road))
            yield self._drawn[i]


class ImageFrames:
    """Images without labels."""

    def __init__(self, paths: Sequence[Path], source: str) -> None:
        self.paths, self.source = list(paths), source

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[TestFrame]:
        for path in self.paths:
            yield TestFrame(path.stem, read_image(path))


KittiSet = KittiObject | KittiRoad | KittiTracking
KITTI = ("kitti/object", "kitti/tracking", "kitti/road")
"""Data sets whose frames are used."""


class KittiFrames:
    """Selected frames of KITTI's object, road and tracking sets, by (set, index)."""

    def __init__(self, chosen: Sequence[tuple[KittiSet, int]], source: str) -> None:
        self.chosen, self.source = list(chosen), source

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[TestFrame]:
        for dataset, i in self.chosen:
            sample, objects = dataset[i], None
            if isinstance(dataset, KittiObject):
                # the evaluator needs occlusion and truncation as labelled
                objects = dataset.rows(dataset.names[i])
            elif isinstance(dataset, KittiTracking):
                objects = label_rows(sample)
            name = ground_truth_name(sample.name) if isinstance(dataset, KittiRoad) else sample.name
            yield TestFrame(name, sample.image_bgr, objects, sample.road)


def label_rows(sample: Sample) -> ObjectRows | None:
    """Convert a sample's boxes to KITTI label rows, and its ignore regions to DontCare or neighbouring classes."""
    if sample.boxes_xyxy is None or sample.class_ids is None:
        return None
    names, boxes = [sample.class_names[i] for i in sample.class_ids], [sample.boxes_xyxy]
    if sample.ignore_boxes_xyxy is not None and sample.ignore_class_ids is not None:
        names += [_NEIGHBOURS.get(int(i), "DontCare") for i in sample.ignore_class_ids]
        boxes.append(sample.ignore_boxes_xyxy)
    zeros = np.zeros(len(names))
    return ObjectRows.from_boxes(names, np.concatenate(boxes), truncation=zeros, occlusion=zeros.astype(np.int64))


def open_frames(
    data: Path | None,
    count: int,
    split: Split = "held-out",
    without: Frames | None = None,
    street_hw: tuple[int, int] = (375, 1242),
    holdout: Holdout | None = None,
    data_option: str = "--data",
    count_option: str = "--frames",
) -> Frames:
    """Open frames of a folder, evenly spread over it.

    Args:
        data: folder that holds `kitti/object`, `kitti/tracking` or `kitti/road`, or one of these folders, or any
            folder of images (else its first subfolder with images); None: the synthetic street.
        count: number of frames, per kind of label where the folder has several.
        split: `held-out` selects held-out frames, `seen` selects training frames, `all` selects both. Where a set has
            no held-out frames, its second half counts as held out.
        without: frames that are excluded.
        street_hw: size of the synthetic frames.
        holdout: frames that the run held out (`holdout_for`); None: derived from the data, as in training.
        data_option, count_option: names of the options for `data` and `count`, for messages.

    Raises:
        UserError: the folder is missing or has no images.
    """
    if count < 1:
        raise UserError(f"{count_option} {count}", "at least one frame", f"{count_option} 12")
    if data is None:
        return StreetFrames(count, street_hw, STREET_SEED + (100_000 if split == "seen" else 0))
    if not data.is_dir():
        found = "a file" if data.exists() else "no such folder"
        raise UserError(
            f"{data_option} {data}: {found}", "a folder of images or a KITTI data set", f"omit {data_option}"
        )
    taken = {(item[0].root, item[1]) for item in without.chosen} if isinstance(without, KittiFrames) else set()
    chosen: list[tuple[KittiSet, int]] = []
    rules: list[str] = []
    opened = open_sets(data, only=KITTI)
    holdout = holdout or divide(opened)[1]
    for name, source in ((one.data_set.name, cast(KittiSet, one.source)) for one in opened):
        named = set(holdout.indices(name, source.names))
        held = named or _second_half(len(source))
        free = [i for i in range(len(source)) if _belongs(i in held, split) and (source.root, i) not in taken]
        chosen += [(source, free[i]) for i in _spread(len(free), count)]
        rules.append(
            f"{name}: {holdout.sets[name].rule if named else 'its second half, because nothing is held out'}"
        )
    if chosen:
        return KittiFrames(chosen, str(data) if split == "all" else f"{data}; held out of {', '.join(rules)}")
    images = list_images(data) or [
        p for folder in sorted(data.rglob("*")) if folder.is_dir() for p in list_images(folder)
    ]
    if not images:
        raise UserError(
            f"{data_option} {data}: no images",
            "PNG or JPEG files, or KITTI's training/image_2",
            f"omit {data_option}",
        )
    return _image_frames(images, count, split, without, str(data))


def _image_frames(
    images: Sequence[Path], count: int, split: Split, without: Frames | None, source: str
) -> ImageFrames:
    """Select images of a split, evenly spread over the folder."""
    held, known = _second_half(len(images)), set(without.paths) if isinstance(without, ImageFrames) else set()
    # a single image belongs to every split
    chosen = [p for i, p in enumerate(images) if _belongs(i in held, split) and p not in known] or images
    return ImageFrames([chosen[i] for i in _spread(len(chosen), count)], source)


def holdout_for(data: Path | None, *models: Path) -> Holdout:
    """Return the frames of a folder that none of the models was trained on.

    A checkpoint stores the names of its held-out frames. For a model file, or a checkpoint without names, they are
    derived from the data as in training, and the rule says so.

    Args:
        data: folder; None: the synthetic street.
        models: checkpoints and model files.

    Raises:
        UserError: a checkpoint cannot be read, or the split divides a drive.
    """
    if data is None or not data.is_dir():
        return Holdout()
    opened, holdouts = open_sets(data, only=KITTI), []
    for model in models:
        state = load_checkpoint(model) if model.suffix == ".pt" else {}
        stored = holdout_of(state) or Holdout()
        derived = divide(opened, holdout_options_of(state), stored)[1]
        source = {name: "stored in" if name in stored.sets else "derived for" for name in derived.sets}
        sets = {n: HeldOut(held.names, f"{held.rule}, {source[n]} {model.name}") for n, held in derived.sets.items()}
        holdouts.append(Holdout(sets))
    return common(holdouts)


def _belongs(held_out: bool, split: Split) -> bool:
    return split == "all" or held_out == (split == "held-out")


def _second_half(total: int) -> set[int]:
    """Return the indices of the second half. Neighbouring frames are near copies, so a random half would leak."""
    return set(range(total // 2, total))


def _spread(total: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices, including the first and the last."""
    return sorted({int(i) for i in np.linspace(0, max(0, total - 1), min(count, total)).round()})


def road_judged(road: U8) -> np.ndarray:
    """Return where the ground truth counts (H, W) bool."""
    return road != ROAD_IGNORE
