"""`Tracks`: columns whose rows read like single tracks."""

import numpy as np
import pytest

from perception.types import CONFIRMED, LOST, Track, Tracks

BOX = np.array([10.25, 20.5, 40, 60], np.float32)
NEAR = Track(3, 0, BOX, 0.75, "confirmed", 4, 0, (1.0, 10.0), (0.1, 1.0), 10.05, (0.0, -2.0), 5.0)
WHOLE = NEAR._replace(
    bottom_m=1.6, size_m=(4.0, 1.6, 1.5), size_std_m=(0.4, 0.1, 0.1), heading_rad=-1.5, heading_std_rad=0.1
)
HIDDEN = Track(4, 2, BOX + 1, 0.5, "lost", 9, 5)


def test_rows_come_back_as_they_went_in() -> None:
    tracks = Tracks.from_rows([NEAR, HIDDEN, WHOLE])
    assert len(tracks) == 3
    for given, found in zip((NEAR, HIDDEN, WHOLE), tracks, strict=True):
        assert found.box_xyxy.tolist() == given.box_xyxy.tolist()
        assert found._replace(box_xyxy=None) == given._replace(box_xyxy=None)  # type: ignore[arg-type]
    assert tracks[1].track_id == tracks[-2].track_id == 4
    with pytest.raises(IndexError):
        tracks[3]


def test_columns_hold_what_rows_say() -> None:
    tracks = Tracks.from_rows([NEAR, HIDDEN])
    assert tracks.states.tolist() == [CONFIRMED, LOST] and tracks.ages.tolist() == [4, 9]
    assert tracks.frames_since_seen.tolist() == [0, 5]
    assert tracks.position_m is not None and tracks.ttc_s is not None
    assert tracks.position_m[0].tolist() == [1, 10] and np.isnan(tracks.position_m[1]).all()
    assert np.isnan(tracks.ttc_s[1])


def test_without_a_calibration_there_are_no_metric_columns() -> None:
    tracks = Tracks.from_rows([HIDDEN])
    assert (tracks.position_m, tracks.velocity_mps, tracks.ttc_s) == (None, None, None)
    assert (tracks.size_m, tracks.heading_rad, Tracks.from_rows([NEAR]).size_m) == (None, None, None)
    assert tracks[0].distance_m is None
    assert list(Tracks.empty()) == [] and Tracks.empty().boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize("index", [np.array([False, True]), np.array([1]), slice(1, 2)])
def test_a_subset_keeps_all_columns(index: np.ndarray | slice) -> None:
    subset = Tracks.from_rows([NEAR, HIDDEN])[index]
    assert subset.track_ids.tolist() == [4]
    assert subset.distance_m is not None and len(subset.distance_m) == 1


def test_columns_of_unequal_length_are_refused() -> None:
    one = np.ones(1, np.int64)
    with pytest.raises(ValueError, match=r"Tracks\.scores"):
        Tracks(one, one, np.zeros((1, 4), np.float32), np.ones(2), one, one, one)
    with pytest.raises(ValueError, match=r"Tracks\.boxes_xyxy"):
        Tracks(one, one, np.zeros((2, 4), np.float32), np.ones(1), one, one, one)
