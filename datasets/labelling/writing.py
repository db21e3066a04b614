"""Labels by machine as a set of any label format, and their comparison with labels by people."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.formats import ImageMode, read, write
from datasets.formats.annotations import AnnotatedImage, AnnotationSet, Box, Problems
from datasets.labelling.looking import Seen
from datasets.labels import ALL_CLASSES, LabelRule, rule_of
from perception.classes import ClassInfo
from perception.errors import UserError
from perception.labelling.committee import Committee
from perception.labelling.quality import Quality, Truth, compare
from perception.labelling.verdict import Labels, VerdictConfig, decide, track


def label_all(seen: Sequence[Seen], committee: Committee, config: VerdictConfig) -> list[Labels]:
    """Fuse, track and judge all frames."""
    fused = [committee.fuse(one.parts, one.size_hw) for one in seen]
    tracked = [None] * len(seen)
    recordings: dict[str, list[int]] = {}
    for i, one in enumerate(seen):
        if one.frame.is_recorded:
            recordings.setdefault(one.frame.drive, []).append(i)
    for rows in recordings.values():
        for i, result in zip(rows, track([(seen[i].frame.timestamp_ns, fused[i]) for i in rows]), strict=True):
            tracked[i] = result  # type: ignore[call-overload]
    return [
        decide(found, one.size_hw, result, config) for found, one, result in zip(fused, seen, tracked, strict=True)
    ]


def as_set(seen: Sequence[Seen], labels: Sequence[Labels], class_names: tuple[str, ...], root: Path) -> AnnotationSet:
    """Return labels by machine as a set; doubtful boxes are regions to ignore."""
    images = []
    for one, found in zip(seen, labels, strict=True):
        boxes = tuple(
            Box(
                class_names[int(found.class_ids[k])],
                (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                score=round(float(found.confidences[k]), 4),
                track_id=int(found.track_ids[k]) or None,
                ignore=not found.sure[k],
            )
            for k, box in enumerate(found.boxes_xyxy.round(2).tolist())
        )
        images.append(AnnotatedImage(one.frame.name, one.frame.path, one.size_hw, boxes, one.frame.drive))
    return AnnotationSet(root, class_names, tuple(images))


def write_set(found: AnnotationSet, out: Path, to: str, images: ImageMode) -> Counter[str]:
    """Write a set to a new folder, which appears only when it is whole; returns what the format cannot hold."""
    if out.exists():
        raise UserError(f"{out}: labels are there already", "a new folder", f"another --out, or remove {out}")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    missing = write(found, part, to, images)
    part.rename(out)
    return missing


class Reference:
    """Labels by people, to measure labels by machine."""

    def __init__(self, path: Path, classes: Sequence[ClassInfo], problems: Problems) -> None:
        """Read labels of any format.

        Raises:
            UserError: they cannot be read, or label no class of the networks.
        """
        truth = read(path, problems)
        self.class_names = tuple(info.name for info in classes)
        self.rule: LabelRule = rule_of(classes, truth.labels)
        self.by_name = {image.name: image for image in truth.images}
        stems = Counter(name.rpartition("/")[2] for name in self.by_name)
        self.by_stem = {
            stem: image for name, image in self.by_name.items() if stems[stem := name.rpartition("/")[2]] == 1
        }
        numbers = [self.rule.class_names.index(name) for name in self.class_names]
        self.judged = [self.rule.labelled_classes[number] for number in numbers]
        self._ids = {number: i for i, number in enumerate(numbers)}
        if not any(self.judged):
            raise UserError(
                f"{path}: labels of {', '.join(truth.labels) or 'nothing'}",
                f"some of {', '.join(self.class_names)}",
                "--truth with labels of the networks' classes",
            )

    def of(self, name: str) -> AnnotatedImage | None:
        """Return the labels of an image, found by its name, or by its file name alone where that is unique."""
        return self.by_name.get(name) or self.by_stem.get(name.rpartition("/")[2])

    def objects_in(self, name: str) -> list[int] | None:
        """Return the number of objects of each class in an image; None where people did not label it."""
        image = self.of(name)
        if image is None:
            return None
        class_ids = self._truth(image).class_ids
        return np.bincount(class_ids, minlength=len(self.class_names)).tolist()

    def drive_of(self, name: str) -> str:
        """Return the recording that the labels name for an image; empty where they name none."""
        image = self.of(name)
        return "" if image is None else image.drive

    def compare(self, name: str, size_hw: tuple[int, int], labels: Labels) -> list[Quality] | None:
        """Compare the labels of one image, class by class; None where people did not label it."""
        image = self.of(name)
        if image is None or image.size_hw != size_hw:
            return None
        return compare(labels, self._truth(image), len(self.class_names), self.judged)

    def _truth(self, image: AnnotatedImage) -> Truth:
        boxes: list[tuple[float, ...]] = []
        class_ids: list[int] = []
        ignored: list[tuple[float, ...]] = []
        ignored_ids: list[int] = []
        for box in image.boxes:
            label = box.label.lower()
            number = self.rule.positive.get(label, -1)
            if box.ignore or label in self.rule.ignore:
                own = number if number >= 0 else self.rule.ignore.get(label, ALL_CLASSES)
                if own == ALL_CLASSES or own in self._ids:
                    ignored.append(box.xyxy)
                    ignored_ids.append(self._ids.get(own, ALL_CLASSES))
            elif number in self._ids:
                boxes.append(box.xyxy)
                class_ids.append(self._ids[number])
        return Truth(
            np.array(boxes, np.float64).reshape(-1, 4),
            np.array(class_ids, np.int64),
            np.array(ignored, np.float64).reshape(-1, 4),
            np.array(ignored_ids, np.int64),
        )


def measure(seen: Sequence[Seen], labels: Sequence[Labels], reference: Reference) -> tuple[list[Quality], int]:
    """Return the quality of each class, and the number of frames that people labelled too."""
    total, frames = [Quality() for _ in reference.class_names], 0
    for one, found in zip(seen, labels, strict=True):
        result = reference.compare(one.frame.name, one.size_hw, found)
        if result is not None:
            frames += 1
            total = [a + b for a, b in zip(total, result, strict=True)]
    return total, frames
