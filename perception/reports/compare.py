"""Two runs side by side: which differences are real, and which could come from the choice of frames.

A run is the folder that `--report DIR` wrote. Its `evidence.npz` holds what each frame contributed, so neither labels
nor results are needed again, and every draw of frames is scored by the official rule (`object_draws`, `pr_curve`, the
sums of HOTA), not by an approximation.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.errors import UserError
from perception.evaluation.bootstrap import RESAMPLES, SEED, Difference, Score, blocks, judge, paired_draws
from perception.evaluation.object_draws import PrecisionAreas
from perception.evaluation.results import LEVELS, OBJECT_CLASSES_SCORED, ObjectCurve, RoadImage, RoadScore, ratio
from perception.evaluation.road import URBAN, pr_curve
from perception.evaluation.tracking_evidence import TrackingEvidence
from perception.reports.object import CURVE_FIELDS
from perception.reports.object_analysis import LEVEL, full_curve
from perception.reports.report import FORMAT
from perception.types import F64, I64

MAX_EVIDENCE_BYTES = 1_000_000_000
"""Unpacked size beyond which a file is refused: a small archive can hold a very large nothing."""
TRACKING_BLOCK = 50
"""Frames drawn together in tracking, five seconds: neighbours in a video are no independent evidence."""


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluated run, read from its report folder."""

    folder: Path
    task: str
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything a comparison says."""

    task: str
    name_a: str
    name_b: str
    frames: int
    units: int
    """What was drawn: frames, blocks of frames or groups."""
    unit_name: str
    resamples: int
    seed: int
    differences: tuple[Difference, ...]
    curves: Mapping[str, tuple[F64, F64]]
    """Precision over recall of A and B, (S, 2) each, by name."""
    changed_frames: tuple[tuple[str, int, int], ...] = ()
    """Frame, errors of A, errors of B at the operating points; most changed first. Objects and tracking."""
    only_a: tuple[str, ...] = ()
    """Classes or numbers that only A has, so that nothing could be drawn: B never detected that class."""
    only_b: tuple[str, ...] = ()


# ---------------------------------------------------------------- reading


def load_run(folder: Path) -> Run:
    """Read a report folder.

    Raises:
        UserError: it is none, or its evidence is missing or damaged.
    """
    expected = "a folder written by `perception evaluate object|road|tracking … --report DIR`"
    do = f"perception evaluate … --report {folder}"
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if not isinstance(report, dict) or report.get("format") != FORMAT:
            raise ValueError("report.json is another kind of file")
        evidence = folder / "evidence.npz"
        with zipfile.ZipFile(evidence) as archive:
            size = sum(one.file_size for one in archive.infolist())
        if size > MAX_EVIDENCE_BYTES:
            raise ValueError(f"evidence.npz unpacks to {size:,} bytes")
        with np.load(evidence, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file", expected, do) from None
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{folder}: {error}", expected, do) from None
    task = str(report.get("task"))
    if task not in _TASKS:
        raise UserError(f"{folder}: is a report of '{task}'", "one of " + ", ".join(_TASKS), do)
    return Run(folder, task, arrays)


@dataclass(frozen=True, eq=False)
class _Scorer:
    """One run as a function of the weights of its frames."""

    frame_names: tuple[str, ...]
    truth: np.ndarray
    """(F, …) what the labels say of each frame: two runs that differ here were scored against different labels."""
    names: tuple[str, ...]
    """Of the M numbers."""
    score: Score
    curves: Mapping[str, F64]
    errors: I64
    """(F,) misses and false alarms of each frame; empty where frames have none."""
    sequence_lengths: tuple[int, ...] = ()
    """Tracking: frames of each sequence."""


def _object_scorer(run: Run) -> _Scorer:
    frame_names = tuple(str(name) for name in run.arrays["frame_names"])
    frames = len(frame_names)
    curves = {}
    for class_name in OBJECT_CLASSES_SCORED:
        for level in LEVELS:
            fields = {key: run.arrays.get(f"{class_name}.{level}.{key}") for key in CURVE_FIELDS}
            if fields["n_gt"] is not None:
                curves[class_name, level] = ObjectCurve(class_name, level, **fields)  # type: ignore[arg-type]
    classes = [name for name in OBJECT_CLASSES_SCORED if (name, LEVEL) in curves]
    has_orientation = bool(run.arrays["has_orientation"])
    counts = {
        name: _counts_at(curves[name, LEVEL], float(run.arrays[f"{name}.threshold"]), frames) for name in classes
    }
    names = [f"{name} AP R40 {level}" for name in classes for level in LEVELS]
    names += [f"{name} AOS R40 {level}" for name in classes for level in LEVELS] if has_orientation else []
    names += [f"{name} {what} {LEVEL}" for name in classes for what in ("precision", "recall", "F1")]

    areas = {key: PrecisionAreas(curve) for key, curve in curves.items()}

    def score(weights: I64) -> F64:
        both = [areas[name, level](weights) for name in classes for level in LEVELS]  # (R, 2) each
        columns = [one[:, 0] for one in both] + [one[:, 1] for one in both if has_orientation]
        for name in classes:
            tp, fp, fn = (weights @ count for count in counts[name])  # (R,)
            columns += [100 * ratio(tp, tp + fp), 100 * ratio(tp, tp + fn), 100 * ratio(2 * tp, 2 * tp + fp + fn)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(weights), 0))

    full = {f"{name}, {LEVEL}": full_curve(curves[name, LEVEL]) for name in classes}
    return _Scorer(
        frame_names,
        run.arrays["labels"],
        tuple(names),
        score,
        {name: np.stack([one.recall, one.precision], axis=1) for name, one in full.items()},
        sum((fp + fn for _, fp, fn in counts.values()), np.zeros(frames, np.int64)),
    )


def _counts_at(curve: ObjectCurve, threshold: float, frames: int) -> tuple[I64, I64, I64]:
    """TP, FP and FN of each frame with the detections at or above a threshold."""
    heard = curve.event_scores >= threshold  # nothing where it is NaN

    def count(steps: np.ndarray) -> I64:
        return np.bincount(curve.event_frames[heard], steps[heard], minlength=frames).astype(np.int64)

    tp, fp, absorbed = count(curve.event_tp), count(curve.event_fp), count(curve.event_absorbed)
    return tp, fp, curve.n_gt - tp - absorbed


def _road_scorer(run: Run) -> _Scorer:
    names = tuple(str(name) for name in run.arrays["names"])
    categories = [str(name) for name in run.arrays["categories"]]
    road, other = run.arrays["road"].astype(np.int64), run.arrays["other"].astype(np.int64)
    pools = {one: np.array([c == one for c in categories]) for one in sorted(set(categories))}
    if set(categories) & set(URBAN):
        pools["URBAN"] = np.isin(categories, URBAN)

    def pooled(pool: np.ndarray, name: str, weights: I64) -> RoadScore:
        chosen = weights * pool
        return pr_curve([RoadImage(name, name, chosen @ road, chosen @ other)], name)

    def score(weights: I64) -> F64:
        table = np.full((len(weights), 2 * len(pools)), np.nan)
        for column, (name, pool) in enumerate(pools.items()):
            for row in np.flatnonzero((weights * pool).any(axis=1)):
                one = pooled(pool, name, weights[row])
                table[row, 2 * column : 2 * column + 2] = 100 * one.max_f, 100 * one.ap
        return table

    curves = {}
    for name, pool in pools.items():
        whole = pooled(pool, name, np.ones(len(names), np.int64))
        curves[name] = np.stack([whole.recall_curve, whole.precision_curve], axis=1)
    return _Scorer(
        names,
        np.stack([road.sum(axis=1), other.sum(axis=1)], axis=1),
        tuple(f"{name} {what}" for name in pools for what in ("MaxF", "AP")),
        score,
        curves,
        np.zeros(0, np.int64),
    )


def _tracking_scorer(run: Run) -> _Scorer:
    evidence = TrackingEvidence.from_arrays(run.arrays)
    return _Scorer(
        evidence.frame_names(),
        evidence.truths(),
        evidence.score_names(),
        evidence.score,
        {},
        evidence.errors(),
        evidence.lengths,
    )


_TASKS: dict[str, Callable[[Run], _Scorer]] = {
    "object": _object_scorer,
    "road": _road_scorer,
    "tracking": _tracking_scorer,
}


def read_groups(path: Path) -> dict[str, str]:
    """A JSON file that maps frame names to groups, such as KITTI's drives.

    Raises:
        UserError: it can't be read, or maps to anything but text.
    """
    expected, do = 'a JSON file such as {"000002": "2011_09_26_drive_0086"}', "--groups drives.json"
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", expected, do) from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})", expected, do) from None
    if not isinstance(groups, dict) or not all(isinstance(group, str) for group in groups.values()):
        raise UserError(f"{path}: maps frames to something that is not text", expected, do)
    return groups


# ---------------------------------------------------------------- comparing


def compare(
    folder_a: Path,
    folder_b: Path,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    block: int | None = None,
    groups: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare two report folders of the same task, frames and labels.

    Args:
        resamples: draws of the bootstrap.
        block: consecutive frames drawn together; None is 1 for objects and road, `TRACKING_BLOCK` for tracking.
        groups: group of each frame by name (such as its drive), drawn together; instead of `block`.
        progress: called with how many draws are done, and of how many.

    Raises:
        UserError: no reports, other tasks, other frames, other labels, or too few draws to find anything.
    """
    run_a, run_b = load_run(folder_a), load_run(folder_b)
    if run_a.task != run_b.task:
        raise UserError(
            f"A is a report of {run_a.task}, B of {run_b.task}",
            "two runs of the same task",
            f"perception evaluate {run_a.task} … --report DIR",
        )
    a, b = _read(run_a), _read(run_b)
    _same_frames(a, b)
    units, unit_name = _units(a, run_a.task, block, groups)
    every = np.ones((1, len(a.frame_names)), np.int64)
    whole_a, whole_b = (dict(zip(one.names, one.score(every)[0].tolist(), strict=True)) for one in (a, b))
    # a class that neither found has nothing to compare
    shared = [name for name in a.names if name in whole_b and (_counts(whole_a[name]) or _counts(whole_b[name]))]
    if not shared:
        raise UserError(
            "the two runs have no number in common",
            "runs that detected the same classes",
            "look at the classes that each report.html scores",
        )
    if 2 * len(shared) / (resamples + 1) >= 0.05:
        raise UserError(
            f"{resamples} draws can't tell {len(shared)} differences from chance",
            f"at least {40 * len(shared)} draws",
            f"--resamples {max(RESAMPLES, 40 * len(shared))}",
        )
    pick_a, pick_b = ([one.names.index(name) for name in shared] for one in (a, b))
    draws_a, draws_b = paired_draws(
        lambda w: a.score(w)[:, pick_a], lambda w: b.score(w)[:, pick_b], units, resamples, seed, progress
    )
    name_a, name_b = folder_a.resolve().name, folder_b.resolve().name
    if name_a == name_b:
        name_a, name_b = str(folder_a), str(folder_b)
    return Comparison(
        task=run_a.task,
        name_a=name_a,
        name_b=name_b,
        frames=len(a.frame_names),
        units=int(units.max()) + 1,
        unit_name=unit_name,
        resamples=resamples,
        seed=seed,
        differences=tuple(
            judge(shared, [whole_a[name] for name in shared], [whole_b[name] for name in shared], draws_a, draws_b)
        ),
        curves={name: (a.curves[name], b.curves[name]) for name in a.curves if name in b.curves},
        changed_frames=_changed(a, b),
        only_a=_alone(whole_a, whole_b, shared),
        only_b=_alone(whole_b, whole_a, shared),
    )


