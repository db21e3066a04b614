"""Draws what checked data sets hold, as one image."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.checks.findings import BoxRow, SetReport
from perception.errors import MissingDependencyError
from perception.files import write_atomically
from perception.types import CLASS_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#2b6cb0", "#d9822b", "#3a9d5d", "#8e44ad", "#c0392b", "#52606d")
"""Of the classes that are drawn, the most frequent ones: Car, Pedestrian and Cyclist first where they are there."""
MAX_DRIVES = 14


def draw_statistics(reports: Sequence[SetReport], path: Path) -> None:
    """Write one PNG: sizes, distances, places and numbers of the objects, the average road, frames a drive.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        UserError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("matplotlib", "report", "drawing label statistics") from None
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    figure = Figure(figsize=(20, 10), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 4)
    panels: tuple[Callable[[Axes, Sequence[SetReport]], None], ...] = (
        _images,
        _classes,
        _heights,
        _distances,
        _drives,
        _crowding,
        _places,
        _road,
    )
    for axis, panel in zip(axes.flat, panels, strict=True):
        panel(axis, reports)
    write_atomically(path, lambda file: figure.savefig(file, dpi=80, format="png"), do="--out FOLDER")


def _label(report: SetReport) -> str:
    return report.layout if report.root.name in report.layout else f"{report.layout}\n{report.root.name}"


def _nothing(axis: Axes, title: str) -> None:
    axis.set_title(title)
    axis.text(0.5, 0.5, "not labelled here", ha="center", va="center", color="grey", transform=axis.transAxes)
    axis.set_axis_off()


def _bars(axis: Axes, labels: Sequence[str], values: Sequence[float], title: str, colour: str = "#52606d") -> None:
    """Horizontal bars, the first on top, each with its number."""
    places = np.arange(len(labels))
    axis.barh(places, values, color=colour)
    for place, value in enumerate(values):
        axis.text(value, place, f" {value:g}", va="center", fontsize=9)
    axis.set_yticks(places, labels, fontsize=9)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title)


def _images(axis: Axes, reports: Sequence[SetReport]) -> None:
    counts = [sum(report.images_by_drive.values()) for report in reports]
    _bars(axis, [_label(report) for report in reports], counts, "labelled images in each set")


def _classes(axis: Axes, reports: Sequence[SetReport]) -> None:
    """Class names as the files write them, over all sets."""
    totals: dict[str, int] = {}
    for report in reports:
        for name, count in report.names.items():
            totals[name] = totals.get(name, 0) + count
    if not totals:
        return _nothing(axis, "boxes by class")
    names = sorted(totals, key=lambda name: -totals[name])
    _bars(axis, names, [totals[name] for name in names], "boxes by class, as the files name them")


def _rows(reports: Sequence[SetReport]) -> list[BoxRow]:
    return [row for report in reports for row in report.boxes]


def _names(rows: Sequence[BoxRow]) -> list[str]:
    """Return the classes that are drawn."""
    counts = Counter(row.name for row in rows)
    usual = [name for name in CLASS_NAMES if counts[name]]
    return [*usual, *(name for name, _ in counts.most_common() if name not in CLASS_NAMES)][: len(COLOURS)]


