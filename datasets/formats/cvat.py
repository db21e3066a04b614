"""CVAT's XML 1.1, of images (`<image>` with its shapes) and of videos (`<track>` with a shape a frame).

Coordinates are continuous pixels from 0. Frames of a video are found as CVAT exports them, `frame_000000.PNG`, or by
their number. Images of a subset lie in `images/SUBSET`, as in CVAT's exports of projects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from datasets.formats.annotations import (
    BAD_CORNER,
    DONT_CARE,
    AnnotatedImage,
    AnnotationSet,
    Box,
    Format,
    Polygon,
    Problems,
    RoadPart,
    envelope,
)
from datasets.formats.coco import ROAD_CATEGORIES
from datasets.formats.masks import Mask, of_cvat
from datasets.formats.paths import (
    ImageFinder,
    head,
    image_name,
    numbers,
    road_of,
    rounded,
    size_of,
    split_of,
    walk_images,
    xml_of,
)
from perception.errors import UserError
from perception.files import inside, write_atomically

EXPECTED = "annotations.xml of CVAT"
WITHOUT = {
    "box": "box without corners: left out",
    "polygon": "polygon of fewer than three points: left out",
    "mask": "run-length mask that is broken or empty: left out",
}
SHAPES = tuple(WITHOUT)
"""Tags that are read, with what is wrong where one has no place."""


def _file(path: Path) -> Path | None:
    files = [path] if path.is_file() else [path / "annotations.xml", *sorted(path.glob("*.xml"))]
    good = (file for file in files if file.suffix == ".xml" and file.is_file())
    return next((file for file in good if "<annotations>" in head(file)), None)


def present(path: Path) -> bool:
    """Whether a file or folder holds CVAT's XML."""
    return _file(path) is not None


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read the labels of images, or of a video's frames."""
    file = _file(path)
    if file is None:
        raise UserError(f"{path}: no annotations.xml", EXPECTED)
    xml = xml_of(file)
    listed = (label.findtext("name") or "" for label in xml.iter("label") if label.find("name") is not None)
    no_class = (*ROAD_CATEGORIES, DONT_CARE.lower())
    labels = tuple(dict.fromkeys(name for name in listed if name and name.lower() not in no_class))
    has_road = any((label.findtext("name") or "").lower() in ROAD_CATEGORIES for label in xml.iter("label"))
    finder = ImageFinder(file.parent, ("images", ""))
    frames = _images if xml.find("track") is None else _video
    found = frames(xml, finder, has_road, problems)
    return AnnotationSet(file.parent, labels, tuple(found))


def _images(xml: Element, finder: ImageFinder, has_road: bool, problems: Problems) -> Iterator[AnnotatedImage]:
    for image in xml.iter("image"):
        subset, given = image.get("subset") or "", image.get("name") or ""
        where = inside(finder.root, f"images/{subset}/{given}") if subset else None
        if where is None or not where.is_file():
            where = finder(given, problems)
        if where is None:
            continue
        name = image_name(where, finder.root).removeprefix("images/")
        name = name.removeprefix(f"{subset}/") if subset else name
        size_hw = size_of(image.get("height"), image.get("width"))
        boxes: list[Box] = []
        road: list[RoadPart] = []
        for shape in image:
            if shape.tag not in SHAPES:
                if shape.tag != "tag":
                    problems.add("shape that is no box, polygon or mask: left out", f"{name}: {shape.tag}")
                continue
            label = shape.get("label") or ""
            found = _shape(shape, label, size_hw, f"{name}: {label}", problems)
            if isinstance(found, RoadPart):
                road.append(found)
            elif found is not None:
                boxes.append(found)
        split = split_of(subset)
        mask = tuple(road) if has_road else road_of(finder.root, name)
        yield AnnotatedImage(name, where, size_hw, tuple(boxes), "", split, mask)


def _video(xml: Element, finder: ImageFinder, has_road: bool, problems: Problems) -> Iterator[AnnotatedImage]:
    size = xml.find("meta//original_size")
    size_hw = size_of(size.findtext("height"), size.findtext("width")) if size is not None else (0, 0)
    boxes: dict[int, list[Box]] = {}
    roads: dict[int, list[RoadPart]] = {}
    for track in xml.iter("track"):
        label, number = track.get("label") or "", track.get("id") or ""
        for shape in track:
            frame = shape.get("frame") or ""
            if not frame.isdecimal() or shape.get("outside") == "1":
                continue
            where = f"frame {frame}: {label}"
            if shape.tag not in SHAPES:
                problems.add("shape that is no box, polygon or mask: left out", f"{where}: {shape.tag}")
                continue
            found = _shape(shape, label, size_hw, where, problems, int(number) if number.isdecimal() else None)
            if isinstance(found, RoadPart):
                roads.setdefault(int(frame), []).append(found)
            elif found is not None:
                boxes.setdefault(int(frame), []).append(found)
    frames = {int(digits): path for path in walk_images(finder.root) if (digits := _digits(path.stem))}
    for missing in sorted(set(boxes) - set(frames)):
        problems.add("frame of a video without an image: left out", f"frame {missing}", len(boxes[missing]))
    for frame_number, path in sorted(frames.items()):
        name = image_name(path, finder.root).removeprefix("images/")
        mine, road = tuple(boxes.get(frame_number, ())), tuple(roads.get(frame_number, ()))
        drive = finder.root.name
        mask = road if has_road else road_of(finder.root, name)
        yield AnnotatedImage(name, path, size_hw, mine, drive, "", mask)


