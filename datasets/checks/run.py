"""Is a folder of data sets whole? Counts, label statistics, and every missing, unreadable or contradictory file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from datasets.checks.boxes import check_kitti_object, check_kitti_tracking, check_partial_boxes
from datasets.checks.findings import SetReport
from datasets.checks.masks import check_index_masks, check_kitti_road
from datasets.kitti_road import is_road_name
from datasets.sample import image_stems
from perception.errors import UserError

MAX_DEPTH = 6


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk."""

    name: str
    shape: str
    """What it looks like, for people."""
    present: Callable[[Path], bool]
    check: Callable[[Path], SetReport]


def _is_object(folder: Path) -> bool:
    pictures = image_stems(folder / "training" / "image_2")
    return (folder / "training" / "label_2").is_dir() or any(not is_road_name(name) for name in pictures)


LAYOUTS = (
    Layout("kitti-object", "training/image_2 with label_2", _is_object, check_kitti_object),
    Layout(
        "kitti-road",
        "training/image_2 with gt_image_2",
        lambda folder: (folder / "training" / "gt_image_2").is_dir(),
        check_kitti_road,
    ),
    Layout(
        "kitti-tracking",
        "training/image_02/0000 with label_02",
        lambda folder: any((folder / "training" / name).is_dir() for name in ("image_02", "label_02")),
        check_kitti_tracking,
    ),
    Layout(
        "masks",
        "train with trainannot (CamVid, IDD-Lite)",
        lambda folder: (folder / "train").is_dir() and (folder / "trainannot").is_dir(),
        check_index_masks,
    ),
    Layout(
        "boxes",
        "image_2 with label_2 (DAWN, CityPersons, CARLA)",
        lambda folder: (folder / "image_2").is_dir() and (folder / "label_2").is_dir(),
        check_partial_boxes,
    ),
)


def find_sets(root: Path) -> Iterator[tuple[Layout, Path]]:
    """Every data set at or below `root`, hidden folders left out; nothing is looked for inside a set."""
    if root.name in ("training", "testing") and not (root / "training").is_dir():
        root = root.parent
    for folder, children, _ in os.walk(root):
        here = Path(folder)
        found = [layout for layout in LAYOUTS if layout.present(here)]
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
    reports = [layout.check(folder) for layout, folder in find_sets(root)]
    if not reports:
        shapes = "; ".join(layout.shape for layout in LAYOUTS)
        raise UserError(
            f"{root}: no data set found", f"one of these below it: {shapes}", "perception data fetch --help"
        )
    return reports


def shared_drives(reports: list[SetReport]) -> list[tuple[str, str, list[str]]]:
    """Recordings that two sets show: a model trained on one has seen the other. Folder, folder, drives."""
    shared = []
    for a, b in combinations(reports, 2):
        drives = sorted(drive for drive in a.images_by_drive if "_drive_" in drive and drive in b.images_by_drive)
        if drives:
            shared.append((str(a.root), str(b.root), drives))
    return shared
