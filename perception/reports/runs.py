"""Evaluated runs, read from the folders that `--report DIR` wrote, as functions of the weights of their frames.

`evidence.npz` holds what each frame contributed. So neither labels nor results are needed again, and every draw of
frames is scored by the official rule (`object_draws`, `pr_curve`, the sums of HOTA), not by an approximation.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.arrays import F64, I64
from perception.errors import UserError
from perception.evaluation.bootstrap import Score
from perception.evaluation.box_errors import COMPARED, weighted_medians
from perception.evaluation.object3d import METRICS
from perception.evaluation.object_draws import PrecisionAreas
from perception.evaluation.results import LEVELS, OBJECT_CLASSES_SCORED, ObjectCurve, RoadImage, RoadScore, ratio
from perception.evaluation.road import URBAN, pr_curve
from perception.evaluation.tracking_evidence import TrackingEvidence
from perception.files import read_json
from perception.reports.object import CURVE_FIELDS
from perception.reports.object_analysis import LEVEL, full_curve
from perception.reports.report import FORMAT

MAX_EVIDENCE_BYTES = 1_000_000_000
"""Unpacked size beyond which a file is refused: a small archive can unpack to a very large one."""


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluated run, read from its report folder."""

    folder: Path
    task: str
    arrays: Mapping[str, np.ndarray]


def load_run(folder: Path) -> Run:
    """Read a report folder.

    Raises:
        UserError: it is none, or its evidence is missing or damaged.
    """
    expected = "a folder that `perception evaluate object|road|tracking --report DIR` wrote to its end"
    do = f"perception evaluate object --gt DIR --results DIR --report {folder}"
    if folder.is_dir() and any(folder.glob("[!.]*")) and not (folder / "report.json").exists():
        raise UserError(f"{folder}: no report.json, so its report was not finished", expected, do)
    try:
        report = read_json(folder / "report.json", expected, do)
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
    if task not in TASKS:
        raise UserError(f"{folder}: is a report of '{task}'", "one of " + ", ".join(TASKS), do)
    return Run(folder, task, arrays)


@dataclass(frozen=True, eq=False)
class RunScorer:
    """The scores of one run as a function of the weights of its frames."""

    frame_names: tuple[str, ...]
    truth: np.ndarray
    """(F, …) what stands for the labels of each frame; runs that differ here were scored against different labels."""
    names: tuple[str, ...]
    """Of the M scores."""
    score: Score
    curves: Mapping[str, F64]
    errors: I64
    """(F,) false negatives and false positives of each frame; empty for tasks that do not count them."""
    sequence_lengths: tuple[int, ...] = ()
    """Tracking: frames of each sequence."""


