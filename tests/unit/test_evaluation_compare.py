"""Comparing runs: the draws score as the evaluators do, a real difference is found, and none where there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_scenes import boxes_set, object_set, road_set, tracking_set
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import UserError
from perception.evaluation.bootstrap import RESAMPLES, blocks, holm, judge, paired_draws
from perception.evaluation.box_errors import weighted_medians
from perception.evaluation.object import recall_thresholds, score_curve
from perception.evaluation.object_draws import PrecisionAreas, recall_positions
from perception.evaluation.results import LEVELS, ObjectEvaluation
from perception.evaluation.tracking_evidence import TrackingEvidence
from perception.reports.compare import compare, read_groups
from perception.reports.compare_page import text_table
from perception.reports.object import object_report
from perception.reports.road import road_report
from perception.reports.runs import load_run
from perception.reports.tracking import tracking_report
from perception.reports.write import write_report


@pytest.fixture(autouse=True, scope="module")
def no_pages() -> Iterator[None]:
    """A comparison reads numbers; tests/unit/test_evaluation_report.py draws pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perception.reports.page.render_page", lambda report: "")
        yield


def written(folder: Path, evaluation: ObjectEvaluation) -> Path:
    write_report(object_report(evaluation, gallery=0), folder)
    return folder


# ---------------------------------------------------------------- draws score as the evaluators do


@pytest.mark.parametrize("seed", range(3))
def test_areas_equal_the_official_score_of_each_draw(seed: int) -> None:
    evaluation = object_set(frames=50, missed=0.3, seed=seed)
    weights = np.random.default_rng(seed).multinomial(50, np.full(50, 1 / 50), size=40)
    for curve in evaluation.curves.values():
        areas = PrecisionAreas(curve)(weights)
        for row, weight in zip(areas, weights, strict=True):
            score = score_curve(curve, True, weight)
            assert row[0] == pytest.approx(score.ap_r40, abs=1e-9)
            assert row[1] == pytest.approx(score.aos_r40, abs=1e-9)


def test_areas_of_frames_without_labels_are_no_number() -> None:
    curve = object_set(frames=10).curves["Car", "moderate"]
    assert np.isnan(PrecisionAreas(curve)(np.zeros((1, 10), np.int64))).all()


@pytest.mark.parametrize(
    "found, truths", [(0, 10), (1, 1), (3, 40), (17, 18), (39, 40), (40, 40), (41, 50), (500, 700)]
)
def test_recall_positions_are_the_official_thresholds(found: int, truths: int) -> None:
    scores = -np.arange(found, dtype=float)  # the place, as a score
    wanted = -recall_thresholds(scores, truths)
    places = recall_positions(np.array([found]), np.array([truths]))[0]
    np.testing.assert_array_equal(places[places >= 0], wanted)


def test_tracking_evidence_sums_to_the_official_scores() -> None:
    evaluation = tracking_set(missed=7)
    evidence = TrackingEvidence.of(evaluation)
    names = {"precision": "CLR_Pr", "recall": "CLR_Re", "F1": "CLR_F1"}
    values = evidence.score(np.ones((1, 80), np.int64))[0]
    for name, value in zip(evidence.score_names(), values, strict=True):
        class_name, measure = name.split()
        official = evaluation.combined[class_name].values
        if official["GT_Dets"]:
            assert value == pytest.approx(100 * official[names.get(measure, measure)], abs=1e-9), name
    again = TrackingEvidence.from_arrays(evidence.arrays())
    np.testing.assert_array_equal(again.score(np.ones((1, 80), np.int64)), values[None])
    assert again.frame_names()[:2] == ("0000/000000", "0000/000001")


def test_sequences_drawn_twice_score_as_the_evaluator_says() -> None:
    from perception.evaluation.tracking import combine

    evaluation = tracking_set(missed=7)
    evidence = TrackingEvidence.of(evaluation)
    one, two = (evaluation.sequences[name, "Car"] for name in ("0000", "0001"))
    weights = np.repeat([2, 1], 40)[None]
    value = dict(zip(evidence.score_names(), evidence.score(weights)[0], strict=True))
    official = combine([one, one, two]).values
    for measure in ("HOTA", "DetA", "AssA", "MOTA", "IDF1"):
        assert value[f"Car {measure}"] == pytest.approx(100 * official[measure], abs=1e-9)


