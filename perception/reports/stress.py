"""The report of `perception stress`: what each disturbance costs, curves by severity, and images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perception.arrays import U8
from perception.detector import Finder
from perception.formats.images import read_image
from perception.reports.images import DrawnBox, corners, scene
from perception.reports.plots import Axis, LinePlot, Series
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
from perception.trust.corruptions import CORRUPTIONS, SEVERITIES
from perception.trust.stress import (
    CLEAN,
    Cell,
    StressFrames,
    mean_under_corruption,
    score_names,
    score_of,
)
from perception.types import Detections

SHOWN_SEVERITY = 3


def stress_report(
    cells: Sequence[Cell],
    detector: Finder | None,
    frames: StressFrames,
    warnings: tuple[str, ...] = (),
    seed: int = 0,
) -> Report:
    """Build the report.

    Args:
        cells: all finished ones.
        detector: draws what it finds in an example of each kind; None leaves the images out.
        frames: what was scored.
        warnings: notes about the run.
        seed: of the disturbances.
    """
    names = score_names(cells)
    disturbed = [cell for cell in cells if cell.kind != CLEAN]
    sums = {name: mean_under_corruption(cells, name) for name in names}
    sections = [_summary(sums), _by_kind(cells, names), _curves(cells, names), _noticed(cells)]
    if detector is not None and (frames.objects or frames.roads):
        sections.append(_examples(cells, detector, frames, seed))
    return Report(
        task="stress",
        title="Scores under disturbance",
        facts={
            "object frames": len(frames.objects),
            "road frames": len(frames.roads),
            "tracked frames": len(frames.sequence),
            "cells": len(disturbed),
            "kinds": len({cell.kind for cell in disturbed}),
            "seed": seed,
        },
        cards=tuple(Card(f"{name}: kept", f"{100 * sums[name][2]:.0f}", "% under disturbance") for name in names),
        sections=tuple(sections),
        warnings=warnings,
    )


def _label(name: str) -> str:
    return "Road MaxF" if name == "road" else name if name.startswith("HOTA") else f"{name} AP"


def _key(name: str) -> str:
    return name.lower().replace(" ", "_")


def _summary(sums: dict[str, tuple[float, float, float]]) -> Section:
    table = Table(
        "summary",
        "Mean performance under corruption, per cent",
        (
            Column("score", "Score"),
            Column("clean", "Clean", ".1f"),
            Column("mean", "Disturbed", ".1f", "mean over severities, then over kinds (mPC)"),
            Column("ratio", "Kept", ".1f", "disturbed over clean (rPC)"),
        ),
        tuple((_label(name), clean, mean, 100 * ratio) for name, (clean, mean, ratio) in sums.items()),
        note="AP is KITTI's, R40, moderate; MaxF is in the image. With few objects KITTI's rule caps AP at about "
        "n/40 of full marks, clean and disturbed alike; read the ratio.",
    )
    return Section("summary", "Summary", (table,))


def _by_kind(cells: Sequence[Cell], names: Sequence[str]) -> Section:
    columns = (
        Column("kind", "Disturbance"),
        Column("family", "Family"),
        Column("severity", "Severity", "d"),
        *(Column(_key(name), _label(name), ".1f") for name in names),
        Column("events", "Noticed as"),
    )
    ordered = sorted(cells, key=lambda cell: (cell.kind != CLEAN, _rank(cell.kind), cell.severity))
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            cell.kind,
            cell.family,
            cell.severity,
            *(score_of(cell, name) for name in names),
            ", ".join(cell.events) or "–",
        )
        for cell in ordered
    )
    return Section(
        "cells", "Every cell", (Table("cells", "Scores by kind and severity", columns, rows, folded=True),)
    )


def _rank(kind: str) -> int:
    return list(CORRUPTIONS).index(kind) if kind in CORRUPTIONS else -1


def _curves(cells: Sequence[Cell], names: Sequence[str]) -> Section:
    figures = []
    clean = next((cell for cell in cells if cell.kind == CLEAN), None)
    families = list(dict.fromkeys(cell.family for cell in cells if cell.family))
    for name in names:
        for family in families:
            kinds = [kind for kind in CORRUPTIONS if CORRUPTIONS[kind].family == family]
            series: list[Series] = []
            for kind in kinds:
                points = [(0.0, score_of(clean, name))] if clean is not None else []
                own = {cell.severity: score_of(cell, name) for cell in cells if cell.kind == kind}
                points += [(float(severity), own[severity]) for severity in SEVERITIES if severity in own]
                if own:
                    series.append(Series(kind, points, len(series) % 6, dots=True))
            title = f"{_label(name)}: {family}"
            top = max([100.0 * math.ceil(score_of(clean, name) / 100)] if clean is not None else [100.0])
            plot = LinePlot(
                title,
                "; ".join(f"{one.label} {one.points[-1][1]:.0f} at {one.points[-1][0]:.0f}" for one in series),
                tuple(series),
                Axis("severity", 0, 5, (0, 1, 2, 3, 4, 5)),
                Axis(_label(name), 0, top),
            )
            figures.append(Figure((plot,), title, legend_of([one.label for one in series])))
    return Section("curves", "By severity", (Gallery(tuple(figures), "even"),))


def _noticed(cells: Sequence[Cell]) -> Section:
    rows: list[tuple[Value, ...]] = []
    for kind in (CLEAN, *CORRUPTIONS):
        own = sorted((cell for cell in cells if cell.kind == kind), key=lambda cell: cell.severity)
        if own:
            seen = [cell.severity for cell in own if cell.events]
            events = sorted({event for cell in own for event in cell.events})
            rows.append((kind, len(own), len(seen), min(seen) if seen else None, ", ".join(events) or "–"))
    table = Table(
        "noticed",
        "What the health monitor reports",
        (
            Column("kind", "Disturbance"),
            Column("cells", "Cells", "d"),
            Column("noticed", "Noticed", "d"),
            Column("from", "From severity", "d"),
            Column("events", "As"),
        ),
        tuple(rows),
        note="The monitor sees a dozen healthy frames at 10 Hz, then the disturbed ones. An event in the row "
        "'clean' is a false alarm.",
    )
    return Section("noticed", "Noticed", (table,))


def _examples(cells: Sequence[Cell], detector: Finder, frames: StressFrames, seed: int) -> Section:
    """One image of each kind, with the boxes that are found above the score threshold."""
    name, path = example_frame(frames)
    image = read_image(path)
    kinds = list(dict.fromkeys(cell.kind for cell in cells if cell.kind != CLEAN))
    figures = []
    for kind in (CLEAN, *sorted(kinds, key=_rank)):
        own = [cell.severity for cell in cells if cell.kind == kind]
        severity = min(own, key=lambda s: abs(s - SHOWN_SEVERITY), default=0)
        shown = image if kind == CLEAN else CORRUPTIONS[kind](image, severity, name, seed)
        detections, _ = detector(shown)
        what = f"{kind}, severity {severity}" if severity else "clean"
        found = detections[detections.scores >= detector.spec.score_threshold]
        figures.append(found_figure(shown, found, detector.spec.class_names, what))
    intro = Paragraph(f"Frame {name}. Boxes are what the network reports above its score threshold.")
    return Section("images", "Images", (intro, Gallery(tuple(figures), "wide")))


def found_figure(image_bgr: U8, found: Detections, class_names: Sequence[str], what: str) -> Figure:
    """Draw what is found in an image (H, W, 3); the caption says how much."""
    boxes = [
        DrawnBox(corners(box), "found", class_names[int(class_id)])
        for box, class_id in zip(found.boxes_xyxy, found.class_ids, strict=True)
    ]
    words = f"{what}: {len(boxes)} objects"
    return Figure((scene(np.ascontiguousarray(image_bgr), boxes, words, words),), words)


def example_frame(frames: StressFrames) -> tuple[str, Path]:
    """The object frame with the most label rows, or any road frame."""
    if frames.objects:
        name, path, _ = max(frames.objects, key=lambda one: len(one[2].read_text().splitlines()))
        return name, path
    return frames.roads[0][0], frames.roads[0][1]


def stress_text(cells: Sequence[Cell]) -> str:
    """The summary and the means of each kind, for a terminal."""
    names = score_names(cells)
    width = max((len(kind) for kind in CORRUPTIONS), default=5)
    heads = [_label(name) for name in names]
    lines = [" ".join([f"{'':<{width}}", *(f"{head:>13}" for head in heads), "  noticed"])]

    def line(label: str, values: Sequence[float], noticed: str = "") -> str:
        cells_text = (f"{'–' if math.isnan(value) else format(value, '.1f'):>13}" for value in values)
        return " ".join([f"{label:<{width}}", *cells_text, f"  {noticed}"]).rstrip()

    for kind in (CLEAN, *CORRUPTIONS):
        own = [cell for cell in cells if cell.kind == kind]
        if own:
            means = [float(np.mean([score_of(cell, name) for cell in own])) for name in names]
            seen = sum(bool(cell.events) for cell in own)
            events = sorted({event for cell in own for event in cell.events})
            lines.append(line(kind, means, f"{seen} of {len(own)} {', '.join(events)}"))
    sums = [mean_under_corruption(cells, name) for name in names]
    lines.append(line("disturbed", [mean for _, mean, _ in sums]))
    lines.append(line("kept, %", [100 * ratio for _, _, ratio in sums]))
    return "\n".join(lines)
