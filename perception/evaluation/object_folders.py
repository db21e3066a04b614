"""Load folders of object labels and results, and score them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from perception.evaluation.folders import (
    ALLOW_MISSING,
    box_warnings,
    class_warnings,
    find_folder,
    find_labels,
    find_split,
    first_ten,
    missing_warning,
    read_names,
    refuse_unknown_classes,
    require,
    stems,
)
from perception.evaluation.object import evaluate_objects
from perception.evaluation.results import LEVELS, OBJECT_CLASSES_SCORED, ObjectEvaluation
from perception.formats.kitti import OBJECT_CLASSES, UNKNOWN_ALPHA
from perception.formats.kitti_table import ObjectTable, find_object_files, read_object_table


def score_object_folders(
    gt: Path, results: Path, *, split: Path | None = None, allow_missing: bool = False
) -> ObjectEvaluation:
    """Score object results.

    Args:
        gt: folder of label files, or KITTI's root.
        results: folder of result files, or one whose `data` folder holds them, as the devkit wants it.
        split: file with frame names; by default every label file counts.
        allow_missing: count a frame without a result file as empty instead of refusing it.

    Raises:
        UserError: the input cannot be scored.
    """
    labels = find_labels(gt, "object")
    found = find_folder(results, ("data",), ".txt", "result files, one for each frame", "--results DIR")
    names = stems(labels, ".txt") if split is None else list(read_names(find_split(split, gt, labels)))
    label_paths, result_paths = find_object_files(labels, names), find_object_files(found, names)
    require(
        [name for name, path in zip(names, label_paths, strict=True) if path is None],
        f"label file(s) of the split in {labels}",
        "another --gt or --split",
    )
    missing = [name for name, path in zip(names, result_paths, strict=True) if path is None]
    if not allow_missing:
        do = ALLOW_MISSING if split else f"--split FILE with the frames that were evaluated, or {ALLOW_MISSING}"
        require(missing, f"result file(s) of {len(names)} in {found}", do)
    evaluation = evaluate_objects(
        read_object_table(names, label_paths, scores=False),
        read_object_table(names, result_paths, scores=True, allow_inverted=True),
    )
    warnings = missing_warning(missing, "frames")
    if others := sorted(set(stems(found, ".txt")) - set(names)):
        warnings.append(f"{len(others)} result file(s) of other frames are not scored: {first_ten(others)}")
    warnings += _row_warnings(evaluation, found)
    return replace(evaluation, warnings=tuple(warnings), missing_frames=tuple(missing))


def _row_warnings(evaluation: ObjectEvaluation, found: Path) -> list[str]:
    """Count rows that are not scored, or scored although they look wrong."""
    gt, detections = evaluation.gt, evaluation.detections
    result_counts = _class_counts(detections)
    warnings = class_warnings(gt.class_names, _class_counts(gt), OBJECT_CLASSES, "label")
    warnings += class_warnings(detections.class_names, result_counts, OBJECT_CLASSES, "result")
    named = [name for name, count in zip(detections.class_names, result_counts, strict=True) if count]
    refuse_unknown_classes(named, OBJECT_CLASSES, found, 1)
    warnings += box_warnings(detections.boxes_xyxy, gt.boxes_xyxy)
    unscored = [name for name in OBJECT_CLASSES_SCORED if (name, LEVELS[0]) not in evaluation.scores]
    outside = [name for name in unscored if detections.is_class(name).any()]
    absent = [name for name in unscored if name not in outside]
    if absent:
        warnings.append(f"never detected, so not scored, as in the official tool: {', '.join(absent)}")
    if outside:
        warnings.append(
            f"every row starts left of the image, so 2D is not scored, as in the official tool: {', '.join(outside)}"
        )
    without_alpha = int((detections.alpha == UNKNOWN_ALPHA).sum())
    if without_alpha:
        warnings.append(f"{without_alpha} result row(s) have alpha -10: AOS is not scored, as in the official tool")
    return warnings


def _class_counts(table: ObjectTable) -> Sequence[int]:
    return np.bincount(table.class_ids, minlength=len(table.class_names)).tolist()
