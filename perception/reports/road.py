"""The report of a road evaluation: scores, curves, calibration, and the worst images with errors in colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perception.evaluation.calibration import Calibration
from perception.evaluation.results import RoadEvaluation, RoadImage, ratio
from perception.evaluation.road import BIRDS_EYE, colour_errors, read_road_calibration, road_planes
from perception.reports.images import Photo, data_uri, load_image
from perception.reports.plots import Axis, LinePlot, Series
from perception.reports.reliability import calibration_figure, calibration_rows, calibration_table
from perception.reports.report import (
    Card,
    Column,
    Figure,
    Gallery,
    Legend,
    Paragraph,
    Report,
    Section,
    Table,
    Value,
    legend_of,
)

ERROR_LEGEND = (("tp", "road, found"), ("fn", "road, missed"), ("fp", "false road"), ("dark", "not valid"))


def road_report(
    evaluation: RoadEvaluation,
    *,
    images: Path | None = None,
    facts: Mapping[str, Value] | None = None,
    gallery: int = 12,
) -> Report:
    """Build the report.

    Args:
        images: folder of the camera images; by default errors are drawn on grey.
        facts: further facts about the run (folders, model).
        gallery: number of worst images to show.
    """
    all_facts: dict[str, Value] = {
        **(facts or {}),
        "space": "bird's-eye view" if evaluation.space == "bev" else "perspective",
        "images": len(evaluation.images),
    }
    if evaluation.missing_images:
        all_facts["images without results, counted as empty"] = len(evaluation.missing_images)
    per_image = _per_image(evaluation)
    names = ("URBAN",) if "URBAN" in evaluation.scores else tuple(evaluation.scores)
    cards = [Card(f"{name} MaxF", f"{100 * evaluation.scores[name].max_f:.2f}", "%") for name in names]
    cards += [Card(f"{name} AP", f"{100 * evaluation.scores[name].ap:.2f}", "%") for name in names]
    return Report(
        task="road",
        title="KITTI road",
        facts=all_facts,
        cards=tuple(cards),
        sections=(
            _scores(evaluation),
            _curves(evaluation),
            _calibration(evaluation),
            _worst(evaluation, per_image, images, gallery),
        ),
        warnings=evaluation.warnings,
        evidence={
            "names": np.array([image.name for image in evaluation.images], dtype=str),
            "categories": np.array([image.category for image in evaluation.images], dtype=str),
            "road": np.array([image.road_histogram for image in evaluation.images], np.int64).reshape(-1, 256),
            "other": np.array([image.other_histogram for image in evaluation.images], np.int64).reshape(-1, 256),
        },
    )


def _scores(evaluation: RoadEvaluation) -> Section:
    table = Table(
        "scores",
        "Official scores, per cent",
        (
            Column("category", "Category"),
            Column("images", "Images", "d"),
            Column("max_f", "MaxF", ".2f", "highest F1 over all thresholds"),
            Column("ap", "AP", ".2f", "mean of precision at 11 steps of recall"),
            Column("precision", "PRE", ".2f", "precision at the MaxF threshold"),
            Column("recall", "REC", ".2f"),
            Column("fpr", "FPR", ".2f", "false positives over all that is not road"),
            Column("fnr", "FNR", ".2f", "missed over all that is road"),
            Column("threshold", "Threshold", "d", "confidence 0..255 from which a pixel is road"),
        ),
        tuple(
            (
                name,
                s.n_images,
                *(100 * v for v in (s.max_f, s.ap, s.precision, s.recall, s.fpr, s.fnr)),
                s.threshold,
            )
            for name, s in evaluation.scores.items()
        ),
        note="Pixels of all images of a category are pooled, as in the official kit. MaxF is F1 at the threshold "
        "where it is highest; precision, recall, FPR and FNR are those at that threshold.",
    )
    return Section("scores", "Scores", (table,))


def _curves(evaluation: RoadEvaluation) -> Section:
    curves, over, rows = [], [], []
    for style, (name, score) in enumerate(evaluation.scores.items()):
        f1 = ratio(2 * score.precision_curve * score.recall_curve, score.precision_curve + score.recall_curve)
        label = f"{name}: MaxF {score.max_f:.4f} at threshold {score.threshold}"
        curves.append(
            Series(
                name,
                np.stack([score.recall_curve, score.precision_curve], axis=1),
                style,
                (score.recall, score.precision),
                label,
            )
        )
        over.append(
            Series(name, np.stack([np.arange(256), f1], axis=1), style, (float(score.threshold), score.max_f), label)
        )
        rows += [
            (name, k, float(score.precision_curve[k]), float(score.recall_curve[k]), float(f1[k])) for k in range(256)
        ]
    low = min((float(np.nanmin(one.points[:, 1])) for one in curves if np.isfinite(one.points).any()), default=0.0)  # type: ignore[call-overload]
    floor = max(0.0, np.floor(low * 10) / 10 - 0.1)
    best = "; ".join(f"{name}: MaxF {100 * s.max_f:.2f} %" for name, s in evaluation.scores.items())
    figures = (
        Figure(
            (LinePlot("Precision over recall", best, tuple(curves), Axis("recall"), Axis("precision", floor)),),
            "Pooled over images. The marks are the points of MaxF.",
            legend_of(tuple(evaluation.scores)),
        ),
        Figure(
            (
                LinePlot(
                    "F1 over the threshold",
                    best,
                    tuple(over),
                    Axis("threshold", 0, 255, (0, 64, 128, 192, 255)),
                    Axis("F1"),
                ),
            ),
            "F1 by confidence threshold. The marks are MaxF.",
            legend_of(tuple(evaluation.scores)),
        ),
    )
    table = Table(
        "precision_recall",
        "Precision, recall and F1 by threshold",
        (
            Column("category", "Category"),
            Column("threshold", "Threshold", "d"),
            Column("precision", "Precision", ".4f"),
            Column("recall", "Recall", ".4f"),
            Column("f1", "F1", ".4f"),
        ),
        tuple(rows),
        on_page=False,
    )
    return Section("curves", "Precision and recall", (Gallery(figures), table))


def _calibration(evaluation: RoadEvaluation) -> Section:
    road = sum((image.road_histogram for image in evaluation.images), np.zeros(256, np.int64))
    other = sum((image.other_histogram for image in evaluation.images), np.zeros(256, np.int64))
    found = histogram_calibration(road, other)
    return Section(
        "calibration",
        "Confidence calibration",
        (
            Paragraph(
                "The share of road among the valid pixels of each confidence. A calibrated map lies on the diagonal."
            ),
            calibration_figure("Road", found),
            calibration_table(tuple(calibration_rows("road", found))),
        ),
    )


def histogram_calibration(true: np.ndarray, false: np.ndarray, bins: int = 10) -> Calibration:
    """Calibration of confidences k/255 from two histograms (256,) of pixels."""
    score = np.arange(256) / 255
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, bins - 1)
    count = np.bincount(index, weights=(true + false).astype(np.float64), minlength=bins)
    is_true = np.bincount(index, weights=true.astype(np.float64), minlength=bins)
    mean = ratio(np.bincount(index, weights=score * (true + false), minlength=bins), count)
    share = ratio(is_true, count)
    error = float(np.nansum(np.abs(share - mean) * count) / count.sum()) if count.sum() else float("nan")
    return Calibration(edges, is_true.astype(np.int64), (count - is_true).astype(np.int64), mean, share, error)


def _per_image(evaluation: RoadEvaluation) -> list[tuple[RoadImage, int, int, int, float]]:
    """Return each image with TP, FP, FN and F1 at its category's threshold, worst first."""
    rows = []
    for image in evaluation.images:
        k = evaluation.scores[image.category].threshold
        tp, fp, fn = int(image.tp[k]), int(image.fp[k]), int(image.fn[k])
        f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0
        rows.append((image, tp, fp, fn, f1))
    return sorted(rows, key=lambda row: (row[4], row[0].name))


