"""Every data-set file in datasets/ is found here and held to its promise, also one that is added tomorrow."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import datasets
from datasets import catalogue
from datasets.catalogue import DataSet, ExtraLabels, SampleSource, data_sets, divide, modules, open_sets
from datasets.checks.run import check
from perception.errors import UserError
from perception.types import CLASS_NAMES

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from dataset_folders import MAKERS

OUTSIDE = {"annotations", "checks", "fetching", "formats", "labelling", "readers", "synthetic_street"}
"""Sub-packages of `datasets`; every other module is a data set or is named in `NOT_DATA_SETS`."""
each_set = pytest.mark.parametrize("data_set", data_sets(), ids=lambda data_set: data_set.name)


def labels(root: Path) -> ExtraLabels:
    """The extra labels of a small stand-in: teachers' rows, where its maker wrote some."""
    folder = root / "teacher_labels"
    return ExtraLabels(teacher_labels=folder if folder.is_dir() else None)


def opened(data_set: DataSet, root: Path) -> SampleSource:
    """The set's small stand-in, opened as training opens it."""
    assert data_set.name in MAKERS, f"give '{data_set.name}' a maker in tests/unit/dataset_folders.py"
    MAKERS[data_set.name](root / data_set.folders[0])
    (found,) = open_sets(root, labels(root), only=[data_set.name])
    assert found.folder == root / data_set.folders[0]
    return found.source


def test_every_module_is_a_data_set_or_is_known_as_none() -> None:
    folder = Path(datasets.__path__[0])
    assert {p.name for p in folder.iterdir() if (p / "__init__.py").is_file()} == OUTSIDE
    assert {p.stem for p in folder.glob("*.py")} - {"__init__"} == set(modules()) | catalogue.NOT_DATA_SETS
    for name in modules():
        assert isinstance(importlib.import_module(f"datasets.{name}").DATA_SET, DataSet), name


def test_names_and_places_are_unique() -> None:
    found = data_sets()
    assert len({data_set.name for data_set in found}) == len(found)
    assert len({(data_set.order, data_set.name) for data_set in found}) == len(found)
    for task in ("objects", "road"):
        assert any(data_set.validates == task for data_set in found)


@each_set
def test_it_declares_licence_weight_and_classes(data_set: DataSet) -> None:
    assert len(data_set.licence) > 8
    assert data_set.weight > 0 and data_set.chosen_for > 0
    assert set(data_set.classes) <= set(CLASS_NAMES) and (data_set.classes or data_set.road)
    n = data_set.chosen_for
    assert data_set.weight_of(n) == data_set.weight_of(2 * n) == data_set.weight
    assert data_set.weight_of(8 * n) == pytest.approx(2 * data_set.weight)


@each_set
def test_samples_have_their_declared_shape(data_set: DataSet, tmp_path: Path) -> None:
    source = opened(data_set, tmp_path)
    names = [str(name) for name in source.names]
    assert len(source) == len(names) == len(set(names)) > 0
    for i, name in enumerate(names):
        sample = source[i]
        height, width = sample.image_bgr.shape[:2]
        assert sample.name == name and sample.image_bgr.shape == (height, width, 3)
        assert sample.image_bgr.dtype == np.uint8
        assert source.drive(i) == sample.drive, "the hold-out goes by what is known without reading"
        files = source.files(i)
        assert files and files[0].is_file(), "the image is the first"
        if sample.boxes_xyxy is not None:
            assert sample.class_ids is not None and len(sample.class_ids) == len(sample.boxes_xyxy)
            assert sample.distances_m is None or len(sample.distances_m) == len(sample.boxes_xyxy)
            assert (sample.boxes_xyxy >= 0).all() and (sample.boxes_xyxy <= [width, height] * 2).all()
            assert {CLASS_NAMES[c] for c in sample.class_ids} <= set(data_set.classes)
            assert all(sample.labelled_classes[c] for c in sample.class_ids)
            assert {n for n, yes in zip(CLASS_NAMES, sample.labelled_classes, strict=True) if yes} >= set(
                data_set.classes
            )
        else:
            assert sample.class_ids is None
        assert sample.road is None or (data_set.road and sample.road.shape == (height, width))
    with pytest.raises(IndexError):
        source[len(source)]


