"""The official tools' recorded numbers, each one: object AP and AOS, road, tracking."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.evaluation.object_folders import score_object_folders
from perception.evaluation.results import LEVELS, METRICS_3D, ObjectScore
from perception.evaluation.road import pr_curve
from perception.evaluation.road_folders import score_road_folders
from perception.evaluation.tracking_folders import score_tracking_folders

TOLERANCE = 1e-4
pytestmark = pytest.mark.data


def unpack(archive: Path, folder: Path) -> Path:
    folder.mkdir()
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


def recorded(golden_root: Path, name: str) -> dict[str, Any]:
    return json.loads((golden_root / name).read_text())


# ---------------------------------------------------------------- objects


@pytest.fixture(scope="module")
def labels(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(data_root / "kitti" / "label_2_all.zip", tmp_path_factory.mktemp("labels") / "kitti")


@pytest.mark.parametrize("case", ["kittibox", "stress", "stress2"])
def test_objects(case: str, labels: Path, golden_root: Path, tmp_path: Path) -> None:
    golden = recorded(golden_root, f"object_{case}.json")
    results = unpack(golden_root / f"object_{case}_results.zip", tmp_path / "results")
    (split := tmp_path / "split.txt").write_text("\n".join(golden["frames"]))
    evaluation = score_object_folders(labels, results, split=split)
    assert {f"{name}/{level}" for name, level in evaluation.scores} == set(golden["results"])
    for key, expected in golden["results"].items():
        class_name, level = key.split("/")
        score = evaluation.scores[class_name, level]
        assert score.n_gt == expected["n_gt"]
        assert score.thresholds.tolist() == expected["thresholds"]
        assert [score.tp.tolist(), score.fp.tolist(), score.fn.tolist()] == [
            expected["tp"],
            expected["fp"],
            expected["fn"],
        ]
        assert score.aos41 is not None
        for found, wanted in (
            (score.ap_r40, expected["AP_R40"]),
            (score.ap_r11, expected["AP_R11"]),
            (score.aos_r40, expected["AOS_R40"]),
            (score.aos_r11, expected["AOS_R11"]),
            (score.precision41, expected["precision41"]),
            (score.aos41, expected["aos41"]),
            (score.similarity, expected["similarity"]),
        ):
            assert found == pytest.approx(wanted, abs=TOLERANCE)


@pytest.mark.parametrize("case", ["object3d_stress", "object3d_gates", "object3d_pointgnn"])
def test_objects_in_bev_and_3d(case: str, labels: Path, golden_root: Path, tmp_path: Path) -> None:
    golden = recorded(golden_root, f"{case}.json")
    results = unpack(golden_root / f"{case}_results.zip", tmp_path / "results")
    (split := tmp_path / "split.txt").write_text("\n".join(golden["frames"]))
    evaluation = score_object_folders(labels, results, split=split)
    scored: dict[str, dict[str, ObjectScore]] = {
        "results": {f"{name}/{level}": score for (name, level), score in evaluation.scores.items()}
    }
    for metric in METRICS_3D:
        scored[f"results_{metric}"] = {
            f"{name}/{level}": score for (of, name, level), score in evaluation.scores_3d.items() if of == metric
        }
    for part, found in scored.items():
        assert set(found) == set(golden[part]), part
        for key, score in found.items():
            expected = golden[part][key]
            counts = (score.n_gt, score.thresholds.tolist(), score.tp.tolist(), score.fp.tolist(), score.fn.tolist())
            assert counts == tuple(expected[name] for name in ("n_gt", "thresholds", "tp", "fp", "fn")), (part, key)
            assert score.ap_r40 == pytest.approx(expected["AP_R40"], abs=TOLERANCE)
            assert score.ap_r11 == pytest.approx(expected["AP_R11"], abs=TOLERANCE)
            assert score.precision41 == pytest.approx(expected["precision41"], abs=TOLERANCE)
            if "AOS_R40" in expected:
                assert score.aos_r40 == pytest.approx(expected["AOS_R40"], abs=TOLERANCE)
    assert evaluation.has_orientation == ("AOS_R40" in next(iter(golden["results"].values())))


def test_objects_all_labels_as_results_are_perfect(labels: Path, tmp_path: Path) -> None:
    """7,481 files through the whole way: what is labelled and comes back with a score is found."""
    (results := tmp_path / "results").mkdir()
    for path in (labels / "training" / "label_2").iterdir():
        rows = path.read_text().splitlines()
        (results / path.name).write_text("".join(f"{row} 1\n" for row in rows if not row.startswith("DontCare")))
    evaluation = score_object_folders(labels, results)
    for class_name in ("Car", "Pedestrian", "Cyclist"):
        for level in LEVELS:
            score = evaluation.scores[class_name, level]
            assert score.fp[-1] == 0 and score.fn[-1] == 0 and score.tp[-1] == score.n_gt


# ---------------------------------------------------------------- road


ROAD_CASES = [(case, space) for case in ("blurnoise", "shift") for space in ("perspective", "bev")]


@pytest.fixture(scope="module")
def road_files(golden_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(golden_root / "road.zip", tmp_path_factory.mktemp("road") / "files")


@pytest.mark.parametrize(("case", "space"), ROAD_CASES)
def test_road(case: str, space: str, road_files: Path, golden_root: Path) -> None:
    golden = recorded(golden_root, "road.json")["cases"][case][space]
    results = road_files / "road_stress" / case
    evaluation = score_road_folders(road_files / "gt_image_2", results, calib=road_files / "calib", space=space)
    for category, expected in golden.items():
        members = [image for image in evaluation.images if image.category == category]
        _compare_road(evaluation.scores[category], expected["combined"])
        assert {image.name for image in members} == set(expected["per_image"])
        for image in members:
            _compare_road(pr_curve([image], category), expected["per_image"][image.name])
        if "totalFN_curve" in expected["combined"]:
            # one pixel in three million lies on a rounding edge of the view from above
            assert sum(i.fn for i in members) == pytest.approx(expected["combined"]["totalFN_curve"], abs=1)
            assert sum(i.fp for i in members) == pytest.approx(expected["combined"]["totalFP_curve"], abs=1)


ROAD_NAMES = {
    "MaxF": "max_f",
    "AvgPrec": "ap",
    "PRE_wp": "precision",
    "REC_wp": "recall",
    "FPR_wp": "fpr",
    "FNR_wp": "fnr",
    "TP_wp": "tp",
    "FP_wp": "fp",
    "FN_wp": "fn",
    "TN_wp": "tn",
}


def _compare_road(score: Any, expected: dict[str, Any]) -> None:
    compared = {name: field for name, field in ROAD_NAMES.items() if name in expected}
    assert len(compared) >= 8
    for name, field in compared.items():
        assert getattr(score, field) == pytest.approx(expected[name], abs=TOLERANCE), name
    if "BestThresh" in expected:
        assert score.threshold / 255 == pytest.approx(expected["BestThresh"])


@pytest.mark.parametrize("case", ["blurnoise", "shift"])
def test_road_maps_that_are_already_seen_from_above(case: str, road_files: Path, golden_root: Path) -> None:
    golden = recorded(golden_root, "road.json")["cases"][case]["bev"]
    above = road_files / "road_stress_bev"
    evaluation = score_road_folders(above / "gt_image_2", above / case, calib=road_files / "calib", space="bev")
    for category, expected in golden.items():
        _compare_road(evaluation.scores[category], expected["combined"])


# ---------------------------------------------------------------- tracking


@pytest.mark.parametrize("case", ["GT-SORT", "YOLOX-OC-SORT", "STRESS"])
def test_tracking(case: str, data_root: Path, golden_root: Path, tmp_path: Path) -> None:
    golden = recorded(golden_root, "tracking.json")["results"][case]
    results = unpack(golden_root / f"tracking_{case}_results.zip", tmp_path / "results")
    evaluation = score_tracking_folders(data_root / "kitti" / "tracking", results)
    assert set(golden) == {*evaluation.n_frames, "COMBINED_SEQ"}
    for sequence, classes in golden.items():
        for class_name, expected in classes.items():
            name = class_name.capitalize()
            combined = sequence == "COMBINED_SEQ"
            score = evaluation.combined[name] if combined else evaluation.sequences[sequence, name].score
            for key, wanted in expected.items():
                if key.endswith("_alpha"):
                    found: Any = score.by_alpha[key.removesuffix("_alpha")]
                else:
                    found = score.values[{"FP": "CLR_FP", "FN": "CLR_FN"}.get(key, key)]
                assert np.abs(np.subtract(found, wanted)).max() <= TOLERANCE, (sequence, class_name, key)


def test_perfect_tracking_still_has_fragments(data_root: Path, tmp_path: Path) -> None:
    """24 for cars, 4 for pedestrians: frames in which a track is occluded, truncated or absent count as gaps."""
    (results := tmp_path / "results").mkdir()
    for path in (data_root / "kitti" / "tracking" / "training" / "label_02").iterdir():
        rows = path.read_text().splitlines()
        (results / path.name).write_text("".join(f"{row}\n" for row in rows if " DontCare " not in row))
    evaluation = score_tracking_folders(data_root / "kitti" / "tracking", results)
    for name, fragments in (("Car", 24), ("Pedestrian", 4)):
        values = evaluation.combined[name].values
        assert values["HOTA"] == values["MOTA"] == values["IDF1"] == 1.0
        assert values["Frag"] == fragments and values["IDSW"] == 0
