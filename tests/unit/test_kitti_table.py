"""Reading in bulk gives what the one parser gives, values and complaints alike."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import UserError
from perception.formats.kitti import (
    ObjectRows,
    format_objects,
    parse_objects,
    parse_tracking,
    read_objects,
    read_tracking,
)
from perception.formats.kitti_table import ObjectTable, find_object_files, read_object_table, read_tracking_fast

RESULT = "Car -1 -1 1.5000 10.00 20.00 110.25 80.50 -1 -1 -1 -1000 -1000 -1000 -10 0.875\n"
LABEL = "Pedestrian 0.00 1 -0.20 712.40 143.00 810.73 307.92 1.89 0.48 1.20 1.84 1.47 8.41 0.01\n"
TRACK = "0 3 Car 0 0 -1.79 296.74 161.75 455.22 292.37 2.0 1.8 4.4 -4.5 1.9 13.4 -2.1"


def write(folder: Path, **files: str) -> tuple[list[str], list[Path]]:
    paths = [folder / f"{name}.txt" for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    return list(files), paths


def assert_same(table: ObjectTable, rows: list[ObjectRows]) -> None:
    assert len(table) == sum(map(len, rows))
    for i, expected in enumerate(rows):
        found = table.frame(i)
        assert found.names == expected.names
        for column in ("truncation", "occlusion", "alpha", "boxes_xyxy", "dimensions_hwl", "location_cam2", "scores"):
            a, b = getattr(found, column), getattr(expected, column)
            assert (a is None) == (b is None) and (a is None or np.array_equal(a, b)), column


@pytest.mark.parametrize(
    "texts",
    [
        [RESULT, "", RESULT * 3],
        ["", ""],
        ["\n\n" + RESULT + "\n   \n", RESULT.strip()],  # blank lines, no newline at the end
        [RESULT.replace("\n", "\r\n"), RESULT.replace(" ", "\t")],
        [RESULT.replace("Car", "Autó"), RESULT],  # not ASCII: the careful reader takes over
        [RESULT.replace("0.875", "1e-3"), RESULT.replace("0.875", "0.12345678901234567")],
    ],
)
def test_table_equals_file_by_file(tmp_path: Path, texts: list[str]) -> None:
    names, paths = write(tmp_path, **{f"{i:06d}": text for i, text in enumerate(texts)})
    table = read_object_table(names, paths, scores=True)
    assert table.frame_names == tuple(names)
    assert_same(table, [read_objects(path, scores=True, classes=None) for path in paths])


def test_a_missing_path_is_an_empty_file(tmp_path: Path) -> None:
    _names, paths = write(tmp_path, a=LABEL, b=LABEL)
    table = read_object_table(["a", "x", "b"], [paths[0], None, paths[1]], scores=False)
    assert table.first_rows.tolist() == [0, 1, 1, 2] and table.scores is None


numbers = st.floats(-2000, 2000, allow_nan=False).map(lambda v: round(v, 3))
boxes = st.tuples(numbers, numbers, numbers, numbers).map(
    lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["Car", "Van", "DontCare"]), boxes, numbers), max_size=4), max_size=5)
)
def test_what_is_written_comes_back(frames: list) -> None:
    rows = [
        ObjectRows.from_boxes(
            [name for name, _, _ in frame], np.array([b for _, b, _ in frame]), [s for *_, s in frame]
        )
        for frame in frames
    ]
    names = [f"{i:06d}" for i in range(len(rows))]
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        _, paths = write(Path(folder), **dict(zip(names, map(format_objects, rows), strict=True)))
        assert_same(read_object_table(names, paths, scores=True), rows)
    assert_same(ObjectTable.from_rows(names, rows, scores=True), rows)


BAD = {
    "a letter for a number": RESULT.replace("20.00", "2O.00"),
    "a point too many": RESULT.replace("20.00", "2.0.0"),
    "NaN for a score": RESULT.replace("0.875", "nan"),
    "infinity": RESULT.replace("0.875", "1e999"),
    "half an occlusion": RESULT.replace("Car -1 -1", "Car -1 0.5"),
    "an occlusion that overflows": RESULT.replace("Car -1 -1", "Car -1 99999999999"),
    "right before left": RESULT.replace("110.25", "9.99"),
    "a column missing": RESULT.replace(" 0.875", ""),
    "a column too many": RESULT.replace("0.875", "0.875 1"),
    "two rows on a line": RESULT.strip() + " " + RESULT,
    "a row on two lines": RESULT.replace("110.25 ", "110.25\n"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_row_is_named_as_the_parser_names_it(tmp_path: Path, bad: str) -> None:
    names, paths = write(tmp_path, good=RESULT, bad=RESULT * 2 + bad, more=RESULT)
    with pytest.raises(UserError) as expected:
        parse_objects(RESULT * 2 + bad, paths[1], scores=True, classes=None)
    with pytest.raises(UserError) as found:
        read_object_table(names, paths, scores=True)
    assert str(found.value) == str(expected.value)
    assert str(found.value).startswith(f"{paths[1]}:3")


def test_inverted_boxes_may_be_let_through(tmp_path: Path) -> None:
    names, paths = write(tmp_path, a=RESULT.replace("110.25", "9.99"))
    table = read_object_table(names, paths, scores=True, allow_inverted=True)
    assert table.boxes_xyxy.tolist() == [[10.0, 20.0, 9.99, 80.5]]


def test_unknown_classes_can_be_refused(tmp_path: Path) -> None:
    names, paths = write(tmp_path, a=RESULT.replace("Car", "Lorry"))
    assert read_object_table(names, paths, scores=True).class_names == ("Lorry",)
    with pytest.raises(UserError, match=r"a\.txt:1: column 'type': found 'Lorry'"):
        read_object_table(names, paths, scores=True, classes=("Car", "Van"))


def test_is_class_ignores_case(tmp_path: Path) -> None:
    names, paths = write(tmp_path, a=RESULT + RESULT.replace("Car", "CAR") + RESULT.replace("Car", "Van"))
    assert read_object_table(names, paths, scores=True).is_class("car").tolist() == [True, True, False]


def test_find_object_files(tmp_path: Path) -> None:
    _, paths = write(tmp_path, a="", b="")
    assert find_object_files(tmp_path, ["b", "x", "a"]) == [str(paths[1]), None, str(paths[0])]
    with pytest.raises(UserError, match="No such file"):
        find_object_files(tmp_path / "none", [])


@pytest.mark.parametrize("text", ["", TRACK + "\n", (TRACK + " 0.5\n") * 2, TRACK.replace("0 3", "0 -1") + "\n"])
def test_tracking_fast_equals_the_parser(tmp_path: Path, text: str) -> None:
    (path := tmp_path / "0000.txt").write_text(text)
    found, extra = read_tracking_fast(path)
    expected = read_tracking(path, classes=None)
    assert extra == 0
    assert np.array_equal(found.frame_ids, expected.frame_ids)
    assert np.array_equal(found.track_ids, expected.track_ids)
    assert found.objects.names == expected.objects.names
    assert np.array_equal(found.objects.boxes_xyxy, expected.objects.boxes_xyxy)
    if len(found):
        assert (found.objects.scores is None) == (expected.objects.scores is None)


def test_tracking_columns_after_the_score_are_left_out_on_request(tmp_path: Path) -> None:
    (path := tmp_path / "0000.txt").write_text((TRACK + " 0.25 7\n") * 2)
    rows, extra = read_tracking_fast(path, allow_extra=True)
    assert extra == 1 and rows.objects.scores is not None and rows.objects.scores.tolist() == [0.25, 0.25]
    path.write_text(TRACK + " 0.25 7\n" + TRACK + " nan 7\n")
    with pytest.raises(UserError, match=r"0000\.txt:2: column 'score': found 'nan'"):
        read_tracking_fast(path, allow_extra=True)
    with pytest.raises(UserError, match="19 columns"):
        read_tracking_fast(path)


@pytest.mark.parametrize("change", [("0 3 Car", "-1 3 Car"), ("0 3 Car", "0.5 3 Car"), ("455.22", "295")])
def test_bad_tracking_rows_are_named(tmp_path: Path, change: tuple[str, str]) -> None:
    (path := tmp_path / "0000.txt").write_text(TRACK + "\n" + TRACK.replace(*change) + "\n")
    with pytest.raises(UserError, match=r"0000\.txt:2: column"):
        read_tracking_fast(path)


def test_the_careful_reader_lets_inverted_boxes_through_too() -> None:
    inverted = RESULT.replace("110.25", "9.99")
    with pytest.raises(UserError, match="column 'right'"):
        parse_objects(inverted)
    assert parse_objects(inverted, allow_inverted=True).boxes_xyxy[0, 2] == 9.99
    row = TRACK.replace("455.22", "295") + "\n"
    assert parse_tracking(row, allow_inverted=True).objects.boxes_xyxy[0, 2] == 295