# ---------------------------------------------------------------- verdicts


def test_a_real_difference_is_found(tmp_path: Path) -> None:
    a = written(tmp_path / "a", object_set(missed=0.1))
    b = written(tmp_path / "b", object_set(missed=0.4))
    found = {one.name: one for one in compare(a, b).differences}
    recall = found["Car recall moderate"]
    assert recall.verdict == "real" and recall.high < 0 and recall.difference < -20
    assert found["Car AP R40 moderate"].verdict == "real"


def test_identical_runs_do_not_differ(tmp_path: Path) -> None:
    a, b = (written(tmp_path / name, object_set()) for name in "ab")
    comparison = compare(a, b)
    assert {one.verdict for one in comparison.differences} == {"equal"}
    assert comparison.changed_frames == ()


def test_chance_is_not_called_real(tmp_path: Path) -> None:
    # both miss a fifth, at random and apart from one another
    a = written(tmp_path / "a", object_set(missed=0.2, seed=1))
    b = written(tmp_path / "b", object_set(missed=0.2, seed=2))
    assert "real" not in {one.verdict for one in compare(a, b).differences}


def test_the_same_seed_gives_the_same_answer(tmp_path: Path) -> None:
    a = written(tmp_path / "a", object_set(missed=0.1))
    b = written(tmp_path / "b", object_set(missed=0.2))
    first, second, other = (compare(a, b, seed=seed, resamples=1100) for seed in (3, 3, 4))
    assert first.differences == second.differences
    assert first.differences != other.differences


def test_road_and_tracking_runs(tmp_path: Path) -> None:
    for name, shift in (("near", 1), ("far", 9)):
        write_report(road_report(road_set(shift=shift)), tmp_path / name)
    road = compare(tmp_path / "near", tmp_path / "far")
    assert [one.verdict for one in road.differences] == ["real"] * 4
    assert {one.name for one in road.differences} == {"um_road MaxF", "um_road AP", "URBAN MaxF", "URBAN AP"}
    whole = road_set(shift=1).scores["URBAN"]
    assert next(one.a for one in road.differences if one.name == "URBAN MaxF") == pytest.approx(100 * whole.max_f)

    for name, switch in (("calm", None), ("nervous", 20)):
        write_report(tracking_report(tracking_set(frames=100, switch_at=switch)), tmp_path / name)
    tracking = compare(tmp_path / "calm", tmp_path / "nervous", block=5)
    found = {one.name: one for one in tracking.differences}
    assert found["Car AssA"].verdict == "real" and found["Car AssA"].difference < 0
    assert found["Car DetA"].verdict == "equal"
    assert tracking.unit_name == "blocks of 5 frames" and tracking.units == 40
    assert not any(name.startswith("Pedestrian") for name in found)  # there is none, so nothing to compare
    assert "Car AssA" in text_table(tracking)


def test_groups_are_drawn_together(tmp_path: Path) -> None:
    a = written(tmp_path / "a", object_set(frames=20))
    b = written(tmp_path / "b", object_set(frames=20, missed=0.3))
    groups = tmp_path / "drives.json"
    groups.write_text(json.dumps({f"{i:06d}": f"drive {i // 5}" for i in range(20)}))
    comparison = compare(a, b, groups=read_groups(groups))
    assert (comparison.units, comparison.unit_name) == (4, "groups of frames")
    with pytest.raises(UserError, match="10 frames have no group"):
        compare(a, b, groups={f"{i:06d}": "x" for i in range(10)})
    groups.write_text("[1]")
    with pytest.raises(UserError, match="not text"):
        read_groups(groups)


# ---------------------------------------------------------------- runs that can't be compared


