"""Labels by machine: the committee, verdicts, their quality against people, and the look that can go on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from datasets.formats import read
from datasets.formats.annotations import Problems
from datasets.labelling.looking import FILE, look_through
from datasets.labelling.pool import Pool
from datasets.labelling.writing import Reference, as_set, label_all, measure, write_set
from perception.classes import ClassInfo, classes_named
from perception.errors import UserError
from perception.labelling.committee import Committee, Member
from perception.labelling.quality import Quality, Truth, compare
from perception.labelling.verdict import Labels, VerdictConfig, decide, track
from perception.types import Detections

HW = (100, 200)


def found(*rows: tuple[float, ...]) -> Detections:
    """Detections of rows x1, y1, x2, y2, score, class id."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


def labels(*rows: tuple[float, ...], doubtful: tuple[int, ...] = ()) -> Labels:
    sure = np.array([i not in doubtful for i in range(len(rows))], bool)
    one = found(*rows)
    return Labels(one.boxes_xyxy, one.class_ids, one.scores.astype(float), np.zeros(len(rows), np.int64), sure)


def truth(*rows: tuple[float, ...], ignored: tuple[tuple[float, ...], ...] = ()) -> Truth:
    table, regions = np.array(rows, float).reshape(-1, 5), np.array(ignored, float).reshape(-1, 5)
    return Truth(table[:, :4], table[:, 4].astype(np.int64), regions[:, :4], regions[:, 4].astype(np.int64))


class Fake:
    """A network that finds the same in every image, and counts how often it looked."""

    provider = "none"

    def __init__(self, names: tuple[str, ...], detections: Detections) -> None:
        self.spec: Any = SimpleNamespace(class_names=names, class_infos=classes_named(names))
        self.detections, self.looks = detections, 0

    def __call__(self, image_bgr: np.ndarray) -> tuple[Detections, None]:
        self.looks += 1
        return self.detections, None


def member(names: tuple[str, ...], *rows: tuple[float, ...]) -> Member:
    return Member(Path("m.onnx"), Fake(names, found(*rows)), names)


# ---------------------------------------------------------------- committee


def test_a_network_counts_only_for_the_classes_that_it_knows() -> None:
    """Two see a car with 0.8 and 0.6: 0.7. One alone knows people: its 0.9 stays. A car of one of two counts half."""
    both = Committee(
        [
            member(("Car", "Pedestrian"), (10, 10, 50, 50, 0.8, 0), (100, 10, 120, 60, 0.9, 1)),
            member(("Car",), (10, 10, 50, 50, 0.6, 0), (150, 10, 190, 50, 0.5, 0), (0, 0, 9, 9, 0.04, 0)),
        ]
    )
    parts = both.look(np.zeros((*HW, 3), np.uint8))
    assert [len(part) for part in parts] == [2, 2]  # 0.04 is not kept
    fused = both.fuse(parts, HW)
    assert fused.scores.tolist() == pytest.approx([0.9, 0.7, 0.25])
    assert fused.class_ids.tolist() == [1, 0, 0]


def test_classes_are_numbered_over_all_networks() -> None:
    both = Committee([member(("Car",), (0, 0, 9, 9, 0.5, 0)), member(("Bus", "Car"), (20, 0, 30, 9, 0.5, 0))])
    assert both.class_names == ("Car", "Bus")
    assert [part.class_ids.tolist() for part in both.look(np.zeros((*HW, 3), np.uint8))] == [[0], [1]]


# ---------------------------------------------------------------- verdicts


def test_sure_doubtful_and_nothing() -> None:
    one = decide(
        found((0, 0, 20, 20, 0.4, 0), (50, 0, 70, 20, 0.39, 0), (90, 0, 110, 20, 0.1, 0), (180, 0, 230, 20, 0.9, 0)),
        HW,
    )
    assert one.confidences.tolist() == pytest.approx([0.9, 0.4, 0.39])
    assert one.sure.tolist() == [True, True, False]
    assert one.boxes_xyxy[0].tolist() == [180, 0, 200, 20]  # cut to the image


def test_one_object_gets_one_box() -> None:
    """A doubtful box on a sure one of its class goes; one of another class goes from an overlap of 0.7 on."""
    one = decide(
        found((0, 0, 20, 20, 0.9, 0), (0, 0, 20, 30, 0.3, 0), (0, 0, 20, 19, 0.3, 1), (0, 0, 20, 13, 0.3, 2)), HW
    )
    assert one.class_ids.tolist() == [0, 2]


