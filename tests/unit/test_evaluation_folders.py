"""Bad input, every kind: an error that says what to mend, or a warning that is counted. Never a silent zero."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import UserError
from perception.evaluation.folders import find_folder, first_ten, read_names
from perception.evaluation.object_folders import score_object_folders
from perception.evaluation.road_folders import score_road_folders
from perception.evaluation.tracking_folders import read_seqmap, score_tracking_folders

LABEL = "Car 0.00 0 0.00 100.00 100.00 200.00 150.00 1.5 1.6 4.0 0 1.6 20 0.0\n"
RESULT = "Car -1 -1 0.00 100.00 100.00 200.00 150.00 -1 -1 -1 -1000 -1000 -1000 -10 0.9\n"
TRACK = "{} {} Car 0 0 0 100 100 200 150 1.5 1.6 4.0 0 1.6 20 0.0\n"


def fill(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def objects(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve labelled frames and their results, one hit each."""
    names = [f"{i:06d}.txt" for i in range(12)]
    gt = fill(tmp_path / "kitti" / "training" / "label_2", dict.fromkeys(names, LABEL))
    return gt, fill(tmp_path / "results", dict.fromkeys(names, RESULT))


def warned(evaluation, text: str) -> bool:
    return any(text in warning for warning in evaluation.warnings)


# ---------------------------------------------------------------- shared


def test_first_ten() -> None:
    assert first_ten(range(3)) == "0, 1, 2"
    assert first_ten(range(12)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def test_folders_are_found_in_the_official_layout(tmp_path: Path) -> None:
    inside = fill(tmp_path / "training" / "label_2", {"000000.txt": ""})
    assert find_folder(tmp_path, ("training/label_2",), ".txt", "labels") == inside
    assert find_folder(inside, ("training/label_2",), ".txt", "labels") == inside
    (empty := tmp_path / "empty").mkdir()
    for root, problem in (
        (empty, "the folder is empty"),
        (tmp_path / "none", "no such folder"),
        (inside / "000000.txt", "is a file"),
        (tmp_path, "holds no .png files"),
    ):
        with pytest.raises(UserError, match=problem):
            find_folder(root, (), ".png", "pictures")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no names"),
        ("a\n\nb\na\n", r":4: a for the second time, first in line 1"),
        ("../x\n", ":1: found '../x'"),
    ],
)
def test_bad_splits(tmp_path: Path, text: str, problem: str) -> None:
    (path := tmp_path / "split.txt").write_text(text)
    with pytest.raises(UserError, match=problem):
        read_names(path)


# ---------------------------------------------------------------- objects


def test_objects_are_scored_and_nothing_is_said_when_all_is_well(objects: tuple[Path, Path], tmp_path: Path) -> None:
    gt, results = objects
    for root in (gt, tmp_path / "kitti"):
        evaluation = score_object_folders(root, results)
        assert evaluation.scores["Car", "easy"].tp[-1] == 12
        assert evaluation.warnings == ("never detected, so not scored, as in the official tool: Pedestrian, Cyclist",)
    moved = tmp_path / "submission" / "data"
    moved.parent.mkdir()
    results.rename(moved)
    assert score_object_folders(gt, moved.parent).scores["Car", "easy"].tp[-1] == 12


def test_missing_results_list_the_first_ten_and_count_the_rest(objects: tuple[Path, Path]) -> None:
    gt, results = objects
    for path in sorted(results.iterdir())[1:]:
        path.unlink()
    expected = r"11 result file\(s\) of 12 in .*: 000001, .*, 000010 and 1 more"
    with pytest.raises(UserError, match=expected) as error:
        score_object_folders(gt, results)
    assert "--allow-missing" in error.value.do
    evaluation = score_object_folders(gt, results, allow_missing=True)
    assert len(evaluation.missing_frames) == 11 and warned(evaluation, "11 frames had no result file")
    assert evaluation.scores["Car", "easy"].fn[-1] == 11


