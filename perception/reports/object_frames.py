"""The worst frames of an object evaluation, with labels and detections drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perception.evaluation.results import ObjectEvaluation
from perception.reports.images import DrawnBox, corners, load_image, scene, with_images
from perception.reports.object_analysis import LEVEL, FrameErrors
from perception.reports.report import Column, Figure, Gallery, Legend, Paragraph, Section, Table

SCENE_LEGEND = (
    ("truth", "label that was found"),
    ("found", "right detection"),
    ("missed", "missed label"),
    ("false", "false positive, with its score"),
    ("ignored", "not judged"),
)
MAX_DRAWN = 120
"""Boxes drawn in one image at most."""


def worst_frames(evaluation: ObjectEvaluation, errors: FrameErrors, images: Path | None, count: int) -> Section:
    """Show the frames with the most errors, worst first."""
    names = evaluation.gt.frame_names
    order = errors.worst(len(names))
    worst, only_with_image = with_images(order, lambda frame: (images, names[frame]), count)
    figures = []
    for frame in worst:
        caption = f"{names[frame]}: {errors.missed[frame]} missed, {errors.false[frame]} false"
        image = load_image(images, names[frame])
        drawn = scene(image, _drawn(evaluation, errors, frame), f"Frame {names[frame]}", caption)
        figures.append(Figure((drawn,), caption))
    table = Table(
        "frame_errors",
        "Errors by frame, worst first",
        (Column("frame", "Frame"), Column("missed", "Missed", "d"), Column("false", "False", "d")),
        tuple((names[i], int(errors.missed[i]), int(errors.false[i])) for i in order),
        on_page=False,
    )
    if not worst:
        return Section("worst", "Worst frames", (Paragraph("No frame has an error at the operating points."), table))
    clean = len(names) - len(order)
    intro = Paragraph(
        f"Frames with the most errors at the operating points, level {LEVEL}; {clean:,} of {len(names):,} frames "
        + ("have none. Only frames that have an image are shown. " if only_with_image else "have none. ")
        + "Rest the pointer on a box to read it."
    )
    shown = Gallery(tuple(figures), "wide")
    return Section("worst", "Worst frames", (intro, Legend(SCENE_LEGEND), shown, table))


def _drawn(evaluation: ObjectEvaluation, errors: FrameErrors, frame: int) -> list[DrawnBox]:
    """List the boxes to draw in one frame."""
    gt, det = evaluation.gt, evaluation.detections
    assert det.scores is not None
    drawn: list[DrawnBox] = []
    for matches in errors.matches:
        name = matches.class_name
        for i in np.flatnonzero(gt.frames[matches.gt_rows] == frame):
            box = corners(gt.boxes_xyxy[matches.gt_rows[i]])
            label = gt.class_names[gt.class_ids[matches.gt_rows[i]]]
            if matches.is_fn[i]:
                drawn.append(DrawnBox(box, "missed", label, f"missed {label}"))
            elif matches.is_tp[i]:
                row = int(matches.gt_det_rows[i])
                words = f"{name} {det.scores[row]:.2f}, overlap {matches.gt_iou[i]:.2f}"
                drawn.append(DrawnBox(box, "truth", "", f"label {label}"))
                drawn.append(DrawnBox(corners(det.boxes_xyxy[row]), "found", "", words))
            else:
                drawn.append(DrawnBox(box, "ignored", "", f"{label}, not judged at {LEVEL}"))
        for i in np.flatnonzero(matches.is_fp & (det.frames[matches.det_rows] == frame)):
            row = int(matches.det_rows[i])
            label = f"{name} {det.scores[row]:.2f}"
            drawn.append(DrawnBox(corners(det.boxes_xyxy[row]), "false", label, f"false positive: {label}"))
    for region in np.flatnonzero(gt.is_class("DontCare") & (gt.frames == frame)):
        drawn.append(DrawnBox(corners(gt.boxes_xyxy[region]), "ignored", "", "DontCare region"))
    return drawn[:MAX_DRAWN]
