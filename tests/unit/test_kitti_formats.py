"""KITTI's text: exact round trips, and an error with file, line and column for every kind of bad row."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import UserError
from perception.formats import kitti
from perception.formats.kitti import ObjectRows, TrackingRows

LABEL = "Truck 0.00 2 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56"
DONT_CARE = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"
TRACK = (
    "3 7 Car 0 1 2.618113 147.738000 95.802000 272.053000 149.793000"
    " 1.416544 1.474971 3.520100 -3.241406 1.675621 11.796207 2.354755"
)
TRACK_DONT_CARE = (
    "0 -1 DontCare -1 -1 -10.000000 286.006000 86.569000 291.009000 91.535000"
    " -1.000000 -1.000000 -1.000000 -1000.000000 -1000.000000 -1000.000000 -10.000000"
)


def with_token(row: str, column: str, token: str, columns: list[str] = kitti.OBJECT_COLUMNS) -> str:
    tokens = row.split()
    tokens[columns.index(column)] = token
    return " ".join(tokens)


# ---------------------------------------------------------------- reading what is right


def test_columns_land_where_the_devkit_says():
    rows = kitti.parse_objects(LABEL)
    assert rows.names == ("Truck",)
    assert rows.truncation.tolist() == [0.0]
    assert rows.occlusion.tolist() == [2] and rows.occlusion.dtype == np.int64
    assert rows.alpha.tolist() == [-1.57]
    assert rows.boxes_xyxy.tolist() == [[599.41, 156.40, 629.75, 189.25]]
    assert rows.dimensions_hwl.tolist() == [[2.85, 2.63, 12.34]]
    assert rows.location_cam2.tolist() == [[0.47, 1.49, 69.44]]
    assert rows.rotation_y.tolist() == [-1.56]
    assert rows.scores is None


def test_a_result_row_has_its_score_last():
    rows = kitti.parse_objects(LABEL + " 0.875")
    assert rows.scores is not None and rows.scores.tolist() == [0.875]


def test_tracking_columns():
    rows = kitti.parse_tracking(TRACK + "\n" + TRACK_DONT_CARE)
    assert rows.frame_ids.tolist() == [3, 0]
    assert rows.track_ids.tolist() == [7, -1]
    assert rows.objects.names == ("Car", "DontCare")
    assert rows.objects.location_cam2[0].tolist() == [-3.241406, 1.675621, 11.796207]


@pytest.mark.parametrize("text", ["", "\n", "  \n\t\n"])
def test_an_empty_file_means_no_objects(text):
    assert len(kitti.parse_objects(text)) == 0
    assert kitti.parse_objects(text).boxes_xyxy.shape == (0, 4)
    assert len(kitti.parse_tracking(text)) == 0
    scored = kitti.parse_objects(text, scores=True).scores
    assert scored is not None and scored.shape == (0,)


def test_line_ends_of_windows_and_blank_lines_do_not_matter():
    rows = kitti.parse_objects(f"\r\n{LABEL}\r\n\r\n{DONT_CARE}")
    assert rows.names == ("Truck", "DontCare")


def test_class_names_compare_without_case_and_stay_as_written():
    assert kitti.parse_objects(with_token(LABEL, "type", "truck")).names == ("truck",)


def test_other_class_lists_are_the_callers_choice():
    bus = with_token(LABEL, "type", "Bus")
    assert kitti.parse_objects(bus, classes=None).names == ("Bus",)
    assert kitti.parse_objects(bus, classes=("bus",)).names == ("Bus",)
    with pytest.raises(UserError):
        kitti.parse_objects(LABEL, classes=("Bus",))


def test_a_box_without_area_is_legal():
    row = with_token(with_token(LABEL, "right", "599.41"), "bottom", "156.40")
    assert kitti.parse_objects(row).boxes_xyxy[0].tolist() == [599.41, 156.40, 599.41, 156.40]


def test_person_is_a_class_of_tracking_only():
    assert kitti.parse_tracking(TRACK.replace("Car", "Person")).objects.names == ("Person",)
    with pytest.raises(UserError, match="Person"):
        kitti.parse_objects(with_token(LABEL, "type", "Person"))


# ---------------------------------------------------------------- every kind of bad row


def complaint(text: str, parse=kitti.parse_objects, **options) -> str:
    with pytest.raises(UserError) as caught:
        parse(text, "label_2/000007.txt", **options)
    return str(caught.value)


@pytest.mark.parametrize("column", [c for c in kitti.OBJECT_COLUMNS if c not in ("type", "score")])
@pytest.mark.parametrize("token", ["abc", "nan", "inf", "-inf", "1e999", "0x1f", "1,5", "--1"])
def test_what_is_not_a_finite_number_is_named_with_line_and_column(column, token):
    said = complaint(f"{DONT_CARE}\n\n{with_token(LABEL, column, token)}\n{DONT_CARE}")
    assert f"label_2/000007.txt:3: column '{column}': found '{token}'" in said
    assert "number" in said


@pytest.mark.parametrize("token", ["nan", "high"])
def test_a_bad_score_is_named(token):
    assert f":1: column 'score': found '{token}'" in complaint(f"{LABEL} {token}")


@pytest.mark.parametrize("token", ["0.5", "1e300", "99999999999", "-99999999999"])
def test_occlusion_is_a_whole_number_of_sane_size(token):
    said = complaint(with_token(LABEL, "occluded", token))
    assert f"column 'occluded': found '{token}'" in said and "whole number" in said


@pytest.mark.parametrize("column", ["frame", "track_id"])
@pytest.mark.parametrize("token", ["1.5", "1e300", "x", "nan"])
def test_frame_and_track_are_whole_numbers(column, token):
    said = complaint(
        f"{TRACK}\n{with_token(TRACK, column, token, kitti.TRACKING_COLUMNS)}", parse=kitti.parse_tracking
    )
    assert f":2: column '{column}': found '{token}'" in said


def test_frames_count_from_zero():
    said = complaint(
        f"{TRACK}\n{with_token(TRACK, 'frame', '-1', kitti.TRACKING_COLUMNS)}", parse=kitti.parse_tracking
    )
    assert ":2: column 'frame': found '-1'" in said


@pytest.mark.parametrize(("side", "low"), [("right", "left"), ("bottom", "top")])
def test_a_box_turned_inside_out_is_named_with_both_sides(side, low):
    said = complaint(f"{DONT_CARE}\n{with_token(LABEL, side, '1.5')}")
    assert f":2: column '{side}': found '1.5'" in said and f"'{low}'" in said


def test_an_unknown_class_is_named_with_those_that_are_known():
    said = complaint(f"{LABEL}\n{with_token(LABEL, 'type', 'Lorry')}")
    assert ":2: column 'type': found 'Lorry'" in said and "Pedestrian" in said


@pytest.mark.parametrize("count", range(1, 15))
def test_a_row_cut_short_names_the_first_missing_column(count):
    said = complaint(f"{' '.join(LABEL.split()[:count])}")
    assert f":1: found {count} columns; column '{kitti.OBJECT_COLUMNS[count]}' is missing" in said


@pytest.mark.parametrize(
    ("text", "scores", "expected"),
    [
        (f"{LABEL} 0.5 9", None, ":1: found 17 columns; there is more after column 'score'"),
        (f"{LABEL} 0.5", False, ":1: found 16 columns; there is more after column 'rotation_y'"),
        (LABEL, True, ":1: found 15 columns; column 'score' is missing"),
        (f"{LABEL}\n{LABEL} 0.5", None, ":2: found 16 columns; there is more after column 'rotation_y'"),
        (f"{LABEL} 0.5\n{LABEL}", None, ":2: found 15 columns; column 'score' is missing"),
        (f"{LABEL} {LABEL}", None, ":1: found 30 columns; there is more after column 'score'"),
    ],
)
def test_a_wrong_number_of_columns_says_where(text, scores, expected):
    assert expected in complaint(text, scores=scores)


def test_object_and_tracking_rows_are_not_mistaken_for_each_other():
    assert "found 17 columns" in complaint(TRACK)
    assert "found 15 columns; column 'z' is missing" in complaint(LABEL, parse=kitti.parse_tracking)
    assert "column 'type': found '2'" in complaint(f"{LABEL} 1 2", parse=kitti.parse_tracking)


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "000000.txt"
    path.write_bytes(b"Car 0.00 \xff\xfe")
    with pytest.raises(UserError, match=r"000000\.txt: byte 9 is not UTF-8"):
        kitti.read_objects(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        kitti.read_objects(tmp_path / "000001.txt")
    with pytest.raises(UserError):
        kitti.read_tracking(tmp_path)  # a folder


@given(st.text(max_size=200))
def test_any_text_is_rows_or_a_sentence(text):
    for parse in (kitti.parse_objects, kitti.parse_tracking, kitti.parse_calibration):
        try:
            parse(text)
        except UserError as error:
            assert error.found


@given(st.lists(st.sampled_from([*LABEL.split(), "Car", "nan", "1e300", "\n", "-5", "0.5"]), max_size=60))
def test_rows_of_shuffled_tokens_are_rows_or_a_sentence(tokens):
    try:
        rows = kitti.parse_objects(" ".join(tokens))
    except UserError:
        return
    assert np.isfinite(rows.boxes_xyxy).all()
    assert (rows.boxes_xyxy[:, 2:] >= rows.boxes_xyxy[:, :2]).all()


# ---------------------------------------------------------------- writing is an exact round trip


@pytest.mark.parametrize("text", [LABEL, DONT_CARE, f"{LABEL}\n{DONT_CARE}\n{LABEL}"])
def test_official_object_rows_come_back_to_the_letter(text):
    assert kitti.format_objects(kitti.parse_objects(text)) == text + "\n"


def test_official_tracking_rows_come_back_to_the_letter():
    text = f"{TRACK_DONT_CARE}\n{TRACK}\n"
    assert kitti.format_tracking(kitti.parse_tracking(text)) == text


def test_no_rows_are_an_empty_file():
    assert kitti.format_objects(kitti.parse_objects("")) == ""
    assert kitti.format_tracking(kitti.parse_tracking("")) == ""


def test_boxes_alone_mark_the_rest_unknown_and_can_be_read_back():
    rows = ObjectRows.from_boxes(["Car", "Cyclist"], np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([0.5, 0.25]))
    assert kitti.format_objects(rows) == (
        "Car -1 -1 -10 1.00 2.00 3.00 4.00 -1 -1 -1 -1000 -1000 -1000 -10 0.50\n"
        "Cyclist -1 -1 -10 5.00 6.00 7.00 8.00 -1 -1 -1 -1000 -1000 -1000 -10 0.25\n"
    )
    assert_same_objects(kitti.parse_objects(kitti.format_objects(rows)), rows)


def test_numbers_longer_than_the_official_decimals_are_kept():
    rows = ObjectRows.from_boxes(["Car"], np.array([[1 / 3, 0.1, 1e6 + 1 / 7, 2.5]]), np.array([1e-17]))
    assert_same_objects(kitti.parse_objects(kitti.format_objects(rows)), rows)


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
official = st.floats(-2000, 2000).map(lambda value: round(value, 2))
numbers = st.one_of(official, finite)


@st.composite
def object_rows(draw, with_scores: bool | None = None) -> ObjectRows:
    count = draw(st.integers(0, 4))

    def column(width: int, elements=numbers) -> np.ndarray:
        values = draw(st.lists(elements, min_size=count * width, max_size=count * width))
        return np.array(values, np.float64).reshape(count, width)

    corners = column(4)
    boxes = np.concatenate(
        [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1
    )
    scored = draw(st.booleans()) if with_scores is None else with_scores
    return ObjectRows(
        names=tuple(draw(st.lists(st.sampled_from(kitti.OBJECT_CLASSES), min_size=count, max_size=count))),
        truncation=column(1, st.one_of(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), numbers))[:, 0],
        occlusion=column(1, st.integers(-1, 3))[:, 0].astype(np.int64),
        alpha=column(1)[:, 0],
        boxes_xyxy=boxes,
        dimensions_hwl=column(3),
        location_cam2=column(3, st.one_of(numbers, st.just(-1000.0))),
        rotation_y=column(1, st.one_of(numbers, st.just(-10.0)))[:, 0],
        scores=column(1)[:, 0] if scored else None,
    )


def assert_same_objects(a: ObjectRows, b: ObjectRows) -> None:
    assert a.names == b.names
    for column in ("truncation", "occlusion", "alpha", "boxes_xyxy", "dimensions_hwl", "location_cam2", "rotation_y"):
        np.testing.assert_array_equal(getattr(a, column), getattr(b, column), err_msg=column)
    if a.scores is None or b.scores is None:
        assert a.scores is b.scores
    else:
        np.testing.assert_array_equal(a.scores, b.scores)


@settings(deadline=None, max_examples=60)
@given(object_rows())
def test_any_finite_object_rows_come_back_to_the_bit(rows):
    scored = rows.scores is not None
    assert_same_objects(kitti.parse_objects(kitti.format_objects(rows), scores=scored), rows)


@settings(deadline=None, max_examples=60)
@given(object_rows(), st.randoms())
def test_any_finite_tracking_rows_come_back_to_the_bit(objects, random):
    count = len(objects)
    frames = np.array([random.randrange(0, 2000) for _ in range(count)], np.int64)
    tracks = np.array([random.randrange(-1, 300) for _ in range(count)], np.int64)
    text = kitti.format_tracking(TrackingRows(frames, tracks, objects))
    back = kitti.parse_tracking(text, scores=objects.scores is not None)
    assert back.frame_ids.tolist() == frames.tolist() and back.track_ids.tolist() == tracks.tolist()
    assert_same_objects(back.objects, objects)


@settings(deadline=None, max_examples=60)
@given(object_rows(with_scores=True))
def test_writing_what_was_read_changes_no_letter(rows):
    text = kitti.format_objects(rows)
    assert kitti.format_objects(kitti.parse_objects(text, scores=True)) == text


def test_a_subset_by_mask_and_by_index():
    rows = kitti.parse_objects(f"{LABEL} 0.1\n{DONT_CARE} 0.2\n{LABEL} 0.3")
    assert rows[np.array([True, False, True])].names == ("Truck", "Truck")
    chosen = rows[np.array([2, 1])]
    assert chosen.names == ("Truck", "DontCare")
    assert chosen.scores is not None and chosen.scores.tolist() == [0.3, 0.2]
    assert len(rows[np.zeros(3, bool)]) == 0
    tracks = kitti.parse_tracking(f"{TRACK}\n{TRACK_DONT_CARE}")
    assert tracks[tracks.frame_ids == 0].track_ids.tolist() == [-1]


# ---------------------------------------------------------------- calibration

CALIBRATION = "\n".join(
    [
        *(f"P{i}: " + " ".join(f"{v:.12e}" for v in range(i, i + 12)) for i in range(4)),
        "R0_rect: " + " ".join(f"{v:.12e}" for v in range(9)),
        "Tr_velo_to_cam: " + " ".join(f"{v:.12e}" for v in range(12)),
        "Tr_imu_to_velo: " + " ".join(f"{v:.12e}" for v in range(12)),
        "",
    ]
)


def test_calibration_matrices_are_row_by_row():
    matrices = kitti.parse_calibration(CALIBRATION)
    assert matrices["P2"].tolist() == [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12, 13]]
    assert matrices["R0_rect"].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert matrices["P2"].dtype == np.float64


def test_calibration_comes_back_to_the_letter():
    assert kitti.format_calibration(kitti.parse_calibration(CALIBRATION)) == CALIBRATION


def test_the_tracking_kits_names_mean_the_same_matrices():
    ones = " ".join(["1"] * 12)
    matrices = kitti.parse_calibration(
        f"P2: {ones}\nR_rect {' '.join(['2'] * 9)}\nTr_velo_cam {ones}\nTr_imu_velo {ones}"
    )
    assert set(matrices) == {"P2", "R0_rect", "Tr_velo_to_cam", "Tr_imu_to_velo"}


@settings(deadline=None, max_examples=60)
@given(st.lists(finite, min_size=12, max_size=12))
def test_any_finite_calibration_comes_back_to_the_bit(values):
    matrices = {"P2": np.array(values).reshape(3, 4)}
    np.testing.assert_array_equal(kitti.parse_calibration(kitti.format_calibration(matrices))["P2"], matrices["P2"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("P2: 1 2 3", "P2 has 3 numbers"),
        ("P2: " + "1 " * 11 + "x", "not a number"),
        ("P2: " + "1 " * 11 + "nan", "NaN"),
        ("P2: " + "1 " * 12 + "\nP2: " + "2 " * 12, ":2: P2 for the second time"),
        ("S2: 1 2", "has no P2"),
        ("P3: " + "1 " * 12, "has no P2"),
        ("", "has no P2"),
    ],
)
def test_a_bad_calibration_is_named(line, said):
    with pytest.raises(UserError) as caught:
        kitti.parse_calibration(line, "calib/000000.txt")
    assert said in str(caught.value) and "calib/000000.txt" in str(caught.value)


NUMBERS = " ".join(str(n) for n in range(2, 14))


@pytest.mark.parametrize(
    "line",
    [
        "Tr: " + NUMBERS,
        "P4: " + NUMBERS,
        "Tr_velo_to_cam_0: " + NUMBERS,
        "Tr_imu_to_velo:",
        "Tr_imu_to_velo: 1 2 3",
        "R0_rect: nan 0 0 0 1 0 0 0 1",
        "calib_time: 01-Jan-2020 00:00:00",
        "P3: none",
        "P2: " + NUMBERS,
        "corner_dist: 9.95e-02",
    ],
)
@pytest.mark.parametrize("name", ["P2", "P_rect_02"])
def test_lines_that_nobody_needs_are_passed_over(line, name):
    for text in (f"{name}: {NUMBERS}\n{line}", f"\ufeff{line}\n{name}: {NUMBERS}\r\n"):
        assert kitti.parse_calibration(text)["P2"].ravel().tolist() == list(range(2, 14))


def test_a_matrix_that_is_needed_is_strict():
    text = f"P2: {NUMBERS}\nP3: 1 2\n"
    assert "P3" not in kitti.parse_calibration(text)
    with pytest.raises(UserError, match=r":2: P3 has 2 numbers"):
        kitti.parse_calibration(text, needed=("P3",))


def test_the_odometry_kits_tr_is_the_laser():
    assert "Tr_velo_to_cam" in kitti.parse_calibration(f"P2: {NUMBERS}\nTr: {NUMBERS}")


# ---------------------------------------------------------------- the real files


@pytest.mark.data
def test_all_official_object_labels_come_back_to_the_letter(data_root: Path):
    with zipfile.ZipFile(data_root / "kitti" / "label_2_all.zip") as archive:
        members = [name for name in archive.namelist() if "/label_2/" in name and name.endswith(".txt")]
        assert len(members) == 7481
        for name in members[::5]:
            text = archive.read(name).decode()
            assert kitti.format_objects(kitti.parse_objects(text, name, scores=False)) == text


@pytest.mark.data
def test_official_tracking_labels_come_back_to_the_letter(data_root: Path):
    files = sorted((data_root / "kitti" / "tracking" / "training" / "label_02").glob("*.txt"))
    assert len(files) == 21
    for path in files[::3]:
        assert kitti.format_tracking(kitti.read_tracking(path, scores=False)) == path.read_text()


@pytest.mark.data
def test_every_calibration_of_the_sample_data_reads_and_returns(data_root: Path):
    files = sorted((data_root / "kitti").glob("*/training/calib/*.txt"))
    assert files
    for path in files:
        matrices = kitti.read_calibration(path)
        back = kitti.parse_calibration(kitti.format_calibration(matrices))
        for name, matrix in matrices.items():
            np.testing.assert_array_equal(back[name], matrix, err_msg=f"{path} {name}")
