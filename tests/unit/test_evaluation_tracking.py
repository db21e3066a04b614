"""Tracking scores: stories of a few frames whose numbers one can check in the head."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tracking_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import UserError
from perception.evaluation import tracking_metrics
from perception.evaluation.results import ALPHAS, TrackingEvaluation
from perception.evaluation.tracking import TrackingEvaluator, combine, evaluate_sequence, frames_of
from perception.formats.kitti import ObjectRows, TrackingRows

BOX = (100.0, 100.0, 200.0, 150.0)
OTHER = (400.0, 100.0, 500.0, 150.0)


def rows(*entries: tuple) -> TrackingRows:
    """Entries of (frame, id, box[, class name[, dict of columns]])."""
    names = [entry[3] if len(entry) > 3 else "Car" for entry in entries]
    columns = {"truncation": np.zeros(len(entries)), "occlusion": np.zeros(len(entries), np.int64)}
    for i, entry in enumerate(entries):
        for key, value in (entry[4] if len(entry) > 4 else {}).items():
            columns[key][i] = value
    return TrackingRows(
        np.array([e[0] for e in entries], np.int64),
        np.array([e[1] for e in entries], np.int64),
        ObjectRows.from_boxes(names, np.array([e[2] for e in entries], float).reshape(-1, 4), **columns),
    )


def evaluate(gt: list, results: list, n_frames: int = 10) -> TrackingEvaluation:
    evaluator = TrackingEvaluator()
    evaluator.process("0000", rows(*gt), rows(*results), n_frames)
    return evaluator.evaluate()


def values(gt: list, results: list, n_frames: int = 10, class_name: str = "Car") -> dict[str, float]:
    return evaluate(gt, results, n_frames).combined[class_name].values


def moved(box: tuple, by: float) -> tuple:
    return (box[0] + by, box[1], box[2] + by, box[3])


TRACK = [(t, 7, BOX) for t in range(4)]


def test_a_perfect_result() -> None:
    found = values(TRACK, TRACK)
    for name in ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1", "CLR_Re", "CLR_Pr", "HOTA(0)", "MTR"):
        assert found[name] == 1.0, name
    assert found["IDSW"] == found["Frag"] == found["CLR_FP"] == found["CLR_FN"] == 0


def test_a_track_that_changes_its_id_half_way() -> None:
    found = values(TRACK, [(0, 1, BOX), (1, 1, BOX), (2, 2, BOX), (3, 2, BOX)])
    assert found["DetA"] == 1.0
    assert found["AssA"] == 0.5  # each match: 2 frames together of 4 and 2 that are 4 in all
    assert found["HOTA"] == pytest.approx(math.sqrt(0.5))
    assert found["AssRe"] == 0.5 and found["AssPr"] == 1.0
    assert found["MOTA"] == 0.75 and found["IDSW"] == 1 and found["Frag"] == 0
    assert (found["IDTP"], found["IDFN"], found["IDFP"], found["IDF1"]) == (2, 2, 2, 0.5)


def test_a_gap_is_a_fragment() -> None:
    found = values(TRACK, [(0, 1, BOX), (3, 1, BOX)] + [(t, 9, OTHER) for t in range(4)])
    assert (found["CLR_TP"], found["CLR_FN"], found["CLR_FP"]) == (2, 2, 4)
    assert found["Frag"] == 1 and found["IDSW"] == 0
    assert found["MOTA"] == (2 - 4) / 4
    assert (found["MT"], found["PT"], found["ML"]) == (0, 1, 0)


def test_frames_without_tracker_boxes_do_not_break_a_track() -> None:
    """The official tool looks at the last frame with both sides, however long ago."""
    assert values(TRACK, [(0, 1, BOX), (3, 1, BOX)])["Frag"] == 0


def test_overlap_decides_at_which_alphas_a_match_counts() -> None:
    """A box moved by a quarter of its width: IoU 75 / 125 = 0.6."""
    found = evaluate(TRACK, [(t, 1, moved(BOX, 25.0)) for t in range(4)]).combined["Car"]
    assert found.by_alpha["HOTA"].tolist() == [1.0] * 12 + [0.0] * 7  # 0.05 … 0.60
    assert found.values["HOTA"] == pytest.approx(12 / 19)
    assert found.values["MOTP"] == pytest.approx(0.6) and len(ALPHAS) == 19


def test_half_overlap_counts() -> None:
    third = 100.0 / 3  # IoU (100 - 33.3) / 133.3 = 0.5
    found = values(TRACK, [(t, 1, moved(BOX, third)) for t in range(4)])
    assert found["CLR_TP"] == 4


def test_a_track_is_continued_rather_than_improved() -> None:
    """CLEAR keeps to the partner of the frame before, though another box overlaps more."""
    near, nearer = moved(BOX, 20.0), moved(BOX, 10.0)
    results = [(0, 1, near), (1, 1, near), (1, 2, nearer)]
    found = values(TRACK[:2], results)
    assert found["IDSW"] == 0 and found["CLR_FP"] == 1
    switched = values(TRACK[:2], [(0, 1, near), (1, 1, moved(BOX, 60.0)), (1, 2, nearer)])
    assert switched["IDSW"] == 1


def test_two_cars_that_swap_ids() -> None:
    gt = [(t, i, box) for t in range(4) for i, box in ((1, BOX), (2, OTHER))]
    results = [(t, (5 if t < 2 else 6) if i == 1 else (6 if t < 2 else 5), box) for t, i, box in gt]
    found = values(gt, results)
    assert found["IDSW"] == 2 and found["CLR_TP"] == 8 and found["IDTP"] == 4
    assert found["AssA"] == pytest.approx(2 / 6)


def test_nothing_found() -> None:
    found = values(TRACK, [])
    assert (found["CLR_FN"], found["ML"], found["MLR"], found["HOTA"], found["LocA"]) == (4, 1, 1.0, 0.0, 1.0)
    assert found["CLR_Frames"] == 0 and found["IDFN"] == 4


def test_nothing_there() -> None:
    evaluation = evaluate([], [(t, 1, BOX) for t in range(4)])
    own = evaluation.sequences["0000", "Car"].score.values
    assert (own["CLR_FP"], own["MODA"], own["MLR"], own["FP_per_frame"]) == (4, 0.0, 1.0, 0.0)
    assert values([], [])["HOTA"] == 0.0


# ---------------------------------------------------------------- KITTI's rules


def test_vans_occluded_and_truncated_cars_are_not_judged_and_take_their_boxes_along() -> None:
    hidden = [(0, 2, OTHER, "Van"), (1, 3, OTHER, "Car", {"occlusion": 3}), (2, 4, OTHER, "Car", {"truncation": 1})]
    found = values(TRACK + hidden, TRACK + [(t, 9, OTHER) for t in range(3)])
    assert (found["CLR_TP"], found["CLR_FP"], found["CLR_FN"], found["GT_Dets"], found["Dets"]) == (4, 0, 0, 4, 4)
    assert values(TRACK + [(0, 2, OTHER, "Car", {"occlusion": 2})], TRACK)["CLR_FN"] == 1


def test_sitting_people_are_not_judged() -> None:
    walker = [(t, 1, (100.0, 100.0, 130.0, 180.0), "Pedestrian") for t in range(4)]
    for name in ("Person", "Person_sitting", "person"):
        sitting = [(0, 2, OTHER, name)]
        found = values(walker + sitting, walker + [(0, 9, OTHER, "Pedestrian")], class_name="Pedestrian")
        assert (found["CLR_TP"], found["CLR_FP"], found["CLR_FN"]) == (4, 0, 0)


def test_small_unmatched_boxes_do_not_count() -> None:
    small, tall = (400.0, 100.0, 430.0, 125.0), (400.0, 100.0, 430.0, 125.5)
    assert values(TRACK, TRACK + [(0, 9, small)])["CLR_FP"] == 0
    assert values(TRACK, TRACK + [(0, 9, tall)])["CLR_FP"] == 1
    tiny = [(t, 7, small) for t in range(4)]
    assert values(tiny, tiny)["CLR_TP"] == 4  # but matched ones do


def test_boxes_in_dontcare_do_not_count() -> None:
    region = (0, -1, (400.0, 0.0, 451.0, 400.0), "DontCare")  # 51 % of OTHER
    assert values([*TRACK, region], TRACK + [(0, 9, OTHER)])["CLR_FP"] == 0
    assert values([*TRACK, region], TRACK + [(1, 9, OTHER)])["CLR_FP"] == 1  # another frame
    assert values([*TRACK, region], TRACK + [(0, 9, moved(OTHER, 2.0))])["CLR_FP"] == 1  # 49 %


def test_other_classes_and_negative_ids_do_not_count() -> None:
    found = values(TRACK, [*TRACK, (0, -1, OTHER), (0, 3, OTHER, "Cyclist")])
    assert found["CLR_FP"] == 0 and found["Dets"] == 4


def test_inverted_boxes_match_nothing() -> None:
    inverted = (200.0, 150.0, 100.0, 100.0)
    found = values(TRACK, [(t, 1, inverted) for t in range(4)])
    assert found["CLR_TP"] == 0 and found["CLR_FN"] == 4


def test_an_id_twice_in_a_frame_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0000.txt"
    path.write_text("\n" + "row\n" * 3)  # a blank line first: row 3 stands in line 4
    with pytest.raises(UserError, match=r"0000\.txt:4: column 'track_id': 1 for the second time in frame 2"):
        evaluate_sequence(
            "0000", rows(), rows((1, 1, BOX), (2, 1, BOX), (2, 1, OTHER, "Cyclist")), 9, ("", str(path))
        )
    with pytest.raises(UserError, match="labels of sequence 0000:2"):
        evaluate_sequence("0000", rows((0, 1, BOX), (0, 1, BOX)), rows(), 9)


def test_frames_beyond_the_sequence_are_named() -> None:
    with pytest.raises(UserError, match=r"results of sequence 0000:2: column 'frame': found 9 \(1 such"):
        evaluate_sequence("0000", rows(), rows((8, 1, BOX), (9, 1, BOX)), 9)
    evaluate_sequence("0000", rows(), rows((9, -1, BOX)), 9)  # rows with a negative id are dropped first


# ---------------------------------------------------------------- what a report needs


def test_the_timeline_tells_the_story() -> None:
    gt = [(0, 7, BOX), (1, 7, BOX), (2, 7, BOX)]
    line = evaluate(gt, [(2, 5, BOX), (0, 4, BOX), (0, 8, OTHER)]).sequences["0000", "Car"].timeline
    assert line.frames.tolist() == [0, 1, 2] and line.gt_ids.tolist() == [7, 7, 7]
    assert line.tracker_ids.tolist() == [4, -1, 5] and line.is_switch.tolist() == [False, False, True]
    assert line.iou.tolist() == [1.0, 0.0, 1.0]
    assert line.gt_rows.tolist() == [0, 1, 2] and line.tracker_rows.tolist() == [1, -1, 0]  # as in the files
    assert (line.fp_frames.tolist(), line.fp_tracker_ids.tolist(), line.fp_rows.tolist()) == ([0], [8], [2])


# ---------------------------------------------------------------- properties


def crowd(seed: int, n_frames: int = 12) -> tuple[list, list]:
    """Cars that wander through one another, found with noise, misses, doubles and changes of id."""
    rng = np.random.default_rng(seed)
    gt, results = [], []
    places = rng.uniform(0, 200, (6, 2))
    sizes = np.array([60.0, 40.0]) + rng.uniform(0, 9, (6, 2))  # all different: no overlaps tie
    ids = np.arange(6) + 10
    for t in range(n_frames):
        places += rng.normal(0, 8, places.shape)
        for i, (x, y) in enumerate(places):
            box = np.array([x, y, x + sizes[i, 0], y + sizes[i, 1]])
            if rng.random() < 0.9:
                gt.append((t, i, tuple(box), str(rng.choice(["Car", "Car", "Car", "Van"]))))
            if rng.random() < 0.1:
                ids[i] = rng.integers(10, 40) if rng.random() < 0.5 else ids[i]
            for double in range(rng.choice([0, 1, 1, 1, 2])):
                results.append((t, int(ids[i]) + 100 * double + 1000 * i, tuple(box + rng.normal(0, 6, 4))))
    return gt, results


def close(a: dict[str, float], b: dict[str, float]) -> bool:
    return a.keys() == b.keys() and all(a[k] == pytest.approx(b[k], abs=1e-12) for k in a)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_relabelling_ids_changes_nothing(seed: int) -> None:
    gt, results = crowd(seed)
    rng = np.random.default_rng(seed)
    new_gt, new_results = rng.permutation(5000), rng.permutation(9000)
    renamed_gt = [(t, int(new_gt[i]), *rest) for t, i, *rest in gt]
    renamed = [(t, int(new_results[i]), *rest) for t, i, *rest in results]
    assert close(values(gt, results, 12), values(renamed_gt, renamed, 12))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_rows_changes_nothing(seed: int) -> None:
    gt, results = crowd(seed)
    rng = np.random.default_rng(seed)
    shuffled = [[entries[i] for i in rng.permutation(len(entries))] for entries in (gt, results)]
    assert close(values(gt, results, 12), values(*shuffled, 12))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_perfect_result_is_perfect_in_any_crowd(seed: int) -> None:
    gt = [entry for entry in crowd(seed)[0] if entry[3] == "Car"]
    found = values(gt, gt, 12)
    assert found["HOTA"] == found["MOTA"] == found["IDF1"] == 1.0 and found["IDSW"] == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_hit_taken_away_never_raises_recall(seed: int) -> None:
    """Without vans and small boxes: there, one box less can bring back another that the rules had taken away."""
    gt, results = crowd(seed)
    gt = [entry for entry in gt if entry[3] == "Car"]
    results = [entry for entry in results if entry[2][3] - entry[2][1] > 25.5]
    evaluation = evaluate(gt, results, 12)
    hits = evaluation.sequences["0000", "Car"].timeline.tracker_rows
    hits = hits[hits >= 0]
    gone = hits[seed % len(hits)]
    fewer = values(gt, results[:gone] + results[gone + 1 :], 12)
    assert fewer["IDR"] <= evaluation.combined["Car"].values["IDR"]


@given(st.integers(0, 11))
def test_a_hit_taken_away_from_lone_objects_never_raises_recall(gone: int) -> None:
    gt = [(t, i, box) for t in range(6) for i, box in ((1, BOX), (2, OTHER))]
    fewer = values(gt, gt[:gone] + gt[gone + 1 :])
    assert fewer["CLR_Re"] == fewer["IDR"] == pytest.approx(11 / 12)
    assert fewer["DetRe"] == pytest.approx(11 / 12)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_sums_over_frames_are_the_sums_of_the_sequence(seed: int) -> None:
    evaluation = evaluate(*crowd(seed), n_frames=12)
    sequence, frames = evaluation.sequences["0000", "Car"], frames_of(evaluation, "0000", "Car")
    assert frames.hota_tp.shape == (12, 19)
    assert np.allclose(frames.hota_tp.sum(axis=0), sequence.hota.tp)
    assert np.allclose(frames.hota_fn.sum(axis=0), sequence.hota.fn)
    assert np.allclose(frames.hota_fp.sum(axis=0), sequence.hota.fp)
    assert np.allclose(frames.hota_ass.sum(axis=0), sequence.hota.ass_a_sum)
    clear, identity = sequence.clear, sequence.identity
    assert frames.clear.sum(axis=0).tolist() == [clear.tp, clear.fn, clear.fp, clear.idsw]
    assert frames.identity.sum(axis=0).tolist() == [identity.idtp, identity.idfn, identity.idfp]


def test_sequences_combine_by_their_sums() -> None:
    evaluator = TrackingEvaluator()
    for i in range(3):
        gt, results = crowd(i)
        evaluator.process(f"{i:04d}", rows(*gt), rows(*results), 12)
    evaluation = evaluator.evaluate()
    parts = [evaluation.sequences[f"{i:04d}", "Car"] for i in range(3)]
    combined = evaluation.combined["Car"].values
    assert combined["CLR_TP"] == sum(p.clear.tp for p in parts)
    tp = sum(p.hota.tp for p in parts)
    weighted = sum(p.score.by_alpha["AssA"] * p.hota.tp for p in parts) / np.maximum(tp, 1)
    assert combined["AssA"] == pytest.approx(weighted.mean())
    assert close(combine(parts[::-1]).values, combined)
    evaluator.reset()
    assert evaluator.evaluate().combined == {}


# ---------------------------------------------------------------- against a plain loop


@st.composite
def crossings(draw: st.DrawFn) -> tracking_reference.Frames:
    """A few objects that meet, are missed and change ids; boxes near a coarse grid, so that pairs compete."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    gt_ids, tracker_ids, n_frames = draw(st.integers(0, 4)), draw(st.integers(0, 5)), draw(st.integers(1, 8))

    def box() -> tracking_reference.Box:
        x, y = random.integers(0, 4) * 12.0 + random.normal(0, 2), random.normal(0, 2)
        return (x, y, x + 40 + random.uniform(0, 6), y + 30 + random.uniform(0, 6))

    def some(ids: int) -> dict[int, tracking_reference.Box]:
        return {i: box() for i in range(ids) if random.random() < 0.8}

    return [(some(gt_ids), some(tracker_ids)) for _ in range(n_frames)]


@settings(deadline=None, max_examples=150)
@given(crossings())
def test_the_fast_metrics_equal_the_papers_loops(frames: tracking_reference.Frames) -> None:
    columns = []
    for side in (0, 1):
        found = [(t, i, box) for t, frame in enumerate(frames) for i, box in frame[side].items()]
        columns += [
            np.array([row[0] for row in found], np.int64),
            np.array([row[1] for row in found], np.int64),
            np.array([row[2] for row in found], np.float64).reshape(-1, 4),
        ]
    data = tracking_metrics.overlaps(*columns)
    counts = tracking_metrics.clear(data, len(frames))
    expected = tracking_reference.clear(frames)
    found_counts = {"CLR_TP": counts.tp, "CLR_FN": counts.fn, "CLR_FP": counts.fp, "IDSW": counts.idsw}
    assert found_counts == {name: expected[name] for name in found_counts}
    by_alpha = tracking_metrics.hota_values(tracking_metrics.hota(data))
    for name, values_by_alpha in tracking_reference.hota(frames).items():
        assert by_alpha[name] == pytest.approx(values_by_alpha, abs=1e-12), name
