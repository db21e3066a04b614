"""KITTI's road benchmark: which pixels are drivable road. Ground truth keeps the official colours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from datasets.catalogue import DataSet, Layout
from datasets.checks.files import check_calibrations
from datasets.checks.findings import SetReport, list_images, read_images
from datasets.labels import ALL_CLASSES, CAR
from datasets.sample import ROAD_IGNORE, Sample, image_stems
from datasets.splits import ROAD_PARTS, Division, HoldoutOptions, contiguous_part
from datasets.yardstick_split import same_streets
from perception.arrays import U8
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.formats.images import find_image, read_image
from perception.formats.kitti import read_calibration

DRAWN = Path(__file__).parent / "annotations/kitti_road_labels.json"
"""Boxes that were drawn on 21 of the frames for this project, the benchmark having none: `cars`, and `unclear` around
what is too far, too dark, or a van. Nobody on foot or on a bicycle is outside of those. The frames are those of the
sample data that its first fifth does not hold out, less five that show streets of the held-out object frames."""
CATEGORIES = ("um", "umm", "uu")
"""Urban marked, urban multiple marked lanes, urban unmarked."""


def is_road_name(name: str) -> bool:
    """True for `um_000001` and the like: road and object frames may share a folder."""
    category, _, number = name.partition("_")
    return category in CATEGORIES and number.isdecimal()


def ground_truth_name(name: str) -> str:
    """`um_000001` → `um_road_000001`; a plain `000001` → `um_road_000001` too."""
    category, number = name.split("_", 1) if "_" in name else ("um", name)
    return f"{category}_road_{number}"


def road_frames(folder: Path) -> list[str]:
    """Names of the road images in `<folder>/image_2`.

    Where none is named as the benchmark names them, plain numbers count that have a ground truth: so does the
    synthetic street write frames with boxes and road.
    """
    stems = image_stems(folder / "image_2")
    official = [name for name in stems if is_road_name(name)]
    truths = set(image_stems(folder / "gt_image_2"))
    return official or [name for name in stems if name.isdecimal() and ground_truth_name(name) in truths]


def road_mask(ground_truth_bgr: U8) -> U8:
    """Official colours (H, W, 3) → (H, W) 1 road, 0 not road, 255 not judged.

    Red marks the valid area, blue the road in it (road devkit readme).
    """
    valid, road = ground_truth_bgr[..., 2] > 0, ground_truth_bgr[..., 0] > 0
    return np.where(valid, road.astype(np.uint8), np.uint8(ROAD_IGNORE)).astype(np.uint8)


class KittiRoad:
    """Frames under `<root>/<part>/image_2` with `gt_image_2` and, where present, `calib`.

    The benchmark does not say which recording a frame comes from, so `drive` is empty; neighbours in a category
    are often neighbours in time: hold out whole runs of numbers, not every n-th.

    Args:
        root: folder that holds `training/`.
        categories: of `um`, `umm`, `uu`.
        part: `training`, or `testing` which has no ground truth.
        drawn: give the frames of `DRAWN` their boxes. False: what the benchmark says, which is no boxes.

    Raises:
        UserError: no frames.
    """

    def __init__(
        self, root: Path, categories: Sequence[str] = CATEGORIES, part: str = "training", drawn: bool = False
    ) -> None:
        self.drawn: dict[str, dict[str, list[list[float]]]] = json.loads(DRAWN.read_text()) if drawn else {}
        self.variant = "boxes" if drawn else ""  # copies in a cache are told apart by it
        self.root, self.folder = Path(root), Path(root) / part
        self.labelled = part != "testing"
        if unknown := sorted(set(categories) - set(CATEGORIES)):
            raise UserError(f"road category '{unknown[0]}'", "one of " + ", ".join(CATEGORIES))
        stems = [n for n in road_frames(self.folder) if ground_truth_name(n).split("_")[0] in categories]
        self.names = [n for n in stems if not self.labelled or self._truth_path(n).exists()]
        if not self.names:
            raise UserError(
                f"{self.folder}: no frames",
                "image_2/um_000000.png with gt_image_2/um_road_000000.png",
                "perception data fetch kitti-road",
            )

    def drive(self, i: int) -> str:
        """Empty: the benchmark does not say which recording a frame comes from."""
        return ""

    def _truth_path(self, name: str) -> Path:
        return self.folder / "gt_image_2" / f"{ground_truth_name(name)}.png"

    def __len__(self) -> int:
        return len(self.names)

    def _image_path(self, name: str) -> Path:
        return find_image(self.folder / "image_2", name) or self.folder / "image_2" / f"{name}.png"

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from, where present; the image first."""
        name = self.names[i]
        truth = [self._truth_path(name)] if self.labelled else []
        drawn = [DRAWN] if name in self.drawn else []
        return [self._image_path(name), *truth, self.folder / "calib" / f"{name}.txt", *drawn]

    def __getitem__(self, i: int) -> Sample:
        name = self.names[i]
        image = read_image(self._image_path(name))
        calibration = self.folder / "calib" / f"{name}.txt"
        camera = PinholeCamera(read_calibration(calibration)["P2"]) if calibration.exists() else None
        if not self.labelled:
            return Sample(image, name, camera=camera)
        path = self._truth_path(name)
        truth = read_image(path)
        if truth.shape != image.shape:
            raise UserError(
                f"{path}: found {truth.shape[1]}x{truth.shape[0]}", f"its image's {image.shape[1]}x{image.shape[0]}"
            )
        sample = Sample(image, name, road=road_mask(truth), camera=camera)
        if name not in self.drawn:
            return sample
        cars, unclear = (np.array(self.drawn[name][what], np.float32).reshape(-1, 4) for what in ("cars", "unclear"))
        return replace(
            sample,
            boxes_xyxy=cars,
            class_ids=np.full(len(cars), CAR),
            ignore_boxes_xyxy=unclear,
            ignore_class_ids=np.full(len(unclear), ALL_CLASSES),
            distances_m=np.full(len(cars), np.nan, np.float32),
        )


