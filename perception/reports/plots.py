"""Plots as small inline SVG: no script, no network, colours from the page's own style (so dark mode works).

Each function returns a complete `<svg role="img">` with a title and a description for those who can't see it.
Series are told apart by colour class `s0`…`s5` and by dashes, never by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from perception.reports.markup import Child, Markup, tag

Points = Sequence[tuple[float, float]] | np.ndarray

WIDTH, HEIGHT = 360, 268
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 42
MAX_POINTS = 240
"""A line is thinned to about this many points: more can't be seen at this size."""


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
    ticks: tuple[float, ...] = field(default=())
    """Chosen by `nice_ticks` where empty."""

    def tick_values(self) -> tuple[float, ...]:
        return self.ticks or nice_ticks(self.low, self.high)

    def text(self, value: float) -> str:
        if abs(value) < 10_000:
            return f"{value:g}"
        return f"{value / 1e6:.3g} M" if abs(value) >= 1e6 else f"{value / 1e3:.3g} k"


def nice_ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Round values inside [low, high], about `count` of them, at steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return (low,) if math.isfinite(low) else ()
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def thin(points: Points, limit: int = MAX_POINTS) -> np.ndarray:
    """At most about `limit` of the points, ends and breaks kept, (M, 2). Drops those that change the line least."""
    line = np.asarray(points, np.float64).reshape(-1, 2)
    if len(line) <= limit:
        return line
    bins = np.linspace(0, len(line), limit // 4 + 1).astype(int)
    keep: set[int] = {0, len(line) - 1}
    for start, end in pairwise(bins.tolist()):
        part = line[start:end, 1]
        if end > start:
            # first, last, lowest and highest of each stretch: the eye sees the same line
            safe = np.where(np.isnan(part), np.inf, part)
            keep |= {
                start,
                end - 1,
                start + int(np.argmin(safe)),
                start + int(np.argmax(np.where(safe == np.inf, -np.inf, safe))),
            }
    return line[sorted(keep)]


class _Frame:
    """Maps data to the drawing area."""

    def __init__(self, x: Axis, y: Axis, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.x, self.y, self.width, self.height = x, y, width, height

    def px(self, value: float) -> float:
        span = (self.x.high - self.x.low) or 1.0
        return LEFT + (value - self.x.low) / span * (self.width - LEFT - RIGHT)

    def py(self, value: float) -> float:
        span = (self.y.high - self.y.low) or 1.0
        return self.height - BOTTOM - (value - self.y.low) / span * (self.height - TOP - BOTTOM)

    def axes(self) -> list[Markup]:
        """Grid, ticks and names."""
        parts = []
        bottom, right = self.height - BOTTOM, self.width - RIGHT
        for value in self.x.tick_values():
            at = self.px(value)
            parts.append(tag("line", class_="grid", x1=at, x2=at, y1=TOP, y2=bottom))
            parts.append(tag("text", self.x.text(value), x=at, y=bottom + 15, text_anchor="middle"))
        for value in self.y.tick_values():
            at = self.py(value)
            parts.append(tag("line", class_="grid", x1=LEFT, x2=right, y1=at, y2=at))
            parts.append(tag("text", self.y.text(value), x=LEFT - 6, y=at + 4, text_anchor="end"))
        parts.append(
            tag("text", self.x.label, class_="name", x=(LEFT + right) / 2, y=self.height - 6, text_anchor="middle")
        )
        middle = (TOP + bottom) / 2
        parts.append(
            tag(
                "text",
                self.y.label,
                class_="name",
                text_anchor="middle",
                transform=f"translate(11 {middle:.0f}) rotate(-90)",
            )
        )
        return parts

    def line(self, points: Points) -> list[Markup]:
        """A polyline, broken at NaN."""
        parts: list[Markup] = []
        run: list[str] = []
        for x, y in thin(points):
            if math.isfinite(x) and math.isfinite(y):
                run.append(f"{self.px(x):.1f},{self.py(y):.1f}")
            elif run:
                parts.append(tag("polyline", points=" ".join(run)))
                run = []
        if run:
            parts.append(tag("polyline", points=" ".join(run)))
        return parts


def svg(title: str, description: str, width: float, height: float, *children: Child, **attributes: object) -> Markup:
    """The outer element, with a title and a description in words."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=f"{title}. {description}",
        **attributes,
    )


def line_plot(
    title: str,
    description: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    diagonal: bool = False,
    shade: tuple[Points, Points] | None = None,
) -> Markup:
    """Lines over a grid.

    Args:
        diagonal: draw y = x, for reliability diagrams.
        shade: lower and upper points of a band.
    """
    frame = _Frame(x, y)
    parts: list[Markup] = frame.axes()
    if shade is not None:
        low, high = thin(shade[0]), thin(shade[1])
        outline = [f"{frame.px(a):.1f},{frame.py(b):.1f}" for a, b in [*high, *low[::-1]]]
        parts.append(tag("polygon", class_="band", points=" ".join(outline)))
    if diagonal:
        parts.append(
            tag(
                "line",
                class_="diagonal",
                x1=frame.px(x.low),
                y1=frame.py(y.low),
                x2=frame.px(x.high),
                y2=frame.py(y.high),
            )
        )
    for one in series:
        drawn: list[Markup] = frame.line(one.points)
        if one.dots:
            drawn += [
                tag(
                    "circle",
                    tag("title", f"{one.label}: {a:.3g}, {b:.3g}"),
                    class_="dot",
                    cx=frame.px(a),
                    cy=frame.py(b),
                    r=3,
                )
                for a, b in thin(one.points)
                if math.isfinite(a) and math.isfinite(b)
            ]
        parts.append(tag("g", tag("title", one.label), drawn, class_=f"series s{one.style % 6}"))
    for one in series:  # on top of every line
        if one.mark is not None and all(map(math.isfinite, one.mark)):
            at_x, at_y = frame.px(one.mark[0]), frame.py(one.mark[1])
            parts.append(
                tag(
                    "circle",
                    tag("title", one.mark_label or one.label),
                    class_=f"mark s{one.style % 6}",
                    cx=at_x,
                    cy=at_y,
                    r=5,
                )
            )
    return svg(title, description, WIDTH, HEIGHT, parts, class_="plot")


def interval_bars(
    title: str,
    description: str,
    rows: Sequence[tuple[str, float, float, float, str]],
    axis: Axis,
    *,
    zero_line: bool = False,
    label_width: int = 92,
) -> Markup:
    """Horizontal values with intervals: rows of (label, value, low, high, note). NaN draws the label alone.

    Args:
        zero_line: points about zero instead of bars from the left end.
        label_width: room for the labels.
    """
    note_width, row_height, width = 84, 26, WIDTH
    height = TOP + row_height * len(rows) + BOTTOM - 2

    def px(value: float) -> float:
        clipped = min(max(value, axis.low), axis.high)
        return label_width + (clipped - axis.low) / ((axis.high - axis.low) or 1.0) * (
            width - label_width - note_width
        )

    bottom = TOP + row_height * len(rows)
    parts: list[Markup] = []
    for tick in axis.tick_values():
        parts.append(tag("line", class_="grid", x1=px(tick), x2=px(tick), y1=TOP, y2=bottom))
        parts.append(tag("text", axis.text(tick), x=px(tick), y=bottom + 15, text_anchor="middle"))
    parts.append(
        tag(
            "text",
            axis.label,
            class_="name",
            x=(label_width + width - note_width) / 2,
            y=height - 7,
            text_anchor="middle",
        )
    )
    if zero_line:
        parts.append(tag("line", class_="diagonal", x1=px(0), x2=px(0), y1=TOP, y2=bottom))
    for i, (label, value, low, high, note) in enumerate(rows):
        middle = TOP + row_height * (i + 0.5)
        parts.append(tag("text", label, x=label_width - 8, y=middle + 4, text_anchor="end"))
        if math.isfinite(value):
            if not zero_line:
                parts.append(
                    tag(
                        "rect",
                        class_="bar",
                        x=px(axis.low),
                        y=middle - 6,
                        width=max(px(value) - px(axis.low), 0.5),
                        height=12,
                    )
                )
            if math.isfinite(low) and math.isfinite(high):
                parts.append(tag("line", class_="whisker", x1=px(low), x2=px(high), y1=middle, y2=middle))
            if zero_line:
                parts.append(tag("circle", class_="dot s0", cx=px(value), cy=middle, r=4))
        parts.append(tag("text", note, class_="note", x=width - note_width + 6, y=middle + 4))
    return svg(title, description, width, height, parts, class_="plot")


@dataclass(frozen=True)
class Span:
    """A stretch of one row of a time line, in frames, end not included."""

    start: int
    end: int
    style: str
    """Colour class, or 'missed'."""
    label: str


@dataclass(frozen=True)
class TimelineRow:
    """One ground truth track: its spans, and the frames where its id switched."""

    label: str
    spans: tuple[Span, ...]
    switches: tuple[int, ...] = ()


def timeline(title: str, description: str, rows: Sequence[TimelineRow], frames: int) -> Markup:
    """Who was followed by which id, over time: one row a track, a tick where the id changed."""
    width, row_height, label_width = 760, 16, 84
    bottom = TOP + row_height * len(rows)
    height = bottom + 40
    axis = Axis("frame", 0, max(frames, 1))

    def px(frame: float) -> float:
        return label_width + frame / axis.high * (width - label_width - RIGHT)

    parts: list[Markup] = []
    for tick in axis.tick_values():
        parts.append(tag("line", class_="grid", x1=px(tick), x2=px(tick), y1=TOP, y2=bottom))
        parts.append(tag("text", axis.text(tick), x=px(tick), y=bottom + 15, text_anchor="middle"))
    parts.append(
        tag("text", axis.label, class_="name", x=(label_width + width) / 2, y=height - 6, text_anchor="middle")
    )
    for i, row in enumerate(rows):
        top = TOP + row_height * i + 2.5
        parts.append(tag("text", row.label, x=label_width - 8, y=top + 9, text_anchor="end"))
        for span in row.spans:
            parts.append(
                tag(
                    "rect",
                    tag("title", span.label),
                    class_=f"span {span.style}",
                    x=px(span.start),
                    y=top if span.style != "missed" else top + 4,
                    width=max(px(span.end) - px(span.start), 0.8),
                    height=11 if span.style != "missed" else 3,
                )
            )
        for switch in row.switches:
            at = px(switch)
            parts.append(
                tag(
                    "path",
                    tag("title", f"id switch at frame {switch}"),
                    class_="switch",
                    d=f"M{at:.1f} {top - 2:.1f}v15m-3.5 -15h7l-3.5 4.5z",
                )
            )
    return svg(title, description, width, height, parts, class_="plot wide")


def histogram(
    title: str,
    description: str,
    edges: Sequence[float],
    counts: Sequence[Sequence[float]],
    labels: Sequence[str],
    x: Axis,
) -> Markup:
    """Bars stacked in the order of `counts` (one list a label), low and wide: goes under a reliability diagram."""
    height = 120
    totals = np.sum(np.asarray(counts, np.float64), axis=0) if len(counts) else np.zeros(0)
    top = float(totals.max()) if len(totals) and totals.max() > 0 else 1.0
    frame = _Frame(x, Axis("count", 0, top, (0.0, top)), height=height)
    parts: list[Markup] = frame.axes()
    for b in range(len(edges) - 1):
        base = 0.0
        for style, (label, values) in enumerate(zip(labels, counts, strict=True)):
            value = float(values[b])
            if value > 0:
                y0, y1 = frame.py(base), frame.py(base + value)
                parts.append(
                    tag(
                        "rect",
                        tag("title", f"{edges[b]:.2g}–{edges[b + 1]:.2g}: {value:.0f} {label}"),
                        class_=f"fill s{style}",
                        x=frame.px(edges[b]) + 0.5,
                        width=max(frame.px(edges[b + 1]) - frame.px(edges[b]) - 1, 0.5),
                        y=y1,
                        height=max(y0 - y1, 0.3),
                    )
                )
                base += value
    return svg(title, description, WIDTH, height, parts, class_="plot")
