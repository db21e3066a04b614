"""Reports: one page without network or script, the same numbers in JSON and CSV, and text that stays text."""

from __future__ import annotations

import csv
import functools
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from evaluation_scenes import Page, boxes_at, boxes_set, detections, labels, object_set, road_set, tracking_set
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import UserError
from perception.evaluation.object import ObjectEvaluator, match_objects
from perception.evaluation.object3d import METRICS
from perception.evaluation.results import LEVELS
from perception.reports.compare_page import comparison_report
from perception.reports.draw import draw
from perception.reports.images import load_image, with_images
from perception.reports.object import object_report
from perception.reports.object3d import plan_boxes
from perception.reports.object_analysis import (
    calibration_of,
    confusion,
    frame_errors,
    full_curve,
    operating_point,
    split_scores,
    wilson,
)
from perception.reports.page import render_page
from perception.reports.plots import (
    Axis,
    Histogram,
    Interval,
    IntervalBars,
    LinePlot,
    PlanBox,
    PlanView,
    Plot,
    Series,
    Span,
    Timeline,
    TimelineRow,
    thin,
    tick_label,
)
from perception.reports.report import Card, Column, Paragraph, Report, Section, Table
from perception.reports.road import histogram_calibration, road_report
from perception.reports.tracking import tracking_report
from perception.reports.tracking_frames import frame_faults, timeline_rows
from perception.reports.write import render_csv, write_report

# ---------------------------------------------------------------- every page


@pytest.fixture(scope="module")
def all_reports() -> dict[str, Report]:
    return {
        "object": object_report(object_set(), facts={"results": "runs/a"}),
        "road": road_report(road_set()),
        "tracking": tracking_report(tracking_set(missed=5)),
        "boxes": object_report(boxes_set()),
    }


@pytest.fixture(scope="module")
def all_pages(all_reports: dict[str, Report]) -> dict[str, str]:
    return {task: render_page(report) for task, report in all_reports.items()}


@pytest.mark.parametrize("task", ["object", "road", "tracking", "boxes"])
def test_page_is_whole_and_self_contained(all_pages: dict[str, str], task: str) -> None:
    html = all_pages[task]
    page = Page(html)
    assert page.faults == []
    assert "://" not in html  # no address at all, so none on the network
    assert page.named("script") == [] and page.named("link") == [] and page.named("iframe") == []
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    policy = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for attributes in [*page.named("img"), *page.named("image")]:
        source = attributes.get("src") or attributes.get("href") or ""
        assert source.startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("task", ["object", "road", "tracking", "boxes"])
