"""A comparison of two runs as text, as JSON and as a page."""

from __future__ import annotations

import math

from perception.evaluation.bootstrap import Difference
from perception.reports.compare import Comparison
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
    legend_of,
)

SHOWN_FRAMES = 30

VERDICTS = {
    "real": "the 95 % interval excludes zero, also after Holm's correction for the number of comparisons",
    "perhaps": "the 95 % interval excludes zero, but not after the correction",
    "not shown": "the interval contains zero: these frames do not show a difference",
    "equal": "no draw of frames differs",
}
CARD_NOTES = {
    "real": "after correction",
    "perhaps": "before correction only",
    "not shown": "chance explains them",
    "equal": "no draw differs",
}
"""Above the counts of verdicts."""


def text_table(comparison: Comparison) -> str:
    """Format the differences for a terminal."""
    rows = [("", "A", "B", "B − A", "95 % interval", "verdict")]
    for one in comparison.differences:
        interval = f"{one.low:+.2f} … {one.high:+.2f}" if math.isfinite(one.low) else "–"
        numbers = (_shown(one.a, ".2f"), _shown(one.b, ".2f"), _shown(one.difference, "+.2f"))
        rows.append((one.name, *numbers, interval, one.verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        f"A: {comparison.name_a}",
        f"B: {comparison.name_b}",
        f"{comparison.task}, {comparison.frames:,} frames; {how(comparison)}",
        "",
    ]
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [
            cell.rjust(width) for cell, width in zip(row[1:5], widths[1:5], strict=True)
        ]
        lines.append("  ".join([*cells, row[5]]).rstrip())
    lines += ["", *left_out] if (left_out := left_out_of(comparison)) else []
    return "\n".join(lines) + "\n"


def left_out_of(comparison: Comparison) -> list[str]:
    """Name the numbers that only one run has: a class that a run never detects has no curve to compare."""
    sides = (("A", comparison.only_a), ("B", comparison.only_b))
    return [
        f"only {side} has a score for these, so they are not compared: {', '.join(names)}"
        for side, names in sides
        if names
    ]


def _shown(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def how(comparison: Comparison) -> str:
    """Describe the bootstrap."""
    return (
        f"paired bootstrap, {comparison.resamples:,} draws of {comparison.units:,} {comparison.unit_name}, "
        f"seed {comparison.seed}"
    )


def comparison_report(comparison: Comparison) -> Report:
    """Build the report of a comparison."""
    cards = [
        Card(word, str(sum(one.verdict == word for one in comparison.differences)), note)
        for word, note in CARD_NOTES.items()
    ]
    return Report(
        task="compare",
        title=f"{comparison.name_b} against {comparison.name_a}",
        facts={
            "A": comparison.name_a,
            "B": comparison.name_b,
            "task": comparison.task,
            "frames": comparison.frames,
            "bootstrap": how(comparison),
        },
        cards=tuple(cards),
        sections=(_differences(comparison), *_curves(comparison), *_frames(comparison)),
    )


def _differences(comparison: Comparison) -> Section:
    table = Table(
        "differences",
        "Every number: scores from 0 to 100, errors in their units",
        (
            Column("name", "Number"),
            Column("a", "A", ".2f"),
            Column("b", "B", ".2f"),
            Column("difference", "B − A", "+.2f"),
            Column("low", "95 % from", "+.2f"),
            Column("high", "to", "+.2f"),
            Column("p", "p", ".3f", "two-sided, of this number alone"),
            Column("p_holm", "p, corrected", ".3f", "after Holm's correction for the number of comparisons"),
            Column("verdict", "Verdict"),
        ),
        tuple(
            (d.name, d.a, d.b, d.difference, d.low, d.high, d.p, d.p_holm, d.verdict) for d in comparison.differences
        ),
        note="; ".join(f"{word}: {meaning}" for word, meaning in VERDICTS.items()) + ".",
    )
    groups = _grouped(tuple(one for one in comparison.differences if one.verdict != "equal"))
    figures = [_forest(title, rows) for title, rows in groups.items()]
    intro = Paragraph(
        "Each draw picks frames at random, with repetition, and scores both runs on them by the official rule. The "
        "line holds 95 % of the draws of B − A. Right of zero, B is better; for errors of 3-D boxes, left of zero."
    )
    alone = [Paragraph(text[:1].upper() + text[1:] + ".") for text in left_out_of(comparison)]
    return Section("differences", "Which differences are real", (intro, *alone, table, Gallery(tuple(figures))))


def _grouped(differences: tuple[Difference, ...]) -> dict[str, list[Difference]]:
    """Group by the first word, which is the class or category."""
    groups: dict[str, list[Difference]] = {}
    for one in differences:
        groups.setdefault(one.name.split()[0], []).append(one)
    return groups


def _forest(title: str, rows: list[Difference]) -> Figure:
    finite = [v for d in rows for v in (d.low, d.high, d.difference) if math.isfinite(v)]
    reach = max([abs(v) for v in finite] + [0.1]) * 1.05
    words = "; ".join(f"{d.name} {d.difference:+.2f} ({d.verdict})" for d in rows)
    labels = [d.name.split(maxsplit=1)[-1].replace(" R40", "") for d in rows]
    bars = tuple(
        Interval(label, d.difference, d.low, d.high, d.verdict) for label, d in zip(labels, rows, strict=True)
    )
    label_width = max(92, 16 + 6 * max(map(len, labels)))
    axis = Axis("B − A", -reach, reach)
    plot = IntervalBars(f"{title}: B − A", words, bars, axis, zero_line=True, label_width=label_width)
    return Figure((plot,), f"{title}: difference with its 95 % interval; AP and AOS are R40.")


def _curves(comparison: Comparison) -> list[Section]:
    figures = []
    for name, (a, b) in comparison.curves.items():
        plot = LinePlot(
            f"{name}: precision over recall",
            "Both runs.",
            (Series(comparison.name_a, a, 0), Series(comparison.name_b, b, 1)),
            Axis("recall"),
            Axis("precision"),
        )
        figures.append(Figure((plot,), name, legend_of((f"A: {comparison.name_a}", f"B: {comparison.name_b}"))))
    return [Section("curves", "Precision and recall", (Gallery(tuple(figures)),))] if figures else []


def _frames(comparison: Comparison) -> list[Section]:
    if not comparison.changed_frames:
        return []
    changed = comparison.changed_frames
    better = sum(b < a for _, a, b in changed)
    columns = (
        Column("frame", "Frame"),
        Column("errors_a", "Errors A", "d"),
        Column("errors_b", "Errors B", "d"),
        Column("change", "B − A", "+d"),
    )
    rows = tuple((name, a, b, b - a) for name, a, b in changed)
    intro = Paragraph(
        f"B has fewer errors in {better:,} frames and more in {len(changed) - better:,}; in "
        f"{comparison.frames - len(changed):,} both have equally many. Each run at its own operating point."
    )
    table = Table(
        "changed_frames_top",
        f"The {min(SHOWN_FRAMES, len(rows))} frames that changed most",
        columns,
        rows[:SHOWN_FRAMES],
    )
    every = Table("changed_frames", "Every frame that changed", columns, rows, on_page=False)
    return [Section("frames", "Where they differ", (intro, table, every))]