def test_a_box_is_as_sure_as_its_track() -> None:
    """A car of 0.9 is hardly seen in one of twelve frames, and not at all in another: both are labels."""
    scores = [0.9] * 12
    scores[5], scores[8] = 0.2, 0.0
    frames = [
        (i * 100_000_000, found((10 + 2 * i, 20, 60 + 2 * i, 60, score, 0)) if score else found())
        for i, score in enumerate(scores)
    ]
    decided = [decide(one, HW, tracked) for (_, one), tracked in zip(frames, track(frames), strict=True)]
    assert [one.sure.tolist() for one in decided] == [[True]] * 12
    assert len({one.track_ids[0] for one in decided}) == 1 and decided[0].track_ids[0] > 0
    assert decided[8].boxes_xyxy[0] == pytest.approx([26, 20, 76, 60], abs=1)
    alone = [decide(one, HW) for _, one in frames]
    assert [len(one) for one in alone][8] == 0 and not alone[5].sure.any()


@pytest.mark.parametrize("values", [(0.0, 0.1), (1.5, 0.1), (0.5, 0.6), (0.5, 0.0)])
def test_thresholds_that_cannot_be_meant(values: tuple[float, float]) -> None:
    with pytest.raises(UserError):
        VerdictConfig(*values)


# ---------------------------------------------------------------- quality


def test_corrections_by_hand() -> None:
    """Six cars, 10 x 10: one fits, one is at IoU 0.6, one at 0.4, one is called a person, one doubtful, one missed.

    Of the six sure labels one more is on nothing, and one in a region that nobody judges.
    """
    mine = labels(
        (0, 0, 10, 10, 0.9, 0),
        (20, 0, 30, 6, 0.9, 0),
        (40, 0, 50, 4, 0.9, 0),
        (60, 0, 70, 10, 0.9, 1),
        (80, 0, 90, 10, 0.2, 0),
        (150, 0, 160, 10, 0.9, 0),
        (180, 0, 190, 10, 0.9, 0),
        doubtful=(4,),
    )
    cars = [(x, 0, x + 10, 10, 0) for x in (0, 20, 40, 60, 80, 100)]
    car, person = compare(mine, truth(*cars, ignored=((175, 0, 200, 20, -1),)), 2, (True, True))
    assert car == Quality(objects=6, right=2, wrong=2, in_doubt=1, add=2, move=2, rename=1, delete=1)
    assert person == Quality(wrong=1)
    both = car + person
    assert (both.precision, both.recall, both.corrections) == (2 / 5, 2 / 6, 6)
    assert both.saved == 0


def test_what_the_truth_does_not_label_is_not_judged() -> None:
    (car, person) = compare(labels((0, 0, 10, 10, 0.9, 0)), truth((50, 0, 60, 10, 1)), 2, (False, True))
    assert car == Quality() and person == Quality(objects=1, add=1)
    assert math.isnan(car.precision) and math.isnan(car.saved) and person.saved == 0


def test_an_object_is_found_once() -> None:
    twice = labels((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 9, 0.8, 0))
    assert compare(twice, truth((0, 0, 10, 10, 0)), 1, (True,)) == [Quality(objects=1, right=1, wrong=1, delete=1)]


# ---------------------------------------------------------------- frames, and the look


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(len(name)).integers(0, 255, (*HW, 3), np.uint8)
        path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return folder


def test_frames_of_folders(tmp_path: Path) -> None:
    """Folders are recordings, images in natural order; at 10 frames a second one of ten is kept a second."""
    folder = pictures(tmp_path / "in", "b/10.jpg", "b/9.jpg", "a/0.jpg")
    single = list(Pool((str(folder),), tmp_path).frames())
    assert [(one.name, one.drive, one.is_recorded, one.is_kept) for one in single] == [
        ("a/0", "a", False, True), ("b/9", "b", False, True), ("b/10", "b", False, True)
    ]  # fmt: skip
    recorded = list(Pool((str(folder),), tmp_path, rate_hz=10).frames())
    assert [(one.timestamp_ns, one.is_kept) for one in recorded] == [(0, True), (0, True), (100_000_000, False)]


