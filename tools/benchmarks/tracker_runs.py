"""Run trackers on KITTI's sequences and evaluate them; shared by the tracker benchmarks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from perception.evaluation.results import TrackingSequence
from perception.evaluation.tracking import combine, evaluate_sequence
from perception.evaluation.tracking_folders import read_seqmap
from perception.formats.detections import find_detections
from perception.formats.kitti import ObjectRows, TrackingRows, read_tracking
from perception.trackers import create_tracker
from perception.types import CLASS_NAMES, Detections

CLASSES = ("Car", "Pedestrian")
MEASURES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW")
ROBOFLOW = {"SORT": "SORTTracker", "ByteTrack": "ByteTrackTracker", "OC-SORT": "OCSORTTracker"}
"""Trackers of the package `trackers`: name in the tables, and class."""
Frames = list[tuple[int, Detections]]
"""Frame number and detections; missing numbers are dropped frames."""
Found = list[tuple[int, int, int, np.ndarray]]
"""Frame, track id, class id, box."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One sequence to track and to score."""

    name: str
    gt: TrackingRows
    frames: Frames
    n_frames: int
    fps: float = 10.0


class Runner(Protocol):
    """A tracker that is being measured."""

    def step(self, detections: Detections, timestamp_ns: int) -> Iterable[tuple[int, int, np.ndarray]]:
        """Track id, class id and box of each track of the frame."""


class Ours:
    """A tracker of this project."""

    def __init__(self, name: str, **overrides: object) -> None:
        self.tracker = create_tracker(name, **overrides)

    def step(self, detections: Detections, timestamp_ns: int) -> Iterable[tuple[int, int, np.ndarray]]:
        tracks = self.tracker.update(detections, timestamp_ns)
        return zip(tracks.track_ids.tolist(), tracks.class_ids.tolist(), tracks.boxes_xyxy, strict=True)


class Roboflow:
    """A tracker of the package `trackers`, one instance a class, as it is meant to be used."""

    def __init__(self, kind: str, car: dict[str, float], pedestrian: dict[str, float]) -> None:
        import supervision
        import trackers

        self._detections = supervision.Detections
        make = getattr(trackers, kind)
        self._trackers = {0: make(**car), 1: make(**pedestrian)}

    def step(self, detections: Detections, timestamp_ns: int) -> Iterable[tuple[int, int, np.ndarray]]:
        tracks = []
        for class_id, tracker in self._trackers.items():
            own = detections[detections.class_ids == class_id]
            answer = tracker.update(self._detections(xyxy=own.boxes_xyxy, confidence=own.scores))
            ids = np.full(len(answer), -1) if answer.tracker_id is None else answer.tracker_id
            # ids of the two instances overlap, so the classes get numbers of their own
            tracks += [
                (2 * int(i) + class_id, class_id, box) for i, box in zip(ids, answer.xyxy, strict=True) if i >= 0
            ]
        return tracks


def has_roboflow() -> bool:
    """Whether the reference can be run; warns on stderr where it cannot."""
    try:
        import supervision  # noqa: F401
        import trackers  # noqa: F401
    except ImportError:
        print("the package 'trackers' is not installed: no reference", file=sys.stderr)
        return False
    return True


def contestants() -> dict[str, Callable[[], Runner]]:
    """Trackers by name, with their defaults."""
    made: dict[str, Callable[[], Runner]] = {
        f"ours: {name}": partial(Ours, name) for name in ("drivetrack", "bytetrack", "sort")
    }
    if has_roboflow():
        for name, kind in ROBOFLOW.items():
            made[f"roboflow {name}"] = partial(Roboflow, kind, {}, {})
    return made


def follow(runner: Runner, sequence: Recording) -> tuple[Found, list[float]]:
    """Run a tracker on a sequence; return its tracks and the seconds of each frame."""
    found: Found = []
    seconds = []
    for frame_id, detections in sequence.frames:
        timestamp_ns = round(frame_id * 1e9 / sequence.fps)
        begin = time.thread_time()
        tracks = runner.step(detections, timestamp_ns)
        seconds.append(time.thread_time() - begin)
        found += [(frame_id, track_id, class_id, box) for track_id, class_id, box in tracks]
    return found, seconds


def judge(sequence: Recording, found: Found) -> dict[str, TrackingSequence]:
    """Evaluate one sequence by class, without dropped frames."""
    rows = TrackingRows(
        np.array([f[0] for f in found], np.int64),
        np.array([f[1] for f in found], np.int64),
        ObjectRows.from_boxes([CLASS_NAMES[f[2]] for f in found], np.array([f[3] for f in found]).reshape(-1, 4)),
    )
    kept = np.isin(sequence.gt.frame_ids, [frame_id for frame_id, _ in sequence.frames])
    scored = evaluate_sequence(sequence.name, sequence.gt[kept], rows, sequence.n_frames)
    return {score.class_name: score for score in scored}


def measure(make: Callable[[], Runner], sequences: Sequence[Recording]) -> list[dict[str, TrackingSequence]]:
    """Evaluate each sequence with a new tracker."""
    return [judge(sequence, follow(make(), sequence)[0]) for sequence in sequences]


def figures(scores: Iterable[dict[str, TrackingSequence]], class_name: str) -> list[float]:
    """Return `MEASURES` over some sequences in per cent, IDSW as a count."""
    values = combine([s[class_name] for s in scores]).values
    return [values[name] if name == "IDSW" else 100 * values[name] for name in MEASURES]


def row(name: str, *groups: Sequence[float]) -> str:
    """Return one line of a table."""
    cells = [f"{v:.0f}" if i == 5 else f"{v:.1f}" for group in groups for i, v in enumerate(group)]
    return f"| {name} | " + " | ".join(cells) + " |"


def load_sets(kitti: Path, detections: Sequence[str]) -> dict[str, list[Recording]]:
    """The 21 sequences with each set of stored detections, given as NAME=DIR."""
    root = kitti / "tracking" if (kitti / "tracking").is_dir() else kitti
    lengths = read_seqmap(next(root.rglob("evaluate_tracking.seqmap.training")))
    labels = {name: read_tracking(next(root.rglob("label_02")) / f"{name}.txt") for name in lengths}
    sets: dict[str, list[Recording]] = {}
    for given in detections:
        set_name, _, place = given.rpartition("=")
        folder = find_detections(Path(place), "csv")
        for name, n_frames in lengths.items():
            stored = dict(folder.read(name).frames(n_frames))
            frames = [(i, stored.get(i, Detections.empty())) for i in range(n_frames)]
            sets.setdefault(set_name or Path(place).name, []).append(Recording(name, labels[name], frames, n_frames))
    return sets
