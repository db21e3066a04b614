"""Division of frames into training and held-out frames, by recording (drive).

Neighbouring frames are near copies, so a split that divides a drive measures memorisation. `Holdout` records all
frames that a run does not train on. `datasets.catalogue.divide` computes it, the checkpoint stores it, and training,
export and tools read it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perception.errors import UserError
from perception.files import read_json, read_text

log = logging.getLogger("datasets.splits")

HELD_OUT_DRIVES = 5
"""Without split files, every n-th drive is held out."""
ROAD_PARTS = 5
"""Parts of the KITTI road frames. A run without folds holds out one part."""
_MAPPING_FOLDERS = ("devkit/mapping", "mapping", "devkit_object/mapping")


def split_path(root: Path, split: str | Path) -> Path:
    """Return the path of a split: `train` is `<root>/ImageSets/train.txt`, a path that ends in .txt is itself."""
    path = Path(split)
    return path if path.suffix == ".txt" else root / "ImageSets" / f"{split}.txt"


def read_split(root: Path, split: str | Path) -> list[str]:
    """Read the frame names of a split file, one per line.

    Raises:
        UserError: the file is missing or empty, or holds a name twice.
    """
    path = split_path(root, split)
    if not path.exists():
        known = sorted(p.stem for p in (root / "ImageSets").glob("*.txt"))
        raise UserError(f"{path}: no such split file", f"one of {', '.join(known) or 'none: there is no ImageSets'}")
    names = read_text(path).split()
    if not names:
        raise UserError(f"{path}: is empty", "one frame name per line")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UserError(f"{path}: {twice} appears twice", "every frame once")
    return names


def read_drives(root: Path) -> dict[str, str]:
    """Return the drive of each object frame, from `drives.json` or the object kit's `mapping` folder; else empty.

    Raises:
        UserError: one of these files is invalid.
    """
    if (root / "drives.json").exists():
        return _drives_of_json(root / "drives.json")
    for folder in _MAPPING_FOLDERS:
        if (root / folder / "train_rand.txt").exists():
            return _drives_of_kit(root / folder)
    return {}


def _drives_of_json(path: Path) -> dict[str, str]:
    example = '{"000002": "2011_09_26_drive_0086"}'
    drives = read_json(path, f"JSON such as {example}")
    if not isinstance(drives, dict) or not all(isinstance(drive, str) for drive in drives.values()):
        raise UserError(f"{path}: is not a map from frame to drive", example)
    return drives


def _drives_of_kit(folder: Path) -> dict[str, str]:
    """Read the drives from KITTI's object development kit.

    Its readme: the i-th number of train_rand.txt is the line (from 1) of train_mapping.txt for frame i.
    """
    lines = read_text(folder / "train_mapping.txt").splitlines()
    drives = {}
    for i, number in enumerate(read_text(folder / "train_rand.txt").replace(",", " ").split()):
        line = int(number) if number.isdecimal() else 0
        fields = lines[line - 1].split() if 1 <= line <= len(lines) else []
        if len(fields) != 3:
            raise UserError(
                f"{folder}: entry {i + 1} of train_rand.txt is {number!r}",
                f"a line from 1 to {len(lines)} of train_mapping.txt: date, drive and frame",
            )
        drives[f"{i:06d}"] = fields[1].removesuffix("_sync")
    return drives


@dataclass(frozen=True)
class HoldoutOptions:
    """Selection of the held-out data."""

    fold: int = -1
    """Held-out fold of a cross-validation, for drives and road frames; -1: `ImageSets/` or every fifth drive."""
    folds: int = 5
    """Number of folds of the cross-validation."""
    road_fold: int = 0
    """Held-out fifth of the road frames without cross-validation; -1: none."""


@dataclass(frozen=True)
class Division:
    """Division of the frames of one data set. Frames on neither side are not used."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    rule: str
    """Description of the rule that selects the held-out frames."""
    drives: frozenset[str] | None = frozenset()
    """Recordings that other sets must hold out too; None where those of the held-out frames are unknown."""


def without(names: Sequence[str], held_out: Callable[[str], bool], rule: str) -> Division:
    """Divide the frames of a set by name."""
    held = tuple(name for name in names if held_out(name))
    return Division(tuple(name for name in names if not held_out(name)), held, rule)


@dataclass(frozen=True)
class HeldOut:
    """Held-out frames of one data set."""

    names: frozenset[str]
    rule: str
    """Description of the rule that selects them."""


@dataclass(frozen=True)
class Holdout:
    """Frames that a run does not train on, by data set. A set without an entry was not part of the run."""

    sets: Mapping[str, HeldOut] = field(default_factory=dict)

    def indices(self, name: str, frames: Sequence[str]) -> tuple[int, ...]:
        """Return the indices of a set's held-out frames in `frames`."""
        held = self.sets[name].names if name in self.sets else frozenset[str]()
        return tuple(i for i, frame in enumerate(frames) if frame in held)

    def to_json(self) -> str:
        """Return the hold-out as JSON, for a checkpoint."""
        sets = {name: {"rule": held.rule, "names": sorted(held.names)} for name, held in self.sets.items()}
        return json.dumps(sets)

    @classmethod
    def from_json(cls, text: str) -> Holdout:
        """Read the hold-out of a checkpoint.

        Raises:
            ValueError: the text has another form.
        """
        try:
            found: Any = json.loads(text)
            return cls({name: HeldOut(frozenset(held["names"]), str(held["rule"])) for name, held in found.items()})
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"no hold-out: {error}") from None

    def __str__(self) -> str:
        """Return one line: each set with its number of held-out frames and the rule."""
        return ", ".join(f"{name} {len(held.names)} ({held.rule})" for name, held in self.sets.items()) or "nothing"


