"""Weighted boxes fusion by hand, and views that lead back to the whole image."""

from __future__ import annotations

import numpy as np
import pytest

from perception.cameras.letterbox import Letterbox
from perception.errors import UserError
from perception.model import ModelSpec
from perception.trust.ensemble import Ensemble, View, make_views
from perception.trust.fusion import Opinion, fuse
from perception.types import CLASS_NAMES, Detections, RoadMask

WHOLE = np.array([0, 0, 200, 100], np.float32)


def opinion(*rows: tuple[list[float], float, int], window: np.ndarray = WHOLE, depths: object = None) -> Opinion:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    scores, ids = (np.array([row[i] for row in rows], kind) for i, kind in ((1, np.float32), (2, np.int64)))
    return Opinion(Detections(boxes, scores, ids, None if depths is None else np.array(depths, np.float32)), window)


def test_a_box_that_both_find_is_their_mean_by_score() -> None:
    fused = fuse([opinion(([0, 0, 10, 10], 0.9, 0)), opinion(([2, 0, 12, 10], 0.3, 0))])
    assert fused.boxes_xyxy.tolist() == [[0.5, 0, 10.5, 10]]  # 0.9 and 0.3 are three to one
    assert fused.scores.tolist() == pytest.approx([0.6])


def test_a_box_that_one_of_two_finds_keeps_half_its_score() -> None:
    fused = fuse([opinion(([0, 0, 10, 10], 0.8, 0)), opinion()])
    assert fused.scores.tolist() == pytest.approx([0.4])


def test_a_view_that_cannot_see_a_box_does_not_count_against_it() -> None:
    left = np.array([0, 0, 100, 100], np.float32)
    fused = fuse([opinion(([150, 0, 160, 10], 0.8, 0)), opinion(window=left)])
    assert fused.scores.tolist() == pytest.approx([0.8])


def test_classes_are_fused_apart_and_two_boxes_of_one_view_give_no_bonus() -> None:
    fused = fuse([opinion(([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 9], 0.8, 0), ([0, 0, 10, 10], 0.5, 1))])
    assert fused.class_ids.tolist() == [0, 1] and fused.scores.tolist() == pytest.approx([0.9, 0.5])


def test_weights_count() -> None:
    one, other = opinion(([0, 0, 10, 10], 0.9, 0)), opinion(([0, 0, 10, 10], 0.3, 0))
    fused = fuse([Opinion(one.detections, WHOLE, 2.0), other])
    assert fused.scores.tolist() == pytest.approx([(2 * 0.9 + 0.3) / 3])


def test_depths_are_fused_where_all_have_them() -> None:
    near = opinion(([0, 0, 10, 10], 0.9, 0), depths=[[0.02, 0.1]])
    far = opinion(([0, 0, 10, 10], 0.9, 0), depths=[[0.04, 0.1]])
    assert fuse([near, far]).depths is not None
    assert fuse([near, far]).depths.tolist() == [pytest.approx([0.03, 0.1])]  # type: ignore[union-attr]
    assert fuse([near, opinion(([0, 0, 10, 10], 0.9, 0))]).depths is None


def test_nothing_found_is_nothing() -> None:
    assert len(fuse([opinion(), opinion()])) == 0


class BrightBox:
    """Finds the one bright rectangle of an image, and calls bright pixels road."""

    spec = ModelSpec(CLASS_NAMES, (96, 320))
    provider = "test"

    def __call__(self, image: np.ndarray) -> tuple[Detections, RoadMask]:
        hw = image.shape[:2]
        road = RoadMask(image[..., 0].copy(), Letterbox(hw, hw, (1.0, 1.0), (0, 0), hw))
        ys, xs = np.nonzero(image[..., 0] > 200)
        if not len(ys):
            return Detections.empty(), road
        box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
        return Detections(box, np.array([0.8], np.float32), np.zeros(1, np.int64)), road


@pytest.mark.parametrize("views", [make_views(flip=True), make_views(scales=(0.5,)), make_views(True, (1.6, 2.0))])
def test_every_view_leads_back_to_the_whole_image(views: list[View]) -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:35, 150:171] = 255
    found, road = Ensemble([BrightBox()], views)(image)  # type: ignore[list-item]
    assert found.boxes_xyxy[0].tolist() == [150, 20, 171, 35]
    assert found.scores[0] == pytest.approx(0.8), "every view that sees it finds it"
    assert len(found) == 1
    assert road is not None and (road.at_frame_size() == image[..., 0]).mean() > 0.99


def test_crops_cover_the_image_and_overlap() -> None:
    for scale in (1.2, 1.5, 2.0, 3.0, 4.0):
        seen = np.zeros((100, 200), int)
        for view in make_views(scales=(scale,))[1:]:
            left, top, right, bottom = view.window_xyxy((100, 200))
            assert left >= 0 and top >= 0 and right <= 201 and bottom <= 101
            seen[top:bottom, left:right] += 1
        assert (seen >= 1).all()


def test_networks_that_name_other_classes_are_refused_and_orders_are_mapped() -> None:
    class Other(BrightBox):
        spec = ModelSpec(("Pedestrian", "Car", "Cyclist"), (96, 320))

    image = np.zeros((100, 200, 3), np.uint8)
    image[20:35, 150:171] = 255
    found, _ = Ensemble([BrightBox(), Other()])(image)  # type: ignore[list-item]
    assert sorted(found.class_ids.tolist()) == [0, 1]  # its class 0 is our class 1
    Other.spec = ModelSpec(("Car", "Bus"), (96, 320))
    with pytest.raises(UserError, match="same classes"):
        Ensemble([BrightBox(), Other()])  # type: ignore[list-item]
    with pytest.raises(UserError, match="scales 9"):
        make_views(scales=(9.0,))