def test_other_frames_labels_or_tasks_are_refused(tmp_path: Path) -> None:
    a = written(tmp_path / "a", object_set(frames=20))
    fewer = written(tmp_path / "fewer", object_set(frames=18))
    with pytest.raises(UserError, match="2 are only in A, 0 only in B"):
        compare(a, fewer)
    evaluation = object_set(frames=20)
    moved = replace(evaluation, gt=replace(evaluation.gt, boxes_xyxy=evaluation.gt.boxes_xyxy + 1))
    other = written(tmp_path / "labels", moved)
    with pytest.raises(UserError, match="the labels differ"):
        compare(a, other)
    write_report(road_report(road_set()), tmp_path / "road")
    with pytest.raises(UserError, match="object, B of road"):
        compare(a, tmp_path / "road")


def test_too_few_draws_are_refused(tmp_path: Path) -> None:
    a, b = (written(tmp_path / name, object_set(frames=20)) for name in "ab")
    for few in (100, 0, -1):
        with pytest.raises(UserError, match="--resamples"):
            compare(a, b, resamples=few)


def test_damaged_reports_are_a_sentence(tmp_path: Path) -> None:
    a = written(tmp_path / "a", object_set(frames=20))
    with pytest.raises(UserError, match="no such file"):
        load_run(tmp_path / "nowhere")
    evidence = (a / "evidence.npz").read_bytes()
    (a / "evidence.npz").write_bytes(evidence[:200])
    with pytest.raises(UserError, match="not a zip"):
        load_run(a)
    np.savez(a / "evidence.npz", frame_names=np.array(["x"], object), allow_pickle=True)  # would run code if trusted
    with pytest.raises(UserError, match="allow_pickle=False"):
        load_run(a)
    np.savez(a / "evidence.npz", frame_names=np.array(["x"]))
    with pytest.raises(UserError, match="does not fit its report"):
        compare(a, a)
    (a / "report.json").write_text("{}")
    with pytest.raises(UserError, match="another kind of file"):
        load_run(a)


def test_frames_out_of_range_in_the_evidence(tmp_path: Path) -> None:
    a = written(tmp_path / "a", object_set(frames=20))
    with np.load(a / "evidence.npz") as packed:
        arrays = dict(packed)
    arrays["Car.moderate.event_frames"] = arrays["Car.moderate.event_frames"] + 1000
    np.savez(a / "evidence.npz", **arrays)
    with pytest.raises(UserError, match="does not fit its report"):
        compare(a, a)


# ---------------------------------------------------------------- the bootstrap itself


def test_holm_by_hand() -> None:
    # 0.01·4, 0.02·3, 0.03·2, 0.5·1, never falling
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_blocks_do_not_cross_sequences() -> None:
    np.testing.assert_array_equal(blocks([5, 0, 3], 2), [0, 0, 1, 1, 2, 3, 3, 4])
    np.testing.assert_array_equal(blocks([3], 1), [0, 1, 2])
    with pytest.raises(ValueError, match="at least 1"):
        blocks([3], 0)


def test_interval_of_a_mean_is_that_of_the_textbook() -> None:
    # the bootstrap of a mean difference: standard error s/√n, here 1/√400 = 0.05, so the interval is ±0.098 wide
    random = np.random.default_rng(5)
    noise = random.normal(size=400)
    noise = (noise - noise.mean()) / noise.std()
    base, better = random.normal(size=400), 0.3 + noise

    def mean_of(values: np.ndarray):  # type: ignore[no-untyped-def]
        return lambda weights: (weights @ values / weights.sum(axis=1))[:, None]

    draws = paired_draws(mean_of(base), mean_of(base + better), np.arange(400), 4000, seed=1)
    (found,) = judge(["mean"], [base.mean()], [(base + better).mean()], *draws)
    assert found.difference == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.3 - 0.098, 0.3 + 0.098), abs=0.008)
    assert found.verdict == "real"


