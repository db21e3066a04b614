"""MOTChallenge: sequences with `gt/gt.txt`, `seqinfo.ini` and `img1/`.

Rows are `frame, id, left, top, width, height, consider, class, visibility`; frames, ids and pixels count from 1, so a
box that begins in the first pixel has left 1, here 0. A row with `consider` 0 is ignored.
"""

from __future__ import annotations

import configparser
import math
from pathlib import Path

from datasets.formats.annotations import AnnotatedImage, AnnotationSet, Box, Format, Problems
from datasets.formats.paths import image_name, road_of, size_of, split_of, walk_images
from perception.errors import UserError
from perception.files import inside, read_text

CLASSES = (
    "pedestrian",
    "person_on_vehicle",
    "car",
    "bicycle",
    "motorbike",
    "non_motorized_vehicle",
    "static_person",
    "distractor",
    "occluder",
    "occluder_on_the_ground",
    "occluder_full",
    "reflection",
    "crowd",
)
"""Names of the numbers 1 to 13."""
VISIBLE = (0.9, 0.5)
"""Visible shares from which an object is taken as visible and as partly hidden."""


def _sequences(path: Path) -> list[Path]:
    places = [path] if (path / "gt/gt.txt").is_file() else sorted(path.glob("*")) + sorted(path.glob("*/*"))
    return [place for place in places if (place / "gt/gt.txt").is_file()]


def present(path: Path) -> bool:
    """Whether a folder is a sequence or holds sequences."""
    return path.is_dir() and bool(_sequences(path))


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read every sequence; frames without rows have no objects."""
    images = []
    for sequence in _sequences(path):
        folder_name, size_hw = _info(sequence)
        folder = inside(sequence, folder_name)
        frames = {int(image.stem): image for image in walk_images(folder) if image.stem.isdecimal()} if folder else {}
        rows = _rows(sequence / "gt/gt.txt", problems)
        for frame in sorted(set(rows) - set(frames)):
            problems.add("frame without an image: left out", f"{sequence.name}: {frame}", len(rows[frame]))
        for frame, image in sorted(frames.items()):
            name = image_name(image, path)
            boxes = tuple(rows.get(frame, ()))
            split = split_of(sequence.parent.name)
            images.append(AnnotatedImage(name, image, size_hw, boxes, sequence.name, split, road_of(path, name)))
    used = {box.label for image in images for box in image.boxes}
    return AnnotationSet(path, tuple(name for name in CLASSES if name in used), tuple(images))


def _info(sequence: Path) -> tuple[str, tuple[int, int]]:
    """Return the folder of images and their size, from `seqinfo.ini` where it is there."""
    file = sequence / "seqinfo.ini"
    if not file.is_file():
        return "img1", (0, 0)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(file, most=100_000))
        values = parser["Sequence"]
    except (configparser.Error, KeyError):
        raise UserError(f"{file}: not readable", "an INI file with [Sequence]") from None
    return values.get("imDir", "img1"), size_of(values.get("imHeight"), values.get("imWidth"))


def _rows(path: Path, problems: Problems) -> dict[int, list[Box]]:
    found: dict[int, list[Box]] = {}
    for line, text in enumerate(read_text(path).splitlines(), 1):
        if not text.strip():
            continue
        where = f"{path.parent.parent.name}, line {line}"
        try:
            values = [float(cell) for cell in text.split(",")]
        except ValueError:
            values = []
        if len(values) < 6 or not all(map(math.isfinite, values)):
            problems.add("row that is not MOT's: left out", where)
            continue
        frame, number, left, top, width, height, *rest = values
        class_number = int(rest[1]) if len(rest) > 1 else 1
        known = 1 <= class_number <= len(CLASSES)
        if not known:
            problems.add("class number without a name: kept as class_NUMBER", f"{where}: {class_number}")
        label = CLASSES[class_number - 1] if known else f"class_{class_number}"
        occlusion = None
        if len(rest) > 2 and rest[2] >= 0:
            occlusion = 0 if rest[2] >= VISIBLE[0] else 1 if rest[2] >= VISIBLE[1] else 2
        box = (left - 1, top - 1, left - 1 + width, top - 1 + height)
        ignored = bool(rest) and rest[0] == 0
        found.setdefault(int(frame), []).append(
            Box(label, box, track_id=int(number), ignore=ignored, occlusion=occlusion)
        )
    return found


FORMAT = Format("mot", "SEQUENCE/gt/gt.txt with img1/ (MOTChallenge)", present, read)
