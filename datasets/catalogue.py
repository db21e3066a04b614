"""The contract of a data set, and the data sets that there are: one file each in this folder, found by file name.

A new data set is one file with a `DATA_SET`. Training, the hold-out and the contract tests find it there.
"""

from __future__ import annotations

import importlib
import logging
import math
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import datasets
from datasets.sample import Sample
from datasets.splits import Division, HeldOut, Holdout, HoldoutOptions

if TYPE_CHECKING:
    from datasets.checks.findings import SetReport

log = logging.getLogger("datasets.catalogue")

NOT_DATA_SETS = frozenset({"catalogue", "cli", "demo", "labels", "sample", "splits", "yardstick_split"})
"""Modules of this folder that data sets share or that command them."""


class SampleSource(Protocol):
    """What an opened data set offers."""

    @property
    def names(self) -> Sequence[str]:
        """Name of each sample, unique in the set."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Sample: ...
    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from; the image first. Some may be absent."""

    def drive(self, i: int) -> str:
        """Recording of sample `i`, without reading it; empty where it is not known."""


@dataclass(frozen=True)
class ExtraLabels:
    """Which labels are used beside those that a data set comes with."""

    mask_boxes: bool = True
    """Boxes of single people found in the masks of CamVid and IDD-Lite, and of CamVid's cyclists."""
    hand_labels: bool = True
    """Boxes and road drawn by hand for this project (`datasets/annotations`)."""
    teacher_labels: Path | None = None
    """Folder or zip of what pretrained detectors found, a folder a set (`datasets/readers/teacher_labels.py`). With
    it, sets without boxes are opened too."""
    self_labels: Path | None = None
    """Folder of `python -m tools.recipes.self_labels`: objects that an earlier network found in CamVid."""


@dataclass(frozen=True)
class Layout:
    """One way in which data sets lie on disk, and how to check it."""

    name: str
    shape: str
    """What it looks like, for messages."""
    present: Callable[[Path], bool]
    """Whether a folder at any depth is laid out so."""
    check: Callable[[Path, Sequence[DataSet]], SetReport]
    """Checks a folder; takes the data sets of this layout."""


@dataclass(frozen=True)
class DataSet:
    """What a data set's file declares."""

    name: str
    """Names its subset, its weight and its hold-out. Sets that may share recordings share the part before a slash."""
    folders: tuple[str, ...]
    """Folders below a data root where it may lie; the first that holds it is taken."""
    present: Callable[[Path], bool]
    """Whether a folder holds it."""
    open: Callable[[Path, ExtraLabels], SampleSource | None]
    """Opens the training samples of such a folder; None where these options leave none."""
    weight: float
    """Weight of the set among the images that training draws."""
    chosen_for: int
    """Number of images for which the weight was chosen."""
    licence: str
    """Under which terms it may be used, and whose it is."""
    classes: tuple[str, ...] = ()
    """Classes whose boxes it labels, with all extra labels."""
    road: bool = False
    """Whether it labels road."""
    layout: Layout | None = None
    """How `perception data check` recognises and checks it; None reads every sample."""
    spec: Any = None
    """What the check of a layout that several sets share has to know of this one."""
    divide: Callable[[Any, HoldoutOptions], Division] | None = None
    """Divides an opened set; None: a frame is held out where its drive is held out in another set."""
    validates: Literal["objects", "road"] | None = None
    """What its held-out frames validate."""
    order: int = 100
    """Place in the list from which a run draws. It decides which image a seed draws, so it must never change."""

    def find(self, root: Path) -> Path | None:
        """The folder of the set below a data root."""
        return next((root / folder for folder in self.folders if self.present(root / folder)), None)

    def weight_of(self, images: int) -> float:
        """Weight for a number of images: from twice `chosen_for` on it grows with the square root of their number."""
        return self.weight * max(1.0, math.sqrt(images / (2 * self.chosen_for)))


@dataclass(frozen=True)
class Opened:
    """A data set that was found below a data root."""

    data_set: DataSet
    folder: Path
    source: SampleSource