def test_a_split_chooses_frames(objects: tuple[Path, Path], tmp_path: Path) -> None:
    gt, results = objects
    (sets := tmp_path / "kitti" / "ImageSets").mkdir()
    (sets / "val.txt").write_text("000003\n000005\n")
    for root, split in ((tmp_path / "kitti", Path("val")), (gt, Path("val")), (gt, sets / "val.txt")):
        evaluation = score_object_folders(root, results, split=split)
        assert evaluation.gt.frame_names == ("000003", "000005")
        assert warned(evaluation, "10 result file(s) of other frames are not scored: 000000, 000001")
    with pytest.raises(UserError, match="vall: no such file"):
        score_object_folders(gt, results, split=Path("vall"))
    (sets / "val.txt").write_text("000003\n000099\n")
    with pytest.raises(UserError, match=r"1 label file\(s\) of the split in .*: 000099"):
        score_object_folders(gt, results, split=sets / "val.txt")


def test_results_for_other_frames_are_an_error_where_none_fits(objects: tuple[Path, Path]) -> None:
    gt, results = objects
    for path in list(results.iterdir()):
        path.rename(results / f"9{path.name}")
    with pytest.raises(UserError, match=r"12 result file\(s\) of 12"):
        score_object_folders(gt, results)


def test_an_empty_results_folder_is_an_error_but_empty_files_are_not(objects: tuple[Path, Path]) -> None:
    gt, results = objects
    for path in results.iterdir():
        path.write_text("")
    evaluation = score_object_folders(gt, results)
    assert evaluation.scores == {} and warned(evaluation, "never detected, so not scored")
    for path in list(results.iterdir()):
        path.unlink()
    with pytest.raises(UserError, match="the folder is empty"):
        score_object_folders(gt, results, allow_missing=True)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("0.9", "nan"), "column 'score': found 'nan'"),
        (("0.9", ""), "column 'score' is missing"),
        (("100.00 200", "1oo 200"), "column 'top': found '1oo'"),
        (("0.9", "0.9 0.9"), "17 columns"),
    ],
)
def test_a_malformed_row_names_file_line_and_column(
    objects: tuple[Path, Path], change: tuple[str, str], problem: str
) -> None:
    gt, results = objects
    (results / "000007.txt").write_text(RESULT + RESULT.replace(*change))
    with pytest.raises(UserError, match=rf"000007\.txt:2: .*{problem}"):
        score_object_folders(gt, results)


def test_labels_must_be_labels(objects: tuple[Path, Path]) -> None:
    gt, results = objects
    with pytest.raises(UserError, match=r"000000\.txt:1: found 16 columns"):
        score_object_folders(results, gt)


def test_what_the_official_tool_takes_is_taken_and_counted(objects: tuple[Path, Path]) -> None:
    gt, results = objects
    (results / "000000.txt").write_text(
        RESULT
        + RESULT.replace("Car", "Bus") * 2  # a class KITTI does not know
        + RESULT.replace("200.00", "99.00")  # right < left
        + RESULT.replace("200.00", "1300.00")  # beyond any picture of KITTI
        + RESULT.replace("100.00 100.00", "-20.00 100.00")
        + RESULT.replace("-1 -1 0.00", "-1 -1 -10")  # no alpha
    )
    (gt / "000001.txt").write_text(LABEL + LABEL.replace("Car", "Lorry"))
    evaluation = score_object_folders(gt, results)
    for text in (
        "2 result row(s) of class 'Bus', which KITTI does not know",
        "1 label row(s) of class 'Lorry', which KITTI does not know",
        "1 result box(es) have right < left",
        "2 result box(es) reach outside the image (none is larger than 1242x376)",
        "1 result row(s) have alpha -10: AOS is not scored",
    ):
        assert warned(evaluation, text), (text, evaluation.warnings)
    score = evaluation.scores["Car", "easy"]
    assert (score.tp[-1], score.fp[-1], score.aos_r40) == (12, 4, None)


def test_a_class_that_starts_left_of_the_image_is_named(objects: tuple[Path, Path]) -> None:
    gt, results = objects
    for path in results.iterdir():
        path.write_text(RESULT.replace(" 100.00 100.00", " -0.50 100.00"))
    evaluation = score_object_folders(gt, results)
    assert evaluation.scores == {}
    assert warned(evaluation, "every row starts left of the image, so 2D is not scored, as in the official tool: Car")
    assert warned(evaluation, "never detected, so not scored, as in the official tool: Pedestrian, Cyclist")