def _worst(
    evaluation: RoadEvaluation,
    per_image: list[tuple[RoadImage, int, int, int, float]],
    images: Path | None,
    count: int,
) -> Section:
    figures = []
    for image, _, fp, fn, f1 in per_image[:count]:
        caption = f"{image.name}: F1 {f1:.3f}, {fn:,} pixels missed, {fp:,} false"
        photo = _error_image(image, evaluation, images, caption)
        if photo is not None:
            figures.append(Figure((photo,), caption))
    table = Table(
        "image_errors",
        "Images, worst first",
        (
            Column("image", "Image"),
            Column("category", "Category"),
            Column("f1", "F1", ".4f"),
            Column("precision", "Precision", ".4f"),
            Column("recall", "Recall", ".4f"),
            Column("tp", "TP", ",d"),
            Column("fp", "FP", ",d"),
            Column("fn", "FN", ",d"),
        ),
        tuple(
            (
                image.name,
                image.category,
                f1,
                tp / (tp + fp) if tp + fp else float("nan"),
                tp / (tp + fn) if tp + fn else float("nan"),
                tp,
                fp,
                fn,
            )
            for image, tp, fp, fn, f1 in per_image
        ),
        folded=True,
    )
    intro = Paragraph("The images with the lowest F1 at their category's threshold, errors in colour.")
    shown = Gallery(tuple(figures), "narrow" if evaluation.space == "bev" else "wide")
    return Section("worst", "Worst images", (intro, Legend(ERROR_LEGEND), shown, table))


def _error_image(image: RoadImage, evaluation: RoadEvaluation, images: Path | None, caption: str) -> Photo | None:
    """Paint errors into an image; None where it was not read from files."""
    if image.gt_path is None:
        return None
    valid, road, confidence = road_planes(image, evaluation.space)
    backdrop = load_image(images, camera_name(image.name))
    if backdrop is not None and evaluation.space == "bev" and image.calibration_path is not None:
        backdrop = BIRDS_EYE.view(backdrop, BIRDS_EYE.pixels(read_road_calibration(image.calibration_path)))
    if backdrop is not None and backdrop.shape[:2] != road.shape:
        backdrop = None  # its size differs from its ground truth's
    painted = colour_errors(valid, road, confidence, evaluation.scores[image.category].threshold, backdrop)
    return Photo(data_uri(painted), caption)


def camera_name(result_name: str) -> str:
    """um_road_000012 → um_000012: KITTI names camera images without the lane or road in the middle."""
    return result_name.replace("_road_", "_").replace("_lane_", "_")
