"""Events from tracks that are drawn by hand, and the file that names the zones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.errors import UserError
from perception.sinks.events.config import Alarm, EventConfig, Line, Zone, check_events, read_events
from perception.sinks.events.engine import EventEngine, SceneEvent
from perception.types import CLASS_NAMES, Detections, Frame, Result, Track, Tracks

STEP_NS = 10**8
IMAGE = np.zeros((100, 200, 3), np.uint8)
SQUARE = Zone("square", points=np.array([[50.0, 50], [150, 50], [150, 90], [50, 90]]))
GATE = Line("gate", points=np.array([[100.0, 40], [100, 95]]))


def at(x: float, y: float = 70, track_id: int = 1, class_id: int = 0, **more: Any) -> Track:
    """A track that stands at (x, y): the middle of its box's lower edge."""
    return Track(track_id, class_id, np.array([x - 5, y - 20, x + 5, y], np.float32), 0.9, **more)


def run(config: EventConfig, frames: Sequence[Sequence[Track]], finish: bool = True) -> list[SceneEvent]:
    """Events of a recording at 10 Hz."""
    engine, events = EventEngine(config, CLASS_NAMES), []
    for i, tracks in enumerate(frames):
        frame = Frame(IMAGE, i * STEP_NS, i, "cam")
        events += engine.update(Result(frame, Detections.empty(), Tracks.from_rows(tracks), None))
    return events + (engine.finish() if finish else [])


def told(events: list[SceneEvent]) -> list[tuple[str, float, int]]:
    return [(event.kind, event.timestamp_ns / 1e9, event.track_id) for event in events]


def test_enter_dwell_and_leave_with_their_times() -> None:
    # at x = 0, 20, 40, 60 … 140, then 160, 180, 180, 180, 180: inside from frame 3 to frame 7
    path = [0, 20, 40, 60, 80, 100, 120, 140, 160, 180, 180, 180, 180]
    zone = Zone("square", points=SQUARE.points, dwell_s=0.4)
    events = run(EventConfig((zone,)), [[at(x)] for x in path])
    assert told(events) == [("enter", 0.3, 1), ("dwell", 0.7, 1), ("leave", 0.8, 1)]
    assert events[2].inside_s == pytest.approx(0.5)
    assert (events[0].count, events[0].first) == (1, True)
    assert events[0].frame_id == 6  # confirmed 0.3 s later


def test_a_box_that_trembles_on_the_border_is_one_entry() -> None:
    path = [40, 55, 45, 55, 45, 55, 60, 60, 60, 60, 45, 60, 60]
    assert told(run(EventConfig((SQUARE,)), [[at(x)] for x in path], finish=False)) == [("enter", 0.5, 1)]


def test_an_object_that_comes_back_counts_once() -> None:
    path = [20] * 2 + [70] * 5 + [20] * 5 + [70] * 5
    events = run(EventConfig((SQUARE,)), [[at(x)] for x in path])
    entries = [event for event in events if event.kind == "enter"]
    assert [(e.count, e.first) for e in entries] == [(1, True), (1, False)]
    both = run(EventConfig((SQUARE,)), [[at(70), at(80, track_id=2)]] * 5)
    assert [(e.track_id, e.count) for e in both if e.kind == "enter"] == [(1, 1), (2, 2)]


def test_one_that_vanishes_leaves_when_it_was_last_seen() -> None:
    frames = [[at(70)]] * 6 + [[]] * 20
    assert told(run(EventConfig((SQUARE,)), frames, finish=False)) == [("enter", 0.0, 1), ("leave", 0.5, 1)]
    hidden = [[at(70)]] * 6 + [[]] * 8 + [[at(70)]] * 3  # 0.8 s behind something is no leaving
    assert told(run(EventConfig((SQUARE,)), hidden, finish=False)) == [("enter", 0.0, 1)]


def test_predictions_and_tentative_tracks_are_no_evidence() -> None:
    lost = [[at(70, state="lost", frames_since_seen=3)]] * 10
    tentative = [[at(70, state="tentative")]] * 10
    assert run(EventConfig((SQUARE,)), lost) == run(EventConfig((SQUARE,)), tentative) == []


def test_crossings_have_a_direction_and_the_moment_on_the_line() -> None:
    # from the first point of the gate to the second one walks down the image: the left hand is at large x
    path = [70, 80, 90, 110, 120, 130, 140, 140]
    events = run(EventConfig(lines=(GATE,)), [[at(x)] for x in path])
    assert told(events) == [("crossing", 0.25, 1)]
    assert (events[0].direction, events[0].count, events[0].first) == ("right-to-left", 1, True)
    back = run(EventConfig(lines=(GATE,)), [[at(x)] for x in reversed(path)])
    assert back[0].direction == "left-to-right"


def test_who_turns_back_or_passes_the_end_of_a_line_has_not_crossed() -> None:
    assert run(EventConfig(lines=(GATE,)), [[at(x)] for x in (90, 95, 105, 95, 90, 90, 90, 90)]) == []
    assert run(EventConfig(lines=(GATE,)), [[at(x, 20)] for x in (70, 80, 90, 110, 120, 130, 140, 140)]) == []


