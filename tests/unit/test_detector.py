"""From images to boxes: the one path, its batches, its timings and the way back to each image's pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from perception.backends.replay import ReplayBackend
from perception.cameras.letterbox import letterbox, plan_letterbox
from perception.detector import Detector, read_outputs
from perception.errors import UserError
from perception.model import ModelSpec
from perception.types import CLASS_NAMES, Detections

SIZE = (96, 320)
SPEC = ModelSpec(CLASS_NAMES, SIZE)


class Recording(ReplayBackend):
    """Finds one box as large as the mean grey of the image, and keeps what it is given."""

    def __init__(self, batch: int | str = "N", max_batch: int | None = None) -> None:
        super().__init__(SPEC)
        self.inputs = {"images": (batch, *SIZE, 3)}
        self.max_batch = max_batch
        self.given: list[np.ndarray] = []

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = inputs["images"]
        self.given.append(images.copy())
        grey = images.mean((1, 2, 3)).round().astype(np.float32)
        boxes = np.stack([0 * grey, 0 * grey, grey, grey], axis=1)[:, None]  # (N, 1, 4)
        return {
            "boxes_xyxy": boxes,
            "scores": np.full((len(images), 1), 0.5, np.float32),
            "class_ids": np.zeros((len(images), 1), np.int64),
            "road": np.stack([np.full((24, 80), level, np.uint8) for level in grey]),
        }


def plain(level: int) -> np.ndarray:
    """An image of the network's own size."""
    return np.full((*SIZE, 3), level, np.uint8)


def test_each_image_gets_its_own_answer_in_its_own_pixels() -> None:
    detector = Detector((Recording(), SPEC), batch=3)
    twice_as_large = np.full((2 * SIZE[0], 2 * SIZE[1], 3), 40, np.uint8)
    (small, road), (large, large_road) = detector.run([plain(20), twice_as_large])
    assert small.boxes_xyxy.tolist() == [[0, 0, 20, 20]] and large.boxes_xyxy.tolist() == [[0, 0, 80, 80]]
    assert road is not None and (road.at_frame_size() == 20).all() and road.at_frame_size().shape == SIZE
    assert large_road is not None and large_road.at_frame_size().shape == (192, 640)
    alone, _ = detector(plain(30))
    assert alone.boxes_xyxy.tolist() == [[0, 0, 30, 30]]


def test_the_network_sees_what_letterbox_makes() -> None:
    backend = Recording()
    image = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    Detector((backend, SPEC))(image)
    np.testing.assert_array_equal(backend.given[0][0], letterbox(image, SIZE)[0])


@pytest.mark.parametrize(
    ("batch", "shape", "max_batch", "runs"),
    [
        (2, "N", None, [2, 2, 1]),
        (4, "N", 3, [3, 2]),
        (8, 1, None, [1] * 5),
        (8, "N", None, [5]),
        (1, "N", 4, [1] * 5),
    ],
)
def test_batches_are_as_large_as_asked_for_and_allowed(
    batch: int, shape: int | str, max_batch: int | None, runs: list[int]
) -> None:
    backend = Recording(shape, max_batch)
    found = Detector((backend, SPEC), batch=batch).run([plain(10 * i) for i in range(5)])
    assert [len(images) for images in backend.given] == runs
    assert [detections.boxes_xyxy[0, 2] for detections, _ in found] == [0, 10, 20, 30, 40]


def test_a_fixed_batch_is_run_full_whatever_the_number_of_images() -> None:
    backend = Recording(2, 2)
    detector = Detector((backend, SPEC), batch=1)
    assert detector.batch == 1
    assert [detections.boxes_xyxy[0, 2] for detections, _ in detector.run([plain(5), plain(6), plain(7)])] == [
        5,
        6,
        7,
    ]
    assert [len(images) for images in backend.given] == [2, 2, 2]


def test_timings_are_by_image_and_the_run_is_shared_out_evenly() -> None:
    backend = Recording()
    timings: list[dict[str, float]] = [{"decode": 1.0}, {}, {}]
    Detector((backend, SPEC), batch=2).run([plain(1), plain(2), plain(3)], timings)
    assert [list(stages) for stages in timings] == [
        ["decode", "letterbox", "network", "read"],
        ["letterbox", "network", "read"],
        ["letterbox", "network", "read"],
    ]
    assert timings[0]["network"] == timings[1]["network"] != timings[2]["network"]


def test_no_images_are_no_run() -> None:
    backend = Recording()
    assert Detector((backend, SPEC)).run([]) == [] and not backend.given


def test_low_scores_are_left_out() -> None:
    found = Detections(
        np.array([[0, 0, 9, 9]] * 3, np.float32), np.array([0.9, 0.3, 0.1], np.float32), np.array([0, 1, 2])
    )
    counts = [
        len(Detector((ReplayBackend(SPEC, [found]), SPEC), score)(plain(0))[0]) for score in (0.0, 0.3, 0.31, 1)
    ]
    assert counts == [3, 2, 1, 0]


def test_a_network_without_road_finds_none() -> None:
    outputs = Recording().run({"images": plain(8)[None]})
    del outputs["road"]
    assert read_outputs(outputs, 0, plan_letterbox(SIZE, SIZE))[1] is None


def test_a_model_with_other_inputs_is_refused() -> None:
    backend = Recording()
    backend.inputs = {"pixels": ("N", *SIZE, 3)}
    with pytest.raises(UserError, match="inputs are pixels"):
        Detector((backend, SPEC))
