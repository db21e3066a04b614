"""Is a folder of data sets whole? Counts, label statistics, and every missing, unreadable or contradictory file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from datasets.catalogue import DataSet, ExtraLabels, Layout, data_sets
from datasets.checks.findings import SetReport
from perception.errors import UserError

MAX_DEPTH = 6


def layouts() -> dict[Layout, list[DataSet]]:
    """Return every layout with the data sets that have it."""
    found: dict[Layout, list[DataSet]] = {}
    for data_set in data_sets():
        if data_set.layout is not None:
            found.setdefault(data_set.layout, []).append(data_set)
    return found


def find_sets(root: Path) -> Iterator[tuple[Layout, Path]]:
    """Find every data set at or below `root`. Hidden folders and the inside of data sets are left out."""
    if root.name in ("training", "testing") and not (root / "training").is_dir():
        root = root.parent
    for folder, children, _ in os.walk(root):
        here = Path(folder)
        found = sorted((layout for layout in layouts() if layout.present(here)), key=lambda layout: layout.name)
        yield from ((layout, here) for layout in found)
        too_deep = len(here.relative_to(root).parts) >= MAX_DEPTH
        children[:] = [] if found or too_deep else sorted(c for c in children if not c.startswith("."))


def check(root: Path) -> list[SetReport]:
    """Check every data set at or below `root`.

    Raises:
        UserError: no such folder, or no data set in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder", "a folder with data sets", "perception data fetch --help")
    known = layouts()
    reports = [layout.check(folder, known[layout]) for layout, folder in find_sets(root)]
    without = [(one, one.find(root)) for one in data_sets() if one.layout is None]
    reports += [report for one, folder in without if folder and (report := check_samples(one, folder)) is not None]
    if not reports:
        shapes = "; ".join(layout.shape for layout in known)
        raise UserError(
            f"{root}: no data set found", f"one of these below it: {shapes}", "perception data fetch --help"
        )
    return reports


def check_samples(data_set: DataSet, folder: Path) -> SetReport | None:
    """Read every sample of a data set that declares no layout; None where nothing in the folder is used.

    Every sample that cannot be read is a finding.
    """
    report = SetReport(data_set.name, folder)
    try:
        source = data_set.open(folder, ExtraLabels())
    except UserError as error:
        report.add("error", "cannot be opened", folder, error.found)
        return report
    if source is None:
        return None
    report.counts["images"] = len(source)
    for i, name in enumerate(source.names):
        try:
            source[i]
        except UserError as error:
            report.add("error", "unreadable sample", str(name), error.found)
        report.images_by_drive[source.drive(i) or "unknown"] += 1
    return report


def shared_drives(reports: list[SetReport]) -> list[tuple[str, str, list[str]]]:
    """Recordings that two sets show: a model trained on one has seen the other. Folder, folder, drives."""
    shared = []
    for a, b in combinations(reports, 2):
        drives = sorted(drive for drive in a.images_by_drive if "_drive_" in drive and drive in b.images_by_drive)
        if drives:
            shared.append((str(a.root), str(b.root), drives))
    return shared
