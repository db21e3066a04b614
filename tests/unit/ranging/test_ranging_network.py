"""The network's own distance as a further measurement of ranging."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perception.cameras.pinhole import PinholeCamera
from perception.ranging.network import network_of_tracks
from perception.ranging.ranger import Ranger
from perception.types import Detections, Track, Tracks

FOCAL = 1000.0
SIZE_HW = (900, 2000)
CAMERA = PinholeCamera(np.array([[FOCAL, 0, 1000, 0], [0, FOCAL, 400, 0], [0, 0, 1, 0]]), height_m=1.5)


def car(box: list[float], track_id: int = 1, class_id: int = 0) -> Track:
    return Track(track_id, class_id, np.array(box, np.float32), 0.9)


def far_car() -> Track:
    """40 m away to its face: foot 37.5 px under the horizon, 1.5 m tall."""
    return car([980, 400, 1025, 437.5])


def place(depths: np.ndarray | None, frames: int = 1) -> tuple[float, float]:
    ranger = Ranger(CAMERA, ("Car", "Pedestrian"))
    for k in range(frames):
        (found,) = ranger.update(Tracks.from_rows([far_car()]), k * 100_000_000, SIZE_HW, depths)
    assert found.position_m is not None and found.position_std_m is not None
    return found.position_m[1], found.position_std_m[1]


def test_a_sure_network_moves_the_place_and_narrows_it() -> None:
    plain, plain_std = place(None)
    moved, std = place(np.array([[0.036, 0.01]], np.float32))
    assert abs(moved - 36) < 0.35 * abs(plain - 36) and std < plain_std


def test_an_unsure_network_moves_little() -> None:
    plain, _ = place(None)
    assert place(np.array([[0.02, 1.0]], np.float32))[0] == pytest.approx(plain, rel=0.02)


def test_agreement_moves_nothing() -> None:
    plain, std = place(None)
    same, surer = place(np.array([[plain / FOCAL, 0.02]], np.float32))
    assert same == pytest.approx(plain, rel=1e-3) and surer < std


@pytest.mark.parametrize("depth", [[np.nan, np.nan], [0.0, 0.1], [-1.0, 0.1], [1e9, 0.1], [np.inf, 0.1], [0.03, 0.0]])
def test_nonsense_is_no_measurement(depth: list[float]) -> None:
    with np.errstate(all="raise"):
        assert place(np.array([depth], np.float32), frames=3) == place(None, frames=3)


def test_a_wild_distance_moves_nothing_far() -> None:
    plain, _ = place(None, frames=5)
    assert place(np.array([[0.2, 0.001]], np.float32), frames=5)[0] < 2 * plain


def test_each_track_gets_the_depth_of_its_own_detection() -> None:
    boxes = np.array([[0, 0, 10, 10], [100, 0, 110, 10], [100, 0, 110, 11]], np.float32)
    depths = np.array([[0.01, 0.1], [0.02, 0.1], [0.03, 0.1]], np.float32)
    detections = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 0, 1]), depths)
    tracks = Tracks.from_rows(
        [car([101, 0, 111, 10], 5), car([1, 0, 11, 10], 6), car([500, 0, 510, 10], 7), car([100, 0, 110, 10], 8, 1)]
    )
    found, nothing = network_of_tracks(tracks, detections)
    assert found is not None and nothing is None
    assert found[[0, 1, 3], 0].tolist() == pytest.approx([0.02, 0.01, 0.03]) and np.isnan(found[2]).all()
    none_seen, _ = network_of_tracks(tracks, detections[np.zeros(3, bool)])
    assert none_seen is not None and np.isnan(none_seen).all()
    assert network_of_tracks(Tracks.empty(), detections) == (None, None)
    plain = Detections(boxes, detections.scores, detections.class_ids)
    assert network_of_tracks(tracks, plain) == (None, None)
    cuboids = np.arange(24, dtype=np.float32).reshape(3, 8)
    _, seen = network_of_tracks(tracks, replace(plain, cuboids=cuboids))
    assert seen is not None and seen.shape == (4, 8) and np.isnan(seen[2]).all()
    assert seen[[0, 1, 3]].tolist() == cuboids[[1, 0, 2]].tolist()
