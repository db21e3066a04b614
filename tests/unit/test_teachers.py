"""Foreign detectors as teachers: each known layout, its boxes in image pixels and this project's classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from datasets.labels import CAR, CYCLIST, PEDESTRIAN  # noqa: E402
from perception.boxes import iou  # noqa: E402
from perception.errors import UserError  # noqa: E402
from perception.formats.images import find_image, read_image  # noqa: E402
from training.teachers import load_teacher  # noqa: E402

SIZE = (64, 128)
ADAS = "pedestrian-and-vehicle-detector-adas-0001"
IMAGE = np.zeros((32, 64, 3), np.uint8)
"""Half the teacher's size, so boxes come back halved."""


def model(path: Path, outputs: dict[str, np.ndarray]) -> Path:
    """A graph that takes an image and returns constants."""
    nodes, values, initial = [], [], []
    zero = helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0)
    nothing = helper.make_node("Mul", ["mean", "zero"], ["nothing"])
    initial.append(numpy_helper.from_array(np.float32(0), "zero"))
    for name, value in outputs.items():
        initial.append(numpy_helper.from_array(value.astype(np.float32), f"{name}_value"))
        nodes.append(helper.make_node("Add", [f"{name}_value", "nothing"], [name]))
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, "h", "w"))
    graph = helper.make_graph([zero, nothing, *nodes], "teacher", [image], values, initial)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_ssd_rows_become_boxes(tmp_path: Path) -> None:
    rows = [
        [0, 2, 0.6, 0.0, 0.0, 0.25, 0.5],
        [0, 1, 0.9, 0.5, 0.5, 1, 1],
        [-1, 0, 0, 0, 0, 0, 0],
        [0, 7, 0.8, 0, 0, 1, 1],
    ]
    teacher = load_teacher(model(tmp_path / "ssd.onnx", {"rows": np.array(rows).reshape(1, 1, 4, 7)}), SIZE)
    found = teacher(IMAGE)
    assert found.class_ids.tolist() == [CAR, PEDESTRIAN] and found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.boxes_xyxy.tolist() == [[32, 16, 64, 32], [0, 0, 16, 16]]
    assert set(teacher.class_ids) == {CAR, PEDESTRIAN} and teacher.road is None