def test_pairing_removes_what_frames_do_to_both() -> None:
    random = np.random.default_rng(6)
    hard = random.normal(scale=10, size=200)  # frames differ a lot, the runs hardly
    slightly = hard + random.normal(0.5, 1.0, size=200)

    def mean_of(values: np.ndarray):  # type: ignore[no-untyped-def]
        return lambda weights: (weights @ values / weights.sum(axis=1))[:, None]

    draws = paired_draws(mean_of(hard), mean_of(slightly), np.arange(200), 2000)
    (found,) = judge(["mean"], [hard.mean()], [slightly.mean()], *draws)
    assert found.verdict == "real"


def test_many_comparisons_make_one_doubtful() -> None:
    random = np.random.default_rng(7)
    draws = random.normal(loc=[2.2] + [0.0] * 19, scale=1.0, size=(4000, 20))
    found = judge([str(i) for i in range(20)], [0.0] * 20, [2.2] + [0.0] * 19, np.zeros((4000, 20)), draws)
    assert found[0].verdict == "perhaps"  # p is about 0.03 alone, and 0.6 among twenty
    assert {one.verdict for one in found[1:]} == {"not shown"}


# ---------------------------------------------------------------- 3-D boxes


def test_boxes_are_compared_by_the_official_rule(tmp_path: Path) -> None:
    for name, depth_std_m in (("a", 0.2), ("b", 0.9)):
        write_report(object_report(boxes_set(depth_std_m=depth_std_m)), tmp_path / name)
    comparison = compare(tmp_path / "a", tmp_path / "b")
    found = {one.name: one for one in comparison.differences}
    whole = boxes_set(depth_std_m=0.9).scores_3d
    for metric, name in (("bev", "Car BEV AP 0.7"), ("3d", "Car 3D AP 0.7"), ("3d_loose", "Car 3D AP 0.5")):
        for level in LEVELS:
            assert found[f"{name} R40 {level}"].b == pytest.approx(whole[metric, "Car", level].ap_r40)
    assert found["Car 3D AP 0.7 R40 moderate"].verdict == "real" and found["Car 3D AP 0.7 R40 moderate"].high < 0
    assert found["Car AP R40 moderate"].verdict == "equal"
    assert comparison.resamples == max(RESAMPLES, 40 * len(found))
    assert "Car, 3D 0.7, moderate" in comparison.curves
    depth = found["Car median depth error, m"]
    assert depth.a < 0.3 < depth.b and depth.verdict == "real" and depth.low > 0
    assert found["Car median heading error, °"].verdict == "equal"  # the same in both
    assert not any("lateral" in name or "size" in name for name in found)  # neither has any


def test_medians_of_weighted_frames_by_hand() -> None:
    """Frame 0 has errors 1 and 9, frame 1 has 4, frame 2 has 2 and 2."""
    values, frames = np.array([1.0, 9, 4, 2, 2]), np.array([0, 0, 1, 2, 2])
    weights = np.array([[1, 1, 1], [0, 2, 0], [1, 0, 0], [0, 0, 0], [3, 1, 1]])
    medians = weighted_medians(values, frames, weights)
    # the last: 1 1 1 2 2 4 9 9 9
    assert medians[[0, 1, 2, 4]].tolist() == [2, 4, 5, 2] and np.isnan(medians[3])


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 3)), min_size=1, max_size=30), st.integers(0, 9))
def test_weighted_medians_are_those_of_repeated_values(rows: list[tuple[float, int]], seed: int) -> None:
    values, frames = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    weights = np.random.default_rng(seed).integers(0, 4, (3, 4))
    for one, found in zip(weights, weighted_medians(values, frames, weights), strict=True):
        repeated = np.repeat(values, one[frames])
        assert np.isnan(found) if not len(repeated) else found == pytest.approx(np.median(repeated))


def test_a_run_without_boxes_is_told(tmp_path: Path) -> None:
    write_report(object_report(boxes_set()), tmp_path / "a")
    evaluation = boxes_set()
    write_report(object_report(replace(evaluation, curves_3d={}, scores_3d={})), tmp_path / "b")
    comparison = compare(tmp_path / "a", tmp_path / "b")
    assert "Car BEV AP 0.7" in comparison.only_a and "Pedestrian 3D AP 0.25" in comparison.only_a
    assert not any("BEV" in one.name for one in comparison.differences)
