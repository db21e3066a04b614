"""Measure the results of docs/explanation/tracker.md: our trackers and roboflow's, on KITTI and synthetic streets.

    python -m tools.benchmarks.trackers --kitti KITTI --detections rrc=DIR yolov3=DIR --out DIR

KITTI's folder holds `tracking/training/label_02`; the detections are in folders `Car` and `Pedestrian`. Tables are
printed as Markdown, and curves are written to DIR. The comparison needs `pip install trackers==2.6.1` (Apache-2.0),
best in a separate environment; without it, only our trackers are measured. The part `scores` keeps what it measured
of them in DIR/roboflow.json and goes on from there.

Parameters were chosen on KITTI's even-numbered sequences; odd ones are reported separately. Times are CPU times of
the thread, and the trackers take turns on each sequence, so that other load affects all of them alike.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from perception.types import Detections
from tools.benchmarks import tracker_images, tracker_scenes
from tools.benchmarks.tracker_camera import table_of_camera
from tools.benchmarks.tracker_runs import (
    CLASSES,
    MEASURES,
    Ours,
    Recording,
    Runner,
    contestants,
    figures,
    follow,
    load_sets,
    measure,
    row,
)
from tools.benchmarks.tracker_scores import table_of_scores

Part = Literal["scores", "ablation", "speed", "perfect", "own", "habits", "street", "camera"]


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


ABLATIONS: dict[str, dict[str, object]] = {
    "all of it": {},
    "nothing is learned": {"learn_scores": False},
    "one threshold for all classes, 0.5": {"confirm_thresholds": (0.5,)},
    "confirmed at even odds": {"confirm_log_odds": 0.0},
    "a doubtful box is as exact as a sure one": {"doubt": 0.0},
    "no slipped boxes": {"slip_share": 1e-9},
    "unseen time costs nothing": {"unseen_log_odds_per_s": 0.0},
    "constant velocity in the image": {"projective": False},
    "a cut box has moved": {"cut_boxes": False},
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
            table_of_scores(sets, options.out)
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
        elif part == "camera":
            table_of_camera(options.kitti, sequences)
        else:
            curves_of_streets(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