def test_yolox_is_decoded_and_suppressed(tmp_path: Path) -> None:
    points = sum((SIZE[0] // s) * (SIZE[1] // s) for s in (8, 16, 32))
    raw = np.zeros((1, points, 85), np.float32)
    raw[0, 0, :6] = [0.5, 0.5, 0, 0, 0.9, 0.9]  # a person of 8x8 px around (4, 4), score 0.81
    raw[0, 1, :6] = [-0.5, 0.5, 0, 0, 0.9, 0.8]  # the same from the next point, lower
    raw[0, 128, [0, 1, 2, 3, 4, 4 + 1 + 7]] = [2, 1, np.log(2), 0, 1, 0.7]  # a truck at stride 16
    raw[0, 5, [4, 5 + 1]] = 1  # a bicycle: no class of ours
    found = load_teacher(model(tmp_path / "yolox.onnx", {"raw": raw}), SIZE)(IMAGE)
    assert found.class_ids.tolist() == [PEDESTRIAN, CAR]
    assert found.scores.tolist() == pytest.approx([0.81, 0.7], abs=1e-3)
    assert np.allclose(found.boxes_xyxy, [[0, 0, 4, 4], [8, 4, 24, 12]], atol=0.01)


def test_classes_of_another_project_are_named_by_the_user(tmp_path: Path) -> None:
    """A truck and a bus in the same place: one box as Car, two as classes of their own."""
    points = sum((SIZE[0] // s) * (SIZE[1] // s) for s in (8, 16, 32))
    raw = np.zeros((1, points, 85), np.float32)
    raw[0, 128, [0, 1, 2, 3, 4, 5 + 7]] = [2, 1, np.log(2), 0, 1, 0.7]
    raw[0, 129, [0, 1, 2, 3, 4, 5 + 5]] = [1, 1, np.log(2), 0, 1, 0.6]
    path = model(tmp_path / "yolox.onnx", {"raw": raw})
    assert load_teacher(path, SIZE)(IMAGE).class_ids.tolist() == [CAR]
    teacher = load_teacher(path, SIZE, names={"truck": "Truck", "bus": "Bus", "car": "Car", "sofa": "Sofa"})
    assert teacher.finder.spec.class_names == ("Car", "Bus", "Truck") and teacher.class_ids == (CAR,)
    found, _ = teacher.finder(IMAGE)
    assert [teacher.finder.spec.class_names[i] for i in found.class_ids] == ["Truck", "Bus"]
    assert len(teacher(IMAGE)) == 0, "a teacher of three classes has no class for them"
    with pytest.raises(UserError, match="classes person, bicycle"):
        load_teacher(path, SIZE, names={"tram": "Tram"})


def test_detectors_that_a_file_beside_them_describes(tmp_path: Path) -> None:
    rows = np.zeros((1, 6, 3), np.float32)  # centre, size, scores of two classes, at three points
    rows[0, :, 0] = [32, 16, 16, 8, 0.1, 0.9]
    rows[0, :, 1] = [33, 16, 16, 8, 0.1, 0.8]
    rows[0, :, 2] = [96, 32, 32, 64, 0.6, 0.0]
    path = model(tmp_path / "v8.onnx", {"raw": rows})
    description = tmp_path / "v8.toml"
    description.write_text('layout = "yolo"\nclasses = ["Person", "bus"]\nrgb = true\nscale = 0.0039\n')
    finder = load_teacher(path, SIZE, names={"bus": "Bus", "person": "Pedestrian"}).finder
    found, _ = finder(IMAGE)
    assert [finder.spec.class_names[i] for i in found.class_ids] == ["Bus", "Pedestrian"]
    assert found.boxes_xyxy.tolist() == [[12, 6, 20, 10], [40, 0, 56, 32]]

    boxes = {"boxes": np.array([[8, 8, 24, 16], [0, 0, 8, 8.0]]), "scores": np.array([0.7, 0.9])}
    path = model(tmp_path / "vision.onnx", {**boxes, "labels": np.array([2.0, 0])})
    (tmp_path / "vision.toml").write_text('layout = "boxes"\nclasses = ["person", "bus"]\nfirst = 1\n')
    finder = load_teacher(path, SIZE, names={"bus": "Bus"}).finder
    found, _ = finder(IMAGE)
    assert found.boxes_xyxy.tolist() == [[4, 4, 12, 8]] and finder.spec.class_names == ("Bus",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('layout = "detr"\nclasses = ["bus"]', "layout 'detr'"),
        ('layout = "yolo"\nclasses = "bus"', "classes bus"),
        ('layout = "yolo"\nclasses = ["bus"]', "1 classes, but outputs raw of shape 1x6x3"),
        ('layout = "yolo"\nclasses = ["bus", "car"]\nfirst = 1', "first = 1"),
        ('layout = "yolo"\nclasses = ["bus", "car"]\nscale = 0', "scale 0"),
        ('layout = "yolo"\nclasses = ["bus", "car"]\nrgb = 1', "rgb 1"),
        ('layout = "yolo"\ncolour = 1', "unknown key 'colour'"),
        ("layout", "v8.toml"),
    ],
)
def test_wrong_descriptions(text: str, said: str, tmp_path: Path) -> None:
    path = model(tmp_path / "v8.onnx", {"raw": np.zeros((1, 6, 3), np.float32)})
    (tmp_path / "v8.toml").write_text(text)
    with pytest.raises(UserError, match=said):
        load_teacher(path, SIZE)


@pytest.mark.parametrize("size_hw", [(64, 100), (63, 128)])
def test_sizes_are_multiples_of_the_stride(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="multiples of 32"):
        load_teacher(model(tmp_path / "ssd.onnx", {"rows": np.zeros((1, 1, 4, 7))}), size_hw)


def test_an_unknown_layout_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="outputs of shape 1x10"):
        load_teacher(model(tmp_path / "classifier.onnx", {"classes": np.zeros((1, 10))}), SIZE)
    with pytest.raises(UserError, match="no such model"):
        load_teacher(tmp_path / "none.xml", SIZE)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(UserError, match="cannot load"):
        load_teacher(tmp_path / "text.onnx", SIZE)


def test_our_own_export_is_a_teacher() -> None:
    shipped = Path("perception/weights/nano-384x1248.onnx")
    teacher = load_teacher(shipped, (64, 64))
    teacher(IMAGE)
    assert set(teacher.class_ids) == {CAR, PEDESTRIAN, CYCLIST} and teacher.road is not None


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("person-vehicle-bike-detection-2003/person-vehicle-bike-detection-2003.xml", (CAR, PEDESTRIAN, CYCLIST)),
        ("person-detection-0203/person-detection-0203.xml", (PEDESTRIAN,)),
        (
            "pedestrian-and-vehicle-detector-adas-0001/pedestrian-and-vehicle-detector-adas-0001.xml",
            (CAR, PEDESTRIAN),
        ),
        ("yolox_nano_coco/yolox_nano.onnx", (CAR, PEDESTRIAN)),
    ],
)
def test_the_teachers_of_the_sample_data_find_a_pedestrian(
    data_root: Path, name: str, classes: tuple[int, ...]
) -> None:
    path = data_root.parent / "teachers" / name
    if not path.is_file():
        pytest.skip(f"no teacher at {path}")
    teacher = load_teacher(path, (384, 1248))
    assert teacher.class_ids == classes
    image = find_image(data_root / "kitti/object/training/image_2", "000076")
    assert image is not None
    found = teacher(read_image(image))
    people = found[(found.class_ids == PEDESTRIAN) & (found.scores > 0.3)]
    truth = np.array([[583.85, 164.01, 608.02, 237.87]])
    assert iou(people.boxes_xyxy, truth).max() > 0.6
