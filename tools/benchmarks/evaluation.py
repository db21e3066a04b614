"""Accuracy and speed of the evaluators: the golden comparison, times beside the official tools, and scaling.

    python tools/benchmarks/evaluation.py --data ../shared/data [--repeats 5]

Prints Markdown. Needs the sample data and, beside it, the recorded numbers of the official tools. TrackEval's column
needs TrackEval (pip install trackeval==1.3.0). Every measurement runs in its own process and includes imports. A busy
machine disturbs processor time less than wall time, so both are shown. Ratios come from alternating runs.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import multiprocessing
import os
import pstats
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OFFICIAL_OBJECT_S = (0.75, 0.92)
"""The official C++ tool on 3,769 frames, 2D alone, from golden/timing.json: a machine of the same kind, idle."""
NUMBA_OBJECT_S = 1.3 + 3.0
"""The numba port on the same frames, load and warm evaluation."""
OBJECT_CASES = (
    *("object_kittibox", "object_stress", "object_stress2"),
    *("object3d_stress", "object3d_gates", "object3d_pointgnn"),
)
BOX_CASE = "object3d_pointgnn"
"""Results with 3-D boxes that are timed: 3,769 frames of a published detector."""


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--data", type=Path, default=root.parent / "shared" / "data")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    data, golden = options.data.resolve(), options.data.resolve().parent / "golden"
    if not (data / "kitti").is_dir() or not golden.is_dir():
        sys.exit(f"{data}: no sample data, or no recorded numbers beside it; --data FOLDER")
    os.environ["OMP_NUM_THREADS"] = "1"
    scratch = Path(tempfile.mkdtemp(prefix="benchmark-evaluation-"))
    try:
        unpack(data / "kitti" / "label_2_all.zip", scratch / "kitti")
        for path in sorted(golden.glob("*.zip")):
            unpack(path, scratch / path.stem)
        make_results(scratch / "kitti", scratch / "val_results")
        print(f"machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        print_golden(scratch, data, golden)
        print_object_times(scratch, options.repeats)
        print_box_times(scratch, golden, options.repeats)
        print_tracking_times(scratch, data, options.repeats)
        print_profiles(scratch, data)
    finally:
        shutil.rmtree(scratch)


def unpack(archive: Path, folder: Path) -> None:
    """A ZIP archive into a new folder."""
    folder.mkdir()
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)


def make_results(kitti: Path, results: Path, seed: int = 0) -> None:
    """Results for the 3,769 frames of the usual split: labels jittered, dropped and doubled, and false alarms."""
    from perception.formats.kitti import ObjectRows, format_objects, read_objects

    results.mkdir()
    rng = np.random.default_rng(seed)
    found_as = {"Car": "Car", "Van": "Car", "Pedestrian": "Pedestrian", "Person_sitting": "Pedestrian"}
    found_as["Cyclist"] = "Cyclist"
    for name in (kitti / "ImageSets" / "val.txt").read_text().split():
        labels = read_objects(kitti / "training" / "label_2" / f"{name}.txt")
        names, boxes, scores, alphas = [], [], [], []
        for i, label in enumerate(labels.names):
            for _ in range(rng.choice([0, 1, 2], p=[0.1, 0.75, 0.15]) if label in found_as else 0):
                left, top, right, bottom = labels.boxes_xyxy[i]
                noise = rng.normal(0, 0.04, 4) * np.array([right - left, bottom - top] * 2)
                names.append(found_as[label])
                boxes.append(np.array([left, top, right, bottom]) + np.clip(noise, -20, 20))
                scores.append(rng.beta(5, 2))
                alphas.append(labels.alpha[i] + rng.normal(0, 0.3))
        for _ in range(rng.poisson(3)):
            corner, size = rng.uniform((0, 150), (1100, 300)), rng.uniform((10, 10), (140, 70))
            names.append(str(rng.choice(["Car", "Pedestrian", "Cyclist"])))
            boxes.append(np.concatenate([corner, corner + size]))
            scores.append(rng.beta(2, 5))
            alphas.append(rng.uniform(-3, 3))
        table = np.array(boxes).reshape(-1, 4)
        table = np.concatenate(
            [np.minimum(table[:, :2], table[:, 2:]), np.maximum(table[:, :2], table[:, 2:])], axis=1
        )
        rows = ObjectRows.from_boxes(names, table.round(2), np.round(scores, 4), alpha=np.round(alphas, 2))
        (results / f"{name}.txt").write_text(format_objects(rows))


# ---------------------------------------------------------------- right


def print_golden(scratch: Path, data: Path, golden: Path) -> None:
    """The largest difference to the official tools' recorded numbers, for each case."""
    print("## Largest difference to the recorded numbers of the official tools\n")
    print("| case | numbers compared | largest difference | counts that differ |\n|---|---|---|---|")
    for case in OBJECT_CASES:
        print(golden_object(scratch, golden, case))
    for case in ("blurnoise", "shift"):
        for space in ("perspective", "bev"):
            print(golden_road(scratch, golden, case, space))
    for case in ("GT-SORT", "YOLOX-OC-SORT", "STRESS"):
        print(golden_tracking(scratch, data, golden, case))
    print("\nobject: per cent; road and tracking: fractions\n")


