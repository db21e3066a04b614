"""Labels that pretrained detectors give: sure boxes become targets, doubtful ones become ignore regions.

A file holds KITTI result rows with the teacher's score as column 16. A 17th column, where present, is the share of
the box that a semantic mask calls the class; the mask can veto a box and never adds one.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from datasets.labels import ALL_CLASSES, CAR, CYCLIST, PEDESTRIAN
from datasets.sample import Sample, image_stems
from perception.arrays import F32, I64
from perception.boxes import area, clip, intersection_over_area, iou
from perception.errors import UserError
from perception.files import read_text
from perception.formats.images import find_image, read_image
from perception.formats.kitti import ObjectRows, parse_objects

FULL_SCORE = 0.7
"""Fused teacher score that counts as certain; lower scores give proportionally lower class targets."""
VETO_SHARE = 0.1
"""A box of which the mask confirms less is dropped, whatever its score."""
INSIDE = 0.7
"""Share of a pedestrian's box inside a cyclist's from which it is that cyclist's rider."""
SAME = 0.4
"""Overlap from which a teacher's box is an object that is labelled already."""
MOST_OCCLUDED = 1
"""KITTI's occlusion up to which a box is a target. Teachers leave it unknown (-1), official rows fill it in."""
LARGEST_FILE = 1_000_000
"""Bytes of rows of one image in an archive; a larger member is refused."""


@dataclass(frozen=True)
class Rule:
    """From which score a class's boxes are believed."""

    take: float
    """Score from which a box is a target."""
    take_masked: float
    """The same where a mask confirms `share` of the box."""
    share: float
    """Least confirmed share."""
    ignore: float
    """Score from which a box that is not a target is an ignore region."""


RULES = {
    "car": (CAR, Rule(0.50, 0.40, 0.40, 0.25)),
    "pedestrian": (PEDESTRIAN, Rule(0.50, 0.40, 0.30, 0.20)),
    "cyclist": (CYCLIST, Rule(0.50, 0.35, 0.30, 0.20)),
}
"""Lower-case name → class and thresholds, picked on the sample data (its `teacher_labels/README.md`)."""
IGNORED = {
    "motorcycle": (ALL_CLASSES,),
    "dontcare": (ALL_CLASSES,),
    "rider": (PEDESTRIAN, CYCLIST),
    "person_sitting": (PEDESTRIAN,),
}
"""Lower-case name → classes that are ignored there, from `IGNORED_FROM` on. A rider's bicycle is not in the box."""
IGNORED_FROM = 0.20


class TeacherRows:
    """Stored rows of one set: a folder with a file an image, or that folder inside a zip archive.

    Args:
        path: folder of sets, or a zip of it.
        name: the set's folder.

    Raises:
        UserError: a file that is no archive.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        try:
            self._folder = zipfile.Path(path) / name if path.is_file() else path / name
        except zipfile.BadZipFile:
            raise UserError(f"{path}: not a zip archive", "a folder or a zip with a folder a set") from None

    @cached_property
    def stems(self) -> frozenset[str]:
        """Names of the images that have rows."""
        if not self._folder.is_dir():
            return frozenset()
        return frozenset(Path(file.name).stem for file in self._folder.iterdir() if file.name.endswith(".txt"))

    def file(self, stem: str) -> Path:
        """The file on disk that an image's rows come from."""
        return self.path if self.path.is_file() else self.path / self.name / f"{stem}.txt"

    def targets(self, stem: str, size_hw: tuple[int, int]) -> TeacherTargets:
        """Return the targets of an image; see `teacher_targets`."""
        return teacher_targets(self._text(stem), size_hw, self._where(stem))

    def rows(self, stem: str) -> ObjectRows:
        """Return all rows of an image, whatever their score."""
        return _parse(self._text(stem), self._where(stem))[0]

    def _where(self, stem: str) -> str:
        return f"{self.path}: {self.name}/{stem}.txt"

    def _text(self, stem: str) -> str:
        file = self._folder / f"{stem}.txt"
        if isinstance(file, Path):
            return read_text(file)
        if (size := file.root.getinfo(file.at).file_size) > LARGEST_FILE:
            raise UserError(f"{self.path}: {file.at} holds {size} bytes", f"at most {LARGEST_FILE}")
        return file.read_text(encoding="utf-8-sig")


