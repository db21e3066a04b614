import numpy as np

from perception.anonymize import anonymized
from perception.types import Detections, Track, Tracks

IMAGE = np.random.default_rng(0).integers(0, 255, (100, 200, 3)).astype(np.uint8)


def test_boxes_of_detections_and_tracks_lose_their_detail_and_the_rest_stays() -> None:
    box = np.array([[20, 20, 60, 80]], np.float32)
    found = Detections(box, np.array([0.2], np.float32), np.array([1]))
    lost = Track(1, 0, np.array([120, 20, 160, 60], np.float32), 0.5, "lost", 9, 5)
    image = anonymized(IMAGE, found, Tracks.from_rows([lost]))
    assert image[20:80, 20:60].std() < IMAGE[20:80, 20:60].std() / 3
    assert image[20:60, 120:160].std() < IMAGE[20:60, 120:160].std() / 3
    assert np.array_equal(image[:, 70:110], IMAGE[:, 70:110])


def test_boxes_outside_the_picture_and_broken_ones_do_no_harm() -> None:
    boxes = np.array([[-50, -50, -10, -10], [190, 90, 400, 300], [np.nan, 0, 5, 5], [10, 10, 10, 10]], np.float32)
    found = Detections(boxes, np.full(4, 0.5, np.float32), np.zeros(4, np.int64))
    assert anonymized(IMAGE, found, Tracks.empty()).shape == IMAGE.shape
    assert np.array_equal(anonymized(IMAGE, Detections.empty(), Tracks.empty()), IMAGE)
