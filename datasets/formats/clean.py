"""What labels of any format may have wrong: images that are missing or of another size, boxes that cannot be."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

import imagesize

from datasets.formats.annotations import (
    DONT_CARE,
    AnnotatedImage,
    AnnotationSet,
    Box,
    Polygon,
    Problems,
    Road,
    is_finite,
)
from datasets.formats.masks import Mask
from datasets.formats.paths import MISSING
from perception.errors import UserError
from perception.files import MAX_MEGAPIXELS
from perception.formats.images import check_pixels

CROWD = "crowd or ignore region: neither trained nor judged"
ROTATED = "image rotated by EXIF: labels belong to the upright image"
NOTES = frozenset({CROWD, ROTATED})
"""What is counted and is no fault."""
BAD_OUTLINE = "outline with a corner that is no finite number"
SHORT_OUTLINE = "outline of fewer than three points: left out"
BAD_MASK = "run-length mask that is broken or of another size: left out"
REACHES_OUT_PX = 1.0
"""A box may reach out of its image by this much: rounding, and formats that count the last pixel."""


def clean(found: AnnotationSet, problems: Problems) -> AnnotationSet:
    """Return the set with sizes of upright images, without what cannot be used. Each omission is a problem."""
    images: dict[str, AnnotatedImage] = {}
    for image in found.images:
        if image.name in images:
            problems.add("image listed twice: the first counts", image.name)
            continue
        size_hw = _size(image, problems)
        if size_hw is None:
            continue
        image = replace(image, size_hw=size_hw)
        boxes, road = tuple(_boxes(image, problems)), _road(image, problems)
        images[image.name] = replace(image, boxes=boxes, road=road)
    labels = dict.fromkeys(found.labels)
    images = {name: _of_no_class(image, labels) for name, image in images.items()}
    strangers: dict[str, int] = {}
    for image in images.values():
        for box in image.boxes:
            if box.label not in labels and not box.ignore:
                strangers[box.label] = strangers.get(box.label, 0) + 1
    for label, count in strangers.items():
        problems.add("class that is not in the set's list of classes: added", label, count)
    images = _with_drives(images)
    ids = found.label_ids
    if ids and strangers:
        ids = (*ids, *range(max(ids) + 1, max(ids) + 1 + len(strangers)))
    return replace(found, labels=(*labels, *strangers), images=tuple(images.values()), label_ids=ids)


def _of_no_class(image: AnnotatedImage, labels: Container[str]) -> AnnotatedImage:
    """Call ignore regions whose label is no class of the set `DONT_CARE`."""
    boxes = (replace(box, label=DONT_CARE) if box.ignore and box.label not in labels else box for box in image.boxes)
    return replace(image, boxes=tuple(boxes))


def _with_drives(images: dict[str, AnnotatedImage]) -> dict[str, AnnotatedImage]:
    """Take the folders of images as their recordings, where the labels name none and there are several folders."""
    folders = {name: name.rpartition("/")[0] for name in images}
    if any(image.drive for image in images.values()) or len(set(folders.values())) < 2 or "" in folders.values():
        return images
    return {name: replace(image, drive=folders[name]) for name, image in images.items()}


def _size(image: AnnotatedImage, problems: Problems) -> tuple[int, int] | None:
    """Return the size of the upright image; None where it cannot be used."""
    try:
        width, height = imagesize.get(image.path)
        stored_width, stored_height = imagesize.get(image.path, exif_rotation=False)
        if not image.path.is_file():
            raise OSError
        check_pixels((height, width), MAX_MEGAPIXELS, image.name)
    except UserError:
        problems.add(f"image of more than {MAX_MEGAPIXELS:g} megapixels: left out", image.name)
        return None
    except FileNotFoundError:
        problems.add(MISSING, image.name)
        return None
    except Exception:  # whatever a parser of untrusted bytes may raise
        width = height = stored_width = stored_height = -1
    if width < 1 or height < 1:
        problems.add("unreadable image: left out", image.name)
        return None
    upright, stored, given = (height, width), (stored_height, stored_width), image.size_hw
    if given not in ((0, 0), upright):
        if given == stored:
            problems.add("labels of an image before its EXIF rotation: left out; rotate the file itself", image.name)
        else:
            said = f"{image.name}: labels of {given[1]}x{given[0]}, image of {width}x{height}"
            problems.add("image of another size than its labels: left out", said)
        return None
    if upright != stored:
        problems.add(ROTATED, image.name)
    return upright


def _boxes(image: AnnotatedImage, problems: Problems) -> Iterator[Box]:
    height, width = image.size_hw
    seen: set[tuple[object, ...]] = set()
    for box in image.boxes:
        left, top, right, bottom = box.xyxy
        where = f"{image.name}: {box.label} {left:g} {top:g} {right:g} {bottom:g} in {width}x{height}"
        if not all(map(math.isfinite, box.xyxy)):
            problems.add("box with a corner that is no finite number: left out", where)
            continue
        if right <= left or bottom <= top:
            problems.add("box without area: left out", where)
            continue
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            problems.add("box outside its image: left out", where)
            continue
        key = (box.label, box.xyxy, box.ignore, box.track_id)
        if key in seen:
            problems.add("box listed twice: the first counts", where)
            continue
        seen.add(key)
        if min(left, top) < -REACHES_OUT_PX or max(right - width, bottom - height) > REACHES_OUT_PX:
            problems.add("box reaches out of its image: kept; training clips it", where)
        if box.ignore:
            problems.add(CROWD, where)
        outlines = tuple(_outlines(box.polygons, where, problems))
        mask = box.mask
        if mask is not None and mask.size_hw != image.size_hw:
            problems.add(f"{BAD_MASK}, its box kept", where)
            mask = None
        yield replace(box, polygons=outlines, mask=mask)


def _outlines(polygons: Sequence[Polygon], where: str, problems: Problems) -> Iterator[Polygon]:
    """Iterate over the polygons that can be painted."""
    for polygon in polygons:
        if not is_finite(polygon):
            problems.add(f"{BAD_OUTLINE}: left out, its box kept", where)
        elif len(polygon) < 6:
            problems.add(f"{SHORT_OUTLINE}, its box kept", where)
        else:
            yield polygon


def _road(image: AnnotatedImage, problems: Problems) -> Road:
    """Return the road label without parts that enclose nothing; None where a part cannot be read.

    The rest of a damaged label would teach that the missing part is no road.
    """
    if not isinstance(image.road, tuple):
        return image.road
    kept = []
    for part in image.road:
        if isinstance(part.shape, Mask):
            if part.shape.size_hw != image.size_hw:
                problems.add(f"{BAD_MASK}, and the image taken as without road labels", image.name)
                return None
        elif not is_finite(part.shape):
            problems.add(f"road {BAD_OUTLINE}: the image is taken as without road labels", image.name)
            return None
        elif len(part.shape) < 6:
            problems.add(f"road {SHORT_OUTLINE}", image.name)
            continue
        kept.append(part)
    return tuple(kept)
