"""COCO's detection JSON: `images`, `annotations` with `bbox` [x, y, width, height], `categories`.

The box's corner is continuous and counts from 0. `iscrowd` marks a group of objects, which is ignored. The keys
`score`, `track_id` and `attributes` are those of CVAT and COCO-VID; readers that do not know them pass over them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.formats.annotations import (
    BAD_CORNER,
    DONT_CARE,
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
from datasets.formats.masks import Mask, as_coco, of_coco
from datasets.formats.paths import (
    ImageFinder,
    dicts,
    head,
    image_name,
    json_of,
    numbers,
    road_of,
    rounded,
    size_of,
    split_of,
    to_json,
)
from perception.errors import UserError
from perception.files import write_atomically

EXPECTED = "COCO's JSON with images, annotations and categories"
ROAD_CATEGORIES = ("road", "drivable area", "drivable")
"""Categories whose polygons and masks are road rather than objects, in lower case."""
OTHER_TASKS = ("captions", "panoptic", "person_keypoints", "stuff", "image_info")
"""Files of COCO's other tasks, which lie beside those of boxes."""
_FOLDERS = ("images", "", "images/train", "images/val", "images/test", "train", "val", "test", "JPEGImages")
_OWN = {"truncated": "truncation", "occluded": "occlusion"}
"""Keys of `attributes` that are fields of a `Box`."""


def files_of(path: Path) -> list[Path]:
    """Return the JSON files of a set: the file itself, or those in `annotations/` or the root."""
    if path.is_file():
        return [path]
    for folder in (path / "annotations", path):
        found = [file for file in sorted(folder.glob("*.json")) if not file.stem.startswith(OTHER_TASKS)]
        if found := [file for file in found if _looks_like(file)]:
            return found
    return []


def present(path: Path) -> bool:
    """Whether a file or folder holds COCO's JSON."""
    return bool(files_of(path)) if path.is_dir() else path.suffix == ".json" and _looks_like(path)


