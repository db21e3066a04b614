"""DAWN: real roads in fog, spray and dusk, with boxes."""

from __future__ import annotations

from datasets.catalogue import DataSet
from datasets.labels import CAR, CYCLIST, PEDESTRIAN, LabelRule
from datasets.readers.partial_boxes import LAYOUT, PartialBoxes, PartialSet
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

DATA_SET = DataSet(
    name="dawn_fog",
    folders=("extra/dawn_fog",),
    present=lambda folder: folder.is_dir(),
    open=lambda folder, labels: PartialBoxes(folder, DAWN),
    weight=0.13,
    chosen_for=234,
    licence="research use, not stated where it was found; Kenk, Hassaballah (DAWN)",
    classes=CLASS_NAMES,
    layout=LAYOUT,
    spec=DAWN,
    order=6,
)
