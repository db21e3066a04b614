"""Training samples of labelled images in any format of `datasets/formats`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.catalogue import ExtraLabels
from datasets.formats import format_named, read
from datasets.formats.annotations import AnnotatedImage, AnnotationSet, Problems, road_mask
from datasets.formats.clean import NOTES
from datasets.labels import ALL_CLASSES, LabelRule, rule_of
from datasets.sample import Sample
from datasets.splits import HELD_OUT_DRIVES, Division, HoldoutOptions, drive_folds
from perception.boxes import area, clip
from perception.errors import UserError
from perception.formats.images import read_image

log = logging.getLogger("datasets.readers.annotated")


class AnnotatedImages:
    """Images of a set in one of the formats.

    Args:
        root: folder of the set.
        form: name of the format.
        labels: classes of the network.

    Raises:
        UserError: no image can be used.
    """

    def __init__(self, root: Path, form: str, labels: ExtraLabels) -> None:
        self.root, self.problems = root, Problems()
        self.found: AnnotationSet = read(root, self.problems, form)
        if not self.found.images:
            first = self.problems.lines(1)
            raise UserError(
                f"{root}: no image with labels ({first[0] if first else 'empty'})", format_named(form).shape
            )
        for kind, count in self.problems.counts.most_common():
            level = logging.INFO if kind in NOTES else logging.WARNING
            log.log(level, "%s: %s: %d, the first is %s", root, kind, count, self.problems.places[kind][0])
        self.rule: LabelRule = rule_of(labels.classes, self.found.labels)
        self.names: Sequence[str] = [image.name for image in self.found.images]
        self.variant = repr(self.rule)
        self._warn_of_unused()

    def _warn_of_unused(self) -> None:
        unused = [name for name in self.rule.background if name in {label.lower() for label in self.found.labels}]
        if unused:
            log.info(
                "%s: labels that are no class of the network, trained as background: %s", self.root, ", ".join(unused)
            )

    def __len__(self) -> int:
        return len(self.found.images)

    def drive(self, i: int) -> str:
        """Return the recording of image `i`; empty where it is not known."""
        return self.found.images[i].drive

    def files(self, i: int) -> list[Path]:
        """Return the files of image `i`, the image first, then its labels."""
        image = self.found.images[i]
        labels = [image.label_file] if image.label_file is not None else []
        return [image.path, *labels, *([image.road] if isinstance(image.road, Path) else [])]

    def __getitem__(self, i: int) -> Sample:
        image = self.found.images[i]
        pixels = read_image(image.path)
        size_hw = (pixels.shape[0], pixels.shape[1])
        if size_hw != image.size_hw:
            raise UserError(
                f"{image.path}: {size_hw[1]}x{size_hw[0]} once decoded", "the size that its header announces"
            )
        boxes, ids, ignored, kept = _targets(image, self.rule, size_hw)
        scores = [1.0 if box.score is None else box.score for box in image.boxes]
        return Sample(
            image_bgr=pixels,
            name=image.name,
            drive=image.drive,
            boxes_xyxy=boxes[kept],
            class_ids=ids[kept],
            ignore_boxes_xyxy=boxes[ignored],
            ignore_class_ids=ids[ignored],
            class_names=self.rule.class_names,
            labelled_classes=self.rule.labelled_classes,
            confidences=np.array(scores, np.float32)[kept] if any(score < 1 for score in scores) else None,
            road=road_mask(image.road, size_hw),
        )


def _targets(
    image: AnnotatedImage, rule: LabelRule, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes (N, 4), class ids (N,), and which are ignored and trained (N,) bool each."""
    boxes = clip(np.array([box.xyxy for box in image.boxes], np.float32).reshape(-1, 4), size_hw).astype(np.float32)
    names = [box.label.lower() for box in image.boxes]
    ids = np.array([rule.positive.get(name, rule.ignore.get(name, ALL_CLASSES)) for name in names], np.int64)
    visible = area(boxes) > 0
    marked = np.array([box.ignore for box in image.boxes], bool)
    ignored = (marked | np.array([name in rule.ignore for name in names], bool)) & visible
    positive = np.array([name in rule.positive for name in names], bool) & visible & ~marked
    return boxes, ids, ignored, positive


def divide(source: AnnotatedImages, options: HoldoutOptions) -> Division:
    """Divide by fold, else by the splits of the set, else every fifth recording; else nothing is held out."""
    drives = {image.name: image.drive for image in source.found.images if image.drive}
    splits = {image.name: image.split for image in source.found.images}
    if options.fold >= 0:
        chosen_drives = set(drive_folds(source.root, source.names, drives, options.folds)[options.fold])
        held = {name for name, drive in drives.items() if drive in chosen_drives}
        return _division(source, held, f"fold {options.fold} of {options.folds} by recording", drives)
    if any(split in ("val", "test") for split in splits.values()):
        chosen = "val" if "val" in splits.values() else "test"
        held = {name for name, split in splits.items() if split == chosen}
        names = [name for name in source.names if splits[name] != "test" or name in held]
        shared = {drives[n] for n in held if n in drives} & {
            drives[n] for n in names if n in drives and n not in held
        }
        if shared:
            log.warning(
                "%s: %d recordings are in both training and %s, such as %s: scores will be too high",
                source.root,
                len(shared),
                chosen,
                min(shared),
            )
        return _division(source, held, f"split {chosen}", drives, names)
    every = sorted(set(drives.values()))[::HELD_OUT_DRIVES]
    if len(drives) == len(source.names) and len(set(drives.values())) > 1:
        return _division(
            source, {name for name, drive in drives.items() if drive in every}, "every fifth drive", drives
        )
    log.warning("%s: no split and no recordings, so nothing is held out and nothing validated", source.root)
    return _division(source, set(), "nothing", drives)


def _division(
    source: AnnotatedImages, held: set[str], rule: str, drives: dict[str, str], names: Sequence[str] = ()
) -> Division:
    names = names or source.names
    train = tuple(name for name in names if name not in held)
    recordings = frozenset(drives[name] for name in held if name in drives)
    return Division(train, tuple(name for name in source.names if name in held), rule, recordings)
