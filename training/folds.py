"""Cross-validation: one run for each fold, and the mean of their scores."""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from perception.errors import UserError
from perception.files import read_json
from training.config import TrainConfig
from training.distributed import process_group, rank
from training.loop import choose_device, train, writes_to
from training.results import describe, write_json
from training.sets import find_sets


def cross_validate(config: TrainConfig, run: Path, folds: int, init: Path | None = None) -> Path:
    """Train and evaluate each fold in `run/fold-i`. A second call resumes.

    Object frames are divided by drive, road frames within each category into runs of numbers (`find_sets`).

    Args:
        config: config of every fold, except for `data.fold`.
        run: run directory.
        folds: number of folds.
        init: checkpoint that every fold starts from.

    Returns:
        `run/results.json`: for each metric the mean over the folds, its standard deviation, and the folds' values.

    Raises:
        UserError: see `train`; or there is nothing to divide.
    """
    if not config.data.real:
        raise UserError("cross-validation on the synthetic street alone", "real data to hold out", "--data.real")
    configs = [replace(config, data=replace(config.data, fold=f"{i}/{folds}")) for i in range(folds)]
    for part in configs:  # check every fold before the first one trains
        sets = find_sets(part.data, classes=part.model.class_infos)
        if sets.objects is None and sets.road is None:
            raise UserError(f"{config.data.root}: nothing to hold out", "KITTI object or road frames with labels")
    with writes_to(run), process_group(choose_device(config.hardware.device)):
        if rank() == 0:
            run.mkdir(parents=True, exist_ok=True)
            write_json(run / "config.json", {**describe(config, None, init), "data_hash": None, "folds": folds})
        for i, part in enumerate(configs):
            folder = run / f"fold-{i}"
            if rank() == 0:
                print(f"fold {i + 1} of {folds}: {folder}", file=sys.stderr)
            train(part, folder, resume=True, init=init)
            if rank() == 0:
                write_json(run / "results.json", pooled(run, folds))
    return run / "results.json"


def pooled(run: Path, folds: int) -> dict[str, Any]:
    """Return the combined results of the finished folds."""
    done: dict[str, dict[str, Any]] = {}
    for i in range(folds):
        path = run / f"fold-{i}" / "results.json"
        if path.exists() and (result := read_json(path, "results.json of a fold"))["ended"]:
            done[f"fold-{i}"] = result
    names = sorted({name for result in done.values() for name in result["metrics"]})
    metrics = {}
    for name in names:
        values = [result["metrics"][name] for result in done.values() if name in result["metrics"]]
        metrics[name] = {
            "mean": round(statistics.mean(values), 3),
            "std": round(statistics.stdev(values), 3) if len(values) > 1 else None,
            "folds": values,
        }
    return {
        "folds": folds,
        "ended": len(done),
        "metrics": metrics,
        "seconds": round(sum(result["seconds"] for result in done.values()), 1),
        "best_steps": {name: result["best_step"] for name, result in done.items()},
    }
