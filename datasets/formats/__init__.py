"""Formats of label files, one a file, found by file name. `read` and `write` are all that other rooms need."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

from datasets.formats.annotations import (
    ROAD_FOLDER,
    AnnotatedImage,
    AnnotationSet,
    Format,
    Problems,
    as_mask_file,
    lost,
    road_mask,
)
from datasets.formats.clean import clean
from perception.errors import UserError
from perception.files import make_folder, write_atomically
from perception.progress import Progress

NOT_FORMATS = frozenset({"annotations", "clean", "cli", "masks", "paths"})
"""Modules of this folder that are no formats."""
ImageMode = Literal["copy", "link"]


@cache
def formats() -> tuple[Format, ...]:
    """Return every format, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in NOT_FORMATS)
    return tuple(importlib.import_module(f"{__name__}.{name}").FORMAT for name in names)


def format_named(name: str) -> Format:
    """Return a format by name.

    Raises:
        UserError: there is none of that name.
    """
    for one in formats():
        if one.name == name:
            return one
    raise UserError(f"unknown format '{name}'", "one of " + ", ".join(one.name for one in formats()))


def find_format(path: Path) -> Format:
    """Return the format of a file or folder.

    Raises:
        UserError: no such path, no known format, or more than one.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder", "labels with their images", "check the path")
    found = [one for one in formats() if one.present(path)]
    if len(found) == 1:
        return found[0]
    shapes = "; ".join(one.shape for one in found or formats())
    if found:
        names = ", ".join(one.name for one in found)
        raise UserError(f"{path}: labels in several formats: {names}", shapes, f"--from {found[0].name}")
    raise UserError(f"{path}: no labels of a known format", f"one of: {shapes}")


def read(path: Path, problems: Problems, name: str = "") -> AnnotationSet:
    """Read labels of any format, without what cannot be used.

    Args:
        path: file or folder.
        problems: receives what is wrong.
        name: the format; empty: recognised.

    Raises:
        UserError: no known format, or a file that is not of its format at all.
    """
    form = format_named(name) if name else find_format(path)
    return clean(form.read(path, problems), problems)


def write(found: AnnotationSet, out: Path, name: str, images: ImageMode = "copy") -> Counter[str]:
    """Write a set with its images to a new folder.

    Args:
        found: the set. Every image has its size.
        out: folder; made, and refused where it holds anything.
        name: the format.
        images: copy the images, or make hard links where the file system can.

    Returns:
        What the format cannot carry, by name and count.

    Raises:
        UserError: the format is only read, the folder holds files, or it cannot be written.
    """
    form = format_named(name)
    if form.write is None or form.image_path is None:
        writable = ", ".join(one.name for one in formats() if one.write)
        raise UserError(f"--to {name}: this format is only read", f"one of {writable}", "--to coco")
    check_new(out)
    make_folder(out)
    places = [form.image_path(image) for image in found.images]
    if len(set(places)) < len(places):
        raise UserError(f"{found.root}: two images would be {_twice(places)}", "names that stay apart", "rename one")
    with Progress("images written") as progress:
        for i, (image, place) in enumerate(zip(found.images, places, strict=True)):
            _put(image.path, out / f"{place}{image.path.suffix.lower()}", images)
            road = road_mask(image.road, image.size_hw)
            if road is not None:
                write_atomically(out / ROAD_FOLDER / f"{_name_in(form, image)}.png", as_mask_file(road))
            progress.update(i + 1, len(places))
    named = tuple(replace(image, path=image.path.with_suffix(image.path.suffix.lower())) for image in found.images)
    form.write(replace(found, images=named), out)
    return lost(found.images, form.carries)


def check_new(out: Path) -> None:
    """Refuse an output folder that holds anything.

    Raises:
        UserError: it does, or is a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = "holds files" if out.is_dir() else "is a file"
        raise UserError(f"{out}: {found}", "a new or empty folder", f"another folder, such as {out}-2")


def _name_in(form: Format, image: AnnotatedImage) -> str:
    """Return the name that an image has when the written set is read: most formats know no folders."""
    from datasets.formats.kitti import flat

    return image.name if form.name in ("coco", "yolo", "cvat") else flat(image.name)


def _twice(places: Sequence[str]) -> str:
    return next(place for place, count in Counter(places).items() if count > 1)


def _put(source: Path, target: Path, mode: ImageMode) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if mode == "link":
        with suppress(OSError):
            os.link(source.resolve(), target)
            return
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror}", "a disk with room for the images", "--images link") from None