def golden_object(scratch: Path, golden: Path, case: str) -> str:
    from perception.evaluation.object_folders import score_object_folders

    recorded = json.loads((golden / f"{case}.json").read_text())
    (split := scratch / f"{case}.txt").write_text("\n".join(recorded["frames"]))
    evaluation = score_object_folders(scratch / "kitti", scratch / f"{case}_results", split=split)
    scored = {("results", *key): score for key, score in evaluation.scores.items()}
    scored |= {(f"results_{key[0]}", *key[1:]): score for key, score in evaluation.scores_3d.items()}
    numbers = {"AP_R40": "ap_r40", "AP_R11": "ap_r11", "AOS_R40": "aos_r40", "AOS_R11": "aos_r11"}
    differences, wrong = [], 0
    for part in (name for name in recorded if name.startswith("results")):
        expected_keys = {(part, *key.split("/")) for key in recorded[part]}
        wrong += len(expected_keys ^ {key for key in scored if key[0] == part})
        for key in expected_keys & set(scored):
            expected, score = recorded[part]["/".join(key[1:])], scored[key]
            differences += [abs(getattr(score, ours) - expected[n]) for n, ours in numbers.items() if n in expected]
            for name in ("tp", "fp", "fn", "thresholds"):
                found, wanted = getattr(score, name), np.array(expected[name])
                wrong += int((found != wanted).sum()) if found.shape == wanted.shape else len(wanted)
    return f"| {case} | {len(differences)} | {max(differences):.1e} | {wrong} |"


def golden_road(scratch: Path, golden: Path, case: str, space: str) -> str:
    from perception.evaluation.road import pr_curve
    from perception.evaluation.road_folders import score_road_folders

    recorded = json.loads((golden / "road.json").read_text())["cases"][case][space]
    files = scratch / "road"
    evaluation = score_road_folders(
        files / "gt_image_2", files / "road_stress" / case, calib=files / "calib", space=space
    )
    ratios = {"MaxF": "max_f", "AvgPrec": "ap", "PRE_wp": "precision", "REC_wp": "recall", "FPR_wp": "fpr"}
    ratios["FNR_wp"] = "fnr"
    differences, wrong = [], 0
    for category, expected in recorded.items():
        members = [image for image in evaluation.images if image.category == category]
        pairs = [(evaluation.scores[category], expected["combined"])]
        pairs += [(pr_curve([image], category), expected["per_image"][image.name]) for image in members]
        for score, wanted in pairs:
            differences += [abs(getattr(score, ratios[k]) - wanted[k]) for k in ratios if k in wanted]
            wrong += sum(getattr(score, k.lower()) != wanted[f"{k}_wp"] for k in ("TP", "FP", "FN", "TN"))
    return f"| road {case}, {space} | {len(differences)} | {max(differences):.1e} | {wrong} |"