def _digits(stem: str) -> str:
    digits = stem.rpartition("_")[2]
    return digits if digits.isdecimal() and len(digits) < 12 else ""


def _points(shape: Element) -> Polygon:
    pairs = [numbers(pair.split(","), 2) for pair in (shape.get("points") or "").split(";") if pair]
    return tuple(value for pair in pairs for value in pair or BAD_CORNER)


def _shape(
    shape: Element,
    label: str,
    size_hw: tuple[int, int],
    where: str,
    problems: Problems,
    track_id: int | None = None,
) -> Box | RoadPart | None:
    """Return an object, or a part of the road; None, with a problem, where it cannot be read."""
    outline, mask = _points(shape), None
    if shape.tag == "mask":
        window = numbers([shape.get(key) for key in ("left", "top", "width", "height")])
        mask = of_cvat(shape.get("rle") or "", window, size_hw)
    if label.lower() in ROAD_CATEGORIES and (outline or mask is not None):
        return RoadPart(outline if mask is None else mask)
    return _box(shape, label, outline, mask, where, problems, track_id)


def _box(
    shape: Element,
    label: str,
    outline: Polygon,
    mask: Mask | None,
    where: str,
    problems: Problems,
    track_id: int | None,
) -> Box | None:
    corners = numbers([shape.get(key) for key in ("xtl", "ytl", "xbr", "ybr")])
    if mask is not None:
        corners = mask.box()
    elif corners is None and len(outline) >= 6:
        corners = envelope([outline])
    if corners is None or not label:
        problems.add(WITHOUT[shape.tag] if corners is None else "shape without a label: left out", where)
        return None
    if any(numbers([shape.get("rotation") or "0"]) or ()):
        problems.add("rotated box: its corners before the rotation are read", where)
    left, top, right, bottom = corners
    attributes = {one.get("name") or "": (one.text or "").strip() for one in shape.iter("attribute")}
    score, ignored = numbers([attributes.pop("score", None)]), attributes.pop("ignore", "") in ("1", "true")
    occluded = shape.get("occluded")
    outlines = (outline,) if len(outline) >= 6 else ()
    occlusion = int(occluded) if occluded in ("0", "1") else None
    return Box(
        label,
        (left, top, right, bottom),
        score=score[0] if score else None,
        track_id=track_id,
        ignore=ignored or label == DONT_CARE,
        occlusion=occlusion,
        polygons=outlines,
        mask=mask,
        attributes=tuple(attributes.items()),
    )


def write(found: AnnotationSet, out: Path) -> None:
    """Write `annotations.xml` of images, which CVAT imports as "CVAT for images 1.1".

    Scores and ignore regions are attributes, which every label declares.
    """
    names = sorted({name for image in found.images for box in image.boxes for name, _ in _attributes(box)})
    labels = dict.fromkeys((*found.labels, *(box.label for image in found.images for box in image.boxes)))
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    listed = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    for label in labels:
        entry = SubElement(listed, "label")
        SubElement(entry, "name").text = label
        declared = SubElement(entry, "attributes")
        for name in names:
            attribute = SubElement(declared, "attribute")
            for key, value in (("name", name), ("mutable", "False"), ("input_type", "text"), ("default_value", "")):
                SubElement(attribute, key).text = value
            SubElement(attribute, "values")
    for i, image in enumerate(found.images):
        height, width = image.size_hw
        name = image.name + image.path.suffix
        about = {"id": str(i), "name": name, "width": str(width), "height": str(height)}
        entry = SubElement(root, "image", {**about, **({"subset": image.split} if image.split else {})})
        for box in image.boxes:
            corners = zip(("xtl", "ytl", "xbr", "ybr"), box.xyxy, strict=True)
            places = {key: f"{rounded(value)}" for key, value in corners}
            occluded = str(int(bool(box.occlusion)))
            shape = SubElement(entry, "box", {"label": box.label, "occluded": occluded, **places, "z_order": "0"})
            for name, value in _attributes(box):
                SubElement(shape, "attribute", {"name": name}).text = value
    indent(root)
    write_atomically(out / "annotations.xml", tostring(root, encoding="unicode", xml_declaration=True) + "\n")


def _attributes(box: Box) -> list[tuple[str, str]]:
    more = [("score", f"{box.score}")] if box.score is not None else []
    return [*box.attributes, *more, *([("ignore", "1")] if box.ignore else [])]


FORMAT = Format(
    name="cvat",
    shape="annotations.xml (CVAT for images or video, 1.1)",
    present=present,
    read=read,
    write=write,
    image_path=lambda image: f"images/{image.split}/{image.name}" if image.split else f"images/{image.name}",
    carries=frozenset(
        {
            "scores",
            "ignore regions",
            "classes of ignore regions",
            "attributes",
            "labels with spaces (written with _)",
            "splits",
            "splits besides train and val",
        }
    ),
)
