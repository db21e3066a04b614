"""nuImages: tables of JSON in `v1.0-*/`, with boxes [xmin, ymin, xmax, ymax] in pixels of the image.

The numbers are taken as continuous, as MMDetection's converter takes them. Masks are run-length coded. The drivable
surface is road, objects in front of it are not, and the ego vehicle is ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets.formats.annotations import AnnotatedImage, AnnotationSet, Box, Format, Problems, Road, RoadPart
from datasets.formats.masks import of_nuimages
from datasets.formats.paths import ImageFinder, dicts, image_name, json_of, numbers, road_of, size_of, split_of
from datasets.sample import ROAD_IGNORE

TABLES = ("category", "sample_data", "object_ann")
SURFACE, EGO = "flat.driveable_surface", "vehicle.ego"


def _folders(path: Path) -> list[Path]:
    places = [path, *sorted(path.glob("v1.0-*"))] if path.is_dir() else []
    return [place for place in places if all((place / f"{name}.json").is_file() for name in TABLES)]


def present(path: Path) -> bool:
    """Whether a folder holds nuImages' tables."""
    return bool(_folders(path))


def read(path: Path, problems: Problems) -> AnnotationSet:
    """Read the labelled images (key frames) of every version folder."""
    folders = _folders(path)
    root = path.parent if folders[0] == path else path
    finder, images = ImageFinder(root), []
    labels: dict[str, None] = {}
    for folder in folders:
        tables = {name: _table(folder, name) for name in (*TABLES, "attribute", "sample", "log", "surface_ann")}
        names = {_token(row, "token"): str(row.get("name")) for row in tables["category"]}
        attributes = {_token(row, "token"): str(row.get("name")) for row in tables["attribute"]}
        logs = {_token(row, "token"): _token(row, "log_token") for row in tables["sample"]}
        labels |= dict.fromkeys(name for name in names.values() if not name.startswith("flat.") and name != EGO)
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in tables["object_ann"]:
            rows.setdefault(_token(row, "sample_data_token"), []).append(row)
        surfaces: dict[str, list[dict[str, Any]]] = {}
        for row in tables["surface_ann"]:
            surfaces.setdefault(_token(row, "sample_data_token"), []).append(row)
        for data in tables["sample_data"]:
            if not data.get("is_key_frame", True):
                continue
            where = finder(str(data.get("filename")), problems)
            if where is None:
                continue
            name = image_name(where, root)
            mine = rows.pop(_token(data, "token"), [])
            boxes = tuple(box for row in mine if (box := _box(row, names, attributes, name, problems)) is not None)
            size_hw, drive = size_of(data.get("height"), data.get("width")), logs.get(_token(data, "sample_token"))
            split, road = split_of(folder.name), _road(surfaces.get(_token(data, "token"), []), mine, names)
            if road is None:
                road = road_of(root, name)
            images.append(AnnotatedImage(name, where, size_hw, boxes, drive or "", split, road))
        if rows:
            lone = ", ".join(list(rows)[:5])
            problems.add("annotation of an image that is not listed: left out", lone, sum(map(len, rows.values())))
    return AnnotationSet(root, tuple(labels), tuple(images))


def _token(row: dict[str, Any], key: str) -> str:
    """Return a key into another table; empty where the row has none."""
    return str(row.get(key) or "")


def _table(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / f"{name}.json"
    return dicts(json_of(path, "a table of nuImages"), str(path)) if path.is_file() else []


def _box(
    row: dict[str, Any], names: dict[str, str], attributes: dict[str, str], where: str, problems: Problems
) -> Box | None:
    corners, label = numbers(row.get("bbox"), 4), names.get(_token(row, "category_token"))
    if corners is None or label is None:
        problems.add("annotation without a box or a known category: left out", where)
        return None
    given = row.get("attribute_tokens")
    said = [attributes[str(token)] for token in given if str(token) in attributes] if isinstance(given, list) else []
    left, top, right, bottom = corners
    pairs = tuple(one.rpartition(".")[::2] if "." in one else (one, "") for one in said)
    mask = of_nuimages(row["mask"]) if row.get("mask") else None
    return Box(label, (left, top, right, bottom), mask=mask, attributes=tuple((a, b) for a, b in pairs))


def _road(surfaces: list[dict[str, Any]], objects: list[dict[str, Any]], names: dict[str, str]) -> Road:
    """Return the drivable surface with what stands in front of it; None where no surface is labelled."""
    kinds = [(names.get(_token(row, "category_token")), row.get("mask")) for row in surfaces]
    values = {SURFACE: 1, EGO: ROAD_IGNORE}
    road = [RoadPart(of_nuimages(mask), value) for k, value in values.items() for kind, mask in kinds if kind == k]
    if not any(kind == SURFACE for kind, _ in kinds):
        return None
    return (*road, *(RoadPart(of_nuimages(row["mask"]), 0) for row in objects if row.get("mask")))


FORMAT = Format("nuimages", "v1.0-*/ with object_ann.json, sample_data.json, category.json (nuImages)", present, read)