def test_images_of_other_data_may_be_larger(objects: tuple[Path, Path]) -> None:
    gt, results = objects
    (gt / "000000.txt").write_text(LABEL.replace("200.00 150.00", "1900.00 1000.00"))
    (results / "000000.txt").write_text(RESULT.replace("200.00 150.00", "1900.00 1000.00"))
    assert not warned(score_object_folders(gt, results), "outside")


# ---------------------------------------------------------------- road


@pytest.fixture
def road(tmp_path: Path) -> tuple[Path, Path]:
    gt, results = tmp_path / "training" / "gt_image_2", tmp_path / "results"
    gt.mkdir(parents=True)
    results.mkdir()
    picture = np.zeros((6, 8, 3), np.uint8)
    picture[:, :, 2] = 255
    picture[3:, :, 0] = 255
    for name in ("um_road_000000", "umm_road_000000", "um_lane_000000"):
        cv2.imwrite(str(gt / f"{name}.png"), picture)
        cv2.imwrite(str(results / f"{name}.png"), picture[:, :, 0])
    return gt, results


def test_road_is_scored(road: tuple[Path, Path], tmp_path: Path) -> None:
    gt, results = road
    seen = []
    evaluation = score_road_folders(
        tmp_path, results, space="perspective", progress=lambda done, total: seen.append((done, total))
    )
    assert evaluation.warnings == () and seen == [(1, 3), (2, 3), (3, 3)]
    assert {name: s.max_f for name, s in evaluation.scores.items()} == dict.fromkeys(
        ("um_lane", "um_road", "umm_road", "URBAN"), 1.0
    )
    assert evaluation.images[0].gt_path == gt / "um_lane_000000.png"


def test_road_missing_results_and_calibrations(road: tuple[Path, Path], tmp_path: Path) -> None:
    gt, results = road
    with pytest.raises(UserError, match=r"2 calibration\(s\) of 3 in .*calib missing: um_000000\.txt, umm_") as error:
        score_road_folders(gt, results)
    assert "--space perspective" in error.value.do
    (results / "um_road_000000.png").unlink()
    with pytest.raises(UserError, match=r"1 result\(s\) of 3 in .*: um_road_000000"):
        score_road_folders(gt, results, space="perspective")
    evaluation = score_road_folders(gt, results, space="perspective", allow_missing=True)
    assert evaluation.missing_images == ("um_road_000000",) and warned(evaluation, "1 images had no result")
    assert evaluation.scores["um_road"].recall_curve[1] == 0.0
    cv2.imwrite(str(results / "uu_road_000077.png"), np.zeros((6, 8), np.uint8))
    found = score_road_folders(gt, results, space="perspective", allow_missing=True)
    assert warned(found, "1 result(s) without ground truth are not scored: uu_road_000077")
    (split := tmp_path / "split.txt").write_text("umm_road_000000\n")
    assert set(score_road_folders(gt, results, space="perspective", split=split).scores) == {"umm_road", "URBAN"}


def test_who_sends_no_lane_does_not_take_part_in_it(road: tuple[Path, Path]) -> None:
    gt, results = road
    (results / "um_lane_000000.png").unlink()
    evaluation = score_road_folders(gt, results, space="perspective")
    assert "um_lane" not in evaluation.scores and warned(evaluation, "um_lane: 1 ground truths and no result at all")


def test_ground_truth_without_road_is_said(road: tuple[Path, Path]) -> None:
    gt, results = road
    picture = np.zeros((6, 8, 3), np.uint8)
    picture[:, :, 2] = 255
    cv2.imwrite(str(gt / "umm_road_000000.png"), picture)
    assert warned(score_road_folders(gt, results, space="perspective"), "umm_road: no road in the ground truth")


# ---------------------------------------------------------------- tracking


@pytest.fixture
def tracking(tmp_path: Path) -> tuple[Path, Path]:
    rows = "".join(TRACK.format(t, 1) for t in range(4))
    gt = fill(tmp_path / "training" / "label_02", {"0000.txt": rows, "0001.txt": rows})
    (tmp_path / "evaluate_tracking.seqmap.training").write_text(
        "0000 empty 000000 000004\n0001 empty 000000 000004\n"
    )
    return tmp_path, fill(tmp_path / "results", {p.name: p.read_text() for p in gt.iterdir()})


