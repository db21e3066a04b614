"""Checks that several data sets share: images with label files beside them, calibrations, unreadable samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from datasets.checks.findings import SetReport, read_images
from datasets.labels import LabelRule
from perception.arrays import U8
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.files import data_files
from perception.formats.kitti import ObjectRows, read_calibration, read_objects


def text_stems(folder: Path) -> list[str]:
    """Names without suffix of the text files in a folder, sorted; empty where the folder is missing."""
    return [path.stem for path in data_files(folder, (".txt",))]


def check_calibrations(report: SetReport, folder: Path, wanted: set[str]) -> None:
    """Every image should have a calibration, and every calibration should read."""
    present = set(text_stems(folder))
    report.counts["calibrations"] = report.counts.get("calibrations", 0) + len(present & wanted)
    missing = sorted(wanted - present)
    report.add_all("warning", "image without calibration", [folder / f"{name}.txt" for name in missing])
    for name in sorted(present):
        try:
            PinholeCamera(read_calibration(folder / f"{name}.txt")["P2"])
        except (UserError, ValueError) as error:
            report.add("error", "bad calibration", folder / f"{name}.txt", one_line(error))


def one_line(error: Exception) -> str:
    """What is wrong, without the folder, which the finding names."""
    return error.found.rsplit("/", 1)[-1] if isinstance(error, UserError) else str(error)


def check_labels_and_images(
    report: SetReport,
    folder: Path,
    images: list[str],
    labels: list[str],
    rule: LabelRule,
    classes: tuple[str, ...] | None,
    seen: Callable[[str, U8], None] = lambda name, image: None,
) -> None:
    """Pair `image_2` with `label_2`, read both, and look at every box; `seen` is called with every image."""
    report.add_all(
        "error", "image without label", [folder / "image_2" / n for n in sorted(set(images) - set(labels))]
    )
    report.add_all(
        "warning", "label without image", [folder / "label_2" / f"{n}.txt" for n in sorted(set(labels) - set(images))]
    )
    rows: dict[str, ObjectRows] = {}
    for name in labels:
        path = folder / "label_2" / f"{name}.txt"
        try:
            rows[name] = read_objects(path, scores=False, classes=classes)
        except UserError as error:
            report.add("error", "bad label", path, one_line(error))
    for name, image in read_images(report, folder / "image_2", images):
        if image is not None:
            seen(name, image)
        if image is not None and name in rows:
            report.add_boxes(rows[name], rule, (image.shape[0], image.shape[1]), f"{folder.name}/label_2/{name}.txt")