def divide(source: KittiRoad, options: HoldoutOptions) -> Division:
    """Hold out a contiguous part of each category: consecutive numbers are near copies."""
    part, parts = (options.fold, options.folds) if options.fold >= 0 else (options.road_fold, ROAD_PARTS)
    held: set[str] = set()
    for category in CATEGORIES if part >= 0 else ():
        held |= set(contiguous_part([n for n in source.names if n.startswith(category + "_")], part, parts))
    # frames of streets that held-out object frames show: on neither side of the split that everybody uses
    near = same_streets() if (options.fold, part) == (-1, 0) else frozenset[str]()
    return Division(
        tuple(name for name in source.names if name not in held and name not in near),
        tuple(name for name in source.names if name in held),
        f"part {part + 1} of {parts} of each category" if part >= 0 else "none asked for",
    )


def check_kitti_road(root: Path, data_sets: Sequence[DataSet]) -> SetReport:
    """`training/{image_2,gt_image_2,calib}` and `testing/{image_2,calib}`."""
    report = SetReport("kitti-road", root)
    folder = root / "training"
    list_images(report, folder / "image_2")
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
    for name, image in read_images(report, folder / "image_2", images):
        report.images_by_drive[ground_truth_name(name).split("_")[0]] += 1
        if image is not None and ground_truth_name(name) in truths:
            _check_road_truth(report, folder / "gt_image_2" / f"{ground_truth_name(name)}.png", image)
    check_calibrations(report, folder / "calib", set(images))
    testing = [name for name in list_images(report, root / "testing" / "image_2") if is_road_name(name)]
    if testing:
        report.counts["test images"] = len(testing)
        for _ in read_images(report, root / "testing" / "image_2", testing):
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


DATA_SET = DataSet(
    name="kitti/road",
    folders=("kitti/road", "road", "data_road", "."),
    present=lambda folder: (folder / "training/gt_image_2").is_dir(),
    open=lambda folder, labels: KittiRoad(folder, drawn=labels.hand_labels),
    weight=0.12,
    chosen_for=26,
    licence="CC BY-NC-SA 3.0; Fritsch, Kühnl, Geiger (KITTI)",
    classes=("Car",),
    road=True,
    divide=divide,
    validates="road",
    layout=Layout(
        "kitti-road",
        "training/image_2 with gt_image_2",
        lambda folder: (folder / "training/gt_image_2").is_dir(),
        check_kitti_road,
    ),
    order=3,
)
