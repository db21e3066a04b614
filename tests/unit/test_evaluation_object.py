"""Object scores: numbers one can check in the head, and the devkit's walk, written out, as a second opinion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.evaluation.object import (
    ObjectEvaluator,
    average_precision,
    evaluate_objects,
    match_objects,
    precision_at_recall,
    recall_thresholds,
    score_curve,
)
from perception.evaluation.object_matching import (
    MAXIMUM_OCCLUSION,
    MAXIMUM_TRUNCATION,
    MINIMUM_HEIGHT,
    MINIMUM_OVERLAP,
    NEIGHBOUR,
)
from perception.evaluation.results import LEVELS, ObjectEvaluation
from perception.formats.kitti import ObjectRows
from perception.formats.kitti_table import ObjectTable

# ---------------------------------------------------------------- small scenes


def rows(*entries: tuple, scores: bool = False) -> ObjectRows:
    """Entries of (name, box[, score][, dict of columns]); labels are fully visible."""
    count = len(entries)
    columns = {"truncation": np.zeros(count), "occlusion": np.zeros(count, np.int64), "alpha": np.zeros(count)}
    values = np.zeros(count)
    for i, (_, _, *rest) in enumerate(entries):
        for extra in rest:
            if isinstance(extra, dict):
                for key, value in extra.items():
                    columns[key][i] = value
            else:
                values[i] = extra
    return ObjectRows.from_boxes(
        [e[0] for e in entries], np.array([e[1] for e in entries], float), values if scores else None, **columns
    )


def evaluate(*frames: tuple[list, list]) -> ObjectEvaluation:
    """Frames of (labels, detections)."""
    evaluator = ObjectEvaluator()
    for i, (gt, detections) in enumerate(frames):
        evaluator.process(f"{i:06d}", rows(*gt), rows(*detections, scores=True))
    return evaluator.evaluate()


BOX = (100.0, 100.0, 200.0, 150.0)
FAR = (500.0, 100.0, 600.0, 150.0)
SMALL = (100.0, 100.0, 130.0, 120.0)  # 20 pixels high


def counts(evaluation: ObjectEvaluation, class_name: str = "Car", level: str = "moderate") -> tuple[int, int, int]:
    """TP, FP, FN at the lowest threshold."""
    s = evaluation.scores[class_name, level]
    return int(s.tp[-1]), int(s.fp[-1]), int(s.fn[-1])


def test_one_hit_one_false_alarm_one_miss() -> None:
    evaluation = evaluate(([("Car", BOX), ("Car", FAR)], [("Car", BOX, 0.9), ("Car", (800, 100, 900, 150), 0.95)]))
    assert counts(evaluation) == (1, 1, 1)
    score = evaluation.scores["Car", "moderate"]
    assert score.n_gt == 2 and score.thresholds.tolist() == [0.9]
    assert score.precision41[:2].tolist() == [0.5, 0.0]


def test_a_perfect_result_scores_100_only_with_41_ground_truths() -> None:
    frame = ([("Car", BOX)], [("Car", BOX, 0.9)])
    assert evaluate(*[frame] * 41).scores["Car", "easy"].ap_r40 == 100.0
    assert evaluate(*[frame] * 40).scores["Car", "easy"].ap_r40 == pytest.approx(97.5)
    few = evaluate(*[frame] * 10).scores["Car", "easy"]
    assert few.ap_r40 == pytest.approx(100 * 9 / 40)  # entries 0…9 are reached, and entry 0 does not count
    assert few.ap_r11 == pytest.approx(100 * 3 / 11)  # entries 0, 4, 8


def test_r40_and_r11_are_different_means() -> None:
    precision = np.zeros(41)
    precision[:21] = 1.0
    assert average_precision(precision, 40) == pytest.approx(50.0)
    assert average_precision(precision, 11) == pytest.approx(100 * 6 / 11)
    with pytest.raises(ValueError, match="40 or 11"):
        average_precision(precision, 101)


def test_precision_is_the_best_from_each_recall_on_and_never_nan() -> None:
    found = precision_at_recall(np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 4.0]))
    assert found[:4].tolist() == [0.75, 0.75, 0.75, 0.0]


def test_thresholds_step_recall_by_a_fortieth() -> None:
    scores = np.arange(1, 81) / 100
    chosen = recall_thresholds(scores, 80)
    assert len(chosen) == 41 and chosen[0] == 0.80 and chosen[-1] == 0.01
    assert recall_thresholds(scores[:1], 1).tolist() == [0.01]
    assert len(recall_thresholds(np.zeros(0), 5)) == 0


@given(st.lists(st.floats(0, 1), max_size=120), st.integers(0, 60))
def test_thresholds_equal_the_plain_loop(scores: list[float], missed: int) -> None:
    n_gt = len(scores) + missed
    falling, wanted, expected = sorted(scores, reverse=True), 0.0, []
    for i, value in enumerate(falling):
        left, right = (i + 1) / n_gt, ((i + 2) if i + 1 < len(falling) else (i + 1)) / n_gt
        if right - wanted < wanted - left and i + 1 < len(falling):
            continue
        expected.append(value)
        wanted += 1 / 40
    assert recall_thresholds(np.array(scores), n_gt).tolist() == expected


@pytest.mark.parametrize(
    ("columns", "levels"),
    [
        ({}, (1, 1, 1)),
        ({"occlusion": 1}, (0, 1, 1)),
        ({"occlusion": 2}, (0, 0, 1)),
        ({"occlusion": 3}, (0, 0, 0)),
        ({"truncation": 0.15}, (1, 1, 1)),
        ({"truncation": 0.3}, (0, 1, 1)),
        ({"truncation": 0.51}, (0, 0, 0)),
    ],
)
def test_levels(columns: dict, levels: tuple[int, int, int]) -> None:
    evaluation = evaluate(([("Car", BOX, columns)], [("Car", BOX, 0.9)]))
    assert tuple(evaluation.scores["Car", level].n_gt for level in LEVELS) == levels
    # an ignored ground truth takes its detection along: no false alarm
    for level, valid in zip(LEVELS, levels, strict=True):
        matches = match_objects(evaluation.gt, evaluation.detections, "Car", level)
        assert (matches.is_tp.sum(), matches.is_fp.sum(), matches.is_fn.sum()) == (valid, 0, 0)


def test_a_height_equal_to_the_minimum_is_too_small_for_a_label_but_not_for_a_detection() -> None:
    box = (100.0, 100.0, 200.0, 125.0)
    evaluation = evaluate(([("Car", box)], [("Car", box, 0.9), ("Car", (400.0, 100.0, 500.0, 125.0), 0.8)]))
    assert evaluation.scores["Car", "moderate"].n_gt == 0
    matches = match_objects(evaluation.gt, evaluation.detections, "Car", "moderate")
    assert matches.gt_ignored.tolist() == [True] and matches.det_ignored.tolist() == [False, False]
    assert matches.is_fp.tolist() == [False, True]


def test_a_too_small_detection_of_another_class_absorbs_a_ground_truth() -> None:
    gt_box = (100.0, 100.0, 200.0, 125.9)  # detection heights are cut to 24, the label's 25.9 counts
    evaluation = evaluate(
        ([("Car", gt_box)], [("Pedestrian", (100.0, 100.4, 200.0, 125.3), 0.9), ("Car", FAR, 0.5)]),
        ([("Car", BOX)], [("Car", BOX, 0.4)]),
    )
    score = evaluation.scores["Car", "moderate"]
    assert score.n_gt == 2
    assert (score.tp[-1], score.fn[-1]) == (1, 0)  # one hit, and one neither hit nor miss
    matches = match_objects(evaluation.gt, evaluation.detections, "Car", "moderate")
    assert matches.gt_det_rows.tolist() == [0, 2] and matches.is_tp.tolist() == [False, True]


def test_an_ignored_detection_gives_way_to_a_valid_one() -> None:
    gt_box = (100.0, 100.0, 200.0, 126.0)
    small, valid = (100.0, 100.5, 200.0, 125.4), (100.0, 100.0, 200.0, 131.0)
    evaluation = evaluate(([("Car", gt_box)], [("Car", small, 0.9), ("Car", valid, 0.3)]))
    matches = match_objects(evaluation.gt, evaluation.detections, "Car", "moderate")
    assert matches.gt_det_rows.tolist() == [1]
    above = match_objects(evaluation.gt, evaluation.detections, "Car", "moderate", 0.5)
    assert above.gt_det_rows.tolist() == [0] and not above.is_tp.any() and not above.is_fn.any()


def test_among_ignored_detections_the_first_in_the_file_is_taken() -> None:
    """Not the one that overlaps most: so the other person is left without one, and missed."""
    first, second = (115.0, 100.0, 175.0, 124.9), (98.0, 100.0, 158.0, 124.9)
    people = [("Pedestrian", (100.0, 100.0, 160.0, 125.9)), ("Pedestrian", (130.0, 100.0, 190.0, 125.9))]
    evaluation = evaluate((people, [("Pedestrian", first, 0.5), ("Pedestrian", second, 0.5)]))
    matches = match_objects(evaluation.gt, evaluation.detections, "Pedestrian", "moderate")
    assert matches.gt_det_rows.tolist() == [0, -1] and matches.is_fn.tolist() == [False, True]


def test_among_equal_overlaps_the_first_in_the_file_is_taken() -> None:
    evaluation = evaluate(([("Car", BOX)], [("Car", BOX, 0.5), ("Car", BOX, 0.9)]))
    assert match_objects(evaluation.gt, evaluation.detections, "Car", "easy").gt_det_rows.tolist() == [0]
    assert match_objects(evaluation.gt, evaluation.detections, "Car", "easy", 0.6).gt_det_rows.tolist() == [1]


def test_neighbours_are_ignored_and_trucks_are_false_alarms() -> None:
    found = [("Car", BOX, 0.9)]
    assert counts(evaluate(([("Van", BOX), ("Car", FAR)], found + [("Car", FAR, 0.8)]))) == (1, 0, 0)
    assert counts(evaluate(([("Truck", BOX), ("Car", FAR)], found + [("Car", FAR, 0.8)]))) == (1, 1, 0)
    walkers = evaluate(
        ([("Person_sitting", BOX), ("Pedestrian", FAR)], [("Pedestrian", BOX, 0.9), ("Pedestrian", FAR, 0.8)])
    )
    assert counts(walkers, "Pedestrian") == (1, 0, 0)


def test_dontcare_forgives_by_the_detections_own_area() -> None:
    region = ("DontCare", (0.0, 0.0, 171.0, 400.0))  # covers 71 % of the car, 69 % of the other
    detections = [("Car", BOX, 0.9), ("Car", (102.0, 200.0, 202.0, 250.0), 0.9), ("Car", FAR, 0.8)]
    assert counts(evaluate(([("Car", FAR), region], detections))) == (1, 1, 0)


def test_names_compare_without_case() -> None:
    assert counts(evaluate(([("car", BOX), ("dontcare", FAR)], [("CAR", BOX, 0.9), ("Car", FAR, 0.95)]))) == (1, 0, 0)


def test_overlap_must_exceed_the_minimum() -> None:
    half = (100.0, 100.0, 200.0, 200.0)
    evaluation = evaluate(
        ([("Pedestrian", half)], [("Pedestrian", (100.0, 100.0, 200.0, 150.0), 0.9)]),  # exactly 0.5
        ([("Pedestrian", half)], [("Pedestrian", half, 0.5)]),
    )
    assert counts(evaluation, "Pedestrian") == (1, 1, 1)


def test_orientation() -> None:
    evaluation = evaluate(*[([("Car", BOX, {"alpha": 0.5})], [("Car", BOX, 0.9, {"alpha": 0.5 + np.pi / 2})])] * 41)
    score = evaluation.scores["Car", "easy"]
    assert score.ap_r40 == 100.0
    assert score.aos_r40 == pytest.approx(50.0)  # a right angle: (1 + cos 90°) / 2


def test_one_unknown_alpha_switches_orientation_off() -> None:
    frame = ([("Car", BOX)], [("Car", BOX, 0.9)])
    odd = ([("Car", BOX)], [("Car", BOX, 0.9, {"alpha": -10.0})])
    assert evaluate(frame).scores["Car", "easy"].aos_r40 is not None
    evaluation = evaluate(frame, odd)
    assert not evaluation.has_orientation and evaluation.scores["Car", "easy"].aos_r40 is None


def test_a_class_nobody_detected_is_not_scored() -> None:
    evaluation = evaluate(([("Car", BOX), ("Cyclist", FAR)], [("Car", BOX, 0.9)]))
    assert {name for name, _ in evaluation.scores} == {"Car"}
    assert evaluate().scores == {} and evaluate(([], [])).scores == {}


def test_detections_without_ground_truth_score_zero() -> None:
    score = evaluate(([], [("Car", BOX, 0.9)])).scores["Car", "easy"]
    assert score.n_gt == 0 and score.ap_r40 == 0.0 and len(score.thresholds) == 0


def test_results_without_scores_and_other_frames_are_refused() -> None:
    evaluator = ObjectEvaluator()
    with pytest.raises(ValueError, match="without scores"):
        evaluator.process("a", rows(), rows(("Car", BOX)))
    gt = ObjectTable.from_rows(["a"], [rows()], scores=False)
    with pytest.raises(ValueError, match="different frames"):
        evaluate_objects(gt, ObjectTable.from_rows(["b"], [rows()], scores=True))


def test_reset_forgets() -> None:
    evaluator = ObjectEvaluator()
    evaluator.process("a", rows(("Car", BOX)), rows(scores=True))
    evaluator.reset()
    evaluator.process("b", rows(("Car", BOX)), rows(("Car", BOX, 0.9), scores=True))
    assert evaluator.evaluate().gt.frame_names == ("b",)


# ---------------------------------------------------------------- a second opinion: the devkit's walk, image by image


def walk(evaluation: ObjectEvaluation, class_name: str, level: str) -> dict[str, list]:
    """Thresholds and counts by the protocol's words, one image and one threshold at a time."""
    gt, det = evaluation.gt, evaluation.detections
    assert det.scores is not None
    overlap, neighbour = MINIMUM_OVERLAP[class_name], (NEIGHBOUR[class_name] or "").lower()

    def name(table: ObjectTable, i: int) -> str:
        return table.class_names[table.class_ids[i]].lower()

    def shared(a: np.ndarray, b: np.ndarray) -> float:
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        return w * h if w > 0 and h > 0 else 0.0

    def area(a: np.ndarray) -> float:
        return (a[2] - a[0]) * (a[3] - a[1])

    def iou(i: int, j: int) -> float:
        inter = shared(det.boxes_xyxy[j], gt.boxes_xyxy[i])
        return inter / (area(det.boxes_xyxy[j]) + area(gt.boxes_xyxy[i]) - inter) if inter else 0.0

    frames = []
    for f in range(len(gt.frame_names)):
        truths, found, regions = [], [], []
        for i in np.flatnonzero(gt.frames == f):
            height = gt.boxes_xyxy[i, 3] - gt.boxes_xyxy[i, 1]
            hard = gt.occlusion[i] > MAXIMUM_OCCLUSION[level] or gt.truncation[i] > MAXIMUM_TRUNCATION[level]
            hard = hard or height <= MINIMUM_HEIGHT[level]
            if name(gt, i) == "dontcare":
                regions.append(i)
            elif name(gt, i) == class_name.lower():
                truths.append((i, hard))
            elif name(gt, i) == neighbour:
                truths.append((i, True))
        for j in np.flatnonzero(det.frames == f):
            if int(abs(det.boxes_xyxy[j, 3] - det.boxes_xyxy[j, 1])) < MINIMUM_HEIGHT[level]:
                found.append((j, True))
            elif name(det, j) == class_name.lower():
                found.append((j, False))
        frames.append((truths, found, regions))

    collected, n_gt = [], 0
    for truths, found, _ in frames:
        taken: set[int] = set()
        for i, ignored in truths:
            n_gt += not ignored
            best, best_score = None, -1e7
            for j, det_ignored in found:
                if j not in taken and iou(i, j) > overlap and det.scores[j] > best_score:
                    best, best_score = (j, det_ignored), det.scores[j]
            if best:
                taken.add(best[0])
                if not ignored and not best[1]:
                    collected.append(best_score)

    thresholds, wanted = [], 0.0
    falling = sorted(collected, reverse=True)
    for k, value in enumerate(falling):
        last = k + 1 == len(falling)
        left, right = (k + 1) / n_gt, (k + 1 if last else k + 2) / n_gt
        if not last and right - wanted < wanted - left:
            continue
        thresholds.append(value)
        wanted += 1 / 40

    out: dict[str, list] = {"thresholds": thresholds, "tp": [], "fp": [], "fn": [], "similarity": []}
    for threshold in thresholds:
        tp = fp = fn = 0
        similarity = 0.0
        for truths, all_found, regions in frames:
            found = [(j, ignored) for j, ignored in all_found if det.scores[j] >= threshold]
            taken = set()
            for i, ignored in truths:
                best, best_iou = None, 0.0
                for j, det_ignored in found:
                    value = iou(i, j)
                    if j in taken or value <= overlap:
                        continue
                    if not det_ignored and (best is None or best[1] or value > best_iou):
                        best, best_iou = (j, False), value
                    elif det_ignored and best is None:
                        best = (j, True)
                if best is None:
                    fn += not ignored
                    continue
                taken.add(best[0])
                if not ignored and not best[1]:
                    tp += 1
                    similarity += (1 + np.cos(gt.alpha[i] - det.alpha[best[0]])) / 2
            for j, ignored in found:
                if j in taken or ignored:
                    continue
                own = area(det.boxes_xyxy[j])
                forgiven = any(
                    (inter := shared(det.boxes_xyxy[j], gt.boxes_xyxy[r])) and inter / own > overlap for r in regions
                )
                fp += not forgiven
        for key, value in zip(("tp", "fp", "fn", "similarity"), (tp, fp, fn, similarity), strict=True):
            out[key].append(value)
    return out


