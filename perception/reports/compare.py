"""Two runs side by side: which differences are real, and which the choice of frames explains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.arrays import F64, I64
from perception.errors import UserError
from perception.evaluation.bootstrap import RESAMPLES, SEED, Difference, blocks, judge, paired_draws
from perception.files import read_json
from perception.reports.runs import RunScorer, load_run, scorer_of

TRACKING_BLOCK = 50
"""Frames drawn together in tracking, five seconds: neighbours in a video are not independent."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result of a comparison."""

    task: str
    name_a: str
    name_b: str
    frames: int
    units: int
    """Number of units drawn: frames, blocks of frames or groups."""
    unit_name: str
    resamples: int
    seed: int
    differences: tuple[Difference, ...]
    curves: Mapping[str, tuple[F64, F64]]
    """Precision over recall of A and B, (S, 2) each, by name."""
    changed_frames: tuple[tuple[str, int, int], ...] = ()
    """Frame, errors of A, errors of B at the operating points; most changed first. Objects and tracking."""
    only_a: tuple[str, ...] = ()
    """Classes or scores that only A has, so that they are not compared: B never detected that class."""
    only_b: tuple[str, ...] = ()


def read_groups(path: Path) -> dict[str, str]:
    """A JSON file that maps frame names to groups, such as KITTI's drives.

    Raises:
        UserError: it can't be read, or maps to anything but text.
    """
    expected, do = 'a JSON file such as {"000002": "2011_09_26_drive_0086"}', "--groups drives.json"
    groups = read_json(path, expected, do)
    if not isinstance(groups, dict) or not all(isinstance(group, str) for group in groups.values()):
        raise UserError(f"{path}: maps frames to something that is not text", expected, do)
    return groups


def compare(
    folder_a: Path,
    folder_b: Path,
    *,
    resamples: int | None = None,
    seed: int = SEED,
    block: int | None = None,
    groups: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare two report folders of the same task, frames and labels.

    Args:
        resamples: draws of the bootstrap; by default `RESAMPLES`, or as many as the number of scores needs.
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
            f"perception evaluate {run_a.task} --gt DIR --results DIR --report DIR",
        )
    a, b = scorer_of(run_a), scorer_of(run_b)
    _same_frames(a, b)
    units, unit_name = _units(a, run_a.task, block, groups)
    every = np.ones((1, len(a.frame_names)), np.int64)
    whole_a, whole_b = (dict(zip(one.names, one.score(every)[0].tolist(), strict=True)) for one in (a, b))
    shared = _shared(a, whole_a, whole_b)
    resamples = _enough(resamples, len(shared))
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


def _shared(a: RunScorer, whole_a: Mapping[str, float], whole_b: Mapping[str, float]) -> list[str]:
    """The scores to compare: those of both runs, but for classes that neither found."""
    names = [name for name in a.names if name in whole_b and (_counts(whole_a[name]) or _counts(whole_b[name]))]
    if not names:
        raise UserError(
            "the two runs have no number in common",
            "runs that detected the same classes",
            "look at the classes that each report.html scores",
        )
    return names


def _enough(resamples: int | None, comparisons: int) -> int:
    """Draws enough to tell that many differences from chance."""
    least = 40 * comparisons
    if resamples is None:
        return max(RESAMPLES, least)
    if 2 * comparisons >= 0.05 * (resamples + 1):
        raise UserError(
            f"{resamples} draws can't tell {comparisons} differences from chance",
            f"at least {least} draws",
            f"--resamples {max(RESAMPLES, least)}",
        )
    return resamples


def _alone(whole: Mapping[str, float], other: Mapping[str, float], shared: list[str]) -> tuple[str, ...]:
    """Name the scores that only one run has: a class of which nothing is shared, or a measure without its levels."""
    compared = {name.split()[0] for name in shared}
    names = [name for name, value in whole.items() if name not in other and _counts(value)]
    return tuple(
        dict.fromkeys(name.split(" R40")[0] if name.split()[0] in compared else name.split()[0] for name in names)
    )


def _counts(value: float) -> bool:
    return bool(np.isfinite(value) and value != 0)


def _same_frames(a: RunScorer, b: RunScorer) -> None:
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


def _units(a: RunScorer, task: str, block: int | None, groups: Mapping[str, str] | None) -> tuple[I64, str]:
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


def _changed(a: RunScorer, b: RunScorer) -> tuple[tuple[str, int, int], ...]:
    if not len(a.errors):
        return ()
    change = b.errors - a.errors
    order = [int(i) for i in np.argsort(-np.abs(change), kind="stable") if change[i]]
    return tuple((a.frame_names[i], int(a.errors[i]), int(b.errors[i])) for i in order)
