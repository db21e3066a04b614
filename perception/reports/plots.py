"""What the plots of a report show, as data; `draw.py` turns it into SVG.

Colours are names of the page's style sheet, so that a plot follows light and dark mode. Series differ in dash as well
as in colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Points = Sequence[tuple[float, float]] | np.ndarray

MAX_POINTS = 240
"""Points kept of a line: more are invisible at the size of a plot."""


@dataclass(frozen=True, eq=False)
class Series:
    """One line of a plot."""

    label: str
    points: Points
    """(N, 2) x, y in data units; NaN breaks the line."""
    style: int = 0
    """Colour and dash, 0..5."""
    mark: tuple[float, float] | None = None
    """A point to stress, such as the operating point."""
    mark_label: str = ""
    dots: bool = False
    """Draw each point as well as the line."""


@dataclass(frozen=True)
class Axis:
    """Range and name of one axis."""

    label: str
    low: float = 0.0
    high: float = 1.0
    ticks: tuple[float, ...] = ()
    """Chosen automatically where empty."""


@dataclass(frozen=True, eq=False)
class LinePlot:
    """Lines over a grid."""

    title: str
    description: str
    """The plot in words, for readers who cannot see it."""
    series: tuple[Series, ...]
    x: Axis
    y: Axis
    diagonal: bool = False
    """Draw y = x, as in reliability diagrams."""


@dataclass(frozen=True)
class Interval:
    """One row of `IntervalBars`."""

    label: str
    value: float
    """NaN draws the label alone."""
    low: float
    high: float
    """Ends of the interval, NaN for none."""
    note: str
    """Shown at the right."""


@dataclass(frozen=True)
class IntervalBars:
    """Horizontal values with intervals."""

    title: str
    description: str
    rows: tuple[Interval, ...]
    axis: Axis
    zero_line: bool = False
    """Draw points about zero instead of bars from the left end."""
    label_width: int = 92
    """Space for the labels, pixels."""


@dataclass(frozen=True)
class Histogram:
    """Stacked bars, low and wide: stands under a reliability diagram."""

    title: str
    description: str
    edges: tuple[float, ...]
    """(B + 1,) bin edges."""
    counts: tuple[tuple[int, ...], ...]
    """(B,) counts for each label, stacked in this order."""
    labels: tuple[str, ...]
    x: Axis


@dataclass(frozen=True)
class Span:
    """A stretch of one row of a timeline, in frames; the end is not included."""

    start: int
    end: int
    colour: str
    """Colour name, or 'missed' for a thin line."""
    label: str
    """Shown when the pointer rests on the span."""


@dataclass(frozen=True)
class TimelineRow:
    """One ground truth track: its spans, and the frames of its id switches."""

    label: str
    spans: tuple[Span, ...]
    switches: tuple[int, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """The id of each track over time: one row per track, a mark at each id switch."""

    title: str
    description: str
    rows: tuple[TimelineRow, ...]
    frames: int


@dataclass(frozen=True)
class PlanBox:
    """A box seen from above."""

    corners: tuple[tuple[float, float], ...]
    """Four of (x right, z ahead), metres, in order round the box."""
    front: tuple[float, float]
    """Middle of its front side; a line to it from the centre shows the heading."""
    colour: str
    dashed: bool
    label: str
    """Shown when the pointer rests on the box."""


@dataclass(frozen=True)
class PlanView:
    """A scene from above, the camera at the bottom, with rings of distance."""

    title: str
    description: str
    boxes: tuple[PlanBox, ...]
    side_m: float = 25.0
    """How far it reaches to either side."""
    ahead_m: float = 60.0


Plot = LinePlot | IntervalBars | Histogram | Timeline | PlanView


def thin(points: Points, limit: int = MAX_POINTS) -> np.ndarray:
    """Keep at most about `limit` points, (M, 2): the ends and the extremes of each stretch, so it looks the same."""
    line = np.asarray(points, np.float64).reshape(-1, 2)
    if len(line) <= limit:
        return line
    bins = np.linspace(0, len(line), limit // 4 + 1).astype(int)
    keep: set[int] = {0, len(line) - 1}
    for start, end in pairwise(bins.tolist()):
        part = line[start:end, 1]
        if end > start:
            missing = np.isnan(part)
            lowest = int(np.argmin(np.where(missing, np.inf, part)))
            highest = int(np.argmax(np.where(missing, -np.inf, part)))
            keep |= {start, end - 1, start + lowest, start + highest}
    return line[sorted(keep)]


def tick_label(value: float) -> str:
    """Write a number of an axis, in thousands or millions where it is large."""
    if abs(value) < 10_000 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value / 1e6:.3g} M" if abs(value) >= 1e6 else f"{value / 1e3:.3g} k"