GT_NAMES = ["Car", "Car", "Van", "Pedestrian", "Person_sitting", "Cyclist", "DontCare", "Truck"]
DET_NAMES = ["Car", "Car", "Pedestrian", "Cyclist"]


def crowded_scene(seed: int, n_frames: int = 6, coarse: bool = True) -> ObjectEvaluation:
    """Heaps of boxes that share detections, on a coarse grid so that overlaps and scores tie."""
    rng = np.random.default_rng(seed)
    gts, dets = [], []
    for _ in range(n_frames):
        spots = rng.integers(0, 3, 2) * 40.0 + 50
        gt_entries, det_entries = [], []
        for names, entries, count in ((GT_NAMES, gt_entries, 7), (DET_NAMES, det_entries, 12)):
            for _ in range(rng.integers(0, count)):
                left, top = spots + rng.integers(-2, 3, 2) * 3.0 if coarse else spots + rng.normal(0, 4, 2)
                size = rng.choice([24.5, 25.0, 25.5, 30.0, 39.9, 41.0, 60.0], 2)
                size = np.array([60.0, rng.choice([24.6, 25.0, 25.9, 39.7, 40.0, 41.0])]) if coarse else size
                box = (left, top, left + size[0], top + size[1])
                columns = {"alpha": float(rng.integers(-3, 4))}
                if entries is gt_entries:
                    columns |= {
                        "occlusion": int(rng.integers(0, 4)),
                        "truncation": float(rng.choice([0, 0, 0.2, 0.6])),
                    }
                    entries.append((str(rng.choice(names)), box, columns))
                else:
                    score = float(rng.integers(0, 8)) / 8 if coarse else float(rng.random())
                    entries.append((str(rng.choice(names)), box, score, columns))
        gts.append(gt_entries)
        dets.append(det_entries)
    return evaluate(*zip(gts, dets, strict=True))


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("seed", range(25))
def test_equals_the_walk_in_crowds(seed: int, coarse: bool) -> None:
    evaluation = crowded_scene(seed, coarse=coarse)
    for (class_name, level), score in evaluation.scores.items():
        expected = walk(evaluation, class_name, level)
        assert score.thresholds.tolist() == expected["thresholds"]
        assert score.tp.tolist() == expected["tp"]
        assert score.fp.tolist() == expected["fp"]
        assert score.fn.tolist() == expected["fn"]
        assert score.similarity.tolist() == pytest.approx(expected["similarity"])


