"""Losses of AP and MaxF come with what chance may do to them; frames for comparing are told apart from those seen."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from export.frames import TestFrame, open_frames
from export.parity import TOLERANCES, Loss, ParityReport, _Scores, alike, checks, judge
from perception.formats.kitti import ObjectRows
from perception.types import Detections

BOXES = np.array([[10, 10, 110, 90], [200, 20, 280, 100]], np.float32)


def _found(count: int) -> Detections:
    """The first `count` of the two cars, sure of them."""
    return Detections(BOXES[:count], np.full(count, 0.9, np.float32), np.zeros(count, np.int64))


def _report(frames: int, misses_every: int) -> ParityReport:
    """Side A finds both cars of every frame, side B only one in every so-manieth."""
    scores, report = _Scores(("Car",)), ParityReport("a", "b", "", "int8")
    zeros = np.zeros(2)
    truth = ObjectRows.from_boxes(["Car", "Car"], BOXES, truncation=zeros, occlusion=zeros.astype(np.int64))
    for i in range(frames):
        frame = TestFrame(f"{i:06d}", np.zeros((120, 300, 3), np.uint8), truth)
        scores.add(frame, (_found(2), None), (_found(1 if i % misses_every == 0 else 2), None))
    scores.fill(report)
    return report


def test_a_loss_grows_with_what_is_missed_and_its_error_shrinks_with_frames() -> None:
    few, many = _report(40, 4), _report(160, 4)
    for report in (few, many):  # one car of eight is missed: recall 7/8, so 35 of AP's 40 steps are reached
        assert report.ap["Car"][0] == 100.0 and report.ap["Car"][1] == pytest.approx(87.5, abs=2.5)
        assert report.ap_loss is not None and report.ap_loss.points == pytest.approx(12.5, abs=2.5)
    assert few.ap_loss and many.ap_loss
    # of 40 frames 10 ± 2.7 are drawn that miss one of 80 cars: ± 3.4 points; of four times as many half of it
    assert few.ap_loss.error == pytest.approx(3.4, rel=0.35)
    assert many.ap_loss.error == pytest.approx(few.ap_loss.error / 2, rel=0.35)
    assert "too uncertain for a limit" in few.text()


def test_two_that_say_the_same_lose_nothing_for_sure() -> None:
    report = _report(40, 10**6 + 1)  # frame 0 alone differs
    same = _report(41, 1)
    assert report.ap_loss and report.ap_loss.points <= 2.5
    assert same.ap_loss and same.ap_loss.points == pytest.approx(50, abs=2.5), (
        "every frame misses one: no chance in it"
    )
    assert same.ap_loss.error < 1e-9


def test_caution_adds_the_error() -> None:
    report = ParityReport("a", "b", "", "int8", ap_loss=Loss(0.4, 0.3), road_loss=Loss(-0.1, 0.2))
    plain, careful = (checks(report, TOLERANCES["int8"], cautious)[-2:] for cautious in (False, True))
    assert [c.found for c in plain] == [0.4, -0.1]
    assert [c.found for c in careful] == pytest.approx([0.7, 0.1])
    assert judge(report, TOLERANCES["int8"]) == [] and careful[0].used > 1
    assert str(report.ap_loss) == "+0.40 ± 0.30 points"


def test_neighbours_of_a_recording_are_drawn_together() -> None:
    names = ["0005/000010", "0005/000019", "0005/000020", "0006/000010", "000010", "000011", "um_000012", "a/b"]
    assert alike(names).tolist() == [0, 0, 1, 2, 3, 4, 5, 6]


def test_frames_held_out_seen_and_all(tmp_path: Path) -> None:
    for i in range(8):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((8, 8, 3), np.uint8))
    names = lambda *args: [frame.name for frame in open_frames(tmp_path, 8, *args)]  # noqa: E731
    assert names() == ["4", "5", "6", "7"] and names("seen") == ["0", "1", "2", "3"]
    assert names("all") == [str(i) for i in range(8)]
    assert names("all", open_frames(tmp_path, 2, "seen")) == ["1", "2", "4", "5", "6", "7"]
