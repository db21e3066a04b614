"""Assignment, ignore regions, loss and decode of the detection head, on cases that can be checked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from perception.errors import UserError  # noqa: E402
from perception.types import CLASS_NAMES  # noqa: E402
from training.models.heads.detection import (  # noqa: E402
    DetectionConfig,
    DetectionHead,
    DetectionTargets,
    RawDetections,
    class_loss_weight,
    complete_iou,
    distribution_focal_loss,
    generalised_iou,
    grid_points,
    laplace_loss,
    pairwise_iou,
    task_aligned_assign,
)
from training.models.network import ModelConfig  # noqa: E402

SIZE = (64, 96)


def targets(
    boxes: list[list[float]],
    classes: list[int],
    ignore: list[list[float]] | None = None,
    ignore_classes: list[int] | None = None,
    labelled: tuple[bool, ...] = (True, True, True),
    depths: list[float] | None = None,
    cuboids: list[list[float]] | None = None,
) -> DetectionTargets:
    return DetectionTargets(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4),
        class_ids=torch.tensor(classes, dtype=torch.long).reshape(1, -1),
        ignore_xyxy=torch.tensor(ignore or [], dtype=torch.float32).reshape(1, -1, 4),
        ignore_class_ids=torch.tensor(ignore_classes or [], dtype=torch.long).reshape(1, -1),
        confidences=torch.ones(1, len(boxes)),
        labelled=torch.tensor([labelled]),
        depths=torch.tensor(depths or [float("nan")] * len(boxes), dtype=torch.float32).reshape(1, -1),
        cuboids=torch.tensor(cuboids or [[float("nan")] * 6] * len(boxes), dtype=torch.float32).reshape(1, -1, 6),
    )


def point_count() -> int:
    return sum((SIZE[0] // s) * (SIZE[1] // s) for s in (8, 16, 32))


def test_grid_points_are_cell_centres_fine_level_first() -> None:
    points, strides = grid_points(SIZE, torch.device("cpu"))
    assert points.shape == (point_count(), 2)
    assert points[0].tolist() == [4.0, 4.0] and points[1].tolist() == [12.0, 4.0]
    assert points[-1].tolist() == [80.0, 48.0] and strides[-1].item() == 32


def test_iou_of_half_shifted_squares_is_a_third() -> None:
    a = torch.tensor([[[0.0, 0, 2, 2]]])
    b = torch.tensor([[[1.0, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6]]])
    assert torch.allclose(pairwise_iou(a, b), torch.tensor([[[1 / 3, 1.0, 0.0]]]))


def test_complete_iou_is_one_for_equal_boxes_and_falls_with_distance() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    assert complete_iou(box, box).item() == pytest.approx(1.0)
    near, far = torch.tensor([[12.0, 0, 22, 10]]), torch.tensor([[50.0, 0, 60, 10]])
    assert complete_iou(box, near) > complete_iou(box, far)


def test_every_object_teaches_some_points_and_only_points_inside_it() -> None:
    points, strides = grid_points(SIZE, torch.device("cpu"))
    wanted = targets([[8, 8, 40, 40], [60, 10, 64, 14]], [0, 1])  # the second is smaller than a cell
    scores = torch.full((1, len(points), 3), 0.01)
    boxes = torch.cat([points - 16, points + 16], -1)[None]
    assigned, quality = task_aligned_assign(scores, boxes, points, strides, wanted, DetectionConfig())
    for g, box in enumerate(wanted.boxes_xyxy[0]):
        chosen = points[assigned[0] == g]
        assert len(chosen) > 0
        half = ((box[2:] - box[:2]) / 2).clamp(min=6)
        centre = (box[:2] + box[2:]) / 2
        assert ((chosen - centre).abs() < half).all()
    assert (quality[assigned < 0] == 0).all() and (quality <= 1).all()


def test_fixed_assignment_takes_the_points_around_the_centre_whatever_they_say() -> None:
    """24 px around the point (20, 20): nine points of stride 8 lie within 1.5 strides; 80 px belong to stride 16."""
    points, strides = grid_points(SIZE, torch.device("cpu"))
    fixed = DetectionConfig(assign_by="centre")
    boxes = torch.cat([points - 16, points + 16], -1)[None]
    small = targets([[8, 8, 32, 32]], [1])
    chosen = []
    for seed in range(2):
        scores = torch.rand(1, len(points), 3, generator=torch.Generator().manual_seed(seed))
        assigned, quality = task_aligned_assign(scores, boxes, points, strides, small, fixed)
        chosen.append((assigned[0] == 0).nonzero().flatten().tolist())
        assert quality[0, chosen[-1]].max() == pytest.approx((24 / 32) ** 2), "the overlap that the point reached"
    assert chosen[0] == chosen[1] == [12 * y + x for y in (1, 2, 3) for x in (1, 2, 3)]
    assigned, _ = task_aligned_assign(scores, boxes, points, strides, targets([[0, 0, 80, 60]], [1]), fixed)
    assert (strides[assigned[0] == 0] == 16).all() and (assigned[0] == 0).sum() == 9
    with pytest.raises(UserError, match="assign_by"):
        DetectionConfig(assign_by="luck")  # type: ignore[arg-type]


def test_padding_teaches_nothing() -> None:
    points, strides = grid_points(SIZE, torch.device("cpu"))
    scores = torch.full((1, len(points), 3), 0.01)
    boxes = torch.cat([points - 16, points + 16], -1)[None]
    padding = targets([[0, 0, 0, 0]], [-1])
    assigned, _ = task_aligned_assign(scores, boxes, points, strides, padding, DetectionConfig())
    assert (assigned == -1).all()


def test_ignore_region_silences_its_class_inside_it_alone() -> None:
    points, _ = grid_points(SIZE, torch.device("cpu"))
    blank = torch.zeros(1, len(points), 3)
    weight = class_loss_weight(points, blank, targets([], [], [[0, 0, 48, 64]], [0]))
    inside = points[:, 0] <= 48
    assert (weight[0, inside, 0] == 0).all() and (weight[0, ~inside, 0] == 1).all()
    assert (weight[0, :, 1:] == 1).all()


def test_ignore_region_for_all_classes_and_padding_of_regions() -> None:
    points, _ = grid_points(SIZE, torch.device("cpu"))
    blank = torch.zeros(1, len(points), 3)
    weight = class_loss_weight(points, blank, targets([], [], [[0, 0, 96, 64], [0, 0, 96, 64]], [-1, -2]))
    assert (weight == 0).all()
    padded = class_loss_weight(points, blank, targets([], [], [[0, 0, 96, 64]], [-2]))
    assert (padded == 1).all()


def test_a_positive_inside_an_ignore_region_still_counts() -> None:
    points, _ = grid_points(SIZE, torch.device("cpu"))
    wanted = torch.zeros(1, len(points), 3)
    wanted[0, 5, 0] = 0.7
    weight = class_loss_weight(points, wanted, targets([], [], [[0, 0, 96, 64]], [0]))
    assert weight[0, 5, 0] == 1 and weight[0, 6, 0] == 0


def test_a_soft_label_asks_for_a_lower_score() -> None:
    """The best point of a box that a teacher was 0.4 sure of learns 0.4 times its overlap, not its overlap."""
    head = DetectionHead(16, CLASS_NAMES, DetectionConfig())
    points, _ = grid_points(SIZE, torch.device("cpu"))
    sides = torch.zeros(1, len(points), 4, 16)
    sides[..., 1] = 20.0  # every side one stride long, so the box around a point of stride 16 is 32 px wide
    pushes = []
    for confidence in (1.0, 0.4):
        logits = torch.zeros(1, len(points), 3, requires_grad=True)  # a score of a half everywhere
        wanted = targets([[8, 8, 40, 40]], [1])
        wanted = replace(wanted, confidences=torch.full((1, 1), confidence))
        raw = RawDetections(logits, sides.flatten(2), None)
        head.loss(raw, wanted, SIZE)["class"].backward()
        point = int((points == torch.tensor([24.0, 24.0])).all(1).nonzero()[0])
        assert logits.grad is not None
        pushes.append(float(logits.grad[0, point, 1]))
    assert pushes[0] < 0 < pushes[1]


def test_a_class_that_is_not_labelled_adds_nothing_to_the_loss() -> None:
    torch.manual_seed(0)
    head = DetectionHead(8, CLASS_NAMES, DetectionConfig())
    logits = torch.randn(1, point_count(), 3, requires_grad=True)
    bins = torch.randn(1, point_count(), 64, requires_grad=True)
    losses = head.loss(RawDetections(logits, bins, None), targets([], [], labelled=(False, True, False)), SIZE)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert (logits.grad[..., 0] == 0).all() and (logits.grad[..., 2] == 0).all()
    assert (logits.grad[..., 1] != 0).all()


def test_class_weights_multiply_a_class_s_part_of_the_loss() -> None:
    raw = RawDetections(torch.randn(1, point_count(), 3), torch.zeros(1, point_count(), 64), None)

    def loss(weights: tuple[float, ...], labelled: tuple[bool, bool, bool] = (True, True, True)) -> float:
        head = DetectionHead(8, CLASS_NAMES, DetectionConfig(class_weights=weights))
        return float(head.loss(raw, targets([], [], labelled=labelled), SIZE)["class"])

    assert loss((1, 1, 1)) == loss(())
    people = loss((), labelled=(False, True, False))
    assert loss((1, 3, 1)) == pytest.approx(loss(()) + 2 * people)
    with pytest.raises(UserError, match="class_weights 1 -1 1"):
        DetectionConfig(class_weights=(1, -1, 1))
    with pytest.raises(UserError, match="2 class_weights"):
        ModelConfig(detection=DetectionConfig(class_weights=(1, 2)))


def test_an_image_without_object_labels_adds_exactly_nothing() -> None:
    head = DetectionHead(8, CLASS_NAMES, DetectionConfig())
    losses = head.loss(
        RawDetections(torch.randn(1, point_count(), 3), torch.randn(1, point_count(), 64), None),
        targets([], [], labelled=(False,) * 3),
        SIZE,
    )
    assert sum(float(v) for v in losses.values()) == 0.0


def test_decode_returns_the_planted_box_once_and_sorted() -> None:
    head = DetectionHead(8, CLASS_NAMES, DetectionConfig(max_detections=20))
    points, _ = grid_points(SIZE, torch.device("cpu"))
    logits = torch.full((1, len(points), 3), -9.0)
    bins = torch.zeros(1, len(points), 4, 16)
    index = int(((points - torch.tensor([44.0, 28.0])).abs().sum(1)).argmin())  # a stride-8 centre
    for i, score in ((index, 3.0), (index + 1, 2.0)):  # its right neighbour claims the same object
        logits[0, i, 1] = score
        shift = (points[i] - torch.tensor([44.0, 28.0])) / 8
        for side, distance in enumerate([2 + shift[0], 1 + shift[1], 2 - shift[0], 1 - shift[1]]):
            bins[0, i, side, int(distance)] = 50.0
    boxes, scores, class_ids = head.decode(RawDetections(logits, bins.flatten(2), None), SIZE)
    assert torch.allclose(boxes[0, 0], torch.tensor([28.0, 20.0, 60.0, 36.0]), atol=1e-3)
    assert class_ids[0, 0] == 1 and scores[0, 0] == pytest.approx(0.9526, abs=1e-3)
    assert scores[0, 1] < 0.01, "the duplicate was not suppressed"
    assert (scores[0, :-1] >= scores[0, 1:]).all()


def test_parallel_suppression_equals_the_greedy_one() -> None:
    """Chains: A suppresses B, so B must not suppress C."""
    torch.manual_seed(3)
    torchvision = pytest.importorskip("torchvision")
    config = DetectionConfig(max_detections=40, nms_iou=0.5, nms_rounds=12)
    head = DetectionHead(8, ("Car",), config)
    logits, bins = torch.randn(1, point_count(), 1) * 3, torch.randn(1, point_count(), 64) * 4
    boxes, scores, _ = head.decode(RawDetections(logits, bins, None), SIZE)
    points, strides = grid_points(SIZE, torch.device("cpu"))
    top = logits[0, :, 0].topk(40)
    raw = head.boxes(bins[0, top.indices], points[top.indices], strides[top.indices])
    raw = torch.stack(
        [raw[:, 0].clamp(0, 96), raw[:, 1].clamp(0, 64), raw[:, 2].clamp(0, 96), raw[:, 3].clamp(0, 64)], 1
    )
    kept = torchvision.ops.nms(raw, top.values.sigmoid(), 0.5)
    assert torch.allclose(boxes[0, : len(kept)], raw[kept], atol=1e-4)
    assert (scores[0, len(kept) :] == 0).all()


# ---------------------------------------------------------------- box losses, one-to-one, distance


def test_generalised_iou_by_hand() -> None:
    """Two unit squares with a gap of one: hull 3, union 2, so 0 − 1/3. Equal boxes: 1. The same as GIoU's paper."""
    a = torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 2, 1]])
    b = torch.tensor([[2.0, 0, 3, 1], [0, 0, 2, 2], [1, 0, 3, 1]])
    assert torch.allclose(generalised_iou(a, b), torch.tensor([-1 / 3, 1.0, 1 / 3]), atol=1e-6)


