"""Result rows of a network with 3-D boxes: whole where there is a calibration, and counted where there is none."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.backends.replay import ReplayBackend
from perception.cameras.cuboids import boxes_to_image
from perception.cameras.pinhole import PinholeCamera
from perception.detector import Detector
from perception.evaluation.object import ObjectEvaluator
from perception.evaluation.predictions import object_rows, predict_objects
from perception.formats.kitti import UNKNOWN_ALPHA, UNKNOWN_LOCATION, format_calibration, parse_objects, read_objects
from perception.model import ModelSpec
from perception.types import Detections

CAMERA = PinholeCamera(np.array([[200.0, 0, 48, 0], [0, 200, 20, 0], [0, 0, 1, 0]]))
TRUTH = np.array([[1.0, 1.7, 12.0, 4.0, 1.5, 1.6, 0.4]])
LABEL = "Car 0 0 0.32 40 20 80 60 1.5 1.6 4.0 1.0 1.7 12.0 0.4\n"
SPEC = ModelSpec(("Car", "Pedestrian"), (64, 96), name="test")


def detections() -> Detections:
    (centre,), (alpha,) = boxes_to_image(TRUTH, CAMERA)
    return Detections(
        np.array([[40, 20, 80, 60]], np.float32),
        np.array([0.9], np.float32),
        np.array([0]),
        np.array([[12 / 200, 0.1]], np.float32),
        np.array([[*centre, 4.0, 1.6, 1.5, alpha, 0.05, 0.1]], np.float32),
    )


def test_rows_hold_the_whole_box() -> None:
    rows = object_rows(detections(), SPEC.class_names, CAMERA)
    assert rows.location_cam2[0] == pytest.approx(TRUTH[0, :3], abs=1e-3)
    assert rows.dimensions_hwl[0] == pytest.approx([1.5, 1.6, 4.0])
    assert rows.rotation_y[0] == pytest.approx(0.4, abs=1e-5)
    assert rows.alpha[0] == pytest.approx(0.4 - np.arctan2(1, 12), abs=1e-5)


def test_without_a_calibration_angle_and_size_remain() -> None:
    rows = object_rows(detections(), SPEC.class_names, None)
    assert rows.alpha[0] != UNKNOWN_ALPHA and rows.dimensions_hwl[0, 2] == 4
    assert (rows.location_cam2 == UNKNOWN_LOCATION).all() and rows.rotation_y[0] == UNKNOWN_ALPHA
    bare = object_rows(Detections(*list(vars(detections()).values())[:3]), SPEC.class_names, CAMERA)
    assert bare.alpha[0] == UNKNOWN_ALPHA and bare.dimensions_hwl[0, 0] == -1, "an older model file"


def test_a_perfect_network_scores_in_every_metric(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = ReplayBackend(SPEC, [detections()])
    images = []
    for name in ("000001", "000002"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((64, 96, 3), np.uint8))
        images.append((name, tmp_path / f"{name}.png"))
    (tmp_path / "000001.txt").write_text(format_calibration({"P2": CAMERA.P_cam2}))
    with caplog.at_level(logging.WARNING):
        predict_objects(Detector((backend, SPEC)), images, tmp_path / "out", tmp_path)
    assert "1 of 2 images have no calibration" in caplog.text and "000002" in caplog.text
    placed, flat = (read_objects(tmp_path / "out" / f"{name}.txt", scores=True) for name, _ in images)
    assert flat.location_cam2[0, 0] == UNKNOWN_LOCATION and flat.alpha[0] != UNKNOWN_ALPHA
    evaluator = ObjectEvaluator()
    evaluator.process("000001", parse_objects(LABEL, scores=False), placed)
    evaluation = evaluator.evaluate()
    flat_score = evaluation.scores["Car", "hard"]
    assert flat_score.ap_r11 > 9, "one object of one reaches the first of eleven entries"
    assert flat_score.aos_r11 == pytest.approx(flat_score.ap_r11, rel=1e-4)
    for metric in ("bev", "3d"):
        assert evaluation.scores_3d[metric, "Car", "hard"].ap_r11 == flat_score.ap_r11
