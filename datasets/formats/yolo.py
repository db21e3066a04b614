"""YOLO's text files: `class x y width height` a row, centre and size as shares of the image's width and height.

A data YAML names the classes and the folders or lists of images of each split. The label file of
`images/train/a.jpg` is `labels/train/a.txt`; without an `images` folder it lies beside the image. A row with more
numbers is a polygon of shares; one with six has a score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import imagesize

from datasets.formats.annotations import AnnotatedImage, AnnotationSet, Box, BoxXYXY, Format, Problems, envelope
from datasets.formats.paths import (
    MISSING,
    OUTSIDE,
    image_name,
    road_of,
    rounded,
    walk_images,
    yaml_of,
)
from perception.errors import UserError
from perception.files import inside, read_text, write_atomically

EXPECTED = "data.yaml with names, train and val; or images/, labels/ and classes.txt"
SPLITS = ("train", "val", "test")
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")
LARGEST_SHARE = 1.5
"""A row with a larger number is in pixels. A box that only reaches out of its image stays below."""


def yaml_file(path: Path) -> Path | None:
    """Return the data YAML of a file or folder, if there is one."""
    if path.is_file():
        return path if path.suffix in (".yaml", ".yml") and _is_data_yaml(path) else None
    found = sorted([*path.glob("*.yaml"), *path.glob("*.yml")], key=lambda file: (file.stem != "data", file.name))
    return next((file for file in found if _is_data_yaml(file)), None)


def _is_data_yaml(path: Path) -> bool:
    try:
        values = yaml_of(path)
    except UserError:
        return False
    return "names" in values and any(split in values for split in SPLITS)


def present(path: Path) -> bool:
    """Whether a folder holds a YAML with names, or images, labels and a list of names."""
    if yaml_file(path) is not None:
        return True
    return (path / "images").is_dir() and (path / "labels").is_dir() and _names_file(path) is not None


def _names_file(root: Path) -> Path | None:
    return next((root / name for name in NAME_FILES if (root / name).is_file()), None)


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read a set with its YAML, or one with a list of names.

    Raises:
        UserError: no YAML and no list of names, or names in another form.
    """
    if (config := yaml_file(path)) is not None:
        values, root = yaml_of(config), config.parent
        labels = _names(values["names"], config)
        images = list(_listed(values, root, problems))
    else:
        root, listed = path, _names_file(path)
        if listed is None:
            raise UserError(f"{path}: no data.yaml and no classes.txt", EXPECTED)
        labels = tuple(line.strip() for line in read_text(listed).splitlines() if line.strip())
        images = [(image, "") for image in walk_images(root / "images")]
    numbers: set[int] = set()
    names = [_short(image_name(image, root), split) for image, split in images]
    if len(set(names)) < len(names):  # two splits have images of one name
        names = [image_name(image, root).removeprefix("images/") for image, _ in images]
    found = [
        _image(image, name, split, root, labels, numbers, problems)
        for (image, split), name in zip(images, names, strict=True)
    ]
    _count_lone_labels(images, problems)
    extra = sorted(number for number in numbers if number >= len(labels))
    ids = (*range(len(labels)), *extra) if extra else ()
    return AnnotationSet(root, (*labels, *(f"class_{number}" for number in extra)), tuple(found), ids)


def _count_lone_labels(images: Sequence[tuple[Path, str]], problems: Problems) -> None:
    """Count label files beside those of the images that belong to no image."""
    known = {label_path(image) for image, _ in images}
    for folder in sorted({label.parent for label in known}):
        for file in sorted(folder.glob("*.txt")):
            if file not in known and "labels" in folder.parts and file.stem != "classes":
                problems.add("label file without an image: left out", file.name)


def _names(names: Any, config: Path) -> tuple[str, ...]:
    if isinstance(names, dict) and all(isinstance(key, int) for key in names):
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{config}: names of numbers {sorted(names)}", "0, 1, 2 … each once")
        names = [names[key] for key in sorted(names)]
    if not isinstance(names, list) or not names:
        raise UserError(f"{config}: names {str(names)[:80]}", "a list of class names")
    return tuple(str(name) for name in names)


def _listed(values: dict[str, Any], root: Path, problems: Problems) -> Iterator[tuple[Path, str]]:
    """Iterate over the images that a YAML lists, with their splits."""
    base = root
    if isinstance(given := values.get("path"), str) and given not in ("", "."):
        relative = inside(root, given)
        if relative is not None and relative.is_dir():
            base = relative
        else:  # usually where the set lay on another machine
            problems.add("path: of the YAML is not below it: the YAML's own folder is used", given)
    seen: set[str] = set()
    for split in SPLITS:
        places = values.get(split) or []
        for place in places if isinstance(places, list) else [places]:
            if str(place) in seen:  # trainers want the key `val`, also where nothing is held out
                continue
            seen.add(str(place))
            where = inside(base, str(place)) or _below_parent(base, str(place))
            if where is None:
                problems.add(OUTSIDE, f"{split}: {place}")
            elif where.suffix == ".txt":
                for line in read_text(where).splitlines():
                    image = inside(base, line.strip().removeprefix("./"))
                    if line.strip() and (image is None or not image.is_file()):
                        problems.add(OUTSIDE if image is None else MISSING, line.strip())
                    elif image is not None:
                        yield image, split
            elif where.is_dir():
                yield from ((image, split) for image in walk_images(where))
            else:
                problems.add("folder of a split is missing", f"{split}: {place}")


