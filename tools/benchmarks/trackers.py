"""Measure the results of docs/explanation/tracker.md: our trackers and roboflow's, on KITTI and synthetic streets.

    python -m tools.benchmarks.trackers --kitti KITTI --detections rrc=DIR yolov3=DIR --out DIR

KITTI's folder holds `tracking/training/label_02`; the detections are in folders `Car` and `Pedestrian`. Tables are
printed as Markdown, and curves are written to DIR. The comparison needs `pip install trackers==2.6.1` (Apache-2.0),
best in a separate environment; without it, only our trackers are measured.

Parameters were chosen on KITTI's even-numbered sequences; odd ones are reported separately. Times are CPU times of
the thread, and the trackers take turns on each sequence, so that other load affects all of them alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np

from perception.evaluation.results import TrackingSequence
from perception.evaluation.tracking import combine, evaluate_sequence
from perception.evaluation.tracking_folders import read_seqmap
from perception.formats.detections import find_detections
from perception.formats.kitti import ObjectRows, TrackingRows, read_tracking
from perception.trackers import create_tracker
from perception.trackers.offline import track_offline
from perception.types import CLASS_NAMES, Detections
from tools.benchmarks import tracker_images, tracker_scenes

CLASSES = ("Car", "Pedestrian")
Part = Literal["scores", "ablation", "speed", "perfect", "own", "habits", "street"]
MEASURES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW")
Frames = list[tuple[int, Detections]]
"""Frame number and detections; missing numbers are dropped frames."""
Found = list[tuple[int, int, int, np.ndarray]]
"""Frame, track id, class id, box."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    kitti: Path
    """KITTI folder with tracking/training/label_02 and the sequence map."""
    detections: tuple[str, ...]
    """Sets of detections as NAME=DIR, rows frame,x1,y1,x2,y2,score in folders named after classes. All but the part
    `scores` use the first."""
    out: Path
    """Output directory for curves."""
    parts: tuple[Part, ...] = get_args(Part)
    """Tables to measure."""
    model: Path | None = None
    """Model file for the part `own` (default: the shipped model)."""


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


ROBOFLOW = {"SORT": "SORTTracker", "ByteTrack": "ByteTrackTracker", "OC-SORT": "OCSORTTracker"}
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


# ---------------------------------------------------------------- running and scoring


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


# ---------------------------------------------------------------- tables


def table_of_scores(sets: dict[str, list[Recording]]) -> None:
    """HOTA by set and class: trackers at their defaults, roboflow tuned on even sequences, ours with hindsight."""
    for set_name, sequences in sets.items():
        results = {name: measure(make, sequences) for name, make in contestants().items()}
        results["ours: drivetrack, offline"] = [judge(s, follow_offline(s)) for s in sequences]
        tuned = {
            name: [measure(partial(Roboflow, kind, p, p), sequences) for p in GRID[name]]
            for name, kind in (ROBOFLOW.items() if has_roboflow() else ())
        }
        for class_name in CLASSES:
            class_id = CLASS_NAMES.index(class_name)
            if not any((d.class_ids == class_id).any() for s in sequences for _, d in s.frames):
                continue
            print(f"\n**{set_name}, {class_name}**\n\n| tracker | even | odd | all |\n|---|---|---|---|")
            rows = {name: by_half(scores, sequences, class_name) for name, scores in results.items()}
            for name, tries in tuned.items():
                tried = [by_half(scores, sequences, class_name) for scores in tries]
                rows[f"roboflow {name}, tuned"] = max([rows[f"roboflow {name}"], *tried], key=lambda row: row[0])
            for name, halves in rows.items():
                print(f"| {name} | " + " | ".join(f"{hota:.1f}" for hota in halves) + " |", flush=True)


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


ABLATIONS: dict[str, dict[str, object]] = {
    "all of it": {},
    "nothing is learned": {"learn_scores": False},
    "one threshold for all classes, 0.5": {"confirm_thresholds": (0.5,)},
    "confirmed at even odds": {"confirm_log_odds": 0.0},
    "a doubtful box is as exact as a sure one": {"doubt": 0.0},
    "no slipped boxes": {"slip_share": 1e-9},
    "unseen time costs nothing": {"unseen_log_odds_per_s": 0.0},
    "constant velocity in the image": {"projective": False},
    "new tracks start at rest": {"shared_motion": False},
    "second boxes start tracks": {"duplicate_iou": 1.0},
    "a missed frame ends a tentative track": {"tentative_s": 0.0},
    "lost after 0.5 s": {"lost_s": 0.5},
    "hidden objects are not reported": {"hidden_s": 0.0},
    "reported boxes are the detector's": {"smoothing": 0.0},
    "reported boxes are the filter's": {"smoothing": 1.0},
}


