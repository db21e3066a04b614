"""The part of an object report about 3-D boxes: BEV and 3D scores, errors by distance, and scenes from above."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from perception.boxes3d import corners_bev
from perception.evaluation.box_errors import BoxErrors, box_errors, by_distance, summarise
from perception.evaluation.object3d import METRICS, boxes_xyzlhwr, has_box
from perception.evaluation.results import LEVELS, METRICS_3D, OBJECT_CLASSES_SCORED, ObjectEvaluation, ObjectMatches
from perception.formats.kitti_table import ObjectTable
from perception.reports.object_analysis import (
    LEVEL,
    SPLIT_LEVEL,
    FrameErrors,
    OperatingPoint,
    frame_errors,
    full_curve,
    operating_point,
)
from perception.reports.plots import Axis, LinePlot, PlanBox, PlanView, Series
from perception.reports.report import (
    Block,
    Column,
    Figure,
    Gallery,
    Legend,
    Paragraph,
    Section,
    Table,
    Value,
    legend_of,
)

PLAN_VIEWS = 6
"""Frames shown from above."""
PLAN_LEGEND = (
    ("truth", "label that was found"),
    ("found", "right detection"),
    ("missed", "missed label"),
    ("false", "false positive"),
)
ERROR_KEYS = (
    *("depth_median", "depth_p90", "depth_bias", "lateral_median", "lateral_p90", "heading_median", "heading_p90"),
    *("heading_within_15", "flipped", "length_median", "length_p90", "width_median", "width_p90"),
    *("height_median", "height_p90"),
)


def errors_of(evaluation: ObjectEvaluation, points: Mapping[str, OperatingPoint]) -> dict[str, BoxErrors]:
    """Return the errors of each class's 3-D boxes at its operating point in 2D; of classes that have any."""
    if not evaluation.scores_3d:
        return {}
    errors = {
        name: box_errors(evaluation.gt, evaluation.detections, name, SPLIT_LEVEL, point.threshold)
        for name, point in points.items()
        if np.isfinite(point.threshold)
    }
    return {name: one for name, one in errors.items() if len(one)}


def sections_3d(
    evaluation: ObjectEvaluation, errors: Mapping[str, BoxErrors], score_threshold: float | None
) -> list[Section]:
    """Build the sections about 3-D boxes; none where results carry no such boxes.

    Args:
        evaluation: what was scored.
        errors: of `errors_of`.
        score_threshold: the operating point; by default each class's highest F1 in BEV.
    """
    if not evaluation.scores_3d:
        return []
    sections = [_scores(evaluation)]
    if errors:
        sections.append(_errors(errors))
    sections.append(_from_above(evaluation, score_threshold))
    return sections


def _classes(evaluation: ObjectEvaluation, metric: str) -> list[str]:
    return [name for name in OBJECT_CLASSES_SCORED if (metric, name, LEVEL) in evaluation.scores_3d]


# ---------------------------------------------------------------- scores


def _scores(evaluation: ObjectEvaluation) -> Section:
    rows: list[tuple[Value, ...]] = []
    for class_name in OBJECT_CLASSES_SCORED:
        for metric, how in METRICS.items():
            if (metric, class_name, LEVEL) in evaluation.scores_3d:
                scores = [evaluation.scores_3d[metric, class_name, level] for level in LEVELS]
                numbers = (*(s.ap_r40 for s in scores), *(s.ap_r11 for s in scores))
                rows.append((class_name, f"{how.kind} AP", how.minimum_overlap(class_name), *numbers))
    table = Table(
        "scores_3d",
        "Official scores of 3-D boxes, 0 to 100",
        (
            Column("class", "Class"),
            Column("measure", "Measure"),
            Column("overlap", "Overlap", "g", "overlap that a match must exceed"),
            *(Column(f"r40_{level}", f"R40 {level}", ".2f") for level in LEVELS),
            *(Column(f"r11_{level}", f"R11 {level}", ".2f") for level in LEVELS),
        ),
        tuple(rows),
        note="BEV compares areas on the ground, 3D volumes. The benchmark ranks by 3D AP R40 moderate at the higher "
        "overlap. Difficulty follows the 2D box of the label.",
    )
    figures = []
    for class_name in _classes(evaluation, "bev"):
        found = [metric for metric in METRICS_3D if (metric, class_name, LEVEL) in evaluation.scores_3d]
        labels = tuple(METRICS[metric].label(class_name) for metric in found)
        curves = [full_curve(evaluation.curves_3d[metric, class_name, LEVEL]) for metric in found]
        series = tuple(
            Series(label, np.stack([curve.recall, curve.precision], axis=1), style)
            for style, (label, curve) in enumerate(zip(labels, curves, strict=True))
        )
        words = "; ".join(
            f"{label}: AP R40 {evaluation.scores_3d[metric, class_name, LEVEL].ap_r40:.2f}"
            for metric, label in zip(found, labels, strict=True)
        )
        plot = LinePlot(
            f"{class_name}: precision over recall of 3-D boxes", words, series, Axis("recall"), Axis("precision")
        )
        figures.append(Figure((plot,), f"{class_name} at {LEVEL}.", legend_of(labels)))
    return Section("boxes", "3-D boxes", (table, Gallery(tuple(figures))))