def common(holdouts: Iterable[Holdout]) -> Holdout:
    """Return the frames that all of several runs held out."""
    first, *rest = holdouts
    sets = dict(first.sets)
    for other in rest:
        for name in sets.keys() | other.sets.keys():
            if name in sets and name in other.sets:
                mine, theirs = sets[name], other.sets[name]
                rule = mine.rule if mine.rule == theirs.rule else f"{mine.rule}; {theirs.rule}"
                sets[name] = HeldOut(mine.names & theirs.names, rule)
            elif name in other.sets:
                sets[name] = other.sets[name]
    return Holdout(sets)


def divide_by_drive(root: Path, names: Sequence[str], drives: Mapping[str, str], options: HoldoutOptions) -> Division:
    """Divide the object frames of a folder: by fold, else by `ImageSets/`, else every fifth drive.

    Args:
        root: folder that may hold `ImageSets/`.
        names: available frames.
        drives: recording of each frame, where known.
        options: selection of the held-out data.

    Raises:
        UserError: a frame or a drive is on both sides, or folds need drives that are unknown.
    """
    if options.fold >= 0:
        held = set(drive_folds(root, names, drives, options.folds)[options.fold])
        train, held_out = _by_drive(names, drives, held)
        rule = f"drives of fold {options.fold} of {options.folds}"
    elif (root / "ImageSets/val.txt").exists():
        train, held_out = _by_split(root, names)
        rule = "ImageSets/val.txt"
    else:
        rule, usable = "", tuple(names)
        if (root / "ImageSets/train.txt").exists():  # frames that it does not list are not trained on
            (usable,) = _listed(root, names, ("train",))
            rule = " of ImageSets/train.txt"
        known = [name for name in usable if name in drives]
        if known:
            held = set(sorted({drives[name] for name in known})[::HELD_OUT_DRIVES])
            train, held_out = _by_drive(known, drives, held)
            rule = "every fifth drive" + rule
        else:
            log.warning("%s: neither ImageSets/val.txt nor drives are known, so nothing is held out", root)
            train, held_out, rule = usable, (), "no ImageSets/val.txt, no known drives"
    sides = [{drives[name] for name in side if name in drives} for side in (train, held_out)]
    if both := sides[0] & sides[1]:
        raise UserError(
            f"{root}/ImageSets: train and val share the drive {min(both)}",
            "every drive on one side only, because neighbouring frames are near copies",
            "move all frames of a drive to one side",
        )
    return Division(train, held_out, rule, frozenset(sides[1]) or (None if held_out else frozenset()))


def _by_drive(
    names: Sequence[str], drives: Mapping[str, str], held: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return training and held-out frames, by held-out drives."""
    return (
        tuple(name for name in names if drives[name] not in held),
        tuple(name for name in names if drives[name] in held),
    )


def _by_split(root: Path, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the training and held-out frames of `ImageSets/` that are present."""
    listed = {split: read_split(root, split) for split in ("train", "val")}
    if both := set(listed["train"]) & set(listed["val"]):
        raise UserError(
            f"{root}/ImageSets: frame {min(both)} is in train and in val ({len(both)} frames are)",
            "every frame on one side only",
        )
    train, held_out = _listed(root, names, ("train", "val"))
    return train, held_out


def _listed(root: Path, names: Sequence[str], splits: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the frames of each split that are present, and warn of missing frames and of frames in no split."""
    known, unnamed = set(names), set(names)
    found = []
    for split in splits:
        members = read_split(root, split)
        present = tuple(name for name in members if name in known)
        unnamed -= set(present)
        found.append(present)
        if len(present) < len(members):
            consequence = "nothing is held out" if split == "val" else "no frame is trained on"
            log.warning(
                "%s/ImageSets/%s.txt: %d of its %d frames have no image with a label (%d have, such as %s)%s",
                root,
                split,
                len(members) - len(present),
                len(members),
                len(names),
                min(names),
                "" if present else f", so {consequence}",
            )
    if unnamed:
        log.info("%s/ImageSets: %d frames are in no split and are not used", root, len(unnamed))
    return tuple(found)


def drive_folds(root: Path, names: Sequence[str], drives: Mapping[str, str], folds: int) -> list[list[str]]:
    """Divide drives into folds of similar size: the largest first, each into the smallest fold.

    Raises:
        UserError: the drive of a frame is unknown, or there are fewer drives than folds.
    """
    if unknown := [name for name in names if name not in drives]:
        raise UserError(
            f"{root}: the drive of {len(unknown)} frames is unknown, the first is {unknown[0]}",
            "drives.json, or the object kit's mapping/ with train_mapping.txt and train_rand.txt",
            "unpack KITTI's devkit_object.zip beside training/",
        )
    sizes = {drive: sum(drives[n] == drive for n in names) for drive in sorted({drives[n] for n in names})}
    if len(sizes) < folds:
        raise UserError(f"{root}: {len(sizes)} drives", f"at least {folds}, one per fold", f"--folds {len(sizes)}")
    parts: list[list[str]] = [[] for _ in range(folds)]
    for drive in sorted(sizes, key=lambda d: (-sizes[d], d)):
        min(parts, key=lambda part: sum(sizes[d] for d in part)).append(drive)
    return parts


def contiguous_part(names: Sequence[str], part: int, parts: int) -> list[str]:
    """Return one of `parts` contiguous parts of a list. If they are unequal, the first ones are longer by one."""
    size, longer = divmod(len(names), parts)
    first = part * size + min(part, longer)
    return list(names[first : first + size + (part < longer)])
