"""A report as data (tables, figures, text), written once as a page, as JSON and as CSV, so the numbers can't differ.

The page is one file: style, plots and pictures are inside, nothing is fetched, no script runs (its own policy forbids
both), and it opens from disk. Each task builds its `Report` in `report_<task>.py`; `write_report` does the rest:

    DIR/report.html          to look at
    DIR/report.json          every table and curve at full precision
    DIR/tables/<name>.csv    the same, one file a table
    DIR/evidence.npz         what each frame contributed, for `perception evaluate compare`
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal

import numpy as np

from perception import __version__
from perception.files import write_atomically
from perception.reports.markup import Child, Markup, tag

FORMAT = "perception-evaluation-report"
FORMAT_VERSION = 1

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    key: str
    """Name in JSON and CSV."""
    label: str
    """Name on the page."""
    format: str = ""
    """Format specification of the page for numbers, such as `.2f`; text columns leave it empty."""
    note: str = ""
    """Shown when the pointer rests on the heading."""


@dataclass(frozen=True)
class Table:
    """Rows of values; the first column names the row."""

    key: str
    """Name in JSON and of the CSV file: lower case, digits and underscores."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""
    on_page: bool = True
    """False for long curves, which the page shows as plots."""
    folded: bool = False
    """True for long tables: the page shows the heading until it is opened."""
    shaded: bool = False
    """Tint each number by its share of its row, as for a confusion matrix."""

    def records(self) -> list[dict[str, Value]]:
        """Rows by column key, NaN as None: what JSON holds."""
        return [
            {column.key: _plain(value) for column, value in zip(self.columns, row, strict=True)} for row in self.rows
        ]


@dataclass(frozen=True)
class Figure:
    """A plot or picture with its caption; `legend` pairs a colour class with words."""

    picture: Markup
    caption: str
    legend: tuple[tuple[str, str], ...] = ()
    scrolls: bool = False
    """Too wide for a narrow screen: scrolls inside the page, as time lines do."""


@dataclass(frozen=True)
class Gallery:
    """Figures side by side, as many as the width allows."""

    figures: tuple[Figure, ...]
    columns: Literal["narrow", "even", "wide", "full"] = "even"
    """`narrow` for upright pictures, `wide` for street pictures, `full` for time lines."""


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Legend:
    """What the colours of the pictures that follow mean: pairs of colour class and words."""

    items: tuple[tuple[str, str], ...]


Block = Table | Figure | Gallery | Paragraph | Legend


@dataclass(frozen=True)
class Section:
    """A heading with its blocks; `key` is its anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Card:
    """One headline number."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Everything a report says."""

    task: str
    """object, road, tracking or compare."""
    title: str
    facts: Mapping[str, Value]
    """What was scored and how: folders, counts, settings. Shown as a list, kept in the JSON."""
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Arrays for `compare`; never pickled objects."""

    def tables(self) -> list[Table]:
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]


def _plain(value: object) -> Value:
    """A value JSON can hold; NaN and infinity become None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a report holds plain values, found {type(value).__name__}")


def _cell(value: Value, form: str) -> str:
    value = _plain(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, form) if form and not isinstance(value, str) else str(value)


# ---------------------------------------------------------------- the page


def _table(table: Table) -> Markup:
    numeric = [bool(column.format) for column in table.columns]
    head = tag(
        "tr",
        [
            tag("th", column.label, scope="col", class_="num" if right else None, title=column.note or None)
            for column, right in zip(table.columns, numeric, strict=True)
        ],
    )
    body = []
    for row in table.rows:
        whole = sum(v for v in row if isinstance(v, (int, float)) and v == v) if table.shaded else 0
        cells: list[Markup] = []
        for i, (column, value) in enumerate(zip(table.columns, row, strict=True)):
            shown, right = _cell(value, column.format), "num" if numeric[i] else None
            tint = f"--share:{value / whole:.2f}" if whole and isinstance(value, (int, float)) else None
            cells.append(
                tag("th", shown, scope="row", class_=right) if i == 0 else tag("td", shown, class_=right, style=tint)
            )
        body.append(tag("tr", cells))
    # focusable, so that a wide table can be scrolled with the keyboard
    framed = tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", body), aria_labelledby=f"t-{table.key}"),
        class_="table",
        tabindex=0,
        role="region",
        aria_labelledby=f"t-{table.key}",
    )
    note = tag("p", table.note, class_="note") if table.note else None
    if table.folded:
        return tag(
            "details", tag("summary", f"{table.title} ({len(table.rows):,} rows)", id=f"t-{table.key}"), note, framed
        )
    return tag("div", tag("h3", table.title, id=f"t-{table.key}"), framed, note, class_="block")


