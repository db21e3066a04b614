"""What a run folder says about its run: `config.json` before it starts, `results.json` as it goes."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.splits import Holdout
from perception.files import write_atomically
from perception.provenance import commit
from perception.types import CLASS_NAMES
from training.checkpoint import resolved_config
from training.config import TrainConfig
from training.distributed import world
from training.operating_point import ONE_TO_MANY, even_score_key
from training.sets import TrainingSets

_OF_BOXES = {
    "score_threshold": "car_score",
    **{even_score_key(name): f"{name.lower()}_even" for name in CLASS_NAMES},
}
THRESHOLDS = {
    "road_threshold": "road",
    **_OF_BOXES,
    **{ONE_TO_MANY + name: ONE_TO_MANY + told for name, told in _OF_BOXES.items()},
}
"""Scores that are operating points and not merits: their names in `results.json`."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    best: float = -math.inf
    """Best score on the held-out frames."""
    best_step: int = 0
    scorings_since: int = 0
    """Scorings since that one."""
    seconds: float = 0.0
    """Spent in steps, over all starts of the run; scoring not counted."""
    waited: float = 0.0
    """Of them, seconds that the network waited for images."""
    skipped: int = 0
    """Batches skipped because their loss was not finite."""
    broken: int = 0
    """Samples that loader processes could not read and skipped; each counts once a loader process and start."""


def describe(config: TrainConfig, sets: TrainingSets | None, init: Path | None = None) -> dict[str, Any]:
    """Config, commit and data of a run, for its folder and its checkpoints."""
    resolved = resolved_config(config)
    return {
        "config": resolved,
        "config_hash": hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:16],
        "init": str(init) if init is not None else None,
        "commit": commit(),
        "data_hash": sets.data_hash() if sets else "synthetic",
        "pictures": {subset.name: len(subset.indices) for subset in sets.train} if sets else {},
        "held_out": {
            task: len(subset.indices)
            for task, subset in (("objects", sets.objects), ("road", sets.road))
            if subset is not None
        }
        if sets
        else {},
        "torch": torch.__version__,
    }


def warn_of_other_data(run: Path, description: dict[str, Any]) -> None:
    """Say so where a run goes on with other data than it began with."""
    try:
        before = json.loads((run / "config.json").read_text())["data_hash"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if before != description["data_hash"]:
        print(
            f"warning: the data has changed since this run began (hash {before}, now {description['data_hash']}):"
            " it will not end as one that was never interrupted",
            file=sys.stderr,
        )


def warn_of_trained_validation(sets: TrainingSets, holdout: Holdout) -> None:
    """Warn where the weights that a run starts from were trained on some of its validation frames.

    Args:
        sets: of the run.
        holdout: frames that neither the run nor those weights were trained on (`holdout_since`).
    """
    for subset in (sets.objects, sets.road):
        if subset is None:
            continue
        held = holdout.sets[subset.name].names
        if seen := sum(subset.source.names[i] not in held for i in subset.indices):
            print(
                f"warning: the weights this run starts from were trained on {seen} of its {len(subset.indices)} "
                f"validation frames of {subset.name}: its scores will flatter it",
                file=sys.stderr,
            )


def summary(
    description: dict[str, Any], progress: Progress, scores: dict[str, float], config: TrainConfig, ended: bool
) -> dict[str, Any]:
    """A run in one dictionary; `scores` are those of the best checkpoint."""
    seen = progress.step * config.schedule.batch
    return {
        "preset": config.preset,
        "config_hash": description["config_hash"],
        "commit": description["commit"],
        "data_hash": description["data_hash"],
        "ended": ended,
        "steps": progress.step,
        "best_step": progress.best_step,
        "metrics": {name: round(value, 3) for name, value in scores.items() if name not in THRESHOLDS},
        "thresholds": {task: scores[name] for name, task in THRESHOLDS.items() if name in scores},
        "seconds": round(progress.seconds, 1),
        "pictures_per_s": round(seen / progress.seconds, 2) if progress.seconds else None,
        "waiting_share": round(progress.waited / progress.seconds, 3) if progress.seconds else None,
        "skipped_batches": progress.skipped,
        "broken_samples": progress.broken,
        "processes": world(),
        "checkpoint": "best.pt",
    }


def has_ended(run: Path) -> bool:
    """Whether the record of a run says that it was trained to its end."""
    try:
        return json.loads((run / "results.json").read_text())["ended"] is True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1) + "\n")
