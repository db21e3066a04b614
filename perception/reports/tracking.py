"""The report of a tracking evaluation: scores, HOTA over α, ids over time, and the worst frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perception.evaluation.results import ALPHAS, TrackingEvaluation
from perception.evaluation.tracking_evidence import TrackingEvidence
from perception.reports.object_analysis import BINS, Bin, wilson
from perception.reports.plots import Axis, Interval, IntervalBars, LinePlot, Series
from perception.reports.report import (
    Card,
    Column,
    Figure,
    Gallery,
    Paragraph,
    Report,
    Section,
    Table,
    Value,
    legend_of,
)
from perception.reports.tracking_frames import of_class, timelines, worst_frames

MEASURES = (
    ("HOTA", "%"),
    ("DetA", "%"),
    ("AssA", "%"),
    ("LocA", "%"),
    ("MOTA", "%"),
    ("MOTP", "%"),
    ("IDF1", "%"),
    ("CLR_Pr", "%"),
    ("CLR_Re", "%"),
    ("CLR_F1", "%"),
    ("IDSW", "n"),
    ("Frag", "n"),
    ("MT", "n"),
    ("PT", "n"),
    ("ML", "n"),
    ("CLR_TP", "n"),
    ("CLR_FP", "n"),
    ("CLR_FN", "n"),
)
EXPLAINED = {
    "HOTA": "higher order tracking accuracy: geometric mean of DetA and AssA, over 19 overlaps",
    "DetA": "detection accuracy",
    "AssA": "association accuracy: whether one id stays with one object",
    "LocA": "mean overlap of matches",
    "MOTA": "1 − (misses + false positives + id switches) / labels",
    "MOTP": "mean overlap of matches at 0.5",
    "IDF1": "F1 of the best one-to-one assignment of ids",
    "CLR_Pr": "precision at overlap 0.5",
    "CLR_Re": "recall at overlap 0.5",
    "CLR_F1": "F1 at overlap 0.5",
    "IDSW": "id switches",
    "Frag": "interruptions of a track",
    "MT": "mostly tracked: objects tracked for at least 80 % of their frames",
    "PT": "partly tracked: 20 to 80 %",
    "ML": "mostly lost: less than 20 %",
    "CLR_TP": "true positives at overlap 0.5",
    "CLR_FP": "false positives",
    "CLR_FN": "false negatives",
}
BY_SEQUENCE = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", "Frag", "CLR_FP", "CLR_FN")


def tracking_report(
    evaluation: TrackingEvaluation,
    *,
    images: Path | None = None,
    facts: Mapping[str, Value] | None = None,
    gallery: int = 12,
) -> Report:
    """Build the report.

    Args:
        images: folder with one folder of images per sequence (KITTI's `image_02`).
        facts: further facts about the run (folders, tracker, model).
        gallery: number of worst frames to show.
    """
    all_facts: dict[str, Value] = {
        **(facts or {}),
        "sequences": len(evaluation.n_frames),
        "frames": sum(evaluation.n_frames.values()),
        "label rows": sum(len(rows) for rows in evaluation.gt.values()),
        "result rows": sum(len(rows) for rows in evaluation.results.values()),
    }
    if evaluation.missing_sequences:
        all_facts["sequences without results, counted as empty"] = len(evaluation.missing_sequences)
    cards = []
    for name, score in evaluation.combined.items():
        cards.append(Card(f"{name} HOTA", f"{100 * score.values['HOTA']:.2f}", "%"))
        cards.append(Card(f"{name} MOTA", f"{100 * score.values['MOTA']:.2f}", "%"))
        cards.append(Card(f"{name} id switches", f"{score.values['IDSW']:.0f}"))
    return Report(
        task="tracking",
        title="KITTI tracking",
        facts=all_facts,
        cards=tuple(cards),
        sections=(
            _scores(evaluation),
            _over_alpha(evaluation),
            _sequences(evaluation),
            timelines(evaluation),
            _splits(evaluation),
            worst_frames(evaluation, images, gallery),
        ),
        warnings=evaluation.warnings,
        evidence=TrackingEvidence.of(evaluation).arrays(),
    )


# ---------------------------------------------------------------- scores


def _scores(evaluation: TrackingEvaluation) -> Section:
    rows = []
    for measure, kind in MEASURES:
        values: list[Value] = []
        for score in evaluation.combined.values():
            value = score.values[measure]
            values.append(f"{100 * value:.2f}" if kind == "%" else f"{value:.0f}")
        rows.append((measure, *values, EXPLAINED[measure]))
    shown = Table(
        "summary",
        "Combined over all sequences",
        (
            Column("measure", "Measure"),
            *(Column(name.lower(), name, "s") for name in evaluation.combined),
            Column("meaning", "Meaning"),
        ),
        tuple(rows),
        note="Shares are in per cent, the rest are counts. Precision, recall and F1 are at an overlap of 0.5, over "
        "all of the tracker's output.",
    )
    every = Table(
        "scores",
        "Every number, as fractions and counts",
        (Column("class", "Class"), Column("measure", "Measure"), Column("value", "Value", ".6g")),
        tuple(
            (name, measure, float(value))
            for name, score in evaluation.combined.items()
            for measure, value in score.values.items()
        ),
        folded=True,
    )
    return Section("scores", "Scores", (shown, every))


def _over_alpha(evaluation: TrackingEvaluation) -> Section:
    figures: list[Figure] = []
    rows: list[tuple[Value, ...]] = []
    names = ("HOTA", "DetA", "AssA")
    for class_name, score in evaluation.combined.items():
        series = [
            Series(name, np.stack([ALPHAS, score.by_alpha[name]], axis=1), style, dots=True)
            for style, name in enumerate(names)
        ]
        means = ", ".join(f"{name} {100 * float(np.mean(score.by_alpha[name])):.2f} %" for name in names)
        figures.append(
            Figure(
                (
                    LinePlot(
                        f"{class_name}: HOTA, DetA and AssA over α",
                        f"Means over α: {means}.",
                        tuple(series),
                        Axis("overlap α that counts as a match"),
                        Axis("share"),
                    ),
                ),
                f"{class_name}. Means: {means}.",
                legend_of(names),
            )
        )
        for i, alpha in enumerate(ALPHAS):
            rows.append((class_name, round(float(alpha), 2), *(float(score.by_alpha[name][i]) for name in names)))
    table = Table(
        "over_alpha",
        "HOTA, DetA and AssA over α",
        (Column("class", "Class"), Column("alpha", "α", ".2f"), *(Column(n.lower(), n, ".4f") for n in names)),
        tuple(rows),
        folded=True,
    )
    intro = Paragraph(
        "The later a curve falls, the tighter the boxes. DetA below AssA means that detection limits the score; AssA "
        "below DetA means that identities do."
    )
    return Section("alpha", "HOTA over α", (intro, Gallery(tuple(figures)), table))


def _sequences(evaluation: TrackingEvaluation) -> Section:
    figures: list[Figure] = []
    rows: list[tuple[Value, ...]] = []
    for class_name in evaluation.combined:
        bars = []
        for one in of_class(evaluation, class_name):
            values = one.score.values
            rows.append((class_name, one.name, *(float(values[measure]) for measure in BY_SEQUENCE)))
            if one.sizes.gt_dets:
                note = f"{values['IDSW']:.0f} switches"
                bars.append(Interval(one.name, float(values["HOTA"]), np.nan, np.nan, note))
        worst = min(bars, key=lambda bar: bar.value, default=None)
        words = "No labels." if worst is None else f"Lowest: {worst.label} with {worst.value:.3f}."
        plot = IntervalBars(f"{class_name}: HOTA by sequence", words, tuple(bars), Axis("HOTA"))
        figures.append(Figure((plot,), f"{class_name}: HOTA and number of id switches of each sequence."))
    table = Table(
        "sequences",
        "By sequence, fractions and counts",
        (
            Column("class", "Class"),
            Column("sequence", "Sequence"),
            *(Column(m.lower(), m, ".4f" if dict(MEASURES)[m] == "%" else ".0f", EXPLAINED[m]) for m in BY_SEQUENCE),
        ),
        tuple(rows),
        folded=True,
    )
    return Section("sequences", "Sequences", (Gallery(tuple(figures)), table))


# ---------------------------------------------------------------- splits


def _splits(evaluation: TrackingEvaluation) -> Section:
    figures, rows = [], []
    # a truncated object does not count in tracking
    bins: dict[str, tuple[Bin, ...]] = {name: BINS[name] for name in ("distance", "height", "occlusion")}
    bins["height"] = (Bin("below 25 px", -np.inf, 25), *bins["height"])
    for class_name in evaluation.combined:
        for quantity, of_quantity in bins.items():
            values, hit, switched = _judged(evaluation, class_name, quantity)
            bars = []
            for one in of_quantity:
                inside = (values >= one.low) & (values < one.high)
                found, count, switches = int(hit[inside].sum()), int(inside.sum()), int(switched[inside].sum())
                low, high = wilson(found, count)
                recall = found / count if count else float("nan")
                rows.append((class_name, quantity, one.label, found, count - found, recall, switches))
                bars.append(Interval(one.label.replace(" and more", "+"), recall, low, high, f"{count:,}"))
            words = "; ".join(f"{bar.label}: {bar.value:.2f} of {bar.note}" for bar in bars)
            plot = IntervalBars(f"{class_name}: recall by {quantity}", words, tuple(bars), Axis("recall"))
            figures.append(Figure((plot,), f"{class_name} by {quantity}"))
    table = Table(
        "splits",
        "Hits, misses and switches by distance, box height and occlusion",
        (
            Column("class", "Class"),
            Column("by", "By"),
            Column("bin", "Bin"),
            Column("found", "Found", "d"),
            Column("missed", "Missed", "d"),
            Column("recall", "Recall", ".3f"),
            Column("switches", "Id switches", "d"),
        ),
        tuple(rows),
        folded=True,
    )
    intro = Paragraph(
        "Recall at an overlap of 0.5 over the labels that count. The number at the right is the number of labels."
    )
    return Section("splits", "Where objects are missed", (intro, Gallery(tuple(figures)), table))


def _judged(
    evaluation: TrackingEvaluation, class_name: str, quantity: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the quantity, hit and id switch of every label of a class that counts, (N,) each."""
    values, hit, switched = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0, bool)]
    for one in of_class(evaluation, class_name):
        objects, rows = evaluation.gt[one.name].objects, one.timeline.gt_rows
        if quantity == "distance":
            values.append(objects.location_cam2[rows, 2])
        elif quantity == "height":
            values.append(objects.boxes_xyxy[rows, 3] - objects.boxes_xyxy[rows, 1])
        else:
            values.append(objects.occlusion[rows].astype(np.float64))
        hit.append(one.timeline.tracker_ids >= 0)
        switched.append(one.timeline.is_switch)
    return np.concatenate(values), np.concatenate(hit), np.concatenate(switched)
