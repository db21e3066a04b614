"""Score detectors on held-out frames: precision, recall and AP of people and cars, with bootstrap intervals.

    python -m tools.benchmarks.yardstick MODEL... --root ../shared/data --part choosing
    python -m tools.benchmarks.yardstick MODEL... --root ../shared/data --part report

A model is a checkpoint (`.pt`), an export of this project (`.onnx`) or a foreign detector (`training/teachers.py`).
The operating point of a class is its best F1 on the choosing part; on the report part that threshold is applied as it
is. Heights are those at 384x1248, the size at which every model sees a frame unless its file fixes another one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from datasets.labels import CAR, CYCLIST, PEDESTRIAN
from datasets.readers.yardstick import NEAR_M, Frame, frames, road_frames
from datasets.yardstick_split import PartName
from perception.arrays import U8
from perception.cameras.letterbox import plan_letterbox
from perception.devices import Device, Precision
from perception.errors import UserError
from perception.evaluation.detection import Matches, average_precision, f1_scores, match, pool, precision_recall
from perception.evaluation.object import ObjectEvaluator
from perception.evaluation.results import RoadImage
from perception.evaluation.road import category_of, confidence_histograms, pr_curve
from perception.files import write_atomically
from perception.formats.kitti import ObjectRows, read_objects
from perception.types import CLASS_NAMES, Detections, RoadMask

REFERENCE_HW = (384, 1248)
SMALLEST_PX = 25.0
"""Lower objects are neither found nor missed."""
MOST_OCCLUDED = 1
"""Largely hidden objects are neither found nor missed, except in the row about them."""
HEIGHTS = ((25.0, 50.0), (50.0, 100.0), (100.0, np.inf))
RESAMPLES = 1000
DATA_SETS = {"kitti": "kitti/object", "citypersons": "citypersons_sample", "dawn": "dawn_fog"}
"""Group of a frame → data set, as the hold-out of a checkpoint names it."""
WANTED_PRECISION = 0.85

Detect = Callable[[U8], tuple[Detections, RoadMask | None]]


@dataclass(frozen=True)
class Row:
    """What is scored together."""

    name: str
    class_id: int
    groups: tuple[str, ...]
    min_iou: float


ROWS = (
    Row("Pedestrian", PEDESTRIAN, ("kitti", "citypersons"), 0.5),
    Row("Pedestrian, KITTI", PEDESTRIAN, ("kitti",), 0.5),
    Row("Pedestrian, CityPersons", PEDESTRIAN, ("citypersons",), 0.5),
    Row("Cyclist", CYCLIST, ("kitti", "citypersons"), 0.5),
    Row("Car, KITTI, IoU 0.7", CAR, ("kitti",), 0.7),
    Row("Car, KITTI", CAR, ("kitti",), 0.5),
    Row("Car, DAWN", CAR, ("dawn",), 0.5),
)
"""The first row of a class and IoU decides that class's threshold there."""


@dataclass(frozen=True)
class Options:
    """Score detectors on the choosing or the report part."""

    models: tyro.conf.Positional[tuple[Path, ...]]
    """Checkpoints, exports or foreign detectors."""
    root: Path = Path("../shared/data")
    """Dataset root."""
    part: PartName = "choosing"
    """Which held-out frames. Score `report` for a model card only."""
    size_hw: tuple[int, int] = REFERENCE_HW
    """Network input of checkpoints and foreign detectors."""
    threads: int = 1
    """CPU threads."""
    device: Device = "cpu"
    """What runs exports of this project, as for `perception run`."""
    precision: Precision = "fp32"
    """Arithmetic of OpenVINO."""
    json: Path | None = None
    """Also write all numbers to this file."""