def golden_tracking(scratch: Path, data: Path, golden: Path, case: str) -> str:
    from perception.evaluation.tracking_folders import score_tracking_folders

    recorded = json.loads((golden / "tracking.json").read_text())["results"][case]
    evaluation = score_tracking_folders(data / "kitti" / "tracking", scratch / f"tracking_{case}_results")
    counts = {"CLR_TP", "CLR_FN", "CLR_FP", "FP", "FN", "IDSW", "MT", "PT", "ML", "Frag", "CLR_Frames", "Frames"}
    counts |= {"IDTP", "IDFN", "IDFP", "Dets", "GT_Dets", "IDs", "GT_IDs"}
    differences, wrong = [], 0
    for sequence, classes in recorded.items():
        for class_name, expected in classes.items():
            name = class_name.capitalize()
            whole = sequence == "COMBINED_SEQ"
            score = evaluation.combined[name] if whole else evaluation.sequences[sequence, name].score
            for key, wanted in expected.items():
                if key in counts:
                    wrong += score.values[{"FP": "CLR_FP", "FN": "CLR_FN"}.get(key, key)] != wanted
                elif key.endswith("_alpha"):
                    differences += np.abs(score.by_alpha[key.removesuffix("_alpha")] - wanted).tolist()
                else:
                    differences.append(abs(score.values[key] - wanted))
    return f"| tracking {case} | {len(differences):,} | {max(differences):.1e} | {wrong} |"


# ---------------------------------------------------------------- fast


def measured(job: Callable[..., None], *arguments: Any) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak memory in MB of a job in a fresh process; imports are part of it."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measure, args=(queue, job, arguments))
    process.start()
    found = queue.get()
    process.join()
    return found


