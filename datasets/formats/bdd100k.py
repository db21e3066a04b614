"""BDD100K's JSON (and Scalabel's, its successor): a list of frames with `labels` of `box2d` and `poly2d`.

The toolkit counts the last pixel into a box (its `box2d_to_xyxy` adds 1), so x2 and y2 grow by one here. Polygons of
the drivable area are road: the direct and the alternative one. Files of one frame have `frames` instead of a list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets.formats.annotations import (
    BAD_CORNER,
    AnnotatedImage,
    AnnotationSet,
    Box,
    Format,
    Polygon,
    Problems,
    RoadPart,
)
from datasets.formats.masks import Mask, of_coco
from datasets.formats.paths import ImageFinder, dicts, head, image_name, json_of, numbers, road_of, split_of
from perception.errors import UserError

EXPECTED = "BDD100K's JSON: frames with name and labels"
ROAD = ("drivable area", "area/drivable", "area/alternative", "direct", "alternative")
"""Categories of the drivable area, by release."""
CURVE_POINTS = 8
"""Points on a Bézier curve, which `poly2d` marks with `C`."""


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".json" and _looks_like(path) else []
    found: list[Path] = []
    for folder in (path, path / "labels"):
        found += sorted(folder.rglob("*.json") if folder != path else folder.glob("*.json"))
        if found and not _looks_like(found[0]):
            found = [file for file in found if _looks_like(file)] if len(found) < 50 else []
    return found


def present(path: Path) -> bool:
    """Whether a file or folder holds BDD100K's JSON."""
    return bool(_files(path))


def _looks_like(path: Path) -> bool:
    text = head(path)
    frames = text.startswith("[") or (text.startswith("{") and '"frames"' in text)
    return (frames and '"labels"' in text) or ('"objects"' in text and '"frames"' in text)


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read every file of labels; those of boxes and of the drivable area are joined by frame."""
    root = path if path.is_dir() else path.parent
    finder = ImageFinder(root, ("images/100k/train", "images/100k/val", "images/100k/test", "images", "", "train"))
    images: dict[str, AnnotatedImage] = {}
    labels: dict[str, None] = {}
    for file in _files(path):
        split = split_of(file.relative_to(root).as_posix()) if path.is_dir() else ""
        for frame in _frames(json_of(file, EXPECTED), file):
            name = frame.get("name")
            if not isinstance(name, str):
                problems.add("frame without a name: left out", file.name)
                continue
            where = finder(name if Path(name).suffix else f"{name}.jpg", problems)
            if where is None:
                continue
            boxes, road = _labels(frame, name, problems)
            labels |= dict.fromkeys(box.label for box in boxes)
            own = image_name(where, root).removeprefix("images/")
            before = images.get(own)
            parts = (*(before.road if before and isinstance(before.road, tuple) else ()), *road)
            images[own] = AnnotatedImage(
                own,
                where,
                (0, 0),
                (*(before.boxes if before else ()), *boxes),
                str(frame.get("videoName") or ""),
                split or split_of(where.parent.name),
                parts or road_of(root, own),
            )
    return AnnotationSet(root, tuple(sorted(labels)), tuple(images.values()))


def _frames(content: Any, file: Path) -> list[dict[str, Any]]:
    if isinstance(content, dict) and isinstance(content.get("frames"), list):
        frames = dicts(content["frames"], str(file))
        if "name" in content:  # one image a file
            return [{**frame, "name": content["name"], "labels": frame.get("objects")} for frame in frames[:1]]
        return frames
    if not isinstance(content, list):
        raise UserError(f"{file}: no list of frames", EXPECTED)
    return dicts(content, str(file))


def _labels(frame: dict[str, Any], where: str, problems: Problems) -> tuple[list[Box], list[RoadPart]]:
    boxes, road = [], []
    for label in dicts(frame.get("labels") or [], where):
        category = str(label.get("category") or "")
        given = label.get("attributes")
        attributes = given if isinstance(given, dict) else {}
        if category in ROAD or category.startswith("area/"):
            road += [RoadPart(shape) for shape in _shapes(label)]
        elif isinstance(label.get("box2d"), dict):
            corners = numbers([label["box2d"].get(key) for key in ("x1", "y1", "x2", "y2")])
            if not category or corners is None:
                problems.add("label without a category or with a broken box: left out", where)
                continue
            left, top, right, bottom = corners
            number = str(label.get("id", ""))
            boxes.append(
                Box(
                    category,
                    (left, top, right + 1, bottom + 1),
                    track_id=int(number) if "videoName" in frame and number.isdecimal() else None,
                    ignore=bool(attributes.get("crowd")) or bool(attributes.get("ignored")),
                    occlusion=None if "occluded" not in attributes else int(bool(attributes["occluded"])),
                    attributes=tuple((key, str(value)) for key, value in attributes.items() if key != "occluded"),
                )
            )
        else:
            problems.add("label without a box (lanes, poses): not read", f"{where}: {category}")
    return boxes, road


def _shapes(label: dict[str, Any]) -> list[Polygon | Mask]:
    """Return the mask of a label, and its outlines: lists of points with `L` and `C`, in either release's form."""
    found: list[Polygon | Mask] = [of_coco(label["rle"])] if label.get("rle") else []
    given = label.get("poly2d")
    for one in given if isinstance(given, list) else []:
        points, kinds = (one.get("vertices"), one.get("types")) if isinstance(one, dict) else (None, None)
        if points is None and isinstance(given, list):  # the older release: [x, y, "L"] directly in poly2d
            one = given if one and isinstance(one, list) and not isinstance(one[0], list) else one
            points = [p[:2] for p in one if isinstance(p, list)]
            kinds = "".join(str(p[2]) for p in one if isinstance(p, list) and len(p) > 2)
        corners: list[tuple[float, ...]] = [BAD_CORNER]
        if isinstance(points, list):
            corners = [numbers(p, 2) or BAD_CORNER for p in points]
        found.append(_flattened(corners, kinds or "L" * len(corners)))
        if one is given:
            break
    return found


def _flattened(points: list[tuple[float, ...]], kinds: str) -> Polygon:
    """Return a path of lines and cubic Bézier curves (two control points `C` each) as a polygon."""
    out: list[float] = []
    i = 0
    while i < len(points):
        if kinds[i : i + 2] == "CC" and out and i + 2 <= len(points):
            a, b, c, d = out[-2:], points[i], points[i + 1], points[(i + 2) % len(points)]
            for step in range(1, CURVE_POINTS):
                t = step / CURVE_POINTS
                weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
                out += [sum(w * p[k] for w, p in zip(weights, (a, b, c, d), strict=True)) for k in (0, 1)]
            i += 2
        else:
            out += points[i]
            i += 1
    return tuple(out)


FORMAT = Format("bdd100k", "a JSON list of frames with labels of box2d (BDD100K, Scalabel)", present, read)
