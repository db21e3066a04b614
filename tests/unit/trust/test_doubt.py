"""Calibration of scores and conformal margins, against numbers that can be worked out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from perception.doubt import Doubt, scaled
from perception.errors import UserError
from perception.formats.kitti import parse_objects
from perception.model import METADATA_KEY, ModelSpec
from perception.overlay import Overlay
from perception.trust.doubt import Seen, conformal_margin, cross_check, fit, fit_scaling, judge, pool, reach_beyond
from perception.types import Detections, Frame, Result, Track, Tracks

NAMES = ("Car", "Pedestrian")
DOUBT = Doubt(((1.0, 0.0), (2.0, 1.0)), 0.9, (25.0, 50.0), ((0.1, 0.2), (None, 0.5)))


def test_scaling_by_hand() -> None:
    assert scaled(np.array([0.5, 0.9]), 1.0, 0.0).tolist() == pytest.approx([0.5, 0.9])
    assert scaled(np.array([0.5]), 1.0, np.log(3)).tolist() == pytest.approx([0.75])  # odds of one become three
    assert scaled(np.array([0.75]), 2.0, 0.0).tolist() == pytest.approx([0.9])  # odds of three become nine
    found = DOUBT.probability(np.array([0.75, 0.5], np.float32), np.array([0, 1]))
    assert found.tolist() == pytest.approx([0.75, 1 / (1 + np.exp(-1))])


def test_boxes_are_widened_by_class_and_height() -> None:
    boxes = np.array([[100, 100, 120, 130], [100, 100, 120, 160], [0, 0, 10, 20], [0, 0, 10, 30]], np.float32)
    outer = DOUBT.outer_boxes(boxes, np.array([0, 0, 0, 1]))
    assert outer[0].tolist() == pytest.approx([98, 97, 122, 133])  # 30 px high: a tenth of 20 and of 30
    assert outer[1].tolist() == pytest.approx([96, 88, 124, 172])
    assert np.isnan(outer[2:]).all(), "lower than the lowest bin, and too few seen"
    assert DOUBT.outer_boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)).shape == (0, 4)


def test_reach_is_the_side_that_sticks_out_most() -> None:
    found = np.array([[10.0, 10, 30, 50]])
    assert reach_beyond(found, np.array([[8.0, 10, 31, 50]])).tolist() == pytest.approx([0.1])  # 2 of 20 on the left
    assert reach_beyond(found, np.array([[12.0, 14, 28, 46]])).tolist() == pytest.approx([-0.1])  # inside


def test_the_conformal_quantile() -> None:
    values = np.arange(1.0, 20)  # 19 of them: ⌈20 · 0.9⌉ = 18
    assert conformal_margin(values, 0.9) == 18
    assert conformal_margin(values[:8], 0.9) is None, "with 8 values the 9th would be needed"
    assert conformal_margin(values[:9], 0.9) == 9


def test_margins_cover_unseen_boxes_as_promised() -> None:
    rng = np.random.default_rng(0)
    count = 2000
    seen = Seen(
        rng.uniform(0.1, 1, count),
        rng.integers(0, 2, count),
        np.ones(count, bool),
        rng.gamma(2, 0.1, count),
        rng.uniform(30, 200, count),
        np.arange(count) % 10,
    )
    inside, total = cross_check(seen, NAMES, 0.9).covered["all"]
    assert total == count and inside / total == pytest.approx(0.9, abs=0.02)


def overconfident(count: int, rng: np.random.Generator) -> Seen:
    """True with the probability that belongs to half of the score's log-odds."""
    scores = rng.uniform(0.05, 0.99, count)
    true = rng.uniform(size=count) < scaled(scores, 0.5, 0.0)
    reach = np.where(true, 0.1, np.nan)
    return Seen(scores, np.zeros(count, int), true, reach, np.full(count, 60.0), np.arange(count) % 10)


def test_scaling_finds_what_made_the_scores_and_lowers_the_error() -> None:
    seen = overconfident(4000, np.random.default_rng(1))
    (slope, offset), other = fit_scaling(seen, 2)
    assert slope == pytest.approx(0.5, abs=0.05) and offset == pytest.approx(0, abs=0.1)
    assert other == (slope, offset), "a class that was never seen takes what holds for all"
    doubt, check = fit(seen, NAMES, 0.9, 100)
    assert check.ece_before["Car"] > 0.08 and check.ece_after["Car"] < 0.03
    assert doubt.ece_after == pytest.approx(check.ece_after["all"], abs=1e-4)


def test_one_frame_is_judged_by_kittis_rules() -> None:
    row = "{} 0 0 0 {} {} {} {} 1 1 1 0 0 0 0\n"
    labels = parse_objects(
        row.format("Car", 100, 100, 200, 150)
        + row.format("Van", 300, 100, 400, 150)
        + row.format("Car", 10, 10, 30, 20)  # ten pixels high
        + "DontCare -1 -1 -10 500 100 600 150 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    boxes = [[100, 100, 200, 150], [300, 100, 400, 150], [10, 10, 30, 20], [510, 100, 590, 150], [700, 100, 760, 150]]
    found = Detections(np.array(boxes, np.float32), np.linspace(0.9, 0.5, 5).astype(np.float32), np.zeros(5, int))
    seen = judge(found, labels, NAMES, 7)
    assert seen.is_true.tolist() == [True, False], "the van, the small car and DontCare count neither way"
    assert seen.scores.tolist() == pytest.approx([0.9, 0.5]) and seen.reach[0] == 0 and seen.groups.tolist() == [7, 7]
    assert len(pool([seen, seen]).scores) == 4


def test_the_model_file_carries_it_and_refuses_nonsense() -> None:
    spec = ModelSpec(NAMES, (96, 320), doubt=DOUBT)
    assert ModelSpec.from_metadata({METADATA_KEY: spec.to_json()}, "m.onnx").doubt == replace(
        DOUBT, ece_before=pytest.approx(np.nan, nan_ok=True), ece_after=pytest.approx(np.nan, nan_ok=True)
    )
    values = json.loads(spec.to_json())
    for wrong in (
        {"scaling": [[1, 0]]},
        {"scaling": [[-1, 0], [1, 0]]},
        {"margins": [[0.1, "x"], [0.1, 0.2]]},
        {"heights_px": [50, 25]},
        {"coverage": 2},
    ):
        broken = {METADATA_KEY: json.dumps(values | {"doubt": values["doubt"] | wrong})}
        with pytest.raises(UserError, match="doubt"):
            ModelSpec.from_metadata(broken, "m.onnx")
    with pytest.raises(UserError, match="doubt"):
        ModelSpec.from_metadata({METADATA_KEY: json.dumps(values | {"doubt": [1]})}, "m.onnx")


def test_margins_are_drawn_on_request_only() -> None:
    track = Track(1, 0, np.array([100, 100, 120, 130], np.float32), 0.9)
    frame = Frame(np.zeros((200, 300, 3), np.uint8), 0, 0)
    result = Result(frame, Detections.empty(), Tracks.from_rows([track]), None)
    spec = ModelSpec(NAMES, (96, 320), doubt=DOUBT)
    plain, wide = (Overlay(spec, margins).draw(result) for margins in (False, True))
    assert (plain != wide).any() and wide[133, 105:115].any() and not plain[133, 105:115].any()
