"""Ranging: numbers that can be checked in the head."""

import numpy as np

from perception.camera import PinholeCamera
from perception.ranging import Ranger
from perception.types import Track

CAMERA = PinholeCamera(np.array([[1000.0, 0, 500, 0], [0, 1000, 200, 0], [0, 0, 1, 0]]), height_m=1.5)


def test_a_car_of_usual_size_stands_where_foot_and_height_agree() -> None:
    # 1.53 m high at 20 m: 76.5 px; foot 1.5 m under the camera: 75 px under the horizon
    track = Track(1, 0, np.array([460, 198.5, 540, 275], np.float32), 0.9)
    (ranged,) = Ranger(CAMERA, ("Car",)).update((track,), 0, (600, 1000))
    assert ranged.distance_m is not None and abs(ranged.distance_m - 20) < 3
    assert ranged.ttc_s is None
