"""`perception data convert`: labels of any known format in another."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from datasets.formats import check_new, format_named, read, write
from datasets.formats.annotations import AnnotationSet, Problems
from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError


@dataclass(frozen=True)
class ConvertOptions(CommandOptions):
    """Convert labels with their images. What the labels have wrong, and what the new format cannot hold, is listed.

    Reads KITTI, COCO, YOLO, Pascal VOC, BDD100K, nuImages, Cityscapes, CityPersons, CVAT, Label Studio and
    MOTChallenge.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Folder or label file."""
    out: Annotated[Path, tyro.conf.Positional]
    """New folder for the labels and images."""
    to: Literal["kitti", "coco", "yolo", "voc", "cvat", "label_studio"]
    """Format to write."""
    source_format: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Format to read, such as voc; default: recognised."""
    images: Literal["copy", "link"] = "copy"
    """Copy the images, or make hard links, which take no space on the same disk."""
    classes: tuple[str, ...] = ()
    """Label names to keep, as the files write them; default: all."""
    val: tuple[str, ...] = ()
    """Recordings that become the split val; all others become train. A folder of images is a recording."""
    all: bool = False
    """List every place instead of the first five of each kind."""
    json: bool = False
    """Print the result as JSON."""


def main(argv: list[str]) -> int:
    """Convert, and return 0; 1 where no image is left."""
    options = parse_options(ConvertOptions, argv, "perception data convert", names={"source_format": "from"})
    format_named(options.to)
    check_new(options.out)
    problems = Problems()
    found = read(options.source, problems, options.source_format)
    found = _split(_chosen(found, options.classes, problems), options.val)
    if not found.images:
        print("\n".join(problems.lines(None if options.all else 5)))
        raise UserError(f"{options.source}: no image with labels is left", "images beside the labels")
    missing = write(found, options.out, options.to, options.images)
    boxes = sum(len(image.boxes) for image in found.images)
    if options.json:
        values = {
            "out": str(options.out),
            "images": len(found.images),
            "boxes": boxes,
            "classes": list(found.labels),
            "problems": dict(problems.counts.most_common()),
            "not_carried": dict(missing),
        }
        print(json.dumps(values, indent=1))
        return 0
    print(f"{options.out}: {len(found.images)} images, {boxes} boxes of {', '.join(found.labels) or 'no class'}")
    for line in problems.lines(None if options.all else 5):
        print(f"  {line}")
    for name, count in missing.most_common():
        print(f"  {options.to} cannot hold {name}: {count}")
    print(f"next: perception data check {options.out}")
    return 0


def _split(found: AnnotationSet, val: tuple[str, ...]) -> AnnotationSet:
    """Return the set with recordings moved to the split val."""
    if not val:
        return found
    drives = sorted({image.drive for image in found.images if image.drive})
    if unknown := [name for name in val if name not in drives]:
        raise UserError(f"--val {unknown[0]}", f"a recording: {', '.join(drives[:20]) or 'this set names none'}")
    images = (replace(image, split="val" if image.drive in val else "train") for image in found.images)
    return replace(found, images=tuple(images))


def _chosen(found: AnnotationSet, classes: tuple[str, ...], problems: Problems) -> AnnotationSet:
    """Return the set with some of its classes; ignore regions are kept."""
    if not classes:
        return found
    if unknown := [name for name in classes if name not in found.labels]:
        raise UserError(f"--classes {unknown[0]}", f"some of {', '.join(found.labels)}")
    images = []
    for image in found.images:
        kept = tuple(box for box in image.boxes if box.ignore or box.label in classes)
        if len(kept) < len(image.boxes):
            problems.add("box of a class that was not chosen: left out", image.name, len(image.boxes) - len(kept))
        images.append(replace(image, boxes=kept))
    ignored = {box.label for image in images for box in image.boxes if box.ignore}
    ids = dict(zip(found.labels, found.label_ids or range(1, len(found.labels) + 1), strict=True))
    labels = tuple(name for name in found.labels if name in classes or name in ignored)
    numbers = tuple(ids[name] for name in labels) if found.label_ids else ()
    return replace(found, labels=labels, images=tuple(images), label_ids=numbers)