def _object_scorer(run: Run) -> RunScorer:
    frame_names = tuple(str(name) for name in run.arrays["frame_names"])
    curves = _curves(run, "")
    classes = [name for name in OBJECT_CLASSES_SCORED if (name, LEVEL) in curves]
    has_orientation = bool(run.arrays["has_orientation"])
    counts = {
        name: _counts_at(curves[name, LEVEL], float(run.arrays[f"{name}.threshold"]), len(frame_names))
        for name in classes
    }
    names = [f"{name} AP R40 {level}" for name in classes for level in LEVELS]
    names += [f"{name} AOS R40 {level}" for name in classes for level in LEVELS] if has_orientation else []
    names += [f"{name} {what} {LEVEL}" for name in classes for what in ("precision", "recall", "F1")]
    areas = {key: PrecisionAreas(curve) for key, curve in curves.items()}
    full = {f"{name}, {LEVEL}": full_curve(curves[name, LEVEL]) for name in classes}

    areas_3d: list[PrecisionAreas] = []
    for metric, how in METRICS.items():
        for (name, level), curve in _curves(run, f"{metric}.").items():
            names.append(f"{name} {how.kind} AP {how.minimum_overlap(name):g} R40 {level}")
            areas_3d.append(PrecisionAreas(curve))
            if level == LEVEL and not how.loose:
                full[f"{name}, {how.label(name)}, {LEVEL}"] = full_curve(curve)

    off = [(name, what, run.arrays.get(f"{name}.errors.{what}")) for name in classes for what in COMPARED]
    known = [(run.arrays[f"{name}.errors.frames"], values) for name, _, values in off if values is not None]
    names += [f"{name} median {what} error, {COMPARED[what]}" for name, what, values in off if values is not None]

    def score(weights: I64) -> F64:
        both = [areas[name, level](weights) for name in classes for level in LEVELS]  # (R, 2) each
        columns = [one[:, 0] for one in both] + [one[:, 1] for one in both if has_orientation]
        for name in classes:
            tp, fp, fn = (weights @ count for count in counts[name])  # (R,)
            columns += [100 * ratio(tp, tp + fp), 100 * ratio(tp, tp + fn), 100 * ratio(2 * tp, 2 * tp + fp + fn)]
        columns += [one(weights)[:, 0] for one in areas_3d]
        columns += [weighted_medians(values, frames, weights) for frames, values in known]
        return np.stack(columns, axis=1) if columns else np.zeros((len(weights), 0))

    return RunScorer(
        frame_names,
        run.arrays["labels"],
        tuple(names),
        score,
        {name: np.stack([one.recall, one.precision], axis=1) for name, one in full.items()},
        sum((fp + fn for _, fp, fn in counts.values()), np.zeros(len(frame_names), np.int64)),
    )


def _curves(run: Run, prefix: str) -> dict[tuple[str, str], ObjectCurve]:
    """The curves of one metric by class and level."""
    found = {}
    for class_name in OBJECT_CLASSES_SCORED:
        for level in LEVELS:
            fields = {key: run.arrays.get(f"{prefix}{class_name}.{level}.{key}") for key in CURVE_FIELDS}
            if fields["n_gt"] is not None:
                found[class_name, level] = ObjectCurve(class_name, level, **fields)  # type: ignore[arg-type]
    return found


def _counts_at(curve: ObjectCurve, threshold: float, frames: int) -> tuple[I64, I64, I64]:
    """Return TP, FP and FN of each frame, with the detections at or above a threshold."""
    kept = curve.event_scores >= threshold  # nothing where it is NaN

    def count(steps: np.ndarray) -> I64:
        return np.bincount(curve.event_frames[kept], steps[kept], minlength=frames).astype(np.int64)

    tp, fp, absorbed = count(curve.event_tp), count(curve.event_fp), count(curve.event_absorbed)
    return tp, fp, curve.n_gt - tp - absorbed


def _road_scorer(run: Run) -> RunScorer:
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
    return RunScorer(
        names,
        np.stack([road.sum(axis=1), other.sum(axis=1)], axis=1),
        tuple(f"{name} {what}" for name in pools for what in ("MaxF", "AP")),
        score,
        curves,
        np.zeros(0, np.int64),
    )


def _tracking_scorer(run: Run) -> RunScorer:
    evidence = TrackingEvidence.from_arrays(run.arrays)
    return RunScorer(
        evidence.frame_names(),
        evidence.truths(),
        evidence.score_names(),
        evidence.score,
        {},
        evidence.errors(),
        evidence.lengths,
    )


TASKS: dict[str, Callable[[Run], RunScorer]] = {
    "object": _object_scorer,
    "road": _road_scorer,
    "tracking": _tracking_scorer,
}


def scorer_of(run: Run) -> RunScorer:
    """Return the scorer of a run; it scores once, so that damaged evidence is found here.

    Raises:
        UserError: the evidence does not fit the report.
    """
    try:
        scorer = TASKS[run.task](run)
        scorer.score(np.ones((1, len(scorer.frame_names)), np.int64))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(
            f"{run.folder}: evidence.npz does not fit its report ({error})",
            "the evidence that belongs to the report",
            f"perception evaluate {run.task} --gt DIR --results DIR --report {run.folder}",
        ) from None
    return scorer
