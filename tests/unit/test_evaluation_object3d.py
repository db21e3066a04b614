"""BEV and 3D scores by hand: which class is scored, what DontCare forgives, what the 2D box decides, and errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.evaluation.box_errors import box_errors, by_distance, heading_error_deg, summarise
from perception.evaluation.object import ObjectEvaluator
from perception.evaluation.object3d import METRICS, has_box
from perception.evaluation.results import METRICS_3D, ObjectEvaluation, ObjectScore
from perception.formats.kitti import ObjectRows, parse_objects
from perception.reports.tables import object_json, object_text

TRUTH = "Car 0 0 0 100 100 200 200 1.5 2 4 {x} 1.6 20 0\n"
CAR = "Car 0 0 0 100 100 200 200 1.5 2 4 {x} 1.6 20 0 {score}\n"
DONTCARE = "DontCare -1 -1 -10 100 100 200 200 -1 -1 -1 -1000 -1000 -1000 -10\n"
WITHOUT_3D = "Car 0 0 0 100 100 200 200 -1 -1 -1 -1000 -1000 -1000 -10 0.9\n"


def score(labels: str, results: str, frames: int = 1) -> ObjectEvaluation:
    evaluator = ObjectEvaluator()
    for frame in range(frames):
        evaluator.process(str(frame), parse_objects(labels), parse_objects(results, scores=True))
    return evaluator.evaluate()


def counts(evaluation: ObjectEvaluation, metric: str, class_name: str = "Car") -> tuple[int, int, int]:
    """TP, FP and FN at the lowest threshold."""
    one: ObjectScore = evaluation.scores_3d[metric, class_name, "moderate"]
    return int(one.tp[-1]), int(one.fp[-1]), int(one.fn[-1])


def test_overlaps_decide_by_metric() -> None:
    """A car of 4 m, moved by x: BEV and 3D overlap is (4 - x) / (4 + x)."""
    for shift, matched in ((0.7, METRICS_3D), (0.8, ("bev_loose", "3d_loose")), (1.34, ())):
        evaluation = score(TRUTH.format(x=0), CAR.format(x=shift, score=0.9) + CAR.format(x=50, score=0.1))
        for metric in METRICS_3D:
            found = len(evaluation.scores_3d[metric, "Car", "moderate"].thresholds)
            assert found == (metric in matched), (shift, metric)


def test_an_overlap_must_exceed_the_minimum() -> None:
    """Half of the car, exactly 0.5 of it in BEV: no match at 0.5, as in the official tool."""
    half = CAR.format(x=1, score=0.9).replace("1.5 2 4", "1.5 2 2")
    evaluation = score(TRUTH.format(x=0), half)
    assert len(evaluation.scores_3d["bev_loose", "Car", "moderate"].thresholds) == 0
    more = score(TRUTH.format(x=0), half.replace("1.5 2 2", "1.5 2 2.01"))
    assert counts(more, "bev_loose") == (1, 0, 0)


def test_height_counts_in_3d_alone() -> None:
    lower = CAR.format(x=0, score=0.9).replace("1.6 20", "2.1 20")  # 1 m of 1.5 m in common: 0.5
    evaluation = score(TRUTH.format(x=0), lower)
    assert counts(evaluation, "bev") == (1, 0, 0)
    assert len(evaluation.scores_3d["3d", "Car", "moderate"].thresholds) == 0
    assert METRICS["3d_loose"].minimum_overlap("Car") == 0.5 and METRICS["bev"].label("Pedestrian") == "BEV 0.5"


def test_a_box_turned_by_half_is_as_good_in_bev_and_3d() -> None:
    turned = CAR.format(x=0, score=0.9).replace("20 0 0.9", f"20 {np.pi} 0.9")
    evaluation = score(TRUTH.format(x=0), turned)
    assert all(counts(evaluation, metric) == (1, 0, 0) for metric in METRICS_3D)


def test_dontcare_regions_of_the_image_forgive_nothing_here() -> None:
    labels, results = TRUTH.format(x=0) + DONTCARE, CAR.format(x=0, score=0.5) + CAR.format(x=30, score=0.9)
    evaluation = score(labels, results)
    flat = evaluation.scores["Car", "moderate"]
    assert (flat.tp[-1], flat.fp[-1]) == (1, 0), "in 2D both rows lie on the car and in the region"
    assert counts(evaluation, "bev") == counts(evaluation, "3d") == (1, 1, 0)


@pytest.mark.parametrize(("dontcare", "bev_fp"), [("", 1), (DONTCARE, 0)])
def test_a_row_without_a_box_is_forgiven_in_bev_where_the_frame_has_a_dontcare(dontcare: str, bev_fp: int) -> None:
    evaluation = score(TRUTH.format(x=0) + dontcare, CAR.format(x=0, score=0.5) + WITHOUT_3D)
    assert counts(evaluation, "bev") == (1, bev_fp, 0)
    assert counts(evaluation, "3d") == (1, 1, 0)


def test_the_height_of_the_2d_box_decides() -> None:
    """A result of 20 px is ignored and takes the car, whatever its class."""
    small = "Pedestrian 0 0 0 100 100 200 120 1.5 2 4 0 1.6 20 0 0.9\n"
    evaluation = score(TRUTH.format(x=0), small + CAR.format(x=30, score=0.8), 2)
    one = evaluation.scores_3d["bev", "Car", "moderate"]
    assert one.n_gt == 2 and len(one.thresholds) == 0
    curve = evaluation.curves_3d["bev", "Car", "moderate"]
    assert curve.event_absorbed.sum() == 2


def test_a_class_is_scored_where_a_row_opens_it() -> None:
    def metrics(results: str) -> set[str]:
        return {metric for metric, _, _ in score(TRUTH.format(x=0), results).scores_3d}

    assert metrics(WITHOUT_3D) == set()
    assert metrics(WITHOUT_3D + CAR.format(x=0, score=0.1)) == set(METRICS_3D)
    for column, found, expected in (
        ("1.5 2 4", "0 2 4", {"bev", "bev_loose"}),
        ("1.5 2 4", "1.5 0 4", set()),
        ("1.5 2 4", "1.5 -2 -4", set()),
        ("0 1.6 20", "-1000 1.6 20", set()),
        ("0 1.6 20", "0 -1000 20", {"bev", "bev_loose"}),
        ("0 1.6 20", "0 1.6 -1000", set()),
    ):
        assert metrics(CAR.format(x=0, score=0.9).replace(column, found)) == expected, found


def test_2d_asks_for_one_row_inside_the_image() -> None:
    outside = CAR.format(x=0, score=0.9).replace("100 100 200", "-1 100 200")
    evaluation = score(TRUTH.format(x=0), outside)
    assert evaluation.scores == {} and counts(evaluation, "bev") == (1, 0, 0)
    both = score(TRUTH.format(x=0), outside + CAR.format(x=9, score=0.1))
    assert both.scores["Car", "moderate"].n_gt == 1


def test_results_without_boxes_have_no_3d_scores() -> None:
    rows = ObjectRows.from_boxes(["Car"], np.array([[0, 0, 50, 50]]), np.array([0.5]))
    evaluator = ObjectEvaluator()
    evaluator.process("0", parse_objects(TRUTH.format(x=0)), rows)
    evaluation = evaluator.evaluate()
    assert evaluation.curves_3d == evaluation.scores_3d == {}
    assert not has_box(evaluation.detections, "BEV").any()


# ---------------------------------------------------------------- errors of boxes

ROW = "Car 0 0 0 {left} 100 {right} 200 {h} {w} {l} {x} 1.6 {z} {ry}"


def row(slot: int, **values: float) -> str:
    """A car in its own place of the image, by default 1.5 × 2 × 4 m, 20 m ahead, heading 0."""
    defaults = {"h": 1.5, "w": 2.0, "l": 4.0, "x": 0.0, "z": 20.0, "ry": 0.0}
    return ROW.format(left=100 * slot, right=100 * slot + 80, **{**defaults, **values})


def test_errors_by_hand() -> None:
    labels = [row(0, z=8), row(1, z=20, ry=3.1), row(2, z=25), row(3), row(4)]
    results = [
        f"{row(0, z=9.5, x=-0.2, w=2.1, h=1.4)} 0.9",
        f"{row(1, z=19, ry=-3.1, l=3.5)} 0.9",
        f"{row(2, z=25, ry=np.pi)} 0.9",
        f"{row(3, h=-1, w=-1, l=-1, x=-1000, z=-1000)} 0.9",  # found in 2D, without a box
        f"{row(4)} 0.1",  # below the threshold
        f"{row(8)} 0.9",  # a false positive
    ]
    evaluation = score("\n".join(labels), "\n".join(results))
    errors = box_errors(evaluation.gt, evaluation.detections, "Car", "moderate", 0.5)
    assert errors.distance_m.tolist() == [8, 20, 25]
    assert errors.depth_m == pytest.approx([1.5, -1, 0]) and errors.lateral_m == pytest.approx([-0.2, 0, 0])
    assert errors.heading_deg == pytest.approx([0, 360 - np.degrees(6.2), 180])
    assert errors.length_m == pytest.approx([0, -0.5, 0]) and errors.width_m == pytest.approx([0.1, 0, 0])
    assert errors.height_m == pytest.approx([-0.1, 0, 0])
    found = summarise(errors)
    assert (found["depth_median"], found["depth_bias"]) == pytest.approx((1, 0))
    assert (found["heading_within_15"], found["flipped"]) == pytest.approx((2 / 3, 1 / 3))
    counted = {ends: count for ends, count, _ in by_distance(errors)}
    assert counted[0, 10] == 1 and counted[20, 30] == 2 and sum(counted.values()) == 3


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_heading_errors_do_not_mind_the_turn(a: float, b: float) -> None:
    error = heading_error_deg(np.array([a]), np.array([b]))[0]
    assert 0 <= error <= 180
    expected = np.degrees(np.arccos(np.clip(np.cos(a - b), -1, 1)))
    assert error == pytest.approx(expected, abs=1e-5)


def test_no_objects_have_no_errors() -> None:
    evaluation = score(TRUTH.format(x=0), CAR.format(x=0, score=0.9))
    nothing = box_errors(evaluation.gt, evaluation.detections, "Car", "moderate", 2.0)
    assert len(nothing) == 0 and all(np.isnan(value) for value in summarise(nothing).values())


# ---------------------------------------------------------------- what is printed


def test_text_and_json_name_every_overlap() -> None:
    evaluation = score(TRUTH.format(x=0), CAR.format(x=0.8, score=0.9))
    text = object_text(evaluation)
    for label in (
        "Car AP",
        "Car AOS",
        "Car BEV AP 0.7",
        "Car 3D AP 0.7",
        "Car BEV AP 0.5",
        "Car 3D AP 0.5",
        "Cyclist AP",
    ):
        assert any(line.startswith(f"{label}  ") for line in text.split("\n")), label
    assert "Cyclist BEV" not in text, "never detected"
    found = object_json(evaluation)["scores_3d"]
    assert set(found) == set(METRICS_3D) and found["3d_loose"]["Car"]["overlap"] == 0.5
    assert found["bev"]["Car"]["moderate"]["tp"] == [] and found["bev_loose"]["Car"]["moderate"]["tp"] == [1]
    flat = score(TRUTH.format(x=0), WITHOUT_3D)
    assert "BEV" not in object_text(flat) and object_json(flat)["scores_3d"] == {}