def _below_parent(base: Path, place: str) -> Path | None:
    """Return `../train/images`, as Roboflow's YAML has it, read as `train/images`."""
    return inside(base, place.removeprefix("../")) if place.startswith("../") else None


def label_path(image: Path) -> Path:
    """Return the label file of an image: in `labels` for the last `images` of its path, else beside it."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _short(name: str, split: str) -> str:
    """Return an image's name without `images/` and its split."""
    name = name.removeprefix("images/").removeprefix(f"{split}/images/")
    return name.removeprefix(f"{split}/") if split else name


def _image(
    path: Path, name: str, split: str, root: Path, labels: tuple[str, ...], numbers: set[int], problems: Problems
) -> AnnotatedImage:
    label = label_path(path)
    try:
        width, height = imagesize.get(path)
    except Exception:  # whatever a parser of untrusted bytes may raise
        width, height = -1, -1
    rows: list[Box] = []
    if not label.is_file():
        problems.add("image without a label file: taken as without objects", name)
    elif height > 0:
        rows = _rows(read_text(label), name, (height, width), labels, numbers, problems)
    # the label names no size of its own: shares fit any
    return AnnotatedImage(name, path, (0, 0), tuple(rows), "", split, road_of(root, name), label)


def _rows(
    text: str,
    where: str,
    size_hw: tuple[int, int],
    labels: tuple[str, ...],
    numbers: set[int],
    problems: Problems,
) -> list[Box]:
    rows: list[tuple[int, list[float], int]] = []
    for line, row in enumerate(text.splitlines(), 1):
        cells = row.split()
        try:
            values = [float(cell) for cell in cells]
            number = int(values[0]) if values else 0
            bad = bool(values) and (number != values[0] or not 0 <= number < 100_000 or len(values) < 5)
        except (ValueError, OverflowError):
            values, bad = [], True
        if bad or not all(map(math.isfinite, values)):
            problems.add("row that is not `class x y width height`: left out", f"{where}, line {line}")
        elif values:
            rows.append((number, values[1:], line))
    in_pixels = any(abs(value) > LARGEST_SHARE for _, values, _ in rows for value in values[:4])
    if in_pixels:
        problems.add("label file in pixels instead of shares: read as pixels", where)
    height, width = (1, 1) if in_pixels else size_hw
    boxes = []
    for number, values, line in rows:
        if number >= len(labels):
            problems.add("class number without a name: kept as class_NUMBER", f"{where}, line {line}: {number}")
            numbers.add(number)
        label = labels[number] if number < len(labels) else f"class_{number}"
        if len(values) >= 6 and len(values) % 2 == 0:
            outline = tuple(v * (height if k % 2 else width) for k, v in enumerate(values))
            boxes.append(Box(label, envelope([outline]), polygons=(outline,)))
            continue
        x, y, w, h = (v * side for v, side in zip(values, (width, height, width, height), strict=False))
        score = values[4] if len(values) == 5 else None
        boxes.append(Box(label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), score=score))
    return boxes


def write(found: AnnotationSet, out: Path) -> None:
    """Write one text file an image, and `data.yaml`."""
    import yaml

    splits = {image.split or "train" for image in found.images}
    for image in found.images:
        rows = "".join(
            _row(box, found.labels.index(box.label), image.size_hw) for box in image.boxes if not box.ignore
        )
        write_atomically(out / "labels" / _place(image, f"{image.name}.txt"), rows)
    values: dict[str, Any] = {split: f"images/{split}" for split in SPLITS if split in splits}
    if "val" not in values:  # trainers want the key
        values["val"] = values.get("test") or values.get("train") or "images/train"
    values["names"] = dict(enumerate(found.labels))
    write_atomically(out / "data.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _place(image: AnnotatedImage, name: str) -> str:
    return f"{image.split or 'train'}/{name}"


def _row(box: Box, number: int, size_hw: tuple[int, int]) -> str:
    values = shares(box.xyxy, size_hw)
    score = [] if box.score is None else [box.score]
    return f"{number} " + " ".join(f"{rounded(value, 12)}" for value in (*values, *score)) + "\n"


def shares(xyxy: BoxXYXY, size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return centre and size of a box as shares of an image."""
    (left, top, right, bottom), (height, width) = xyxy, size_hw
    return (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height


FORMAT = Format(
    name="yolo",
    shape="data.yaml with images/ and labels/ (YOLO)",
    present=present,
    read=read,
    write=write,
    image_path=lambda image: f"images/{_place(image, image.name)}",
    carries=frozenset({"scores", "labels with spaces (written with _)", "splits", "splits besides train and val"}),
)
