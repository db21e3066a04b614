"""Which pictures a run learns from and which it is judged by, and how they become batches.

Picture number n of a run is a function of the seed and n alone, so a resumed run sees what an unbroken one sees.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.camvid import CamVid
from datasets.idd_lite import IddLite
from datasets.kitti_object import KittiObject
from datasets.kitti_road import KittiRoad
from datasets.kitti_tracking import DRIVES, KittiTracking
from datasets.partial_boxes import KNOWN, PartialBoxes
from datasets.sample import Sample
from datasets.splits import read_drives, read_split
from perception.errors import UserError
from training.augment import TrainingPicture, training_picture
from training.config import TrainConfig
from training.models.heads.detection import DetectionTargets

log = logging.getLogger("training.data")

ROAD_FOLDS = 5
HELD_OUT_DRIVES = 5
"""Without a split file, one drive of so many is held out."""
CACHE_BYTES = 1_500_000_000
"""Decoded pictures that a loader process keeps: decoding costs more than a crop."""


class SampleSource(Protocol):
    """What the folder `datasets` offers."""

    @property
    def names(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Sample: ...


@dataclass(frozen=True)
class Subset:
    """Some samples of a set, by index."""

    name: str
    source: SampleSource
    indices: tuple[int, ...]
    weight: float
    """Share of training pictures relative to the other sets."""


@dataclass(frozen=True)
class TrainingSets:
    """What a folder holds, divided."""

    train: tuple[Subset, ...]
    objects: Subset | None
    """Held-out frames with boxes."""
    road: Subset | None
    """Held-out frames with road."""

    def data_hash(self) -> str:
        """Hash of the names of all training pictures."""
        digest = hashlib.sha256()
        for subset in self.train:
            digest.update(subset.name.encode())
            for i in subset.indices:
                digest.update(str(subset.source.names[i]).encode())
        return digest.hexdigest()[:16]


def find_sets(root: Path, road_fold: int) -> TrainingSets:
    """Look for known sets under a folder and divide them by drive.

    Raises:
        UserError: nothing to learn from, or a split that cuts through a drive.
    """
    train: list[Subset] = []
    objects = road = None
    object_root = _first(root, ("kitti/object", "object", "."), "training/image_2")
    held_out: set[str] = set()
    if object_root is not None and (object_root / "training/label_2").is_dir():
        objects, subset, held_out = _kitti_object(object_root)
        train.append(subset)
    for folder, weight in (
        ("kitti/tracking", 0.14),
        ("tracking", 0.14),
        (".", 0.14),
        ("kitti/tracking_640x192", 0.12),
    ):
        if (root / folder / "training/image_02").is_dir():
            tracking = KittiTracking(root / folder)
            drives = [DRIVES.get(name.split("/")[0]) for name in tracking.names]
            keep = tuple(i for i, drive in enumerate(drives) if drive not in held_out)
            train.append(Subset(folder, tracking, keep, weight))
    road_root = _first(root, ("kitti/road", "road", "."), "training/gt_image_2")
    if road_root is not None:
        kitti_road = KittiRoad(road_root)
        held = tuple(road_fold_indices(kitti_road.names, road_fold)) if road_fold >= 0 else ()
        rest = tuple(i for i in range(len(kitti_road)) if i not in set(held))
        train.append(Subset("kitti/road", kitti_road, rest, 0.12))
        road = Subset("kitti/road", kitti_road, held, 0.0) if held else None
    if (root / "camvid/train").is_dir():
        camvid = CamVid(root / "camvid", "train")
        train.append(Subset("camvid", camvid, tuple(range(len(camvid))), 0.10))
    if (root / "extra/idd_lite/train").is_dir():
        idd = IddLite(root / "extra/idd_lite", "train")
        train.append(Subset("idd_lite", idd, tuple(range(len(idd))), 0.10))
    for name, weight in (("dawn_fog", 0.12), ("citypersons_sample", 0.06), ("carla_danielhfnr", 0.04)):
        if (root / "extra" / name).is_dir():
            boxes = PartialBoxes(root / "extra" / name, KNOWN[name])
            train.append(Subset(name, boxes, tuple(range(len(boxes))), weight))
    train = [subset for subset in train if subset.indices]
    if not train:
        raise UserError(
            f"{root}: no labelled pictures found",
            "kitti/object/training/image_2 with label_2, kitti/road, camvid …, or --data.no-real for synthetic alone",
            f"perception data check {root}",
        )
    return TrainingSets(tuple(train), objects, road)


def _first(root: Path, folders: tuple[str, ...], inside: str) -> Path | None:
    return next((root / folder for folder in folders if (root / folder / inside).is_dir()), None)


def _kitti_object(root: Path) -> tuple[Subset | None, Subset, set[str]]:
    """Held-out subset, training subset, held-out drives."""
    everything = KittiObject(root)
    index = {name: i for i, name in enumerate(everything.names)}
    drives = read_drives(root)
    if (root / "ImageSets/val.txt").exists():
        names = {split: [n for n in read_split(root, split) if n in index] for split in ("train", "val")}
    elif drives:  # every fifth drive is held out
        held_drives = set(sorted(set(drives.values()))[::HELD_OUT_DRIVES])
        known = [n for n in everything.names if n in drives]
        names = {
            "train": [n for n in known if drives[n] not in held_drives],
            "val": [n for n in known if drives[n] in held_drives],
        }
    else:
        log.warning("%s: neither ImageSets/val.txt nor drives are known, so nothing is held out", root)
        return None, Subset("kitti/object", everything, tuple(range(len(everything))), 0.2), set()
    sides = {split: {drives[n] for n in members if n in drives} for split, members in names.items()}
    if both := sides["train"] & sides["val"]:
        raise UserError(
            f"{root}/ImageSets: train and val share the drive {sorted(both)[0]}",
            "every drive on one side only: neighbouring frames are near copies",
            "move all frames of a drive to one side",
        )
    held, train = (tuple(index[n] for n in names[split]) for split in ("val", "train"))
    return Subset("kitti/object", everything, held, 0.0), Subset("kitti/object", everything, train, 0.2), sides["val"]


def road_fold_indices(names: Sequence[str], fold: int) -> list[int]:
    """One of five contiguous parts of each road category: numbers that follow one another are near copies."""
    chosen: list[int] = []
    for category in ("um_", "umm_", "uu_"):
        members = [i for i, name in enumerate(names) if name.startswith(category)]
        chosen += [int(i) for i in np.array_split(np.array(members, int), ROAD_FOLDS)[fold]]
    return chosen


class PictureStream(Dataset):
    """Picture number n of a run, for any n."""

    def __init__(self, sets: TrainingSets | None, config: TrainConfig) -> None:
        self.sets, self.config = sets, config
        self._cache: dict[tuple[str, int], Sample] = {}
        self._cached_bytes = 0

    def __getitem__(self, n: int) -> TrainingPicture:
        cv2.setNumThreads(1)
        config = self.config
        rng = np.random.default_rng((config.seed, n))
        augment = config.augment
        if n >= (1 - augment.off_for_last) * config.steps * config.batch:
            augment = replace(augment, blur=0.0, noise=0.0, haze=0.0, colour=augment.colour / 2)
        if self.sets is None or rng.random() < config.data.synthetic_share:
            sample = _synthetic(int(rng.integers(2**31)))
        else:
            weights = np.array([subset.weight for subset in self.sets.train])
            subset = self.sets.train[rng.choice(len(weights), p=weights / weights.sum())]
            sample = self._read(subset, subset.indices[rng.integers(len(subset.indices))])
        return training_picture(sample, config.data.crop_hw, rng, augment)

    def _read(self, subset: Subset, i: int) -> Sample:
        key = (subset.name, i)
        if key in self._cache:
            return self._cache[key]
        sample = subset.source[i]
        if self._cached_bytes < CACHE_BYTES:
            self._cache[key] = sample
            self._cached_bytes += sample.image_bgr.nbytes
        return sample


def _synthetic(seed: int) -> Sample:
    from datasets.synthetic_street import street_sample

    return street_sample(seed)


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    images: Tensor
    """(B, h, w, 3) uint8 BGR."""
    targets: DetectionTargets
    masks: Tensor
    """(B, 3, h/4, w/4) uint8."""

    def to(self, device: torch.device) -> Batch:
        t = self.targets
        return Batch(
            self.images.to(device, non_blocking=True),
            DetectionTargets(
                t.boxes_xyxy.to(device),
                t.class_ids.to(device),
                t.ignore_xyxy.to(device),
                t.ignore_class_ids.to(device),
                t.labelled.to(device),
            ),
            self.masks.to(device, non_blocking=True),
        )


def collate(pictures: list[TrainingPicture]) -> Batch:
    """Pictures → batch; objects and ignore regions padded with class -1 and -2."""

    def pad(arrays: list[np.ndarray], fill: float) -> Tensor:
        longest = max(len(a) for a in arrays)
        out = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, arrays[0].dtype)
        for row, a in zip(out, arrays, strict=True):
            row[: len(a)] = a
        return torch.from_numpy(out)

    return Batch(
        images=torch.from_numpy(np.stack([p.image_bgr for p in pictures])),
        targets=DetectionTargets(
            boxes_xyxy=pad([p.boxes_xyxy for p in pictures], 0.0),
            class_ids=pad([p.class_ids for p in pictures], -1),
            ignore_xyxy=pad([p.ignore_xyxy for p in pictures], 0.0),
            ignore_class_ids=pad([p.ignore_class_ids for p in pictures], -2),
            labelled=torch.tensor([p.labelled for p in pictures]),
        ),
        masks=torch.from_numpy(np.stack([p.masks for p in pictures])),
    )


def batches(sets: TrainingSets | None, config: TrainConfig, first_step: int) -> Iterator[Batch]:
    """Batches of the steps from `first_step` to the end."""
    numbers = range(first_step * config.batch, config.steps * config.batch)
    arguments: dict[str, Any] = {}
    if config.data.workers:
        arguments = {"persistent_workers": True, "prefetch_factor": 4, "worker_init_fn": _one_thread}
    loader = DataLoader(
        PictureStream(sets, config),
        batch_size=config.batch,
        sampler=numbers,
        num_workers=config.data.workers,
        collate_fn=collate,
        **arguments,
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
