"""Single frames against tracks: rows and summaries that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perception.cameras.pinhole import PinholeCamera
from perception.formats.kitti import parse_tracking
from perception.types import Detections, Track, Tracks
from tools.benchmarks.cuboid_tracks import COLUMNS, _rows, summary

CAMERA = PinholeCamera(np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]]))
BOX = [560, 160, 640, 240]
LABEL = "0 1 Car 0 0 -1.57 560 160 640 240 1.5 1.6 4.0 0.0 1.6 14.0 -1.57"
"""A car straight ahead that drives away."""


def found(alpha: float) -> Detections:
    cuboid = np.array([[600, 200, 4.3, 1.6, 1.5, alpha, 0.1, 0.1]], np.float32)
    depth = np.array([[14 / 700, 0.1]], np.float32)
    return Detections(np.array([BOX], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64), depth, cuboid)


def followed(heading: float, box: list[int] = BOX) -> Tracks:
    track = Track(1, 0, np.array(box, np.float32), 0.9, age_frames=7, size_m=(4.0, 1.6, 1.5), size_std_m=(0.1,) * 3)
    return Tracks.from_rows([track._replace(heading_rad=heading, heading_std_rad=np.radians(5))])


def test_a_reversed_frame_and_a_right_track() -> None:
    labels = parse_tracking(LABEL + "\n", "0000.txt")
    ((single, track, std, size_single, size_track, age),) = _rows(
        labels, "Car", found(np.pi / 2), followed(-1.57 + np.radians(10)), 0, CAMERA
    )
    assert (single, track, std) == pytest.approx((180, 10, 5), abs=0.1)
    assert (size_single, size_track, age) == pytest.approx((0.1, 0, 7), abs=1e-6)  # 0.3 m in one of three


def test_what_is_found_elsewhere_counts_for_nothing() -> None:
    labels = parse_tracking(LABEL + "\n", "0000.txt")
    assert _rows(labels, "Car", found(0), followed(0, [0, 0, 40, 40]), 0, CAMERA) == []
    assert _rows(labels, "Pedestrian", found(0), followed(0), 1, CAMERA) == []


def test_a_summary_by_hand() -> None:
    rows = np.array([[10, 2, 5, 0.1, 0.1, 7], [20, 12, 5, 0.2, 0.1, 7], [170, 4, 5, 0.3, 0.2, 7]])
    assert rows.shape[1] == len(COLUMNS)
    found = summary(rows)
    assert found["heading single"] == 20 and found["heading track"] == 4
    assert found["within 15° single"] == pytest.approx(1 / 3) and found["within 15° track"] == 1
    assert found["reversed single"] == pytest.approx(1 / 3) and found["reversed track"] == 0
    assert found["track within 2σ"] == pytest.approx(2 / 3)
