"""Miss rates by stratum: who counts, what matching removes, and what is said of few people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.errors import UserError
from perception.formats.kitti import parse_objects
from perception.trust.fairness import (
    Gap,
    Person,
    assigned,
    compare_strata,
    people_of_frame,
    read_attributes,
    with_attributes,
)

LABEL = "{} {} {} 0 {} {} {} {} 1 1 1 {} 1 {} 0\n"
RESULT = "{} -1 -1 0 {} {} {} {} 1 1 1 0 0 0 0 {}\n"


def test_who_counts_and_who_is_found() -> None:
    labels = parse_objects(
        LABEL.format("Pedestrian", 0, 0, 100, 50, 130, 130, 3, 4)  # found, as a cyclist
        + LABEL.format("Cyclist", 0.2, 1, 200, 50, 260, 110, 0, 30)  # only a weak box
        + LABEL.format("Person_sitting", 0, 3, 300, 50, 320, 70, 0, 9)  # 20 px
        + LABEL.format("Car", 0, 0, 0, 0, 50, 50, 0, 9)
    )
    results = parse_objects(
        RESULT.format("Cyclist", 100, 50, 130, 130, 0.9)
        + RESULT.format("Cyclist", 200, 50, 260, 110, 0.1)
        + RESULT.format("Car", 200, 50, 260, 110, 0.9),
        scores=True,
    )
    grey = np.full((150, 400, 3), 80, np.uint8)
    grey[50:130, 100:130] = 120  # (120 − 80) / 200
    walking, riding = people_of_frame("000000", labels, results, 0.3, grey)
    assert (walking.found, riding.found) == (True, False)
    assert walking.values == {
        "pose": "walking", "height": "50–100 px", "occlusion": "visible", "truncation": "whole",
        "distance": "to 10 m", "light": "middle (60–110)", "contrast": "high (from 0.2)",
    }  # fmt: skip
    assert riding.values["distance"] == "20–40 m" and riding.values["occlusion"] == "partly hidden"
    assert riding.values["truncation"] == "to 30 %" and riding.values["contrast"] == "low (to 0.05)"


def test_one_box_finds_one_person() -> None:
    assert assigned(np.array([[0.6], [0.8]])).tolist() == [False, True]
    assert assigned(np.array([[0.9, 0.6], [0.8, 0.1]])).tolist() == [True, False]
    assert assigned(np.zeros((2, 0))).tolist() == [False, False]


def crowd(rates: dict[tuple[str, str], tuple[int, float]], drives: int = 20, seed: int = 0) -> list[Person]:
    """People by (age, height): their number and miss rate."""
    rng = np.random.default_rng(seed)
    people = []
    for (age, height), (count, rate) in rates.items():
        for i in range(count):
            values = {"age": age, "height": height, "occlusion": "visible"}
            people.append(Person(f"{rng.integers(drives):06d}", i, bool(rng.uniform() >= rate), values))
    return people


def gap_of(people: list[Person], attribute: str, value: str) -> Gap:
    found = compare_strata(people, {}, resamples=400)
    return next(gap for gap in found.gaps if (gap.stratum.attribute, gap.stratum.value) == (attribute, value))


def test_children_who_are_missed_20_points_more_often_are_shown() -> None:
    people = crowd({("adult", "50–100 px"): (600, 0.2), ("child", "50–100 px"): (300, 0.4)}, drives=40, seed=1)
    gap = gap_of(people, "age", "child")
    assert gap.verdict == "more" and gap.matched is not None
    assert gap.matched.low < 20 < gap.matched.high and gap.matched.difference == pytest.approx(20, abs=7)


def test_a_gap_that_height_explains_goes_with_matching() -> None:
    people = crowd(
        {
            ("adult", "25–50 px"): (100, 0.6),
            ("adult", "from 100 px"): (500, 0.1),
            ("child", "25–50 px"): (250, 0.6),
            ("child", "from 100 px"): (50, 0.1),
        }
    )
    gap = gap_of(people, "age", "child")
    assert gap.raw.low > 15, "small people are missed, and children are small"
    assert gap.matched is not None and gap.matched.low < 0 < gap.matched.high and gap.verdict == "not shown"


def test_rates_and_gaps_are_those_of_fairlearn() -> None:
    metrics = pytest.importorskip("fairlearn.metrics", reason="needs fairlearn (pip install -e '.[dev]')")
    people = crowd({
        ("adult", "25–50 px"): (80, 0.6), ("adult", "from 100 px"): (300, 0.1),
        ("child", "25–50 px"): (150, 0.7), ("child", "from 100 px"): (40, 0.2),
    })  # fmt: skip
    missed = [not person.found for person in people]
    frame = metrics.MetricFrame(
        metrics={"people": metrics.count, "rate": metrics.mean_prediction},
        y_true=missed,
        y_pred=missed,
        sensitive_features={"age": [person.values["age"] for person in people]},
        control_features={"height": [person.values["height"] for person in people]},
    )
    children, adults = (frame.by_group.xs(age, level="age") for age in ("child", "adult"))
    rates = [float((part["rate"] * part["people"]).sum() / part["people"].sum()) for part in (children, adults)]
    gap = gap_of(people, "age", "child")
    assert gap.stratum.people == children["people"].sum() and gap.stratum.miss_rate == pytest.approx(rates[0])
    assert gap.raw.difference == pytest.approx(100 * (rates[0] - rates[1]))
    # matched: fairlearn's difference within each height, weighted by the children there
    within = ((children["rate"] - adults["rate"]) * children["people"]).sum() / children["people"].sum()
    assert gap.matched is not None and gap.matched.difference == pytest.approx(100 * float(within))


def test_too_few_people_or_drives_are_said_plainly() -> None:
    few = crowd({("adult", "50–100 px"): (200, 0.2), ("child", "50–100 px"): (9, 0.9)})
    assert gap_of(few, "age", "child").verdict == "too few"
    one_drive = crowd({("adult", "50–100 px"): (200, 0.2), ("child", "50–100 px"): (50, 0.9)}, drives=2)
    assert gap_of(one_drive, "age", "child").verdict == "too few"
    apart = crowd({("adult", "50–100 px"): (200, 0.2), ("child", "25–50 px"): (50, 0.9)})
    gap = gap_of(apart, "age", "child")
    assert gap.matched is None and gap.verdict == "too few", "nobody of the same height to compare with"


def test_attributes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("frame,object,attribute,value\n000001,2,age,child\n000001,2,skin,dark\n000009,0,age,adult\n")
    people, unused = with_attributes([Person("000001", 2, True, {"pose": "walking"})], read_attributes(path))
    assert people[0].values == {"pose": "walking", "age": "child", "skin": "dark"} and unused == 1
    for text, where in (
        ("frame,object\n", ":1:"),
        ("frame,object,attribute,value\n000001,x,age,child\n", ":2:"),
        ("frame,object,attribute,value\n000001,1,age\n", ":2:"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=where):
            read_attributes(path)
