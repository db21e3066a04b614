"""Teacher labels: which rows become targets, which ignore regions, and how sure a target is."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.labels import ALL_CLASSES, CAR, CYCLIST, PEDESTRIAN
from datasets.readers.teacher_labels import (
    LARGEST_FILE,
    TeacherImages,
    TeacherLabelled,
    TeacherRows,
    rows_of,
    teacher_targets,
)
from datasets.sample import Sample
from perception.errors import UserError

SIZE = (100, 200)


def row(name: str, score: float, left: float = 10, share: float | None = None, occlusion: int = -1) -> str:
    """A box 20 px wide and 40 px high."""
    more = "" if share is None else f" {share}"
    return f"{name} 0 {occlusion} -10 {left} 20 {left + 20} 60 -1 -1 -1 -1000 -1000 -1000 -10 {score}{more}\n"


@pytest.mark.parametrize(
    ("name", "score", "share", "expected"),
    [
        ("Pedestrian", 0.50, None, "target"),
        ("Pedestrian", 0.49, None, "ignore"),
        ("Pedestrian", 0.19, None, "nothing"),
        ("Pedestrian", 0.40, 0.30, "target"),
        ("Pedestrian", 0.40, 0.29, "ignore"),
        ("Pedestrian", 0.70, 0.09, "nothing"),  # the mask says no
        ("Pedestrian", 0.70, -1, "ignore"),  # the mask does not know
        ("Cyclist", 0.50, None, "target"),
        ("Cyclist", 0.35, 0.30, "target"),
        ("Cyclist", 0.34, 0.90, "ignore"),
        ("Car", 0.50, None, "target"),
        ("Car", 0.40, 0.40, "target"),
        ("Car", 0.25, None, "ignore"),
        ("Car", 0.24, None, "nothing"),
        ("Motorcycle", 0.60, None, "ignore"),
        ("DontCare", 1.0, None, "ignore"),
    ],
)
def test_score_and_mask_decide(name: str, score: float, share: float | None, expected: str) -> None:
    found = teacher_targets(row(name, score, share=share), SIZE)
    counts = (len(found.class_ids), len(found.ignore_class_ids))
    assert counts == {"target": (1, 0), "ignore": (0, 1), "nothing": (0, 0)}[expected]


def test_a_target_is_as_sure_as_its_score() -> None:
    found = teacher_targets(row("Car", 0.56) + row("Car", 0.7, left=60) + row("Car", 0.9, left=110), SIZE)
    assert found.confidences.tolist() == pytest.approx([0.8, 1, 1])
    assert found.class_ids.tolist() == [CAR] * 3


def test_regions_ignore_the_classes_they_are_about() -> None:
    rows = row("DontCare", 1) + row("Rider", 1) + row("Person_sitting", 1) + row("Pedestrian", 1, occlusion=2)
    found = teacher_targets(rows, SIZE)
    assert found.ignore_class_ids.tolist() == [ALL_CLASSES, PEDESTRIAN, CYCLIST, PEDESTRIAN, PEDESTRIAN]
    assert len(found.class_ids) == 0


def test_a_rider_is_no_pedestrian() -> None:
    found = teacher_targets(
        row("Cyclist", 0.6) + row("Pedestrian", 0.6, left=12) + row("Pedestrian", 0.6, left=90), SIZE
    )
    assert found.class_ids.tolist() == [CYCLIST, PEDESTRIAN]
    assert found.boxes_xyxy[1].tolist() == [90, 20, 110, 60]


def test_boxes_are_cut_to_the_image_and_outside_ones_dropped() -> None:
    found = teacher_targets(row("Car", 0.6, left=190) + row("Car", 0.6, left=300), SIZE)
    assert found.boxes_xyxy.tolist() == [[190, 20, 200, 60]]


@given(
    st.lists(st.tuples(st.sampled_from(["Car", "Pedestrian", "Cyclist", "Motorcycle"]), st.floats(0, 1)), max_size=8)
)
def test_no_row_is_both_target_and_ignored(rows: list[tuple[str, float]]) -> None:
    found = teacher_targets(
        "".join(row(name, score, left=20 * i) for i, (name, score) in enumerate(rows)), (100, 400)
    )
    assert not {tuple(b) for b in found.boxes_xyxy.tolist()} & {tuple(b) for b in found.ignore_boxes_xyxy.tolist()}
    assert ((found.confidences > 0) & (found.confidences <= 1)).all()


@pytest.mark.parametrize("text", [row("Car", 0.6)[:-1] + " much\n", "Car 0\n", row("Cow", 0.6)])
def test_a_bad_row_is_named(text: str) -> None:
    with pytest.raises(UserError, match=r"a\.txt"):
        teacher_targets(text, SIZE, "a.txt")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Folder with images a and b, and rows of a alone."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels/street").mkdir(parents=True)
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), np.zeros((*SIZE, 3), np.uint8))
    (tmp_path / "labels/street/a.txt").write_text(row("Car", 0.6) + row("Pedestrian", 0.3, left=60))
    with zipfile.ZipFile(tmp_path / "labels.zip", "w") as archive:
        archive.write(tmp_path / "labels/street/a.txt", "street/a.txt")
    return tmp_path


def test_a_folder_and_its_archive_hold_the_same(stored: Path) -> None:
    folder, archive = (TeacherRows(stored / name, "street") for name in ("labels", "labels.zip"))
    assert folder.stems == archive.stems == {"a"}
    first, second = folder.targets("a", SIZE), archive.targets("a", SIZE)
    assert first.boxes_xyxy.tolist() == second.boxes_xyxy.tolist() == [[10, 20, 30, 60]]
    assert first.ignore_class_ids.tolist() == second.ignore_class_ids.tolist() == [PEDESTRIAN]


def test_an_archive_cannot_fill_the_memory(stored: Path) -> None:
    with zipfile.ZipFile(stored / "large.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("street/a.txt", " " * (LARGEST_FILE + 1))
    with pytest.raises(UserError, match="at most"):
        TeacherRows(stored / "large.zip", "street").targets("a", SIZE)


@pytest.mark.parametrize("name", ["labels", "labels.zip"])
def test_a_set_without_rows_is_none(stored: Path, name: str) -> None:
    assert rows_of(stored / name, "motorway") is None and rows_of(None, "street") is None
    found = rows_of(stored / name, "street")
    assert found is not None and found.stems == {"a"}
    with pytest.raises(UserError, match="no such labels"):
        rows_of(stored / "nowhere", "street")
    (stored / "text.zip").write_text("no archive")
    with pytest.raises(UserError, match="not a zip"):
        TeacherRows(stored / "text.zip", "street")


def test_images_without_rows_are_left_out(stored: Path) -> None:
    images = TeacherImages(stored / "images", TeacherRows(stored / "labels", "street"))
    assert images.names == ["a"]
    sample = images[0]
    assert sample.class_ids is not None and sample.class_ids.tolist() == [CAR]
    assert sample.confidences is not None and sample.confidences.tolist() == pytest.approx([0.6 / 0.7])
    assert sample.labelled_classes == (True, True, True) and sample.road is None
    assert [path.name for path in images.files(0)] == ["a.png", "a.txt"]


class Drawn:
    """One image with a car where the teacher sees it too."""

    names = ("a",)

    def __len__(self) -> int:
        return 1

    def drive(self, i: int) -> str:
        return ""

    def files(self, i: int) -> list[Path]:
        return []

    def __getitem__(self, i: int) -> Sample:
        return Sample(
            np.zeros((*SIZE, 3), np.uint8),
            "a",
            boxes_xyxy=np.array([[11, 20, 31, 60]], np.float32),
            class_ids=np.array([CAR]),
            ignore_boxes_xyxy=np.zeros((0, 4), np.float32),
            ignore_class_ids=np.zeros(0, np.int64),
        )


@pytest.mark.parametrize("drawn", [True, False])
def test_what_no_label_explains_is_ignored_or_learnt(stored: Path, drawn: bool) -> None:
    (stored / "labels/street/a.txt").write_text(row("Car", 0.6) + row("Car", 0.7, left=100) + row("Pedestrian", 0.3))
    sample = TeacherLabelled(Drawn(), TeacherRows(stored / "labels", "street"), drawn)[0]
    assert sample.boxes_xyxy is not None and sample.ignore_boxes_xyxy is not None and sample.confidences is not None
    assert sample.boxes_xyxy[:, 0].tolist() == ([11] if drawn else [11, 100])
    assert sample.ignore_boxes_xyxy[:, 0].tolist() == ([100, 10] if drawn else [10])
    assert sample.confidences.tolist() == ([1] if drawn else [1, 1])