def test_lines_in_metres_look_from_above() -> None:
    line = Line("stop", points=np.array([[-5.0, 10], [5, 10]]), metric=True)  # walks to the right, 10 m ahead
    frames = [[at(50, position_m=(0.0, z), velocity_mps=(0.0, -10.0))] for z in (13, 12, 11, 9, 8, 7, 6)]
    events = run(EventConfig(lines=(line,)), frames)
    assert told(events) == [("crossing", 0.25, 1)]
    assert (events[0].direction, events[0].speed_mps) == ("left-to-right", 10.0)  # far is left of that way
    assert run(EventConfig(lines=(line,)), [[at(50)]] * 5) == []  # no metres, no event


def test_alarms_begin_at_once_and_end_with_hysteresis() -> None:
    times: list[float | None] = [5, 3, 1.9, 2.1, 1.9, 2.3, 3, 3, 3, 3, 3]
    events = run(EventConfig(alarms=(Alarm("close", ttc_s=2.0),)), [[at(50, ttc_s=t)] for t in times])
    assert told(events) == [("alarm", 0.2, 1), ("alarm-over", 0.6, 1)]
    assert events[0].ttc_s == 1.9
    near = run(EventConfig(alarms=(Alarm("near", distance_m=5.0),)), [[at(50, distance_m=4.0)]] * 4)
    assert told(near) == [("alarm", 0.0, 1), ("alarm-over", 0.3, 1)]


def test_sources_and_classes_are_told_apart() -> None:
    people = Zone("people", classes=frozenset({"Pedestrian"}), points=SQUARE.points)
    elsewhere = Zone("elsewhere", source="rear", points=SQUARE.points)
    frames = [[at(70), at(80, track_id=2, class_id=1)]] * 5
    assert told(run(EventConfig((people, elsewhere)), frames, finish=False)) == [("enter", 0.0, 2)]


def test_a_record_is_plain_json() -> None:
    record = run(EventConfig((SQUARE,)), [[at(70, ttc_s=float("inf"))]] * 5)[0].record()
    assert record["schema"] == "perception.event/1"
    assert (record["type"], record["class"], record["position"]) == ("enter", "Car", [70.0, 70.0])
    assert record["ttc_s"] is None


FILE = """
hold_s = 0.2
[[zone]]
name = "crossing"
classes = ["Pedestrian"]
points_px = [[10, 10], [90, 10], [50, 90]]
dwell_s = 5
[[line]]
name = "gate"
source = "front"
points_m = [[-3, 10], [3, 10]]
[[alarm]]
name = "close"
ttc_s = 2.0
[clips]
before_s = 2
after_s = 3
"""


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "events.toml"
    path.write_text(FILE)
    config = read_events(path)
    assert (config.hold_s, config.gone_s, config.clip_before_s, config.clip_after_s) == (0.2, 1.0, 2, 3)
    assert (config.zones[0].name, config.zones[0].dwell_s, config.lines[0].metric) == ("crossing", 5, True)
    assert check_events(config, {"front": ((100, 100), True)}, path) == []
    assert len(check_events(config, {"front": ((100, 100), False)}, path)) == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "nothing to watch"),
        ("[[zones]]\nname='a'", "unknown key 'zones'"),
        ("[[zone]]\nname='a'\npoints_px=[[1,2],[3,4]]", "points_px"),
        ("[[zone]]\nname='a'\npoints_px=[[1,2],[3,4],[5]]", "points_px"),
        ("[[zone]]\nname='a'", "neither points_px nor points_m"),
        ("[[line]]\nname='a'\npoints_px=[[1,2],[1,2]]", "its two points are the same"),
        ("[[line]]\nname='a'\npoints_px=[[1,2],[nan,2]]", "points_px"),
        ("[[alarm]]\nname='a'", "no limit"),
        ("[[alarm]]\nname='a'\nttc_s=true", "ttc_s is True"),
        ("[[alarm]]\nname='a'\nttc_s=1\n[[alarm]]\nname='a'\nttc_s=2", "two are called 'a'"),
        ("zone = 3", "zone is no list of tables"),
        ("[[alarm]]\nname='a'\nttc_s=1\n[clips]\nbefore_s=99", "before_s is 99"),
    ],
)
def test_mistakes_in_the_file(text: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "events.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_events(path)
    assert found in error.value.found


def test_places_outside_the_image_and_unknown_sources(tmp_path: Path) -> None:
    path = tmp_path / "events.toml"
    path.write_text("[[zone]]\nname='far'\npoints_px=[[500,10],[600,10],[600,50]]")
    with pytest.raises(UserError, match="lies outside the image of cam, 200×100 pixels"):
        check_events(read_events(path), {"cam": ((100, 200), True)}, path)
    path.write_text("[[zone]]\nname='a'\nsource='rear'\npoints_px=[[1,1],[2,1],[2,2]]")
    with pytest.raises(UserError, match="'a' watches 'rear'"):
        check_events(read_events(path), {"front": (None, True)}, path)