def test_frames_of_two_places_keep_their_names_apart(tmp_path: Path) -> None:
    places = [str(pictures(tmp_path / name, "0.jpg")) for name in ("x", "y")]
    assert [one.name for one in Pool(tuple(places), tmp_path).frames()] == ["x/0", "y/0"]
    with pytest.raises(UserError, match="second frame"):
        list(Pool((places[0], places[0]), tmp_path).frames())


def test_a_look_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    folder, out = pictures(tmp_path / "in", "0.jpg", "1.jpg", "2.jpg"), tmp_path / "out"
    (folder / "broken.jpg").write_bytes(b"no image")
    pool, car = Pool((str(folder),), out), (10, 10, 50, 50, 0.8, 0)
    first = Committee([member(("Car",), car)])
    whole = look_through(pool, first, {"model": "a"}, out)
    assert (len(whole.seen), whole.unreadable, whole.before) == (3, ["broken"], 0)
    lines = (out / FILE).read_text().splitlines()
    (out / FILE).write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])  # killed while the third was written

    again = Committee([member(("Car",), car)])
    look = look_through(pool, again, {"model": "a"}, out)
    assert look.before == 2 and again.members[0].finder.looks == 1  # type: ignore[attr-defined]
    assert (out / FILE).read_text().splitlines() == lines
    for one, other in zip(look.seen, whole.seen, strict=True):
        assert one.frame == other.frame and one.hash.tolist() == other.hash.tolist()
        assert one.parts[0].boxes_xyxy.tolist() == other.parts[0].boxes_xyxy.tolist()
    with pytest.raises(UserError, match="other model"):
        look_through(pool, again, {"model": "b"}, out)
    strange = lines[1].replace(",0]", ",7]")  # a class that no network knows
    for content in ("{}\n3\n", "[]\n", '{"model": "a"}\n{"name": 3}\n', "\x00\n", f"{lines[0]}\n{strange}\n"):
        (out / FILE).write_text(content)
        with pytest.raises(UserError, match=r"not what this command writes|detections with other"):
            look_through(pool, again, {"model": "a"}, out)


@pytest.mark.parametrize("to", ["coco", "kitti", "yolo", "cvat", "label_studio", "voc"])
def test_doubtful_boxes_in_every_format(to: str, tmp_path: Path) -> None:
    """Regions to ignore where the format has them; else they are counted as missing, and are no labels."""
    folder, out = pictures(tmp_path / "in", "0.jpg"), tmp_path / "out"
    committee = Committee([member(("Car",), (10, 10, 50, 50, 0.8, 0), (100, 10, 120, 60, 0.2, 0))])
    look = look_through(Pool((str(folder),), out), committee, {}, out)
    mine = as_set(look.seen, label_all(look.seen, committee, VerdictConfig()), committee.class_names, out)
    missing = write_set(mine, out / to, to, "copy")
    (image,) = read(out / to, Problems(), to).images
    boxes = [(box.ignore, box.xyxy[0]) for box in image.boxes]
    without = to in ("yolo", "label_studio")
    assert boxes == [(False, 10), (True, 100)][: 1 if without else 2]
    assert missing["ignore regions"] == (1 if without else 0)
    with pytest.raises(UserError, match="there already"):
        write_set(mine, out / to, to, "copy")
    assert not list(out.glob(".*"))


def test_labels_against_people(tmp_path: Path) -> None:
    """COCO labels by people, under other names: the car is found, the van is a neighbour, the bus no class."""
    folder, out = pictures(tmp_path / "in", "0.jpg"), tmp_path / "out"
    committee = Committee([member(("Car",), (10, 10, 50, 50, 0.8, 0), (100, 10, 120, 60, 0.9, 0))])
    committee.classes = (ClassInfo("Car", labels=("auto",), neighbours=("van",)),)
    look = look_through(Pool((str(folder),), out), committee, {}, out)
    people = {
        "images": [{"id": 1, "file_name": "0.jpg", "width": 200, "height": 100}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": i, "bbox": box}
            for i, box in enumerate([[10, 10, 40, 40], [100, 10, 20, 50], [150, 10, 40, 40]], 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(("auto", "van", "bus"), 1)],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations/instances.json").write_text(json.dumps(people))
    reference = Reference(folder, committee.classes, Problems())
    total, frames = measure(look.seen, label_all(look.seen, committee, VerdictConfig()), reference)
    assert frames == 1 and total == [Quality(objects=1, right=1)]
    with pytest.raises(UserError, match="labels of"):
        Reference(folder, (ClassInfo("Tram"),), Problems())