def test_tracking_is_scored(tracking: tuple[Path, Path]) -> None:
    root, results = tracking
    for gt in (root, root / "training" / "label_02"):
        evaluation = score_tracking_folders(gt, results)
        assert evaluation.n_frames == {"0000": 4, "0001": 4}
        assert evaluation.combined["Car"].values["HOTA"] == 1.0
        assert evaluation.warnings == ("no result row of class Pedestrian: its scores are those of an empty result",)


def test_tracking_missing_and_other_sequences(tracking: tuple[Path, Path]) -> None:
    root, results = tracking
    (results / "0001.txt").rename(results / "0007.txt")
    with pytest.raises(UserError, match=r"1 result file\(s\) of 2 in .*: 0001"):
        score_tracking_folders(root, results)
    evaluation = score_tracking_folders(root, results, allow_missing=True)
    assert evaluation.missing_sequences == ("0001",) and evaluation.combined["Car"].values["CLR_FN"] == 4
    assert warned(evaluation, "1 result file(s) of other sequences are not scored: 0007")


def test_tracking_lengths_without_a_sequence_map(tracking: tuple[Path, Path]) -> None:
    root, results = tracking
    (root / "evaluate_tracking.seqmap.training").unlink()
    (pictures := root / "training" / "image_02" / "0001").mkdir(parents=True)
    (pictures / "000008.png").touch()
    evaluation = score_tracking_folders(root, results)
    assert evaluation.n_frames == {"0000": 4, "0001": 9} and warned(evaluation, "no sequence map")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no sequences"),
        ("0000 empty 000000\n", ":1: found '0000 empty 000000'"),
        ("0000 empty 0 4\n0000 empty 0 4\n", ":2: sequence 0000 for the second time"),
        ("../x empty 0 4\n", ":1: found"),
    ],
)
def test_bad_sequence_maps(tmp_path: Path, text: str, problem: str) -> None:
    (path := tmp_path / "map").write_text(text)
    with pytest.raises(UserError, match=problem):
        read_seqmap(path)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (TRACK.format(3, 1), r"0001\.txt:5: column 'track_id': 1 for the second time in frame 3"),
        (TRACK.format(4, 1), r"0001\.txt:5: column 'frame': found 4 .*\n  expected: frames 0 to 3"),
        (TRACK.format("x", 1), r"0001\.txt:5: column 'frame': found 'x'"),
        (TRACK.format(0, 5).replace(" 200 ", " nan "), r"0001\.txt:5: column 'right': found 'nan'"),
    ],
)
def test_tracking_rows_that_cannot_be_scored(tracking: tuple[Path, Path], row: str, problem: str) -> None:
    root, results = tracking
    with (results / "0001.txt").open("a") as file:
        file.write(row)
    with pytest.raises(UserError, match=problem):
        score_tracking_folders(root, results)
    (root / "training" / "label_02" / "0001.txt").write_text((results / "0001.txt").read_text())
    with pytest.raises(UserError, match=problem):
        score_tracking_folders(root, results)


def test_tracking_oddities_are_counted(tracking: tuple[Path, Path]) -> None:
    root, results = tracking
    odd = TRACK.format(0, 8).replace("Car", "Bus") + TRACK.format(1, -1) + TRACK.format(2, 9).replace(" 200 ", " 90 ")
    rows = (results / "0000.txt").read_text() + odd
    (results / "0000.txt").write_text("".join(f"{row} 0.5 extra\n" for row in rows.splitlines()))
    evaluation = score_tracking_folders(root, results)
    for text in (
        "1 result file(s) have columns after the score",
        "1 result row(s) with a negative id",
        "1 result row(s) of class 'Bus'",
        "1 result box(es) have right < left",
    ):
        assert warned(evaluation, text), (text, evaluation.warnings)


def test_only_frames_with_images_can_be_scored(tracking: tuple[Path, Path]) -> None:
    root, results = tracking
    (results / "0000.txt").write_text(TRACK.format(0, 1) + TRACK.format(1, 1))
    evaluation = score_tracking_folders(root, results, only_frames={"0000": np.array([0, 1])})
    assert evaluation.combined["Car"].values["HOTA"] == 1.0 and list(evaluation.n_frames) == ["0000"]
    assert warned(evaluation, "0000: 2 of 4 frames are scored")
