"""`perception evaluate detection`: COCO's mean average precision, of results or of a model, for any classes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.evaluate_options import DetectionOptions
from perception.cli.options import parse_options
from perception.errors import UserError
from perception.files import inside, write_atomically
from perception.progress import Progress
from perception.provenance import record

if TYPE_CHECKING:
    from perception.evaluation.coco import DetectionEvaluation, Truth


def main(argv: list[str]) -> int:
    """Score, print, and return 0."""
    options = parse_options(DetectionOptions, argv, "perception evaluate detection")
    if options.gt is None:
        raise UserError("no --gt", "COCO's JSON of labels", "perception data convert LABELS OUT --to coco")
    if (options.results is None) == (options.model is None):
        found = "neither --results nor --model" if options.results is None else "--results and --model together"
        raise UserError(found, "a JSON file of results, or a model to run", "--results FILE, or --model M.onnx")
    from perception.evaluation.coco import evaluate, read_results, read_truth

    truth = read_truth(options.gt)
    if options.results is not None:
        rows = read_results(options.results, truth)
    else:
        truth, rows = _predicted(options, truth)
    evaluation = evaluate(truth, rows)
    for warning in evaluation.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(_as_json(evaluation)) if options.json else _as_text(evaluation))
    return 0


def _predicted(options: DetectionOptions, truth: Truth) -> tuple[Truth, list[dict[str, Any]]]:
    """Run the model over the labelled images; returns the truth of its classes and its detections."""
    from perception.backends import load_model
    from perception.detector import Detector
    from perception.evaluation.coco import of_classes
    from perception.formats.images import read_image

    assert options.model is not None and options.gt is not None
    if not 0 <= options.minimum_score <= 1:
        raise UserError(f"--minimum-score {options.minimum_score:g}", "from 0 to 1", "--minimum-score 0.001")
    model = load_model(options.model, options.device, options.threads)
    detector, truth = Detector(model, options.minimum_score), of_classes(truth, model.spec.class_infos)
    images = _images(options, truth)
    known = {one["id"] for one in truth.content["categories"]}
    rows: list[dict[str, Any]] = []
    with Progress("detecting") as progress:
        for k, (image_id, path) in enumerate(images):
            found, _ = detector(read_image(path))
            for box, score, class_id in zip(
                found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True
            ):
                if class_id + 1 in known:
                    xywh = [round(v, 3) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]
                    entry = {"image_id": image_id, "category_id": class_id + 1, "bbox": xywh}
                    rows.append({**entry, "score": round(score, 6)})
            progress.update(k + 1, len(images))
    out = options.out or Path("runs/evaluate-detection")
    write_atomically(out / "results.json", json.dumps(rows))
    made = record("perception evaluate detection", options, (options.model, options.gt))
    write_atomically(out / "run.json", json.dumps(made, indent=1, default=str) + "\n")
    return truth, rows


def _images(options: DetectionOptions, truth: Truth) -> list[tuple[int, Path]]:
    """Find the image of every entry of the labels.

    Raises:
        UserError: a name that leaves the folder, or images that are missing.
    """
    assert options.gt is not None
    root = options.gt.parent.parent if options.gt.parent.name == "annotations" else options.gt.parent
    folders = [options.images] if options.images is not None else [root / "images", root]
    found, missing = [], []
    for name, image_id in truth.image_ids.items():
        places = [inside(folder, name) for folder in folders]
        if None in places:
            raise UserError(f"{options.gt}: file_name {name}", "a name inside the folder of images")
        path = next((place for place in places if place is not None and place.is_file()), None)
        if path is None:
            missing.append(name)
        else:
            found.append((image_id, path))
    if missing:
        raise UserError(
            f"{folders[0]}: {len(missing)} of {len(truth.image_ids)} images missing, such as {missing[0]}",
            "every image of the labels",
            "--images FOLDER",
        )
    return found


def _as_json(evaluation: DetectionEvaluation) -> dict[str, Any]:
    from perception.evaluation.coco import SUMMARY

    return {
        "images": evaluation.images,
        "detections": evaluation.detections,
        "objects": evaluation.total.objects,
        "all": dict(zip((name for name, _ in SUMMARY), evaluation.total.values, strict=True)),
        "classes": {
            one.name: {"objects": one.objects, **dict(zip(("AP", "AP50", "AP75"), one.values, strict=True))}
            for one in evaluation.classes
        },
        "warnings": list(evaluation.warnings),
    }


def _as_text(evaluation: DetectionEvaluation) -> str:
    from perception.evaluation.coco import SUMMARY
    from perception.reports.tables import align

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    rows = [["per cent", "AP", "AP50", "AP75", "objects"]]
    for one in (*evaluation.classes, evaluation.total):
        rows.append([one.name, *map(cell, one.values[:3]), f"{one.objects:,}"])
    more = [["", ""], *([f"{name} ({what})", cell(value)] for (name, what), value in _rest(evaluation, SUMMARY))]
    return (
        f"detection: {evaluation.images:,} images, {evaluation.total.objects:,} objects, "
        f"{evaluation.detections:,} detections\n\n{align(rows)}\n{align(more)}"
    )


def _rest(evaluation: DetectionEvaluation, summary: Any) -> list[tuple[tuple[str, str], float | None]]:
    return list(zip(summary, evaluation.total.values, strict=True))[3:]
