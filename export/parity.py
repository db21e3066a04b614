"""Compare the outputs of two models on the same frames: differences, scores of both, and a verdict.

Both sides run through `Detector`, from an image to boxes in its pixels. A checkpoint runs as training evaluates it,
a model file as the runtime runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from export.frames import TestFrame, road_judged
from perception.arrays import U8
from perception.backends import Backend, Model, load_model
from perception.boxes import iou
from perception.detector import Detector
from perception.devices import Device, Precision, is_openvino
from perception.errors import UserError
from perception.evaluation.bootstrap import Score, paired_draws
from perception.evaluation.object import ObjectEvaluator, score_curve
from perception.evaluation.results import LEVELS, OBJECT_CLASSES_SCORED, ObjectEvaluation, RoadImage
from perception.evaluation.road import RoadEvaluator, pr_curve
from perception.formats.kitti import ObjectRows
from perception.model import ModelSpec
from perception.types import Detections, RoadMask

PAIR_IOU = 0.5
"""IoU above which two boxes of a class are a pair, whose difference is measured."""
SAME_IOU = 0.99
ENOUGH_TRUTH = 40
"""Ground truths that a class needs for the verdict. AP has 40 recall steps; with fewer, one box costs points."""
DRAWS = 200
"""Bootstrap samples for the standard error of a loss."""
NEIGHBOURS = 10
"""Consecutive frames of a recording that form one bootstrap block, because they are correlated."""

Detect = Callable[[U8], tuple[Detections, RoadMask | None]]


@dataclass(frozen=True)
class Tolerance:
    """Limits of the verdict. A value of None is reported and not limited."""

    box_px: float | None
    """Largest difference of a box side, frame pixels. Where it is limited, pairs need IoU > 0.99."""
    score: float | None
    """Largest difference of a score."""
    road_levels: float | None
    """Largest difference of the road confidence, of 255; one level is rounding."""
    mean_score: float
    """Mean difference of the scores of pairs."""
    mean_road_levels: float
    """Mean difference of the road confidence, of 255."""
    shift_px: float
    """Mean signed difference of box centres, frame pixels, less twice its standard error. Detects a shifted
    letterbox, because noise averages out."""
    alone: float
    """Largest share of unpaired boxes, per cent."""
    points: float
    """Largest loss of mean AP (moderate) or road MaxF, percentage points."""


TOLERANCES = {
    "fp32": Tolerance(1e-3, 1e-4, 1.0, 1e-5, 0.05, 1e-3, 0.5, 0.05),
    "fp16": Tolerance(None, None, None, 0.003, 1.0, 0.05, 5.0, 0.2),
    "bf16": Tolerance(None, None, None, 0.015, 2.0, 0.15, 8.0, 0.3),
    "int8": Tolerance(None, None, None, 0.05, 8.0, 0.3, 15.0, 0.5),
}


@dataclass(frozen=True, eq=False)
class Candidate:
    """One side of a comparison."""

    name: str
    spec: ModelSpec
    detect: Detect
    """Returns the detections of all scores and the road of an image (H, W, 3), in its pixels, as `Detector` does."""
    computes: Precision = "fp32"
    """Arithmetic of the engine, which may be lower than the precision of the file."""

    @property
    def precision(self) -> str:
        """The lower one of the file's precision and the engine's arithmetic."""
        return max(self.spec.precision, self.computes, key=list(TOLERANCES).index)


@dataclass
class Difference:
    """Running maximum and mean of absolute differences."""

    largest: float = 0.0
    total: float = 0.0
    count: int = 0

    def add(self, values: np.ndarray) -> None:
        values = np.abs(np.asarray(values, np.float64))
        if values.size:
            self.largest = max(self.largest, float(values.max()))
            self.total, self.count = self.total + float(values.sum()), self.count + values.size

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True)
class Loss:
    """Score of A less that of B, percentage points."""

    points: float
    error: float
    """Standard error over the choice of frames, by a paired bootstrap."""

    def __str__(self) -> str:
        return f"{self.points:+.2f} ± {self.error:.2f} points"


@dataclass
class ParityReport:
    """Result of a comparison."""

    a: str
    b: str
    source: str
    precision: str
    """Precision whose tolerance applies."""
    frames: int = 0
    boxes: int = 0
    """Boxes of both models above the score limit."""
    matched: int = 0
    """Boxes with a pair of the same class."""
    same: int = 0
    """Boxes with a pair of IoU > 0.99."""
    box_px: Difference = field(default_factory=Difference)
    overlap: Difference = field(default_factory=Difference)
    """1 − IoU of pairs."""
    score: Difference = field(default_factory=Difference)
    road_levels: Difference = field(default_factory=Difference)
    shift_px: tuple[float, float] = (0.0, 0.0)
    """Mean signed difference of box centres, B less A, (x, y)."""
    shift_error_px: tuple[float, float] = (0.0, 0.0)
    """Standard error of `shift_px`."""
    ap: dict[str, tuple[float, float, int]] = field(default_factory=dict)
    """AP R40 moderate of A and B, per cent, and the number of ground truths, by class."""
    ap_loss: Loss | None = None
    """Loss of mean AP over the classes with enough ground truths; None without one."""
    road_max_f: tuple[float, float] | None = None
    road_loss: Loss | None = None
    failures: list[str] = field(default_factory=list)
    """Exceeded limits; empty where the models agree."""

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        values = asdict(self)
        for name in ("box_px", "overlap", "score", "road_levels"):
            difference: Difference = getattr(self, name)
            values[name] = {"largest": difference.largest, "mean": difference.mean, "count": difference.count}
        return {"passed": self.passed, **values}

    def text(self) -> str:
        """Return the report as a table with the verdict."""
        share = 100 * self.same / self.boxes if self.boxes else 100.0
        lines = [
            f"A  {self.a}",
            f"B  {self.b}",
            f"{self.frames} frames ({self.source}), tolerance of {self.precision}",
            f"{'':16}{'largest':>12}{'mean':>12}",
            f"{'boxes, px':16}{self.box_px.largest:12.2e}{self.box_px.mean:12.2e}",
            f"{'scores':16}{self.score.largest:12.2e}{self.score.mean:12.2e}",
            f"{'road, of 255':16}{self.road_levels.largest:12.2e}{self.road_levels.mean:12.2e}",
            f"{self.same} of {self.boxes} boxes matched at IoU > {SAME_IOU} ({share:.2f} %), {self.matched} at IoU >"
            f" {PAIR_IOU}; mean shift {self.shift_px[0]:+.4f}, {self.shift_px[1]:+.4f} px",
        ]
        if self.ap or self.road_max_f:
            lines.append(f"{'':24}{'A':>8}{'B':>8}{'loss':>8}")
        for name, (a, b, n_gt) in self.ap.items():
            few = "  (too few for the verdict)" if n_gt < ENOUGH_TRUTH else ""
            lines.append(f"{name + ' AP moderate':24}{a:8.2f}{b:8.2f}{a - b:8.2f}  {n_gt} objects{few}")
        if self.road_max_f:
            a, b = self.road_max_f
            lines.append(f"{'road MaxF':24}{a:8.2f}{b:8.2f}{a - b:8.2f}")
        for what, loss in (("AP", self.ap_loss), ("road MaxF", self.road_loss)):
            if loss is None:
                continue
            allowed = TOLERANCES[self.precision].points
            unsure = (
                f"; too uncertain for a limit of {allowed:g}, use more frames" if 2 * loss.error > allowed else ""
            )
            lines.append(f"loss of {what}: {loss} (standard error over the frames{unsure})")
        lines.append("verdict: the same" if self.passed else "verdict: NOT the same")
        return "\n".join([*lines, *(f"  {reason}" for reason in self.failures)])


def open_candidate(
    path: Path,
    size_hw: tuple[int, int] | None = None,
    device: Device = "cpu",
    threads: int = 0,
    one_to_one: bool | None = None,
    precision: Precision = "fp32",
) -> Candidate:
    """Open a checkpoint (`.pt`, run by torch) or a model file as one side of a comparison.

    Args:
        path: `.pt`, `.onnx` or `.engine` file.
        size_hw: input size of a checkpoint; a model file has its own.
        device: device of a model file.
        threads: CPU threads; 0: one per core.
        one_to_one: head of a checkpoint with two heads; None: the one-to-one head.
        precision: arithmetic of OpenVINO.
    """
    if path.suffix == ".pt":
        return _checkpoint(path, size_hw or ModelSpec(("Car",), (384, 1248)).size_hw, one_to_one)
    if path.suffix == ".engine":
        device = "tensorrt"  # the only device of an engine
    model = load_model(path, device, threads, precision=precision)
    runs = f"{device} {precision}" if is_openvino(device) else device
    detect: Detect = InBatches(model) if path.suffix == ".engine" else Detector(model)
    return Candidate(f"{path} ({model.spec.precision}, {runs})", model.spec, detect, precision)


class InBatches:
    """Detects in one image at a time, by turns alone and in the largest batch, there in changing places.

    Releases of TensorRT were wrong for some networks in batches of more than one (NVIDIA/TensorRT#4853), so an engine
    is verified at both ends of its profile. The other places hold earlier images.
    """

    def __init__(self, model: Model | tuple[Backend, ModelSpec]) -> None:
        self._alone = Detector(model)
        self._full = Detector(model, batch=model[0].max_batch or 1)
        self._images: list[U8] = []
        self._calls = 0

    def __call__(self, image_bgr: U8) -> tuple[Detections, RoadMask | None]:
        turn, self._calls = self._calls, self._calls + 1
        if self._full.batch == 1 or turn % 2 == 0:
            return self._alone(image_bgr)
        self._images = self._images or [image_bgr] * self._full.batch
        place = turn // 2 % self._full.batch
        self._images[place] = image_bgr
        return self._full.run(self._images)[place]


def _checkpoint(path: Path, size_hw: tuple[int, int], one_to_one: bool | None) -> Candidate:
    from training.backend import torch_model
    from training.checkpoint import load_network

    network, _ = load_network(path)
    model = torch_model(network, size_hw, one_to_one=one_to_one, name=path.stem)
    return Candidate(f"{path} (torch, {size_hw[0]}x{size_hw[1]})", model.spec, Detector(model))


def compare(
    a: Candidate, b: Candidate, frames: Iterable[TestFrame], precision: str = "auto", source: str = ""
) -> ParityReport:
    """Run both models on the frames, and compare their outputs.

    Args:
        a: reference model.
        b: model under test.
        frames: any number of frames, with or without ground truth.
        precision: precision whose tolerance applies: fp32, fp16, bf16, int8, or auto for the lower of the two models.
        source: name of the frames, for the report.

    Raises:
        UserError: there are no frames, or the models have different classes.
    """
    if a.spec.class_names != b.spec.class_names:
        raise UserError(
            f"{b.name}: classes {', '.join(b.spec.class_names)}",
            f"those of {a.name}: {', '.join(a.spec.class_names)}",
        )
    if precision == "auto":
        precision = max(a.precision, b.precision, key=list(TOLERANCES).index)
    if precision not in TOLERANCES:
        raise UserError(f"--tolerance {precision}", "auto, " + ", ".join(TOLERANCES))
    report = ParityReport(a.name, b.name, source, precision)
    minimum = min(a.spec.track_threshold, b.spec.track_threshold)
    scores = _Scores(a.spec.result_names)
    shifts: list[np.ndarray] = []
    for frame in frames:
        found_a, found_b = a.detect(frame.image_bgr), b.detect(frame.image_bgr)
        report.frames += 1
        shifts.append(_compare_boxes(report, found_a[0], found_b[0], minimum))
        if found_a[1] is not None and found_b[1] is not None:
            _compare_road(report, found_a[1], found_b[1])
        scores.add(frame, found_a, found_b)
    if not report.frames:
        raise UserError("no frames to compare", "a folder with images", "omit --data")
    offsets = np.concatenate(shifts)
    if len(offsets):
        report.shift_px = (float(offsets[:, 0].mean()), float(offsets[:, 1].mean()))
        error = offsets.std(axis=0, ddof=min(1, len(offsets) - 1)) / np.sqrt(len(offsets))
        report.shift_error_px = (float(error[0]), float(error[1]))
    scores.fill(report)
    report.failures = judge(report, TOLERANCES[precision])
    return report


def _compare_boxes(report: ParityReport, a: Detections, b: Detections, minimum: float) -> np.ndarray:
    """Count and measure the pairs of one frame; return the signed differences of their centres (P, 2)."""
    # a score near the limit may be above it in one model and below it in the other, so pairs count with either
    pair_a, pair_b, overlap = _pairs(a, b)
    counts_a, counts_b = _counting(a, minimum), _counting(b, minimum)
    report.boxes += int(counts_a.sum() + counts_b.sum())
    weight = counts_a[pair_a].astype(int) + counts_b[pair_b].astype(int)
    report.matched += int(weight.sum())
    report.same += int(weight[overlap > SAME_IOU].sum())
    measured = weight > 0
    pair_a, pair_b = pair_a[measured], pair_b[measured]
    difference = b.boxes_xyxy[pair_b].astype(np.float64) - a.boxes_xyxy[pair_a]  # (P, 4)
    report.box_px.add(difference)
    report.overlap.add(1.0 - overlap[measured])
    report.score.add(b.scores[pair_b] - a.scores[pair_a])
    return (difference[:, :2] + difference[:, 2:]) / 2


def _counting(found: Detections, minimum: float) -> np.ndarray:
    """Return which boxes need a pair (N,) bool: those above the limit, or the best ten where none is."""
    counts = found.scores >= minimum
    counts[:10] |= not counts.any()
    return counts


def _pairs(a: Detections, b: Detections) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair boxes of the same class one to one with the largest summed IoU: indices (P,), (P,) and IoU (P,)."""
    overlap = iou(a.boxes_xyxy, b.boxes_xyxy) * (a.class_ids[:, None] == b.class_ids[None, :])
    overlap = np.where(overlap > PAIR_IOU, overlap, 0.0)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    kept = overlap[rows, columns] > 0
    return rows[kept], columns[kept], overlap[rows[kept], columns[kept]]


def _compare_road(report: ParityReport, a: RoadMask, b: RoadMask) -> None:
    same_grid = a.confidence.shape == b.confidence.shape and a.letterbox == b.letterbox
    left, right = (a.confidence, b.confidence) if same_grid else (a.at_frame_size(), b.at_frame_size())
    report.road_levels.add(left.astype(np.int16) - right.astype(np.int16))


class _Scores:
    """KITTI's scores of both models, over the frames with ground truth."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        self.objects = (ObjectEvaluator(), ObjectEvaluator())
        # in the image, because many road frames have no calibration
        self.roads = (RoadEvaluator("perspective"), RoadEvaluator("perspective"))
        self.object_frames = self.road_frames = 0

    def add(self, frame: TestFrame, *sides: tuple[Detections, RoadMask | None]) -> None:
        for side, (detections, road) in enumerate(sides):
            if frame.objects is not None:
                names = [self.class_names[i] for i in detections.class_ids]
                rows = ObjectRows.from_boxes(names, detections.boxes_xyxy, detections.scores)
                self.objects[side].process(frame.name, frame.objects, rows)
            if frame.road is not None and road is not None:
                truth = frame.road
                self.roads[side].process(frame.name, road_judged(truth), truth == 1, road.at_frame_size())
        self.object_frames += frame.objects is not None
        self.road_frames += frame.road is not None and sides[0][1] is not None

    def fill(self, report: ParityReport) -> None:
        """Write AP by class, MaxF and the losses to the report, where there is ground truth."""
        if self.object_frames:
            a, b = (evaluator.evaluate() for evaluator in self.objects)
            for name in OBJECT_CLASSES_SCORED:
                key = (name, LEVELS[1])
                if n_gt := max((side.scores[key].n_gt for side in (a, b) if key in side.scores), default=0):
                    values = [side.scores[key].ap_r40 if key in side.scores else 0.0 for side in (a, b)]
                    report.ap[name] = (values[0], values[1], n_gt)
            judged = [name for name, (_, _, n_gt) in report.ap.items() if n_gt >= ENOUGH_TRUTH]
            if judged:
                points = float(np.mean([report.ap[name][0] - report.ap[name][1] for name in judged]))
                sides = (_ap_of(a, judged), _ap_of(b, judged))
                report.ap_loss = Loss(points, _error(*sides, alike(a.gt.frame_names)))
        if self.road_frames:
            images = [evaluator.evaluate().images for evaluator in self.roads]
            max_f = [100 * pr_curve(side, "").max_f for side in images]
            report.road_max_f = (max_f[0], max_f[1])
            sides = (_max_f_of(images[0]), _max_f_of(images[1]))
            names = [image.name for image in images[0]]
            report.road_loss = Loss(max_f[0] - max_f[1], _error(*sides, alike(names)))


def _ap_of(evaluation: ObjectEvaluation, names: Sequence[str]) -> Score:
    """Return a function from frame weights (R, F) to the mean AP of some classes (R, 1)."""
    curves = [evaluation.curves.get((name, LEVELS[1])) for name in names]

    def score(weights: np.ndarray) -> np.ndarray:
        found = [[score_curve(curve, False, w).ap_r40 if curve else 0.0 for curve in curves] for w in weights]
        return np.mean(found, axis=1, keepdims=True)

    return score


def _max_f_of(images: Sequence[RoadImage]) -> Score:
    """Return a function from frame weights (R, F) to MaxF in per cent (R, 1)."""
    return lambda weights: np.array([[100 * pr_curve(images, "", w).max_f] for w in weights])


def _error(a: Score, b: Score, units: np.ndarray) -> float:
    """Return the standard error of the difference of two scores over the choice of frames."""
    draws_a, draws_b = paired_draws(a, b, units, DRAWS)
    difference = draws_a - draws_b
    return float(difference[np.isfinite(difference)].std())


def alike(frame_names: Sequence[str]) -> np.ndarray:
    """Return the bootstrap block of each frame (F,).

    `0005/000012` is in a block with `0005/000010` to `0005/000019`; a name without a folder is a block of its own.
    """
    units: dict[tuple[str, int], int] = {}
    found = []
    for i, name in enumerate(frame_names):
        folder, slash, number = name.rpartition("/")
        key = (folder, int(number) // NEIGHBOURS) if slash and number.isdecimal() else ("", -1 - i)
        found.append(units.setdefault(key, len(units)))
    return np.array(found, np.int64)


@dataclass(frozen=True)
class Check:
    """One quantity of the verdict and its limit."""

    what: str
    found: float
    allowed: float
    unit: str = ""

    @property
    def used(self) -> float:
        """Return the fraction of the limit that is used. Above 1, and for NaN, the check fails."""
        share = self.found / self.allowed
        return share if share == share else float("inf")

    def __str__(self) -> str:
        return f"{self.what}: found {self.found:.3g}{self.unit}, at most {self.allowed:g}{self.unit} allowed"


def checks(report: ParityReport, tolerance: Tolerance, cautious: bool = False) -> list[Check]:
    """Return every limited quantity of a report. If `cautious`, standard errors are added to the losses."""
    strict = tolerance.box_px is not None
    alone = 1.0 - (report.same if strict else report.matched) / report.boxes if report.boxes else 0.0
    found = [
        Check("boxes, largest difference", report.box_px.largest, tolerance.box_px or 0.0, " px"),
        Check("scores, largest difference", report.score.largest, tolerance.score or 0.0),
        Check("road, largest difference", report.road_levels.largest, tolerance.road_levels or 0.0, " of 255"),
        Check("scores, mean difference", report.score.mean, tolerance.mean_score),
        Check("road, mean difference", report.road_levels.mean, tolerance.mean_road_levels, " of 255"),
        Check("boxes, mean shift", _sure_shift(report), tolerance.shift_px, " px"),
        Check(f"unpaired boxes at IoU > {SAME_IOU if strict else PAIR_IOU}", 100 * alone, tolerance.alone, " %"),
    ]
    for what, loss in (("AP moderate, mean loss", report.ap_loss), ("road MaxF, loss", report.road_loss)):
        if loss:
            points = loss.points + (loss.error if cautious else 0.0)
            found.append(
                Check(what + (" plus standard error" if cautious else ""), points, tolerance.points, " points")
            )
    return [check for check in found if check.allowed]


def _sure_shift(report: ParityReport) -> float:
    """Return the mean shift less twice its standard error, for the worse of x and y."""
    pairs = zip(report.shift_px, report.shift_error_px, strict=True)
    return max(max(0.0, abs(shift) - 2 * error) for shift, error in pairs)


def judge(report: ParityReport, tolerance: Tolerance) -> list[str]:
    """Return the exceeded limits; empty where the models agree."""
    return [str(check) for check in checks(report, tolerance) if not check.used <= 1]
