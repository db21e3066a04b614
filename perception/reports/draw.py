"""Draw plots as SVG that stands inside a page: matplotlib's output, stripped of what a page does not need.

The SVG has no script, address, font or fixed colour: text is text in the page's font, and colours are
variables of the page's style sheet. Each drawing carries a title, a description, and ids with a prefix of their own.
Equal input gives equal bytes.

Needs the extra `report`; nothing but the page writer imports this module.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import singledispatchmethod
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Arc, PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Transform, blended_transform_factory

from perception.reports.plots import (
    Axis,
    Histogram,
    IntervalBars,
    LinePlot,
    PlanView,
    Plot,
    Timeline,
    thin,
    tick_label,
)

WIDTH, HEIGHT = 360, 268
"""Size of a plot, pixels."""
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 42
"""Margins around the axes, pixels."""
_DPI = 72
"""Matplotlib's SVG units are points; at 72 dots per inch a point is a pixel."""
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "perception",
    "text.parse_math": False,  # names from files may hold dollar signs
    "font.size": 11,
    "axes.axisbelow": True,
    "lines.scale_dashes": False,
}
_NAMES = (
    *("s0", "s1", "s2", "s3", "s4", "s5", "ink", "soft", "grid", "panel", "bar", "line"),
    *("found", "missed", "false", "ignored"),
)
COLOUR = {name: f"#f0f0{i:02x}" for i, name in enumerate(_NAMES)}
"""Matplotlib gets a stand-in for each colour of the style sheet; the finished SVG names the variable."""
_VARIABLE = {code: f"var(--{name})" for name, code in COLOUR.items()}
_DASHES: tuple[tuple[float, ...], ...] = ((), (6, 3), (2, 3))
_SWITCH = Outline([(0, -7.5), (0, 7.5), (-3.5, 7.5), (3.5, 7.5), (0, 3), (0, 7.5)], [1, 2, 2, 2, 2, 2])
# control characters are not legal in HTML or XML, and file names may hold them
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def printable(text: str) -> str:
    """Replace control characters by U+FFFD."""
    return _CONTROL.sub("\ufffd", text)


@contextmanager
def _drawing_style() -> Iterator[None]:
    """Draw with our settings, whatever matplotlib's configuration on this machine says."""
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the page's font draws the text, not matplotlib's
        yield


def draw(plot: Plot, prefix: str = "p0") -> str:
    """Draw a plot as an `<svg>` element.

    Args:
        plot: what to show.
        prefix: start of all ids in the drawing, unique in the page.
    """
    with _drawing_style():
        drawing = _Drawing(prefix)
        drawing.add(plot)
        return drawing.svg(plot.title, plot.description, "plot wide" if isinstance(plot, Timeline) else "plot")


