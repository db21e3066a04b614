"""Distance from the training set's frames: fitted, stored, and an event within seconds."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from perception.errors import UserError
from perception.familiarity import FEATURES, Familiarity, frame_features
from perception.model import METADATA_KEY, ModelSpec
from perception.runtime.unfamiliar import FamiliarityMonitor
from perception.trust.familiarity import auroc, fit_familiarity
from perception.types import CLASS_NAMES, Detections, Frame, HealthEvent

SCENE = cv2.resize(np.random.default_rng(3).integers(0, 255, (24, 72, 3)).astype(np.uint8), (360, 120))


def day(i: int) -> np.ndarray:
    rng = np.random.default_rng(i)
    image = np.roll(SCENE, 5 * i, axis=1) * rng.uniform(0.8, 1.0) + rng.normal(0, 3, SCENE.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def night(i: int) -> np.ndarray:
    return (day(i) // 8).astype(np.uint8)


def fog(i: int) -> np.ndarray:
    return cv2.addWeighted(day(i), 0.4, np.full_like(SCENE, 200), 0.6, 0)


def features(images: list[np.ndarray]) -> np.ndarray:
    return np.array([frame_features(image, Detections.empty(), None, 0.3) for image in images])


@pytest.fixture(scope="module")
def familiar() -> Familiarity:
    return fit_familiarity(features([day(i) for i in range(80)]))


def test_a_frame_is_described_by_its_named_numbers() -> None:
    grey = np.full((100, 200, 3), 64, np.uint8)
    found = Detections(np.zeros((3, 4), np.float32), np.array([0.9, 0.2, 0.05], np.float32), np.zeros(3, np.int64))
    values = dict(zip(FEATURES, frame_features(grey, found, None, 0.3), strict=True))
    assert values["light"] == pytest.approx(1) and values["contrast"] == values["saturation"] == 0
    assert values["sharpness"] == values["noise"] == values["blue_to_red"] == 0
    assert values["haze"] == pytest.approx(np.log(65))
    assert values["sure"] == values["unsure"] == pytest.approx(np.log(2)) and values["best_score"] == pytest.approx(
        1.8
    )


def test_distance_by_hand() -> None:
    one = Familiarity((1.0, 2.0), ((1.0, 0.0), (0.0, 0.25)), 2.0)
    assert one.distance(np.array([1.0, 2.0])) == 0
    assert one.distance(np.array([2.0, 4.0])) == pytest.approx(1.0)  # one deviation in each of two directions


def test_day_is_familiar_and_night_and_fog_are_not(familiar: Familiarity) -> None:
    usual, dark, misty = (
        np.array([familiar.distance(row) for row in features([make(i) for i in range(100, 130)])])
        for make in (day, night, fog)
    )
    assert (usual > familiar.threshold).mean() < 0.15
    assert auroc(usual, dark) > 0.99 and auroc(usual, misty) > 0.99
    assert np.median(usual) < 1 < np.median(dark)


def test_auroc_by_hand() -> None:
    assert auroc(np.array([1.0, 2]), np.array([3.0, 4])) == 1
    assert auroc(np.array([1.0, 3]), np.array([2.0, 3])) == pytest.approx(2.5 / 4)
    assert np.isnan(auroc(np.zeros(0), np.ones(1)))


def test_an_event_begins_within_seconds_and_ends(familiar: Familiarity) -> None:
    monitor = FamiliarityMonitor("cam", familiar, 0.3)
    events: list[HealthEvent] = []
    for i in range(90):
        image = night(i) if 30 <= i < 60 else day(i)
        events += monitor.update(Frame(image, i * 10**8, i), Detections.empty(), None)
    assert [(e.kind, e.active, (e.timestamp_ns or 0) // 10**8) for e in events] == [
        ("unfamiliar", True, 40),
        ("unfamiliar", False, 70),
    ]


def test_the_model_file_carries_it_and_refuses_nonsense(familiar: Familiarity) -> None:
    spec = ModelSpec(CLASS_NAMES, (96, 320), familiar=familiar)
    assert ModelSpec.from_metadata({METADATA_KEY: spec.to_json()}, "m.onnx").familiar == familiar
    values = json.loads(spec.to_json())
    for wrong in ({"threshold": 0}, {"mean": [1, 2]}, {"precision": [["x"]]}, {"mean": None}):
        broken = {METADATA_KEY: json.dumps(values | {"familiar": values["familiar"] | wrong})}
        with pytest.raises(UserError, match="familiar"):
            ModelSpec.from_metadata(broken, "m.onnx")
