"""Any classes: what a class is, how it travels in a model file, and what labels become."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.catalogue import ExtraLabels
from datasets.kitti_object import KittiObject, check_kitti_object, label_names, open_objects
from datasets.labels import ALL_CLASSES, KITTI_RULE, numbering, rule_of
from perception.classes import DEFAULT_CLASSES, ClassInfo, SizePrior, classes_named, read_classes
from perception.errors import UserError
from perception.model import METADATA_KEY, ModelSpec
from perception.overlay import class_colours, track_colour
from perception.ranging.size_priors import SIZE_PRIORS, sizes_of
from perception.types import CLASS_NAMES, Track

BUS = """
[Car]
labels = ["car", "taxi"]
neighbours = ["Van"]

[Bus]
labels = ["bus", "coach"]
neighbours = ["truck", "Van"]
evaluated_as = "Van"
colour = "#ff8c00"
size = { height_m = 3.1, height_spread = 0.1, half_width_m = 1.3, half_depth_m = 6.0, half_depth_std_m = 1.0 }
"""


def classes_of(tmp_path: Path, text: str = BUS) -> tuple[ClassInfo, ...]:
    path = tmp_path / "classes.toml"
    path.write_text(text)
    return read_classes(path)


def test_a_file_of_classes(tmp_path: Path) -> None:
    car, bus = classes_of(tmp_path)
    assert car.label_names == ("car", "taxi") and car.result_name == "Car" and car.colour_bgr is None
    assert bus.result_name == "Van" and bus.colour_bgr == (0, 0x8C, 255)
    assert bus.size == SizePrior(3.1, 0.1, 1.3, 6.0, 1.0)
    assert classes_named(("Bus", "Cyclist", "Tram"), (car, bus)) == (bus, DEFAULT_CLASSES[2], ClassInfo("Tram"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no class"),
        ("Bus = 3", "Bus"),
        ("[Bus]\nlabel = ['bus']", "unknown key 'label'"),
        ("['big bus']", "name big bus"),
        ("[Bus]\nlabels = 'bus'", "labels bus"),
        ("[Bus]\nlabels = ['x']\n[Car]\nlabels = ['X']", "label 'x' in Bus and Car"),
        ("[Bus]\ncolour = 'orange'", "colour orange"),
        ("[Bus]\nsize = { height_m = 3 }", "no height_spread"),
        ("[Bus]\nsize = 3", "size 3"),
        ("[Bus]\nsize = { height_m = 'tall', height_spread = 1, half_width_m = 1, half_depth_m = 1,"
         " half_depth_std_m = 1 }", "size"),
    ],
)  # fmt: skip
def test_a_wrong_file_of_classes_is_a_sentence(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(UserError, match=found):
        classes_of(tmp_path, text)


def test_classes_travel_in_the_model_file(tmp_path: Path) -> None:
    spec = ModelSpec(("Car", "Bus"), (64, 96), classes=classes_of(tmp_path))
    again = ModelSpec.from_metadata({METADATA_KEY: spec.to_json()}, "m.onnx")
    assert again == spec and again.result_names == ("Car", "Van")
    assert class_colours(again) == {1: (0, 0x8C, 255)}
    track = Track(7, 1, np.zeros(4, np.float32), 0.9)
    assert track_colour(track, class_colours(again)) == (0, 0x8C, 255) != track_colour(track)
    sizes = sizes_of(again.class_infos)
    assert sizes["Bus"].height_m == 3.1 and sizes["Car"] == SIZE_PRIORS["Car"]
    assert sizes_of((ClassInfo("Lorry", evaluated_as="Truck"),))["Lorry"] == SIZE_PRIORS["Truck"]


def test_a_model_file_without_classes_means_what_it_meant() -> None:
    old = {"class_names": list(CLASS_NAMES), "size_hw": [64, 96], "contract": 1}
    spec = ModelSpec.from_metadata({METADATA_KEY: json.dumps(old)}, "old.onnx")
    assert spec.class_infos == DEFAULT_CLASSES and spec.result_names == CLASS_NAMES
    assert spec.classes == () and class_colours(spec) == {}


@pytest.mark.parametrize(
    "classes",
    [3, [3], [{}], [{"name": "Bus"}], [{"name": "Car", "labels": "x"}], [{"name": "Car", "size": {"a": 1}}]],
)
def test_a_strangers_classes_are_refused(classes: object) -> None:
    values = {"class_names": ["Car"], "size_hw": [64, 96], "contract": 1, "classes": classes}
    with pytest.raises(UserError, match=r"broken model metadata"):
        ModelSpec.from_metadata({METADATA_KEY: json.dumps(values)}, "m.onnx")


def test_labels_become_classes(tmp_path: Path) -> None:
    rule = rule_of(classes_of(tmp_path), ("car", "bus", "truck", "van", "tree"))
    assert rule.class_names == numbering(classes_of(tmp_path)) == (*CLASS_NAMES, "Bus")
    assert {name: rule.positive[name] for name in ("car", "taxi", "bus", "coach", "pedestrian")} == {
        "car": 0, "taxi": 0, "bus": 3, "coach": 3, "pedestrian": 1,
    }  # fmt: skip
    assert rule.ignore == {"dontcare": ALL_CLASSES, "van": ALL_CLASSES, "truck": 3, "person_sitting": 1, "person": 1}
    assert rule.labelled_classes == (True, False, False, True) and rule.background == ("tree",)
    # a neighbour that is a class of its own is no ignore region
    own = rule_of(classes_named(("Car", "Van")))
    assert own.positive["van"] == 3 and "van" not in own.ignore
    assert rule_of(DEFAULT_CLASSES) is KITTI_RULE
    some = rule_of(classes_named(("Cyclist", "Car")))
    assert replace(some, background=()) == replace(KITTI_RULE, background=())


def row(name: str, box: str) -> str:
    return f"{name} 0 0 -10 {box} -1 -1 -1 -1000 -1000 -1000 -10\n"


def test_own_names_in_kittis_layout(tmp_path: Path) -> None:
    from dataset_folders import write, write_image

    write_image(tmp_path / "training/image_2/000000.png", seed=0)
    write(tmp_path / "training/label_2/000000.txt", row("bus", "1 2 30 20") + row("Car", "31 2 40 20"))
    classes = ExtraLabels(classes=classes_named((*CLASS_NAMES, "Bus")))
    with pytest.raises(UserError, match="'bus'"):
        open_objects(tmp_path, classes)[0]
    (tmp_path / "classes.txt").write_text("bus\nCar\n")
    assert label_names(tmp_path) == ("bus", "Car", "DontCare")
    sample = open_objects(tmp_path, classes)[0]
    assert sample.class_names == (*CLASS_NAMES, "Bus") and sample.class_ids is not None
    assert sample.class_ids.tolist() == [3, 0] and sample.labelled_classes == (True, False, False, True)
    report = check_kitti_object(tmp_path, [])
    assert {row.name for row in report.boxes} == {"bus", "Car"} and not report.of_level("error")
    assert KittiObject(tmp_path, known=("bus", "car"))[0].class_ids.tolist() == [0]  # type: ignore[union-attr]
    (tmp_path / "classes.txt").write_text("two words\n")
    with pytest.raises(UserError, match="two words"):
        label_names(tmp_path)
