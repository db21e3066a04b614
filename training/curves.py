"""Plot a run's losses and scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.checkpoint import renamed

RENAMED = {"rate": "learning_rate", "pictures_per_s": "images_per_s"}
"""Keys of a record: stored name → current name. A run directory may hold both."""
NOT_LOSSES = (
    "step",
    "learning_rate",
    "images_per_s",
    "waiting_share",
    "gradient",
    "broken_samples",
    "skipped_batches",
)


def read_records(run: Path) -> list[dict[str, Any]]:
    """Read the records of `metrics.jsonl`, with the current names of their keys."""
    return [renamed(json.loads(line), RENAMED) for line in (run / "metrics.jsonl").read_text().splitlines()]


def draw_curves(run: Path) -> Path:
    """Plot `metrics.jsonl` of a run directory into `curves.png`: losses left, validation scores right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    records = read_records(run)
    losses = [r for r in records if "learning_rate" in r]
    scores = [r for r in records if "score" in r]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for name in dict.fromkeys(name for record in losses for name in record):
        if name not in NOT_LOSSES:
            left.plot([r["step"] for r in losses], [r.get(name, float("nan")) for r in losses], label=name)
    left.set(xlabel="step", ylabel="weighted loss", yscale="log", title="training")
    for name in ("car_easy", "car_moderate", "car_hard", "pedestrian_moderate", "cyclist_moderate", "road_max_f"):
        points = [(r["step"], r[name]) for r in scores if name in r]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", label=name)
    right.set(xlabel="step", ylabel="AP R40, MaxF (%)", ylim=(0, 100), title="validation frames")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    path = run / "curves.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
