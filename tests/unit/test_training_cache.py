"""Copies on disk are the samples themselves; nothing that happens to the folder changes what is learnt."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from training_runs import kitti, tiny, write_picture

from datasets.kitti_object import KittiObject
from datasets.kitti_road import KittiRoad
from datasets.sample import Sample
from perception.cameras.pinhole import PinholeCamera
from training import cache
from training.cache import CachedSource, folder_bytes, pack, read_copy, reduce
from training.data import ImageStream, batches
from training.sets import find_sets

PLENTY = 10**9


def full_sample() -> Sample:
    """Every field set; 400×100 pixels."""
    rng = np.random.default_rng(0)
    road = np.zeros((100, 400), np.uint8)
    road[50:] = 1
    return Sample(
        image_bgr=rng.integers(0, 256, (100, 400, 3)).astype(np.uint8),
        name="000001",
        drive="day_drive_a",
        boxes_xyxy=np.array([[40, 20, 80, 60]], np.float32),
        class_ids=np.array([2]),
        ignore_boxes_xyxy=np.array([[0, 0, 10, 10], [4, 4, 8, 8]], np.float32),
        ignore_class_ids=np.array([-1, 0]),
        labelled_classes=(True, False, True),
        confidences=np.array([0.5], np.float32),
        distances_m=np.array([12.5], np.float32),
        boxes_xyzlhwr=np.array([[1, 1.5, 12.5, 4, 1.5, 1.7, 0.3]], np.float32),
        road=road,
        semantic=(road * 2).astype(np.uint8),
        camera=PinholeCamera(np.array([[200.0, 0, 180, 10], [0, 200, 50, 0], [0, 0, 1, 0.1]]), 1.5, 0.02),
    )


def same(a: Sample, b: Sample) -> bool:
    for field in dataclasses.fields(Sample):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, PinholeCamera):
            if not (np.array_equal(x.P_cam2, y.P_cam2) and (x.height_m, x.pitch_rad) == (y.height_m, y.pitch_rad)):
                return False
        elif isinstance(x, np.ndarray):
            if x.dtype != y.dtype or not np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
                return False
        elif x != y:
            return False
    return True


def test_a_copy_is_the_sample_in_every_field(tmp_path: Path) -> None:
    sample = full_sample()
    assert all(getattr(sample, f.name) is not None for f in dataclasses.fields(Sample)), "a new field: set it here"
    path = tmp_path / "a.sample"
    path.write_bytes(b"".join(pack(sample)))
    copy = read_copy(path)
    assert copy is not None and same(sample, copy)
    bare = Sample(sample.image_bgr, "b")
    path.write_bytes(b"".join(pack(bare)))
    copy = read_copy(path)
    assert copy is not None and same(bare, copy)
    copy.image_bgr[0] = 0  # training may draw into it


def test_a_wide_frame_is_reduced_with_its_labels() -> None:
    sample = full_sample()
    half = reduce(sample, 200)
    assert half.image_bgr.shape == (50, 200, 3)
    assert half.boxes_xyxy is not None and half.boxes_xyxy.tolist() == [[20, 10, 40, 30]]
    assert half.ignore_boxes_xyxy is not None and half.ignore_boxes_xyxy[0].tolist() == [0, 0, 5, 5]
    assert half.distances_m is sample.distances_m, "a smaller picture is no nearer"
    assert half.road is not None and (half.road[:25] == 0).all() and (half.road[25:] == 1).all()
    assert sample.camera is not None and half.camera is not None
    point = np.array([[1.0, 1.5, 10.0]])
    assert np.allclose(half.camera.project(point), sample.camera.project(point) / 2)
    assert reduce(sample, 380) is sample, "a twentieth wider is not worth a second interpolation"


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_a_damaged_copy_is_made_again(tmp_path: Path, cut: int) -> None:
    source = KittiObject(kitti(tmp_path / "data") / "kitti/object")
    cached = CachedSource(source, tmp_path / "cache", 1000, PLENTY)
    first = cached[0]
    path = cached.path(0)
    path.write_bytes(path.read_bytes()[:cut])
    assert same(cached[0], first)
    copy = read_copy(path)
    assert copy is not None and same(copy, first)


class Counting:
    """Passes everything on and counts readings."""

    def __init__(self, source: KittiObject) -> None:
        self.source, self.readings = source, 0
        self.names, self.files = source.names, source.files

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Sample:
        self.readings += 1
        return self.source[i]


def test_the_source_is_read_once_until_a_file_changes(tmp_path: Path) -> None:
    root = kitti(tmp_path / "data") / "kitti/object"
    source = Counting(KittiObject(root))
    cached = CachedSource(source, tmp_path / "cache", 1000, PLENTY)
    assert same(cached[3], cached[3]) and source.readings == 1
    assert not list((tmp_path / "cache").rglob(".*.part"))
    label = root / "training/label_2/000003.txt"
    label.write_text(label.read_text() + "Pedestrian 0 0 0 5 5 9 19 1 1 1 1 1 9 0\n")
    boxes = cached[3].boxes_xyxy
    assert boxes is not None and len(boxes) == 2 and source.readings == 2
    picture = root / "training/image_2/000003.png"
    os.utime(picture, ns=(1, 1))
    cached[3]
    assert source.readings == 3
    shutil.rmtree(tmp_path / "cache")
    cached[3]
    assert source.readings == 4
    CachedSource(source, tmp_path / "cache", 100, PLENTY)[3]
    assert source.readings == 5, "another width is another copy"


def test_the_folder_stays_within_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache, "LOOK_EVERY", 1)
    source = KittiObject(kitti(tmp_path / "data") / "kitti/object")
    size = sum(map(len, pack(source[0])))
    cached = CachedSource(source, tmp_path / "cache", 1000, 3 * size)
    with caplog.at_level(logging.WARNING):
        for i in range(len(source)):
            assert same(cached[i], source[i])
    assert folder_bytes(tmp_path / "cache") <= 4.1 * size
    assert caplog.text.count("no more copies are written") == 1


def test_a_folder_that_cannot_be_written_is_slow_and_not_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = KittiObject(kitti(tmp_path / "data") / "kitti/object")
    (tmp_path / "file").write_text("in the way")
    cached = CachedSource(source, tmp_path / "file", 1000, PLENTY)
    assert same(cached[0], source[0]) and same(cached[1], source[1])
    assert caplog.text.count("no more copies are written") == 1


def test_a_full_disk_leaves_no_half_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    source = KittiObject(kitti(tmp_path / "data") / "kitti/object")
    cached = CachedSource(source, tmp_path / "cache", 1000, PLENTY)
    monkeypatch.setattr("perception.files.os.replace", full_disk)
    assert same(cached[0], source[0])
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_pictures_of_a_run_are_the_same_without_with_a_cold_and_with_a_warm_cache(tmp_path: Path) -> None:
    config = tiny(kitti(tmp_path / "data", road=2))
    sets = find_sets(config.data)
    cached = sets.cached(tmp_path / "cache", config.augment.native_width, PLENTY)
    for n in range(6):
        plain, cold, warm = (ImageStream(s, config)[n] for s in (sets, cached, cached))
        for picture in (cold, warm):
            assert np.array_equal(plain.image_bgr, picture.image_bgr)
            assert np.array_equal(plain.boxes_xyxy, picture.boxes_xyxy)
            assert np.array_equal(plain.masks, picture.masks)
    assert len(list((tmp_path / "cache").rglob("*.sample"))) > 2
    assert sets.data_hash() == cached.data_hash()


def test_batches_name_their_pictures_and_parts_are_the_whole(tmp_path: Path) -> None:
    config = tiny(kitti(tmp_path / "data"))
    batch = next(batches(find_sets(config.data), config, 0))
    assert len(batch.names) >= len(batch.images) == 4
    assert all(name.startswith("kitti/object/0000") for name in batch.names)
    a, b = batch.parts(2)
    assert len(a.images) == len(b.images) == 2
    assert (batch.images[2:] == b.images).all() and (batch.targets.class_ids[:2] == a.targets.class_ids).all()


def test_the_road_benchmark_keeps_its_masks(tmp_path: Path) -> None:
    source = KittiRoad(kitti(tmp_path / "data", road=1) / "kitti/road")
    cached = CachedSource(source, tmp_path / "cache", 1000, PLENTY)
    cached[0]
    assert same(cached[0], source[0]) and cached[0].road is not None


def test_a_second_picture_in_another_format_is_another_copy(tmp_path: Path) -> None:
    root = kitti(tmp_path / "data") / "kitti/object"
    cached = CachedSource(KittiObject(root), tmp_path / "cache", 1000, PLENTY)
    before = cached.path(0)
    picture = root / "training/image_2/000000.png"
    picture.unlink()
    write_picture(picture.with_suffix(".jpg"), full_sample().image_bgr)
    assert cached.path(0) != before
