"""Label Studio's JSON export: tasks with `rectanglelabels`, `polygonlabels` and `brushlabels`.

Places are per cent of the image. The corner of a rectangle is the upper left one, 0 to 100; a rotated one becomes the
box around it. Brushes are run-length masks. Of several annotations of a task the first that was not cancelled counts.
"""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import imagesize

from datasets.formats.annotations import (
    BAD_CORNER,
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
from datasets.formats.kitti import flat
from datasets.formats.masks import Mask, of_brush
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
    to_json,
)
from perception.errors import UserError
from perception.files import write_atomically

EXPECTED = "a JSON export of Label Studio: tasks with data and annotations"
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""Label Studio puts it before the names of uploaded files."""


def _file(path: Path) -> Path | None:
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    return next((file for file in files if file.suffix == ".json" and _looks_like(file)), None)


def _looks_like(path: Path) -> bool:
    text = head(path)
    return text.startswith("[") and '"result"' in text and '"data"' in text


def present(path: Path) -> bool:
    """Whether a file or folder holds Label Studio's JSON."""
    return _file(path) is not None


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read the tasks of an export."""
    file = _file(path)
    if file is None:
        raise UserError(f"{path}: no JSON of tasks", EXPECTED)
    finder = ImageFinder(file.parent, ("images", ""))
    images = []
    for task in dicts(json_of(file, EXPECTED), str(file)):
        where = _image(task, finder, problems)
        results = _results(task, problems)
        if where is None or results is None:
            continue
        name = image_name(where, file.parent).removeprefix("images/")
        shapes = [shape for one in results if (shape := _shape(one, where, problems)) is not None]
        road = tuple(shape for shape in shapes if isinstance(shape, RoadPart))
        boxes = tuple(shape for shape in shapes if isinstance(shape, Box))
        sizes = {
            size for one in results if (size := size_of(one.get("original_height"), one.get("original_width")))[0]
        }
        size_hw = next(iter(sizes)) if len(sizes) == 1 else (0, 0)
        images.append(AnnotatedImage(name, where, size_hw, boxes, "", "", road or road_of(file.parent, name)))
    labels = sorted({box.label for image in images for box in image.boxes})
    return AnnotationSet(file.parent, tuple(labels), tuple(images))


def _image(task: dict[str, Any], finder: ImageFinder, problems: Problems) -> Path | None:
    """Return the image of a task: a URL, a path below the server's folder, or an uploaded file."""
    data = task.get("data")
    urls = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    url = next((one for one in urls if one), "")
    try:
        parts = urlsplit(url)
        text = (parse_qs(parts.query).get("d") or [unquote(parts.path)])[0]
    except ValueError:
        text = url
    name = PurePosixPath(text.replace("\\", "/")).name
    short = _UPLOAD.sub("", name)
    if short != name and not any((finder.root / folder / name).is_file() for folder in finder.folders):
        name = short
    return finder(name, problems)


def _results(task: dict[str, Any], problems: Problems) -> list[dict[str, Any]] | None:
    """Return the shapes of a task's annotation; None where nobody has labelled it."""
    where = f"task {task.get('id')}"
    done = [one for one in dicts(task.get("annotations") or [], where) if not one.get("was_cancelled")]
    if not done:
        problems.add("task that nobody has labelled: left out", where)
        return None
    if len(done) > 1:
        problems.add("further annotations of a task: not read", where, len(done) - 1)
    return dicts(done[0].get("result") or [], where)


