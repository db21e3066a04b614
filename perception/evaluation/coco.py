"""COCO's mean average precision, for any classes, by `faster-coco-eval`, whose numbers equal pycocotools'.

Ground truth is COCO's detection JSON; `perception data convert --to coco` makes it of any format. Categories that no
class claims are left out and named. The boxes of a class's neighbours are crowds of that class: detections there
count neither for nor against it.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.arrays import F64
from perception.classes import ClassInfo
from perception.errors import MissingDependencyError, UserError
from perception.files import read_json

MOST_JSON = 1 << 30
"""Longest label or result file that is read, characters."""
SUMMARY = (
    ("AP", "IoU 0.50:0.95"),
    ("AP50", "IoU 0.50"),
    ("AP75", "IoU 0.75"),
    ("AP small", "area below 32² pixels"),
    ("AP medium", "area 32² to 96²"),
    ("AP large", "area above 96²"),
    ("AR 1", "1 detection an image"),
    ("AR 10", "10 detections an image"),
    ("AR 100", "100 detections an image"),
    ("AR small", "100 detections, small"),
    ("AR medium", "100 detections, medium"),
    ("AR large", "100 detections, large"),
)
"""The twelve numbers of COCO's summary, in its order."""
_TRUTH = "COCO's JSON with images, annotations and categories"
_RESULTS = "COCO's results: a list of image_id, category_id, bbox [x, y, width, height], score"


@dataclass(frozen=True)
class DetectionScore:
    """Scores of one category, or of all, in per cent; None where COCO has no number for lack of objects."""

    name: str
    values: tuple[float | None, ...]
    """AP, AP50, AP75; for all categories the twelve of `SUMMARY`."""
    objects: int
    """Labelled objects, crowds left out."""


@dataclass(frozen=True)
class DetectionEvaluation:
    """Scores of all categories together and of each."""

    total: DetectionScore
    classes: tuple[DetectionScore, ...]
    images: int
    detections: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truth:
    """A ground truth that has been read and checked."""

    content: dict[str, Any]
    image_ids: Mapping[str, int]
    """File name → id."""
    warnings: tuple[str, ...] = ()


def read_truth(path: Path) -> Truth:
    """Read ground truth.

    Raises:
        UserError: not COCO's detection JSON, or broken ids.
    """
    content = read_json(path, _TRUTH, "perception data convert LABELS OUT --to coco", most=MOST_JSON)
    if not isinstance(content, dict):
        raise UserError(f"{path}: no JSON object", _TRUTH, "perception data convert LABELS OUT --to coco")
    images, boxes, categories = (_objects(content, key, path) for key in ("images", "annotations", "categories"))
    ids = [image.get("id") for image in images]
    numbers = [category.get("id") for category in categories]
    for what, found in (("image", ids), ("category", numbers)):
        if not all(isinstance(one, int) for one in found) or len(set(found)) < len(found):
            raise UserError(f"{path}: {what} ids are missing or not unique", "a whole number for each")
    known_images = set(ids)
    for k, box in enumerate(boxes):
        if box.get("image_id") not in known_images or _xywh(box) is None:
            raise UserError(f"{path}: annotation {k} has no box or no known image_id", _TRUTH)
    known = set(numbers)
    nameless = sum(box.get("category_id") not in known for box in boxes)
    kept = [box for box in boxes if box.get("category_id") in known]
    tidy = [_annotation(box, k + 1) for k, box in enumerate(kept)]
    names = {str(image.get("file_name")): image["id"] for image in images}
    warnings = (f"{nameless} annotations of categories without a name are left out",) if nameless else ()
    return Truth({"images": images, "annotations": tidy, "categories": categories}, names, warnings)


def of_classes(truth: Truth, classes: Sequence[ClassInfo]) -> Truth:
    """Return the truth with a network's classes as categories: class `i` has id `i + 1`.

    Raises:
        UserError: none of the classes has a category.
    """
    owner = {label: i + 1 for i, info in enumerate(classes) for label in info.label_names}
    neighbours: dict[str, list[int]] = {}
    for i, info in enumerate(classes):
        for label in info.neighbours:
            if label.lower() not in owner:
                neighbours.setdefault(label.lower(), []).append(i + 1)
    names = {one["id"]: str(one.get("name")).lower() for one in truth.content["categories"]}
    rows: list[dict[str, Any]] = []
    for box in truth.content["annotations"]:
        name = names[box["category_id"]]
        if name in owner:
            rows.append({**box, "category_id": owner[name]})
        rows += [{**box, "category_id": number, "iscrowd": 1} for number in neighbours.get(name, ())]
    found = {owner[name] for name in names.values() if name in owner}
    if not found:
        raise UserError(
            f"categories {', '.join(sorted(names.values()))}",
            f"one of the network's labels: {', '.join(owner)}",
            "labels = [...] of the classes, see docs/guides/own-data.md",
        )
    warnings = list(truth.warnings)
    if others := sorted(set(names.values()) - set(owner) - set(neighbours)):
        warnings.append(f"categories that are no class of the network are left out: {', '.join(others)}")
    if missing := [info.name for i, info in enumerate(classes) if i + 1 not in found]:
        warnings.append(f"classes without a category in the labels are not scored: {', '.join(missing)}")
    categories = [{"id": i + 1, "name": info.name} for i, info in enumerate(classes) if i + 1 in found]
    rows = [{**row, "id": k + 1} for k, row in enumerate(rows) if row["category_id"] in found]
    content = {"images": truth.content["images"], "annotations": rows, "categories": categories}
    return Truth(content, truth.image_ids, tuple(warnings))