def test_an_unknown_box_loss_is_refused() -> None:
    with pytest.raises(UserError, match="expected: ciou or giou"):
        DetectionConfig(box_loss="iou")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["ciou", "giou"])
def test_box_loss_is_zero_for_right_boxes_and_moves_wrong_ones(kind: str) -> None:
    head = DetectionHead(8, CLASS_NAMES, DetectionConfig(box_loss=kind, topk=1))  # type: ignore[arg-type]
    bins = torch.full((1, point_count(), 4, 16), -50.0)
    bins[..., 2] = 50.0  # every point says: two strides to each side
    points, _ = grid_points(SIZE, torch.device("cpu"))
    x, y = points[30].tolist()  # of stride 8
    logits = torch.full((1, point_count(), 3), -5.0)
    right = targets([[x - 16, y - 16, x + 16, y + 16]], [0])
    raw = RawDetections(logits, bins.flatten(2), None)
    assert float(head.loss(raw, right, SIZE)["box"]) == pytest.approx(0, abs=1e-3)
    wrong = targets([[x - 16, y - 16, x + 24, y + 16]], [0])
    bins = bins.clone().requires_grad_()
    head.loss(RawDetections(logits, bins.flatten(2) / 20, None), wrong, SIZE)["box"].backward()
    assert bins.grad is not None and bins.grad.abs().sum() > 0


