"""From which score a class's detections are worth believing, measured on held-out frames.

KITTI's overlap of 0.7 asks for exact boxes; a tracker asks whether something is there, so 0.5 counts here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from datasets.sample import Sample
from perception.evaluation.detection import Matches, f1_scores, match
from perception.types import Detections

ONE_TO_MANY = "many_"
"""Before the scores of the one-to-many head, where the network is scored by its one-to-one head."""
SMALLEST_PX = 25.0
"""Truth lower than that is neither found nor missed, as in KITTI's moderate level."""
SENSIBLE = (0.1, 0.9)
"""Bounds of such a score: the tracker does not use detections below a tenth."""
SEVERAL_LOOKS = 0.7
"""A tracker sees an object in many frames, so it may believe earlier than a single image's best F1 would: with
earlier weights of ours HOTA was 78.1 for cars and 26.8 for pedestrians at 0.7 of that score, and 74.8 and 17.3 at the
score itself (`tools.benchmarks.trackers --parts own`)."""
FLAT = 0.02
"""F1 below the best that is as good: the curve is flat there, and which of its scores is the best is chance."""
LEAST_FOUND = 8
"""Objects found, under which a class's own score is chance."""


def match_sample(
    sample: Sample, detections: Detections, class_id: int, min_iou: float = 0.5, truth_id: int | None = None
) -> Matches:
    """Match the detections of one class with the objects of a sample.

    Objects lower than `SMALLEST_PX` and ignore regions of the class count as nothing.

    Args:
        sample: frame with labelled boxes.
        detections: detections in it.
        class_id: class of the detections.
        min_iou: IoU from which a detection matches an object.
        truth_id: class of the objects among the data sets' classes; by default `class_id`.
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


def believed_from(matches: Matches) -> float | None:
    """`SEVERAL_LOOKS` of the lowest score with as good an F1 as the best; None where too few were found to tell."""
    if matches.is_true.sum() < LEAST_FOUND:
        return None
    f1 = f1_scores(matches)
    lowest = int(np.flatnonzero(f1 >= f1.max() - FLAT)[-1])
    return float(np.clip(SEVERAL_LOOKS * matches.scores[lowest], *SENSIBLE))


def even_scores(classes: Sequence[Matches]) -> tuple[float, ...]:
    """For each class the score from which its detections are believed; empty where no class has enough.

    A class with too few takes the lowest of the others: what is rarely shown scores low.
    """
    own = [believed_from(matches) for matches in classes]
    known = [score for score in own if score is not None]
    return tuple(round(min(known) if score is None else score, 3) for score in own) if known else ()


def even_score_key(class_name: str) -> str:
    """Name of a class's score among the scores of a checkpoint."""
    return f"even_score_{class_name.lower()}"


def proposed(scores: Mapping[str, float], class_names: Sequence[str]) -> tuple[float, ...]:
    """The even scores that a checkpoint's run measured, for the classes in their order; empty where it did not."""
    keys = [even_score_key(name) for name in class_names]
    return tuple(scores[key] for key in keys) if all(key in scores for key in keys) else ()


def of_exported_head(scores: Mapping[str, float], one_to_one: bool | None) -> dict[str, float]:
    """A checkpoint's scores with the thresholds of the head that is exported, see `Network.deployed_heads`."""
    other = {name.removeprefix(ONE_TO_MANY): value for name, value in scores.items() if name.startswith(ONE_TO_MANY)}
    return {**scores, **other} if one_to_one is False else dict(scores)
