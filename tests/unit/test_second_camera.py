"""Two cameras with one calibration: which boxes can be one object, which frames are a pair, what is reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from perception.arrays import U8
from perception.backends import Backend
from perception.backends.replay import ReplayBackend
from perception.model import ModelSpec
from perception.runtime.config import PipelineConfig
from perception.runtime.pipeline import Pipeline
from perception.runtime.second_camera import CameraPair, PairMatcher, in_both_views, same_object
from perception.source_options import SourceOptions
from perception.sources import Source
from perception.trust.ensemble import Ensemble, make_views
from perception.types import CLASS_NAMES, Detections, Frame, HealthEvent, RoadMask


def boxes(*rows: Sequence[float]) -> Detections:
    values = np.array(rows, np.float32).reshape(-1, 4)
    return Detections(values, np.full(len(values), 0.9, np.float32), np.zeros(len(values), np.int64))


def test_the_baseline_says_how_far_a_box_may_be_shifted() -> None:
    # 60 px high; at 0.5 m the shift is 60 · 0.5 / 4 = 7.5 to 60 · 0.5 / 0.8 = 37.5 px, and a quarter width (10) more
    left = boxes((300, 100, 340, 160))
    shifts = (-5, 0, 5, 20, 45, 50)
    right = boxes(*((300 - s, 100, 340 - s, 160) for s in shifts))
    assert same_object(left, right, 0.5)[0].tolist() == [False, True, True, True, True, False]
    # without a baseline the view is the same: a quarter width either way
    assert same_object(left, right, 0.0)[0].tolist() == [True, True, True, False, False, False]
    others = boxes((280, 135, 320, 195), (280, 100, 296, 160))  # another row, another width
    assert not same_object(left, others, 0.5).any()


def test_a_box_that_the_other_camera_may_not_see_says_nothing() -> None:
    found = boxes((30, 100, 70, 160), (50, 100, 90, 160), (560, 100, 600, 160), (580, 100, 620, 160))
    assert in_both_views(found, 0.5, 640, left=True).tolist() == [False, True, True, True]  # 37.5 px
    assert in_both_views(found, 0.5, 640, left=False).tolist() == [True, True, True, False]


def test_on_the_synthetic_street_each_object_is_itself() -> None:
    from datasets.synthetic_street import StreetConfig, SyntheticStreet
    from perception.boxes3d import corners_3d

    street = SyntheticStreet(StreetConfig(seed=3, frames=1, setting="city", weather="sun"))
    rows = street.frame(0).rows.objects
    solid = np.concatenate([rows.location_cam2, rows.dimensions_hwl[:, [2, 0, 1]], rows.rotation_y[:, None]], 1)
    corners = corners_3d(solid)  # (N, 8, 3)
    near = (corners[..., 2] > 2).all(1) & (rows.boxes_xyxy[:, 3] - rows.boxes_xyxy[:, 1] >= 25)
    baseline_m = 0.54  # KITTI's

    def seen(right: bool) -> Detections:
        moved = corners[near] - np.array([baseline_m if right else 0.0, 0, 0])
        homogeneous = np.concatenate([moved, np.ones((*moved.shape[:2], 1))], -1)
        image = homogeneous @ street.camera.P_cam2.T
        points = image[..., :2] / image[..., 2:]
        return boxes(*np.concatenate([points.min(1), points.max(1)], 1))

    pairs = same_object(seen(False), seen(True), baseline_m)
    assert near.sum() >= 5 and pairs.diagonal().all()
    assert pairs.sum() <= 2 * near.sum()  # parked cars in a row overlap


def test_the_shipped_network_agrees_with_itself_on_rendered_pairs() -> None:
    from datasets.synthetic_street import StreetConfig, SyntheticStreet
    from perception.backends import load_model
    from perception.detector import Detector

    model = load_model("nano-384x1248.onnx", "cpu", 1)
    detect = Detector(model, model.spec.track_threshold)
    for seed in (5, 7):
        left = SyntheticStreet(StreetConfig(seed=seed, frames=11, setting="city", weather="sun"))
        right = copy(left)
        right.traffic = replace(left.traffic, ego_d=left.traffic.ego_d + 0.54)  # metres to the right
        seen = [detect(street.frame(10).image_bgr)[0] for street in (left, right)]
        assert all(((found.scores >= 0.5) & (found.class_ids == 0)).sum() >= 1 for found in seen)
        counts = []
        for baseline_m in (0.54, 0.0, 3.0):
            matcher = PairMatcher(CameraPair("l", "r", baseline_m), model.spec.score_threshold)
            matcher.update(frame("l", 0.0), seen[0])
            found, _ = matcher.update(frame("r", 0.0), seen[1])
            assert found is not None
            counts.append(len(found.only_first) + len(found.only_second))
        assert counts[0] == 0 < min(counts[1:]), "only the true baseline explains both images"


def frame(source: str, seconds: float) -> Frame:
    return Frame(np.zeros((200, 640, 3), np.uint8), round(seconds * 1e9), round(seconds * 10), source)


def test_frames_are_paired_by_time_and_a_missing_box_is_a_disagreement() -> None:
    matcher = PairMatcher(CameraPair("l", "r", 0.5), 0.3)
    both, more = boxes((300, 100, 340, 160)), boxes((280, 100, 320, 160), (450, 100, 490, 160))
    assert matcher.update(frame("l", 0.0), both) == (None, [])
    found, events = matcher.update(frame("r", 0.02), more)
    assert found is not None and not events and not len(found.only_first)
    assert found.only_second.boxes_xyxy.tolist() == [[450, 100, 490, 160]]
    assert matcher.update(frame("r", 0.1), more)[0] is None  # 80 ms after the last left frame, which is used up
    found, _ = matcher.update(frame("l", 0.1), both)
    assert found is not None and len(found.only_second) == 1


def test_clocks_that_do_not_agree_are_reported_once() -> None:
    matcher = PairMatcher(CameraPair("l", "r"), 0.3)
    events: list[HealthEvent] = []
    for i in range(60):
        shift = 0.05 if i < 40 else 0.0
        events += (
            matcher.update(frame("l", i / 10), boxes())[1] + matcher.update(frame("r", i / 10 + shift), boxes())[1]
        )
    assert [(e.kind, e.active, round((e.timestamp_ns or 0) / 1e9, 2)) for e in events] == [
        ("unpaired", True, 2.05),
        ("unpaired", False, 4.0),
    ]


class Bright:
    """Finds the one bright rectangle of an image."""

    spec = ModelSpec(CLASS_NAMES, (96, 320), name="bright")
    provider = "test"
    batch = 1
    backend: Backend = ReplayBackend(spec)

    def __call__(self, image: U8) -> tuple[Detections, RoadMask | None]:
        ys, xs = np.nonzero(image[..., 0] > 200)
        return boxes((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)) if len(ys) else Detections.empty(), None

    def run(
        self, images: Sequence[U8], timings_ms: Sequence[dict[str, float]] | None = None
    ) -> list[tuple[Detections, RoadMask | None]]:
        return [self(image) for image in images]


class Camera(Source):
    """Shows a rectangle in all frames, or in those until one."""

    kind = "script"

    def __init__(self, name: str, left: int, until: int) -> None:
        super().__init__(name, name, SourceOptions())
        self.size_hw, self.left, self.until = (96, 320), left, until

    def read(self) -> Iterator[Frame]:
        for i in range(20):
            image = np.random.default_rng(i).integers(0, 100, (96, 320, 3)).astype(np.uint8)
            if i < self.until:
                image[30:70, self.left : self.left + 30] = 255
            yield Frame(image, i * 10**8, i, self.name)


def test_a_camera_that_goes_blind_to_an_object_is_a_health_event() -> None:
    events: list[HealthEvent] = []
    cameras = [Camera("left", 150, 20), Camera("right", 140, 8)]
    pipeline = Pipeline(
        cameras,
        Bright(),
        config=PipelineConfig(health=False),
        on_event=events.append,
        pair=CameraPair("left", "right", 0.5),
    )
    results = list(pipeline)
    counts = [len(r.disagreement.only_first) for r in results if r.disagreement is not None]
    assert len(results) == 40 and counts == [0] * 8 + [1] * 12
    told = [event for event in events if event.kind == "disagreement"]
    assert [(e.active, e.source) for e in told] == [(True, "left")]
    assert told[0].detail == "only left sees a Car at 150,30–180,70" and told[0].timestamp_ns == 14 * 10**8


def test_an_ensemble_drives_the_pipeline() -> None:
    both = Ensemble([Bright(), Bright()], make_views(flip=True), 0.3)  # type: ignore[list-item]
    results = list(Pipeline([Camera("a", 150, 10)], both, config=PipelineConfig(health=False)))
    assert [len(r.detections) for r in results] == [1] * 10 + [0] * 10
    assert results[0].detections.boxes_xyxy.tolist() == [[150, 30, 180, 70]]
    assert results[0].timings_ms["network"] > 0 and len(results[9].tracks) == 1


def test_a_fused_box_below_the_threshold_is_left_out() -> None:
    class Blind(Bright):
        def __call__(self, image: U8) -> tuple[Detections, RoadMask | None]:
            return Detections.empty(), None

    image = next(iter(Camera("a", 150, 1).read())).image_bgr
    scores = [
        Ensemble([Bright(), Blind()], minimum_score=least)(image)[0].scores.tolist()  # type: ignore[list-item]
        for least in (0.0, 0.5)
    ]
    assert scores == [pytest.approx([0.45]), []]  # one of two finds it with 0.9
