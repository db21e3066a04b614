"""Road scores: pictures of a few pixels, and a camera whose view one can work out by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import UserError
from perception.evaluation.results import RoadImage
from perception.evaluation.road import (
    BIRDS_EYE,
    RoadEvaluator,
    average_precision_11,
    category_of,
    colour_errors,
    confidence_histograms,
    pr_curve,
    read_confidence,
    read_ground_truth,
    read_road_calibration,
    road_planes,
)

ALL = np.ones((2, 4), np.uint8)
ROAD = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)

LEVEL_CAMERA = {
    "P2": np.array([[100.0, 0, 200, 0], [0, 100, 50, 0], [0, 0, 1, 0]]),
    "R0_rect": np.eye(3),
    "Tr_cam_to_road": np.array([[1.0, 0, 0, 0], [0, 1, 0, -1.5], [0, 0, 1, 0]]),
}
"""Looks straight ahead from 1.5 m above the road."""


def evaluate(*pictures: tuple[str, np.ndarray, np.ndarray, np.ndarray]):
    evaluator = RoadEvaluator("perspective")
    for name, valid, road, confidence in pictures:
        evaluator.process(name, valid, road, np.asarray(confidence, np.uint8))
    return evaluator.evaluate()


def test_counts_by_hand() -> None:
    confidence = np.array([[0, 200, 100, 200], [0, 0, 255, 0]])
    score = evaluate(("um_road_000000", ALL, ROAD, confidence)).scores["um_road"]
    # at 1…100: three of four road pixels, one false alarm
    assert (score.threshold, score.tp, score.fp, score.fn, score.tn) == (1, 3, 1, 1, 3)
    assert (score.precision, score.recall, score.fpr, score.fnr) == (0.75, 0.75, 0.25, 0.25)
    assert score.max_f == pytest.approx(0.75)
    # recall 0…0.2 at precision 1 (255), 0.3…0.7 at 3/4, 0.8…1 at 1/2 (everything is road)
    assert score.ap == pytest.approx((3 * 1 + 5 * 0.75 + 3 * 0.5) / 11)


def test_a_perfect_map() -> None:
    score = evaluate(("um_road_000000", ALL, ROAD, ROAD * 255)).scores["URBAN"]
    assert (score.max_f, score.ap, score.precision, score.recall, score.fpr, score.fnr) == (1, 1, 1, 1, 0, 0)
    assert score.threshold == 1  # of all that are equally good, the lowest


def test_what_is_not_judged_does_not_count() -> None:
    valid = np.array([[1, 0, 1, 0], [1, 0, 1, 0]])
    confidence = np.array([[0, 255, 255, 0], [0, 255, 255, 0]])
    score = evaluate(("um_road_000000", valid, ROAD, confidence)).scores["um_road"]
    assert (score.max_f, score.tp + score.fp + score.fn + score.tn) == (1.0, 4)


def test_a_picture_without_road_gives_zeros_not_errors() -> None:
    score = evaluate(("um_road_000000", ALL, ROAD * 0, ROAD * 255)).scores["um_road"]
    assert (score.max_f, score.ap, score.recall, score.precision) == (0, 0, 0, 0)


def test_counts_are_pooled_not_averaged() -> None:
    big, small = np.ones((10, 10), np.uint8), np.ones((1, 1), np.uint8)
    scores = evaluate(("um_road_000000", big, big, big * 255), ("uu_road_000000", small, small, small * 0)).scores
    assert scores["URBAN"].recall == 1.0  # all is road at threshold 0
    assert scores["URBAN"].recall_curve[1] == pytest.approx(100 / 101)
    assert scores["um_road"].recall_curve[1] == 1.0 and scores["uu_road"].recall_curve[1] == 0.0


def test_categories() -> None:
    names = ("um_lane_000001", "um_road_000012", "umm_road_000003", "uu_road_000004", "street7", "0042")
    assert [category_of(n) for n in names] == ["um_lane", "um_road", "umm_road", "uu_road", "street", "road"]
    scores = evaluate(*((name, ALL, ROAD, ROAD * 255) for name in names)).scores
    assert scores["URBAN"].n_images == 3  # the lane is a benchmark of its own
    assert "URBAN" not in evaluate(("um_lane_000001", ALL, ROAD, ROAD)).scores


def test_average_precision_takes_the_best_at_or_beyond_each_recall() -> None:
    assert average_precision_11(np.array([0.5, 1.0]), np.array([1.0, 0.5])) == pytest.approx((6 * 1 + 5 * 0.5) / 11)
    assert average_precision_11(np.array([1.0]), np.array([0.55])) == pytest.approx(6 / 11)


def random_image(seed: int) -> RoadImage:
    rng = np.random.default_rng(seed)
    road, other = rng.integers(0, 50, (2, 256)) * rng.integers(0, 2, (2, 256))
    return RoadImage(name="um_road_000000", category="um_road", road_histogram=road, other_histogram=other)


images = st.integers(0, 1000).map(random_image)


@settings(max_examples=25, deadline=None)
@given(st.lists(images, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_weights_repeat(pictures: list[RoadImage], random) -> None:
    shuffled = random.sample(pictures, len(pictures))
    score = pr_curve(pictures, "x")
    assert pr_curve(shuffled, "x").max_f == score.max_f and pr_curve(shuffled, "x").ap == score.ap
    weights = np.array([random.randrange(3) for _ in pictures])
    repeated = [image for image, weight in zip(pictures, weights, strict=True) for _ in range(weight)]
    assert pr_curve(pictures, "x", weights).max_f == pr_curve(repeated, "x").max_f


@settings(max_examples=40, deadline=None)
@given(images, st.integers(1, 255))
def test_a_hit_taken_away_never_raises_recall(image: RoadImage, level: int) -> None:
    lowered = image.road_histogram.copy()
    lowered[0] += lowered[level]
    lowered[level] = 0
    worse = RoadImage(image.name, image.category, lowered, image.other_histogram)
    assert (pr_curve([worse], "x").recall_curve <= pr_curve([image], "x").recall_curve).all()


def test_histograms_hold_every_judged_pixel_once() -> None:
    rng = np.random.default_rng(0)
    valid, road = rng.integers(0, 2, (2, 50, 60))
    confidence = rng.integers(0, 256, (50, 60)).astype(np.uint8)
    of_road, of_other = confidence_histograms(valid, road, confidence)
    assert of_road.sum() == (valid & road).sum() and of_other.sum() == (valid & ~road & 1).sum()
    assert of_road[7] == ((confidence == 7) & (valid & road == 1)).sum()


# ---------------------------------------------------------------- seen from above


def test_cells_are_where_a_level_camera_sees_them() -> None:
    u, v = BIRDS_EYE.pixels(LEVEL_CAMERA)
    assert u.shape == (800, 400)
    # nearest row, z = 6.025: 1.5 m below the camera; leftmost column, x = -9.975
    assert v[-1, 0] == pytest.approx(50 + 100 * 1.5 / 6.025)
    assert u[-1, 0] == pytest.approx(200 - 100 * 9.975 / 6.025)
    # farthest row, z = 45.975; rightmost column
    assert v[0, -1] == pytest.approx(50 + 100 * 1.5 / 45.975)
    assert u[0, -1] == pytest.approx(200 + 100 * 9.975 / 45.975)


def test_the_view_reads_the_pixel_above_and_to_the_left() -> None:
    """The official tool counts pixels from 1: u = 7.9 is its pixel 7, our pixel 6."""
    image = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30).astype(np.uint8)
    pixels = np.full((2, *BIRDS_EYE.size_hw), -5.0)
    pixels[:, 0, 0] = 7.9, 3.2
    pixels[:, 0, 1] = 30.0, 20.0  # the last pixel
    pixels[:, 0, 2] = 30.1, 20.0  # beyond it
    pixels[:, 0, 3] = 1.0, 1.0  # the first
    pixels[:, 0, 4] = 0.99, 5.0  # before it
    view = BIRDS_EYE.view(image + 1, pixels)
    assert view[0, :5].tolist() == [image[2, 6] + 1, image[19, 29] + 1, 0, image[0, 0] + 1, 0]
    assert view[1:].sum() == 0


def test_ground_truth_and_result_move_together() -> None:
    rng = np.random.default_rng(1)
    road = (rng.random((70, 300)) < 0.5).astype(np.uint8)  # the near and the right edge are out of sight
    evaluator = RoadEvaluator("bev")
    evaluator.process("um_road_000000", np.ones_like(road), road, road * 255, LEVEL_CAMERA)
    score = evaluator.evaluate().scores["um_road"]
    assert score.max_f == 1.0 and 0 < score.tp + score.tn < 800 * 400


def test_maps_already_seen_from_above_are_taken_as_they_are() -> None:
    rng = np.random.default_rng(1)
    road = (rng.random((120, 400)) < 0.5).astype(np.uint8)
    above = BIRDS_EYE.view(road * 255, BIRDS_EYE.pixels(LEVEL_CAMERA))
    evaluator = RoadEvaluator("bev")
    evaluator.process("um_road_000000", np.ones_like(road), road, above, LEVEL_CAMERA)
    assert evaluator.evaluate().scores["um_road"].max_f == 1.0


# ---------------------------------------------------------------- files and bad input


def test_ground_truth_colours(tmp_path: Path) -> None:
    bgr = np.zeros((1, 4, 3), np.uint8)
    bgr[0, 1], bgr[0, 2], bgr[0, 3] = (0, 0, 255), (255, 0, 255), (255, 0, 0)  # valid; road; blue outside: nothing
    cv2.imwrite(str(tmp_path / "a.png"), bgr)
    valid, road = read_ground_truth(tmp_path / "a.png")
    assert valid.tolist() == [[0, 1, 1, 0]] and road.tolist() == [[0, 0, 1, 0]]


def test_planes_can_be_read_again(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "gt.png"), np.full((4, 5, 3), 255, np.uint8))
    cv2.imwrite(str(tmp_path / "result.png"), np.full((4, 5), 7, np.uint8))
    none = np.zeros(256, np.int64)
    image = RoadImage("a", "a", none, none, tmp_path / "gt.png", tmp_path / "result.png")
    valid, road, confidence = road_planes(image, "perspective")
    assert valid.all() and road.all() and (confidence == 7).all()
    missing = RoadImage("a", "a", none, none, tmp_path / "gt.png", None)
    assert not road_planes(missing, "perspective")[2].any()


def test_colours_of_errors() -> None:
    valid = np.array([[1, 1, 1, 0]])
    picture = colour_errors(valid, np.array([[1, 1, 0, 0]]), np.array([[9, 0, 9, 9]], np.uint8), 5)
    hit, miss, alarm, outside = picture[0].tolist()
    assert hit[1] == max(hit) and miss[2] == max(miss) and alarm[0] == max(alarm) and max(outside) < 60


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        (np.zeros((4, 4, 3), np.uint8), "3 channel"),
        (np.zeros((4, 4), np.uint16), "uint16"),
    ],
)
def test_confidence_must_be_eight_bit_grey(tmp_path: Path, picture: np.ndarray, found: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    with pytest.raises(UserError, match=found):
        read_confidence(tmp_path / "a.png")


def test_broken_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded"):
        read_confidence(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"b\.png: no such file"):
        read_ground_truth(tmp_path / "b.png")


def test_sizes_must_fit() -> None:
    with pytest.raises(UserError, match=r"um_road_000000: the result is 3x2 pixels"):
        evaluate(("um_road_000000", ALL, ROAD, np.zeros((2, 3))))
    with pytest.raises(UserError, match="no calibration"):
        RoadEvaluator("bev").process("um_road_000000", ALL, ROAD, ROAD)
    with pytest.raises(UserError, match="or 400x800 from above"):
        RoadEvaluator("bev").process("a", ALL, ROAD, np.zeros((2, 3), np.uint8), LEVEL_CAMERA)
    with pytest.raises(ValueError, match="space"):
        RoadEvaluator("birdseye")


def test_a_calibration_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("P2: " + " ".join(["1"] * 12) + "\n")
    with pytest.raises(UserError, match="has no R0_rect"):
        read_road_calibration(tmp_path / "a.txt")


def test_reset_forgets() -> None:
    evaluator = RoadEvaluator("perspective")
    evaluator.process("a", ALL, ROAD, ROAD)
    evaluator.reset()
    assert evaluator.evaluate().scores == {}
