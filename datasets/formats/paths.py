"""Files that labels name. A label file may come from a stranger: its names must stay inside the set's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from datasets.formats.annotations import ROAD_FOLDER, Problems, Road
from perception.errors import UserError
from perception.files import inside, read_json, read_text

MOST_ANNOTATIONS = 1 << 30
"""Longest label file that is parsed, characters."""
MOST_FILES = 2_000_000
"""Most files below a root that are looked through for images."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
HEAD = 65536
OUTSIDE = "image outside the set's folder: left out"
MISSING = "missing image: left out"


class ImageFinder:
    """Finds the images of a set by name, in the usual folders, else anywhere below the root by file name."""

    def __init__(self, root: Path, folders: Sequence[str] = ("",)) -> None:
        self.root, self.folders = root, folders
        self._by_name: dict[str, list[Path]] | None = None

    def __call__(self, name: str, problems: Problems) -> Path | None:
        """Return an image's path; None, with a problem, where it is missing or its name leaves the root."""
        if inside(self.root, name) is None:
            problems.add(OUTSIDE, name)
            return None
        for folder in self.folders:
            path = inside(self.root / folder, name)
            if path is not None and path.is_file():
                return path
        found = self._index().get(PurePosixPath(name.replace("\\", "/")).name, [])
        tail = [path for path in found if path.as_posix().endswith("/" + name)] or found
        if len(tail) == 1:
            return tail[0]
        problems.add(MISSING if not tail else "several images of that name: left out", name)
        return None

    def _index(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = {}
            for path in walk_images(self.root):
                self._by_name.setdefault(path.name, []).append(path)
        return self._by_name


def walk_images(root: Path) -> Iterator[Path]:
    """Iterate over the image files below a folder, hidden ones and road masks left out, in order."""
    seen = 0
    for folder, children, files in os.walk(root):
        children[:] = sorted(name for name in children if not name.startswith(".") and name != ROAD_FOLDER)
        for name in sorted(files):
            seen += 1
            if seen > MOST_FILES:
                raise UserError(f"{root}: more than {MOST_FILES:,} files", "a folder of one data set")
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(folder, name)


def image_name(path: Path, root: Path) -> str:
    """Return the name of an image in a set: its path below the root, without suffix."""
    relative = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return relative.with_suffix("").as_posix()


def road_of(root: Path, name: str) -> Road:
    """Return the road mask of an image in the set's `ROAD_FOLDER`; None where there is none."""
    path = root / ROAD_FOLDER / f"{name}.png"
    return path if path.is_file() else None


def split_of(text: str) -> str:
    """Return the split that a file or folder name tells, as `instances_val2017` does; empty where it tells none."""
    words = text.lower()
    return next((split for split in ("train", "val", "test") if split in words), "")


def head(path: Path) -> str:
    """Return the beginning and the end of a text file, to recognise its format; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(HEAD)
            file.seek(max(len(data), path.stat().st_size - HEAD))
            return (data + file.read(HEAD)).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    except OSError:
        return ""


def json_of(path: Path, expected: str) -> Any:
    """Read a JSON label file."""
    return read_json(path, expected, most=MOST_ANNOTATIONS)


def dicts(value: Any, where: str) -> list[dict[str, Any]]:
    """Return a list of JSON objects.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise UserError(f"{where}: no list of objects", "label files as the tool wrote them")
    return value


def numbers(values: Any, count: int | None = None) -> tuple[float, ...] | None:
    """Return numbers of JSON as floats; None where they are something else or of another count."""
    if not isinstance(values, (list, tuple)) or (count is not None and len(values) != count):
        return None
    if any(isinstance(value, bool) for value in values):
        return None
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None


def size_of(height: Any, width: Any) -> tuple[int, int]:
    """Return a size that a label file gives; (0, 0) where it gives none."""
    try:
        return max(0, int(height)), max(0, int(width))
    except (TypeError, ValueError, OverflowError):
        return 0, 0


def xml_of(path: Path) -> ElementTree.Element:
    """Read an XML label file. Declarations of entities and types are refused: they can grow without bound.

    Raises:
        UserError: no such file, no XML, or a DOCTYPE.
    """
    text = read_text(path, "an XML label file", most=MOST_ANNOTATIONS)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UserError(f"{path}: declares a document type", "XML without DOCTYPE and entities")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not XML ({error})", "an XML label file") from None


def yaml_of(path: Path) -> dict[str, Any]:
    """Read a YAML file of plain values.

    Raises:
        UserError: no such file, no YAML, or a tag that would make an object.
    """
    import yaml

    text = read_text(path, "a YAML file", most=1 << 20)
    if text.count("&") > 100 or text.count("*") > 1000 or text.count("[") + text.count("{") > 5000:
        raise UserError(f"{path}: too many anchors or brackets", "a YAML file with names, train and val")
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not plain YAML ({first})", "a YAML file with names, train and val") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: no keys", "a YAML file with names, train and val")
    return values


def rounded(value: float, decimals: int = 9) -> float | int:
    """Round away what floating point adds, so that a number that was read is written as it stood."""
    value = round(float(value), decimals)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def to_json(value: Any) -> str:
    """Format JSON with one line for each element of the outer lists, so that versions can be compared."""
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_lines(part)}" for key, part in value.items()]
        return "{\n" + ",\n".join(parts) + "\n}\n"
    return _lines(value) + "\n"


def _lines(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(json.dumps(one) for one in value) + "\n]"
    return json.dumps(value)
