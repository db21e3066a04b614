"""Labels that a trained model strongly contradicts, the strongest first, as pictures.

Three kinds: an object that the model is sure of and nobody labelled, a label of another class than the model's, and a
label of which the model sees nothing. Each costs a glance; the model is wrong in many of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.formats.annotations import AnnotatedImage
from datasets.labels import LabelRule, rule_of
from perception.arrays import U8
from perception.boxes import intersection_over_area, iou
from perception.detector import Detector
from perception.errors import UserError
from perception.files import write_atomically
from perception.formats.images import read_image
from perception.progress import Progress
from perception.types import Detections

SURE = 0.6
"""Score from which a detection without a label is a suspicion."""
OTHER_CLASS = 0.5
"""Score from which a detection of another class on a label is a suspicion."""
SAME_IOU = 0.5
NEAR_IOU = 0.3
"""A label whose best overlap is lower is not seen at all."""
LOWEST_PX = 25.0
"""Lower boxes are hard to see for people and networks alike."""
PLAIN_PX = 120.0
"""Height from which a network that sees nothing is as suspicious as can be."""
MARGIN = 0.6
"""Of a picture around a box, of the box's longer side."""
PICTURE_WIDTH = 480
LABEL_BGR, MODEL_BGR = (80, 200, 80), (60, 110, 255)


@dataclass(frozen=True)
class Suspicion:
    """One place where labels and model disagree."""

    kind: str
    """`no label`, `other class` or `not seen`."""
    image: AnnotatedImage
    box_xyxy: tuple[float, ...]
    label: str
    """Label there; empty where there is none."""
    found: str
    """What the model says; empty where it says nothing."""
    strength: float
    """0..1: the model's score. Of a label that is not seen: less where it is small, hidden or half seen."""

    def __str__(self) -> str:
        said = {
            "no label": f"{self.found} {self.strength:.2f} without a label",
            "other class": f"labelled {self.label}, the model says {self.found} {self.strength:.2f}",
            "not seen": f"labelled {self.label}, the model sees nothing there",
        }[self.kind]
        return f"{self.image.name}: {said}"


def suspicions(detector: Detector, images: Sequence[AnnotatedImage]) -> list[Suspicion]:
    """Return where a model contradicts the labels of images, the strongest first.

    Only labels that are classes of the model are judged, and only detections of classes that the set labels.
    """
    rule = rule_of(detector.spec.class_infos, sorted({box.label for image in images for box in image.boxes}))
    found: list[Suspicion] = []
    with Progress("comparing labels with the model") as progress:
        for i, image in enumerate(images):
            try:
                detections, _ = detector(read_image(image.path))
            except UserError:  # the check has named it
                continue
            found += _of_image(image, detections, detector.spec.class_names, rule)
            progress.update(i + 1, len(images))
    return sorted(found, key=lambda one: (-one.strength, one.image.name))


def _of_image(
    image: AnnotatedImage, detections: Detections, names: tuple[str, ...], rule: LabelRule
) -> Iterator[Suspicion]:
    all_boxes = np.array([box.xyxy for box in image.boxes], np.float64).reshape(-1, 4)
    ids = [rule.positive.get(box.label.lower(), -1) for box in image.boxes]
    labels = ["" if k < 0 else rule.class_names[k] for k in ids]
    judged = [bool(label in names and not box.ignore) for label, box in zip(labels, image.boxes, strict=True)]
    overlap = iou(detections.boxes_xyxy, all_boxes)  # (N, M)
    covered = intersection_over_area(detections.boxes_xyxy, all_boxes)  # (N, M)
    labelled = {name for name, yes in zip(rule.class_names, rule.labelled_classes, strict=True) if yes}
    for k, (box, score) in enumerate(zip(detections.boxes_xyxy.tolist(), detections.scores.tolist(), strict=True)):
        name = names[int(detections.class_ids[k])]
        near = covered[k].max(initial=0) > 0.5 or overlap[k].max(initial=0) > NEAR_IOU
        if score >= SURE and name in labelled and box[3] - box[1] >= LOWEST_PX and not near:
            yield Suspicion("no label", image, tuple(box), "", name, score)
    for m, one in enumerate(image.boxes):
        if not judged[m] or one.xyxy[3] - one.xyxy[1] < LOWEST_PX:
            continue
        theirs = np.array([names[int(c)] for c in detections.class_ids])
        agrees = (overlap[:, m] >= NEAR_IOU) & (theirs == labels[m])
        same = np.where((overlap[:, m] >= SAME_IOU) & (theirs != labels[m]), detections.scores, 0.0)
        best = int(same.argmax()) if len(same) else -1
        if best >= 0 and same[best] >= OTHER_CLASS and same[best] > detections.scores[agrees].max(initial=0):
            yield Suspicion("other class", image, one.xyxy, labels[m], str(theirs[best]), float(same[best]))
        elif not (overlap[:, m] >= NEAR_IOU).any():
            touched = float(detections.scores[overlap[:, m] > 0.1].max(initial=0))
            visible = 1.0 if not one.occlusion else 0.5  # a hidden object is often not seen, and rightly labelled
            large = min(1.0, (one.xyxy[3] - one.xyxy[1]) / PLAIN_PX)
            yield Suspicion("not seen", image, one.xyxy, labels[m], "", (1 - touched) * visible * large * SURE)


def write_pictures(found: Sequence[Suspicion], out: Path, most: int = 100) -> int:
    """Write a picture of each suspicion, `001 KIND.jpg`, and `suspicions.txt`; returns the number of pictures.

    Labels are green, the model's boxes red.
    """
    shown = found[:most]
    for old in out.glob("[0-9][0-9][0-9] *.jpg"):
        old.unlink()
    for i, one in enumerate(shown, 1):
        picture = _picture(one)
        write_atomically(out / f"{i:03d} {one.kind}.jpg", cv2.imencode(".jpg", picture)[1].tobytes())
    write_atomically(out / "suspicions.txt", "".join(f"{i:03d} {one}\n" for i, one in enumerate(shown, 1)))
    return len(shown)


def _picture(one: Suspicion) -> U8:
    image = read_image(one.image.path)
    height, width = image.shape[:2]
    left, top, right, bottom = one.box_xyxy
    margin = MARGIN * max(right - left, bottom - top) + 10
    x0, y0 = max(0, int(left - margin)), max(0, int(top - margin))
    x1, y1 = min(width, int(right + margin) + 1), min(height, int(bottom + margin) + 1)
    scale = PICTURE_WIDTH / (x1 - x0)
    crop = cv2.resize(image[y0:y1, x0:x1], None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    for box in one.image.boxes:
        _draw(crop, box.xyxy, (x0, y0), scale, LABEL_BGR, 1)
    _draw(crop, one.box_xyxy, (x0, y0), scale, LABEL_BGR if one.label else MODEL_BGR, 2)
    text = str(one).rpartition(": ")[2]
    banner = np.full((24, crop.shape[1], 3), 30, np.uint8)
    cv2.putText(banner, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([banner, crop]).astype(np.uint8)


def _draw(
    crop: U8, box: Sequence[float], origin: tuple[int, int], scale: float, colour: tuple[int, int, int], width: int
) -> None:
    left, top, right, bottom = (round((v - origin[k % 2]) * scale) for k, v in enumerate(box))
    cv2.rectangle(crop, (left, top), (right, bottom), colour, width, cv2.LINE_AA)
