"""No training frame is of a held-out drive; where that cannot be known, a warning says so."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import dataset_folders as make
import pytest

pytest.importorskip("torch")

from datasets.kitti_tracking import DRIVES, KittiTracking
from perception.errors import UserError
from training.config import DataConfig
from training.sets import evenly, find_sets


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Object frames 000000 and 000001 to learn from, 000002 and 000003 held out, and tracking sequences."""
    make.kitti_object(tmp_path / "kitti/object")
    make.kitti_tracking(tmp_path / "kitti/tracking")
    return tmp_path


def test_unknown_drives_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "kitti/object/drives.json").unlink()
    with caplog.at_level(logging.WARNING, "datasets"):
        find_sets(DataConfig(root=root))
    assert "drives of the held-out object frames are unknown" in caplog.text


def test_a_frame_on_both_sides_of_the_split_is_a_sentence(root: Path) -> None:
    make.write(root / "kitti/object/ImageSets/train.txt", "000000 000001 000002")
    (root / "kitti/object/drives.json").unlink()
    with pytest.raises(UserError, match=r"frame 000002 is in train and in val \(1 frames are\)"):
        find_sets(DataConfig(root=root))


@pytest.mark.parametrize(("split", "so"), [("train", "no frame is trained on"), ("val", "nothing is held out")])
def test_a_split_of_other_names_is_told(root: Path, caplog: pytest.LogCaptureFixture, split: str, so: str) -> None:
    make.write(root / f"kitti/object/ImageSets/{split}.txt", "2 3")
    with caplog.at_level(logging.WARNING, "datasets"):
        find_sets(DataConfig(root=root))
    assert f"{split}.txt: 2 of its 2 frames have no image with a label" in caplog.text and so in caplog.text


def test_the_road_zip_is_found_as_it_unpacks(tmp_path: Path) -> None:
    make.kitti_object(tmp_path)
    make.kitti_road(tmp_path / "data_road")
    assert [subset.name for subset in find_sets(DataConfig(root=tmp_path)).train] == ["kitti/object", "kitti/road"]


def test_tracking_frames_of_a_held_out_drive_are_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    sequences = [name.split("/")[0] for name in KittiTracking(root / "kitti/tracking").names]
    held = DRIVES[sequences[0]]
    drives = {"000000": "another", "000001": "another", "000002": held, "000003": held}
    make.write(root / "kitti/object/drives.json", json.dumps(drives))
    with caplog.at_level(logging.WARNING, "datasets"):
        sets = find_sets(DataConfig(root=root))
    assert not caplog.text
    kept = [i for subset in sets.train if subset.name == "kitti/tracking" for i in subset.indices]
    assert kept == [i for i, sequence in enumerate(sequences) if DRIVES[sequence] != held]
    assert 0 < len(kept) < len(sequences)


@pytest.mark.data
def test_what_was_drawn_by_hand_can_be_left_out(data_root: Path) -> None:
    road: dict[bool, int] = {}
    for drawn in (True, False):
        sets = find_sets(DataConfig(root=data_root, hand_labels=drawn))
        assert any(subset.name == "videos" for subset in sets.train) is drawn
        subset = next(subset for subset in sets.train if subset.name == "kitti/road")
        road[drawn] = sum(subset.source[i].boxes_xyxy is not None for i in subset.indices)
        assert sets.road is not None and all(sets.road.source[i].boxes_xyxy is None for i in sets.road.indices)
    assert road == {True: 21, False: 0}


def test_weights_of_sets_change_and_a_weight_of_zero_leaves_one_out(root: Path) -> None:
    usual = find_sets(DataConfig(root=root)).train
    names = [subset.name for subset in usual]
    heavy = find_sets(DataConfig(root=root, weights=(f"{names[0]}=0.5",))).train
    assert [s.weight for s in heavy] == [0.5, *(s.weight for s in usual[1:])]
    assert [s.name for s in find_sets(DataConfig(root=root, weights=(f"{names[0]}=0",))).train] == names[1:]
    for wrong in ("camvid=0.1", names[0], f"{names[0]}=much", f"{names[0]}=-1"):
        with pytest.raises(UserError, match="NAME=WEIGHT"):
            find_sets(DataConfig(root=root, weights=(wrong,)))


def test_a_share_of_the_labels_is_spread_evenly(root: Path) -> None:
    assert evenly(range(10, 20), 0.3) == (10, 13, 16) and evenly(range(10), 1.0) == tuple(range(10))
    assert evenly((7, 8, 9), 0.01) == (7,), "one frame is left of every set"
    whole, half = (find_sets(DataConfig(root=root, label_share=share)) for share in (1.0, 0.5))
    assert [len(s.indices) for s in half.train] == [max(1, round(len(s.indices) / 2)) for s in whole.train]
    assert [s.weight for s in half.train] == [s.weight for s in whole.train]
    assert half.holdout == whole.holdout and half.objects is not None and whole.objects is not None
    assert half.objects.indices == whole.objects.indices


def test_hard_labels_count_fully(root: Path) -> None:
    from dataclasses import replace

    import numpy as np

    from training.config import TrainConfig
    from training.data import ImageStream

    config = TrainConfig(data=DataConfig(root=root, soft_labels=False))
    sets = find_sets(config.data)
    sample = sets.train[0].source[0]
    assert sample.boxes_xyxy is not None
    soft = replace(sample, confidences=np.full(len(sample.boxes_xyxy), 0.6, np.float32))
    assert ImageStream(sets, config)._numbered(soft).confidences is None
    plain = replace(config, data=replace(config.data, soft_labels=True))
    assert ImageStream(sets, plain)._numbered(soft).confidences is soft.confidences