# ---------------------------------------------------------------- errors by distance


def _errors(errors: Mapping[str, BoxErrors]) -> Section:
    rows: list[tuple[Value, ...]] = []
    figures: list[Figure] = []
    for class_name, one in errors.items():
        binned = by_distance(one)
        for (low, high), count, found in binned:
            label = f"{low:.0f}–{high:.0f} m" if np.isfinite(high) else f"{low:.0f} m and more"
            rows.append((class_name, label, count, *(found[key] for key in ERROR_KEYS)))
        rows.append((class_name, "all", len(one), *(summarise(one)[key] for key in ERROR_KEYS)))
        figures += [_error_figure(class_name, binned, *kind) for kind in ERROR_PLOTS]
    table = Table(
        "box_errors",
        "Errors of 3-D boxes by distance",
        (
            Column("class", "Class"),
            Column("distance", "Distance"),
            Column("objects", "Objects", "d"),
            *(Column(key, _column_label(key), ".1f" if key.startswith("heading_") else ".2f") for key in ERROR_KEYS),
        ),
        tuple(rows),
        folded=True,
    )
    intro = Paragraph(
        f"Labels that count at {SPLIT_LEVEL} and were found in 2D at the operating point, against their results. "
        "Solid lines are medians, dashed lines 90th percentiles. Stretches of fewer than "
        f"{LEAST_IN_BIN} objects are left out."
    )
    return Section("errors", "Place, heading and size", (intro, Gallery(tuple(figures)), table))


ERROR_PLOTS = (
    ("place", "error, m", (("depth", "ahead"), ("lateral", "to the side"))),
    ("heading", "error, degrees", (("heading", "heading"),)),
    ("size", "error, m", (("length", "length"), ("width", "width"), ("height", "height"))),
)
"""Name, axis, and the errors shown, by class."""
LEAST_IN_BIN = 5


def _column_label(key: str) -> str:
    """'depth_p90' → 'depth 90 %, m'."""
    if key == "heading_within_15":
        return "within 15°"
    if key == "flipped":
        return "beyond 90°"
    name, kind = key.split("_")
    words = {"median": "median", "p90": "90 %", "bias": "bias"}[kind]
    return f"{name} {words}, {'°' if name == 'heading' else 'm'}"


def _error_figure(
    class_name: str,
    binned: list[tuple[tuple[float, float], int, Mapping[str, float]]],
    what: str,
    axis: str,
    shown: tuple[tuple[str, str], ...],
) -> Figure:
    """Median and 90th percentile over distance; of sizes the median alone."""
    series: list[Series] = []
    labels: list[str] = []
    kept = [(low, found) for (low, _), count, found in binned if count >= LEAST_IN_BIN]
    for style, (key, label) in enumerate(shown):
        for kind, words in (("median", "median"), ("p90", "90 %")) if what != "size" else (("median", "median"),):
            points = [(low + 5, found[f"{key}_{kind}"]) for low, found in kept]
            place = 3 * (style % 2) + (kind == "p90") if what != "size" else style
            series.append(Series(f"{label}, {words}", points, place, dots=True))
            labels.append(f"{label}, {words}")
    top = max([y for one in series for _, y in one.points] + [1e-3]) * 1.08
    spoken = "; ".join(
        f"{low:.0f} m: " + ", ".join(f"{label} {found[f'{key}_median']:.2f}" for key, label in shown)
        for low, found in kept
    )
    plot = LinePlot(
        f"{class_name}: error of {what} by distance",
        f"Medians from {spoken}." if kept else "Too few objects.",
        tuple(series),
        Axis("distance ahead, m", 0, 70),
        Axis(axis, 0, top),
    )
    legend = tuple((f"s{one.style}", label) for one, label in zip(series, labels, strict=True))
    return Figure((plot,), f"{class_name}: {what}.", legend)