def test_curves_equal_matching_again_at_every_score() -> None:
    """Not only at the official thresholds: the steps hold wherever a report looks."""
    evaluation = crowded_scene(3, n_frames=8)
    for (class_name, level), curve in evaluation.curves.items():
        for threshold in np.unique(curve.event_scores):
            matches = match_objects(evaluation.gt, evaluation.detections, class_name, level, threshold)
            reached = curve.event_scores >= threshold
            assert curve.event_tp[reached].sum() == matches.is_tp.sum()
            assert curve.event_fp[reached].sum() == matches.is_fp.sum()
            absorbed = curve.event_absorbed[reached].sum()
            assert curve.n_gt.sum() - curve.event_tp[reached].sum() - absorbed == matches.is_fn.sum()


# ---------------------------------------------------------------- properties


seeds = st.integers(0, 10_000)


def pick(table: ObjectTable, order: np.ndarray) -> ObjectTable:
    """Rows in another order; frames must stay sorted."""
    columns = ("frames", "class_ids", "truncation", "occlusion", "alpha", "boxes_xyxy", "dimensions_hwl")
    columns += ("location_cam2", "rotation_y")
    scores = None if table.scores is None else table.scores[order]
    return replace(table, scores=scores, **{name: getattr(table, name)[order] for name in columns})