def _alone(whole: Mapping[str, float], other: Mapping[str, float], shared: list[str]) -> tuple[str, ...]:
    """Numbers that only one run has; a class of which nothing is shared is named alone."""
    compared = {name.split()[0] for name in shared}
    names = [name for name, value in whole.items() if name not in other and _counts(value)]
    return tuple(dict.fromkeys(name if name.split()[0] in compared else name.split()[0] for name in names))


def _counts(value: float) -> bool:
    return bool(np.isfinite(value) and value != 0)


def _read(run: Run) -> _Scorer:
    """A scorer that has scored once, so that damaged evidence is found here."""
    try:
        scorer = _TASKS[run.task](run)
        scorer.score(np.ones((1, len(scorer.frame_names)), np.int64))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(
            f"{run.folder}: evidence.npz does not fit its report ({error})",
            "the evidence that belongs to the report",
            f"perception evaluate {run.task} … --report {run.folder}",
        ) from None
    return scorer


def _same_frames(a: _Scorer, b: _Scorer) -> None:
    if a.frame_names != b.frame_names:
        only_a = sorted(set(a.frame_names) - set(b.frame_names))
        only_b = sorted(set(b.frame_names) - set(a.frame_names))
        example = (only_a or only_b or ["the order"])[0]
        raise UserError(
            f"A has {len(a.frame_names)} frames, B has {len(b.frame_names)}; {len(only_a)} are only in A, "
            f"{len(only_b)} only in B (such as {example})",
            "two runs over the same frames",
            "evaluate both with the same --split",
        )
    if not len(a.frame_names):
        raise UserError("both runs are over no frames", "at least one frame")
    if a.truth.shape == b.truth.shape and not np.array_equal(a.truth, b.truth):
        frame = int(np.flatnonzero((a.truth != b.truth).reshape(len(a.truth), -1).any(axis=1))[0])
        raise UserError(
            f"the labels differ, for one in frame {a.frame_names[frame]}",
            "two runs scored against the same labels",
            "evaluate both with the same --gt",
        )


def _units(a: _Scorer, task: str, block: int | None, groups: Mapping[str, str] | None) -> tuple[I64, str]:
    if groups is not None:
        missing = [name for name in a.frame_names if name not in groups]
        if missing:
            raise UserError(
                f"{len(missing)} frames have no group, such as {missing[0]}",
                "a group for every frame",
                "add them to the file of --groups",
            )
        _, units = np.unique([groups[name] for name in a.frame_names], return_inverse=True)
        return units.astype(np.int64), "groups of frames"
    length = block if block is not None else TRACKING_BLOCK if task == "tracking" else 1
    units = blocks(a.sequence_lengths or (len(a.frame_names),), length)
    return units, "frames" if length == 1 else f"blocks of {length} frames"


def _changed(a: _Scorer, b: _Scorer) -> tuple[tuple[str, int, int], ...]:
    if not len(a.errors):
        return ()
    change = b.errors - a.errors
    order = [int(i) for i in np.argsort(-np.abs(change), kind="stable") if change[i]]
    return tuple((a.frame_names[i], int(a.errors[i]), int(b.errors[i])) for i in order)
