"""The report of an object evaluation: official scores, then what lies behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np

from perception.evaluation.box_errors import BoxErrors, compared
from perception.evaluation.object3d import METRICS
from perception.evaluation.results import LEVELS, OBJECT_CLASSES_SCORED, ObjectCurve, ObjectEvaluation
from perception.reports.object3d import errors_of, sections_3d
from perception.reports.object_analysis import (
    BINS,
    LEVEL,
    SPLIT_LEVEL,
    FullCurve,
    OperatingPoint,
    SplitRow,
    confusion,
    frame_errors,
    full_curve,
    object_calibration,
    operating_point,
    split_scores,
)
from perception.reports.object_frames import worst_frames
from perception.reports.plots import Axis, Interval, IntervalBars, LinePlot, Series, thin
from perception.reports.reliability import calibration_figure, calibration_rows, calibration_table
from perception.reports.report import (
    Block,
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

MEASURES = ("precision", "recall", "F1")
CURVE_FIELDS = tuple(one.name for one in fields(ObjectCurve) if one.name not in ("class_name", "level"))
"""Arrays of a curve in the evidence."""


def object_report(
    evaluation: ObjectEvaluation,
    *,
    images: Path | None = None,
    facts: Mapping[str, Value] | None = None,
    score_threshold: float | None = None,
    gallery: int = 12,
) -> Report:
    """Build the report.

    Args:
        images: folder of the frames' images; by default boxes are drawn on a blank canvas.
        facts: further facts about the run (folders, split, model).
        score_threshold: the operating point; by default each class's highest F1 at `moderate`.
        gallery: number of worst frames to show.
    """
    classes = [name for name in OBJECT_CLASSES_SCORED if (name, LEVEL) in evaluation.scores]
    points = {name: operating_point(evaluation.curves[name, LEVEL], score_threshold) for name in classes}
    chosen = "highest F1 at moderate" if score_threshold is None else f"{score_threshold:g}, as given"
    all_facts: dict[str, Value] = {
        **(facts or {}),
        "frames": len(evaluation.gt.frame_names),
        "labels": len(evaluation.gt),
        "detections": len(evaluation.detections),
        "score threshold": chosen,
    }
    if evaluation.missing_frames:
        all_facts["frames without results, counted as empty"] = len(evaluation.missing_frames)
    errors = frame_errors(evaluation, points)
    sections = [_scores(evaluation, classes), _curves(evaluation, points)]
    if classes:
        sections += [
            _operating(evaluation, points),
            _confusion(evaluation, points),
            _splits(evaluation, points),
            _calibration(evaluation, classes),
        ]
    off = errors_of(evaluation, points)
    sections += sections_3d(evaluation, off, score_threshold)
    sections.append(worst_frames(evaluation, errors, images, gallery))
    cards = [Card(f"{name} AP R40", f"{evaluation.scores[name, LEVEL].ap_r40:.2f}", LEVEL) for name in classes]
    for name in OBJECT_CLASSES_SCORED:
        if (score := evaluation.scores_3d.get(("3d", name, LEVEL))) is not None:
            overlap = METRICS["3d"].minimum_overlap(name)
            cards.append(Card(f"{name} 3D AP R40", f"{score.ap_r40:.2f}", f"{LEVEL}, overlap {overlap:g}"))
    cards += [
        Card(f"{point.class_name} F1", f"{point.f1:.3f}", f"at score ≥ {point.threshold:.3g}")
        for point in points.values()
    ]
    return Report(
        task="object",
        title="KITTI object detection",
        facts=all_facts,
        cards=tuple(cards),
        sections=tuple(sections),
        warnings=evaluation.warnings,
        evidence=_evidence(evaluation, points, off),
    )


# ---------------------------------------------------------------- sections


def _scores(evaluation: ObjectEvaluation, classes: list[str]) -> Section:
    rows: list[tuple[Value, ...]] = []
    for name in classes:
        scores = [evaluation.scores[name, level] for level in LEVELS]
        rows.append((name, "AP", *(s.ap_r40 for s in scores), *(s.ap_r11 for s in scores)))
        if evaluation.has_orientation:
            rows.append((name, "AOS", *(s.aos_r40 for s in scores), *(s.aos_r11 for s in scores)))
    table = Table(
        "scores",
        "Official scores, 0 to 100",
        (
            Column("class", "Class"),
            Column("measure", "Measure"),
            *(Column(f"r40_{level}", f"R40 {level}", ".2f") for level in LEVELS),
            *(Column(f"r11_{level}", f"R11 {level}", ".2f") for level in LEVELS),
        ),
        tuple(rows),
        note="R40 and R11 are different means of the same curve, over 40 and 11 steps of recall; never compare one "
        "with the other. "
        + ("" if evaluation.has_orientation else "AOS is not scored: a result has alpha −10 (unknown)."),
    )
    counts = Table(
        "ground_truth",
        "Labels that count",
        (Column("class", "Class"), *(Column(level, level, "d") for level in LEVELS)),
        tuple((name, *(evaluation.scores[name, level].n_gt for level in LEVELS)) for name in classes),
    )
    blocks: list[Block] = [table, counts]
    silent = [name for name in OBJECT_CLASSES_SCORED if name not in classes]
    if silent:
        blocks.append(
            Paragraph(f"Not scored, because never detected (as in the official tool): {', '.join(silent)}.")
        )
    return Section("scores", "Scores", tuple(blocks))


def _curves(evaluation: ObjectEvaluation, points: Mapping[str, OperatingPoint]) -> Section:
    figures, rows = [], []
    for name, point in points.items():
        series = []
        for style, level in enumerate(LEVELS):
            score, full = evaluation.scores[name, level], full_curve(evaluation.curves[name, level])
            mark = (point.recall, point.precision) if level == LEVEL else None
            label = f"score ≥ {point.threshold:.3g}: precision {point.precision:.3f}, recall {point.recall:.3f}"
            series.append(Series(level, np.stack([full.recall, full.precision], axis=1), style, mark, label))
            for k in range(41):
                counts = (
                    (float(score.thresholds[k]), int(score.tp[k]), int(score.fp[k]), int(score.fn[k]))
                    if k < len(score.thresholds)
                    else (None, None, None, None)
                )
                aos = None if score.aos41 is None else float(score.aos41[k])
                rows.append((name, level, k / 40, float(score.precision41[k]), aos, *counts))
        ap = evaluation.scores[name, LEVEL].ap_r40
        figures.append(
            Figure(
                (
                    LinePlot(
                        f"{name}: precision over recall",
                        f"AP R40 at moderate is {ap:.2f}. The mark is the operating point: precision "
                        f"{point.precision:.3f} at recall {point.recall:.3f}.",
                        tuple(series),
                        Axis("recall"),
                        Axis("precision"),
                    ),
                ),
                f"{name}. The mark is the operating point at {LEVEL}.",
                legend_of(LEVELS),
            )
        )
    table = Table(
        "precision_recall",
        "The official 41 steps of recall",
        (
            Column("class", "Class"),
            Column("level", "Level"),
            Column("recall", "Recall", ".3f"),
            Column("precision", "Precision", ".4f"),
            Column("aos", "AOS", ".4f"),
            Column("threshold", "Score", ".4g"),
            Column("tp", "TP", "d"),
            Column("fp", "FP", "d"),
            Column("fn", "FN", "d"),
        ),
        tuple(rows),
        on_page=False,
    )
    intro = Paragraph(
        "The curve has a point for every score threshold. AP reads it at 41 steps of recall and takes, at each step, "
        "the best precision from there on. Recall that is never reached counts as precision 0."
    )
    return Section("curves", "Precision and recall", (intro, Gallery(tuple(figures)), table))


def _operating(evaluation: ObjectEvaluation, points: Mapping[str, OperatingPoint]) -> Section:
    table = Table(
        "operating_points",
        f"At the chosen score threshold, level {LEVEL}",
        (
            Column("class", "Class"),
            Column("threshold", "Score ≥", ".4g"),
            Column("precision", "Precision", ".4f"),
            Column("recall", "Recall", ".4f"),
            Column("f1", "F1", ".4f"),
            Column("tp", "TP", "d", "true positives"),
            Column("fp", "FP", "d", "false positives"),
            Column("fn", "FN", "d", "false negatives"),
        ),
        tuple((p.class_name, p.threshold, p.precision, p.recall, p.f1, p.tp, p.fp, p.fn) for p in points.values()),
    )
    curves = {name: full_curve(evaluation.curves[name, LEVEL]) for name in points}
    figures = tuple(_threshold_figure(points[name], full) for name, full in curves.items())
    rows: list[tuple[Value, ...]] = []
    for name, full in curves.items():
        kept = thin(np.stack([np.arange(len(full.thresholds)), full.f1], axis=1))[:, 0].astype(int)
        values = np.stack([full.thresholds, full.precision, full.recall, full.f1], axis=1)
        rows += [(name, *values[i].tolist()) for i in kept]
    curve_table = Table(
        "threshold_curves",
        "Precision, recall and F1 over the score threshold",
        (
            Column("class", "Class"),
            Column("threshold", "Score ≥", ".4g"),
            *(Column(name.lower(), name, ".4f") for name in MEASURES),
        ),
        tuple(rows),
        on_page=False,
    )
    return Section("operating", "Operating point", (table, Gallery(figures), curve_table))


def _threshold_figure(point: OperatingPoint, full: FullCurve) -> Figure:
    """Precision, recall and F1 of one class over the score threshold."""
    at = (point.precision, point.recall, point.f1)
    series = tuple(
        Series(label, np.stack([full.thresholds, values], axis=1), style, (point.threshold, at[style]), words)
        for style, (label, values) in enumerate(zip(MEASURES, (full.precision, full.recall, full.f1), strict=True))
        for words in [f"{label} {at[style]:.3f}"]
    )
    low, high = (float(full.thresholds[-1]), float(full.thresholds[0])) if len(full.thresholds) else (0.0, 1.0)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-6))
    plot = LinePlot(
        f"{point.class_name}: precision, recall and F1 over the score threshold",
        f"F1 is {point.f1:.3f} at a score of {point.threshold:.3g}.",
        series,
        Axis("score threshold", low, high),
        Axis("share"),
    )
    return Figure((plot,), f"{point.class_name} at {LEVEL}. The marks are the operating point.", legend_of(MEASURES))


def _confusion(evaluation: ObjectEvaluation, points: Mapping[str, OperatingPoint]) -> Section:
    found = confusion(evaluation, {name: point.threshold for name, point in points.items()})
    kept = [i for i in range(len(found.truths)) if found.counts[i].any()]
    rows = []
    for i in kept:
        counts: list[Value] = [int(v) for v in found.counts[i]]
        if found.truths[i] == "nothing":
            counts[-1] = None  # nothing there and nothing found is not counted
        rows.append((found.truths[i], *counts))
    table = Table(
        "confusion",
        "Labelled class (rows) against detected class (columns)",
        (Column("labelled", "Labelled"), *(Column(name.lower(), name, "d") for name in found.found_as)),
        tuple(rows),
        note="At the operating points, matched across classes at an overlap above 0.5, best overlap first. Labels "
        "outside moderate and detections below 25 px are left out. The row 'nothing' holds false positives. Classes "
        "that KITTI does not score are missed by a right detector, but a Van found as Car or a Person_sitting found "
        "as Pedestrian is no error in the official score.",
        shaded=True,
    )
    return Section("confusion", "Confusion between classes", (table,))


def _splits(evaluation: ObjectEvaluation, points: Mapping[str, OperatingPoint]) -> Section:
    rows = [row for point in points.values() for row in split_scores(evaluation, point)]
    figures = []
    for quantity in BINS:
        for name in points:
            chosen = [row for row in rows if row.quantity == quantity and row.class_name == name]
            figures.append(_split_figure(name, quantity, chosen))
    table = Table(
        "splits",
        "Scores by distance, box height, occlusion and truncation",
        (
            Column("class", "Class"),
            Column("by", "By"),
            Column("bin", "Bin"),
            Column("found", "Found", "d"),
            Column("missed", "Missed", "d"),
            Column("recall", "Recall", ".3f"),
            Column("recall_low", "95 % from", ".3f"),
            Column("recall_high", "to", ".3f"),
            Column("mean_iou", "Mean overlap", ".3f", "of the found ones"),
            Column("precision", "Precision", ".3f", "by the height of the detection"),
        ),
        tuple(
            (r.class_name, r.quantity, r.label, r.found, r.missed, r.recall, r.low, r.high, r.mean_iou, r.precision)
            for r in rows
        ),
        note="Precision is given for height only: a false positive has no true distance, occlusion or truncation.",
        folded=True,
    )
    intro = Paragraph(
        f"Recall at the operating points, over the labels that count at {SPLIT_LEVEL}. The line at the end of a bar "
        "is the 95 % interval (Wilson). The number at the right is the number of labels."
    )
    return Section("splits", "Where objects are missed", (intro, Gallery(tuple(figures)), table))


def _split_figure(class_name: str, quantity: str, rows: list[SplitRow]) -> Figure:
    words = "; ".join(f"{r.label}: {r.recall:.2f} of {r.found + r.missed}" for r in rows if r.found + r.missed)
    bars = tuple(
        Interval(r.label.replace(" and more", "+"), r.recall, r.low, r.high, f"{r.found + r.missed:,}") for r in rows
    )
    plot = IntervalBars(f"{class_name}: recall by {quantity}", words or "no labels", bars, Axis("recall"))
    return Figure((plot,), f"{class_name} by {quantity}")


def _calibration(evaluation: ObjectEvaluation, classes: list[str]) -> Section:
    figures: list[Figure] = []
    rows: list[tuple[Value, ...]] = []
    summary: list[tuple[Value, ...]] = []
    for name in classes:
        found = object_calibration(evaluation, name)
        figures.append(calibration_figure(name, found))
        rows += calibration_rows(name, found)
        summary.append((name, int(found.true.sum()), int(found.false.sum()), found.error))
    table = Table(
        "calibration_error",
        f"Expected calibration error, level {LEVEL}",
        (
            Column("class", "Class"),
            Column("true", "True", "d"),
            Column("false", "False", "d"),
            Column("ece", "ECE", ".4f", "mean distance between score and share of true detections"),
        ),
        tuple(summary),
        note="Scores are calibrated where the line lies on the diagonal: of all detections with score 0.8, 80 % are "
        "right. ECE is not given for scores outside 0 to 1.",
    )
    return Section(
        "calibration", "Score calibration", (table, Gallery(tuple(figures)), calibration_table(tuple(rows)))
    )


# ---------------------------------------------------------------- evidence


def _evidence(
    evaluation: ObjectEvaluation, points: Mapping[str, OperatingPoint], off: Mapping[str, BoxErrors]
) -> dict[str, np.ndarray]:
    """Arrays from which `compare` scores any weighting of the frames."""
    gt, frames = evaluation.gt, len(evaluation.gt.frame_names)
    sums = np.bincount(gt.frames, gt.boxes_xyxy.sum(axis=1), minlength=frames)
    arrays: dict[str, np.ndarray] = {
        "frame_names": np.array(gt.frame_names, dtype=str),
        "labels": np.stack([np.bincount(gt.frames, minlength=frames), sums], axis=1),
        "has_orientation": np.array(evaluation.has_orientation),
    }
    for (name, level), curve in evaluation.curves.items():
        for field in CURVE_FIELDS:
            arrays[f"{name}.{level}.{field}"] = getattr(curve, field)
    for (metric, name, level), curve in evaluation.curves_3d.items():
        for field in CURVE_FIELDS:
            arrays[f"{metric}.{name}.{level}.{field}"] = getattr(curve, field)
    for name, point in points.items():
        arrays[f"{name}.threshold"] = np.array(point.threshold)
    for name, errors in off.items():
        arrays[f"{name}.errors.frames"] = errors.frames
        arrays |= {f"{name}.errors.{what}": values for what, values in compared(errors).items()}
    return arrays