def _legend(items: Sequence[tuple[str, str]]) -> Markup | None:
    if not items:
        return None
    return tag(
        "ul", [tag("li", tag("span", class_=f"key {style}"), words) for style, words in items], class_="legend"
    )


def _figure(figure: Figure) -> Markup:
    caption = tag("figcaption", figure.caption) if figure.caption else None
    picture = tag("div", figure.picture, class_="scroll", tabindex=0) if figure.scrolls else figure.picture
    return tag("figure", picture, _legend(figure.legend), caption)


def _block(block: Block) -> Child:
    if isinstance(block, Table):
        return _table(block) if block.on_page else None
    if isinstance(block, Figure):
        return _figure(block)
    if isinstance(block, Gallery):
        return tag("div", [_figure(one) for one in block.figures], class_=f"gallery {block.columns}")
    if isinstance(block, Legend):
        return _legend(block.items)
    return tag("p", block.text)


def render_page(report: Report) -> str:
    """The whole page as HTML text."""
    folder = files("perception.reports").joinpath("templates")
    warnings = (
        tag(
            "div",
            tag("h2", "Warnings"),
            tag("ul", [tag("li", w) for w in report.warnings]),
            class_="warnings",
            role="note",
        )
        if report.warnings
        else None
    )
    cards = [
        tag(
            "div",
            tag("dt", card.label),
            tag("dd", card.value),
            tag("dd", card.note, class_="note") if card.note else None,
        )
        for card in report.cards
    ]
    facts = [tag("div", tag("dt", name), tag("dd", _cell(value, ""))) for name, value in report.facts.items()]
    sections = [
        tag("section", tag("h2", one.title), [_block(block) for block in one.blocks], id=one.key)
        for one in report.sections
    ]
    return Template(folder.joinpath("report.html").read_text(encoding="utf-8")).substitute(
        title=tag("span", report.title),
        title_text=tag("title", report.title),
        style=folder.joinpath("report.css").read_text(encoding="utf-8"),
        toc=Markup("").join(tag("li", tag("a", one.title, href=f"#{one.key}")) for one in report.sections),
        cards=tag("dl", cards, class_="cards") if cards else "",
        facts=tag("dl", facts, class_="facts"),
        warnings=warnings or "",
        body=Markup("").join(sections),
        version=__version__,
    )


# ---------------------------------------------------------------- JSON, CSV, files


def render_json(report: Report) -> str:
    """Facts, warnings and every table at full precision."""
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "perception_version": __version__,
        "task": report.task,
        "title": report.title,
        "facts": {name: _plain(value) for name, value in report.facts.items()},
        "warnings": list(report.warnings),
        "tables": {table.key: table.records() for table in report.tables()},
    }
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def render_csv(table: Table) -> str:
    """One table; NaN is empty. Text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        values = [_plain(value) for value in row]
        writer.writerow(
            [
                ""
                if v is None
                else f"'{v}"
                if isinstance(v, str) and v[:1] in ("=", "+", "-", "@", "\t", "\r")
                else v
                for v in values
            ]
        )
    return out.getvalue()


def write_report(report: Report, directory: Path) -> Path:
    """Write page, JSON, CSV and evidence into `directory` (made if need be); returns the page's path.

    Raises:
        UserError: the directory can't be written.
    """
    keys = [table.key for table in report.tables()]
    if len(set(keys)) != len(keys):
        raise ValueError(f"two tables share a key: {sorted(k for k in keys if keys.count(k) > 1)}")

    def write(name: str, content: str | bytes) -> Path:
        write_atomically(directory / name, content, do="--report DIR with another DIR")
        return directory / name

    for table in report.tables():
        write(f"tables/{table.key}.csv", render_csv(table))
    if report.evidence:
        packed = io.BytesIO()
        np.savez_compressed(packed, **report.evidence)  # type: ignore[arg-type]
        write("evidence.npz", packed.getvalue())
    write("report.json", render_json(report))
    return write("report.html", render_page(report))


def legend_of(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Colour classes s0, s1, … paired with labels, in order."""
    return tuple((f"s{i % 6}", label) for i, label in enumerate(labels))
