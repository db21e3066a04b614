"""Check of labelled images in the formats of `datasets/formats`: what is broken, leaks, is too rare or too small."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from datasets.catalogue import DataSet, Layout
from datasets.checks.findings import BoxRow, Level, SetReport
from datasets.checks.similar import Hash, check_leaks, groups, image_hash, near_pairs
from datasets.formats import format_named, read
from datasets.formats.annotations import AnnotatedImage, AnnotationSet, Problems, road_mask
from datasets.formats.clean import NOTES
from perception.errors import UserError
from perception.formats.images import read_image
from perception.progress import Progress

NETWORK_HW = (384, 1248)
"""Network input for which sizes are judged: that of training's validation and of `perception export`."""
TOO_SMALL_PX = 7.0
"""Height in network pixels below which training ignores a box."""
COMFORTABLE_PX = 12.0
"""Height from which boxes are found well."""
LARGEST_FACTOR = 5.0
"""Of the network's input that is still advised."""
SMALL_SHARE = 0.1
"""Share of a class's boxes that may be too small before it is a warning."""
FEW_BOXES = 100
"""Boxes of a class below which its score is mostly chance."""
RARE = 50
"""A class this many times rarer than the most frequent one is a warning."""
SIZE_STEP = 32


def layout_of(form: str) -> Layout:
    """Return the layout of a format, for a data set's declaration."""
    declared = format_named(form)
    return Layout(form, declared.shape, declared.present, _check(form))


def _check(form: str) -> Callable[[Path, Sequence[DataSet]], SetReport]:
    def check(root: Path, data_sets: Sequence[DataSet]) -> SetReport:
        """Check a folder of this format."""
        report, problems = SetReport(form, root), Problems()
        try:
            found = read(root, problems, form)
        except UserError as error:
            report.add("error", "cannot be read", form, str(error).replace("\n", ";"))
            return report
        _tell(report, problems)
        hashes = _read_images(report, found)
        report.counts |= {"images": len(found.images), "boxes": sum(len(image.boxes) for image in found.images)}
        report.images_by_drive.update(image.drive or "unknown" for image in found.images)
        report.labelled += found.images
        check_similar(report, found.images, hashes)
        check_balance(report, found)
        check_sizes(report, found)
        return report

    return check


def _tell(report: SetReport, problems: Problems) -> None:
    """Turn the problems of reading into findings: what leaves labels out is an error."""
    for kind, count in problems.counts.items():
        level: Level = "note" if kind in NOTES else "error" if "left out" in kind else "warning"
        places = problems.places[kind]
        report.add_all(level, kind, places)
        if count > len(places):
            report.add(level, kind, f"{count - len(places)} more")


def _read_images(report: SetReport, found: AnnotationSet) -> list[Hash | None]:
    """Read every image and its road; return the hash of each, None where it cannot be read."""
    hashes: list[Hash | None] = []
    with Progress(f"reading {report.root.name}") as progress:
        for i, image in enumerate(found.images):
            try:
                pixels = read_image(image.path)
                hashes.append(image_hash(pixels))
                if (road := road_mask(image.road, image.size_hw)) is not None:
                    report.add_road(road)
            except UserError as error:
                report.add("error", "unreadable image or road mask", image.name, error.found)
                hashes.append(None)
            _count_boxes(report, image)
            progress.update(i + 1, len(found.images))
    return hashes


def _count_boxes(report: SetReport, image: AnnotatedImage) -> None:
    height, width = image.size_hw
    real = [box for box in image.boxes if not box.ignore]
    report.names.update(box.label for box in image.boxes)
    report.boxes_per_image.append(len(real))
    for box in real:
        left, top, right, bottom = box.xyxy
        distance = box.pose3d[6] if box.pose3d is not None and box.pose3d[6] > -999 else math.nan
        occlusion = -1 if box.occlusion is None else box.occlusion
        place = (left + right) / 2 / width, bottom / height
        report.boxes.append(BoxRow(box.label, bottom - top, distance, occlusion, *place))


def check_similar(report: SetReport, images: Sequence[AnnotatedImage], hashes: Sequence[Hash | None]) -> None:
    """Note near-copies across the split, where they make the score measure memory, and copies on one side."""
    known = [(image, value) for image, value in zip(images, hashes, strict=True) if value is not None]
    held = [(image, value) for image, value in known if image.split in ("val", "test")]
    rest = [(image, value) for image, value in known if image.split not in ("val", "test")]
    train, val = ([(image.name, value) for image, value in side] for side in (rest, held))
    check_leaks(report, train, val)
    for side in (rest, held):
        pairs = near_pairs([value for _, value in side])
        for group in groups(len(side), pairs):
            names = [side[i][0].name for i in group]
            report.add(
                "warning",
                "near-copies: they cost labels and add little; keep one of each group",
                ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else ""),
            )


def check_balance(report: SetReport, found: AnnotationSet) -> None:
    """Note classes that are rare, absent from one side of the split, or listed without a box."""
    counts = Counter(box.label for image in found.images for box in image.boxes if not box.ignore)
    most = max(counts.values(), default=0)
    for label in found.labels:
        count = counts[label]
        if not count:
            report.add(
                "warning", "class without a box: its images teach that there is none; drop it if unlabelled", label
            )
        elif count < FEW_BOXES or count * RARE < most:
            said = f"{count} boxes, the most frequent class has {most}"
            report.add("warning", "rare class: label more images that show it", label, said)
    sides: dict[str, Counter[str]] = {}
    for image in found.images:
        if image.split:
            sides.setdefault(image.split, Counter()).update(box.label for box in image.boxes if not box.ignore)
    for split in ("train", "val"):
        for label in (name for name in counts if split in sides and not sides[split][name]):
            report.add(
                "warning",
                "class in one side of the split only: move a recording with it",
                f"{label}: none in {split}",
            )


def check_sizes(report: SetReport, found: AnnotationSet, network_hw: tuple[int, int] = NETWORK_HW) -> None:
    """Note classes of which many boxes will be too small for the network's input, with a size that would do."""
    heights: dict[str, list[float]] = {}
    for image in found.images:
        scale = min(network_hw[0] / image.size_hw[0], network_hw[1] / image.size_hw[1])
        for box in image.boxes:
            if not box.ignore:
                heights.setdefault(box.label, []).append(scale * (box.xyxy[3] - box.xyxy[1]))
    for label, values in sorted(heights.items()):
        small = float(np.mean(np.array(values) < TOO_SMALL_PX))
        if small <= SMALL_SHARE:
            continue
        factor = COMFORTABLE_PX / float(np.percentile(values, 100 * SMALL_SHARE))
        height, width = (math.ceil(side * factor / SIZE_STEP) * SIZE_STEP for side in network_hw)
        median = float(np.median(values))
        advice = (
            f"at {height}x{width} nine in ten would have {COMFORTABLE_PX:g} (--data.validation-hw, perception export "
            "--size-hw), or crop the sky and the bonnet"
        )
        if factor > LARGEST_FACTOR:
            advice = "no usual input shows nine in ten: look whether the smallest boxes are meant"
        report.add(
            "warning",
            f"boxes too small to see: under {TOO_SMALL_PX:g} pixels in the network's {network_hw[0]}x{network_hw[1]}",
            label,
            f"{small:.0%} of {len(values)}, median {median:.0f} pixels; {advice}",
        )