def rows_of(labels: Path | None, name: str) -> TeacherRows | None:
    """Return the rows of a set; None without labels, or where they hold no such set.

    Raises:
        UserError: labels that are neither a folder nor a zip.
    """
    if labels is None:
        return None
    if not labels.exists():
        raise UserError(f"{labels}: no such labels", "a folder or a zip with a folder a set")
    rows = TeacherRows(labels, name)
    return rows if rows.stems else None


@dataclass(frozen=True, eq=False)
class TeacherTargets:
    """What one image's teacher rows teach."""

    boxes_xyxy: F32
    """(N, 4) pixels."""
    class_ids: I64
    """(N,)"""
    confidences: F32
    """(N,) in 0..1, the score over `FULL_SCORE`."""
    ignore_boxes_xyxy: F32
    """(M, 4)"""
    ignore_class_ids: I64
    """(M,) class, -1 for all."""


def teacher_targets(text: str, size_hw: tuple[int, int], where: str = "<text>") -> TeacherTargets:
    """Divide rows into targets and ignore regions.

    Args:
        text: KITTI result rows, with or without the mask's share as 17th column.
        size_hw: of the image; boxes are cut to it.
        where: named in errors.

    Raises:
        UserError: a row that cannot be parsed, or a class without a rule.
    """
    rows, shares = _parse(text, where)
    boxes = clip(rows.boxes_xyxy, size_hw).astype(np.float32)
    scores = rows.scores if rows.scores is not None else np.ones(len(boxes))
    visible = area(boxes) > 0
    taken: list[tuple[int, int]] = []
    ignored: list[tuple[int, int]] = []
    for i, name in enumerate(name.lower() for name in rows.names):
        share, score = shares[i], float(scores[i])
        if not visible[i] or 0 <= share < VETO_SHARE:
            continue
        if name in IGNORED:
            ignored += [(i, class_id) for class_id in IGNORED[name] if score >= IGNORED_FROM]
            continue
        class_id, rule = RULES[name]
        sure = score >= rule.take if np.isnan(share) else score >= rule.take_masked and share >= rule.share
        if sure and rows.occlusion[i] <= MOST_OCCLUDED:
            taken.append((i, class_id))
        elif score >= rule.ignore:
            ignored.append((i, class_id))
    index, classes = (np.array([pair[k] for pair in taken], np.int64) for k in (0, 1))
    kept = _without_riders(boxes[index], classes)
    index, classes = index[kept], classes[kept]
    return TeacherTargets(
        boxes_xyxy=boxes[index],
        class_ids=classes,
        confidences=np.minimum(1.0, scores[index] / FULL_SCORE).astype(np.float32),
        ignore_boxes_xyxy=boxes[[i for i, _ in ignored]].reshape(-1, 4),
        ignore_class_ids=np.array([class_id for _, class_id in ignored], np.int64),
    )


def _without_riders(boxes: F32, classes: I64) -> np.ndarray:
    """(N,) False for a pedestrian inside a cyclist's box."""
    riding = (intersection_over_area(boxes, boxes[classes == CYCLIST]) > INSIDE).any(1)
    return ~(riding & (classes == PEDESTRIAN))


def _parse(text: str, where: str) -> tuple[ObjectRows, list[float]]:
    """Return the rows and their 17th column, NaN where it is missing."""
    lines, shares = io.StringIO(), []
    for number, line in enumerate(text.splitlines(), 1):
        columns = line.split()
        if not columns:
            continue
        share = float("nan")
        if len(columns) == 17:
            word = columns.pop()
            try:
                share = float(word)
            except ValueError:
                raise UserError(f"{where}:{number}: mask share {word!r}", "a number from -1 to 1") from None
        lines.write(" ".join(columns) + "\n")
        shares.append(share)
    return parse_objects(lines.getvalue(), where, scores=True, classes=(*RULES, *IGNORED)), shares


