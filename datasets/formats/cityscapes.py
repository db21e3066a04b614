"""Cityscapes: `gtFine/SPLIT/CITY/*_gtFine_polygons.json` with `leftImg8bit/`.

A polygon's corners are pixels that belong to the object, so its box reaches one pixel further to the right and down.
Labels that end in `group` hold several objects and are ignored. Polygons are painted in their order, so that cars and
people on the road are no road; the ego vehicle and the image's border are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.formats.annotations import (
    BAD_CORNER,
    AnnotatedImage,
    AnnotationSet,
    Box,
    BoxXYXY,
    Format,
    Polygon,
    Problems,
    RoadPart,
    envelope,
)
from datasets.formats.paths import ImageFinder, dicts, image_name, json_of, numbers, size_of, split_of
from datasets.sample import ROAD_IGNORE
from perception.errors import UserError

OBJECTS = ("car", "truck", "bus", "train", "caravan", "trailer", "motorcycle", "bicycle", "person", "rider")
VOID = ("ego vehicle", "out of roi", "rectification border")
LABELS = "gtFine", "_gtFine_polygons.json"
IMAGES = "_leftImg8bit.png"


def label_files(path: Path, folder: str, suffix: str) -> list[Path]:
    """Return the label files of all splits and cities below a folder."""
    base = path / folder if (path / folder).is_dir() else path
    return (
        sorted(base.rglob(f"*{suffix}")) if base.is_dir() and (base.name == folder or base == path / folder) else []
    )


def present(path: Path) -> bool:
    """Whether a folder holds Cityscapes' polygons."""
    return bool(label_files(path, *LABELS))


def image_of(file: Path, root: Path, suffix: str, finder: ImageFinder, problems: Problems) -> tuple[Path | None, str]:
    """Return the image of a label file, and its split."""
    city, split = file.parent.name, file.parent.parent.name
    name = file.name.removesuffix(suffix)
    where = finder.root / "leftImg8bit" / split / city / f"{name}{IMAGES}"
    return (where if where.is_file() else finder(f"{name}{IMAGES}", problems)), split_of(split)


def labelled_images(
    path: Path, labels: tuple[str, str], what: str, problems: Problems
) -> Iterator[tuple[AnnotatedImage, dict[str, Any], str]]:
    """Yield each labelled image without its labels, the content of its label file, and that file's name.

    Raises:
        UserError: a label file holds no JSON object.
    """
    root = root_of(path, labels[0])
    finder = ImageFinder(root)
    for file in label_files(path, *labels):
        where, split = image_of(file, root, labels[1], finder, problems)
        if where is None:
            continue
        content = json_of(file, what)
        if not isinstance(content, dict):
            raise UserError(f"{file}: no JSON object", what)
        size_hw = size_of(content.get("imgHeight"), content.get("imgWidth"))
        image = AnnotatedImage(image_name(where, root), where, size_hw, (), file.parent.name, split)
        yield image, content, file.name


def root_of(path: Path, folder: str) -> Path:
    """Return the root of a data set that is named by itself or by its folder of labels."""
    return path.parent if path.name == folder else path


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read objects and road of every labelled image."""
    images = []
    for image, content, name in labelled_images(path, LABELS, "Cityscapes' polygons", problems):
        boxes, road = _objects(content, name, problems)
        images.append(replace(image, boxes=tuple(boxes), road=tuple(road)))
    root = root_of(path, LABELS[0])
    return AnnotationSet(root, OBJECTS, tuple(images))


def _objects(content: dict[str, Any], where: str, problems: Problems) -> tuple[list[Box], list[RoadPart]]:
    boxes, road = [], []
    for one in dicts(content.get("objects", []), where):
        label, points = str(one.get("label")), one.get("polygon")
        corners = [numbers(point, 2) or BAD_CORNER for point in points] if isinstance(points, list) else []
        flat = [value for corner in corners for value in corner]
        if one.get("deleted"):
            continue
        if len(flat) < 6:
            problems.add("polygon of fewer than three points: left out", f"{where}: {label}")
            continue
        polygon = tuple(value + 0.5 for value in flat)  # through the middle of its pixels
        road.append(RoadPart(polygon, ROAD_IGNORE if label in VOID else int(label == "road")))
        single = label.removesuffix("group")
        if single in OBJECTS:
            boxes.append(Box(single, _box(polygon), ignore=label != single, polygons=(polygon,)))
    return boxes, road


def _box(polygon: Polygon) -> BoxXYXY:
    left, top, right, bottom = envelope([polygon])
    return left - 0.5, top - 0.5, right + 0.5, bottom + 0.5


FORMAT = Format(
    "cityscapes", "gtFine/SPLIT/CITY/*_gtFine_polygons.json with leftImg8bit/ (Cityscapes)", present, read
)