@dataclass(frozen=True)
class Divided:
    """An opened data set and the places of its frames on both sides."""

    opened: Opened
    train: tuple[int, ...]
    held_out: tuple[int, ...]


def modules() -> list[str]:
    """Names of the data-set files in this folder."""
    found = (module.name for module in pkgutil.iter_modules(datasets.__path__) if not module.ispkg)
    return sorted(name for name in found if name not in NOT_DATA_SETS)


@cache
def data_sets() -> tuple[DataSet, ...]:
    """All data sets, in the order from which a run draws."""
    found: list[DataSet] = [importlib.import_module(f"datasets.{name}").DATA_SET for name in modules()]
    return tuple(sorted(found, key=lambda data_set: (data_set.order, data_set.name)))


def open_sets(root: Path, labels: ExtraLabels | None = None, only: Collection[str] | None = None) -> list[Opened]:
    """Every data set below a data root.

    Args:
        root: the data root.
        labels: which labels are used beside those of the sets.
        only: names of the sets to look for; None: all.

    Raises:
        UserError: a set that is there and cannot be read.
    """
    opened = []
    for data_set in data_sets():
        folder = data_set.find(root) if only is None or data_set.name in only else None
        source = data_set.open(folder, labels or ExtraLabels()) if folder is not None else None
        if folder is not None and source is not None:
            opened.append(Opened(data_set, folder, source))
    return opened


def divide(
    opened: Sequence[Opened], options: HoldoutOptions | None = None, stored: Holdout | None = None
) -> tuple[list[Divided], Holdout]:
    """Divide opened data sets into training and held-out frames.

    Args:
        opened: the sets.
        options: which part is held out.
        stored: the hold-out of a checkpoint. Its sets are divided by the names that it stores.

    Returns:
        The divided sets, and the one hold-out.

    Raises:
        UserError: a split that cuts through a drive, or folds that cannot be made.
    """
    divisions: dict[str, Division] = {}
    for one in opened:
        data_set = one.data_set
        if stored is not None and data_set.name in stored.sets:
            divisions[data_set.name] = _as_stored(one.source, stored.sets[data_set.name])
        elif data_set.divide is not None:
            divisions[data_set.name] = data_set.divide(one.source, options or HoldoutOptions())
    for one in opened:
        if one.data_set.name not in divisions:
            divisions[one.data_set.name] = _by_drives_of_others(one, divisions)
    divided = []
    for one in opened:
        division, place = divisions[one.data_set.name], {frame: i for i, frame in enumerate(one.source.names)}
        train, held_out = (tuple(place[frame] for frame in side) for side in (division.train, division.held_out))
        divided.append(Divided(one, train, held_out))
    holdout = Holdout({n: HeldOut(frozenset(d.held_out), d.rule) for n, d in divisions.items()})
    return divided, holdout


def _as_stored(source: SampleSource, held_out: HeldOut) -> Division:
    """Hold out the frames that a checkpoint names."""
    sides: tuple[list[int], list[int]] = ([], [])
    for i, frame in enumerate(source.names):
        sides[frame in held_out.names].append(i)
    train, held = (tuple(source.names[i] for i in side) for side in sides)
    return Division(train, held, held_out.rule, frozenset(source.drive(i) for i in sides[1]) - {""})


def _by_drives_of_others(one: Opened, others: Mapping[str, Division]) -> Division:
    """Hold out the frames whose drive is held out in another set."""
    source, family = one.source, one.data_set.name.split("/")[0] + "/"  # a family's sets may share recordings
    if any(division.drives is None for other, division in others.items() if other.startswith(family)):
        log.warning(
            "%s: the drives of the held-out object frames are not known (no drives.json, no mapping/ of the object "
            "kit), so these frames may be neighbours of held-out ones and flatter the scores",
            one.folder,
        )
    drives = frozenset[str]().union(*(division.drives or () for division in others.values()))
    held = {frame for i, frame in enumerate(source.names) if source.drive(i) in drives}
    return Division(
        tuple(frame for frame in source.names if frame not in held),
        tuple(frame for frame in source.names if frame in held),
        "drives held out in other sets",
    )