@each_set
def test_reading_twice_and_in_another_process_gives_the_same(data_set: DataSet, tmp_path: Path) -> None:
    source = opened(data_set, tmp_path)
    (again,) = open_sets(tmp_path, labels(tmp_path), only=[data_set.name])
    for twin in (again.source, pickle.loads(pickle.dumps(source))):
        assert list(twin.names) == list(source.names)
        a, b = source[0], twin[0]
        for field in ("image_bgr", "boxes_xyxy", "class_ids", "ignore_boxes_xyxy", "road", "semantic"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@each_set
def test_a_missing_folder_is_no_set_and_an_empty_one_an_error(data_set: DataSet, tmp_path: Path) -> None:
    assert open_sets(tmp_path, only=[data_set.name]) == []
    opened(data_set, tmp_path / "whole")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError):
        assert data_set.open(tmp_path / "empty", labels(tmp_path / "whole"))


@each_set
def test_a_set_without_labels_of_its_own_needs_teachers(data_set: DataSet, tmp_path: Path) -> None:
    opened(data_set, tmp_path)
    needs = (tmp_path / "teacher_labels").is_dir()
    assert (open_sets(tmp_path, only=[data_set.name]) == []) == needs


@each_set
def test_each_frame_is_on_one_side(data_set: DataSet, tmp_path: Path) -> None:
    opened(data_set, tmp_path)
    (divided,), holdout = divide(open_sets(tmp_path, labels(tmp_path), only=[data_set.name]))
    assert not set(divided.train) & set(divided.held_out)
    held = {divided.opened.source.names[i] for i in divided.held_out}
    assert holdout.sets[data_set.name].names == held and holdout.sets[data_set.name].rule


@each_set
def test_its_check_finds_no_error_in_a_whole_folder(data_set: DataSet, tmp_path: Path) -> None:
    opened(data_set, tmp_path)
    if labels(tmp_path).teacher_labels is not None:
        pytest.skip("without teachers' labels there is nothing to check")
    reports = check(tmp_path)
    assert len(reports) == 1
    assert [finding for finding in reports[0].of_level("error") if "class numbers" not in finding.kind] == []


NEW_SET = """
from datasets.catalogue import DataSet
from datasets.labels import CAR, LabelRule
from datasets.readers.partial_boxes import PartialBoxes, PartialSet

MINE = PartialSet("mine", LabelRule(positive={"auto": CAR}, labelled_classes=(True, False, False)))
DATA_SET = DataSet(
    name="mine",
    folders=("extra/mine",),
    present=lambda folder: folder.is_dir(),
    open=lambda folder, labels: PartialBoxes(folder, MINE),
    weight=0.1,
    chosen_for=10,
    licence="made up for this test",
    classes=("Car",),
)
"""


@pytest.fixture
def new_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One more file in `datasets`, for the length of a test."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package/mine.py").write_text(NEW_SET)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path / "package")])
    data_sets.cache_clear()
    yield "mine"
    sys.modules.pop("datasets.mine", None)
    data_sets.cache_clear()


def test_one_file_is_all_that_a_new_set_takes(new_set: str, tmp_path: Path) -> None:
    """Training, the hold-out and the check find it; the sets before it keep their places."""
    from dataset_folders import kitti_object, partial_boxes

    pytest.importorskip("torch")
    from training.config import DataConfig
    from training.sets import find_sets

    kitti_object(tmp_path / "kitti/object")
    partial_boxes(tmp_path / "extra/mine", {"a_1": ["Auto 1 2 30 20"], "a_2": []})
    sets = find_sets(DataConfig(root=tmp_path))
    assert [(s.name, len(s.indices), s.weight) for s in sets.train] == [("kitti/object", 2, 0.2), (new_set, 2, 0.1)]
    assert sets.train[1].source[0].labelled_classes == (True, False, False)
    assert sets.holdout.sets[new_set].names == frozenset()
    (tmp_path / "extra/mine/image_2/a_2.jpg").write_bytes(b"cut")
    report = next(report for report in check(tmp_path) if report.root.name == "mine")
    assert [finding.kind for finding in report.of_level("error")] != []
