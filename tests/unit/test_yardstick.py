"""The yardstick: two held-out parts, nothing in both, and scores that can be checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from datasets.labels import CAR, CYCLIST, PEDESTRIAN
from datasets.readers.yardstick import Frame, frames, road_frames
from datasets.yardstick_split import Part, part, withheld
from perception.errors import UserError
from perception.model import shipped_or
from perception.types import Detections
from tools.benchmarks import yardstick
from tools.benchmarks.yardstick import (
    REFERENCE_HW,
    ROWS,
    Row,
    frames_trained_on,
    load_detector,
    matches_of,
    recalls,
    score_row,
)

PEOPLE = ROWS[0]
THRESHOLDS = {(row.class_id, row.min_iou): 0.5 for row in ROWS}


def frame(
    boxes: Sequence[Sequence[float]], occlusion: Sequence[int] | None = None, group: str = "kitti", name: str = "a"
) -> Frame:
    """A frame of 384x1248 with pedestrians."""
    nothing, none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    hidden = np.array(occlusion if occlusion is not None else [0] * len(array), np.int64)
    ids = np.full(len(array), PEDESTRIAN)
    image = np.zeros((384, 1248, 3), np.uint8)
    plain = hidden <= 1
    return Frame(group, name, image, array, ids, hidden, plain, nothing, none, (CAR, PEDESTRIAN, CYCLIST))  # type: ignore[arg-type]


def found(*boxes: Sequence[float]) -> Detections:
    """Detections of pedestrians: box and score."""
    array = np.array(boxes, np.float32).reshape(-1, 5)
    return Detections(array[:, :4], array[:, 4], np.full(len(array), PEDESTRIAN))


def test_the_parts_share_nothing() -> None:
    choosing, report, held = part("choosing"), part("report"), withheld()
    for name in Part.__annotations__:
        one, other = getattr(choosing, name), getattr(report, name)
        assert one and other and not one & other
        assert one | other <= getattr(held, name)


def test_no_run_trains_on_a_frame_of_the_yardstick(data_root: Path) -> None:
    from datasets.kitti_tracking import DRIVES
    from datasets.splits import read_drives, read_split

    kitti = data_root / "kitti/object"
    drives = read_drives(kitti)
    trained = {drives[name] for name in read_split(kitti, "train")}
    assert not trained & withheld().kitti_drives
    assert {drives[name] for name in read_split(kitti, "val")} == withheld().kitti_drives
    assert withheld().kitti_drives & set(DRIVES.values()), "tracking sequences go by the same names"


def test_the_training_sets_of_the_sample_data_hold_no_frame_of_the_yardstick(data_root: Path) -> None:
    pytest.importorskip("torch")
    from training.config import DataConfig
    from training.sets import find_sets

    held = withheld()
    labels = data_root / "teacher_labels/labels.zip"
    for sets in (find_sets(DataConfig(root=data_root)), find_sets(DataConfig(root=data_root, teacher_labels=labels))):
        for subset in sets.train:
            source = subset.source
            names = {str(source.names[i]) for i in subset.indices}
            assert not {source.drive(i) for i in subset.indices} & held.kitti_drives
            assert not names & (held.dawn | held.kitti_road)
            if subset.name in ("citypersons_sample", "cityscapes"):
                assert not {name.split("_")[0] for name in names} & held.citypersons_cities
    assert {"cityscapes", "nuscenes_front", "camvid_test", "clip_frames"} <= {subset.name for subset in sets.train}


def test_frames_are_those_of_the_split_file(data_root: Path) -> None:
    both = [frames(data_root, name) for name in ("choosing", "report")]  # type: ignore[arg-type]
    names = [{(f.group, f.name) for f in some} for some in both]
    assert not names[0] & names[1]
    assert [len(some) for some in names] == [20 + 26 + 24, 7 + 26 + 24]
    people = [sum(int((f.class_ids == PEDESTRIAN).sum()) for f in some if f.group == "citypersons") for some in both]
    assert min(people) > 200
    assert all(f.scored == (CAR,) for some in both for f in some if f.group == "dawn")
    assert [len(road_frames(data_root, name)) for name in ("choosing", "report")] == [3, 6]  # type: ignore[arg-type]


def test_a_checkpoint_tells_which_frames_it_was_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from datasets.splits import HeldOut, Holdout
    from training.checkpoint import save_checkpoint

    scenes = [frame([], name="a"), frame([], name="b"), frame([], group="dawn", name="c")]
    holdout = Holdout({"kitti/object": HeldOut(frozenset({"a"}), "by hand")})
    save_checkpoint(tmp_path / "told.pt", {"holdout": holdout.to_json()})
    save_checkpoint(tmp_path / "silent.pt", {})
    assert frames_trained_on(tmp_path / "told.pt", scenes) == 1, "b; of dawn_fog the run had nothing"
    assert frames_trained_on(tmp_path / "silent.pt", scenes) is None
    assert frames_trained_on(tmp_path / "model.onnx", scenes) is None


def test_no_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no frame of the report part"):
        frames(tmp_path, "report")


def test_small_and_hidden_people_are_neither_found_nor_missed() -> None:
    scene = frame([[0, 0, 20, 40], [100, 0, 110, 24], [200, 0, 220, 40]], occlusion=[0, 0, 2])
    hits = found([0, 0, 20, 40, 0.9], [100, 0, 110, 24, 0.8], [200, 0, 220, 40, 0.7], [300, 0, 320, 40, 0.6])
    matches = matches_of(PEOPLE, scene, hits)
    assert matches.n_objects == 1
    assert matches.scores.tolist() == pytest.approx([0.9, 0.6]) and matches.is_true.tolist() == [True, False]


def test_a_class_that_a_set_does_not_label_is_not_scored() -> None:
    assert (
        matches_of(Row("", CAR, ("dawn",), 0.5), frame([[0, 0, 20, 40]]), found([0, 0, 20, 40, 0.9])).n_objects == 0
    )


def test_precision_recall_and_f1_are_those_at_the_threshold() -> None:
    scenes = [frame([[0, 0, 20, 40]]), frame([[0, 0, 20, 40], [50, 0, 70, 40]])]
    detections = [found([0, 0, 20, 40, 0.9]), found([0, 0, 20, 40, 0.8], [90, 0, 110, 40, 0.7], [50, 0, 70, 40, 0.2])]
    score = score_row(PEOPLE, scenes, detections, threshold=0.5)
    assert score.objects == 3
    assert score.precision is not None and score.recall is not None and score.f1 is not None and score.ap is not None
    assert (score.precision.value, score.recall.value) == pytest.approx((2 / 3, 2 / 3))
    assert score.f1.value == pytest.approx(2 / 3)
    assert score.ap.value == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert score.recall_at_precision is not None and score.recall_at_precision.value == pytest.approx(2 / 3)
    assert score.recall.low == 0.5 and score.recall.high == 1, "drawn twice, either frame alone"


def test_recall_by_height_and_occlusion() -> None:
    scene = frame([[0, 0, 20, 40], [50, 0, 90, 80], [200, 0, 220, 40]], occlusion=[0, 1, 2])
    rows = {
        s.name.removeprefix("Pedestrian, "): s
        for s in recalls([scene], [found([0, 0, 20, 40, 0.9], [200, 0, 220, 40, 0.6])], THRESHOLDS)
    }
    assert (
        rows["25–50 px"].objects == 1 and rows["25–50 px"].recall is not None and rows["25–50 px"].recall.value == 1
    )
    assert rows["50–100 px"].recall is not None and rows["50–100 px"].recall.value == 0
    assert rows["from 100 px"].objects == 0
    near = rows["plain within 40 m"]
    assert near.objects == 2 and near.recall is not None and near.recall.value == 0.5
    assert rows["Car, plain within 40 m"].objects == 0
    assert [rows[f"occlusion {k}"].recall.value for k in ("0 (visible)", "1 (partly)", "2 (largely)")] == [1, 0, 1]  # type: ignore[union-attr]


def test_the_headline_is_that_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pedestrians, one of them found, and a false alarm of a lower score: AP and recall at 85 % are a half."""
    one, other, wrong = [0, 0, 40, 80], [100, 0, 140, 80], [300, 0, 340, 80]
    monkeypatch.setattr(yardstick, "_kept_frames", lambda root, part: [frame([one, other])])
    monkeypatch.setattr(yardstick, "road_max_f", lambda options, detect: 61.5)
    detect = lambda image: (found([*one, 0.9], [*wrong, 0.8]), None)  # noqa: E731
    values = yardstick.headline(detect, Path())
    assert values["pedestrian_ap"] == 50 and values["pedestrian_recall"] == 50 and values["car_kitti_ap"] == 0
    assert yardstick.headline(detect, Path(), boxes=False) == {"road_max_f": 61.5}


def test_an_export_is_scored_on_the_engine_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from perception.detector import Detector

    pytest.importorskip("openvino")
    nano = shipped_or(Path("nano-384x1248.onnx"))
    image = np.random.default_rng(0).integers(0, 256, (384, 1248, 3), np.uint8)
    usual, other = load_detector(nano, REFERENCE_HW, 1), load_detector(nano, REFERENCE_HW, 1, "openvino")
    assert isinstance(other, Detector) and other.provider == "OpenVINO CPU fp32"
    (boxes, road), (theirs, other_road) = usual(image), other(image)
    assert road is not None and other_road is not None
    assert np.abs(road.at_frame_size().astype(int) - other_road.at_frame_size()).max() <= 1
    np.testing.assert_allclose(theirs.scores, boxes.scores, atol=1e-4)


@pytest.mark.parametrize("name", ["nano.pt", "nano-384x1248.onnx"])
def test_a_precision_that_nothing_computes_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="bf16"):
        load_detector(shipped_or(Path(name)), REFERENCE_HW, 1, "cpu", "bf16")