def test_page_can_be_read_without_eyes(all_pages: dict[str, str], task: str) -> None:
    page = Page(all_pages[task])
    assert all(attributes.get("alt") for attributes in page.named("img"))
    drawings = page.named("svg")
    assert drawings and all(one.get("role") == "img" and one.get("aria-label") for one in drawings)
    assert all(heading.get("scope") in ("col", "row") for heading in page.named("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        if str(attributes.get("href", "")).startswith("#"):
            assert str(attributes["href"])[1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids


@pytest.mark.parametrize("task", ["object", "road", "tracking"])
def test_csv_holds_what_json_holds(all_reports: dict[str, Report], task: str, tmp_path: Path) -> None:
    write_report(all_reports[task], tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["task"] == task and content["tables"]
    for key, records in content["tables"].items():
        with (tmp_path / "tables" / f"{key}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(records)
        for row, record in zip(rows, records, strict=True):
            for column, value in record.items():
                shown = row[column]
                assert shown == "" if value is None else shown == str(value) or float(shown) == value


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(object_report(object_set()), tmp_path / name)
    for path in sorted((tmp_path / "a").rglob("*.*")):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        if path.suffix != ".npz":  # a zip archive holds the time
            assert path.read_bytes() == other.read_bytes(), path.name
    assert not list(tmp_path.rglob(".*.part"))


def test_a_folder_that_cannot_be_written_is_a_sentence(all_reports: dict[str, Report], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(all_reports["road"], tmp_path / "file")


def test_empty_sets_still_give_a_page(tmp_path: Path) -> None:
    evaluator = ObjectEvaluator()
    evaluator.process("000000", labels(["Car"], [0]), detections([], [], []))
    page = Page(write_report(object_report(evaluator.evaluate()), tmp_path).read_text())
    assert page.faults == []
    assert any("never detected" in words for words in page.texts)


# ---------------------------------------------------------------- text from files stays text

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


def test_names_from_files_cannot_become_markup(tmp_path: Path) -> None:
    evaluator = ObjectEvaluator()
    for i in range(3):
        evaluator.process(f"{EVIL}{i}", labels(["Car", EVIL], [0, 1]), detections(["Car"], [5], [0.9]))
    evaluation = replace(evaluator.evaluate(), warnings=(f"class {EVIL}",))
    path = write_report(object_report(evaluation, facts={EVIL: EVIL}), tmp_path)
    page = Page(path.read_text())
    assert page.faults == []
    assert page.named("script") == [] and not any("onerror" in attributes for _, attributes in page.tags)
    assert any(EVIL in words for words in page.texts)  # it is shown, as text
    assert json.loads((tmp_path / "report.json").read_text())["facts"][EVIL] == EVIL


def shown_as(value: str) -> str:
    """A text on a page: control characters have no place in HTML."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "\ufffd", value)


def test_file_names_that_are_not_utf8_do_not_stop_a_report(tmp_path: Path) -> None:
    """Such names reach Python as lone surrogates, which no encoding holds."""
    evaluator = ObjectEvaluator()
    evaluator.process("frame\udcff", labels(["Car"], [0]), detections(["Car"], [5], [0.9]))
    path = write_report(object_report(evaluator.evaluate(), facts={"results": "a\udcff"}), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["facts"]["results"] == "a?"
    assert any("frame\ufffd" in words for words in Page(path.read_text()).texts)


@given(st.text())
@settings(max_examples=40)
def test_any_text_survives_as_text(value: str) -> None:
    table = Table("t", value, (Column("a", value, note="x" + value),), ((value,),))
    section = Section("s", value, (table, Paragraph(value)))
    page = Page(render_page(Report("object", value, {value: value}, (Card(value, value),), (section,), (value,))))
    assert page.faults == [] and [name for name, _ in page.tags] == tags_without_texts()
    assert [one["title"] for one in page.named("th") if "title" in one] == [shown_as("x" + value)]
    assert sum(shown_as(value) in text for text in page.texts) >= 9 or not value.strip()


@functools.cache
def tags_without_texts() -> list[str]:
    """Elements of the same page without its texts."""
    table = Table("t", "", (Column("a", "", note="x"),), (("",),))
    section = Section("s", "", (table, Paragraph("")))
    page = Page(render_page(Report("object", "", {"": ""}, (Card("", ""),), (section,), ("",))))
    return [name for name, _ in page.tags]


@given(st.text(min_size=1))
@settings(max_examples=40)
def test_any_text_survives_in_a_plot(value: str) -> None:
    line = Series(value, [(0.0, 0.0), (1.0, 1.0)], mark=(0.5, 0.5), mark_label=value)
    plots: list[Plot] = [
        LinePlot(value, value, (line,), Axis(value), Axis(value)),
        IntervalBars(value, value, (Interval(value, 0.5, 0.4, 0.6, value),), Axis(value)),
        Timeline(value, value, (TimelineRow(value, (Span(0, 5, "s0", value),), (3,)),), 10),
    ]
    for plot in plots:
        page = Page(draw(plot))
        assert page.faults == []
        drawn = {name for name, _ in page.tags}
        assert drawn <= {"svg", "title", "desc", "g", "path", "text", "use", "defs", "clippath", "rect"}
        assert page.named("svg")[0]["aria-label"] == f"{shown_as(value)}. {shown_as(value)}"


def test_csv_text_is_no_formula() -> None:
    table = Table(
        "t", "T", (Column("name", "Name"), Column("n", "N", ".2f")), (("=1+1", -2.5), ("plain", float("nan")))
    )
    assert render_csv(table) == "name,n\n'=1+1,-2.5\nplain,\n"


def test_two_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    table = Table("t", "T", (Column("a", "A"),), ())
    report = Report("object", "x", {}, (), (Section("s", "S", (table, table)),))
    with pytest.raises(ValueError, match="share a key"):
        write_report(report, tmp_path)


# ---------------------------------------------------------------- object numbers


def test_object_json_equals_the_evaluator(tmp_path: Path) -> None:
    evaluation = object_set()
    write_report(object_report(evaluation), tmp_path)
    tables = json.loads((tmp_path / "report.json").read_text())["tables"]
    for row in tables["scores"]:
        for level in LEVELS:
            score = evaluation.scores[row["class"], level]
            ap, aos = (score.ap_r40, score.ap_r11), (score.aos_r40, score.aos_r11)
            assert (row[f"r40_{level}"], row[f"r11_{level}"]) == (ap if row["measure"] == "AP" else aos)
    for row in tables["precision_recall"]:
        score = evaluation.scores[row["class"], row["level"]]
        assert row["precision"] == score.precision41[round(row["recall"] * 40)]
    assert len(tables["precision_recall"]) == 3 * 3 * 41


def test_operating_point_by_hand() -> None:
    # frames of one car each: found at 0.9, found at 0.6 beside a false alarm of 0.5, missed
    evaluator = ObjectEvaluator()
    evaluator.process("0", labels(["Car"], [0]), detections(["Car"], [0], [0.9]))
    evaluator.process("1", labels(["Car"], [0]), detections(["Car", "Car"], [0, 3], [0.6, 0.5]))
    evaluator.process("2", labels(["Car"], [0]), detections([], [], []))
    curve = evaluator.evaluate().curves["Car", "moderate"]
    best = operating_point(curve)
    assert (best.threshold, best.tp, best.fp, best.fn) == (0.6, 2, 0, 1)
    assert (best.precision, best.recall, best.f1) == pytest.approx((1.0, 2 / 3, 0.8))
    low = operating_point(curve, 0.2)
    assert (low.threshold, low.tp, low.fp, low.fn) == (0.2, 2, 1, 1)
    high = operating_point(curve, 0.95)
    assert (high.tp, high.fp, high.fn) == (0, 0, 3) and np.isnan(high.precision)


@pytest.mark.parametrize("threshold", [None, 0.3, 0.55, 0.8])
def test_operating_point_agrees_with_the_matching(threshold: float | None) -> None:
    evaluation = object_set()
    point = operating_point(evaluation.curves["Car", "moderate"], threshold)
    matches = match_objects(evaluation.gt, evaluation.detections, "Car", "moderate", point.threshold)
    assert (point.tp, point.fp, point.fn) == (matches.is_tp.sum(), matches.is_fp.sum(), matches.is_fn.sum())


def test_full_curve_ends_with_everything() -> None:
    evaluation = object_set()
    full = full_curve(evaluation.curves["Car", "moderate"])
    assert (np.diff(full.thresholds) < 0).all()
    assert full.tp[-1] + full.fn[-1] == evaluation.scores["Car", "moderate"].n_gt
    assert full.tp[-1] + full.fp[-1] == evaluation.detections.is_class("Car").sum()


def test_splits_count_every_judged_label_once() -> None:
    evaluator = ObjectEvaluator()
    location = np.array([[0, 0, 10.0], [0, 0, 20.0], [0, 0, 50.0]])
    columns = {"location_cam2": location, "occlusion": np.array([0, 1, 2]), "truncation": np.array([0.0, 0.2, 0.4])}
    evaluator.process("0", labels(["Car"] * 3, [0, 1, 2], **columns), detections(["Car"] * 2, [0, 2], [0.9, 0.8]))
    evaluation = evaluator.evaluate()
    rows = split_scores(evaluation, operating_point(evaluation.curves["Car", "moderate"], 0.5))
    found = {(row.quantity, row.label): (row.found, row.missed) for row in rows}
    assert found["distance", "0–15 m"] == (1, 0)
    assert found["distance", "15–30 m"] == (0, 1)
    assert found["distance", "45 m and more"] == (1, 0)
    assert found["occlusion", "2 largely"] == (1, 0)
    assert found["truncation", "0.15–0.30"] == (0, 1)
    assert found["height", "60–100 px"] == (2, 1)
    for quantity in ("distance", "height", "occlusion", "truncation"):
        assert sum(sum(counts) for (by, _), counts in found.items() if by == quantity) == 3
    height = next(row for row in rows if (row.quantity, row.label) == ("height", "60–100 px"))
    assert height.precision == 1.0 and height.mean_iou == pytest.approx(1.0)


def test_confusion_by_hand() -> None:
    evaluator = ObjectEvaluator()
    truth = ["Car", "Cyclist", "Van", "Pedestrian", "Cyclist", "DontCare"]
    gt = labels(truth, [0, 1, 2, 3, 4, 6])
    # the cyclist at 1 is taken for a pedestrian, the van for a car, the last cyclist is missed; one alarm at 8,
    # one in the region at 6, one too weak at 9
    found = ["Car", "Pedestrian", "Car", "Pedestrian", "Car", "Car", "Car"]
    evaluator.process("0", gt, detections(found, [0, 1, 2, 3, 8, 6, 9], [0.9] * 6 + [0.1]))
    table = confusion(evaluator.evaluate(), {"Car": 0.5, "Pedestrian": 0.5, "Cyclist": float("nan")})
    cell = {
        (truth, found): int(table.counts[i, j])
        for i, truth in enumerate(table.truths)
        for j, found in enumerate(table.found_as)
        if table.counts[i, j]
    }
    assert cell == {
        ("Car", "Car"): 1,
        ("Cyclist", "Pedestrian"): 1,
        ("Van", "Car"): 1,
        ("Pedestrian", "Pedestrian"): 1,
        ("Cyclist", "missed"): 1,
        ("nothing", "Car"): 1,
    }


def test_calibration_by_hand() -> None:
    # two of 0.9 of which one is right, two of 0.2 of which none is: |0.5 − 0.9|/2 + |0 − 0.2|/2 = 0.3
    found = calibration_of(np.array([0.9, 0.9, 0.2, 0.2]), np.array([True, False, False, False]))
    assert found.error == pytest.approx(0.3)
    assert found.true.sum() == 1 and found.false.sum() == 3
    assert calibration_of(np.array([1.0, 1.0]), np.array([True, True])).error == 0.0


def test_scores_that_are_no_probabilities_get_no_error() -> None:
    found = calibration_of(np.array([-2.0, 3.5]), np.array([False, True]))
    assert np.isnan(found.error) and not found.is_probability
    assert found.edges[0] == -2.0 and found.edges[-1] == 3.5


def test_wilson_interval() -> None:
    low, high = wilson(5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Wilson 1927, textbook value
    assert (wilson(0, 10)[0], wilson(10, 10)[1]) == pytest.approx((0.0, 1.0))
    assert np.isnan(wilson(0, 0)).all()


# ---------------------------------------------------------------- 3-D boxes


def test_boxes_json_equals_the_evaluator(all_reports: dict[str, Report]) -> None:
    evaluation = boxes_set()
    tables = {table.key: table.records() for table in all_reports["boxes"].tables()}
    rows = {(row["class"], row["measure"], row["overlap"]): row for row in tables["scores_3d"]}
    assert len(rows) == 2 * 4
    for metric, how in METRICS.items():
        for name in ("Car", "Pedestrian"):
            row = rows[name, f"{how.kind} AP", how.minimum_overlap(name)]
            for level in LEVELS:
                score = evaluation.scores_3d[metric, name, level]
                assert (row[f"r40_{level}"], row[f"r11_{level}"]) == (score.ap_r40, score.ap_r11)
    errors = [row for row in tables["box_errors"] if row["class"] == "Car"]
    (whole,) = (row for row in errors if row["distance"] == "all")
    assert whole["objects"] == sum(row["objects"] for row in errors) / 2
    assert whole["lateral_median"] == 0 and 0.1 < float(str(whole["depth_median"])) < 0.5


def test_the_view_from_above_shows_misses_and_false_positives() -> None:
    evaluation = boxes_set(frames=1, depth_std_m=3.0)
    points = {"Car": operating_point(evaluation.curves_3d["bev", "Car", "moderate"], 0.0)}
    errors = frame_errors(evaluation, points, "bev")
    assert errors.missed[0] == errors.false[0] == 2
    boxes = plan_boxes(evaluation, errors, 0)
    assert [box.colour for box in boxes] == ["missed", "missed", "false", "false"]
    label = boxes[0]
    assert np.mean(label.corners, axis=0) == pytest.approx(evaluation.gt.location_cam2[0, [0, 2]])
    turn = evaluation.gt.rotation_y[0]
    ahead = np.array(label.front) - np.mean(label.corners, axis=0)
    assert ahead == pytest.approx(2.0 * np.array([np.cos(turn), -np.sin(turn)]))


def test_a_view_from_above_by_hand() -> None:
    """50 m are 302 pixels, the camera at 197, 374.4."""
    square = ((1.0, 11.0), (1.0, 9.0), (-1.0, 9.0), (-1.0, 11.0))
    box = PlanBox(square, (1.0, 10.0), "missed", True, "a box")
    drawing = draw(PlanView("t", "d", (box,)))
    assert "M 203 308 L 203 320 L 191 320 L 191 308 L 203 308 z M 197 314 L 203 314" in drawing
    assert "<title>a box</title>" in drawing and "stroke:var(--missed)" in drawing


def test_results_without_boxes_have_no_such_sections(all_reports: dict[str, Report]) -> None:
    assert not {"boxes", "errors", "above"} & {section.key for section in all_reports["object"].sections}


# ---------------------------------------------------------------- images


def test_gallery_shows_images_where_they_exist(tmp_path: Path) -> None:
    evaluation = object_set()
    worst = [row["frame"] for row in object_report(evaluation).tables()[-1].records()]
    cv2.imwrite(str(tmp_path / f"{worst[3]}.png"), np.full((375, 1242, 3), 90, np.uint8))
    page = Page(render_page(object_report(evaluation, images=tmp_path)))
    assert len(page.named("image")) == 1
    assert any("Only frames that have an image" in words for words in page.texts)
    blank = Page(render_page(object_report(evaluation, images=tmp_path / "nowhere")))
    scenes = [one for one in blank.named("svg") if one.get("class") == "scene"]
    assert len(scenes) == 12 and blank.named("image") == []


def test_a_broken_image_is_a_blank_canvas(tmp_path: Path) -> None:
    (tmp_path / "000001.png").write_bytes(b"\x89PNG not really")
    assert load_image(tmp_path, "000001") is None
    assert load_image(None, "000001") is None


def test_faults_with_images_come_first(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((4, 4, 3), np.uint8))
    assert with_images(["a", "b"], lambda name: (tmp_path, name), 5) == (["b"], True)
    assert with_images(["c", "d"], lambda name: (tmp_path, name), 1) == (["c"], False)


def test_worst_frames_are_those_with_errors() -> None:
    evaluator = ObjectEvaluator()
    evaluator.process("good", labels(["Car"], [0]), detections(["Car"], [0], [0.9]))
    evaluator.process("bad", labels(["Car", "Car"], [0, 1]), detections(["Car"], [5], [0.95]))
    evaluator.process("poor", labels(["Car", "Car"], [0, 1]), detections(["Car"], [0], [0.9]))
    table = object_report(evaluator.evaluate(), score_threshold=0.5).tables()[-1]
    assert table.key == "frame_errors"
    assert table.rows == (("bad", 2, 1), ("poor", 1, 0))


# ---------------------------------------------------------------- road numbers


def test_road_json_equals_the_evaluator(tmp_path: Path) -> None:
    evaluation = road_set()
    write_report(road_report(evaluation), tmp_path)
    tables = json.loads((tmp_path / "report.json").read_text())["tables"]
    for row in tables["scores"]:
        score = evaluation.scores[row["category"]]
        assert (row["max_f"], row["ap"], row["threshold"]) == (100 * score.max_f, 100 * score.ap, score.threshold)
    assert sum(row["fp"] for row in tables["image_errors"]) == evaluation.scores["um_road"].fp
    worst = [row["f1"] for row in tables["image_errors"]]
    assert worst == sorted(worst)


def test_histogram_calibration_equals_calibration_of_pixels() -> None:
    random = np.random.default_rng(1)
    values, is_road = random.integers(0, 256, 5000), random.random(5000) < 0.4
    by_pixel = calibration_of(values / 255, is_road)
    pooled = histogram_calibration(
        np.bincount(values[is_road], minlength=256), np.bincount(values[~is_road], minlength=256)
    )
    assert pooled.error == pytest.approx(by_pixel.error)
    np.testing.assert_array_equal(pooled.true, by_pixel.true)


def test_road_errors_are_painted(tmp_path: Path) -> None:
    from perception.evaluation.road import RoadEvaluator

    truth = np.zeros((40, 80, 3), np.uint8)
    truth[..., 2] = 255  # all judged
    truth[:, :40, 0] = 255  # left half is road
    cv2.imwrite(str(tmp_path / "gt.png"), truth)
    cv2.imwrite(
        str(tmp_path / "result.png"), np.where(np.arange(80) < 60, 200, 0)[None].repeat(40, 0).astype(np.uint8)
    )
    evaluator = RoadEvaluator("perspective")
    judged, road = truth[..., 2] > 0, truth[..., 0] > 0
    evaluator.process(
        "um_road_000000",
        judged,
        road,
        cv2.imread(str(tmp_path / "result.png"), cv2.IMREAD_UNCHANGED),
        gt_path=tmp_path / "gt.png",
        result_path=tmp_path / "result.png",
    )
    page = Page(render_page(road_report(evaluator.evaluate())))
    (picture,) = page.named("img")
    assert picture["alt"] == "um_road_000000: F1 0.800, 0 pixels missed, 800 false"


# ---------------------------------------------------------------- tracking numbers


def test_tracking_json_equals_the_evaluator(tmp_path: Path) -> None:
    evaluation = tracking_set(missed=5)
    write_report(tracking_report(evaluation), tmp_path)
    tables = json.loads((tmp_path / "report.json").read_text())["tables"]
    for row in tables["scores"]:
        assert row["value"] == evaluation.combined[row["class"]].values[row["measure"]]
    assert len(tables["over_alpha"]) == 19 * len(evaluation.combined)
    assert [(row["frame"], row["from"], row["to"]) for row in tables["id_switches"]] == [(20, 100, 110)] * 2


def test_timeline_shows_ids_gaps_and_switches() -> None:
    evaluation = tracking_set(frames=40, switch_at=20, missed=5)
    rows = timeline_rows(evaluation.sequences["0000", "Car"])
    assert [row.label for row in rows] == ["track 0", "track 1"]
    first, second = rows
    assert [(span.start, span.end, span.colour) for span in first.spans] == [(0, 20, "s0"), (20, 40, "s1")]
    assert first.switches == (20,) and second.switches == ()
    assert [(span.start, span.end, span.colour) for span in second.spans] == [(0, 5, "missed"), (5, 40, "s0")]


def test_tracking_faults_by_frame() -> None:
    faults = frame_faults(tracking_set(frames=10, switch_at=4, missed=2, sequences=1))
    assert [(one.frame, one.switched, one.missed, one.false) for one in faults] == [
        (4, 1, 0, 0),
        (0, 0, 1, 0),
        (1, 0, 1, 0),
    ]


# ---------------------------------------------------------------- plots


def test_large_numbers_of_an_axis_are_short() -> None:
    assert [tick_label(value) for value in (0.25, 9999, 12_000, 3_400_000)] == ["0.25", "9999", "12 k", "3.4 M"]


def test_points_lie_where_they_should() -> None:
    """Inside margins of 46, 12, 12 and 42 pixels, 360 × 268 pixels hold 0..1 both ways."""
    line = Series("a", [(0.0, 0.0), (0.5, 1.0), (1.0, 0.5)], mark=(0.25, 0.5), mark_label="here")
    drawing = draw(LinePlot("t", "d", (line,), Axis("x"), Axis("y")))
    assert "M 46 226 L 197 12 L 348 119" in drawing
    assert re.search(r'<use[^>]* x="121.5" y="119"', drawing)
    bars = draw(IntervalBars("t", "d", (Interval("row", 0.5, 0.25, 0.75, "note"),), Axis("x")))
    assert '<path d="M 92 19 L 184 19 L 184 31 L 92 31 z"' in bars, "from the left end to half of 184 pixels"
    assert '<path d="M 138 25 L 230 25"' in bars, "the interval"


def test_stacked_bars_by_hand() -> None:
    """22 pixels a count, from 78 pixels up to 12."""
    plot = Histogram("t", "d", (0.0, 0.5, 1.0), ((2, 0), (1, 3)), ("true", "false"), Axis("score"))
    found = re.findall(
        r'<path d="M [\d.]+ ([\d.]+) L [\d.]+ [\d.]+ L [\d.]+ ([\d.]+)[^>]*><title>([^<]*)<', draw(plot)
    )
    assert found == [("78", "34", "0–0.5: 2 true"), ("34", "12", "0–0.5: 1 false"), ("78", "12", "0.5–1: 3 false")]


def test_words_belong_to_what_the_pointer_rests_on() -> None:
    line = Series("a", [(0.2, 0.1), (0.8, 0.9)], mark=(0.5, 0.5), mark_label="here", dots=True)
    drawing = draw(LinePlot("t", "d", (line,), Axis("x"), Axis("y")))
    root = ElementTree.fromstring(drawing)
    assert [(one.tag, one[0].text) for one in root.iter() if len(one) and one[0].tag == "title"] == [
        ("svg", "t"), ("path", "a"), ("use", "a: 0.2, 0.1"), ("use", "a: 0.8, 0.9"), ("g", "here"),
    ]  # fmt: skip


def test_colours_follow_the_page() -> None:
    drawing = draw(LinePlot("t", "d", (Series("a", [(0, 0), (1, 1)], 4, (0.5, 0.5)),), Axis("x"), Axis("y")))
    assert "var(--s4)" in drawing and "var(--grid)" in drawing and "var(--ink)" in drawing
    assert not re.search(r"#[0-9a-f]{6}", drawing), "a fixed colour would not follow dark mode"


def test_two_drawings_of_a_page_share_no_id() -> None:
    plot = LinePlot("t", "d", (Series("a", [(0, 0), (1, 1)], dots=True),), Axis("x"), Axis("y"))
    first, second = (set(re.findall(r' id="([^"]*)"', draw(plot, prefix))) for prefix in ("p0", "p1"))
    assert first and second and not first & second


def test_thinning_keeps_ends_and_extremes() -> None:
    y = np.sin(np.linspace(0, 20, 5000))
    y[2500] = 9.0  # a single spike must not be lost
    line = thin(np.stack([np.arange(5000), y], axis=1))
    assert len(line) <= 250
    assert line[0, 0] == 0 and line[-1, 0] == 4999 and line[:, 1].max() == 9.0
    short = np.zeros((10, 2))
    assert len(thin(short)) == 10


def test_a_line_breaks_at_gaps() -> None:
    points = [(0.0, 0.0), (0.2, 0.5), (float("nan"), 0.1), (0.6, 0.5), (1.0, 1.0)]
    drawing = draw(LinePlot("t", "d", (Series("a", points),), Axis("x"), Axis("y")))
    assert "M 46 226 L 106.4 119 M 227.2 119 L 348 12" in drawing


def test_boxes_of_a_scene_are_drawn_where_they_are() -> None:
    evaluator = ObjectEvaluator()
    evaluator.process("0", labels(["Car"], [2]), detections(["Car"], [5], [0.9]))
    page = Page(render_page(object_report(evaluator.evaluate(), score_threshold=0.5)))
    drawn = {
        one["class"]: (float(one["x"] or 0), float(one["width"] or 0))
        for one in page.named("rect")
        if str(one.get("class", "")).startswith("box")
    }
    missed, false = boxes_at([2])[0], boxes_at([5])[0]
    assert drawn == {"box missed": (missed[0], 60.0), "box false": (false[0], 60.0)}


def test_comparison_page(tmp_path: Path) -> None:
    from perception.reports.compare import compare

    for name, missed in (("a", 0.1), ("b", 0.4)):
        write_report(object_report(object_set(missed=missed)), tmp_path / name)
    comparison = compare(tmp_path / "a", tmp_path / "b")
    page = Page(write_report(comparison_report(comparison), tmp_path / "c").read_text())
    assert page.faults == []
    tables = json.loads((tmp_path / "c" / "report.json").read_text())["tables"]
    assert [row["name"] for row in tables["differences"]] == [one.name for one in comparison.differences]
    assert [row["b"] for row in tables["differences"]] == [one.b for one in comparison.differences]
