"""nuScenes' front camera, Boston by day. Teachers' labels alone."""

from __future__ import annotations

from datasets.catalogue import DataSet
from datasets.readers.teacher_labels import open_images
from perception.types import CLASS_NAMES

DATA_SET = DataSet(
    name="nuscenes_front",
    folders=("extra/nuscenes_front",),
    present=lambda folder: (folder / "image").is_dir(),
    open=lambda folder, labels: open_images(folder / "image", labels.teacher_labels, "nuscenes_front"),
    weight=0.06,
    chosen_for=199,
    licence="CC BY-NC-SA 4.0; Caesar et al. (nuScenes)",
    classes=CLASS_NAMES,
    order=12,
)
