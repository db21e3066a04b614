"""Measure the results of docs/explanation/tracker.md: our trackers and roboflow's, on KITTI and synthetic streets.

    python -m tools.benchmarks.trackers --kitti KITTI --detections RRC --out DIR

KITTI's folder holds `tracking/training/label_02`; the detections are in folders `Car` and `Pedestrian`. Tables are
printed as Markdown, and curves are written to DIR. The comparison needs `pip install trackers==2.6.1` (Apache-2.0),
best in a separate environment; without it, only our trackers are measured.

Parameters were chosen on KITTI's even-numbered sequences; odd ones are reported separately. Times are CPU times of
the thread, and the trackers take turns on each sequence, so that other load affects all of them alike.
"""

from __future__ import annotations

import json
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
from perception.types import CLASS_NAMES, Detections
from tools.benchmarks import tracker_images as tracker_pictures
from tools.benchmarks import tracker_scenes

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
    detections: Path
    """Folder of detections by class, in rows frame,x1,y1,x2,y2,score."""
    out: Path
    """Output directory for curves."""
    parts: tuple[Part, ...] = get_args(Part)
    """Tables to measure."""
    model: Path | None = None
    """Model file for the part `own` (default: the shipped model)."""
    recorded: Path | None = None
    """trackers.json with recorded scores of other trackers, for the part `scores`."""


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
        return [(t.track_id, t.class_id, t.box_xyxy) for t in self.tracker.update(detections, timestamp_ns)]


class Roboflow:
    """A tracker of the package `trackers`, one instance a class, as it is meant to be used."""

    def __init__(self, kind: str, car: dict[str, float], pedestrian: dict[str, float]) -> None:
        import supervision
        import trackers

        self._detections = supervision.Detections
        make = getattr(trackers, kind)
        self._trackers = {0: make(**car), 1: make(**pedestrian)}

    def step(self, detections: Detections, timestamp_ns: int) -> Iterable[tuple[int, int, np.ndarray]]:
        told = []
        for class_id, tracker in self._trackers.items():
            own = detections[detections.class_ids == class_id]
            answer = tracker.update(self._detections(xyxy=own.boxes_xyxy, confidence=own.scores))
            ids = np.full(len(answer), -1) if answer.tracker_id is None else answer.tracker_id
            # ids of the two instances overlap, so the classes get numbers of their own
            told += [
                (2 * int(i) + class_id, class_id, box) for i, box in zip(ids, answer.xyxy, strict=True) if i >= 0
            ]
        return told


def has_roboflow() -> bool:
    """Whether the reference can be run; says so on stderr where it cannot."""
    try:
        import supervision  # noqa: F401
        import trackers  # noqa: F401
    except ImportError:
        print("the package 'trackers' is not installed: no reference", file=sys.stderr)
        return False
    return True


def contestants() -> dict[str, Callable[[], Runner]]:
    """Return the trackers by name. Those of roboflow have default parameters, or thresholds tuned for each class."""
    made: dict[str, Callable[[], Runner]] = {
        f"ours: {name}": partial(Ours, name) for name in ("drivetrack", "bytetrack", "sort")
    }
    if has_roboflow():

        def both(*names: str, car: float, pedestrian: float) -> tuple[dict[str, float], dict[str, float]]:
            return dict.fromkeys(names, car), dict.fromkeys(names, pedestrian)

        high, active = "high_conf_det_threshold", "track_activation_threshold"
        made |= {
            "roboflow SORT": lambda: Roboflow("SORTTracker", {}, {}),
            "roboflow SORT, tuned": lambda: Roboflow("SORTTracker", *both(active, car=0.25, pedestrian=0.7)),
            "roboflow ByteTrack": lambda: Roboflow("ByteTrackTracker", {}, {}),
            "roboflow ByteTrack, tuned": lambda: Roboflow(
                "ByteTrackTracker", *both(high, active, car=0.5, pedestrian=0.7)
            ),
            "roboflow OC-SORT": lambda: Roboflow("OCSORTTracker", {}, {}),
            "roboflow OC-SORT, tuned": lambda: Roboflow("OCSORTTracker", *both(high, car=0.3, pedestrian=0.6)),
        }
    return made


# ---------------------------------------------------------------- running and scoring