def read_results(path: Path, truth: Truth) -> list[dict[str, Any]]:
    """Read detections in COCO's results format.

    Raises:
        UserError: another format, or an image or category that the labels do not have.
    """
    rows = read_json(path, _RESULTS, most=MOST_JSON)
    if not isinstance(rows, list):
        raise UserError(f"{path}: no list", _RESULTS)
    images = {image["id"] for image in truth.content["images"]}
    categories = {one["id"] for one in truth.content["categories"]}
    for k, row in enumerate(rows):
        good = isinstance(row, dict) and _xywh(row) is not None and _number(row.get("score"))
        if not good:
            raise UserError(f"{path}: row {k} is {str(row)[:80]}", _RESULTS)
        for key, known in (("image_id", images), ("category_id", categories)):
            if row.get(key) not in known:
                raise UserError(f"{path}: row {k}: {key} {str(row.get(key))[:40]}", f"a {key} of the labels")
    return rows


def evaluate(truth: Truth, results: Sequence[Mapping[str, Any]]) -> DetectionEvaluation:
    """Score detections by COCO's protocol.

    Raises:
        MissingDependencyError: `faster-coco-eval` is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise MissingDependencyError("faster-coco-eval", "coco", "COCO's scores") from None
    objects = [row for row in truth.content["annotations"] if not row["iscrowd"]]
    counts = {one["id"]: 0 for one in truth.content["categories"]}
    for row in objects:
        counts[row["category_id"]] += 1
    names = {one["id"]: str(one["name"]) for one in truth.content["categories"]}
    images = len(truth.content["images"])
    if not results:  # COCO's own code has no answer to an empty list
        none = tuple(0.0 if objects else None for _ in range(3))
        classes = tuple(DetectionScore(names[k], none if counts[k] else (None,) * 3, counts[k]) for k in names)
        total = DetectionScore("all", tuple(0.0 if objects else None for _ in SUMMARY), len(objects))
        return DetectionEvaluation(total, classes, images, 0, truth.warnings)
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO(truth.content)
        run = COCOeval_faster(labels, labels.loadRes([dict(row) for row in results]), "bbox", print_function=_quiet)
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = np.asarray(run.eval["precision"], np.float64)  # (IoU, recall, category, area, detections)
    ids = list(run.params.catIds)
    scores = tuple(
        DetectionScore(names[k], _of_category(precision[:, :, ids.index(k), 0, -1]), counts[k]) for k in names
    )
    total = DetectionScore("all", tuple(map(_per_cent, run.stats[: len(SUMMARY)])), len(objects))
    return DetectionEvaluation(total, scores, images, len(results), truth.warnings)


def _of_category(precision: F64) -> tuple[float | None, ...]:
    """Return AP, AP50 and AP75 of a category from its precision (IoU 0.50 to 0.95, recall)."""
    return tuple(_mean(part) for part in (precision, precision[:1], precision[5:6]))


def _mean(values: F64) -> float | None:
    return _per_cent(float(values[values > -1].mean())) if (values > -1).any() else None


def _per_cent(value: float) -> float | None:
    return None if value < 0 else 100 * float(value)


def _quiet(*_: Any) -> None:
    """Swallow the tables that COCO's code prints."""


def _objects(content: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    values = content.get(key, [] if key == "annotations" else None)
    if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
        raise UserError(f"{path}: no list '{key}'", _TRUTH, "perception data convert LABELS OUT --to coco")
    return values


def _annotation(box: Mapping[str, Any], number: int) -> dict[str, Any]:
    xywh = _xywh(box)
    assert xywh is not None
    area = box.get("area")
    return {
        "id": number,
        "image_id": box["image_id"],
        "category_id": box["category_id"],
        "bbox": xywh,
        "area": float(area) if _number(area) else xywh[2] * xywh[3],  # type: ignore[arg-type]
        "iscrowd": int(bool(box.get("iscrowd"))),
    }


def _xywh(row: Mapping[str, Any]) -> list[float] | None:
    box = row.get("bbox")
    return list(map(float, box)) if isinstance(box, list) and len(box) == 4 and all(map(_number, box)) else None


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
