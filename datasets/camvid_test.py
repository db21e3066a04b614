"""CamVid's test frames of drive 0001TP, which the training split shows too. Used with teachers' labels alone."""

from __future__ import annotations

from pathlib import Path

from datasets.camvid import open_split
from datasets.catalogue import DataSet, ExtraLabels, SampleSource
from datasets.readers.teacher_labels import rows_of
from perception.types import CLASS_NAMES


def open_test(folder: Path, labels: ExtraLabels) -> SampleSource | None:
    """Open the frames; None without teachers' labels of them."""
    return open_split(folder, "test", labels) if rows_of(labels.teacher_labels, "camvid_test") else None


DATA_SET = DataSet(
    name="camvid_test",
    folders=("camvid",),
    present=lambda folder: (folder / "test").is_dir(),
    open=open_test,
    weight=0.03,
    chosen_for=62,
    licence="research use; Brostow, Fauqueur, Cipolla (CamVid), masks of the SegNet tutorial",
    classes=CLASS_NAMES,
    road=True,
    order=10,
)