# ---------------------------------------------------------------- seen from above


def _from_above(evaluation: ObjectEvaluation, score_threshold: float | None) -> Section:
    points = {
        name: operating_point(evaluation.curves_3d["bev", name, LEVEL], score_threshold)
        for name in _classes(evaluation, "bev")
    }
    errors = frame_errors(evaluation, points, "bev")
    names = evaluation.gt.frame_names
    figures = []
    for frame in errors.worst(PLAN_VIEWS):
        boxes = plan_boxes(evaluation, errors, frame)
        words = f"{names[frame]}: {errors.missed[frame]} missed, {errors.false[frame]} false"
        figures.append(Figure((PlanView(f"Frame {names[frame]} from above", words, tuple(boxes)),), words))
    at = ", ".join(f"{name} at a score of {point.threshold:.3g}" for name, point in points.items())
    blocks: list[Block] = [
        Paragraph(
            f"Frames with the most errors in BEV at {LEVEL}: {at}. The line in a box points to its front. Rings are "
            "10 m apart; boxes beyond the edges are not drawn."
        ),
        Legend(PLAN_LEGEND),
        Gallery(tuple(figures)),
    ]
    if not figures:
        blocks = [Paragraph(f"No frame has an error in BEV at {LEVEL}: {at}.")]
    return Section("above", "Seen from above", tuple(blocks))


def plan_boxes(evaluation: ObjectEvaluation, errors: FrameErrors, frame: int) -> list[PlanBox]:
    """The boxes of one frame, those of labels that count and of the results that matter."""
    gt, det = evaluation.gt, evaluation.detections
    boxes: list[PlanBox] = []
    for matches in errors.matches:
        boxes += _plan_labels(gt, matches, frame)
        boxes += _plan_results(det, matches, frame)
    return boxes


def _plan_labels(gt: ObjectTable, matches: ObjectMatches, frame: int) -> list[PlanBox]:
    boxes = []
    for i in np.flatnonzero((gt.frames[matches.gt_rows] == frame) & (matches.is_fn | matches.is_tp)):
        row, missed = int(matches.gt_rows[i]), bool(matches.is_fn[i])
        words = f"{'missed ' if missed else 'label '}{matches.class_name}, {gt.location_cam2[row, 2]:.1f} m"
        boxes.append(_plan_box(gt, row, "missed" if missed else "ignored", True, words))
    return boxes


def _plan_results(det: ObjectTable, matches: ObjectMatches, frame: int) -> list[PlanBox]:
    assert det.scores is not None
    usable = has_box(det, "BEV")
    found = [(int(row), "found") for row in matches.gt_det_rows[matches.is_tp]]
    found += [(int(row), "false") for row in matches.det_rows[matches.is_fp]]
    boxes = []
    for row, kind in found:
        if det.frames[row] == frame and usable[row]:
            words = f"{'false positive ' if kind == 'false' else ''}{matches.class_name} {det.scores[row]:.2f}"
            boxes.append(_plan_box(det, row, kind, False, words))
    return boxes


def _plan_box(table: ObjectTable, row: int, colour: str, dashed: bool, label: str) -> PlanBox:
    """A row of a table seen from above."""
    corners = corners_bev(boxes_xyzlhwr(table)[row : row + 1])[0]
    front = corners[:2].mean(axis=0)  # the side at positive length
    return PlanBox(
        tuple((float(x), float(z)) for x, z in corners), (float(front[0]), float(front[1])), colour, dashed, label
    )
