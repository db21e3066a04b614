"""Score a network under every disturbance: official AP and road MaxF, tracking, and whether the runtime notices.

A cell is one kind at one severity. Each finished cell is a file, so a run that ends early is continued.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from perception.arrays import U8
from perception.detector import Finder
from perception.evaluation.object import ObjectEvaluator
from perception.evaluation.predictions import FRAME_NS, detection_rows
from perception.evaluation.results import OBJECT_CLASSES_SCORED
from perception.evaluation.road import RoadEvaluator, read_ground_truth
from perception.evaluation.tracking import TrackingEvaluator
from perception.files import read_json, write_atomically
from perception.formats.images import read_image
from perception.formats.kitti import format_tracking, parse_tracking, read_objects, read_tracking
from perception.runtime.health import HealthMonitor
from perception.runtime.unfamiliar import FamiliarityMonitor
from perception.sinks.kitti import seen_tracks, tracking_rows
from perception.trackers import DEFAULT_TRACKER, tracker_for_model
from perception.trust.corruptions import CORRUPTIONS, Corruption
from perception.types import Frame

CLEAN = "clean"
"""Name of the cell without a disturbance, severity 0."""
ORDER = (3, 5, 1, 4, 2)
"""Severities in the order of their use: a run that is cut short has the middle of all kinds first."""
WATCHED, DISTURBED = 12, 18
"""Frames that the health monitor sees before the disturbance begins, and after: longer than any event takes."""


@dataclass(frozen=True)
class StressFrames:
    """What each cell is scored on; every part may be empty."""

    objects: Sequence[tuple[str, Path, Path]] = ()
    """Name, image and label file."""
    roads: Sequence[tuple[str, Path, Path]] = ()
    """Name, image and ground truth; scored in the image."""
    sequence: Mapping[int, Path] = field(default_factory=dict)
    """Frame → image of one tracked drive."""
    sequence_labels: Path | None = None


@dataclass(frozen=True)
class Cell:
    """The scores of one kind at one severity; per cent, NaN where nothing was scored."""

    kind: str
    family: str
    severity: int
    ap: dict[str, float]
    """AP R40 moderate of each class."""
    max_f: float
    hota: dict[str, float]
    events: tuple[str, ...]
    """Health events that begin once the disturbance does."""
    seconds: float

    @property
    def key(self) -> tuple[str, int]:
        return self.kind, self.severity


def cells_in_order(kinds: Sequence[str], severities: Sequence[int]) -> list[tuple[str, int]]:
    """List all cells, the clean one first, then by `ORDER` of severity."""
    ranked = sorted(set(severities), key=ORDER.index)
    return [(CLEAN, 0), *((kind, severity) for severity in ranked for kind in kinds)]


def run_cell(detector: Finder, frames: StressFrames, kind: str, severity: int, seed: int = 0) -> Cell:
    """Disturb all frames and score what the network finds."""
    start = time.perf_counter()
    corruption = None if kind == CLEAN else CORRUPTIONS[kind]

    def disturbed(name: str, path: Path) -> U8:
        image = read_image(path)
        return image if corruption is None else corruption(image, severity, name, seed)

    return Cell(
        kind=kind,
        family="" if corruption is None else corruption.family,
        severity=severity,
        ap=_score_objects(detector, ((name, disturbed(name, image), label) for name, image, label in frames.objects)),
        max_f=_score_roads(detector, ((name, disturbed(name, image), truth) for name, image, truth in frames.roads)),
        hota=_score_tracks(detector, frames, disturbed),
        events=watch_health(_health_images(frames), corruption, severity, seed, detector),
        seconds=round(time.perf_counter() - start, 2),
    )


def _score_objects(detector: Finder, images: Iterator[tuple[str, U8, Path]]) -> dict[str, float]:
    evaluator, any_frame = ObjectEvaluator(), False
    for name, image, label in images:
        detections, _ = detector(image)
        evaluator.process(name, read_objects(label), detection_rows(detections, detector.spec.result_names))
        any_frame = True
    if not any_frame:
        return {}
    evaluation = evaluator.evaluate()
    labelled = [name for name in OBJECT_CLASSES_SCORED if evaluation.gt.is_class(name).any()]
    # a class that is never found is absent from the official scores; under a disturbance that is 0
    return {
        name: evaluation.scores[name, "moderate"].ap_r40 if (name, "moderate") in evaluation.scores else 0.0
        for name in labelled
    }


def _score_roads(detector: Finder, images: Iterator[tuple[str, U8, Path]]) -> float:
    evaluator, any_frame = RoadEvaluator("perspective"), False
    for name, image, truth in images:
        _, road = detector(image)
        if road is None:
            return math.nan
        evaluator.process(name, *read_ground_truth(truth), road.at_frame_size())
        any_frame = True
    if not any_frame:
        return math.nan
    scores = evaluator.evaluate().scores
    return 100 * (scores.get("URBAN") or next(iter(scores.values()))).max_f


def _score_tracks(detector: Finder, frames: StressFrames, disturbed: Callable[[str, Path], U8]) -> dict[str, float]:
    if not frames.sequence or frames.sequence_labels is None:
        return {}
    tracker = tracker_for_model(DEFAULT_TRACKER, detector.spec.confirm_thresholds)
    text = ""
    for frame, path in frames.sequence.items():
        detections, _ = detector(disturbed(str(frame), path))
        detections = detections[detections.scores >= detector.spec.track_threshold]
        tracks = tracker.update(detections, frame * FRAME_NS)
        text += format_tracking(tracking_rows(frame, seen_tracks(tracks), detector.spec.result_names))
    gt = read_tracking(frames.sequence_labels)
    gt = gt[np.isin(gt.frame_ids, list(frames.sequence))]
    evaluator = TrackingEvaluator()
    evaluator.process("sequence", gt, parse_tracking(text, scores=True), max(frames.sequence) + 1)
    labelled = {name.lower() for name in gt.objects.names}
    combined = evaluator.evaluate().combined
    return {name: 100 * score.values["HOTA"] for name, score in combined.items() if name.lower() in labelled}


def _health_images(frames: StressFrames) -> list[Path]:
    """A dozen images that follow one another, or at least come from one camera."""
    paths = list(frames.sequence.values()) or [image for _, image, _ in (*frames.objects, *frames.roads)]
    return paths[:WATCHED]


def watch_health(
    paths: Sequence[Path],
    corruption: Corruption | None,
    severity: int,
    seed: int = 0,
    detector: Finder | None = None,
) -> tuple[str, ...]:
    """Show a health monitor healthy frames at 10 Hz, then disturbed ones; returns the kinds of event that begin.

    A detector whose model file describes usual frames watches too.
    """
    spec = None if detector is None else detector.spec
    strange = spec and spec.familiar and FamiliarityMonitor("stress", spec.familiar, spec.score_threshold)
    monitor, images, seen = HealthMonitor("stress"), [read_image(path) for path in paths], []
    images = [image for image in images if image.shape == images[0].shape]
    for step in range(len(images) + (DISTURBED if images else 0)):
        image = images[step % len(images)]
        begun = step >= len(images)
        if begun and corruption is not None:
            image = corruption(image, severity, str(step), seed)
        frame = Frame(image, step * FRAME_NS, step, "stress")
        events = monitor.update(frame)
        if strange and detector is not None:
            events += strange.update(frame, *detector(image))
        seen += [event.kind for event in events if event.active and begun]
    return tuple(dict.fromkeys(seen))


# ---------------------------------------------------------------- sums


def mean_under_corruption(cells: Sequence[Cell], score: str) -> tuple[float, float, float]:
    """Sum up a score over all disturbed cells: (clean, mean under corruption, ratio).

    The mean is taken over severities within a kind, then over kinds (Michaelis et al. 2019, mPC and rPC).

    Args:
        cells: the clean one among them.
        score: a class, 'road', or 'HOTA ' and a class.
    """
    by_kind: dict[str, list[float]] = {}
    clean = math.nan
    for cell in cells:
        value = score_of(cell, score)
        if cell.kind == CLEAN:
            clean = value
        elif not math.isnan(value):
            by_kind.setdefault(cell.kind, []).append(value)
    mean = float(np.mean([np.mean(values) for values in by_kind.values()])) if by_kind else math.nan
    return clean, mean, mean / clean if clean > 0 else math.nan


def score_of(cell: Cell, score: str) -> float:
    """One score of a cell, per cent; NaN where it has none."""
    if score == "road":
        return cell.max_f
    if score.startswith("HOTA "):
        return cell.hota.get(score.removeprefix("HOTA "), math.nan)
    return cell.ap.get(score, math.nan)


def score_names(cells: Sequence[Cell]) -> list[str]:
    """The scores that the clean cell has."""
    clean = next((cell for cell in cells if cell.kind == CLEAN), None)
    if clean is None:
        return []
    names = [*clean.ap, *(["road"] if not math.isnan(clean.max_f) else []), *(f"HOTA {name}" for name in clean.hota)]
    return [name for name in names if score_of(clean, name) > 0]


# ---------------------------------------------------------------- finished cells


def save_cell(folder: Path, cell: Cell) -> None:
    """Write one finished cell."""
    values = {key: None if value != value else value for key, value in asdict(cell).items()}
    write_atomically(folder / f"{cell.kind}-{cell.severity}.json", json.dumps(values, indent=1) + "\n")


def load_cells(folder: Path) -> dict[tuple[str, int], Cell]:
    """Read all finished cells of a folder."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        values = read_json(path, "a cell of perception stress", f"rm {path}")
        values["events"] = tuple(values["events"])
        values["max_f"] = math.nan if values["max_f"] is None else values["max_f"]
        cell = Cell(**values)
        found[cell.key] = cell
    return found