class _Drawing:
    """One figure, and the words that appear when the pointer rests on its parts."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.figure = Figure(dpi=_DPI)
        FigureCanvasSVG(self.figure)
        self.figure.patch.set_visible(False)
        self.tips: dict[str, list[str]] = {}

    # ------------------------------------------------------------ parts

    def axes(
        self, width: float, height: float, x: Axis, y: Axis, *, left: float = LEFT, right: float = RIGHT
    ) -> Axes:
        """Axes with a grid inside the usual margins of a figure of this size, pixels."""
        self.figure.set_size_inches(width / _DPI, height / _DPI)
        inner = (left / width, BOTTOM / height, (width - left - right) / width, (height - TOP - BOTTOM) / height)
        axes = self.figure.add_axes(inner, frameon=False)
        axes.grid(color=COLOUR["grid"], linewidth=1, clip_on=False)
        axes.tick_params(length=0, pad=5, labelcolor=COLOUR["soft"])
        for one, side in ((axes.xaxis, x), (axes.yaxis, y)):
            one.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            one.set_major_formatter(FuncFormatter(lambda value, _: tick_label(value)))
            if side.ticks:
                one.set_ticks(side.ticks)
            one.label.set_color(COLOUR["ink"])
        axes.set_xlabel(printable(x.label))
        axes.xaxis.set_label_coords(0.5, 17 / height, self._beside(axes, x=True))
        axes.set_ylabel(printable(y.label))
        axes.yaxis.set_label_coords(13 / width, 0.5, self._beside(axes, x=False))
        axes.set(xlim=(x.low, x.high if x.high > x.low else x.low + 1), ylim=(y.low, y.high))
        return axes

    def _beside(self, axes: Axes, x: bool) -> Transform:
        """Along the axes one way, along the figure the other: names of axes stand at fixed places."""
        pair = (axes.transAxes, self.figure.transFigure)
        return blended_transform_factory(*(pair if x else pair[::-1]))

    def tip(self, *words: str) -> str:
        """The id of a part that shows these words: one for the whole, or one for each of its markers."""
        name = f"tip-{len(self.tips)}"
        self.tips[name] = [printable(text) for text in words]
        return name

    # ------------------------------------------------------------ kinds of plots

    @singledispatchmethod
    def add(self, plot: Plot) -> None:
        """Draw the plot into the figure."""
        raise TypeError(f"no drawing for {type(plot).__name__}")

    @add.register
    def _(self, plot: LinePlot) -> None:
        axes = self.axes(WIDTH, HEIGHT, plot.x, plot.y)
        if plot.diagonal:
            ends = (plot.x.low, plot.x.high), (plot.y.low, plot.y.high)
            axes.plot(*ends, color=COLOUR["soft"], linewidth=1.2, dashes=(2, 4))
        for one in plot.series:
            points, colour = thin(one.points), COLOUR[f"s{one.style % 6}"]
            dashes = _DASHES[one.style % 3] or (None, None)
            axes.plot(*points.T, color=colour, linewidth=1.9, dashes=dashes, gid=self.tip(one.label))
            if one.dots:
                inside = points[_within(points, plot)]
                words = (f"{one.label}: {x:.3g}, {y:.3g}" for x, y in inside)
                gid = self.tip(*words)
                axes.plot(*inside.T, "o", color=colour, markersize=6, markeredgewidth=0, clip_on=False, gid=gid)
        for one in plot.series:  # on top of every line
            if one.mark is not None and all(map(math.isfinite, one.mark)):
                axes.plot(
                    *one.mark,
                    "o",
                    color=COLOUR[f"s{one.style % 6}"],
                    markersize=10,
                    markeredgecolor=COLOUR["panel"],
                    markeredgewidth=2,
                    clip_on=False,
                    gid=self.tip(one.mark_label or one.label),
                )

    @add.register
    def _(self, plot: IntervalBars) -> None:
        note_width, row_height, count = 84, 26, len(plot.rows)
        height = TOP + row_height * max(count, 1) + BOTTOM
        rows = Axis("", max(count, 1) - 0.5, -0.5)
        axes = self.axes(WIDTH, height, plot.axis, rows, left=plot.label_width, right=note_width)
        axes.yaxis.grid(False)
        axes.set_yticks(range(count), [printable(row.label) for row in plot.rows])
        low, high = plot.axis.low, plot.axis.high
        if plot.zero_line:
            axes.axvline(0, color=COLOUR["soft"], linewidth=1.2, dashes=(2, 4))
        for i, row in enumerate(plot.rows):
            value, start, end = (min(max(v, low), high) for v in (row.value, row.low, row.high))
            if math.isfinite(row.value):
                words = self.tip(f"{row.label}: {row.value:.3g}")
                if not plot.zero_line:
                    axes.barh(i, value - low, 12 / row_height, low, color=COLOUR["bar"], gid=words)
                if math.isfinite(row.low) and math.isfinite(row.high):
                    axes.plot((start, end), (i, i), color=COLOUR["ink"], linewidth=1.6, clip_on=False)
                if plot.zero_line:
                    axes.plot(value, i, "o", color=COLOUR["s0"], markersize=8, markeredgewidth=0, gid=words)
            at = 1 + 6 / (WIDTH - plot.label_width - note_width)
            axes.text(
                at, i, printable(row.note), color=COLOUR["soft"], va="center", transform=axes.get_yaxis_transform()
            )

    @add.register
    def _(self, plot: Histogram) -> None:
        counts = np.array(plot.counts, np.float64).reshape(len(plot.labels), -1)
        top = float(counts.sum(axis=0).max(initial=0)) or 1.0
        axes = self.axes(WIDTH, 120, plot.x, Axis("count", 0, top, (0, top)))
        base = np.zeros(counts.shape[1])
        gap = (plot.x.high - plot.x.low) / (WIDTH - LEFT - RIGHT)  # a pixel between bars
        for style, (label, values) in enumerate(zip(plot.labels, counts, strict=True)):
            for b in np.flatnonzero(values):
                start, end = plot.edges[b], plot.edges[b + 1]
                words = self.tip(f"{start:.2g}–{end:.2g}: {values[b]:.0f} {label}")
                bar = Rectangle((start + gap / 2, base[b]), end - start - gap, values[b], gid=words, linewidth=0)
                bar.set_facecolor(COLOUR[f"s{style % 6}"])
                axes.add_patch(bar)
            base += values

    @add.register
    def _(self, plot: Timeline) -> None:
        row_height, count = 16, len(plot.rows)
        rows = Axis("", max(count, 1), 0)
        axes = self.axes(760, TOP + row_height * count + BOTTOM, Axis("frame", 0, max(plot.frames, 1)), rows, left=84)
        axes.yaxis.grid(False)
        axes.set_yticks(np.arange(count) + 0.5, [printable(row.label) for row in plot.rows])
        for i, row in enumerate(plot.rows):
            for span in row.spans:
                thickness, colour = (3, "line") if span.colour == "missed" else (11, span.colour)
                start, length = (span.start, i + 0.5 - thickness / row_height / 2), span.end - span.start
                box = Rectangle(start, length, thickness / row_height, gid=self.tip(span.label), linewidth=0)
                box.set_facecolor(COLOUR[colour])
                axes.add_patch(box)
            if row.switches:
                words = self.tip(*(f"id switch at frame {frame}" for frame in row.switches))
                height = np.full(len(row.switches), i + 0.5)
                axes.plot(
                    row.switches,
                    height,
                    linestyle="",
                    marker=_SWITCH,
                    markersize=15,
                    color=COLOUR["missed"],
                    markeredgewidth=1.4,
                    clip_on=False,
                    gid=words,
                )

    @add.register
    def _(self, plot: PlanView) -> None:
        pixels_per_m = (WIDTH - LEFT - RIGHT) / (2 * plot.side_m)
        height = TOP + BOTTOM + plot.ahead_m * pixels_per_m
        x, z = Axis("to the right, m", -plot.side_m, plot.side_m), Axis("ahead, m", 0, plot.ahead_m)
        axes = self.axes(WIDTH, height, x, z)
        axes.grid(False)
        for radius in range(10, int(np.hypot(plot.ahead_m, plot.side_m)) + 10, 10):
            ring = Arc((0, 0), 2 * radius, 2 * radius, theta1=0, theta2=180, color=COLOUR["grid"], linewidth=1)
            axes.add_patch(ring)
        camera = self.tip("camera")
        axes.plot(0, 0, "^", color=COLOUR["ink"], markersize=9, markeredgewidth=0, clip_on=False, gid=camera)
        for box in plot.boxes:
            centre = np.mean(box.corners, axis=0)
            outline = Outline(
                [*box.corners, box.corners[0], centre, box.front],
                [Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY, Outline.MOVETO, Outline.LINETO],
            )
            axes.add_patch(
                PathPatch(
                    outline,
                    fill=False,
                    edgecolor=COLOUR[box.colour],
                    linewidth=1.8,
                    linestyle=(0, (4, 2)) if box.dashed else "solid",
                    gid=self.tip(box.label),
                )
            )

    # ------------------------------------------------------------ output

    def svg(self, title: str, description: str, css_class: str) -> str:
        """The figure as an `<svg>` element for a page."""
        text = io.StringIO()
        self.figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        root = ElementTree.fromstring(text.getvalue())
        box = root.get("viewBox", "")
        self._strip(root)
        root.attrib.clear()
        title, description = printable(title), printable(description)
        root.attrib.update(
            {"class": css_class, "viewBox": box, "role": "img", "aria-label": f"{title}. {description}"}
        )
        for place, (name, words) in enumerate((("title", title), ("desc", description))):
            element = ElementTree.Element(name)
            element.text = words
            root.insert(place, element)
        return ElementTree.tostring(root, encoding="unicode")

    def _strip(self, element: ElementTree.Element) -> None:
        """Reduce an element and its children to what is seen, and add the words of `tip`."""
        tips = self.tips.get(element.get("id", ""), [])
        targets = element.findall(".//{*}use") if len(tips) > 1 else [element]
        for target, words in zip(targets, tips, strict=True) if tips else ():
            title = ElementTree.Element("title")
            title.text = words
            target.insert(0, title)
        kept: list[ElementTree.Element] = []
        for child in element:
            name = child.tag.rsplit("}")[-1]
            if name in ("metadata", "style"):
                continue
            self._strip(child)
            if name == "g" and not child.attrib:
                kept.extend(_ungrouped(child))
            elif name != "defs" or len(child):
                kept.append(child)
        element[:] = kept
        element.tag = element.tag.rsplit("}")[-1]
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
        attributes = {name.rsplit("}")[-1]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update(self._attributes(element.tag, attributes))

    def _attributes(self, name: str, attributes: dict[str, str]) -> dict[str, str]:
        """Attributes with short numbers, colours as variables, and ids that start with the prefix."""
        kept: dict[str, str] = {}
        for key, value in attributes.items():
            if key == "style":
                kept.update(_presentation(value))
            elif key == "id":
                if name not in ("g", "text"):  # only definitions are referred to
                    kept["id"] = f"{self.prefix}-{value}"
            elif key == "href":
                kept["href"] = f"#{self.prefix}-{value[1:]}"
            elif key == "clip-path":
                kept["clip-path"] = value.replace("url(#", f"url(#{self.prefix}-")
            elif key == "transform" and value.startswith("rotate(-0 "):
                continue
            else:
                kept[key] = _short(value)
        return kept


def _ungrouped(group: ElementTree.Element) -> list[ElementTree.Element]:
    """The children of a group without attributes; a title goes to what it is the title of."""
    if len(group) and group[0].tag == "title":
        if len(group) > 2:
            return [group]
        group[1].insert(0, group[0])
        return [group[1]]
    return list(group)


def _within(points: np.ndarray, plot: LinePlot) -> np.ndarray:
    """(N,) bool: points inside the axes, which alone get a dot."""
    (x, y), (a, b) = points.T, (plot.x, plot.y)
    return (x >= a.low) & (x <= a.high) & (y >= b.low) & (y <= b.high)


def _presentation(style: str) -> dict[str, str]:
    """A style of matplotlib's as attributes; fonts and what is the same as without it are left out."""
    left_out = {"font-size", "font-family", "stroke-linecap", "stroke-linejoin", "stroke-dashoffset"}
    declarations = dict(re.split(r":\s*", part.strip(), maxsplit=1) for part in style.split(";") if part.strip())
    shown = {}
    for name, value in declarations.items():
        if name in left_out or name.startswith("font"):
            continue
        shown[name] = value if name.startswith("fill") and value == "none" else _short(value)
    css = {name: value for name, value in shown.items() if value in _VARIABLE}
    plain = {name: value for name, value in shown.items() if value not in _VARIABLE}
    # variables are read in a style only
    return {**plain, "style": ";".join(f"{name}:{_VARIABLE[value]}" for name, value in css.items())} if css else plain


def _short(value: str) -> str:
    """A tenth of a pixel is as exact as an eye."""

    def number(found: re.Match[str]) -> str:
        text = f"{float(found[0]):.1f}".removesuffix(".0")
        return "0" if text == "-0" else text

    return re.sub(r"-?\d+\.\d+", number, " ".join(value.split()))
