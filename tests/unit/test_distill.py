"""Learning from teachers: localization distillation, and frames that teachers label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import training_runs as runs  # noqa: E402

from datasets.labels import CAR, CYCLIST, PEDESTRIAN  # noqa: E402
from datasets.readers.teacher_labels import TeacherRows  # noqa: E402
from perception.arrays import U8  # noqa: E402
from perception.errors import UserError  # noqa: E402
from perception.types import Detections  # noqa: E402
from training.distill import DistillConfig, Distiller, distillation_losses, road_loss  # noqa: E402
from training.label_frames import fuse, label_frames, look  # noqa: E402
from training.models.heads.detection import RawDetections  # noqa: E402
from training.teachers import TeacherConfig  # noqa: E402

CONFIG = DistillConfig(class_weight=1, box_weight=1, temperature=1)


def raw(class_logits: list[float], bins: list[list[float]]) -> RawDetections:
    """One image, one class, a point for each logit, the same two bins for all four sides."""
    classes = torch.tensor(class_logits).reshape(1, -1, 1)
    return RawDetections(classes, torch.tensor(bins).reshape(1, -1, 1, 2).expand(-1, -1, 4, -1).flatten(2), None)


def test_equal_outputs_cost_nothing() -> None:
    teacher = raw([2.0, -3.0], [[0.0, 1.0], [2.0, 0.0]])
    losses = distillation_losses(teacher, teacher, CONFIG)
    assert losses["distill_class"] == pytest.approx(0, abs=1e-6) and losses["distill_box"] == pytest.approx(
        0, abs=1e-6
    )


def test_box_loss_is_the_divergence_weighted_by_the_teacher_s_score() -> None:
    """Teacher: bins at odds 3:1 where its score is 0.8. Student: 1:1. Four sides, normalised by 0.8."""
    teacher = raw([float(np.log(4)), -9.0], [[float(np.log(3)), 0.0], [5.0, 0.0]])
    student = raw([float(np.log(4)), -9.0], [[0.0, 0.0], [0.0, 0.0]])
    expected = 4 * (0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)) * 0.8
    # the second point is below `least_score`; the normaliser is at least 1
    assert float(distillation_losses(student, teacher, CONFIG)["distill_box"]) == pytest.approx(expected, rel=1e-4)


def test_class_loss_pulls_towards_the_teacher_s_probability_everywhere() -> None:
    teacher = raw([1.0, -4.0], [[0.0, 0.0]] * 2)
    logits = torch.zeros(1, 2, 1, requires_grad=True)
    student = RawDetections(logits, teacher.bin_logits, None)
    distillation_losses(student, teacher, CONFIG)["distill_class"].backward()
    assert logits.grad is not None
    expected = torch.tensor([0.5, 0.5]) - torch.tensor([1.0, -4.0]).sigmoid()
    assert torch.allclose(logits.grad.flatten(), expected, atol=1e-6)


def test_a_high_temperature_compares_logits() -> None:
    """Two bins whose logits differ by d: the loss tends to d²/8 a side, times the score (Hinton et al. 2015)."""
    teacher, student = raw([3.0], [[4.0, 0.0]]), raw([3.0], [[0.0, 0.0]])
    loss = float(distillation_losses(student, teacher, replace(CONFIG, temperature=100))["distill_box"])
    assert loss == pytest.approx(4 * 16 / 8 / (1 + np.exp(-3)), rel=0.01)


def test_the_road_costs_the_divergence_of_each_pixel() -> None:
    """A teacher of 3/4 and a student of 1/2: 3/4·ln(3/2) + 1/4·ln(1/2) nats a pixel; nothing where they are equal."""
    teacher, student = torch.full((2, 3, 5), float(np.log(3))), torch.zeros((2, 3, 5))
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert float(road_loss(student, teacher)) == pytest.approx(expected, rel=1e-4)
    assert float(road_loss(teacher, teacher)) == pytest.approx(0, abs=1e-6)


def test_a_small_network_learns_from_a_larger_one_without_labels(tmp_path: Path) -> None:
    from training.data import collate
    from training.example import TrainingImage, unknown_cuboids
    from training.loop import train_step
    from training.models.network import ModelConfig, Network

    torch.manual_seed(0)
    torch.set_num_threads(1)  # of two tiny networks; more would wait for one another on a busy machine
    teacher, student = Network(ModelConfig(channels=32)), Network(ModelConfig(channels=16))
    distiller = Distiller(replace(CONFIG, temperature=10), teacher, student)
    nothing, none, empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32)
    masks = np.full((3, 16, 24), 255, np.uint8)
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    picture = TrainingImage(
        image, nothing, none, nothing, none, (False,) * 3, masks, empty, empty, unknown_cuboids(0)
    )
    batch = collate([picture, picture])
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimiser = torch.optim.AdamW(student.parameters(), lr=2e-3)
    config = runs.tiny()
    losses = [train_step(student, batch, optimiser, config, None, distiller)[0] for _ in range(20)]
    assert {"distill_class", "distill_box", "distill_road"} <= losses[0].keys() and losses[0]["class"] == 0
    assert losses[-1]["distill_class"] < 0.5 * losses[0]["distill_class"]
    assert losses[-1]["distill_road"] < 0.5 * losses[0]["distill_road"]
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_teacher_of_other_classes_is_refused() -> None:
    from training.models.network import ModelConfig, Network

    student = Network(ModelConfig(channels=16))
    with pytest.raises(UserError, match="classes"):
        Distiller(CONFIG, Network(ModelConfig(channels=16, class_names=("Car",))), student)


# ---------------------------------------------------------------- labels on line


class Fixed:
    """A teacher that sees a car on the left of any image, and on the right of its mirror."""

    def __init__(
        self, score: float, class_ids: tuple[int, ...] = (CAR, PEDESTRIAN, CYCLIST), blind: bool = False
    ) -> None:
        self.score, self.class_ids, self.blind, self.looks = score, class_ids, blind, 0

    def __call__(self, image_bgr: U8) -> Detections:
        self.looks += 1
        if self.score == 0:
            return Detections.empty()
        mirrored = image_bgr[0, -1, 0] == 255
        box = [70, 10, 90, 30] if mirrored else [10, 10, 30, 30]
        return Detections(np.array([box], np.float32), np.array([self.score], np.float32), np.array([CAR]))


def image() -> U8:
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[0, 0] = 255
    return pixels


def test_looks_are_fused_and_mirrored_back() -> None:
    found = look(image(), [Fixed(0.8), Fixed(0.4)])
    assert found.boxes_xyxy[0].tolist() == pytest.approx([10, 10, 30, 30])
    assert found.scores.tolist() == pytest.approx([0.6])


def test_a_look_that_misses_lowers_the_score_and_one_that_knows_no_cars_does_not() -> None:
    assert look(image(), [Fixed(0.8), Fixed(0)]).scores.tolist() == pytest.approx([0.4])
    assert look(image(), [Fixed(0.8), Fixed(0, (PEDESTRIAN,))]).scores.tolist() == pytest.approx([0.8])


def test_two_boxes_of_one_look_count_once_and_classes_stay_apart() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10]], np.float32)
    one = Detections(boxes, np.array([0.6, 0.5, 0.3], np.float32), np.array([CAR, CAR, PEDESTRIAN]))
    found = fuse([one], {CAR: 1, PEDESTRIAN: 1, CYCLIST: 1})
    assert found.class_ids.tolist() == [CAR, PEDESTRIAN] and found.scores.tolist() == pytest.approx([0.6, 0.3])


def test_frames_are_labelled_once_and_read_as_targets(tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"drive/{name}.png"), image())
    teacher = Fixed(0.7)
    assert label_frames(tmp_path / "drive", [teacher], tmp_path / "labels/drive") == 2
    assert teacher.looks == 4
    assert label_frames(tmp_path / "drive", [teacher], tmp_path / "labels/drive") == 2
    assert teacher.looks == 4, "what is there is kept"
    found = TeacherRows(tmp_path / "labels", "drive").targets("a", (40, 100))
    assert found.class_ids.tolist() == [CAR] and found.confidences.tolist() == pytest.approx([1.0])
    with pytest.raises(UserError, match="no images"):
        label_frames(tmp_path / "labels", [teacher], tmp_path / "more")


def test_a_run_learns_from_a_folder_of_frames_and_two_teachers(tmp_path: Path) -> None:
    """An export labels the frames, a checkpoint of a larger network is distilled; a resumed run labels nothing."""
    from perception.model import WEIGHTS_FOLDER
    from training.loop import train

    for name in "abcdef":
        runs.write_picture(tmp_path / f"drive/{name}.png", runs.street(ord(name)))
    config = runs.tiny(tmp_path / "nowhere", steps=2, evaluate_every=2)
    config = replace(
        config,
        teachers=TeacherConfig(teacher=(WEIGHTS_FOLDER / "nano-384x1248.onnx",)),
        data=replace(config.data, unlabelled=tmp_path / "drive"),
        distill=DistillConfig(network=WEIGHTS_FOLDER / "nano.pt"),
    )
    train(config, tmp_path / "run")
    rows = tmp_path / "run/teacher_labels/drive"
    assert sorted(path.stem for path in rows.iterdir()) == list("abcdef")
    assert "distill_box" in (tmp_path / "run/metrics.jsonl").read_text()
    stamps = [path.stat().st_mtime_ns for path in rows.iterdir()]
    train(config, tmp_path / "run", resume=True)
    assert stamps == [path.stat().st_mtime_ns for path in rows.iterdir()]


def test_teachers_need_frames_and_a_folder_for_their_labels(tmp_path: Path) -> None:
    from training.label_frames import with_teachers

    with pytest.raises(UserError, match="without frames"):
        runs.tiny(teachers=TeacherConfig(teacher=(Path("teacher.onnx"),)))
    (tmp_path / "labels.zip").write_bytes(b"")
    config = runs.tiny()
    data = replace(config.data, unlabelled=tmp_path, teacher_labels=tmp_path / "labels.zip")
    with pytest.raises(UserError, match="archive"):
        with_teachers(replace(config, data=data, teachers=TeacherConfig((Path("teacher.onnx"),))), tmp_path / "run")
