"""Confirmation thresholds: the score from which a tracker confirms a track of a class, measured on validation frames.

A detection matches at IoU 0.5: KITTI's 0.7 rates the accuracy of a box, a tracker only asks whether an object exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from datasets.sample import Sample
from perception.evaluation.detection import Matches, f1_scores, match
from perception.types import Detections

ONE_TO_MANY = "many_"
"""Prefix of the one-to-many head's scores, where the network is evaluated by its one-to-one head."""
SMALLEST_PX = 25.0
"""Lowest object that counts, pixels, as in KITTI's moderate level."""
THRESHOLD_RANGE = (0.1, 0.9)
"""Bounds of a confirmation threshold. The tracker does not use detections below 0.1."""
SHARE_OF_BEST_F1 = 0.7
"""Factor on the threshold of the best F1. A tracker sees an object in many frames, so it can confirm at lower scores
(`tools.benchmarks.trackers --parts own` compares)."""
F1_TOLERANCE = 0.02
"""F1 this far below the best is as good: the curve is flat there, and the position of its maximum is noise."""
MIN_FOUND = 8
"""Detected objects that a class needs for a threshold of its own."""


def match_sample(
    sample: Sample, detections: Detections, class_id: int, min_iou: float = 0.5, truth_id: int | None = None
) -> Matches:
    """Match the detections of one class with the objects of a sample.

    Objects lower than `SMALLEST_PX` and ignore regions of the class count neither as found nor as missed.

    Args:
        sample: frame with labelled boxes.
        detections: detections in the frame.
        class_id: class of the detections.
        min_iou: IoU from which a detection matches an object.
        truth_id: class of the objects in the data sets' numbering (default: `class_id`).
    """
    assert sample.boxes_xyxy is not None and sample.class_ids is not None
    assert sample.ignore_boxes_xyxy is not None and sample.ignore_class_ids is not None
    truth_id = class_id if truth_id is None else truth_id
    truth = sample.boxes_xyxy[sample.class_ids == truth_id]
    mine = detections[detections.class_ids == class_id]
    return match(
        mine.boxes_xyxy,
        mine.scores,
        truth,
        truth[:, 3] - truth[:, 1] >= SMALLEST_PX,
        sample.ignore_boxes_xyxy[np.isin(sample.ignore_class_ids, (truth_id, -1))],
        min_iou,
    )


def confirm_threshold(matches: Matches) -> float | None:
    """Return `SHARE_OF_BEST_F1` of the lowest score whose F1 equals the best within `F1_TOLERANCE`.

    None where fewer than `MIN_FOUND` objects were found.
    """
    if matches.is_true.sum() < MIN_FOUND:
        return None
    f1 = f1_scores(matches)
    lowest = int(np.flatnonzero(f1 >= f1.max() - F1_TOLERANCE)[-1])
    return float(np.clip(SHARE_OF_BEST_F1 * matches.scores[lowest], *THRESHOLD_RANGE))


def confirm_thresholds(classes: Sequence[Matches]) -> tuple[float, ...]:
    """Return the confirmation threshold of each class; empty where no class has enough detections.

    A class with too few takes the lowest threshold of the others, because rare classes score low.
    """
    own = [confirm_threshold(matches) for matches in classes]
    known = [score for score in own if score is not None]
    return tuple(round(min(known) if score is None else score, 3) for score in own) if known else ()


def confirm_threshold_key(class_name: str) -> str:
    """Return the key of a class's confirmation threshold among the scores of a checkpoint."""
    return f"confirm_threshold_{class_name.lower()}"


def proposed(scores: Mapping[str, float], class_names: Sequence[str]) -> tuple[float, ...]:
    """Return the confirmation thresholds that a checkpoint stores, in the order of the classes, or nothing."""
    keys = [confirm_threshold_key(name) for name in class_names]
    return tuple(scores[key] for key in keys) if all(key in scores for key in keys) else ()


def of_exported_head(scores: Mapping[str, float], one_to_one: bool | None) -> dict[str, float]:
    """Return a checkpoint's scores with the thresholds of the exported head, see `Network.deployed_heads`."""
    other = {name.removeprefix(ONE_TO_MANY): value for name, value in scores.items() if name.startswith(ONE_TO_MANY)}
    return {**scores, **other} if one_to_one is False else dict(scores)
