"""Pascal VOC's XML: `Annotations/NAME.xml` with `JPEGImages/`.

Pixels count from 1 and the last one belongs to the box: 1 1 1 1 is the first pixel alone, here 0 0 1 1. Objects
marked `difficult` are ignored, as in VOC's evaluation.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from datasets.formats.annotations import AnnotatedImage, AnnotationSet, Box, Format, Problems
from datasets.formats.paths import ImageFinder, image_name, road_of, size_of, xml_of
from perception.errors import UserError
from perception.files import data_files, read_text

EXPECTED = "Annotations/*.xml with JPEGImages/"
_FOLDERS = ("JPEGImages", "images", "")


def present(path: Path) -> bool:
    """Whether a folder holds VOC's annotations."""
    return (path / "Annotations").is_dir() and next((path / "Annotations").glob("*.xml"), None) is not None


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read every annotation of a folder."""
    splits = {
        name.split()[0]: file.stem
        for folder in ("Main", "")
        for file in sorted((path / "ImageSets" / folder).glob("*.txt"))
        if file.stem in ("train", "val", "test")
        for name in read_text(file).splitlines()
        if name.strip()
    }
    finder, images = ImageFinder(path, _FOLDERS), []
    for file in data_files(path / "Annotations", (".xml",)):
        try:
            root = xml_of(file)
        except UserError as error:
            problems.add("label file that cannot be read: its image is left out", error.found)
            continue
        image = finder(root.findtext("filename") or f"{file.stem}.jpg", problems)
        if image is None:
            continue
        size_hw = size_of(root.findtext("size/height"), root.findtext("size/width"))
        boxes = tuple(box for one in root.iter("object") if (box := _box(one, file.stem, problems)) is not None)
        name = image_name(image, path).removeprefix("JPEGImages/")
        images.append(AnnotatedImage(name, image, size_hw, boxes, "", splits.get(file.stem, ""), road_of(path, name)))
    labels = dict.fromkeys(box.label for image in images for box in image.boxes)
    return AnnotationSet(path, tuple(sorted(labels)), tuple(images))


def _box(one: Element, where: str, problems: Problems) -> Box | None:
    label = (one.findtext("name") or "").strip()
    try:
        left, top, right, bottom = (
            float(one.findtext(f"bndbox/{k}") or "") for k in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        problems.add("object without a box: left out", f"{where}: {label}")
        return None
    if not label:
        problems.add("object without a name: left out", where)
        return None
    attributes = [(key, text.strip()) for key in ("pose",) if (text := one.findtext(key)) and text != "Unspecified"]
    truncated = (one.findtext("truncated") or "").strip()
    difficult = (one.findtext("difficult") or "").strip() == "1"
    return Box(
        label,
        (left - 1, top - 1, right, bottom),
        ignore=difficult,
        attributes=tuple(attributes + [("truncated", truncated)] * (truncated == "1")),
    )


FORMAT = Format("voc", "Annotations/*.xml with JPEGImages/ (Pascal VOC)", present, read)
