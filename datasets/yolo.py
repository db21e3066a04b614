"""YOLO's text files with their data YAML: own data. Any class names."""

from __future__ import annotations

from datasets.catalogue import DataSet
from datasets.checks.own import layout_of
from datasets.formats.yolo import present
from datasets.readers.annotated import AnnotatedImages, divide
from perception.types import CLASS_NAMES

DATA_SET = DataSet(
    name="yolo",
    folders=("yolo", "."),
    present=present,
    open=lambda folder, labels: AnnotatedImages(folder, "yolo", labels),
    weight=0.2,
    chosen_for=100,
    licence="that of your own data",
    classes=CLASS_NAMES,
    road=True,
    divide=divide,
    validates="objects",
    layout=layout_of("yolo"),
    order=21,
)
