"""KITTI's tracking benchmark as single frames: one `Sample` for each frame that has an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.catalogue import DataSet, Layout
from datasets.checks.files import check_calibrations, one_line, text_stems
from datasets.checks.findings import SetReport, list_images, read_images
from datasets.kitti_road import road_mask
from datasets.labels import KITTI_RULE, LabelRule, rule_of, targets
from datasets.sample import Sample, image_stems
from perception.arrays import U8
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.formats.images import find_image, read_image
from perception.formats.kitti import TrackingRows, read_calibration, read_tracking
from perception.types import CLASS_NAMES

ROAD_FOLDER = "gt_road"
DRIVES = {
    f"{sequence:04d}": f"{day}_drive_{drive:04d}"
    for sequence, (day, drive) in enumerate(
        [("2011_09_26", n) for n in (5, 9, 11, 13, 14, 15, 18, 22, 32, 36, 56, 59, 60, 91)]
        + [("2011_09_28", n) for n in (1, 2, 21, 43)]
        + [("2011_09_29", n) for n in (4, 71)]
        + [("2011_10_03", 47)]
    )
}
"""Training sequence → raw recording.

0000, 0001, 0005, 0006, 0009, 0013, 0015 and 0019 were confirmed by finding the 3-D labels of object frames of a
known drive in them. The rest follow from the length of the recordings, in order of day, which each sequence's
calibration tells.
"""


def drive_of(folder: Path, sequence: str) -> str:
    """Recording of a sequence under `folder`; a synthetic street numbers its sequences as KITTI does its own."""
    if (folder / ROAD_FOLDER).is_dir():
        return f"{folder.parent.name}_{sequence}"
    return DRIVES.get(sequence, f"tracking_{sequence}")


class KittiTracking:
    """Frames under `<root>/training/image_02/<sequence>`; a sequence may hold fewer images than labels.

    Road masks come along where `gt_road/<sequence>` holds them, as `perception data street` writes it.

    Args:
        root: folder that holds `training/`.
        sequences: names such as `0006`; None takes every sequence with images.
        rule: how class names become targets.
        calibrations: folder of the sequences' calibrations for images of `full_hw`; None: those under `root`, for
            images as they are.
        full_hw: height and width of the images that `calibrations` belong to.

    Raises:
        UserError: a sequence without images or labels, or nothing at all.
    """

    def __init__(
        self,
        root: Path,
        sequences: Sequence[str] | None = None,
        rule: LabelRule = KITTI_RULE,
        calibrations: Path | None = None,
        full_hw: tuple[int, int] | None = None,
    ) -> None:
        self.root, self.rule = Path(root), rule
        self.variant = "" if rule == KITTI_RULE else repr(rule)
        self._calibrations, self._full_hw = calibrations or self.root / "training" / "calib", full_hw
        self.folder = self.root / "training"
        images = self.folder / "image_02"
        if sequences is None:
            sequences = sorted(p.name for p in images.iterdir() if p.is_dir()) if images.is_dir() else []
        self.frames: list[tuple[str, str]] = []
        for sequence in sequences:
            stems = image_stems(images / sequence)
            if not stems:
                raise UserError(f"{images / sequence}: no images", "000000.png or 000000.jpg and so on")
            for stem in stems:
                if not stem.isdecimal():
                    raise UserError(f"{images / sequence / stem}: not a frame number", "000000.png or 000000.jpg")
                self.frames.append((sequence, stem))
        if not self.frames:
            raise UserError(
                f"{images}: no sequences", "image_02/0000/000000.png", "perception data fetch kitti-tracking"
            )
        self._rows = {s: read_tracking(self.folder / "label_02" / f"{s}.txt", scores=False) for s in sequences}
        self._cameras = {s: self._camera(s) for s in sequences}

    def _camera(self, sequence: str) -> PinholeCamera | None:
        path = self._calibrations / f"{sequence}.txt"
        return PinholeCamera(read_calibration(path)["P2"]) if path.exists() else None

    def _camera_of(self, sequence: str, size_hw: tuple[int, int]) -> PinholeCamera | None:
        """Return the calibration of an image of this size."""
        camera, full = self._cameras[sequence], self._full_hw
        if camera is None or full is None:
            return camera
        scale = np.array([[size_hw[1] / full[1]], [size_hw[0] / full[0]], [1.0]])
        return replace(camera, P_cam2=camera.P_cam2 * scale)

    def _road(self, sequence: str, stem: str) -> U8 | None:
        path = self.folder / ROAD_FOLDER / sequence / f"{stem}.png"
        return road_mask(read_image(path)) if path.exists() else None

    @property
    def names(self) -> list[str]:
        """`<sequence>/<frame>` of each sample."""
        return [f"{sequence}/{stem}" for sequence, stem in self.frames]

    def rows(self, sequence: str) -> TrackingRows:
        """All label rows of a sequence, frames without an image included."""
        return self._rows[sequence]

    def __len__(self) -> int:
        return len(self.frames)

    def drive(self, i: int) -> str:
        """Recording of frame `i`."""
        return drive_of(self.folder, self.frames[i][0])

    def _image_path(self, sequence: str, stem: str) -> Path:
        folder = self.folder / "image_02" / sequence
        return find_image(folder, stem) or folder / f"{stem}.png"

    def files(self, i: int) -> list[Path]:
        """Every file that sample `i` is read from, where present; the image first."""
        sequence, stem = self.frames[i]
        return [
            self._image_path(sequence, stem),
            self.folder / "label_02" / f"{sequence}.txt",
            self._calibrations / f"{sequence}.txt",
            self.folder / ROAD_FOLDER / sequence / f"{stem}.png",
        ]

    def __getitem__(self, i: int) -> Sample:
        sequence, stem = self.frames[i]
        image = read_image(self._image_path(sequence, stem))
        rows = self._rows[sequence]
        objects = rows.objects[np.flatnonzero(rows.frame_ids == int(stem))]
        found = targets(objects, self.rule, (image.shape[0], image.shape[1]))
        return Sample(
            image_bgr=image,
            name=f"{sequence}/{stem}",
            drive=self.drive(i),
            boxes_xyxy=found.boxes_xyxy,
            class_ids=found.class_ids,
            ignore_boxes_xyxy=found.ignore_boxes_xyxy,
            ignore_class_ids=found.ignore_class_ids,
            class_names=self.rule.class_names,
            labelled_classes=self.rule.labelled_classes,
            distances_m=found.distances_m,
            boxes_xyzlhwr=found.boxes_xyzlhwr,
            road=self._road(sequence, stem),
            camera=self._camera_of(sequence, (image.shape[0], image.shape[1])),
        )


def check_kitti_tracking(root: Path, data_sets: Sequence[DataSet]) -> SetReport:
    """`training/{image_02,label_02,calib}`; sequences with fewer images than labels are normal and only noted."""
    report = SetReport("kitti-tracking", root)
    folder = root / "training"
    images = (
        sorted(p.name for p in (folder / "image_02").iterdir() if p.is_dir())
        if (folder / "image_02").is_dir()
        else []
    )
    labels = text_stems(folder / "label_02")
    report.counts |= {"sequences with images": len(images), "labels": len(labels), "images": 0}
    bare = [folder / "image_02" / name for name in sorted(set(images) - set(labels))]
    report.add_all("error", "sequence without label file", bare)
    unseen = [folder / "label_02" / f"{name}.txt" for name in labels if name not in images]
    report.add_all("note", "labels of a sequence without images", unseen)
    for name in labels:
        try:
            rows = read_tracking(folder / "label_02" / f"{name}.txt", scores=False)
        except UserError as error:
            report.add("error", "bad label", folder / "label_02" / f"{name}.txt", one_line(error))
            rows = None
        if rows is not None:
            _check_identities(report, folder / "label_02" / f"{name}.txt", rows)
        if name in images:
            _check_sequence(report, folder / "image_02" / name, rows)
    check_calibrations(report, folder / "calib", set(images))
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
    """Images of one sequence: numbered, of one size, and what lies between them and the labels."""
    stems = list_images(report, folder)
    strange = [stem for stem in stems if not stem.isdecimal()]
    report.add_all("error", "image without a frame number", [folder / stem for stem in strange])
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
    for stem, image in read_images(report, folder, stems):
        if image is None:
            continue
        sizes[image.shape[0], image.shape[1]] += 1
        if rows is not None:
            objects = rows.objects[np.flatnonzero(rows.frame_ids == int(stem))]
            report.add_boxes(objects, KITTI_RULE, (image.shape[0], image.shape[1]), f"{folder.name}/{stem}")
    if len(sizes) > 1:
        said = ", ".join(f"{count} of {w}x{h}" for (h, w), count in sizes.most_common())
        report.add("error", "images of several sizes in one sequence", folder, said)


DATA_SET = DataSet(
    name="kitti/tracking",
    folders=("kitti/tracking", "tracking", "."),
    present=lambda folder: (folder / "training/image_02").is_dir(),
    open=lambda folder, labels: KittiTracking(folder, rule=rule_of(labels.classes)),
    weight=0.14,
    chosen_for=188,
    licence="CC BY-NC-SA 3.0; Geiger, Lenz, Stiller, Urtasun (KITTI)",
    classes=CLASS_NAMES,
    road=True,
    layout=Layout(
        "kitti-tracking",
        "training/image_02/0000 with label_02",
        lambda folder: any((folder / "training" / name).is_dir() for name in ("image_02", "label_02")),
        check_kitti_tracking,
    ),
    order=1,
)
