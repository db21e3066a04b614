"""Ranging on real labels: three short sequences, among them 0003, the hardest for cars: small ones, all of them."""

from __future__ import annotations

import zipfile

import pytest

from tools.benchmarks import ranging as bench
from tools.benchmarks.ranging_kitti import load_sequence, true_closing

pytestmark = pytest.mark.data
SEQUENCES = ("0003", "0006", "0010")


@pytest.fixture(scope="module")
def sequences(data_root):
    root = data_root / "kitti" / "tracking" / "training"
    with zipfile.ZipFile(data_root / "kitti" / "tracking_detections.zip") as archive:
        return [load_sequence(root, name, archive) for name in SEQUENCES]


@pytest.mark.parametrize("boxes", ["truth", "detections"])
def test_cars_are_where_the_labels_say(sequences, boxes):
    closing = [true_closing(sequence) for sequence in sequences]
    ours = bench.estimate(sequences, closing, boxes, bench.by_ranger)
    plane = bench.estimate(sequences, closing, boxes, bench.by_plane)
    for even, most in ((True, 6.0), (False, 11.0)):
        found = bench.measure(ours, "Car", even, 0, 40)
        simple = bench.measure(plane, "Car", even, 0, 40)
        assert found["count"] > 200
        assert found["median_percent"] < most
        assert found["median_percent"] < 0.8 * simple["median_percent"]
        assert found["ahead_in_2_sigma_percent"] > 65
    ttc = bench.measure_ttc(ours, even=True)
    assert ttc["count"] > 50 and ttc["median_percent"] < 15


def test_measured_errors_are_plain_arithmetic():
    import numpy as np

    # twenty cars 50 m away (30, 40), said to be 55 m away along the same ray, ±2 m
    rows = 20
    estimates = bench.Estimates(
        class_ids=np.zeros(rows, np.int64),
        even=np.ones(rows, bool),
        truth=np.tile([30.0, 40.0], (rows, 1)),
        position=np.tile([33.0, 44.0], (rows, 1)),
        std=np.full((rows, 2), 1.75),
        ttc_s=np.full(rows, 5.5),
        true_closing=np.full(rows, 12.5),
    )
    found = bench.measure(estimates, "Car", True, 40, 60)
    assert found["median_percent"] == pytest.approx(10) and found["bias_percent"] == pytest.approx(10)
    assert found["aside_in_2_sigma_percent"] == 100 and found["ahead_in_2_sigma_percent"] == 0
    assert bench.measure(estimates, "Car", False, 40, 60) is None
    ttc = bench.measure_ttc(estimates, True)
    assert (ttc["count"], ttc["told_percent"]) == (20, 100)
    assert ttc["median_s"] == pytest.approx(1.5) and ttc["median_percent"] == pytest.approx(37.5)
