"""Records of a run: `config.json`, written at the start, and `results.json`, updated at every evaluation."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.splits import Holdout
from perception.files import write_atomically
from perception.provenance import commit
from training.checkpoint import resolved_config
from training.config import TrainConfig
from training.distributed import world
from training.operating_point import ONE_TO_MANY, confirm_threshold_key
from training.sets import TrainingSets


def threshold_keys(class_names: Sequence[str]) -> dict[str, str]:
    """Return the scores that are thresholds rather than metrics, with their keys in `results.json`."""
    of_boxes = {
        "score_threshold": "car_score" if "Car" in class_names else "score",
        **{confirm_threshold_key(name): f"{name.lower()}_confirm" for name in class_names},
    }
    many = {ONE_TO_MANY + name: ONE_TO_MANY + key for name, key in of_boxes.items()}
    return {"road_threshold": "road", **of_boxes, **many}


@dataclass(frozen=True)
class Progress:
    """Progress of a run."""

    step: int = 0
    best: float = -math.inf
    """Best validation score."""
    best_step: int = 0
    evaluations_since_best: int = 0
    """Evaluations since the best one."""
    seconds: float = 0.0
    """Training time over all starts of the run, without evaluation."""
    waited: float = 0.0
    """Part of `seconds` in which the network waited for images."""
    skipped: int = 0
    """Batches skipped because their loss was not finite."""
    broken: int = 0
    """Unreadable samples that were skipped. Each counts once per loader process and start."""


def describe(config: TrainConfig, sets: TrainingSets | None, init: Path | None = None) -> dict[str, Any]:
    """Return the config, commit and data of a run, for its run directory and its checkpoints."""
    resolved = resolved_config(config)
    return {
        "config": resolved,
        "config_hash": hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:16],
        "init": str(init) if init is not None else None,
        "commit": commit(),
        "data_hash": sets.data_hash() if sets else "synthetic",
        "images": {subset.name: len(subset.indices) for subset in sets.train} if sets else {},
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
    """Warn when a run is resumed with other data than it started with."""
    try:
        before = json.loads((run / "config.json").read_text())["data_hash"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if before != description["data_hash"]:
        print(
            f"warning: the data has changed since this run started (hash {before}, now {description['data_hash']});"
            " its result will differ from that of an uninterrupted run",
            file=sys.stderr,
        )


def warn_of_trained_validation(sets: TrainingSets, holdout: Holdout) -> None:
    """Warn when the initial weights of a run were trained on some of its validation frames.

    Args:
        sets: training and validation sets of the run.
        holdout: frames that neither the run nor its initial weights were trained on (`holdout_since`).
    """
    for subset in (sets.objects, sets.road):
        if subset is None:
            continue
        held = holdout.sets[subset.name].names
        if seen := sum(subset.source.names[i] not in held for i in subset.indices):
            print(
                f"warning: the initial weights were trained on {seen} of the {len(subset.indices)} "
                f"validation frames of {subset.name}: the scores will be too high",
                file=sys.stderr,
            )


def summary(
    description: dict[str, Any], progress: Progress, scores: dict[str, float], config: TrainConfig, ended: bool
) -> dict[str, Any]:
    """Return the content of `results.json`; `scores` are those of the best checkpoint."""
    seen = progress.step * config.schedule.batch
    thresholds = threshold_keys(config.model.class_names)
    return {
        "preset": config.preset,
        "config_hash": description["config_hash"],
        "commit": description["commit"],
        "data_hash": description["data_hash"],
        "ended": ended,
        "steps": progress.step,
        "best_step": progress.best_step,
        "metrics": {name: round(value, 3) for name, value in scores.items() if name not in thresholds},
        "thresholds": {task: scores[name] for name, task in thresholds.items() if name in scores},
        "seconds": round(progress.seconds, 1),
        "images_per_s": round(seen / progress.seconds, 2) if progress.seconds else None,
        "waiting_share": round(progress.waited / progress.seconds, 3) if progress.seconds else None,
        "skipped_batches": progress.skipped,
        "broken_samples": progress.broken,
        "processes": world(),
        "checkpoint": "best.pt",
    }


def has_ended(run: Path) -> bool:
    """Return whether a run was trained to its end, by its `results.json`."""
    try:
        return json.loads((run / "results.json").read_text())["ended"] is True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write indented JSON atomically."""
    write_atomically(path, json.dumps(value, indent=1) + "\n")
