"""DAWN: real roads in fog, spray and dusk, with boxes."""

from __future__ import annotations

from pathlib import Path

from datasets.catalogue import DataSet, ExtraLabels, SampleSource
from datasets.labels import CAR, CYCLIST, PEDESTRIAN, LabelRule
from datasets.readers.partial_boxes import LAYOUT, PartialBoxes, PartialSet
from datasets.readers.teacher_labels import TeacherLabelled, rows_of
from datasets.splits import without
from datasets.yardstick_split import withheld
from perception.types import CLASS_NAMES

DAWN = PartialSet(
    "dawn_fog",
    LabelRule(
        positive={"car": CAR, "pedestrian": PEDESTRIAN, "cyclist": CYCLIST},
        # the set confuses trucks and buses with vans and cars; its motorcycles carry riders
        ignore={"truck": CAR, "bus": CAR, "motorcycle": CYCLIST},
    ),
    scenes_apart=True,
)


def open_frames(folder: Path, labels: ExtraLabels) -> SampleSource:
    """Open the frames. What teachers find beside the labels is ignored: the set misses far cars."""
    frames, rows = PartialBoxes(folder, DAWN), rows_of(labels.teacher_labels, "dawn_fog")
    return frames if rows is None else TeacherLabelled(frames, rows, drawn=True)


DATA_SET = DataSet(
    name="dawn_fog",
    folders=("extra/dawn_fog",),
    present=lambda folder: folder.is_dir(),
    open=open_frames,
    weight=0.13,
    chosen_for=234,
    licence="research use, not stated where it was found; Kenk, Hassaballah (DAWN)",
    classes=CLASS_NAMES,
    layout=LAYOUT,
    spec=DAWN,
    divide=lambda source, options: without(source.names, lambda name: name in withheld().dawn, "yardstick"),
    order=6,
)
