"""`perception evaluate object|road|tracking|detection|fairness|compare`: KITTI's official scores and more."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception import __version__
from perception.cli.evaluate_inputs import check_inputs, check_report, out_folder
from perception.cli.evaluate_options import (
    CompareOptions,
    ObjectOptions,
    RoadOptions,
    SharedOptions,
    TrackingOptions,
)
from perception.cli.options import parse_options
from perception.errors import UserError
from perception.progress import Progress
from perception.provenance import commit, data_hash

if TYPE_CHECKING:
    from perception.evaluation.results import RoadEvaluation
    from perception.reports.report import Report

MOST = 1_000_000
"""Most draws, longest block and largest seed of a comparison."""
SUBCOMMANDS = {
    "object": "2D average precision and orientation similarity of Car, Pedestrian and Cyclist",
    "road": "maximum F and average precision of road confidence, seen from above or in the image",
    "tracking": "HOTA, CLEAR and Identity of Car and Pedestrian",
    "detection": "COCO's mean average precision, for any classes (extra coco)",
    "fairness": "whom the network misses more often: miss rates of people by stratum, matched",
    "compare": "two reports side by side: which differences are real",
}


def main(argv: list[str]) -> int:
    """Run one subcommand."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        width = max(map(len, SUBCOMMANDS))
        print("usage: perception evaluate SUBCOMMAND [options]\n")
        print("\n".join(f"  {name:<{width}}  {text}" for name, text in SUBCOMMANDS.items()))
        print("\nperception evaluate SUBCOMMAND --help explains one of them.")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in SUBCOMMANDS:
        import difflib

        near = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f"perception evaluate {near[0]}" if near else "perception evaluate --help"
        raise UserError(f"unknown subcommand '{name}'", "one of " + ", ".join(SUBCOMMANDS), hint)
    if name == "detection":
        from perception.cli.evaluate_detection import main as detection

        return detection(rest)
    if name == "fairness":
        from perception.cli.evaluate_fairness import main as fairness

        return fairness(rest)
    return {"object": _object, "road": _road, "tracking": _tracking, "compare": _compare}[name](rest)


def _object(argv: list[str]) -> int:
    options = parse_options(ObjectOptions, argv, "perception evaluate object")
    if not 0 <= options.minimum_score <= 1:
        raise UserError(f"--minimum-score {options.minimum_score:g}", "from 0 to 1", "--minimum-score 0.01")
    if options.score_threshold is not None and not math.isfinite(options.score_threshold):
        raise UserError(f"--score-threshold {options.score_threshold:g}", "a score", "--score-threshold 0.5")
    from perception.evaluation.object_folders import score_object_folders
    from perception.reports.tables import object_json, object_text

    gt, results = check_inputs(options)
    if options.model is not None:
        from perception.cli.evaluate_model import run_objects

        results = run_objects(options, gt, out_folder(options, "object"))
    assert results is not None
    evaluation = score_object_folders(gt, results, split=options.split, allow_missing=options.allow_missing)
    _tell(evaluation.warnings)
    page = None
    if options.report is not None:
        from perception.reports.object import object_report

        page = _report(
            object_report(
                evaluation,
                images=_images(options, gt, "object"),
                facts=_facts(options, "object", gt, results),
                score_threshold=options.score_threshold,
            ),
            options,
        )
    print(json.dumps(_with(object_json(evaluation), page)) if options.json else object_text(evaluation))
    return 0


def _road(argv: list[str]) -> int:
    options = parse_options(RoadOptions, argv, "perception evaluate road")
    from perception.evaluation.road_folders import score_road_folders
    from perception.reports.tables import road_json, road_text

    gt, results = check_inputs(options)
    if options.model is not None:
        from perception.cli.evaluate_model import run_roads

        results = run_roads(options, gt, out_folder(options, "road"))
    assert results is not None
    with Progress("scoring") as progress:
        evaluation = score_road_folders(
            gt,
            results,
            calib=options.calib,
            space=options.space,
            split=options.split,
            allow_missing=options.allow_missing,
            progress=progress.update,
        )
    _tell(evaluation.warnings)
    if options.render is not None:
        _render(evaluation, options.render, _images(options, gt, "road"))
    page = None
    if options.report is not None:
        from perception.reports.road import road_report

        page = _report(
            road_report(evaluation, images=_images(options, gt, "road"), facts=_facts(options, "road", gt, results)),
            options,
        )
    print(json.dumps(_with(road_json(evaluation), page)) if options.json else road_text(evaluation))
    return 0


def _tracking(argv: list[str]) -> int:
    options = parse_options(TrackingOptions, argv, "perception evaluate tracking")
    from perception.evaluation.tracking_folders import score_tracking_folders
    from perception.reports.tables import tracking_json, tracking_text

    gt, results = check_inputs(options)
    only_frames = None
    if options.model is not None:
        from perception.cli.evaluate_model import run_tracks

        results, only_frames = run_tracks(options, gt, out_folder(options, "tracking"))
    assert results is not None
    evaluation = score_tracking_folders(
        gt, results, seqmap=options.seqmap, allow_missing=options.allow_missing, only_frames=only_frames
    )
    _tell(evaluation.warnings)
    page = None
    if options.report is not None:
        from perception.reports.tracking import tracking_report

        page = _report(
            tracking_report(
                evaluation, images=_images(options, gt, "tracking"), facts=_facts(options, "tracking", gt, results)
            ),
            options,
        )
    text = json.dumps(_with(tracking_json(evaluation), page)) if options.json else ""
    print(text or tracking_text(evaluation, sequences=not options.summary))
    return 0