def test_a_one_to_one_head_teaches_one_point_an_object() -> None:
    points, strides = grid_points(SIZE, torch.device("cpu"))
    wanted = targets([[8, 8, 40, 40], [48, 8, 90, 50], [50, 10, 54, 14]], [0, 1, 1])
    scores = torch.rand(1, len(points), 3, generator=torch.Generator().manual_seed(0)) * 0.1
    boxes = torch.cat([points - 16, points + 16], -1)[None]
    assigned, _ = task_aligned_assign(scores, boxes, points, strides, wanted, DetectionConfig(topk=1))
    assert [int((assigned == g).sum()) for g in range(3)] == [1, 1, 1]


def test_without_suppression_duplicates_stay_and_order_holds() -> None:
    head = DetectionHead(8, ("Car",), DetectionConfig(max_detections=20, nms_rounds=0))
    torch.manual_seed(1)
    raw = RawDetections(torch.randn(1, point_count(), 1), torch.zeros(1, point_count(), 64), None)
    boxes, scores, class_ids = head.decode(raw, SIZE)
    assert boxes.shape == (1, 20, 4) and class_ids.dtype == torch.int64
    best = raw.class_logits[0, :, 0].sigmoid().topk(20).values
    assert torch.equal(scores[0], best), "nothing is dropped and nothing is moved"