def table_of_ablations(sequences: list[Recording]) -> None:
    """Print an ablation of DriveTrack, with one component left out at a time."""
    even = [int(s.name) % 2 == 0 for s in sequences]
    head = " | ".join(f"{c} {p} {m}" for c in CLASSES for p in ("even", "odd") for m in ("HOTA", "IDSW"))
    print(f"\n| left out | {head} |\n|---|{'---|' * 8}")
    for name, overrides in ABLATIONS.items():
        scores = measure(partial(Ours, "drivetrack", **overrides), sequences)
        cells = []
        for class_name in CLASSES:
            for part in (True, False):
                chosen = figures([s for s, e in zip(scores, even, strict=True) if e == part], class_name)
                cells += [f"{chosen[0]:.2f}", f"{chosen[5]:.0f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


SPEED_SEQUENCES, SPEED_FRAMES, SPEED_RUNS = ("0000", "0007", "0011", "0016", "0020"), 150, 3
"""Two streets with few objects, a motorway, a crowd of people and one of cars; so many frames of each, so often."""


def table_of_speed(sequences: list[Recording]) -> None:
    """Print ms per frame on KITTI and in crowds of a given size, measured in turns."""
    makers = contestants()
    kitti = [replace(s, frames=s.frames[:SPEED_FRAMES]) for s in sequences if s.name in SPEED_SEQUENCES]
    crowds = [
        [Recording(str(count), kitti[0].gt, list(enumerate(tracker_scenes.crowd(count, frames=120))), 120)]
        for count in (20, 100)
    ]
    times = [time_in_turns(makers, scenes) for scenes in (kitti, *crowds)]
    reference = "roboflow ByteTrack"
    columns = ("KITTI: mean", "median", "20 objects: mean", "median", "100 objects: mean", "median")
    print(f"\n| tracker, ms a frame | {' | '.join(columns)} |\n|---|" + "---|" * 6)
    for name in makers:
        cells = [f"{value:.3f}" for time in times for value in (np.mean(time[name]), np.median(time[name]))]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if reference in makers:
        ours = "ours: drivetrack"
        ratios = [f"{np.mean(time[reference]) / np.mean(time[ours]):.1f}" for time in times]
        print(f"\nFrames a second, {ours} against {reference}: " + ", ".join(f"{r} times" for r in ratios) + ".")


def time_in_turns(makers: dict[str, Callable[[], Runner]], scenes: list[Recording]) -> dict[str, np.ndarray]:
    """Return ms per frame by tracker, the minimum of `SPEED_RUNS`."""
    best = {name: [np.full(len(s.frames), np.inf) for s in scenes] for name in makers}
    for _ in range(SPEED_RUNS):
        for i, scene in enumerate(scenes):
            for name, make in makers.items():
                best[name][i] = np.minimum(best[name][i], follow(make(), scene)[1])
    return {name: 1e3 * np.concatenate(times) for name, times in best.items()}


def table_of_perfect_boxes(sequences: list[Recording]) -> None:
    """Print scores with the labels as detections, which measure association alone."""
    perfect = []
    for s in sequences:
        frames = []
        names = np.array([name.lower() for name in s.gt.objects.names])
        class_ids = np.select([names == "car", names == "pedestrian"], [0, 1], -1)
        for i in range(s.n_frames):
            at = np.flatnonzero((s.gt.frame_ids == i) & (class_ids >= 0))
            boxes = s.gt.objects.boxes_xyxy[at].astype(np.float32)
            frames.append((i, Detections(boxes, np.ones(len(at), np.float32), class_ids[at])))
        perfect.append(Recording(s.name, s.gt, frames, s.n_frames))
    print(f"\n| tracker | {' | '.join(f'{c} {m}' for c in CLASSES for m in MEASURES)} |\n|---|{'---|' * 12}")
    for name, make in contestants().items():
        scores = measure(make, perfect)
        print(row(name, *(figures(scores, c) for c in CLASSES)), flush=True)


def table_of_own_network(options: Options) -> None:
    """Compare trackers on the detections of our network, with the confirmation thresholds of the model file."""
    sequences = []
    recorded, confirm_thresholds = tracker_images.find(options.kitti, options.model)
    for name, (gt, frames) in recorded.items():
        n_frames = max(int(gt.frame_ids.max()), frames[-1][0]) + 1
        sequences.append(Recording(name, gt, frames, n_frames))
    made = contestants()
    if confirm_thresholds:
        values = ", ".join(f"{score:.2f}" for score in confirm_thresholds)
        by_file = {
            f"ours: drivetrack, the file's confirmation thresholds ({values})": partial(
                Ours, "drivetrack", confirm_thresholds=confirm_thresholds
            )
        }
        made = {**by_file, **made}
    results = {name: measure(make, sequences) for name, make in made.items()}
    for class_name in CLASSES:
        print(f"\n**{class_name}, all**\n\n| tracker | {' | '.join(MEASURES)} |\n|---|{'---|' * len(MEASURES)}")
        for name, scores in results.items():
            print(row(name, figures(scores, class_name)))
        names = [f"{s.name} ({len(s.frames)})" for s in sequences]
        print(f"\n**{class_name}, HOTA by sequence (frames)**\n\n| tracker | {' | '.join(names)} |")
        print(f"|---|{'---|' * len(names)}")
        for name, scores in results.items():
            print(f"| {name} | {' | '.join(f'{figures([s], class_name)[0]:.1f}' for s in scores)} |")


def table_of_habits(sequences: list[Recording]) -> None:
    """Print scores with the same boxes and other score distributions."""
    chosen = {
        name: make
        for name, make in contestants().items()
        if name in ("ours: drivetrack", "ours: bytetrack", "roboflow ByteTrack")
    }
    head = " | ".join(f"{name}: {c}" for name in chosen for c in CLASSES)
    print(f"\n| scores | {head} |\n|---|{'---|' * 2 * len(chosen)}")
    for habit, change in tracker_scenes.HABITS.items():
        changed = [replace(s, frames=[(i, change(d)) for i, d in s.frames]) for s in sequences]
        cells = []
        for make in chosen.values():
            scores = measure(make, changed)
            cells += [f"{figures(scores, c)[0]:.1f}" for c in CLASSES]
        print(f"| {habit} | {' | '.join(cells)} |", flush=True)


def curves_of_streets(out: Path) -> None:
    """Plot mean HOTA of Car and Pedestrian on synthetic streets of rising difficulty, one plot per difficulty."""
    drives = tracker_scenes.drives(seeds=(11, 12, 13), frames=450)
    chosen = [
        n for n in contestants() if n in ("ours: drivetrack", "ours: bytetrack", "ours: sort", "roboflow ByteTrack")
    ]
    curves: dict[str, dict[str, list[float]]] = {}
    for knob, values in tracker_scenes.DIFFICULTIES.items():
        curves[knob] = {name: [] for name in chosen}
        print(f"\n| {tracker_scenes.LABELS[knob]} | " + " | ".join(chosen) + f" |\n|---|{'---|' * len(chosen)}")
        for value in values:
            scenes = [
                Recording(f"{i:04d}", *tracker_scenes.detect(drive, i, **{knob: value}))
                for i, drive in enumerate(drives)
            ]
            cells = []
            for name in chosen:
                scores = measure(contestants()[name], scenes)
                hota = [figures(scores, c)[0] for c in CLASSES]
                switches = sum(figures(scores, c)[5] for c in CLASSES)
                curves[knob][name].append(float(np.mean(hota)))
                cells.append(f"{np.mean(hota):.1f} ({switches:.0f})")
            print(f"| {value:g} | {' | '.join(cells)} |", flush=True)
    print("\nMean HOTA of the two classes; in brackets, identity switches.")
    tracker_scenes.draw_curves(curves, out / "tracker_difficulty.png")


def main(argv: list[str]) -> int:
    """Measure the selected parts."""
    import tyro

    options = tyro.cli(Options, args=argv, prog="python -m tools.benchmarks.trackers")
    options.out.mkdir(parents=True, exist_ok=True)
    needs_kitti = set(options.parts) - {"street", "own"}
    sets = load_sets(options.kitti, options.detections) if needs_kitti else {}
    sequences = next(iter(sets.values()), [])
    for part in options.parts:
        print(f"\n## {part}", flush=True)
        if part == "scores":
            table_of_scores(sets)
        elif part == "ablation":
            table_of_ablations(sequences)
        elif part == "speed":
            table_of_speed(sequences)
        elif part == "perfect":
            table_of_perfect_boxes(sequences)
        elif part == "own":
            table_of_own_network(options)
        elif part == "habits":
            table_of_habits(sequences)
        else:
            curves_of_streets(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
