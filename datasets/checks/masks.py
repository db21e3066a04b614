"""Checks of data sets with a mask for every image: KITTI road, CamVid, IDD-Lite."""

from __future__ import annotations

from itertools import combinations, islice
from pathlib import Path

import cv2
import numpy as np

from datasets import camvid, idd_lite
from datasets.checks.boxes import check_calibrations
from datasets.checks.findings import SetReport, list_pictures, read_pictures
from datasets.kitti_road import ground_truth_name, is_road_name, road_frames, road_mask
from datasets.readers.index_masks import Legend
from datasets.sample import image_stems, read_image, read_index_mask
from perception.errors import UserError
from perception.types import U8

LEGENDS = (camvid.LEGEND, idd_lite.LEGEND)
SPLITS = ("train", "val", "test")


def check_kitti_road(root: Path) -> SetReport:
    """`training/{image_2,gt_image_2,calib}` and `testing/{image_2,calib}`."""
    report = SetReport("kitti-road", root)
    folder = root / "training"
    list_pictures(report, folder / "image_2")
    images = road_frames(folder)
    truths = {name for name in image_stems(folder / "gt_image_2") if "_road_" in name}
    wanted = {ground_truth_name(name): name for name in images}
    report.counts |= {"images": len(images), "ground truths": len(truths)}
    report.add_all(
        "error", "image without ground truth", [folder / "image_2" / wanted[t] for t in sorted(set(wanted) - truths)]
    )
    report.add_all(
        "warning", "ground truth without image", [folder / "gt_image_2" / t for t in sorted(truths - set(wanted))]
    )
    for name, image in read_pictures(report, folder / "image_2", images):
        report.images_by_drive[ground_truth_name(name).split("_")[0]] += 1
        if image is not None and ground_truth_name(name) in truths:
            _check_road_truth(report, folder / "gt_image_2" / f"{ground_truth_name(name)}.png", image)
    check_calibrations(report, folder / "calib", set(images))
    testing = [name for name in list_pictures(report, root / "testing" / "image_2") if is_road_name(name)]
    if testing:
        report.counts["test images"] = len(testing)
        for _ in read_pictures(report, root / "testing" / "image_2", testing):
            pass
        check_calibrations(report, root / "testing" / "calib", set(testing))
    return report


def _check_road_truth(report: SetReport, path: Path, image: U8) -> None:
    """Size, colours, and whether there is any road and any ignore area in it."""
    try:
        truth = read_image(path)
    except UserError as error:
        report.add("error", "unreadable ground truth", path, error.found)
        return
    if truth.shape != image.shape:
        said = f"{truth.shape[1]}x{truth.shape[0]} for an image of {image.shape[1]}x{image.shape[0]}"
        report.add("error", "ground truth of another size than its image", path, said)
        return
    blue, green, red = (int(plane.any()) for plane in cv2.split(truth))
    if green or not np.isin(truth, (0, 255)).all():
        report.add(
            "error", "ground truth in other colours than the official ones", path, "red valid, red and blue road"
        )
        return
    if not red:
        report.add("error", "ground truth without a valid pixel", path)
        return
    road = road_mask(truth)
    if not blue:
        report.add("warning", "ground truth without road", path)
    if (road != 255).all():
        report.add("note", "everything is marked valid, no ignore area", path)
    report.add_road(road)


def check_index_masks(root: Path) -> SetReport:
    """`train` with `trainannot`, `val` with `valannot`: CamVid or IDD-Lite, told apart by their class numbers."""
    legend, numbers = _legend(root)
    report = SetReport(legend.name if legend else "masks", root)
    if legend is None:
        report.add("error", "masks of unknown classes", "trainannot", f"class numbers {sorted(numbers)}")
    names: dict[str, list[str]] = {}
    for split in SPLITS:
        images = list_pictures(report, root / split)
        masks = set(image_stems(root / f"{split}annot"))
        if not images and not masks:
            continue
        names[split] = images
        report.counts |= {f"{split} images": len(images), f"{split} masks": len(masks)}
        report.add_all("error", "image without mask", [root / split / n for n in images if n not in masks])
        report.add_all(
            "warning", "mask without image", [root / f"{split}annot" / n for n in sorted(masks - set(images))]
        )
        for name, image in read_pictures(report, root / split, images):
            if image is not None and name in masks:
                _check_mask(report, root / f"{split}annot" / f"{name}.png", image, legend)
        report.images_by_drive.update(name.split("_")[0] for name in images)
    report.counts["drives"] = len(report.images_by_drive)
    drives = {split: {name.split("_")[0] for name in images} for split, images in names.items()}
    for a, b in combinations(drives, 2):
        shared = [f"{a} and {b}: {drive}" for drive in sorted(drives[a] & drives[b])]
        report.add_all("warning", "splits share a drive", shared, "as published; do not choose a model by it")
    return report


def _legend(root: Path) -> tuple[Legend | None, set[int]]:
    """The set whose numbers fit the first masks; where both fit, the folder's name decides."""
    numbers: set[int] = set()
    for path in islice(sorted((root / "trainannot").glob("*.png")), 20):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if mask is not None and mask.ndim == 2:
            numbers |= set(np.unique(mask).tolist())
    fitting = [legend for legend in LEGENDS if numbers <= legend.classes]
    named = [legend for legend in fitting if legend.name in root.name.lower()]
    return next(iter(named or fitting), None), numbers


def _check_mask(report: SetReport, path: Path, image: U8, legend: Legend | None) -> None:
    try:
        mask = read_index_mask(path, (image.shape[0], image.shape[1]))
    except UserError as error:
        report.add("error", "bad mask", path, error.found.rsplit("/", 1)[-1])
        return
    if legend is None:
        return
    if unknown := sorted(set(np.unique(mask).tolist()) - legend.classes):
        report.add("error", "mask with unknown class numbers", path, ", ".join(map(str, unknown)))
        return
    if (mask == legend.void).all():
        report.add("warning", "mask without a judged pixel", path)
    report.add_road(legend.table({legend.road: 1})[mask])
