"""Checks of data sets with boxes: KITTI object, KITTI tracking, and sets that label only some classes."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np

from datasets.carla import CARLA
from datasets.checks.findings import SetReport, list_pictures, read_pictures
from datasets.citypersons import CITYPERSONS
from datasets.dawn_fog import DAWN
from datasets.kitti_road import is_road_name
from datasets.kitti_tracking import drive_of
from datasets.labels import KITTI_RULE, LabelRule
from datasets.splits import read_drives, read_split
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.formats.kitti import (
    OBJECT_CLASSES,
    ObjectRows,
    TrackingRows,
    read_calibration,
    read_objects,
    read_tracking,
)

KNOWN = {known.name: known for known in (DAWN, CITYPERSONS, CARLA)}


def text_stems(folder: Path) -> list[str]:
    """Names without suffix of the text files in a folder, sorted; empty where the folder is missing."""
    return sorted(path.stem for path in folder.glob("*.txt")) if folder.is_dir() else []


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
            report.add("error", "bad calibration", folder / f"{name}.txt", _one_line(error))


def _one_line(error: Exception) -> str:
    """What is wrong, without the folder, which the finding names."""
    return error.found.rsplit("/", 1)[-1] if isinstance(error, UserError) else str(error)


# ---------------------------------------------------------------- KITTI object


def check_kitti_object(root: Path) -> SetReport:
    """`training/{image_2,label_2,calib}`, `testing/{image_2,calib}`, `ImageSets`, `drives.json` or the object kit."""
    report = SetReport("kitti-object", root)
    drives = _drives(report)
    folder = root / "training"
    images = [name for name in list_pictures(report, folder / "image_2") if not is_road_name(name)]
    labels = text_stems(folder / "label_2")
    report.counts |= {"images": len(images), "labels": len(labels)}
    _check_labels_and_images(report, folder, images, labels, KITTI_RULE, OBJECT_CLASSES)
    check_calibrations(report, folder / "calib", set(images))
    report.images_by_drive.update(drives.get(name, "unknown") for name in images)
    report.counts["drives"] = len({drives[name] for name in images if name in drives})
    if drives:
        unknown = [name for name in images if name not in drives]
        report.add_all("warning", "frame of unknown drive", unknown)
    _check_splits(report, set(images), set(labels), drives)
    testing = list_pictures(report, root / "testing" / "image_2")
    testing = [name for name in testing if not is_road_name(name)]
    if testing:
        report.counts["test images"] = len(testing)
        for _ in read_pictures(report, root / "testing" / "image_2", testing):
            pass
        check_calibrations(report, root / "testing" / "calib", set(testing))
    return report


def _drives(report: SetReport) -> dict[str, str]:
    try:
        return read_drives(report.root)
    except UserError as error:
        report.add("error", "unreadable list of drives", "drives.json", error.found)
        return {}


def _check_labels_and_images(
    report: SetReport,
    folder: Path,
    images: list[str],
    labels: list[str],
    rule: LabelRule,
    classes: tuple[str, ...] | None,
) -> None:
    """Pair `image_2` with `label_2`, read both, and look at every box."""
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
            report.add("error", "bad label", path, _one_line(error))
    for name, image in read_pictures(report, folder / "image_2", images):
        if image is not None and name in rows:
            report.add_boxes(rows[name], rule, (image.shape[0], image.shape[1]), f"{folder.name}/label_2/{name}.txt")


def _check_splits(report: SetReport, images: set[str], labels: set[str], drives: dict[str, str]) -> None:
    """Splits name frames that exist, and no two of them share a frame or a drive."""
    splits: dict[str, set[str]] = {}
    for name in text_stems(report.root / "ImageSets"):
        path = report.root / "ImageSets" / f"{name}.txt"
        try:
            splits[name] = set(read_split(report.root, path))
        except UserError as error:
            report.add("error", "bad split", path, _one_line(error))
            continue
        report.counts[f"frames in split {name}"] = len(splits[name])
        if not name.startswith("test"):
            missing = sorted(splits[name] - (images & labels))
            report.add_all("error", "split names a frame without image or label", [f"{name}: {n}" for n in missing])
    for (a, frames_a), (b, frames_b) in combinations(splits.items(), 2):
        if frames_a <= frames_b or frames_b <= frames_a or a.startswith("test") or b.startswith("test"):
            continue  # trainval holds train; test frames are of another numbering
        if shared := sorted(frames_a & frames_b):
            report.add("error", "splits share frames", f"{a} and {b}", f"{len(shared)}, the first is {shared[0]}")
        drives_of = [{drives[n] for n in frames if n in drives} for frames in (frames_a, frames_b)]
        report.add_all(
            "error", "splits share a drive", [f"{a} and {b}: {d}" for d in sorted(set.intersection(*drives_of))]
        )


# ---------------------------------------------------------------- KITTI tracking


def check_kitti_tracking(root: Path) -> SetReport:
    """`training/{image_02,label_02,calib}`; sequences with fewer images than labels are normal and only noted."""
    report = SetReport("kitti-tracking", root)
    folder = root / "training"
    pictures = (
        sorted(p.name for p in (folder / "image_02").iterdir() if p.is_dir())
        if (folder / "image_02").is_dir()
        else []
    )
    labels = text_stems(folder / "label_02")
    report.counts |= {"sequences with images": len(pictures), "labels": len(labels), "images": 0}
    bare = [folder / "image_02" / name for name in sorted(set(pictures) - set(labels))]
    report.add_all("error", "sequence without label file", bare)
    unseen = [folder / "label_02" / f"{name}.txt" for name in labels if name not in pictures]
    report.add_all("note", "labels of a sequence without images", unseen)
    for name in labels:
        try:
            rows = read_tracking(folder / "label_02" / f"{name}.txt", scores=False)
        except UserError as error:
            report.add("error", "bad label", folder / "label_02" / f"{name}.txt", _one_line(error))
            rows = None
        if rows is not None:
            _check_identities(report, folder / "label_02" / f"{name}.txt", rows)
        if name in pictures:
            _check_sequence(report, folder / "image_02" / name, rows)
    check_calibrations(report, folder / "calib", set(pictures))
    return report


def _check_identities(report: SetReport, path: Path, rows: TrackingRows) -> None:
    """An id once a frame, and one class a life."""
    objects = [i for i in range(len(rows)) if rows.track_ids[i] >= 0]
    pairs = Counter((int(rows.frame_ids[i]), int(rows.track_ids[i])) for i in objects)
    for (frame, track), count in pairs.items():
        if count > 1:
            report.add("error", "track id twice in a frame", path, f"track {track}, frame {frame}")
    classes: dict[int, set[str]] = {}
    for i in objects:
        classes.setdefault(int(rows.track_ids[i]), set()).add(rows.objects.names[i])
    for track, names in classes.items():
        if len(names) > 1:
            report.add("warning", "track changes its class", path, f"track {track}: {' and '.join(sorted(names))}")


def _check_sequence(report: SetReport, folder: Path, rows: TrackingRows | None) -> None:
    """Pictures of one sequence: numbered, of one size, and what lies between them and the labels."""
    stems = list_pictures(report, folder)
    strange = [stem for stem in stems if not stem.isdecimal()]
    report.add_all("error", "picture without a frame number", [folder / stem for stem in strange])
    stems = [stem for stem in stems if stem.isdecimal()]
    if not stems:
        report.add("error", "sequence without images", folder)
        return
    report.counts["images"] += len(stems)
    report.images_by_drive[drive_of(folder.parent.parent, folder.name)] += len(stems)
    frames = [int(stem) for stem in stems]
    if gaps := sorted(set(range(frames[0], frames[-1] + 1)) - set(frames)):
        report.add("warning", "frames missing in between", folder, f"{len(gaps)}, the first is {gaps[0]:06d}")
    last = int(rows.frame_ids.max()) if rows is not None and len(rows) else -1
    if last > frames[-1]:
        report.add("note", "fewer images than labels", folder, f"{len(frames)} images, labels up to frame {last}")
    sizes: Counter[tuple[int, int]] = Counter()
    for stem, image in read_pictures(report, folder, stems):
        if image is None:
            continue
        sizes[image.shape[0], image.shape[1]] += 1
        if rows is not None:
            objects = rows.objects[np.flatnonzero(rows.frame_ids == int(stem))]
            report.add_boxes(objects, KITTI_RULE, (image.shape[0], image.shape[1]), f"{folder.name}/{stem}")
    if len(sizes) > 1:
        said = ", ".join(f"{count} of {w}x{h}" for (h, w), count in sizes.most_common())
        report.add("error", "pictures of several sizes in one sequence", folder, said)


# ---------------------------------------------------------------- some classes only


def check_partial_boxes(root: Path) -> SetReport:
    """`image_2` with `label_2` in KITTI's columns; a set that is not known by name may use any class names."""
    known = KNOWN.get(root.name)
    report = SetReport(known.name if known else "boxes", root)
    images, labels = list_pictures(report, root / "image_2"), text_stems(root / "label_2")
    report.counts |= {"images": len(images), "labels": len(labels)}
    if known is None:
        said = "known are " + ", ".join(KNOWN)
        report.add("warning", "set that no reader knows", "image_2 and label_2", said)
    rule = known.rule if known else KITTI_RULE
    _check_labels_and_images(report, root, images, labels, rule, known.rule.names if known else None)
    drives = [name if known and known.scenes_apart else name.split("_")[0] for name in images]
    report.images_by_drive.update(drives)
    report.counts["drives"] = len(set(drives))
    return report
