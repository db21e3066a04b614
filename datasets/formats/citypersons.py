"""CityPersons: `gtBboxCityPersons/SPLIT/CITY/*.json` beside Cityscapes' images, boxes [x, y, width, height].

`bbox` is the full body, also where it is hidden, `bboxVis` the visible part. From it follows the occlusion level: the
benchmark's bare (up to 10 % hidden), partial (up to 35 %) and heavy. Groups and `ignore` are ignored.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.formats.annotations import AnnotationSet, Box, Format, Problems
from datasets.formats.cityscapes import label_files, labelled_images, root_of
from datasets.formats.paths import dicts, numbers, road_of

LABELS = "gtBboxCityPersons", "_gtBboxCityPersons.json"
NAMES = ("pedestrian", "rider", "sitting person", "person (other)")
IGNORED = ("person group", "ignore")
VISIBLE = (0.9, 0.65)
"""Visible shares from which a person is bare and partly hidden."""


def present(path: Path) -> bool:
    """Whether a folder holds CityPersons' boxes."""
    return bool(label_files(path, *LABELS))


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read the people of every labelled image."""
    root, images = root_of(path, LABELS[0]), []
    for image, content, file_name in labelled_images(path, LABELS, "CityPersons' boxes", problems):
        rows = dicts(content.get("objects", []), file_name)
        boxes = tuple(box for row in rows if (box := _box(row, file_name, problems)) is not None)
        images.append(replace(image, boxes=boxes, road=road_of(root, image.name)))
    return AnnotationSet(root, NAMES, tuple(images))


def _box(row: dict[str, Any], where: str, problems: Problems) -> Box | None:
    label, xywh, seen = str(row.get("label")), numbers(row.get("bbox"), 4), numbers(row.get("bboxVis"), 4)
    if xywh is None or label not in (*NAMES, *IGNORED):
        problems.add("person without a box or of an unknown kind: left out", f"{where}: {label}")
        return None
    left, top, width, height = xywh
    occlusion = None
    if seen is not None and width * height > 0:
        share = seen[2] * seen[3] / (width * height)
        occlusion = 0 if share >= VISIBLE[0] else 1 if share >= VISIBLE[1] else 2
    return Box(label, (left, top, left + width, top + height), ignore=label in IGNORED, occlusion=occlusion)


FORMAT = Format("citypersons", "gtBboxCityPersons/SPLIT/CITY/*.json with leftImg8bit/ (CityPersons)", present, read)
