"""The training and validation sets of a run, divided by drive."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from datasets.catalogue import ExtraLabels, SampleSource, data_sets, divide, open_sets
from datasets.readers.teacher_labels import open_images
from datasets.splits import Holdout
from perception.classes import DEFAULT_CLASSES, ClassInfo
from perception.errors import UserError
from perception.types import CLASS_NAMES
from training.cache import CachedSource
from training.config import DataConfig

ROAD = "kitti/road"
UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Subset:
    """Samples of a data set, by index."""

    name: str
    source: SampleSource
    indices: tuple[int, ...]
    weight: float
    """Sampling weight relative to the other sets."""


@dataclass(frozen=True)
class TrainingSets:
    """The data sets of a dataset root, divided into training and validation sets."""

    train: tuple[Subset, ...]
    objects: Subset | None
    """Validation frames with boxes."""
    road: Subset | None
    """Validation frames with road."""
    holdout: Holdout = field(default_factory=Holdout)
    """Every frame that the run does not train on."""

    def data_hash(self) -> str:
        """Return a hash of the training and validation sets: names and sizes of files, and the text of labels."""
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
        """Return the sets with a disk cache for training. Validation frames are always read at full size."""
        train = (replace(s, source=CachedSource(s.source, folder, width, limit_bytes)) for s in self.train)
        return replace(self, train=tuple(train))

    def __str__(self) -> str:
        """Return a line with the training sets, the validation sets and the rules of the hold-out."""
        train = ", ".join(f"{subset.name} {len(subset.indices)}" for subset in self.train)
        validation = ", ".join(
            f"{subset.name} {len(subset.indices)} ({self.holdout.sets[subset.name].rule})"
            for subset in (self.objects, self.road)
            if subset is not None
        )
        return f"training set: {train}; validation set: {validation or 'none, because nothing is held out'}"

    def _all(self) -> Iterator[Subset]:
        yield from self.train
        yield from (subset for subset in (self.objects, self.road) if subset is not None)


def find_sets(
    data: DataConfig, stored: Holdout | None = None, classes: tuple[ClassInfo, ...] = DEFAULT_CLASSES
) -> TrainingSets:
    """Open the data sets of a dataset root and divide them by drive.

    Args:
        data: root, selection of data, and hold-out options.
        stored: hold-out of a checkpoint, to validate on frames that its run did not train on.
        classes: classes of the network.

    Raises:
        UserError: there is nothing to train on, no set labels a new class, or the split divides a drive.
    """
    chosen = {f.name: getattr(data, f.name) for f in fields(ExtraLabels) if f.name != "classes"}
    labels = ExtraLabels(**chosen, classes=classes)
    divided, holdout = divide(open_sets(data.root, labels), data.holdout, stored)
    train: list[Subset] = []
    validation: dict[str, tuple[int, Subset]] = {}
    labelled: set[str] = set()
    for part in divided:
        data_set, source = part.opened.data_set, part.opened.source
        if part.train:
            used = evenly(part.train, data.label_share)
            train.append(Subset(data_set.name, source, used, data_set.weight_of(len(part.train))))
            labelled |= part.opened.labelled_names
        if data_set.validates is not None and part.held_out:
            # the set that labels most of the classes; of several, the first
            known = len(part.opened.labelled_names & {info.name for info in classes})
            if known > validation.get(data_set.validates, (-1,))[0]:
                validation[data_set.validates] = known, Subset(data_set.name, source, part.held_out, 0.0)
    train = _with_weights(train, data.weights)
    if data.unlabelled is not None:
        train = _with_share([*train, _unlabelled(data)], UNLABELLED, data.unlabelled_share)
    if not train:
        folders = ", ".join(data_set.folders[0] for data_set in data_sets())
        raise UserError(
            f"{data.root}: no labelled images found",
            f"at least one of {folders}; or --data.no-real for synthetic alone",
            f"perception data check {data.root}",
        )
    _check_labelled(data.root, classes, labelled)
    objects, road = (validation[task][1] if task in validation else None for task in ("objects", "road"))
    return TrainingSets(tuple(_with_share(train, ROAD, data.road_share)), objects, road, holdout)


def evenly(indices: Sequence[int], share: float) -> tuple[int, ...]:
    """Return that share of the indices, evenly spread over them; at least one."""
    count = max(1, round(share * len(indices)))
    return tuple(indices[k * len(indices) // count] for k in range(count))


def _check_labelled(root: Path, classes: Sequence[ClassInfo], labelled: Collection[str]) -> None:
    """Raise `UserError` where no training set labels a class that only own data can."""
    for info in classes:
        if info.name not in CLASS_NAMES and info.name not in labelled:
            raise UserError(
                f"{root}: no training set labels the class {info.name}",
                f"label files with {' or '.join(info.labels or (info.name,))}; in KITTI's layout also classes.txt, "
                "with one label name a line",
                "labels = [...] of that class in --classes FILE, or a set that has them",
            )


def _unlabelled(data: DataConfig) -> Subset:
    """Return the frames of `data.unlabelled` with the labels of the teachers."""
    assert data.unlabelled is not None
    name = data.unlabelled.resolve().name
    source = open_images(data.unlabelled, data.teacher_labels, name)
    if source is None:
        raise UserError(
            f"{data.unlabelled}: no teacher labels for these frames",
            f"rows in {data.teacher_labels or 'TEACHER_LABELS'}/{name}",
            "--teacher MODEL",
        )
    return Subset(UNLABELLED, source, tuple(range(len(source))), 1.0)


def _with_weights(train: Sequence[Subset], weights: Sequence[str]) -> list[Subset]:
    """Return the sets with other weights, given as NAME=WEIGHT.

    Raises:
        UserError: a weight has another form, or its set is missing.
    """
    changed: dict[str, float] = {}
    names = [subset.name for subset in train]
    for text in weights:
        name, _, number = text.partition("=")
        try:
            changed[name] = float(number)
        except ValueError:
            changed[name] = -1.0
        if name not in names or not 0 <= changed[name] < 1000:
            raise UserError(f"data weight '{text}'", f"NAME=WEIGHT of one of {', '.join(names)}", "carla=0")
    sets = [replace(s, weight=changed.get(s.name, s.weight)) for s in train]
    return [subset for subset in sets if subset.weight > 0]


def _with_share(train: Sequence[Subset], name: str, share: float) -> list[Subset]:
    """Return the sets with one weight changed so that the set has that share of all; 0 changes nothing."""
    rest = sum(subset.weight for subset in train if subset.name != name)
    if not share or not rest:
        return list(train)
    weight = share / (1 - share) * rest
    return [replace(s, weight=weight) if s.name == name else s for s in train]