def follow(runner: Runner, sequence: Recording) -> tuple[Found, list[float]]:
    """Run a tracker on a sequence; return its tracks and the seconds of each frame."""
    found: Found = []
    seconds = []
    for frame_id, detections in sequence.frames:
        timestamp_ns = round(frame_id * 1e9 / sequence.fps)
        begin = time.thread_time()
        told = runner.step(detections, timestamp_ns)
        seconds.append(time.thread_time() - begin)
        found += [(frame_id, track_id, class_id, box) for track_id, class_id, box in told]
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


def kitti(options: Options) -> list[Recording]:
    """The 21 sequences with stored detections."""
    folder = find_detections(options.detections, "csv", CLASSES)
    root = options.kitti / "tracking" if (options.kitti / "tracking").is_dir() else options.kitti
    lengths = read_seqmap(next(root.rglob("evaluate_tracking.seqmap.training")))
    labels = next(root.rglob("label_02"))
    sequences = []
    for name, n_frames in lengths.items():
        stored = dict(folder.read(name).frames(n_frames))
        frames = [(i, stored.get(i, Detections.empty())) for i in range(n_frames)]
        sequences.append(Recording(name, read_tracking(labels / f"{name}.txt"), frames, n_frames))
    return sequences


# ---------------------------------------------------------------- tables


def table_of_scores(sequences: list[Recording], recorded: Path | None) -> None:
    """Print scores of all trackers by class, for even, odd and all sequences; recorded scores for all only."""
    even = [int(s.name) % 2 == 0 for s in sequences]
    results = {name: measure(make, sequences) for name, make in contestants().items()}
    for class_name in CLASSES:
        for part in ("even", "odd", "all"):
            print(
                f"\n**{class_name}, {part}**\n\n| tracker | {' | '.join(MEASURES)} |\n|---|{'---|' * len(MEASURES)}"
            )
            for name, scores in results.items():
                chosen = [s for s, e in zip(scores, even, strict=True) if part == "all" or e == (part == "even")]
                print(row(name, figures(chosen, class_name)))
            if recorded is not None and part == "all":
                for name, values in best_recorded(recorded, class_name).items():
                    print(row(name, values))


def best_recorded(path: Path, class_name: str) -> dict[str, list[float]]:
    """Return the recorded scores of other trackers, each with its parameters of highest HOTA for a class."""
    names = {"orig_sort": "authors' SORT", "orig_byte": "authors' ByteTrack", "orig_ocsort": "authors' OC-SORT"}
    best: dict[str, list[float]] = {}
    for run in json.loads(path.read_text())["runs"].values():
        values = run["classes"][class_name.lower()]
        told = [values[m] if m == "IDSW" else 100 * values[m] for m in MEASURES]
        if (name := names.get(run["tracker"])) and told[0] > best.get(name, [0.0])[0]:
            best[name] = told
    return {f"{name}, best setting": best[name] for name in names.values() if name in best}


ABLATIONS: dict[str, dict[str, object]] = {
    "all of it": {},
    "one even score for all classes, 0.5": {"confirm_thresholds": (0.5,)},
    "scores are not learned": {"learn_scores": False},
    "told at even odds": {"confirm_log_odds": 0.0},
    "a doubtful box is as exact as a sure one": {"doubt": 0.0},
    "no slipped boxes": {"slip_share": 1e-9},
    "unseen time costs nothing": {"unseen_log_odds_per_s": 0.0},
    "constant velocity in the picture": {"projective": False},
    "new tracks start at rest": {"shared_motion": False},
    "second boxes start tracks": {"duplicate_iou": 1.0},
    "a missed frame ends a young track": {"tentative_s": 0.0},
    "patience 0.5 s": {"lost_s": 0.5},
    "hidden objects are not told": {"hidden_s": 0.0},
    "told boxes are the detector's": {"smoothing": 0.0},
    "told boxes are the filter's": {"smoothing": 1.0},
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
    makers = {name: make for name, make in contestants().items() if "tuned" not in name}
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
        if "tuned" not in name:
            scores = measure(make, perfect)
            print(row(name, *(figures(scores, c) for c in CLASSES)), flush=True)


def table_of_own_network(options: Options) -> None:
    """Compare trackers on the detections of our network, with the confirmation thresholds of the model file."""
    sequences = []
    recorded, confirm_thresholds = tracker_pictures.find(options.kitti, options.model)
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
    results = {name: measure(make, sequences) for name, make in made.items() if "tuned" not in name}
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
    sequences = kitti(options) if needs_kitti else []
    for part in options.parts:
        print(f"\n## {part}", flush=True)
        if part == "scores":
            table_of_scores(sequences, options.recorded)
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