@dataclass(frozen=True)
class Value:
    """A number with its 95 % interval over images."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.0f} ({100 * self.low:.0f}–{100 * self.high:.0f})"


@dataclass(frozen=True)
class Score:
    """One line of the table."""

    name: str
    objects: int
    threshold: float | None
    ap: Value | None = None
    precision: Value | None = None
    recall: Value | None = None
    f1: Value | None = None
    recall_at_precision: Value | None = None
    """Highest recall at a precision of `WANTED_PRECISION`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table for each model."""
    options = tyro.cli(Options, args=argv, prog="python -m tools.benchmarks.yardstick", description=__doc__)
    try:
        results = {str(path): score_model(path, options) for path in options.models}
        if options.json is not None:
            told = {key: getattr(options, key) for key in ("part", "size_hw", "device", "precision")}
            text = json.dumps({**told, "models": results}, indent=1)
            write_atomically(options.json, text)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def score_model(path: Path, options: Options) -> dict[str, Any]:
    """Score one model, print its table and return its numbers."""
    detect = load_detector(path, options.size_hw, options.threads, options.device, options.precision)
    choosing = frames(options.root, "choosing")
    found = [detect(frame.image_bgr)[0] for frame in choosing]
    thresholds = {(row.class_id, row.min_iou): _operating_point(row, choosing, found) for row in reversed(ROWS)}
    scored = choosing
    if options.part == "report":
        scored = frames(options.root, "report")
        found = [detect(frame.image_bgr)[0] for frame in scored]
    scores = [score_row(row, scored, found, thresholds[row.class_id, row.min_iou]) for row in ROWS]
    scores += recalls(scored, found, thresholds)
    trained_on = frames_trained_on(path, scored)
    kitti = kitti_ap(scored, found)
    road = road_max_f(options, detect)
    engine = f", {options.device} {options.precision}" if path.suffix == ".onnx" else ""
    print(f"\n## {path.name}{engine}, {options.part} part\n")
    if trained_on is None:
        print("The file does not say whether it was trained on these frames.\n")
    elif trained_on:
        print(f"Trained on {trained_on} of these {len(scored)} frames.\n")
    print(table(scores))
    print("\n" + ", ".join(f"{name} AP R40 moderate {value:.1f}" for name, value in kitti.items()))
    if road is not None:
        print(f"road MaxF {road:.1f}")
    rows = [asdict(score) for score in scores]
    return {"rows": rows, "kitti_ap_r40_moderate": kitti, "road_max_f": road, "frames_trained_on": trained_on}


HEADLINE = {
    "pedestrian_ap": ("Pedestrian", 0),
    "pedestrian_recall": ("Pedestrian", 4),
    "cyclist_ap": ("Cyclist", 0),
    "car_kitti_ap": ("Car, KITTI", 0),
    "car_dawn_ap": ("Car, DAWN", 0),
}
"""Measure → row, and its place in the result of `_numbers`."""


_kept_frames = cache(frames)
"""As `frames`, read once by a process that scores many networks."""


def headline(detect: Detect, root: Path, part: PartName = "choosing", boxes: bool = True) -> dict[str, float]:
    """Return a few measures in per cent, without intervals.

    Args:
        detect: model.
        root: dataset root.
        part: held-out frames.
        boxes: False for a model without a detection head. One without road is recognised.
    """
    scored = _kept_frames(root, part)
    values: dict[str, float] = {}
    if boxes:
        found = [detect(frame.image_bgr)[0] for frame in scored]
        for name, (row_name, place) in HEADLINE.items():
            row = next(row for row in ROWS if row.name == row_name)
            matches = pool(matches_of(row, *pair) for pair in zip(scored, found, strict=True))
            values[name] = 100 * _numbers(matches, 0.0)[place]
    road = road_max_f(Options((), root, part), detect)
    return values if road is None else values | {"road_max_f": road}


def frames_trained_on(path: Path, scored: Sequence[Frame]) -> int | None:
    """Return how many of the frames a checkpoint was trained on; None where it does not say."""
    if path.suffix != ".pt":
        return None
    from training.checkpoint import holdout_of, load_checkpoint

    holdout = holdout_of(load_checkpoint(path))
    if holdout is None:
        return None
    known = [(DATA_SETS[frame.group], frame.name) for frame in scored]
    return sum(name in holdout.sets and frame not in holdout.sets[name].names for name, frame in known)


def load_detector(
    path: Path, size_hw: tuple[int, int], threads: int, device: Device = "cpu", precision: Precision = "fp32"
) -> Detect:
    """Open a model as a function from an image to detections and road, in image pixels.

    Raises:
        UserError: see `load_model` and `load_teacher`. Only exports of this project take another device or precision.
    """
    from perception.detector import Detector

    elsewhere = (device, precision) != ("cpu", "fp32")
    if path.suffix == ".pt":
        if elsewhere:
            raise UserError(f"{path} on {device} in {precision}", "an export", "perception export CHECKPOINT")
        import torch

        from training.backend import torch_model
        from training.checkpoint import load_network

        torch.set_num_threads(threads)
        network, _ = load_network(path)
        return Detector(torch_model(network, size_hw))
    if elsewhere:
        from perception.backends import load_model

        return Detector(load_model(path, device, threads, precision=precision))
    from perception.model import shipped_or
    from training.teachers import load_teacher

    teacher = load_teacher(shipped_or(path), size_hw, threads)
    return lambda image: (teacher(image), teacher.road)


def matches_of(row: Row, frame: Frame, found: Detections, counted: np.ndarray | None = None) -> Matches:
    """Match one frame's detections of the row's class.

    Args:
        counted: (N,) bool, which of the frame's objects count; by default all that are high and visible enough.
    """
    if row.class_id not in frame.scored or frame.group not in row.groups:
        return Matches()
    mine = frame.class_ids == row.class_id
    if counted is None:
        counted = heights(frame) >= SMALLEST_PX
        counted &= frame.occlusion <= MOST_OCCLUDED
    regions = frame.ignore_boxes_xyxy[np.isin(frame.ignore_class_ids, (row.class_id, -1))]
    detections = found[found.class_ids == row.class_id]
    return match(
        detections.boxes_xyxy, detections.scores, frame.boxes_xyxy[mine], counted[mine], regions, row.min_iou
    )


def heights(frame: Frame) -> np.ndarray:
    """Return each object's height in pixels of a 384x1248 input, (N,)."""
    size_hw = (frame.image_bgr.shape[0], frame.image_bgr.shape[1])
    placed = plan_letterbox(size_hw, REFERENCE_HW)
    return (frame.boxes_xyxy[:, 3] - frame.boxes_xyxy[:, 1]) * placed.scale_xy[1]


