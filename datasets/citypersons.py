"""CityPersons: a sample of Cityscapes at 512x256 with boxes of people. Its cars have no boxes."""

from __future__ import annotations

from pathlib import Path

from datasets.catalogue import DataSet, ExtraLabels, SampleSource
from datasets.labels import PEDESTRIAN, LabelRule
from datasets.readers.partial_boxes import LAYOUT, PartialBoxes, PartialSet
from datasets.readers.teacher_labels import open_images
from datasets.splits import without
from datasets.yardstick_split import withheld

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


def open_frames(folder: Path, labels: ExtraLabels) -> SampleSource:
    """Open the frames. Teachers' labels of this set hold the official boxes, riders with bicycles, and cars."""
    merged = open_images(folder / "image_2", labels.teacher_labels, "citypersons_sample_merged")
    return merged or PartialBoxes(folder, CITYPERSONS)


DATA_SET = DataSet(
    name="citypersons_sample",
    folders=("extra/citypersons_sample",),
    present=lambda folder: folder.is_dir(),
    open=open_frames,
    weight=0.1,
    chosen_for=135,
    licence="research use; Zhang, Benenson, Schiele (CityPersons), Cordts et al. (Cityscapes)",
    classes=("Pedestrian", "Cyclist"),
    layout=LAYOUT,
    spec=CITYPERSONS,
    divide=lambda source, options: without(
        source.names, lambda name: name.split("_")[0] in withheld().citypersons_cities, "yardstick"
    ),
    order=7,
)
