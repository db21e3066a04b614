"""Small made-up sets for the tests of reports: objects on a row of slots, a road that is a rectangle, two walkers."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np

from perception.evaluation.object import ObjectEvaluator
from perception.evaluation.results import ObjectEvaluation, RoadEvaluation, TrackingEvaluation
from perception.evaluation.road import RoadEvaluator
from perception.evaluation.tracking import TrackingEvaluator
from perception.formats.kitti import ObjectRows, TrackingRows

SLOT = 120


def boxes_at(slots: list[int], size: int = 60) -> np.ndarray:
    """Square boxes side by side, (N, 4)."""
    return np.array([[SLOT * s, 100, SLOT * s + size, 100 + size] for s in slots], float).reshape(-1, 4)


def labels(names: list[str], slots: list[int], **columns: np.ndarray) -> ObjectRows:
    """Visible, uncut labels 20 m away."""
    count = len(names)
    values = {
        "truncation": np.zeros(count),
        "occlusion": np.zeros(count, np.int64),
        "alpha": np.zeros(count),
        "location_cam2": np.tile([0.0, 1.5, 20.0], (count, 1)),
    }
    return ObjectRows.from_boxes(names, boxes_at(slots), **{**values, **columns})


def detections(names: list[str], slots: list[int], scores: list[float]) -> ObjectRows:
    return ObjectRows.from_boxes(names, boxes_at(slots), np.array(scores), alpha=np.zeros(len(names)))


def object_set(frames: int = 60, missed: float = 0.2, seed: int = 0, prefix: str = "") -> ObjectEvaluation:
    """Three cars, a pedestrian and a cyclist in every frame; each is missed with a probability, false alarms occur.

    The false alarms and the scores do not depend on `missed`, so two sets differ by their misses alone.
    """
    names = ["Car", "Car", "Car", "Pedestrian", "Cyclist"]
    evaluator, random = ObjectEvaluator(), np.random.default_rng(seed)
    for frame in range(frames):
        scores, luck, alarm = random.uniform(0.3, 1.0, 5), random.random(5), random.random()
        kept = np.flatnonzero(luck >= missed)
        found = [names[i] for i in kept] + (["Car"] if alarm < 0.3 else [])
        slots = [int(i) for i in kept] + ([8] if alarm < 0.3 else [])
        evaluator.process(
            f"{prefix}{frame:06d}",
            labels(names, [0, 1, 2, 3, 4]),
            detections(found, slots, [*scores[kept], *([alarm + 0.1] if alarm < 0.3 else [])]),
        )
    return evaluator.evaluate()


def boxes_set(frames: int = 40, depth_std_m: float = 0.4, seed: int = 0) -> ObjectEvaluation:
    """Cars and a pedestrian with 3-D boxes, found in 2D in every frame, at a distance that is off by chance."""
    names = ["Car", "Car", "Pedestrian"]
    size_hwl = np.array([[1.5, 1.7, 4.0], [1.5, 1.7, 4.0], [1.8, 0.6, 0.8]])
    evaluator, random = ObjectEvaluator(), np.random.default_rng(seed)
    for frame in range(frames):
        place = np.column_stack([[-4.0, 0.0, 4.0], np.full(3, 1.6), random.uniform(8, 45, 3)])
        turn, noise = random.uniform(-3, 3, 3), random.normal(0, 1, 3)
        shifted = place + np.outer(depth_std_m * noise, (0, 0, 1))
        found = detections(names, [0, 1, 2], random.uniform(0.3, 1, 3).tolist())
        evaluator.process(
            f"{frame:06d}",
            labels(names, [0, 1, 2], location_cam2=place, dimensions_hwl=size_hwl, rotation_y=turn),
            replace(found, location_cam2=shifted, dimensions_hwl=size_hwl, rotation_y=turn + 0.05 * noise),
        )
    return evaluator.evaluate()


def road_set(images: int = 8, shift: int = 2, seed: int = 0) -> RoadEvaluation:
    """A road 40 pixels wide in pictures of 60 × 100, found `shift` or a little more beside where it is."""
    evaluator, random = RoadEvaluator("perspective"), np.random.default_rng(seed)
    for index in range(images):
        road = np.zeros((60, 100), np.uint8)
        road[20:, 30:70] = 1
        confidence = np.roll(road, shift + int(random.integers(0, 3)), axis=1) * 180 + random.integers(
            0, 60, road.shape, dtype=np.uint8
        )
        evaluator.process(f"um_road_{index:06d}", np.ones_like(road), road, confidence.astype(np.uint8))
    return evaluator.evaluate()


def tracking_set(
    frames: int = 40, switch_at: int | None = 20, missed: int = 0, sequences: int = 2
) -> TrackingEvaluation:
    """Two cars stand still; the first one's id changes at `switch_at`, the second is lost in the first frames."""
    evaluator = TrackingEvaluator()
    for sequence in range(sequences):
        gt_rows, result_rows = [], []
        for frame in range(frames):
            for car in (0, 1):
                gt_rows.append((frame, car, car))
                if car == 1 and frame < missed:
                    continue
                changed = car == 0 and switch_at is not None and frame >= switch_at
                result_rows.append((frame, 100 + car + 10 * changed, car))
        evaluator.process(f"{sequence:04d}", _tracks(gt_rows, False), _tracks(result_rows, True), frames)
    return evaluator.evaluate()


def _tracks(rows: list[tuple[int, int, int]], is_result: bool) -> TrackingRows:
    """Rows of (frame, id, slot)."""
    table = np.array(rows, np.int64).reshape(-1, 3)
    objects = labels(["Car"] * len(table), [int(slot) for slot in table[:, 2]])
    if is_result:
        objects = ObjectRows.from_boxes(["Car"] * len(table), objects.boxes_xyxy, np.ones(len(table)))
    return TrackingRows(table[:, 0], table[:, 1], objects)


class Page(HTMLParser):
    """Reads a page and keeps what the tests ask about; `faults` names elements that are not closed in order."""

    VOID = frozenset({"meta", "br", "img"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{name}> is never closed" for name in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:] or 'nothing'}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every element of a name."""
        return [attributes for name, attributes in self.tags if name == tag]
