"""CityPersons: a sample of Cityscapes at 512x256 with boxes of people. Its cars have no boxes."""

from __future__ import annotations

from datasets.catalogue import DataSet
from datasets.labels import PEDESTRIAN, LabelRule
from datasets.readers.partial_boxes import LAYOUT, PartialBoxes, PartialSet

CITYPERSONS = PartialSet(
    "citypersons_sample",
    LabelRule(positive={"pedestrian": PEDESTRIAN}, labelled_classes=(False, True, True)),
    widest=0.46,
    lowest=20.0,
    reviewed="citypersons",
)
"""The set labels every person as Pedestrian with a full-body box 0.41 times as wide as tall. Riders and occluded
people are included, so a box can hold nothing but a car. The reviewed labels settle each box from 20 pixels up:
riders are cyclists, hidden people are ignored. Lower boxes are a few blurred pixels. Wider boxes hold groups or
seated people, as KITTI's Person_sitting. The recording is the city."""

DATA_SET = DataSet(
    name="citypersons_sample",
    folders=("extra/citypersons_sample",),
    present=lambda folder: folder.is_dir(),
    open=lambda folder, labels: PartialBoxes(folder, CITYPERSONS),
    weight=0.1,
    chosen_for=135,
    licence="research use; Zhang, Benenson, Schiele (CityPersons), Cordts et al. (Cityscapes)",
    classes=("Pedestrian", "Cyclist"),
    layout=LAYOUT,
    spec=CITYPERSONS,
    order=7,
)
