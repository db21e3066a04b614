"""Maps of what a network looks at, with a network that looks at one square, and checks that can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.cameras.letterbox import Letterbox
from perception.formats.kitti import parse_objects
from perception.model import ModelSpec
from perception.reports.explain import (
    Explained,
    explain_report,
    explain_text,
    load_explained,
    painted,
    save_explained,
)
from perception.trust.explain import (
    Checks,
    Target,
    area_under,
    check,
    curves,
    evidence_shares,
    make_masks,
    points_at,
    rank_correlation,
    saliency,
    shares_of_curve,
)
from perception.trust.explain_targets import Case, cases_of_frame, worst
from perception.types import CLASS_NAMES, Detections, RoadMask

HW = (96, 320)
BOX = np.array([200.0, 32, 240, 64])
TARGET = Target("found", 0, BOX, 1.0)


class SquareLooker:
    """Scores its box by the brightness of it, and calls what is bright road."""

    spec = ModelSpec(CLASS_NAMES, HW)
    batch = 4

    def run(self, images: list[np.ndarray]) -> list[tuple[Detections, RoadMask]]:
        return [self(image) for image in images]

    def __call__(self, image: np.ndarray) -> tuple[Detections, RoadMask]:
        score = float(image[32:64, 200:240].mean()) / 255
        found = Detections(BOX[None].astype(np.float32), np.array([score], np.float32), np.zeros(1, np.int64))
        return found, RoadMask(image[..., 0].copy(), Letterbox(HW, HW, (1.0, 1.0), (0, 0), HW))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    out = np.random.default_rng(0).integers(0, 60, (*HW, 3)).astype(np.uint8)
    out[32:64, 200:240] = 255
    out[70:90, 20:60] = 255
    return out


def test_strength_is_overlap_times_score(image: np.ndarray) -> None:
    half = Target("missed", 0, np.array([200.0, 32, 240, 48]), 0.0)
    found, road = SquareLooker()(image)
    assert TARGET.strength(found, road) == pytest.approx(1.0) and half.strength(found, road) == pytest.approx(0.5)
    assert Target("found", 1, BOX, 1.0).strength(found, road) == 0
    assert Target("road", -1, np.array([30.0, 80, 30, 80]), 0.0).strength(found, road) == 1


def test_the_map_peaks_where_the_network_looks(image: np.ndarray) -> None:
    pytest.importorskip("xaitk_saliency", reason="pip install -e '.[explain]'")
    looker: object = SquareLooker()
    masks = make_masks(HW, 200, 32, seed=1)
    assert masks.shape == (200, 24, 80) and masks.min() >= 0 and masks.max() <= 1
    road = Target("road", -1, np.array([40.0, 80, 40, 80]), 0.0)
    box_map, road_map = saliency(looker, image, [TARGET, road], masks)  # type: ignore[arg-type]
    assert points_at(box_map, TARGET, HW) and points_at(road_map, road, HW)
    assert (box_map == saliency(looker, image, [TARGET], masks)[0]).all()  # type: ignore[arg-type]
    shares = evidence_shares(box_map, BOX, HW)
    assert shares is not None and max(shares, key=shares.get) == "inside"  # type: ignore[arg-type]
    assert sum(shares.values()) == pytest.approx(1)
    noise = np.random.default_rng(2).random(box_map.shape).astype(np.float32)
    good, bad = (check(looker, image, TARGET, one, one) for one in (box_map, noise))  # type: ignore[arg-type]
    assert good.deletion < bad.deletion and good.insertion > bad.insertion
    assert good.shuffled == pytest.approx(1) and good.meaningless, "a map that stays is refused"
    assert not check(looker, image, TARGET, box_map, noise).meaningless  # type: ignore[arg-type]


def test_curves_begin_and_end_where_they_must(image: np.ndarray) -> None:
    perfect = np.zeros((24, 80), np.float32)
    perfect[8:16, 50:60] = 1
    deletion, insertion = curves(SquareLooker(), image, TARGET, perfect)  # type: ignore[arg-type]
    assert deletion[0] == pytest.approx(1) and deletion[-1] == pytest.approx(insertion[0])
    assert insertion[-1] == pytest.approx(1) and deletion[4] < 0.8 < insertion[4]
    assert area_under(np.ones(len(shares_of_curve()))) == pytest.approx(1)


def test_evidence_below_the_box_is_told_apart() -> None:
    one = np.zeros((24, 80), np.float32)
    one[17:20, 52:58] = 1  # rows 68 to 80: under the box, whose lower edge is at 64
    shares = evidence_shares(one, BOX, HW)
    assert shares == {"inside": 0, "below": 1, "above": 0, "beside": 0}
    assert evidence_shares(np.zeros((24, 80), np.float32), BOX, HW) is None
    assert rank_correlation(one, np.zeros_like(one)) == 0


def test_cases_by_kind_and_the_worst_of_each() -> None:
    row = "{} 0 {} 0 {} {} {} {} 1 1 1 0 0 0 0\n"
    labels = parse_objects(
        row.format("Car", 0, 0, 0, 60, 40)  # found
        + row.format("Pedestrian", 0, 100, 0, 120, 60)  # missed
        + row.format("Pedestrian", 2, 130, 0, 150, 80)  # largely hidden
        + row.format("Van", 0, 200, 0, 260, 40)
        + "DontCare -1 -1 -10 400 0 500 60 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    boxes = [[0, 0, 60, 40], [200, 0, 260, 40], [300, 0, 340, 40], [410, 0, 450, 50], [600, 0, 610, 20]]
    found = Detections(
        np.array(boxes, np.float32), np.linspace(0.9, 0.5, 5).astype(np.float32), np.zeros(5, np.int64)
    )
    cases = cases_of_frame("a", Path("a.png"), labels, found, CLASS_NAMES, 0.3)
    assert [(case.target.kind, case.target.class_id) for case in cases] == [("found", 0), ("false", 0), ("missed", 1)]
    assert cases[1].target.box_xyxy.tolist() == [300, 0, 340, 40], "a van, DontCare and small boxes are no inventions"
    assert [case.target.kind for case in worst(cases * 3, 1)] == ["missed", "false", "found"]


def test_maps_are_kept_for_the_next_run(tmp_path: Path, image: np.ndarray) -> None:
    import cv2

    path = tmp_path / "a.png"
    cv2.imwrite(str(path), image)
    case = Case("a", path, TARGET, 1.0)
    one = Explained(case, np.eye(24, 80, dtype=np.float32), Checks(0.1, 0.9, True, float("nan")))
    save_explained(tmp_path / "maps", "key", [one])
    kept = load_explained(tmp_path / "maps", "key", [case])
    assert kept is not None and (kept[0].found_map == one.found_map).all() and kept[0].checks.pointing is True
    assert load_explained(tmp_path / "maps", "other key", [case]) is None
    assert painted(one).shape == image.shape


def test_an_empty_map_is_not_checked(tmp_path: Path, image: np.ndarray) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), image)
    checks = Checks(0.0, 0.0, False, 0.0)
    empty = Explained(Case("a", tmp_path / "a.png", TARGET, 1.0), np.zeros((24, 80), np.float32), checks)
    seen = Explained(Case("b", tmp_path / "a.png", TARGET, 1.0), np.eye(24, 80, dtype=np.float32), checks)
    report = explain_report([empty, seen], CLASS_NAMES, {})
    assert report.cards[0].value == "0 of 1", "the empty map points nowhere, and is not counted"
    rows = explain_text([empty, seen], CLASS_NAMES).splitlines()[1:3]
    assert rows[0].endswith("nothing there to explain") and rows[1].endswith("no     +0.00")