def _shape(one: dict[str, Any], image: Path, problems: Problems) -> Box | RoadPart | None:
    """Return an object, or a part of the road; None, with a problem, where it cannot be read."""
    kind, value = str(one.get("type")), one.get("value")
    names = value.get(kind) if isinstance(value, dict) else None
    if kind not in ("rectanglelabels", "polygonlabels", "brushlabels") or not isinstance(value, dict):
        problems.add("result that is no rectangle, polygon or brush: left out", f"{image.name}: {kind}")
        return None
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        problems.add("shape without a label: left out", image.name)
        return None
    label, where = names[0], f"{image.name}: {names[0]}"
    height, width = size_of(one.get("original_height"), one.get("original_width"))
    if not height:
        try:
            width, height = imagesize.get(image)
        except Exception:  # whatever a parser of untrusted bytes may raise; `clean` leaves the image out
            return None
    if kind == "brushlabels":
        return _brush(label, of_brush(value.get("rle"), (height, width)), where, problems)
    outline = _outline(kind, value, (height, width))
    if len(outline) < 6:
        problems.add("polygon of fewer than three points: left out", where)
        return None
    if value.get("rotation"):
        problems.add("rotated box: the box around it is read", where)
    if label.lower() in ROAD_CATEGORIES:
        return RoadPart(outline)
    polygons = (outline,) if kind == "polygonlabels" else ()
    score = one.get("score")
    confidence = float(score) if isinstance(score, (int, float)) else None
    return Box(label, envelope([outline]), score=confidence, polygons=polygons)


def _brush(label: str, mask: Mask, where: str, problems: Problems) -> Box | RoadPart | None:
    if label.lower() in ROAD_CATEGORIES:
        return RoadPart(mask)
    if (box := mask.box()) is None:
        problems.add("run-length mask that is broken or empty: left out", where)
        return None
    return Box(label, box, mask=mask)


def _outline(kind: str, value: dict[str, Any], size_hw: tuple[int, int]) -> Polygon:
    height, width = size_hw
    if kind == "polygonlabels":
        points = value.get("points")
        pairs = [numbers(point, 2) for point in points] if isinstance(points, list) else []
        corners = [pair or BAD_CORNER for pair in pairs]
        return tuple(v for x, y in corners for v in (x / 100 * width, y / 100 * height))
    corner = numbers([value.get(key) for key in ("x", "y", "width", "height")])
    if corner is None:
        return ()
    x, y, w, h = (part / 100 * side for part, side in zip(corner, (width, height) * 2, strict=True))
    turn = numbers([value.get("rotation") or 0])
    angle = math.radians(turn[0]) if turn else 0.0
    cosine, sine = math.cos(angle), math.sin(angle)  # clockwise around the upper left corner
    offsets = ((0.0, 0.0), (w, 0.0), (w, h), (0.0, h))
    return tuple(v for dx, dy in offsets for v in (x + dx * cosine - dy * sine, y + dx * sine + dy * cosine))


def write(found: AnnotationSet, out: Path) -> None:
    """Write `tasks.json` for Label Studio's import, with images as local files below the server's document root.

    The control tags are `<Image name="image"/>` and `<RectangleLabels name="label" toName="image"/>`.
    """
    tasks = []
    for i, image in enumerate(found.images, 1):
        height, width = image.size_hw
        results = []
        for k, box in enumerate(image.boxes):
            if box.ignore:
                continue
            left, top, right, bottom = box.xyxy
            sides = (left / width, top / height, (right - left) / width, (bottom - top) / height)
            value = {
                key: rounded(100 * side, 12) for key, side in zip(("x", "y", "width", "height"), sides, strict=True)
            }
            result = {
                "id": f"{i}-{k}",
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "value": {**value, "rotation": 0, "rectanglelabels": [box.label]},
            }
            results.append(result if box.score is None else {**result, "score": box.score})
        name = quote(f"images/{flat(image.name)}{image.path.suffix}")
        task = {"id": i, "data": {"image": f"/data/local-files/?d={name}"}, "annotations": [{"result": results}]}
        tasks.append(task)
    write_atomically(out / "tasks.json", to_json(tasks))


FORMAT = Format(
    name="label_studio",
    shape="a JSON list of tasks with data and annotations (Label Studio)",
    present=present,
    read=read,
    write=write,
    image_path=lambda image: f"images/{flat(image.name)}",
    carries=frozenset({"scores", "labels with spaces (written with _)"}),
)
