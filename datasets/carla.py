"""Frames of the CARLA simulator with boxes of vehicles and cyclists. Its pedestrians have no boxes."""

from __future__ import annotations

from datasets.catalogue import DataSet
from datasets.labels import CAR, CYCLIST, LabelRule
from datasets.readers.partial_boxes import LAYOUT, PartialBoxes, PartialSet

CARLA = PartialSet(
    "carla_danielhfnr",
    LabelRule(
        positive={"vehicle": CAR, "cyclist": CYCLIST},
        ignore={"motorcycle": CYCLIST},
        background=("traffic_light", "traffic_sign"),
        labelled_classes=(True, False, True),
    ),
)
"""The recording is the town."""

DATA_SET = DataSet(
    name="carla_danielhfnr",
    folders=("extra/carla_danielhfnr",),
    present=lambda folder: folder.is_dir(),
    open=lambda folder, labels: PartialBoxes(folder, CARLA),
    weight=0.04,
    chosen_for=257,
    licence="MIT; Daniel Hfnr (Carla-Object-Detection-Dataset)",
    classes=("Car", "Cyclist"),
    layout=LAYOUT,
    spec=CARLA,
    order=8,
)
