"""Pascal VOC's XML: `Annotations/NAME.xml` with `JPEGImages/`.

Pixels count from 1 and the last one belongs to the box: 1 1 1 1 is the first pixel alone, here 0 0 1 1. Objects
marked `difficult` are ignored, as in VOC's evaluation.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from datasets.formats.annotations import DONT_CARE, AnnotatedImage, AnnotationSet, Box, Format, Problems
from datasets.formats.kitti import flat
from datasets.formats.paths import ImageFinder, image_name, road_of, rounded, size_of, walk_images, xml_of
from perception.errors import UserError
from perception.files import data_files, read_text, write_atomically

EXPECTED = "Annotations/*.xml with JPEGImages/"
LABEL_MAP = "labelmap.txt"
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
    finder, images, used = ImageFinder(path, _FOLDERS), [], set()
    for file in data_files(path / "Annotations", (".xml",)):
        try:
            root = xml_of(file)
        except UserError as error:
            problems.add("label file that cannot be read: its image is left out", error.found)
            continue
        image = finder(root.findtext("filename") or f"{file.stem}.jpg", problems)
        if image is None:
            continue
        used.add(image)
        size_hw = size_of(root.findtext("size/height"), root.findtext("size/width"))
        boxes = tuple(box for one in root.iter("object") if (box := _box(one, file.stem, problems)) is not None)
        name = image_name(image, path).removeprefix("JPEGImages/")
        images.append(AnnotatedImage(name, image, size_hw, boxes, "", splits.get(file.stem, ""), road_of(path, name)))
    for lone in walk_images(path / "JPEGImages"):
        if lone not in used:
            problems.add("image without a label file: left out", lone.name)
    found = sorted({box.label for image in images for box in image.boxes} - {DONT_CARE})
    return AnnotationSet(path, tuple(dict.fromkeys((*_listed(path), *found))), tuple(images))


def _listed(path: Path) -> list[str]:
    """Return the class names of `labelmap.txt`, as CVAT writes it: `name:colour:parts:actions` a line."""
    file = path / LABEL_MAP
    lines = read_text(file).splitlines() if file.is_file() else []
    names = [line.partition(":")[0].strip() for line in lines if not line.startswith("#")]
    return [name for name in names if name and name not in ("background", DONT_CARE)]


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
    pose, truncated = ((one.findtext(key) or "").strip() for key in ("pose", "truncated"))
    attributes = [("pose", pose)] * (pose not in ("", "Unspecified")) + [("truncated", "1")] * (truncated == "1")
    difficult = (one.findtext("difficult") or "").strip() == "1"
    return Box(
        label,
        (left - 1, top - 1, right, bottom),
        ignore=difficult or label == DONT_CARE,
        attributes=tuple(attributes),
    )


def write(found: AnnotationSet, out: Path) -> None:
    """Write one XML file an image, `labelmap.txt`, and `ImageSets/Main` where the set has splits.

    Datumaro, and with it CVAT, refuses classes that the label map does not list.
    """
    strangers = {box.label for image in found.images for box in image.boxes} - set(found.labels)
    rows = "".join(f"{name}:::\n" for name in ("background", *found.labels, *sorted(strangers)))
    write_atomically(out / LABEL_MAP, f"# label:color_rgb:parts:actions\n{rows}")
    for image in found.images:
        height, width = image.size_hw
        root = Element("annotation")
        SubElement(root, "filename").text = flat(image.name) + image.path.suffix
        size = SubElement(root, "size")
        for key, value in (("width", width), ("height", height), ("depth", 3)):
            SubElement(size, key).text = str(value)
        for box in image.boxes:
            entry = SubElement(root, "object")
            SubElement(entry, "name").text = box.label
            said = dict(box.attributes)
            SubElement(entry, "pose").text = said.get("pose", "Unspecified")
            SubElement(entry, "truncated").text = str(int(bool(box.truncation) or said.get("truncated") == "1"))
            SubElement(entry, "difficult").text = str(int(box.ignore))
            corners = SubElement(entry, "bndbox")
            left, top, right, bottom = box.xyxy
            for key, number in (("xmin", left + 1), ("ymin", top + 1), ("xmax", right), ("ymax", bottom)):
                SubElement(corners, key).text = f"{rounded(number)}"
        indent(root)
        write_atomically(out / "Annotations" / f"{flat(image.name)}.xml", tostring(root, encoding="unicode") + "\n")
    for split in {image.split for image in found.images} - {""}:
        names = sorted(flat(image.name) for image in found.images if image.split == split)
        write_atomically(out / "ImageSets/Main" / f"{split}.txt", "".join(f"{name}\n" for name in names))


FORMAT = Format(
    name="voc",
    shape="Annotations/*.xml with JPEGImages/ (Pascal VOC)",
    present=present,
    read=read,
    write=write,
    image_path=lambda image: f"JPEGImages/{flat(image.name)}",
    carries=frozenset(
        {
            "ignore regions",
            "classes of ignore regions",
            "labels with spaces (written with _)",
            "splits",
            "splits besides train and val",
        }
    ),
)
