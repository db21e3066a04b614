"""Cells, their sums and what a cell scores, with a network that finds a bright square."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.model import ModelSpec
from perception.trust.stress import (
    CLEAN,
    Cell,
    StressFrames,
    cells_in_order,
    load_cells,
    mean_under_corruption,
    run_cell,
    save_cell,
    watch_health,
)
from perception.trust.stress_frames import choose_frames, spread
from perception.types import CLASS_NAMES, Detections

LABEL = "Car 0.00 0 0.00 40.00 30.00 90.00 79.00 1.5 1.6 4.0 0 1.6 20 0.0\n"


def cell(kind: str, severity: int, car: float, road: float = math.nan) -> Cell:
    return Cell(kind, "", severity, {"Car": car}, road, {}, (), 1.0)


def test_the_mean_is_over_severities_then_kinds() -> None:
    cells = [cell(CLEAN, 0, 80), cell("fog", 1, 60), cell("fog", 3, 20), cell("snow", 1, 10)]
    assert mean_under_corruption(cells, "Car") == (80, 25, 25 / 80)
    assert math.isnan(mean_under_corruption(cells, "road")[1])


def test_a_run_that_is_cut_short_has_the_middle_of_all_kinds() -> None:
    assert cells_in_order(["a", "b"], (1, 3, 5)) == [
        (CLEAN, 0), ("a", 3), ("b", 3), ("a", 5), ("b", 5), ("a", 1), ("b", 1),
    ]  # fmt: skip


def test_a_cell_is_kept_and_read_again(tmp_path: Path) -> None:
    one = cell("fog", 2, 33.3)
    save_cell(tmp_path, one)
    read = load_cells(tmp_path)["fog", 2]
    assert read.ap == one.ap and math.isnan(read.max_f) and read.events == ()


def test_frames_are_spread_evenly() -> None:
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread(range(3), 0) == spread(range(3), 9) == [0, 1, 2]


class SquareFinder:
    """Finds the square where it is bright."""

    spec = ModelSpec(CLASS_NAMES, (96, 320))

    def __call__(self, image: np.ndarray) -> tuple[Detections, None]:
        if image[30:80, 40:91].mean() < 200:
            return Detections.empty(), None
        box = np.array([[40, 30, 90, 79]], np.float32)
        return Detections(box, np.ones(1, np.float32), np.zeros(1, np.int64)), None


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    training = tmp_path / "object" / "training"
    for name in ("label_2", "image_2"):
        (training / name).mkdir(parents=True)
    image = np.full((96, 320, 3), 60, np.uint8)
    image[30:80, 40:91] = 255
    for i in range(3):
        (training / "label_2" / f"{i:06d}.txt").write_text(LABEL)
        cv2.imwrite(str(training / "image_2" / f"{i:06d}.png"), image)
    return tmp_path


def test_a_cell_scores_what_the_network_finds_under_the_disturbance(kitti: Path) -> None:
    frames, notes = choose_frames(kitti, None, None, "", 2)
    assert [name for name, _, _ in frames.objects] == ["000000", "000002"] and "ground truth images" in notes[0]
    finder: object = SquareFinder()
    clean = run_cell(finder, frames, CLEAN, 0)  # type: ignore[arg-type]
    dark = run_cell(finder, frames, "night_gain", 5)  # type: ignore[arg-type]
    assert clean.ap["Car"] == pytest.approx(100 / 40) and dark.ap["Car"] == 0, "two objects reach one of 40 recalls"
    assert math.isnan(clean.max_f) and clean.hota == {}


def test_health_is_watched_from_the_disturbance_on(kitti: Path) -> None:
    noise = np.random.default_rng(0)
    paths = []
    for i in range(12):
        paths.append(kitti / f"{i}.png")
        cv2.imwrite(str(paths[-1]), noise.integers(0, 255, (96, 320, 3)).astype(np.uint8))
    assert watch_health(paths, None, 0) == ()

    class Black:
        def __call__(self, image: np.ndarray, severity: int, frame: str, seed: int) -> np.ndarray:
            return np.zeros_like(image)

    assert "black" in watch_health(paths, Black(), 5)  # type: ignore[arg-type]


def test_no_frames_at_all_is_an_empty_cell() -> None:
    one = run_cell(SquareFinder(), StressFrames(), CLEAN, 0)  # type: ignore[arg-type]
    assert one.ap == {} and math.isnan(one.max_f) and one.events == ()