def _measure(queue: Any, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    wall, processor = time.perf_counter(), time.process_time()
    job(*arguments)
    queue.put(
        (
            time.perf_counter() - wall,
            time.process_time() - processor,
            _peak_mb(),
        )
    )


def _peak_mb() -> float:
    """Of this process alone; what `getrusage` says of a child begins with its parent's peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def medians(runs: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Column by column."""
    wall, processor, memory = (statistics.median(column) for column in zip(*runs, strict=True))
    return wall, processor, memory


def score_objects(kitti: str, results: str, times: int = 1) -> None:
    """Text files to numbers, for the usual split or a set `times` as large."""
    from perception.evaluation.object import evaluate_objects
    from perception.formats.kitti_table import find_object_files, read_object_table

    names = (Path(kitti) / "ImageSets" / "val.txt").read_text().split()
    labels = find_object_files(Path(kitti) / "training" / "label_2", names) * times
    found = find_object_files(Path(results), names) * times
    frames = [f"{i:07d}" for i in range(len(labels))]
    gt = read_object_table(frames, labels, scores=False)
    evaluate_objects(gt, read_object_table(frames, found, scores=True, allow_inverted=True))


def print_object_times(scratch: Path, repeats: int) -> None:
    """Time and memory of the object evaluation."""
    kitti, results = scratch / "kitti", scratch / "val_results"
    command = [sys.executable, "-m", "perception.cli.main", "evaluate", "object", "--gt", str(kitti)]
    command += ["--results", str(results), "--split", "val"]
    walls = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        walls.append(time.perf_counter() - start)
    low, high = OFFICIAL_OBJECT_S
    print("## Objects: 3,769 frames, from text files to table\n")
    print("| | wall s | processor s | peak MB |\n|---|---|---|---|")
    wall, processor, memory = medians([measured(score_objects, str(kitti), str(results)) for _ in range(repeats)])
    print(f"| this project, fresh process, imports included | {wall:.2f} | {processor:.2f} | {memory:.0f} |")
    print(f"| the whole command `perception evaluate object` | {statistics.median(walls):.2f} | | |")
    print(f"| official C++, recorded on an idle machine | {low}–{high} | | |")
    print(f"| numba port, load and warm evaluation, recorded | {NUMBA_OBJECT_S:.1f} | | |\n")
    print("| frames | wall s | processor s | processor s per 3,769 frames | peak MB |\n|---|---|---|---|---|")
    for times in (1, 4, 16):
        runs = [measured(score_objects, str(kitti), str(results), times) for _ in range(max(1, repeats // 2))]
        wall, processor, memory = medians(runs)
        print(
            f"| {3769 * times:,} ({times}×) | {wall:.2f} | {processor:.2f} | {processor / times:.3f} | {memory:.0f} |"
        )
    print()


def score_boxes(kitti: str, results: str, split: str) -> None:
    """Text files to numbers, 2D, BEV and 3D."""
    from perception.evaluation.object_folders import score_object_folders

    score_object_folders(Path(kitti), Path(results), split=Path(split))


def print_box_times(scratch: Path, golden: Path, repeats: int) -> None:
    """Time and memory of the evaluation of results with 3-D boxes."""
    official = json.loads((golden / "object3d_timing.json").read_text())["runs"][BOX_CASE]
    their_wall, their_processor = (statistics.median(official[key]) for key in ("wall_s", "cpu_s"))
    arguments = (str(scratch / "kitti"), str(scratch / f"{BOX_CASE}_results"), str(scratch / f"{BOX_CASE}.txt"))
    wall, processor, memory = medians([measured(score_boxes, *arguments) for _ in range(repeats)])
    print("## Objects with 3-D boxes: 3,769 frames, 2D, BEV and 3D at two overlaps, from text files to numbers\n")
    print("| | wall s | processor s | peak MB |\n|---|---|---|---|")
    print(f"| this project, fresh process, imports included | {wall:.2f} | {processor:.2f} | {memory:.0f} |")
    print(f"| official C++, recorded on an idle machine | {their_wall:.2f} | {their_processor:.2f} | |")
    print(f"| times as fast | {their_wall / wall:.1f} | {their_processor / processor:.1f} | |\n")


def score_tracks(labels: str, results: str, times: int = 1, long: bool = False) -> None:
    """Text files to numbers; `times` as many sequences, or sequences that are `times` as long."""
    from perception.evaluation.tracking import TrackingEvaluator
    from perception.formats.kitti_table import read_tracking_fast

    evaluator = TrackingEvaluator()
    for name, length in sequence_lengths(Path(labels)).items():
        for copy in range(1 if long else times):
            gt, _ = read_tracking_fast(Path(labels) / "training" / "label_02" / f"{name}.txt", scores=False)
            found, _ = read_tracking_fast(Path(results) / f"{name}.txt", allow_inverted=True, allow_extra=True)
            if long:
                gt, found = lengthened(gt, length, times), lengthened(found, length, times)
            evaluator.process(f"{name}-{copy}", gt, found, length * (times if long else 1))
    evaluator.evaluate()


def lengthened(rows: Any, length: int, times: int) -> Any:
    """A sequence played `times` over, with new identities each time."""
    repeated = rows[np.tile(np.arange(len(rows)), times)]
    copy = np.repeat(np.arange(times), len(rows))
    ids = np.where(repeated.track_ids < 0, repeated.track_ids, repeated.track_ids + copy * 1_000_000)
    return type(rows)(repeated.frame_ids + copy * length, ids, repeated.objects)


def sequence_lengths(labels: Path) -> dict[str, int]:
    from perception.evaluation.tracking_folders import read_seqmap

    return read_seqmap(labels / "evaluate_tracking.seqmap.training")


def run_trackeval(folder: str) -> None:
    """TrackEval 1.3.0, its own reading included."""
    import trackeval

    quiet = {"PRINT_CONFIG": False}
    settings = {"GT_FOLDER": folder, "TRACKERS_FOLDER": f"{folder}/trackers", **quiet}
    settings |= {"SPLIT_TO_EVAL": "training", "OUTPUT_FOLDER": f"{folder}/out"}
    dataset = trackeval.datasets.Kitti2DBox(settings)
    metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet), trackeval.metrics.Identity(quiet)]
    for class_name in ("car", "pedestrian"):
        done: dict[str, list[dict]] = {}
        for name in dataset.seq_list:
            raw = dataset.get_raw_seq_data("STRESS", name)
            prepared = dataset.get_preprocessed_seq_data(raw, class_name)
            done[name] = [metric.eval_sequence(prepared) for metric in metrics]
        for i, metric in enumerate(metrics):
            metric.combine_sequences({name: values[i] for name, values in done.items()})


def print_tracking_times(scratch: Path, data: Path, repeats: int) -> None:
    """Time and memory of the tracking evaluation, beside TrackEval."""
    labels, results = data / "kitti" / "tracking", scratch / "tracking_STRESS_results"
    theirs = scratch / "trackeval"
    (theirs / "trackers" / "STRESS").mkdir(parents=True)
    shutil.copytree(labels / "training" / "label_02", theirs / "label_02")
    shutil.copytree(results, theirs / "trackers" / "STRESS" / "data")
    shutil.copy(labels / "evaluate_tracking.seqmap.training", theirs)
    try:
        import trackeval  # noqa: F401

        rivals = True
    except ModuleNotFoundError:
        rivals = False
    own_runs, their_runs = [], []
    for i in range(repeats):
        own_runs.append(measured(score_tracks, str(labels), str(results)))
        if rivals and i < max(1, repeats // 2):
            their_runs.append(measured(run_trackeval, str(theirs)))
    wall, processor, memory = medians(own_runs)
    print("## Tracking: 21 sequences, Car and Pedestrian, from text files to numbers\n")
    print("| | wall s | processor s | peak MB |\n|---|---|---|---|")
    print(f"| this project, fresh process, imports included | {wall:.2f} | {processor:.2f} | {memory:.0f} |")
    if their_runs:
        their_wall, their_processor, their_memory = medians(their_runs)
        print(f"| TrackEval, the same way | {their_wall:.2f} | {their_processor:.2f} | {their_memory:.0f} |")
        print(f"| times as fast | {their_wall / wall:.1f} | {their_processor / processor:.1f} | |")
    print("\n| what grows | wall s | processor s | processor s per 1× | peak MB |\n|---|---|---|---|---|")
    for long in (False, True):
        for times in (1, 4, 16):
            runs = [
                measured(score_tracks, str(labels), str(results), times, long) for _ in range(max(1, repeats // 2))
            ]
            wall, processor, memory = medians(runs)
            what = "frames in each sequence" if long else "sequences"
            print(f"| {times}× {what} | {wall:.2f} | {processor:.2f} | {processor / times:.3f} | {memory:.0f} |")
    print()


def print_profiles(scratch: Path, data: Path) -> None:
    """Where the time goes, warm."""
    jobs: list[tuple[str, Callable[..., None], tuple[str, str]]] = [
        ("objects", score_objects, (str(scratch / "kitti"), str(scratch / "val_results"))),
        ("tracking", score_tracks, (str(data / "kitti" / "tracking"), str(scratch / "tracking_STRESS_results"))),
    ]
    print("## What is left: own time of functions, warm\n")
    for name, job, arguments in jobs:
        job(*arguments)
        profile = cProfile.Profile()
        profile.runcall(job, *arguments)
        entries = pstats.Stats(profile).get_stats_profile().func_profiles
        total = sum(entry.tottime for entry in entries.values())
        largest = sorted(entries.items(), key=lambda item: -item[1].tottime)[:8]
        shares = ", ".join(f"{function} {100 * entry.tottime / total:.0f} %" for function, entry in largest)
        print(f"{name}: {total:.2f} s with the profiler on; {shares}\n")


if __name__ == "__main__":
    main()
