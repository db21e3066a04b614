"""What a check found out about one data set: counts, findings by severity, and the numbers behind the drawing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from datasets.formats.annotations import AnnotatedImage
from datasets.labels import LabelRule
from datasets.sample import image_stems
from perception.arrays import U8
from perception.errors import UserError
from perception.formats.images import find_image, read_image
from perception.formats.kitti import UNKNOWN_LOCATION, ObjectRows
from perception.progress import Progress

Level = Literal["error", "warning", "note"]
"""error: training or scores would fail or be wrong. warning: worth knowing. note: as expected, and said."""

ROAD_PRIOR_HW = (48, 156)
"""Size at which road masks are averaged: KITTI's shape, an eighth."""


@dataclass(frozen=True)
class Finding:
    """One thing that is missing, unreadable or contradictory."""

    level: Level
    kind: str
    """The same words for the same trouble, so that findings can be counted."""
    where: str
    """File, frame or pair of splits."""
    detail: str = ""


@dataclass
class SetReport:
    """All that a check says about one data set."""

    layout: str
    root: Path
    counts: dict[str, int] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    """Boxes by class name as written."""
    images_by_drive: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    boxes: list[BoxRow] = field(default_factory=list)
    boxes_per_image: list[int] = field(default_factory=list)
    labelled: list[AnnotatedImage] = field(default_factory=list)
    """Images with labels, of sets in the formats of `datasets/formats`."""
    road_sum: np.ndarray = field(default_factory=lambda: np.zeros((2, *ROAD_PRIOR_HW)))
    """Road and judged pixels of every mask, added up."""

    def add(self, level: Level, kind: str, where: Path | str, detail: str = "") -> None:
        """Note a finding."""
        place = where.relative_to(self.root).as_posix() if isinstance(where, Path) else where
        self.findings.append(Finding(level, kind, place, detail))

    def add_all(self, level: Level, kind: str, places: Iterable[Path | str], detail: str = "") -> None:
        """Note the same finding for many places."""
        for place in places:
            self.add(level, kind, place, detail)

    def of_level(self, level: Level) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.level == level]

    def add_boxes(self, rows: ObjectRows, rule: LabelRule, size_hw: tuple[int, int], where: str) -> None:
        """Count the boxes of one image for the statistics, and note those that do not fit the image."""
        self.names.update(rows.names)
        height, width = size_hw
        counted = 0
        for i, name in enumerate(rows.names):
            left, top, right, bottom = rows.boxes_xyxy[i].tolist()
            said = f"{name} {left:g} {top:g} {right:g} {bottom:g} in {width}x{height}"
            if right <= 0 or bottom <= 0 or left >= width or top >= height:
                self.add("error", "box outside its image", where, said)
            elif left < -1 or top < -1 or right > width + 1 or bottom > height + 1:
                self.add("warning", "box reaches out of its image", where, said)
            elif right == left or bottom == top:
                self.add("warning", "box without area", where, said)
            class_id = rule.positive.get(name.lower())
            if class_id is None:
                continue
            counted += 1
            z = float(rows.location_cam2[i, 2])
            self.boxes.append(
                BoxRow(
                    rule.class_names[class_id],
                    bottom - top,
                    float("nan") if z == UNKNOWN_LOCATION else z,
                    int(rows.occlusion[i]),
                    (left + right) / 2 / width,
                    bottom / height,
                )
            )
        self.boxes_per_image.append(counted)

    def add_road(self, road: U8) -> None:
        """Add one mask (H, W: 1 road, 0 not, 255 not judged) to the average."""
        planes = (road == 1, road != 255)
        size = (ROAD_PRIOR_HW[1], ROAD_PRIOR_HW[0])
        self.road_sum += [cv2.resize(p.astype(np.float32), size, interpolation=cv2.INTER_AREA) for p in planes]


@dataclass(frozen=True)
class BoxRow:
    """One labelled object, as the drawing needs it."""

    name: str
    """Its class."""
    height_px: float
    distance_m: float
    occlusion: int
    foot_x: float
    """Middle of its lower edge, share of the image's width."""
    foot_y: float
    """Lower edge, share of the image's height."""


def read_images(report: SetReport, folder: Path, stems: Iterable[str]) -> Iterator[tuple[str, U8 | None]]:
    """Every image of a folder in turn, decoded in parallel; unreadable ones are noted and come as None."""
    wanted = list(stems)

    def read(stem: str) -> tuple[str, U8 | None, str]:
        path = find_image(folder, stem) or folder / f"{stem}.png"
        try:
            return stem, read_image(path), ""
        except UserError as error:
            return stem, None, error.found

    progress = Progress(f"reading {report.root.name}/{folder.relative_to(report.root)}", len(wanted))
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        # a few at a time, so that decoded images do not pile up
        for first in range(0, len(wanted), 4 * workers):
            for i, (stem, image, problem) in enumerate(pool.map(read, wanted[first : first + 4 * workers])):
                if image is None:
                    report.add("error", "unreadable image", (find_image(folder, stem) or folder / stem), problem)
                progress.update(first + i + 1)
                yield stem, image
    progress.close()


def list_images(report: SetReport, folder: Path) -> list[str]:
    """Names of the images in a folder; one that is there as PNG and as JPEG is noted."""
    stems = image_stems(folder)
    if folder.is_dir():
        files = Counter(p.stem for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
        twice = [folder / stem for stem, count in sorted(files.items()) if count > 1]
        report.add_all("warning", "image is there as PNG and as JPEG", twice, "PNG is read")
    return stems