def _compare(argv: list[str]) -> int:
    options = parse_options(CompareOptions, argv, "perception evaluate compare")
    if options.a is None or options.b is None:
        raise UserError("two reports are needed", "perception evaluate compare A B", "--report DIR writes one")
    if options.report is not None and options.report.resolve() in (options.a.resolve(), options.b.resolve()):
        raise UserError(
            f"--report {options.report}: one of the two reports is there",
            "a folder of its own: the comparison would replace it",
            "--report comparison",
        )
    for name, value, least, example in (
        ("--block", options.block, 1, "50"),
        ("--resamples", options.resamples, 1, "2000"),
        ("--seed", options.seed, 0, "0"),
    ):
        if value is not None and not least <= value <= MOST:
            raise UserError(f"{name} {value}", f"a whole number from {least} to {MOST:,}", f"{name} {example}")
    check_report(options.report)
    from perception.reports.compare import compare, read_groups
    from perception.reports.compare_page import comparison_report, text_table
    from perception.reports.write import render_json, write_report

    with Progress("drawing frames") as progress:
        comparison = compare(
            options.a,
            options.b,
            resamples=options.resamples,
            seed=options.seed,
            block=options.block,
            groups=None if options.groups is None else read_groups(options.groups),
            progress=progress.update,
        )
    report = comparison_report(comparison)
    if options.report is not None:
        print(f"report: {write_report(report, options.report)}", file=sys.stderr)
    print(render_json(report) if options.json else text_table(comparison))
    worse = [one.name for one in comparison.differences if one.verdict == "real" and one.difference < 0]
    return 1 if (worse or comparison.only_a) and options.fail_if_worse else 0


# ---------------------------------------------------------------- shared steps


def _tell(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _facts(
    options: SharedOptions, task: str, gt: Path, results: Path
) -> Mapping[str, str | int | float | bool | None]:
    """List what the report says about the run: options that shaped the numbers, hashes of what was read, the code."""
    from perception.evaluation.folders import find_labels

    facts = {field.name: getattr(options, field.name) for field in fields(options)}
    silent = {"json", "report", "summary"}
    if options.model is None:
        silent |= {"data", "device", "ensemble", "flip", "minimum_score", "out", "scales", "threads", "tracker"}
    shown = {
        name: str(value) for name, value in facts.items() if value not in (None, False, ()) and name not in silent
    }
    made = {"perception": __version__, "commit": commit()}
    read = {"labels_hash": data_hash(find_labels(gt, task)), "results_hash": data_hash(results)}
    return {**shown, "gt": str(gt), "results": str(results), **read, **made}


def _images(options: SharedOptions, gt: Path, task: str) -> Path | None:
    """The folder of camera images: the one given, or the one that belongs to the labels."""
    if options.images is not None:
        if not options.images.is_dir():
            raise UserError(f"{options.images}: no such folder", "a folder of camera images", "--images DIR")
        return options.images
    from perception.evaluation.folders import find_images

    return find_images(gt, task)


def _report(report: Report, options: SharedOptions) -> Path:
    from perception.reports.write import write_report

    assert options.report is not None
    page = write_report(report, options.report)
    print(f"report: {page}", file=sys.stderr)
    return page


def _with(values: dict[str, Any], page: Path | None) -> dict[str, Any]:
    return {**values, "report": None if page is None else str(page)}


def _render(evaluation: RoadEvaluation, folder: Path, images: Path | None) -> None:
    """DIR/confidence as the server wants it, DIR/errors in colour over the camera's image where there is one."""
    import cv2

    from perception.evaluation.road import BIRDS_EYE, colour_errors, read_road_calibration, road_planes
    from perception.formats.images import read_image_or_none

    for name in ("confidence", "errors"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with Progress("drawing") as progress:
        for i, image in enumerate(evaluation.images):
            valid, road, confidence = road_planes(image, evaluation.space)
            backdrop = None
            stem = image.name.replace("_lane_", "_").replace("_road_", "_")
            found = [] if images is None else sorted(images.glob(f"{stem}.*"))
            if found:
                backdrop = read_image_or_none(found[0])
                if backdrop is not None and image.calibration_path is not None:
                    calibration = read_road_calibration(image.calibration_path)
                    backdrop = BIRDS_EYE.view(backdrop, BIRDS_EYE.pixels(calibration))
            if backdrop is None or backdrop.shape[:2] != road.shape:
                backdrop = None
            threshold = evaluation.scores[image.category].threshold
            cv2.imwrite(str(folder / "confidence" / f"{image.name}.png"), confidence)
            errors = colour_errors(valid, road, confidence, threshold, backdrop)
            cv2.imwrite(str(folder / "errors" / f"{image.name}.png"), errors)
            progress.update(i + 1, len(evaluation.images))
    print(f"images: {folder}", file=sys.stderr)
