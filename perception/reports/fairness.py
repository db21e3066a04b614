"""The report of `perception evaluate fairness`: miss rates by stratum and what remains after matching."""

from __future__ import annotations

import math
from collections.abc import Mapping

from perception.evaluation.bootstrap import Difference
from perception.reports.plots import Axis, Interval, IntervalBars
from perception.reports.report import Card, Column, Figure, Paragraph, Report, Section, Table, Value
from perception.trust.fairness import FEWEST_DRIVES, FEWEST_PEOPLE, Fairness, Gap

VERDICTS = (
    "'more' and 'less': the 95 % interval over drives excludes zero, also after Holm's correction for the number of "
    "comparisons; 'perhaps': before the correction only; 'not shown': these frames do not show a difference; 'too "
    f"few': fewer than {FEWEST_PEOPLE} people or {FEWEST_DRIVES} drives on one side, or nobody to match."
)


def fairness_report(found: Fairness, warnings: tuple[str, ...], facts: Mapping[str, Value]) -> Report:
    """Build the report."""
    judged = [gap for gap in found.gaps if gap.verdict != "too few"]
    real = sum(gap.verdict in ("more", "less") for gap in judged)
    share = f"{100 * found.missed / found.people:.0f}"
    return Report(
        task="fairness",
        title="Miss rates of people",
        facts={**facts, "people": found.people, "drives": found.drives},
        cards=(
            Card("People missed", share, f"% of {found.people}"),
            Card("Gaps shown", str(real), f"of {len(judged)} that can be judged, {len(found.gaps)} in all"),
        ),
        sections=(_gaps(found), _strata(found)),
        warnings=warnings,
    )


def _gaps(found: Fairness) -> Section:
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            f"{gap.stratum.attribute}: {gap.stratum.value}",
            gap.reference,
            gap.stratum.people,
            gap.raw.difference,
            gap.raw.low,
            gap.raw.high,
            gap.matched_people,
            *((gap.matched.difference, gap.matched.low, gap.matched.high) if gap.matched else (math.nan,) * 3),
            gap.verdict,
        )
        for gap in found.gaps
    )
    table = Table(
        "gaps",
        "Gaps to the largest stratum, points of the miss rate",
        (
            Column("stratum", "Stratum"),
            Column("reference", "Against"),
            Column("people", "People", "d"),
            Column("raw", "Raw", "+.1f"),
            Column("raw_low", "low", "+.1f"),
            Column("raw_high", "high", "+.1f"),
            Column("matched_people", "Matched", "d", "people with a counterpart of the same height and occlusion"),
            Column("matched", "Matched gap", "+.1f"),
            Column("matched_low", "low", "+.1f"),
            Column("matched_high", "high", "+.1f"),
            Column("verdict", "Verdict"),
        ),
        rows,
        note=VERDICTS,
    )
    bars = [gap for gap in found.gaps if gap.verdict != "too few" and gap.matched is not None]
    blocks: tuple[Table | Figure | Paragraph, ...] = (
        Paragraph("A positive gap: missed more often. Matched gaps compare people of the same height and occlusion."),
    )
    if bars:
        span = max(abs(v) for gap in bars if gap.matched for v in (gap.matched.low, gap.matched.high))
        limit = max(10.0, math.ceil(span / 10) * 10) if math.isfinite(span) else 100.0
        intervals = tuple(_interval(gap) for gap in bars)
        plot = IntervalBars(
            "Matched gaps",
            "; ".join(f"{row.label} {row.note}" for row in intervals),
            intervals,
            Axis("points of the miss rate", -limit, limit),
            zero_line=True,
            label_width=130,
        )
        blocks += (Figure((plot,), "Matched gaps with 95 % intervals over drives."),)
    return Section("gaps", "Gaps", (*blocks, table))


PLAIN = ("pose", "height", "distance", "occlusion")
"""Attributes whose values say what they are."""


def _interval(gap: Gap) -> Interval:
    one, stratum = gap.matched or gap.raw, gap.stratum
    short = stratum.value.split(" (")[0]
    label = short if stratum.attribute in PLAIN else f"{stratum.attribute}: {short}"
    return Interval(label[:24], one.difference, one.low, one.high, f"{one.difference:+.0f}")


def _strata(found: Fairness) -> Section:
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (one.attribute, one.value, one.people, one.drives, one.missed, 100 * one.miss_rate) for one in found.strata
    )
    table = Table(
        "strata",
        "Miss rates",
        (
            Column("attribute", "Attribute"),
            Column("value", "Stratum"),
            Column("people", "People", "d"),
            Column("drives", "Drives", "d"),
            Column("missed", "Missed", "d"),
            Column("miss_rate", "Miss rate, %", ".1f"),
        ),
        rows,
    )
    return Section("strata", "Strata", (table,))


def fairness_text(found: Fairness) -> str:
    """The strata and gaps for a terminal."""
    lines = [f"{found.missed} of {found.people} people missed, {found.drives} drives", ""]
    lines.append(f"{'':<36}{'people':>7}{'missed %':>10}{'raw gap':>22}{'matched gap':>22}  verdict")
    gaps = {(gap.stratum.attribute, gap.stratum.value): gap for gap in found.gaps}
    for one in found.strata:
        gap = gaps.get((one.attribute, one.value))
        start = f"{f'{one.attribute}: {one.value}':<36}{one.people:>7}{100 * one.miss_rate:>10.1f}"
        if gap is None:
            lines.append(f"{start}{'reference':>22}")
        else:
            lines.append(f"{start}{_gap_text(gap.raw):>22}{_gap_text(gap.matched):>22}  {gap.verdict}")
    return "\n".join(lines)


def _gap_text(one: Difference | None) -> str:
    if one is None or not math.isfinite(one.difference):
        return "–"
    interval = f" ({one.low:+.0f}…{one.high:+.0f})" if math.isfinite(one.low) else ""
    return f"{one.difference:+.1f}{interval}"