def _operating_point(row: Row, scored: Sequence[Frame], found: Sequence[Detections]) -> float:
    """Return the score of the best F1; 0.5 where nothing is found."""
    matches = pool(matches_of(row, *pair) for pair in zip(scored, found, strict=True))
    return float(matches.scores[int(f1_scores(matches).argmax())]) if len(matches.scores) else 0.5


def score_row(row: Row, scored: Sequence[Frame], found: Sequence[Detections], threshold: float) -> Score:
    """Score a row, with intervals from drawing images again."""
    used = [pair for pair in zip(scored, found, strict=True) if pair[0].group in row.groups]
    parts = [matches_of(row, *pair) for pair in used]
    rng = np.random.default_rng(0)
    numbers = np.array([_numbers(pool(parts), threshold)])
    draws = np.array(
        [
            _numbers(pool([parts[i] for i in rng.integers(len(parts), size=len(parts))]), threshold)
            for _ in range(RESAMPLES)
        ]
        if parts
        else np.zeros((1, 5))
    )
    low, high = np.nanpercentile(draws, (2.5, 97.5), axis=0)
    values = [Value(*map(float, triple)) for triple in zip(numbers[0], low, high, strict=True)]
    return Score(row.name, sum(p.n_objects for p in parts), threshold, *values)


def _numbers(matches: Matches, threshold: float) -> tuple[float, ...]:
    """AP, precision, recall and F1 at a threshold, highest recall at the wanted precision."""
    shown = matches.scores >= threshold
    hits = int((matches.is_true & shown).sum())
    precision = hits / max(1, int(shown.sum()))
    recall = hits / max(1, matches.n_objects)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    precisions, curve = precision_recall(matches)
    good = curve[precisions >= WANTED_PRECISION]
    return average_precision(matches), precision, recall, f1, float(good.max()) if len(good) else 0.0


