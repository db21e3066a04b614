"""Which pictures a run learns from and which it is judged by. Neighbouring frames of a drive never part."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.camvid import CamVid
from datasets.clips import CLIPS, Clips
from datasets.idd_lite import IddLite
from datasets.kitti_object import KittiObject
from datasets.kitti_road import CATEGORIES, KittiRoad
from datasets.kitti_tracking import DRIVES, KittiTracking
from datasets.partial_boxes import KNOWN, PartialBoxes
from datasets.splits import read_drives, read_split
from perception.errors import UserError
from training.cache import CachedSource, SampleSource
from training.config import ROAD_FIFTHS, DataConfig

log = logging.getLogger("training.sets")

HELD_OUT_DRIVES = 5
"""Without a split file, one drive of so many is held out."""
ROAD = "kitti/road"
WEIGHTS = {
    "kitti/object": (0.2, 53),
    "kitti/tracking": (0.14, 188),
    "kitti/tracking_640x192": (0.12, 268),
    ROAD: (0.12, 26),
    "camvid": (0.16, 367),
    "idd_lite": (0.1, 702),
    "dawn_fog": (0.13, 234),
    "citypersons_sample": (0.1, 135),
    "carla_danielhfnr": (0.04, 257),
    "videos": (0.1, 18),
}
"""Weight of each set among the pictures that are shown, and for how many pictures it was chosen."""


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
        """Hash of what is learnt from and what is held out: names and sizes of all files, and every label's text."""
        digest = hashlib.sha256()
        for subset in self._all():
            digest.update(subset.name.encode())
            texts: set[Path] = set()  # a tracking sequence has one label file for many frames
            for i in subset.indices:
                digest.update(b"\0" + str(subset.source.names[i]).encode())
                for path in subset.source.files(i):
                    if not path.is_file():
                        continue
                    digest.update(str(path.stat().st_size).encode())
                    if path.suffix in (".txt", ".json") and path not in texts:
                        digest.update(path.read_bytes())
                        texts.add(path)
        return digest.hexdigest()[:16]

    def cached(self, folder: Path, width: int, limit_bytes: int) -> TrainingSets:
        """The same, learning from copies in a folder. What is held out is always read whole."""
        train = (replace(s, source=CachedSource(s.source, folder, width, limit_bytes)) for s in self.train)
        return replace(self, train=tuple(train))

    def told(self) -> str:
        """One line for whoever started the run: what it learns from, and what it is judged by."""
        learnt = ", ".join(f"{subset.name} {len(subset.indices)}" for subset in self.train)
        held_out = ((self.objects, "frames with boxes"), (self.road, "frames with road"))
        held = " and ".join(f"{len(s.indices)} {what}" for s, what in held_out if s is not None)
        return f"learns from {learnt}; judged by {held or 'nothing, for nothing is held out'}"

    def _all(self) -> Iterator[Subset]:
        yield from self.train
        yield from (subset for subset in (self.objects, self.road) if subset is not None)


def find_sets(data: DataConfig) -> TrainingSets:
    """Look for known sets under a folder and divide them by drive.

    Raises:
        UserError: nothing to learn from, or a split that cuts through a drive.
    """
    root = data.root
    train: list[Subset] = []
    objects = road = None
    object_root = _first(root, ("kitti/object", "object", "."), "training/image_2")
    held_out: set[str] = set()
    if object_root is not None and (object_root / "training/label_2").is_dir():
        objects, subset, held_out = _kitti_object(object_root, data)
        train.append(subset)
    for folder in ("kitti/tracking", "tracking", ".", "kitti/tracking_640x192"):
        if (root / folder / "training/image_02").is_dir():
            tracking = KittiTracking(root / folder)
            drives = [DRIVES.get(name.split("/")[0]) for name in tracking.names]
            if objects is not None and not held_out:
                log.warning(
                    "%s: the drives of the held-out object frames are not known (no drives.json, no mapping/ of the "
                    "object kit), so these frames may be neighbours of theirs and flatter the scores",
                    root / folder,
                )
            keep = tuple(i for i, drive in enumerate(drives) if drive not in held_out)
            known = folder if folder in WEIGHTS else "kitti/tracking"
            train.append(Subset(folder, tracking, keep, _weight(known, len(keep))))
    road_root = _first(root, ("kitti/road", "road", "data_road", "."), "training/gt_image_2")
    if road_root is not None:
        kitti_road = KittiRoad(road_root, drawn=data.hand_labels)
        fold, folds = (data.fold, data.folds) if data.fold >= 0 else (data.road_fold, ROAD_FIFTHS)
        held = tuple(road_fold_indices(kitti_road.names, fold, folds)) if fold >= 0 else ()
        rest = tuple(i for i in range(len(kitti_road)) if i not in set(held))
        train.append(Subset(ROAD, kitti_road, rest, _weight(ROAD, len(rest))))
        road = Subset(ROAD, kitti_road, held, 0.0) if held else None
    if (root / "camvid/train").is_dir():
        camvid = CamVid(root / "camvid", "train", data.mask_boxes, data.self_labels)
        train.append(Subset("camvid", camvid, tuple(range(len(camvid))), _weight("camvid", len(camvid))))
    if (root / "extra/idd_lite/train").is_dir():
        idd = IddLite(root / "extra/idd_lite", "train", data.mask_boxes)
        train.append(Subset("idd_lite", idd, tuple(range(len(idd))), _weight("idd_lite", len(idd))))
    for name in ("dawn_fog", "citypersons_sample", "carla_danielhfnr"):
        if (root / "extra" / name).is_dir():
            boxes = PartialBoxes(root / "extra" / name, KNOWN[name])
            train.append(Subset(name, boxes, tuple(range(len(boxes))), _weight(name, len(boxes))))
    if data.hand_labels and any((root / "videos" / clip).is_file() for clip in CLIPS):
        clips = Clips(root / "videos")
        train.append(Subset("videos", clips, tuple(range(len(clips))), _weight("videos", len(clips))))
    train = [subset for subset in train if subset.indices]
    if not train:
        raise UserError(
            f"{root}: no labelled pictures found",
            "kitti/object/training/image_2 with label_2, kitti/road, camvid …, or --data.no-real for synthetic alone",
            f"perception data check {root}",
        )
    return TrainingSets(_with_road_share(train, data.road_share), objects, road)


