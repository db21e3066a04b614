"""Reliability diagrams, for scores of detections and confidences of road alike."""

from __future__ import annotations

import numpy as np

from perception.evaluation.calibration import Calibration
from perception.reports.plots import Axis, Histogram, LinePlot, Series
from perception.reports.report import Column, Figure, Table, Value


def calibration_figure(name: str, found: Calibration) -> Figure:
    """Show the reliability diagram, and under it the number of detections by score."""
    span = Axis("score", float(found.edges[0]), float(found.edges[-1]))
    words = (
        "scores are not probabilities" if np.isnan(found.error) else f"expected calibration error {found.error:.3f}"
    )
    points = np.stack([found.mean_score, found.share_true], axis=1)
    reliability = LinePlot(
        f"{name}: reliability",
        f"Share that is right over the score; {words}.",
        (Series("share that is right", points[np.isfinite(points).all(axis=1)], 0, dots=True),),
        span,
        Axis("share that is right"),
        diagonal=found.is_probability,
    )
    counts = Histogram(
        f"{name}: number by score",
        f"{int(found.true.sum()):,} true and {int(found.false.sum()):,} false.",
        tuple(found.edges.tolist()),
        (tuple(found.true.tolist()), tuple(found.false.tolist())),
        ("true", "false"),
        span,
    )
    return Figure((reliability, counts), f"{name}: {words}.", (("s0", "true"), ("s1", "false")))


def calibration_rows(name: str, found: Calibration) -> list[tuple[Value, ...]]:
    """List one row per bin."""
    return [
        (
            name,
            *map(float, (found.edges[b], found.edges[b + 1])),
            int(found.true[b]),
            int(found.false[b]),
            *map(float, (found.mean_score[b], found.share_true[b])),
        )
        for b in range(len(found.true))
    ]


def calibration_table(rows: tuple[tuple[Value, ...], ...], first: str = "Class") -> Table:
    """Build the table of `calibration_rows`; `first` names its first column."""
    return Table(
        "calibration",
        "Calibration by score",
        (
            Column(first.lower(), first),
            Column("score_from", "Score from", ".3g"),
            Column("score_to", "to", ".3g"),
            Column("true", "True", "d"),
            Column("false", "False", "d"),
            Column("mean_score", "Mean score", ".3f"),
            Column("share_true", "Share true", ".3f"),
        ),
        rows,
        folded=True,
    )
