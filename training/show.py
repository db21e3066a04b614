"""Draw ground truth and predictions into validation frames, for TensorBoard."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.sample import ROAD_IGNORE, Sample
from perception.arrays import U8
from perception.types import Detections, RoadMask

TRUTH_BGR = (80, 220, 80)
IGNORED_BGR = (150, 150, 150)
FOUND_BGR = ((60, 160, 255), (255, 120, 200), (255, 220, 60))
"""Colour of the detections of each class."""
SHOWN_FROM = 0.25
"""Lowest score of drawn detections."""
LARGEST_WIDTH = 1242


def draw(sample: Sample, detections: Detections | None, road: RoadMask | None, class_names: tuple[str, ...]) -> U8:
    """Return a copy of the frame with ground truth in green, ignore regions in grey, detections, and tinted road.

    Where road is labelled, true positives are green, false negatives red, false positives blue.
    """
    image = sample.image_bgr.copy()
    if road is not None:
        image = _tint(image, sample.road, road.at_frame_size() >= 128)
    factor = min(1.0, LARGEST_WIDTH / image.shape[1])
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else image
    for boxes, colour in ((sample.ignore_boxes_xyxy, IGNORED_BGR), (sample.boxes_xyxy, TRUTH_BGR)):
        for box in () if boxes is None else boxes * factor:
            _rectangle(image, box, colour, 2)
    if detections is not None:
        for box, score, class_id in zip(
            detections.boxes_xyxy * factor, detections.scores, detections.class_ids, strict=True
        ):
            if score < SHOWN_FROM:
                continue
            colour = FOUND_BGR[int(class_id) % len(FOUND_BGR)]
            _rectangle(image, box, colour, 1)
            text = f"{class_names[int(class_id)]} {score:.2f}"
            place = (int(box[0]), max(10, int(box[1]) - 3))
            cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 3, cv2.LINE_AA)
            cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return image


def _rectangle(image: U8, box: np.ndarray, colour: tuple[int, int, int], thickness: int) -> None:
    left, top, right, bottom = (round(float(v)) for v in box)
    cv2.rectangle(image, (left, top), (right, bottom), colour, thickness)


def _tint(image: U8, truth: U8 | None, found: np.ndarray) -> U8:
    if truth is None:
        layers = [(found, (190, 160, 30))]
    else:
        judged = truth != ROAD_IGNORE
        layers = [
            (judged & (truth == 1) & found, (60, 180, 60)),
            (judged & (truth == 1) & ~found, (50, 50, 230)),
            (judged & (truth != 1) & found, (240, 120, 30)),
        ]
    for where, colour in layers:
        image[where] = (image[where] * 0.6 + np.array(colour) * 0.4).astype(np.uint8)
    return image