def recalls(
    scored: Sequence[Frame], found: Sequence[Detections], thresholds: Mapping[tuple[int, float], float]
) -> list[Score]:
    """Return the recall of some objects at the operating point: pedestrians by height and occlusion, plain objects.

    Args:
        thresholds: class and IoU → score.
    """
    people, cars = ROWS[0], next(row for row in ROWS if row.name == "Car, KITTI")
    seen = [(heights(frame), frame.occlusion) for frame in scored]
    bins: list[tuple[Row, str, list[np.ndarray]]] = []
    for low, high in HEIGHTS:
        name = f"{low:.0f}–{high:.0f} px" if np.isfinite(high) else f"from {low:.0f} px"
        bins.append((people, name, [(px >= low) & (px < high) & (hidden <= MOST_OCCLUDED) for px, hidden in seen]))
    for k, name in enumerate(("visible", "partly", "largely")):
        bins.append((people, f"occlusion {k} ({name})", [(px >= SMALLEST_PX) & (hidden == k) for px, hidden in seen]))
    bins += [(row, f"plain within {NEAR_M:.0f} m", [frame.plain for frame in scored]) for row in (people, cars)]
    scores = []
    for row, name, counted in bins:
        threshold = thresholds[row.class_id, row.min_iou]
        parts = [matches_of(row, *triple) for triple in zip(scored, found, counted, strict=True)]
        hits = np.array([int((p.is_true & (p.scores >= threshold)).sum()) for p in parts])
        objects = np.array([p.n_objects for p in parts])
        rng = np.random.default_rng(0)
        draws = rng.integers(len(parts), size=(RESAMPLES, len(parts)))
        drawn = hits[draws].sum(1) / np.maximum(objects[draws].sum(1), 1)
        low, high = np.percentile(drawn, (2.5, 97.5))
        value = Value(float(hits.sum() / max(1, objects.sum())), float(low), float(high))
        scores.append(Score(f"{CLASS_NAMES[row.class_id]}, {name}", int(objects.sum()), threshold, recall=value))
    return scores


def kitti_ap(scored: Sequence[Frame], found: Sequence[Detections]) -> dict[str, float]:
    """Return KITTI's own AP R40 at moderate difficulty, in per cent."""
    evaluator = ObjectEvaluator()
    for frame, detections in zip(scored, found, strict=True):
        if frame.label is not None:
            names = [CLASS_NAMES[i] for i in detections.class_ids]
            rows = ObjectRows.from_boxes(names, detections.boxes_xyxy, detections.scores)
            evaluator.process(frame.name, read_objects(frame.label), rows)
    evaluation = evaluator.evaluate()
    return {
        name: float(evaluation.scores[name, "moderate"].ap_r40)
        for name in CLASS_NAMES
        if (name, "moderate") in evaluation.scores
    }


def road_max_f(options: Options, detect: Detect) -> float | None:
    """Return MaxF in the image over the part's road frames, in per cent; None for a model without road."""
    images = []
    for sample in road_frames(options.root, options.part):
        road = detect(sample.image_bgr)[1]
        if road is None:
            return None
        assert sample.road is not None
        histograms = confidence_histograms(sample.road != 255, sample.road == 1, road.at_frame_size())
        images.append(RoadImage(sample.name, category_of(sample.name), *histograms))
    return 100 * pr_curve(images, "all").max_f if images else None


def table(scores: Sequence[Score]) -> str:
    """Return the scores as Markdown, in per cent with 95 % intervals."""
    head = "| | objects | from score | AP | precision | recall | F1 | recall at precision 85 |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for s in scores:
        values = " | ".join(
            "" if v is None else str(v) for v in (s.ap, s.precision, s.recall, s.f1, s.recall_at_precision)
        )
        lines.append(f"| {s.name} | {s.objects} | {s.threshold:.2f} | {values} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