def distance_head() -> DetectionHead:
    return DetectionHead(8, CLASS_NAMES, DetectionConfig(distance=True, max_detections=20))


def test_depth_of_a_point_is_relative_to_its_stride() -> None:
    """A car 1.5 m tall and 12 px high under a focal length of 720 px is 90 m away: 0.125 over the focal length."""
    strides = torch.tensor([[8.0], [16.0]])
    middle, spread = distance_head().depths(torch.tensor([[0.0, 9.0], [0.0, -1.0]]), strides)
    assert torch.allclose(middle.exp(), torch.tensor([0.125, 0.0625])) and spread.tolist() == [2.0, -1.0]
    assert 0.125 * 720 == 90 and 1.5 * 720 / 12 == 90


def test_distance_is_taught_where_it_is_known_alone() -> None:
    torch.manual_seed(0)
    head = distance_head()
    raw = RawDetections(
        torch.randn(1, point_count(), 3),
        torch.randn(1, point_count(), 64),
        torch.zeros(1, point_count(), 2, requires_grad=True),
    )
    boxes, classes = [[8.0, 8.0, 40.0, 40.0], [56.0, 8.0, 88.0, 40.0]], [0, 1]
    unknown = head.loss(raw, targets(boxes, classes), SIZE)["distance"]
    assert unknown.item() == 0.0
    head.loss(raw, targets(boxes, classes, depths=[0.05, float("nan")]), SIZE)["distance"].backward()
    points, _ = grid_points(SIZE, torch.device("cpu"))
    taught = points[raw.depth_logits.grad[0].abs().sum(-1) > 0]  # type: ignore[union-attr]
    assert len(taught) > 0 and (taught[:, 0] < 48).all()