def _looks_like(path: Path) -> bool:
    text = head(path)
    return text.startswith("{") and sum(f'"{key}"' in text for key in ("images", "annotations", "categories")) >= 2


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read a file, or every file of boxes of a folder; the files of splits are joined by category name.

    Raises:
        UserError: not COCO's JSON.
    """
    files = files_of(path)
    if not files:
        raise UserError(f"{path}: no file of boxes", EXPECTED)
    root = path if path.is_dir() else path.parent.parent if path.parent.name == "annotations" else path.parent
    labels: dict[str, int] = {}
    images: list[AnnotatedImage] = []
    finder = ImageFinder(root, _FOLDERS)
    for file in files:
        content = json_of(file, EXPECTED)
        if not isinstance(content, dict):
            raise UserError(f"{file}: no JSON object", EXPECTED)
        names = _categories(content, file, problems)
        no_class = (*ROAD_CATEGORIES, DONT_CARE.lower())
        labels |= {name: number for number, name in names.items() if name.lower() not in no_class}
        split = split_of(file.stem) if len(files) > 1 or split_of(file.stem) in ("train", "val") else ""
        images += _images(content, file, names, finder, split, problems)
    ids = tuple(labels.values())
    plain = len(set(ids)) < len(ids) or ids == tuple(range(1, len(ids) + 1))
    return AnnotationSet(root, tuple(labels), tuple(images), () if plain else ids)


def _categories(content: dict[str, Any], file: Path, problems: Problems) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for category in dicts(content.get("categories", []), f"{file}: categories"):
        name, number = category.get("name"), category.get("id")
        if isinstance(name, str) and name and isinstance(number, int):
            if names.setdefault(number, name) != name:
                problems.add("category id with a second name: the first counts", f"{file.name}: {number} {name}")
        else:
            problems.add("category without id or name: left out", f"{file.name}: {str(category)[:80]}")
    return names


def _images(
    content: dict[str, Any],
    file: Path,
    names: dict[Any, str],
    finder: ImageFinder,
    split: str,
    problems: Problems,
) -> Iterator[AnnotatedImage]:
    rows: dict[Any, list[dict[str, Any]]] = {}
    for row in dicts(content.get("annotations", []), f"{file}: annotations"):
        rows.setdefault(_hashable(row.get("image_id")), []).append(row)
    videos = {_hashable(v.get("id")): str(v.get("name", "")) for v in dicts(content.get("videos", []), str(file))}
    seen: set[Any] = set()
    labels_road = any(name.lower() in ROAD_CATEGORIES for name in names.values())
    for entry in dicts(content.get("images", []), f"{file}: images"):
        number, file_name = _hashable(entry.get("id")), entry.get("file_name")
        if number in seen:
            problems.add("image id listed twice: the first counts", f"{file.name}: id {number} {file_name}")
            continue
        seen.add(number)
        mine = rows.pop(number, [])
        where = finder(file_name, problems) if isinstance(file_name, str) else None
        if where is None:
            if not isinstance(file_name, str):
                problems.add("image without file_name: left out", f"{file.name}: id {entry.get('id')}")
            continue
        name = image_name(where, finder.root)
        for folder in ("images/", "JPEGImages/"):
            name = name.removeprefix(folder)
        boxes, road = [], []
        for row in mine:
            label, shapes = _label(row, names, file, problems), _shapes(row)
            if label.lower() in ROAD_CATEGORIES:
                road += [RoadPart(shape) for shape in shapes]
            elif (box := _box(row, label, shapes, f"{name} {label}", problems)) is not None:
                boxes.append(box)
        drive = str(entry.get("drive") or videos.get(_hashable(entry.get("video_id")), ""))
        size_hw = size_of(entry.get("height"), entry.get("width"))
        mask = tuple(road) if labels_road else road_of(finder.root, name)
        yield AnnotatedImage(name, where, size_hw, tuple(boxes), drive, split, mask, file)
    if rows:
        problems.add(
            "annotation of an image that is not listed: left out",
            f"{file.name}: image_id {', '.join(str(key) for key in list(rows)[:5])}",
            sum(map(len, rows.values())),
        )


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, str)) else repr(value)


def _label(row: dict[str, Any], names: dict[Any, str], file: Path, problems: Problems) -> str:
    number = _hashable(row.get("category_id"))
    if number in names:
        return names[number]
    problems.add("category id without a name: kept as class_ID", f"{file.name}: category_id {number}")
    return f"class_{number}"


def _shapes(row: dict[str, Any]) -> list[Polygon | Mask]:
    """Return the polygons of a row, or its run-length mask."""
    found = row.get("segmentation")
    if isinstance(found, dict):
        return [of_coco(found)]
    polygons = [numbers(one) for one in found] if isinstance(found, list) else []
    return [BAD_CORNER if one is None or len(one) % 2 else one for one in polygons]


def _box(row: dict[str, Any], label: str, shapes: list[Polygon | Mask], where: str, problems: Problems) -> Box | None:
    xywh = numbers(row.get("bbox"), 4)
    polygons = tuple(shape for shape in shapes if not isinstance(shape, Mask))
    mask = next((shape for shape in shapes if isinstance(shape, Mask)), None)
    if xywh is not None:
        xyxy = (xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3])
    elif mask is not None and (around := mask.box()) is not None:
        xyxy = around
    elif any(len(polygon) >= 6 for polygon in polygons):
        xyxy = envelope(polygons)
    else:
        problems.add("annotation without a box: left out", where)
        return None
    given = row.get("attributes")
    attributes = {str(k): v for k, v in given.items()} if isinstance(given, dict) else {}
    own = {field: attributes.pop(key) for key, field in _OWN.items() if _is_number(attributes.get(key))}
    score, track_id = row.get("score"), row.get("track_id")
    return Box(
        label,
        xyxy,
        score=float(score) if _is_number(score) else None,  # type: ignore[arg-type]
        track_id=track_id if isinstance(track_id, int) and not isinstance(track_id, bool) else None,
        ignore=bool(row.get("iscrowd")) or bool(row.get("ignore")) or label.lower() == DONT_CARE.lower(),
        truncation=float(own["truncation"]) if "truncation" in own else None,
        occlusion=int(own["occlusion"]) if "occlusion" in own else None,
        polygons=polygons,
        mask=mask,
        area=_area(row, xyxy),
        attributes=tuple((key, str(value)) for key, value in attributes.items()),
    )


def _area(row: dict[str, Any], xyxy: BoxXYXY) -> float | None:
    """Return a row's area where it is not that of the box."""
    given, whole = row.get("area"), (xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1])
    return None if not _is_number(given) or math.isclose(given, whole, rel_tol=1e-9) else float(given)  # type: ignore[arg-type]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def write(found: AnnotationSet, out: Path) -> None:
    """Write `annotations/instances_SPLIT.json`, or `annotations/instances.json` without splits."""
    ids = found.label_ids or tuple(range(1, len(found.labels) + 1))
    number = dict(zip(found.labels, ids, strict=True))
    if any(box.label == DONT_CARE for image in found.images for box in image.boxes):
        number[DONT_CARE] = max(ids, default=0) + 1
    categories = [{"id": k, "name": label} for label, k in number.items()]
    splits = sorted({image.split for image in found.images}) or [""]
    image_id = box_id = 0
    for split in splits:
        images, rows = [], []
        for image in (one for one in found.images if one.split == split):
            image_id += 1
            height, width = image.size_hw
            entry = {"id": image_id, "file_name": image.name + image.path.suffix, "width": width, "height": height}
            images.append({**entry, "drive": image.drive} if image.drive else entry)
            for box in image.boxes:
                box_id += 1
                rows.append(_row(box, box_id, image_id, number))
        content = {"images": images, "annotations": rows, "categories": categories}
        name = f"instances_{split}.json" if split else "instances.json"
        write_atomically(out / "annotations" / name, to_json(content))


def _row(box: Box, box_id: int, image_id: int, number: dict[str, int]) -> dict[str, Any]:
    left, top, right, bottom = box.xyxy
    xywh = [rounded(value) for value in (left, top, right - left, bottom - top)]
    row: dict[str, Any] = {
        "id": box_id,
        "image_id": image_id,
        "category_id": number[box.label],
        "bbox": xywh,
        "area": rounded(xywh[2] * xywh[3] if box.area is None else box.area),
        "iscrowd": int(box.ignore),
        "segmentation": [[rounded(value) for value in polygon] for polygon in box.polygons]
        if box.mask is None
        else as_coco(box.mask),
    }
    own = {key: value for key, field in _OWN.items() if (value := getattr(box, field)) is not None}
    attributes: dict[str, Any] = {**dict(box.attributes), **own}
    for key, value in (("score", box.score), ("track_id", box.track_id), ("attributes", attributes or None)):
        if value is not None:
            row[key] = value
    return row


FORMAT = Format(
    name="coco",
    shape="annotations/*.json or FILE.json with images, annotations and categories (COCO)",
    present=present,
    read=read,
    write=write,
    image_path=lambda image: f"images/{image.name}",
    carries=frozenset(
        {
            "scores",
            "track ids",
            "ignore regions",
            "classes of ignore regions",
            "truncation",
            "occlusion",
            "outlines (polygons)",
            "run-length masks",
            "areas of shapes",
            "attributes",
            "recordings (drives)",
            "labels with spaces (written with _)",
            "splits",
            "splits besides train and val",
        }
    ),
)
