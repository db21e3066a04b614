"""Load folders of road ground truth and confidence maps, and score them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from perception.evaluation.folders import (
    ALLOW_MISSING,
    Progress,
    find_folder,
    find_labels,
    first_ten,
    missing_warning,
    read_names,
    require,
    stems,
)
from perception.evaluation.results import RoadEvaluation
from perception.evaluation.road import (
    RoadEvaluator,
    category_of,
    read_confidence,
    read_ground_truth,
    read_road_calibration,
)


def score_road_folders(
    gt: Path,
    results: Path,
    *,
    calib: Path | None = None,
    space: str = "bev",
    split: Path | None = None,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> RoadEvaluation:
    """Score confidence maps.

    Args:
        gt: folder of ground truth PNGs, or KITTI's root.
        results: folder of result PNGs of the same names.
        calib: folder of calibration files; by default `calib` beside the ground truth.
        space: 'bev', as the server scores, or 'perspective'.
        split: file with names such as um_road_000012; by default every ground truth counts.
        allow_missing: count an image without a result as "no road" instead of refusing it.
        progress: called after every image.

    Raises:
        UserError: the input cannot be scored.
    """
    truths = find_labels(gt, "road")
    found = find_folder(results, ("data",), ".png", "confidence maps, one for each ground truth", "--results DIR")
    present = set(stems(found, ".png"))
    names = stems(truths, ".png") if split is None else list(read_names(split))
    require(
        [name for name in names if not (truths / f"{name}.png").is_file()],
        f"ground truth(s) of the split in {truths}",
        "another --gt or --split",
    )
    names, warnings = _without_lanes(names, present)
    missing = [name for name in names if name not in present]
    if not allow_missing:
        require(missing, f"result(s) of {len(names)} in {found}", f"--split FILE, or {ALLOW_MISSING}")
    warnings += missing_warning(missing, "images")
    if others := sorted(present - set(names)):
        warnings.append(f"{len(others)} result(s) without ground truth are not scored: {first_ten(others)}")

    calibrations = find_road_calibrations(truths, calib, names) if space == "bev" else {}
    evaluator = RoadEvaluator(space)
    for i, name in enumerate(names):
        _process(evaluator, name, truths, found if name in present else None, calibrations.get(name))
        if progress:
            progress(i + 1, len(names))
    evaluation = evaluator.evaluate()
    for category, score in evaluation.scores.items():
        if score.tp + score.fn == 0:
            warnings.append(f"{category}: no road in the ground truth, so its numbers mean nothing")
    return replace(evaluation, warnings=tuple(warnings), missing_images=tuple(missing))


def _without_lanes(names: list[str], present: set[str]) -> tuple[list[str], list[str]]:
    """Drop the ego-lane benchmark where the results hold no lane at all, and report it."""
    lanes = [name for name in names if category_of(name).endswith("_lane")]
    if not lanes or len(lanes) == len(names) or present.intersection(lanes):
        return names, []
    dropped = set(lanes)
    kept = [name for name in names if name not in dropped]
    return kept, [f"um_lane: {len(lanes)} ground truths and no result at all: not scored"]


def _process(
    evaluator: RoadEvaluator, name: str, truths: Path, results: Path | None, calibration: Path | None
) -> None:
    """Read one image and add it; without `results` its confidence is 0 everywhere."""
    valid, road = read_ground_truth(truths / f"{name}.png")
    result_path = None if results is None else results / f"{name}.png"
    evaluator.process(
        name,
        valid,
        road,
        np.zeros_like(valid) if result_path is None else read_confidence(result_path),
        None if calibration is None else read_road_calibration(calibration),
        gt_path=truths / f"{name}.png",
        result_path=result_path,
        calibration_path=calibration,
    )


def find_road_calibrations(truths: Path, calib: Path | None, names: Sequence[str]) -> dict[str, Path]:
    """Find the calibration file of each ground truth, um_000012.txt for um_lane_000012.

    Raises:
        UserError: some are missing.
    """
    folder = calib if calib is not None else truths.parent / "calib"
    paths = {name: folder / f"{re.sub(r'_(lane|road)_', '_', name)}.txt" for name in names}
    require(
        sorted({path.name for path in paths.values() if not path.is_file()}),
        f"calibration(s) of {len(names)} in {folder}",
        "--calib FOLDER, --split FILE with the images that have one, or --space perspective",
    )
    return paths
