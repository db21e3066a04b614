"""A report as data: tables, figures and text. `write.py` writes it as a page, as JSON and as CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from perception.reports.images import Photo, Scene
from perception.reports.plots import Plot

FORMAT = "perception-evaluation-report"
FORMAT_VERSION = 1

Value = str | int | float | bool | None
Picture = Plot | Scene | Photo


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
            {column.key: plain(value) for column, value in zip(self.columns, row, strict=True)} for row in self.rows
        ]


@dataclass(frozen=True)
class Figure:
    """Plots or images that belong together, with a caption."""

    pictures: tuple[Picture, ...]
    """Shown one below the other."""
    caption: str
    legend: tuple[tuple[str, str], ...] = ()
    """Pairs of colour class and words."""
    scrolls: bool = False
    """Too wide for a narrow screen: scrolls inside the page, as timelines do."""


@dataclass(frozen=True)
class Gallery:
    """Figures side by side, as many as the width allows."""

    figures: tuple[Figure, ...]
    columns: Literal["narrow", "even", "wide", "full"] = "even"
    """`narrow` for upright images, `wide` for street images, `full` for timelines."""


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Legend:
    """The colours of the images that follow: pairs of colour class and words."""

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
    """Everything in a report."""

    task: str
    """object, road, tracking or compare."""
    title: str
    facts: Mapping[str, Value]
    """What was scored and how: folders, counts, settings. Listed on the page and in the JSON."""
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Arrays for `compare`; never pickled objects."""

    def tables(self) -> list[Table]:
        """List all tables, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]


def plain(value: object) -> Value:
    """Convert to a value that JSON can hold; NaN and infinity become None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a report holds plain values, found {type(value).__name__}")


def legend_of(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pair labels with the colour classes s0, s1, … in order."""
    return tuple((f"s{i % 6}", label) for i, label in enumerate(labels))