def numbers(evaluation: ObjectEvaluation) -> dict:
    return {
        key: (s.thresholds.tolist(), s.tp.tolist(), s.fp.tolist(), s.fn.tolist())
        for key, s in evaluation.scores.items()
    }


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_order_of_frames_does_not_matter(seed: int) -> None:
    evaluation = crowded_scene(seed)
    order = np.random.default_rng(seed).permutation(len(evaluation.gt.frame_names))
    evaluator = ObjectEvaluator()
    for i in order:
        evaluator.process(str(i), evaluation.gt.frame(i), evaluation.detections.frame(i))
    assert numbers(evaluator.evaluate()) == numbers(evaluation)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_order_of_rows_does_not_matter_where_objects_stand_apart(seed: int) -> None:
    """Ground truths that share no detection, and scores and overlaps without ties."""
    rng = np.random.default_rng(seed)
    evaluation = evaluate(
        *(
            (
                [("Car", (x, 100.0, x + 100, 160.0)) for x in range(0, 1000, 200)],
                [
                    ("Car", tuple(np.array([x, 100.0, x + 100, 160.0]) + rng.normal(0, 4, 4)), float(rng.random()))
                    for x in range(0, 1000, 200)
                    for _ in range(rng.integers(0, 4))
                ],
            )
            for _ in range(3)
        )
    )

    def shuffled(table: ObjectTable) -> ObjectTable:
        return pick(table, np.lexsort((rng.random(len(table)), table.frames)))

    assert numbers(evaluate_objects(shuffled(evaluation.gt), shuffled(evaluation.detections))) == numbers(evaluation)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_removing_a_true_positive_never_raises_recall(seed: int) -> None:
    evaluation = crowded_scene(seed)
    for class_name, level in evaluation.scores:
        before = match_objects(evaluation.gt, evaluation.detections, class_name, level)
        hits = before.gt_det_rows[before.is_tp]
        if not len(hits):
            continue
        rest = np.delete(np.arange(len(evaluation.detections)), hits[seed % len(hits)])
        after = match_objects(evaluation.gt, pick(evaluation.detections, rest), class_name, level)
        assert after.is_tp.sum() <= before.is_tp.sum()


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_weights_equal_repeated_frames(seed: int) -> None:
    evaluation = crowded_scene(seed)
    weights = np.random.default_rng(seed).integers(0, 3, len(evaluation.gt.frame_names))
    evaluator = ObjectEvaluator()
    for i in np.repeat(np.arange(len(weights)), weights):
        evaluator.process(str(i), evaluation.gt.frame(i), evaluation.detections.frame(i))
    repeated = evaluator.evaluate()
    for key, curve in evaluation.curves.items():
        weighted = score_curve(curve, True, weights)
        if key not in repeated.scores:
            assert len(weighted.thresholds) == 0
            continue
        assert weighted.thresholds.tolist() == repeated.scores[key].thresholds.tolist()
        assert weighted.tp.tolist() == repeated.scores[key].tp.tolist()
        assert weighted.fp.tolist() == repeated.scores[key].fp.tolist()
        assert weighted.fn.tolist() == repeated.scores[key].fn.tolist()
        assert weighted.ap_r40 == pytest.approx(repeated.scores[key].ap_r40)


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_a_monotonic_change_of_scores_changes_nothing(seed: int) -> None:
    evaluation = crowded_scene(seed)
    assert evaluation.detections.scores is not None
    stretched = replace(evaluation.detections, scores=evaluation.detections.scores * 2 - 7)
    again = evaluate_objects(evaluation.gt, stretched)
    assert {k: s.tp.tolist() for k, s in again.scores.items()} == {
        k: s.tp.tolist() for k, s in evaluation.scores.items()
    }
