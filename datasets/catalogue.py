"""The contract of a data set, and the available data sets.

A data set is one file in this folder with a `DATA_SET`. Training, the hold-out and the contract tests find it there.
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
from datasets.labels import LabelRule
from datasets.sample import Sample
from datasets.splits import Division, HeldOut, Holdout, HoldoutOptions
from perception.classes import DEFAULT_CLASSES, ClassInfo

if TYPE_CHECKING:
    from datasets.checks.findings import SetReport

log = logging.getLogger("datasets.catalogue")

NOT_DATA_SETS = frozenset({"catalogue", "cli", "demo", "labels", "sample", "splits", "yardstick_split"})
"""Modules of this folder that are not data sets."""


class SampleSource(Protocol):
    """An opened data set."""

    @property
    def names(self) -> Sequence[str]:
        """Return the name of each sample, unique in the set."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Sample: ...
    def files(self, i: int) -> list[Path]:
        """Return all files of sample `i`, the image first. Some may be absent."""

    def drive(self, i: int) -> str:
        """Return the recording of sample `i` without reading the sample; empty where it is unknown."""


@dataclass(frozen=True)
class ExtraLabels:
    """Labels that are added to those of a data set, and the classes that labels become."""

    mask_boxes: bool = True
    """Boxes of single people from the masks of CamVid and IDD-Lite, and of CamVid's cyclists."""
    hand_labels: bool = True
    """Hand-drawn boxes and road of this project (`datasets/annotations`)."""
    teacher_labels: Path | None = None
    """Folder or zip of labels by pretrained detectors, one folder per set (`datasets/readers/teacher_labels.py`). It
    also opens sets without boxes."""
    self_labels: Path | None = None
    """Output folder of `python -m tools.recipes.self_labels`: detections in CamVid that its masks confirm."""
    classes: tuple[ClassInfo, ...] = DEFAULT_CLASSES
    """Classes of the network. Sets with class names in their labels follow them; the others know `CLASS_NAMES`."""


@dataclass(frozen=True)
class Layout:
    """A folder layout of data sets, and its check."""

    name: str
    shape: str
    """Description of the layout, for messages."""
    present: Callable[[Path], bool]
    """Returns whether a folder at any depth has the layout."""
    check: Callable[[Path, Sequence[DataSet]], SetReport]
    """Checks a folder, given the data sets of this layout."""


@dataclass(frozen=True)
class DataSet:
    """Declaration of a data set."""

    name: str
    """Name of its subset, weight and hold-out. Sets that may share recordings share the part before a slash."""
    folders: tuple[str, ...]
    """Possible folders in a dataset root; the first one that holds the set is used."""
    present: Callable[[Path], bool]
    """Returns whether a folder holds the set."""
    open: Callable[[Path, ExtraLabels], SampleSource | None]
    """Opens the training samples of a folder; None where the options leave no samples."""
    weight: float
    """Sampling weight of the set in training."""
    chosen_for: int
    """Number of images for which the weight was chosen."""
    licence: str
    """Licence and authors."""
    classes: tuple[str, ...] = ()
    """Classes with labelled boxes, all extra labels included."""
    road: bool = False
    """Whether road is labelled."""
    layout: Layout | None = None
    """Layout that `perception data check` recognises and checks; None: the check reads every sample."""
    spec: Any = None
    """Properties of this set for the check of a layout that several sets share."""
    divide: Callable[[Any, HoldoutOptions], Division] | None = None
    """Divides an opened set; None: a frame is held out where its drive is held out in another set."""
    validates: Literal["objects", "road"] | None = None
    """Task that its held-out frames validate."""
    order: int = 100
    """Position in the list of sets that training samples from. It must never change: it determines which image a seed
    selects."""

    def find(self, root: Path) -> Path | None:
        """Return the folder of the set in a dataset root, if any."""
        return next((root / folder for folder in self.folders if self.present(root / folder)), None)

    def weight_of(self, images: int) -> float:
        """Return the weight for a number of images; above twice `chosen_for` it grows with the square root."""
        return self.weight * max(1.0, math.sqrt(images / (2 * self.chosen_for)))


@dataclass(frozen=True)
class Opened:
    """A data set that was found in a dataset root."""

    data_set: DataSet
    folder: Path
    source: SampleSource

    @property
    def labelled_names(self) -> set[str]:
        """Return the classes that the set labels: those that its labels name, where it reads names."""
        rule = getattr(self.source, "rule", None)
        if not isinstance(rule, LabelRule):
            return set(self.data_set.classes)
        return {name for name, yes in zip(rule.class_names, rule.labelled_classes, strict=True) if yes}


@dataclass(frozen=True)
class Divided:
    """An opened data set and the indices of its training and held-out frames."""

    opened: Opened
    train: tuple[int, ...]
    held_out: tuple[int, ...]


def modules() -> list[str]:
    """Return the names of the data-set files in this folder."""
    found = (module.name for module in pkgutil.iter_modules(datasets.__path__) if not module.ispkg)
    return sorted(name for name in found if name not in NOT_DATA_SETS)


@cache
def data_sets() -> tuple[DataSet, ...]:
    """Return all data sets, in the order of sampling."""
    found: list[DataSet] = [importlib.import_module(f"datasets.{name}").DATA_SET for name in modules()]
    return tuple(sorted(found, key=lambda data_set: (data_set.order, data_set.name)))


def open_sets(root: Path, labels: ExtraLabels | None = None, only: Collection[str] | None = None) -> list[Opened]:
    """Open every data set in a dataset root.

    Args:
        root: dataset root.
        labels: labels that are added to those of the sets.
        only: names of the sets to open; None: all.

    Raises:
        UserError: a set is present and cannot be read.
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
        opened: data sets.
        options: selection of the held-out data.
        stored: hold-out of a checkpoint. Its sets are divided by the stored names.

    Returns:
        The divided sets and the hold-out.

    Raises:
        UserError: the split divides a drive, or the folds are not possible.
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
            "%s: the drives of the held-out object frames are unknown (no drives.json, no mapping/ of the object "
            "kit), so these frames may be neighbours of held-out ones and raise the scores",
            one.folder,
        )
    drives = frozenset[str]().union(*(division.drives or () for division in others.values()))
    held = {frame for i, frame in enumerate(source.names) if source.drive(i) in drives}
    return Division(
        tuple(frame for frame in source.names if frame not in held),
        tuple(frame for frame in source.names if frame in held),
        "drives held out in other sets",
    )
