"""The page of `perception attack`: curves by strength, every cell, and one frame before and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.arrays import U8
from perception.detector import Detector, read_outputs
from perception.formats.images import read_image
from perception.reports.images import scene
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
from perception.reports.stress import example_frame, found_figure
from perception.trust.stress import StressFrames
from training.attacks import AttackConfig, attack
from training.models.network import Network

if TYPE_CHECKING:
    from training.attack_cli import AttackCell

SCORES: dict[str, tuple[str, Callable[[AttackCell], float]]] = {
    "car_ap": ("Car AP", lambda cell: cell.car_ap),
    "pedestrian_ap": ("Pedestrian AP", lambda cell: cell.pedestrian_ap),
    "objects": ("reported a frame", lambda cell: cell.objects),
    "max_f": ("road MaxF", lambda cell: cell.max_f),
}
MEANING = {
    "disappear": "hides objects",
    "invent": "reports objects that are not there",
    "road": "breaks the road",
}


def attack_report(
    cells: Sequence[AttackCell],
    network: Network,
    detector: Detector,
    frames: StressFrames,
    config: AttackConfig,
    warnings: tuple[str, ...] = (),
) -> Report:
    """Build the report: what each attack costs by strength, and what it looks like."""
    known = [key for key, (_, score) in SCORES.items() if any(score(cell) > 0 for cell in cells)]
    sections = [_curves(cells, known), _table(cells, known)]
    if frames.objects or frames.roads:
        sections.append(_examples(cells, network, detector, frames, config))
    clean, cards = cells[0], []
    strongest = max(cell.epsilon for cell in cells)
    for cell in cells:
        key = "max_f" if cell.goal == "road" else "car_ap"
        before = SCORES[key][1](clean)
        if cell.method == "pgd" and cell.epsilon == strongest and key in known and before > 0:
            kept = 100 * SCORES[key][1](cell) / before
            cards.append(Card(f"{cell.goal}: {SCORES[key][0]} kept", f"{kept:.0f}", f"% at ε {strongest}, PGD"))
    return Report(
        task="attack",
        title="Scores under attack",
        facts={
            "object frames": len(frames.objects),
            "road frames": len(frames.roads),
            "steps of PGD": config.steps,
            "seed": config.seed,
        },
        cards=tuple(cards),
        sections=tuple(sections),
        warnings=warnings,
    )


def _curves(cells: Sequence[AttackCell], known: Sequence[str]) -> Section:
    clean = cells[0]
    strengths = sorted({cell.epsilon for cell in cells})
    kinds = list(dict.fromkeys((cell.goal, cell.method) for cell in cells[1:]))
    figures = []
    for key in known:
        label, score = SCORES[key]
        series: list[Series] = []
        for goal, method in kinds:
            if method != "noise" and (goal == "road") != (key == "max_f"):
                continue  # what an attack does beside its goal is in the table
            own = [cell for cell in cells[1:] if (cell.goal, cell.method) == (goal, method)]
            points = [(0.0, score(clean)), *((float(cell.epsilon), score(cell)) for cell in own)]
            series.append(Series(_name(goal, method), points, len(series) % 6, dots=True))
        values = [value for one in series for _, value in one.points if not math.isnan(value)]
        step = 5.0 if key == "objects" else 20.0
        top = math.ceil(max(values, default=1.0) / step + 0.01) * step
        plot = LinePlot(
            label,
            "; ".join(f"{one.label} {one.points[-1][1]:.0f} at ε {one.points[-1][0]:.0f}" for one in series),
            tuple(series),
            Axis("ε, grey levels", 0, max(strengths), tuple(strengths)),
            Axis(label, 0, top),
        )
        figures.append(Figure((plot,), label, legend_of([one.label for one in series])))
    return Section("curves", "By strength", (Gallery(tuple(figures), "even"),))


def _name(goal: str, method: str) -> str:
    return "random noise" if method == "noise" else f"{goal}, {method.upper()}"


def _table(cells: Sequence[AttackCell], known: Sequence[str]) -> Section:
    columns = (
        Column("attack", "Attack"),
        Column("epsilon", "ε", "d", "largest change of a value, grey levels of 255"),
        *(Column(key, SCORES[key][0], ".1f") for key in known),
    )
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            _name(cell.goal, cell.method) if cell.epsilon else "clean",
            cell.epsilon,
            *(SCORES[key][1](cell) for key in known),
        )
        for cell in cells
    )
    note = "AP is KITTI's, R40, moderate; MaxF is in the image. The attacker knows the weights."
    return Section(
        "cells", "Every attack", (Table("cells", "Scores by attack and strength", columns, rows, note=note),)
    )


def _examples(
    cells: Sequence[AttackCell], network: Network, detector: Detector, frames: StressFrames, config: AttackConfig
) -> Section:
    """One frame as it is, and after each goal's strongest attack; beside it the change, made visible."""
    name, path = example_frame(frames)
    clean = np.zeros((1, *detector.spec.size_hw, 3), np.uint8)
    detector.letterbox(read_image(path), clean[0])
    strongest = max(cell.epsilon for cell in cells)
    figures = []
    for goal in dict.fromkeys(cell.goal for cell in cells if cell.method != "noise"):
        changed = attack(network, clean, goal, strongest, config)
        figures.append(_found(detector, changed, f"{goal} ({MEANING[goal]}), ε {strongest}"))
        shown = 128 + (changed[0].astype(np.int16) - clean[0]) * (127 // max(1, strongest))
        words = f"the change for {goal}, {127 // max(1, strongest)} times as strong"
        figures.append(Figure((scene(np.clip(shown, 0, 255).astype(np.uint8), [], words, words),), words))
    unchanged = Gallery((_found(detector, clean, "clean"),), "wide")
    intro = Paragraph(f"Frame {name}. Boxes are what is reported above the score threshold; the tint is the road.")
    return Section("images", "Images", (intro, unchanged, Gallery(tuple(figures), "wide")))


def _found(detector: Detector, images: U8, what: str) -> Figure:
    """Draw what is found in a letterboxed image."""
    outputs: dict[str, Any] = detector.backend.run({"images": images})
    placed = detector.letterbox(images[0], np.zeros_like(images[0]))
    found, road = read_outputs(outputs, 0, placed, detector.spec.score_threshold)
    shown = images[0].copy()
    if road is not None:
        inside = road.at_frame_size() >= detector.spec.road_threshold
        shown[inside] = (0.65 * shown[inside] + np.array([90, 40, 20])).clip(0, 255).astype(np.uint8)
    return found_figure(shown, found, detector.spec.class_names, what)