def _histogram(axis: Axes, values: Mapping[str, np.ndarray], edges: list[float]) -> None:
    for (name, of_class), colour in zip(values.items(), COLOURS, strict=False):
        if len(of_class):
            label = f"{name}: {len(of_class)}, median {np.median(of_class):.0f}"
            inside = np.clip(of_class, edges[0], edges[-1])
            axis.hist(inside, edges, histtype="step", linewidth=2, color=colour, label=label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_ylabel("boxes")
    axis.set_ylim(top=1.3 * axis.get_ylim()[1])  # room for the legend
    axis.legend(frameon=False, fontsize=9, loc="upper right")


def _heights(axis: Axes, reports: Sequence[SetReport]) -> None:
    rows = _rows(reports)
    if not rows:
        return _nothing(axis, "height of the boxes")
    heights = {name: np.array([row.height_px for row in rows if row.name == name]) for name in _names(rows)}
    _histogram(axis, heights, np.geomspace(4, 400, 33).tolist())
    axis.set_xscale("log")
    axis.set_xticks([5, 10, 25, 40, 100, 200, 400], ["5", "10", "25", "40", "100", "200", "400"])
    axis.minorticks_off()
    for limit in (25, 40):
        axis.axvline(limit, color="grey", linestyle=":", linewidth=1)
    axis.set_xlabel("pixels; dotted: KITTI's 25 (moderate, hard) and 40 (easy)")
    axis.set_title("height of the boxes")


def _distances(axis: Axes, reports: Sequence[SetReport]) -> None:
    rows = [row for row in _rows(reports) if np.isfinite(row.distance_m)]
    if not rows:
        return _nothing(axis, "distance ahead")
    distances = {name: np.array([row.distance_m for row in rows if row.name == name]) for name in _names(rows)}
    _histogram(axis, distances, list(range(0, 101, 5)))
    axis.set_xlabel("metres, where the label has a position")
    axis.set_title("distance ahead")


def _drives(axis: Axes, reports: Sequence[SetReport]) -> None:
    totals: dict[str, int] = {}
    for report in reports:
        for drive, count in report.images_by_drive.items():
            totals[drive] = totals.get(drive, 0) + count
    names = sorted(totals, key=lambda name: -totals[name])
    shown = names[:MAX_DRIVES]
    title = f"images of a recording, the largest {len(shown)} of {len(names)}"
    _bars(axis, shown, [totals[name] for name in shown], title)


def _crowding(axis: Axes, reports: Sequence[SetReport]) -> None:
    with_boxes = [report for report in reports if report.boxes_per_image]
    if not with_boxes:
        return _nothing(axis, "objects in an image")
    edges = np.arange(-0.5, 21.5)
    for report in with_boxes:
        counts = np.clip(report.boxes_per_image, 0, 20)
        shares = np.histogram(counts, edges)[0] / len(counts)
        axis.plot(np.arange(21), shares, marker="o", markersize=3, label=_label(report).replace("\n", " "))
    axis.set_xticks([0, 5, 10, 15, 20], ["0", "5", "10", "15", "20+"])
    axis.set_xlabel("objects of trained classes in one image")
    axis.set_ylabel("share of the images")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    axis.set_title("objects in an image")


def _places(axis: Axes, reports: Sequence[SetReport]) -> None:
    """Where the objects touch the ground: a camera that sits or points otherwise shows here at once."""
    rows = _rows(reports)
    if not rows:
        return _nothing(axis, "where the objects stand")
    # the few small classes on top of the many cars
    for name, colour in zip(_names(rows), COLOURS, strict=False):
        feet = np.array([(row.foot_x, row.foot_y) for row in rows if row.name == name]).reshape(-1, 2)
        if len(feet):
            axis.scatter(feet[:, 0], feet[:, 1], s=5, alpha=0.35, color=colour, linewidths=0, label=name)
    axis.set_xlim(0, 1)
    axis.set_ylim(1.02, 0)
    axis.set_xlabel("middle of the lower edge, share of the image's width")
    axis.set_ylabel("share of its height")
    axis.legend(frameon=False, fontsize=9, markerscale=3, loc="upper left")
    axis.set_title("where the objects stand")


def _road(axis: Axes, reports: Sequence[SetReport]) -> None:
    total = sum((report.road_sum for report in reports), start=np.zeros_like(reports[0].road_sum))
    if not total[1].any():
        return _nothing(axis, "how often a place is road")
    often = np.divide(total[0], total[1], out=np.full_like(total[0], np.nan), where=total[1] > 0)
    shown = axis.imshow(often, cmap="viridis", vmin=0, vmax=1, extent=(0, 1, 1, 0), aspect="auto")
    axis.figure.colorbar(shown, ax=axis, shrink=0.8)
    axis.set_xlabel("share of the image's width")
    share = total[0].sum() / total[1].sum()
    axis.set_title(f"how often a place is road ({share:.0%} of all)")
