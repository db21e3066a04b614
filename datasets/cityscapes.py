"""Cityscapes frames of cities that CityPersons' sample does not hold. Teachers' labels alone."""

from __future__ import annotations

from datasets.catalogue import DataSet
from datasets.readers.teacher_labels import open_images
from perception.types import CLASS_NAMES

DATA_SET = DataSet(
    name="cityscapes",
    folders=("extra/cityscapes",),
    present=lambda folder: (folder / "image_2").is_dir(),
    open=lambda folder, labels: open_images(folder / "image_2", labels.teacher_labels, "cityscapes"),
    weight=0.1,
    chosen_for=36,
    licence="research use; Cordts et al. (Cityscapes)",
    classes=CLASS_NAMES,
    order=11,
)