def test_distance_loss_by_hand() -> None:
    """Two points, one of unknown depth. Spread e^0: the loss is the error of the logarithm times the quality."""
    middle, spread = distance_head().depths(torch.tensor([[math.log(2.0), 0.0]] * 2), torch.full((2, 1), 8.0))
    depths, weights = torch.tensor([0.125, float("nan")]), torch.tensor([0.5, 1.0])
    loss, total = laplace_loss(middle, spread, depths, weights)
    assert float(loss) == pytest.approx(0.5 * math.log(2.0)) and total == 0.5
    sure, _ = laplace_loss(torch.tensor([0.125]).log(), torch.tensor([-2.0]), torch.tensor([0.125]), torch.ones(1))
    assert float(sure) == pytest.approx(-2.0), "right and sure is better than right and unsure"


def test_distribution_focal_loss_by_hand() -> None:
    """A side 1.25 strides away: three quarters of the cross-entropy of bin 1, one quarter of that of bin 2."""
    logits = torch.tensor([0.0, 1.0, 2.0, 0.0])
    loss = distribution_focal_loss(logits.repeat(1, 4), torch.full((1, 4), 1.25), bins=4)
    logs = logits.log_softmax(0)
    assert float(loss) == pytest.approx(float(-0.75 * logs[1] - 0.25 * logs[2]))
    beyond = distribution_focal_loss(logits.repeat(1, 4), torch.full((1, 4), 99.0), bins=4)
    assert float(beyond) == pytest.approx(float(-0.01 * logs[2] - 0.99 * logs[3]), rel=1e-3), "the last bin"


def test_decoded_distances_follow_their_boxes_through_suppression() -> None:
    torch.manual_seed(2)
    head = distance_head()
    small = (torch.randn(2, point_count(), 4, 16) - torch.arange(16)).flatten(2)  # no two of them cut alike
    raw = RawDetections(torch.randn(2, point_count(), 3) * 3, small, torch.randn(2, point_count(), 2))
    boxes, scores, _, distances = head.decode(raw, SIZE)
    assert distances.shape == (2, 20, 2) and (distances > 0).all()
    points, strides = grid_points(SIZE, torch.device("cpu"))
    every = head.boxes(raw.bin_logits, points, strides)
    limits = torch.tensor([96.0, 64, 96, 64])
    every = torch.minimum(every.clamp(min=0), limits)
    for b in range(2):
        for k in range(5):
            point = int((every[b] - boxes[b, k]).abs().sum(-1).argmin())
            middle, spread = head.depths(raw.depth_logits[b, point], strides[point])  # type: ignore[index]
            assert distances[b, k, 0] == pytest.approx(float(middle.exp()), rel=1e-4)
            assert distances[b, k, 1] == pytest.approx(math.sqrt(2) * float(spread.exp()), rel=1e-4)
    assert (scores[:, :-1] >= scores[:, 1:]).all()