class Source(Protocol):
    """What is asked of a labelled source, see `datasets.catalogue.SampleSource`."""

    @property
    def names(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Sample: ...
    def files(self, i: int) -> list[Path]: ...
    def drive(self, i: int) -> str: ...


class TeacherImages:
    """Images of a folder with teacher rows as their only labels.

    Args:
        images: folder of images; those without rows are left out.
        rows: of these images.

    Raises:
        UserError: no image has rows.
    """

    def __init__(self, images: Path, rows: TeacherRows) -> None:
        self.images, self.rows = images, rows
        self.names = [stem for stem in image_stems(images) if stem in rows.stems]
        if not self.names:
            raise UserError(
                f"{images}: no image has rows in {rows.path}", f"NAME.jpg here, {rows.name}/NAME.txt there"
            )

    def __len__(self) -> int:
        return len(self.names)

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from; the image first."""
        stem = self.names[i]
        return [find_image(self.images, stem) or self.images / f"{stem}.png", self.rows.file(stem)]

    def drive(self, i: int) -> str:
        """Recording of image `i`: its name up to the underscore."""
        return f"{self.rows.name}_{self.names[i].split('_')[0]}"

    def __getitem__(self, i: int) -> Sample:
        image = read_image(self.files(i)[0])
        found = self.rows.targets(self.names[i], (image.shape[0], image.shape[1]))
        return Sample(
            image_bgr=image,
            name=self.names[i],
            drive=self.drive(i),
            boxes_xyxy=found.boxes_xyxy,
            class_ids=found.class_ids,
            confidences=found.confidences,
            ignore_boxes_xyxy=found.ignore_boxes_xyxy,
            ignore_class_ids=found.ignore_class_ids,
            distances_m=np.full(len(found.boxes_xyxy), np.nan, np.float32),
        )


def open_images(images: Path, labels: Path | None, name: str) -> TeacherImages | None:
    """Return images with a set's teacher rows; None without such rows."""
    rows = rows_of(labels, name)
    return None if rows is None else TeacherImages(images, rows)


class TeacherLabelled:
    """A labelled source whose samples also carry what teachers found.

    Teacher boxes that no label explains become targets where the labels come from masks, which have confirmed them.
    Where a person drew boxes they become ignore regions: the set missed an object, or the teacher is wrong.

    Args:
        source: labelled samples.
        rows: of its images; a sample without rows stays as it is.
        drawn: the source's boxes were drawn by people.
    """

    def __init__(self, source: Source, rows: TeacherRows, drawn: bool) -> None:
        self.source, self.rows, self.drawn = source, rows, drawn
        self.variant = f"{getattr(source, 'variant', '')} teacher"

    @property
    def names(self) -> Sequence[str]:
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from; the image first."""
        return [*self.source.files(i), self.rows.file(self.names[i])]

    def drive(self, i: int) -> str:
        """Recording of sample `i`."""
        return self.source.drive(i)

    def __getitem__(self, i: int) -> Sample:
        sample = self.source[i]
        if sample.boxes_xyxy is None or self.names[i] not in self.rows.stems:
            return sample
        assert sample.class_ids is not None
        assert sample.ignore_boxes_xyxy is not None and sample.ignore_class_ids is not None
        found = self.rows.targets(self.names[i], (sample.image_bgr.shape[0], sample.image_bgr.shape[1]))
        new = ~(iou(found.boxes_xyxy, sample.boxes_xyxy) > SAME).any(1)
        taken, doubtful = (new & False, new) if self.drawn else (new, new & False)
        unknown = np.full(len(sample.boxes_xyxy), np.nan, np.float32)
        known = sample.distances_m if sample.distances_m is not None else unknown
        certain = np.ones(len(sample.boxes_xyxy), np.float32)
        ignored = (sample.ignore_boxes_xyxy, found.boxes_xyxy[doubtful], found.ignore_boxes_xyxy)
        ignored_ids = (sample.ignore_class_ids, found.class_ids[doubtful], found.ignore_class_ids)
        return replace(
            sample,
            boxes_xyxy=np.concatenate([sample.boxes_xyxy, found.boxes_xyxy[taken]]),
            class_ids=np.concatenate([sample.class_ids, found.class_ids[taken]]),
            confidences=np.concatenate([certain, found.confidences[taken]]),
            distances_m=np.append(known, np.full(int(taken.sum()), np.nan, np.float32)),
            ignore_boxes_xyxy=np.concatenate(ignored),
            ignore_class_ids=np.concatenate(ignored_ids),
        )