def _weight(name: str, pictures: int) -> float:
    """A set's weight; one of more than twice the pictures it was chosen for counts with the root of their number."""
    weight, chosen_for = WEIGHTS[name]
    return weight * max(1.0, math.sqrt(pictures / (2 * chosen_for)))


def _with_road_share(train: Sequence[Subset], share: float) -> tuple[Subset, ...]:
    """The sets with the road frames' weight such that they are that share of all; 0 leaves it."""
    rest = sum(subset.weight for subset in train if subset.name != ROAD)
    if not share or not rest:
        return tuple(train)
    return tuple(replace(s, weight=share / (1 - share) * rest) if s.name == ROAD else s for s in train)


def _first(root: Path, folders: tuple[str, ...], inside: str) -> Path | None:
    return next((root / folder for folder in folders if (root / folder / inside).is_dir()), None)


def _kitti_object(root: Path, data: DataConfig) -> tuple[Subset | None, Subset, set[str]]:
    """Held-out subset, training subset, held-out drives."""
    everything = KittiObject(root)
    index = {name: i for i, name in enumerate(everything.names)}
    drives = read_drives(root)
    if data.fold >= 0:
        held_drives = set(drive_folds(root, everything.names, drives, data.folds)[data.fold])
        names = _by_drive(everything.names, drives, held_drives)
    elif (root / "ImageSets/val.txt").exists():
        names = _by_split(root, index)
    elif drives:  # every fifth drive is held out
        known = [n for n in everything.names if n in drives]
        names = _by_drive(known, drives, set(sorted(set(drives.values()))[::HELD_OUT_DRIVES]))
    else:
        log.warning("%s: neither ImageSets/val.txt nor drives are known, so nothing is held out", root)
        weight = _weight("kitti/object", len(everything))
        return None, Subset("kitti/object", everything, tuple(range(len(everything))), weight), set()
    sides = {split: {drives[n] for n in members if n in drives} for split, members in names.items()}
    if both := sides["train"] & sides["val"]:
        raise UserError(
            f"{root}/ImageSets: train and val share the drive {sorted(both)[0]}",
            "every drive on one side only: neighbouring frames are near copies",
            "move all frames of a drive to one side",
        )
    held, train = (tuple(index[n] for n in names[split]) for split in ("val", "train"))
    objects = Subset("kitti/object", everything, held, 0.0) if held else None
    return objects, Subset("kitti/object", everything, train, _weight("kitti/object", len(train))), sides["val"]


def _by_split(root: Path, known: Collection[str]) -> dict[str, list[str]]:
    """Of `ImageSets/`, the frames that are there: there may be fewer than it names."""
    names = {split: read_split(root, split) for split in ("train", "val")}
    if both := set(names["train"]) & set(names["val"]):
        raise UserError(
            f"{root}/ImageSets: frame {min(both)} stands in train and in val ({len(both)} do)",
            "every frame on one side only",
        )
    for split, members in names.items():
        if not any(name in known for name in members):
            log.warning(
                "%s/ImageSets/%s.txt: of its %d frames none has picture and label here (there are %d, as %s), so %s",
                root,
                split,
                len(members),
                len(known),
                min(known),
                "nothing is held out" if split == "val" else "none is learnt from",
            )
    return {split: [name for name in members if name in known] for split, members in names.items()}


def _by_drive(names: Sequence[str], drives: dict[str, str], held: set[str]) -> dict[str, list[str]]:
    return {
        "train": [n for n in names if drives[n] not in held],
        "val": [n for n in names if drives[n] in held],
    }


def drive_folds(root: Path, names: Sequence[str], drives: dict[str, str], folds: int) -> list[list[str]]:
    """Drives divided into parts of about as many frames: the largest first, each to the part that has the fewest.

    Raises:
        UserError: a frame of an unknown drive, or fewer drives than parts.
    """
    if unknown := [name for name in names if name not in drives]:
        raise UserError(
            f"{root}: the drive of {len(unknown)} frames is not known, the first is {unknown[0]}",
            "drives.json, or the object kit's mapping/ with train_mapping.txt and train_rand.txt",
            "unpack KITTI's devkit_object.zip beside training/",
        )
    sizes = {drive: sum(drives[n] == drive for n in names) for drive in sorted({drives[n] for n in names})}
    if len(sizes) < folds:
        raise UserError(f"{root}: {len(sizes)} drives", f"at least {folds}, one a fold", f"--folds {len(sizes)}")
    parts: list[list[str]] = [[] for _ in range(folds)]
    for drive in sorted(sizes, key=lambda d: (-sizes[d], d)):
        min(parts, key=lambda part: sum(sizes[d] for d in part)).append(drive)
    return parts


def road_fold_indices(names: Sequence[str], fold: int, folds: int = ROAD_FIFTHS) -> list[int]:
    """One of some contiguous parts of each road category: numbers that follow one another are near copies."""
    chosen: list[int] = []
    for category in CATEGORIES:
        members = [i for i, name in enumerate(names) if name.startswith(category + "_")]
        chosen += [int(i) for i in np.array_split(np.array(members, int), folds)[fold]]
    return chosen
