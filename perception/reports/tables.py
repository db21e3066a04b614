"""Format scores as text for people and as plain dictionaries for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perception.evaluation.object3d import METRICS
from perception.evaluation.results import (
    LEVELS,
    OBJECT_CLASSES_SCORED,
    ObjectEvaluation,
    ObjectScore,
    RoadEvaluation,
    TrackingEvaluation,
)

TRACKING_COLUMNS = (
    *("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1", "CLR_Re", "CLR_Pr"),
    *("IDSW", "Frag", "MT", "PT", "ML", "CLR_TP", "CLR_FP", "CLR_FN"),
)
_COUNTS = {"IDSW", "Frag", "MT", "PT", "ML", "CLR_TP", "CLR_FP", "CLR_FN"}


def align(rows: Sequence[Sequence[str]]) -> str:
    """Align rows of cells: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def object_text(evaluation: ObjectEvaluation) -> str:
    """Format AP and AOS, R40 beside R11; BEV and 3D AP, each with its overlap, where results carry 3-D boxes."""
    rows = [["per cent", *(f"{points} {level}" for points in ("R40", "R11") for level in LEVELS)]]
    for class_name in OBJECT_CLASSES_SCORED:
        scores = [evaluation.scores.get((class_name, level)) for level in LEVELS]
        for measure in ("ap", "aos"):
            fields = (f"{measure}_r40", f"{measure}_r11")
            cells = [_percent(None if s is None else getattr(s, field)) for field in fields for s in scores]
            rows.append([f"{class_name} {measure.upper()}", *cells])
    for class_name in OBJECT_CLASSES_SCORED:
        for metric, how in METRICS.items() if ("bev", class_name, LEVELS[0]) in evaluation.scores_3d else ():
            found = [evaluation.scores_3d.get((metric, class_name, level)) for level in LEVELS]
            numbers = [None if s is None else getattr(s, field) for field in ("ap_r40", "ap_r11") for s in found]
            cells = [_percent(number) for number in numbers]
            rows.append([f"{class_name} {how.kind} AP {how.minimum_overlap(class_name):g}", *cells])
    return (
        f"objects: {len(evaluation.gt.frame_names):,} frames, {len(evaluation.gt):,} labels, "
        f"{len(evaluation.detections):,} detections\n\n{align(rows)}"
    )


def object_json(evaluation: ObjectEvaluation) -> dict[str, Any]:
    """Return every number of every class and level."""
    return {
        "task": "object",
        "frames": len(evaluation.gt.frame_names),
        "labels": len(evaluation.gt),
        "detections": len(evaluation.detections),
        "scores": {
            class_name: {
                level: {
                    **_score_json(s),
                    "AOS_R40": s.aos_r40,
                    "AOS_R11": s.aos_r11,
                    "aos41": None if s.aos41 is None else s.aos41.tolist(),
                }
                for level in LEVELS
                for s in [evaluation.scores[class_name, level]]
            }
            for class_name in OBJECT_CLASSES_SCORED
            if (class_name, LEVELS[0]) in evaluation.scores
        },
        "scores_3d": {
            metric: {
                class_name: {
                    "overlap": how.minimum_overlap(class_name),
                    **{level: _score_json(evaluation.scores_3d[metric, class_name, level]) for level in LEVELS},
                }
                for class_name in OBJECT_CLASSES_SCORED
                if (metric, class_name, LEVELS[0]) in evaluation.scores_3d
            }
            for metric, how in METRICS.items()
        }
        if evaluation.scores_3d
        else {},
        "missing_frames": list(evaluation.missing_frames),
        "warnings": list(evaluation.warnings),
    }


def _score_json(score: ObjectScore) -> dict[str, Any]:
    return {
        "AP_R40": score.ap_r40,
        "AP_R11": score.ap_r11,
        "n_gt": score.n_gt,
        "precision41": score.precision41.tolist(),
        "thresholds": score.thresholds.tolist(),
        "tp": score.tp.tolist(),
        "fp": score.fp.tolist(),
        "fn": score.fn.tolist(),
    }


def road_text(evaluation: RoadEvaluation) -> str:
    """Format one line per category."""
    rows = [["per cent", "images", "MaxF", "AP", "precision", "recall", "FPR", "FNR", "threshold"]]
    for name, score in evaluation.scores.items():
        values = (score.max_f, score.ap, score.precision, score.recall, score.fpr, score.fnr)
        rows.append([name, str(score.n_images), *(_percent(100 * v) for v in values), f"{score.threshold}/255"])
    space = "bird's-eye view, as the server scores" if evaluation.space == "bev" else "perspective"
    return f"road, {space}\n\n{align(rows)}"


def road_json(evaluation: RoadEvaluation) -> dict[str, Any]:
    """Return every number of every category, as fractions."""
    return {
        "task": "road",
        "space": evaluation.space,
        "scores": {
            name: {
                "MaxF": s.max_f,
                "AP": s.ap,
                "precision": s.precision,
                "recall": s.recall,
                "FPR": s.fpr,
                "FNR": s.fnr,
                "threshold": s.threshold,
                "images": s.n_images,
                "tp": s.tp,
                "fp": s.fp,
                "fn": s.fn,
                "tn": s.tn,
                "precision_curve": s.precision_curve.tolist(),
                "recall_curve": s.recall_curve.tolist(),
            }
            for name, s in evaluation.scores.items()
        },
        "missing_images": list(evaluation.missing_images),
        "warnings": list(evaluation.warnings),
    }


def tracking_text(evaluation: TrackingEvaluation, sequences: bool = True) -> str:
    """Format one table per class: each sequence, and all combined."""
    blocks = [f"tracking: {len(evaluation.n_frames)} sequences, {sum(evaluation.n_frames.values()):,} frames"]
    for class_name, combined in evaluation.combined.items():
        rows = [[f"{class_name}, per cent", *(name.removeprefix("CLR_") for name in TRACKING_COLUMNS)]]
        parts = [(name, evaluation.sequences[name, class_name].score) for name in evaluation.n_frames]
        for name, score in [*(parts if sequences else []), ("combined", combined)]:
            cells = [
                f"{score.values[column]:.0f}" if column in _COUNTS else _percent(100 * score.values[column])
                for column in TRACKING_COLUMNS
            ]
            rows.append([name, *cells])
        blocks.append(align(rows))
    return "\n\n".join(blocks)


def tracking_json(evaluation: TrackingEvaluation) -> dict[str, Any]:
    """Return every number of every sequence and class, as fractions and counts, by TrackEval's names."""
    return {
        "task": "tracking",
        "frames": dict(evaluation.n_frames),
        "combined": {
            class_name: {**score.values, "by_alpha": {k: v.tolist() for k, v in score.by_alpha.items()}}
            for class_name, score in evaluation.combined.items()
        },
        "sequences": {
            name: {
                class_name: evaluation.sequences[name, class_name].score.values for class_name in evaluation.combined
            }
            for name in evaluation.n_frames
        },
        "missing_sequences": list(evaluation.missing_sequences),
        "warnings": list(evaluation.warnings),
    }
