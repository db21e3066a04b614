"""HOTA of trackers by set of detections: at their defaults, tuned on even sequences, and with hindsight."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from perception.evaluation.results import TrackingSequence
from perception.files import write_atomically
from perception.trackers import create_tracker
from perception.trackers.offline import track_offline
from perception.types import CLASS_NAMES
from tools.benchmarks.tracker_runs import (
    CLASSES,
    ROBOFLOW,
    Found,
    Recording,
    Roboflow,
    contestants,
    figures,
    has_roboflow,
    judge,
    measure,
)

THRESHOLDS = (0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85)
GRID: dict[str, list[dict[str, float]]] = {
    "SORT": [{"track_activation_threshold": t} for t in THRESHOLDS],
    "ByteTrack": [
        {"high_conf_det_threshold": high, "track_activation_threshold": activation}
        for high in (0.3, 0.5, 0.6, 0.7, 0.8, 0.85)
        for activation in (0.5, 0.7, 0.8, 0.85, 0.9)
        if activation >= high
    ],
    "OC-SORT": [{"high_conf_det_threshold": t} for t in THRESHOLDS],
}
"""Settings that are tried for each set and class; the defaults are tried as well."""
Halves = dict[str, list[float]]
"""HOTA of even, of odd and of all sequences by class."""


def table_of_scores(sets: dict[str, list[Recording]], out: Path) -> None:
    """Print HOTA by set and class; results of roboflow's trackers are kept in `out` and not measured again."""
    reference = _Kept(out / "roboflow.json")
    for set_name, sequences in sets.items():
        ours = {name: make for name, make in contestants().items() if name.startswith("ours")}
        results = {name: by_class(measure(make, sequences), sequences) for name, make in ours.items()}
        results["ours: drivetrack, offline"] = by_class([judge(s, follow_offline(s)) for s in sequences], sequences)
        for name, kind in ROBOFLOW.items() if has_roboflow() else ():
            tried = [
                reference.get(
                    f"{set_name} {name} {json.dumps(p)}", partial(_measured, partial(Roboflow, kind, p, p), sequences)
                )
                for p in ({}, *GRID[name])
            ]
            results[f"roboflow {name}"] = tried[0]
            results[f"roboflow {name}, tuned"] = {
                c: max((one[c] for one in tried), key=lambda halves: halves[0]) for c in tried[0]
            }
        for class_name in results["ours: drivetrack"]:
            print(f"\n**{set_name}, {class_name}**\n\n| tracker | even | odd | all |\n|---|---|---|---|")
            for name, halves in results.items():
                print(f"| {name} | " + " | ".join(f"{hota:.1f}" for hota in halves[class_name]) + " |", flush=True)


class _Kept:
    """Results by name in a JSON file, so that nothing is measured twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: dict[str, Halves] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str, work_out: Callable[[], Halves]) -> Halves:
        if name not in self._results:
            self._results[name] = work_out()
            write_atomically(self._path, json.dumps(self._results, indent=1))
        return self._results[name]


def _measured(make: Callable[[], Roboflow], sequences: list[Recording]) -> Halves:
    return by_class(measure(make, sequences), sequences)


def by_class(scores: Sequence[dict[str, TrackingSequence]], sequences: Sequence[Recording]) -> Halves:
    """HOTA of the classes that a set has detections of."""
    present = {class_id for s in sequences for _, d in s.frames for class_id in d.class_ids.tolist()}
    return {c: list(by_half(scores, sequences, c)) for c in CLASSES if CLASS_NAMES.index(c) in present}


def by_half(
    scores: Sequence[dict[str, TrackingSequence]], sequences: Sequence[Recording], class_name: str
) -> tuple[float, float, float]:
    """HOTA of even, of odd and of all sequences."""
    even = [int(s.name) % 2 == 0 for s in sequences]
    halves = ([s for s, e in zip(scores, even, strict=True) if e == half] for half in (True, False))
    even_hota, odd_hota, all_hota = (figures(part, class_name)[0] for part in (*halves, scores))
    return even_hota, odd_hota, all_hota


def follow_offline(sequence: Recording) -> Found:
    """All that DriveTrack reports with hindsight."""
    stamped = [(round(frame_id * 1e9 / sequence.fps), detections) for frame_id, detections in sequence.frames]
    tracked = track_offline(create_tracker("drivetrack"), stamped)
    return [
        (frame_id, t.track_id, t.class_id, t.box_xyxy)
        for (frame_id, _), tracks in zip(sequence.frames, tracked, strict=True)
        for t in tracks
    ]
