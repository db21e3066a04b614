"""The report of a tracking evaluation: scores, HOTA over α, who was followed by which id, and the worst frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perception.evaluation.results import ALPHAS, TrackingEvaluation
from perception.evaluation.tracking_evidence import TrackingEvidence
from perception.reports.object_analysis import BINS, Bin, wilson
from perception.reports.plots import Axis, Series, interval_bars, line_plot
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
    "AssA": "association accuracy: does one id stay with one object",
    "LocA": "overlap of what is matched",
    "MOTA": "1 − (misses + false alarms + switches) / labels",
    "MOTP": "overlap of what is matched, at 0.5",
    "IDF1": "F1 of the best one-to-one assignment of ids",
    "CLR_Pr": "precision at overlap 0.5",
    "CLR_Re": "recall at overlap 0.5",
    "CLR_F1": "F1 at overlap 0.5",
    "IDSW": "id switches",
    "Frag": "interruptions of a track",
    "MT": "tracks followed for at least 80 % of their life",
    "PT": "tracks followed for 20 to 80 %",
    "ML": "tracks followed for less than 20 %",
    "CLR_TP": "hits at overlap 0.5",
    "CLR_FP": "false alarms",
    "CLR_FN": "misses",
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
        images: folder with one folder of pictures for each sequence (KITTI's `image_02`).
        facts: what else to say about the run (folders, tracker, model).
        gallery: how many of the worst frames are shown.
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
            Column("meaning", "What it is"),
        ),
        tuple(rows),
        note="Shares in per cent, the rest are counts. Precision, recall and F1 are at an overlap of 0.5, "
        "over all that the tracker gave out: it has no score threshold left to choose.",
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
                line_plot(
                    f"{class_name}: HOTA, DetA and AssA over α",
                    f"Means over α: {means}.",
                    series,
                    Axis("overlap α that counts as a match"),
                    Axis("share"),
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
        "Where the curve falls late, boxes are tight. DetA below AssA: the detector holds the score down. AssA below "
        "DetA: ids do."
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
                bars.append((one.name, float(values["HOTA"]), np.nan, np.nan, f"{values['IDSW']:.0f} switched"))
        worst = min(bars, key=lambda bar: bar[1], default=("none", 0.0))
        figures.append(
            Figure(
                interval_bars(
                    f"{class_name}: HOTA by sequence", f"Lowest: {worst[0]} with {worst[1]:.3f}.", bars, Axis("HOTA")
                ),
                f"{class_name}: HOTA of each sequence, and how many ids switched in it.",
            )
        )
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
    # a cut off object (truncation above 0) is not judged in tracking
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
                bars.append((one.label.replace(" and more", "+"), recall, low, high, f"{count:,}"))
            figures.append(
                Figure(
                    interval_bars(
                        f"{class_name}: recall by {quantity}",
                        "; ".join(f"{bar[0]}: {bar[1]:.2f} of {bar[4]}" for bar in bars),
                        bars,
                        Axis("recall"),
                    ),
                    f"{class_name} by {quantity}",
                )
            )
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
    intro = Paragraph("Recall at an overlap of 0.5 over the labels that are judged; how many at the right.")
    return Section("splits", "Where objects are missed", (intro, Gallery(tuple(figures)), table))


def _judged(
    evaluation: TrackingEvaluation, class_name: str, quantity: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The quantity, hit and switch of every judged label of a class."""
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
