"""From tracks to events: who entered which zone, crossed which line, came too close.

An object is where its box stands on the road: the middle of the lower edge in pixels, `position_m` in metres. Only
frames in which it was detected count. Every object counts once, by its track id.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np

from perception.arrays import F64
from perception.sinks.events.config import Alarm, EventConfig, Line, Place, Zone
from perception.types import Result, Track

SCHEMA = "perception.event/1"
EventKind = Literal["enter", "leave", "dwell", "crossing", "alarm", "alarm-over"]
_RELEASE = 1.2
"""An alarm is over when its value is above so many times the limit."""


@dataclass(frozen=True)
class SceneEvent:
    """One thing that happened. What is unknown is None."""

    kind: EventKind
    name: str
    """Of the zone, line or alarm."""
    source: str
    timestamp_ns: int
    """When it happened, on the source's clock; the frame that confirms it comes a little later."""
    frame_id: int
    """The frame that confirmed it."""
    track_id: int
    class_name: str
    position: tuple[float, float] | None = None
    """Pixels or metres, as the zone or line has them."""
    direction: str | None = None
    """Of a crossing: `left-to-right` or `right-to-left`."""
    count: int | None = None
    """Objects so far that entered the zone, or crossed the line in this direction, each once."""
    first: bool | None = None
    """Whether it is this object's first time."""
    inside_s: float | None = None
    """Of `leave` and `dwell`: how long it has been there."""
    speed_mps: float | None = None
    """Relative to the camera."""
    distance_m: float | None = None
    ttc_s: float | None = None

    def record(self) -> dict[str, Any]:
        """As a JSON object."""
        row = {"schema": SCHEMA, "type": self.kind}
        for name, value in vars(self).items():
            if name != "kind":
                row["class" if name == "class_name" else name] = _rounded(value)
        return row

    def text(self) -> str:
        """For people."""
        who = f"{self.class_name} {self.track_id}"
        more = [who, self.direction or ""]
        more += [f"after {self.inside_s:.1f} s"] if self.inside_s is not None else []
        more += [f"number {self.count}"] if self.count is not None else []
        more += [f"{self.distance_m:.1f} m"] if self.distance_m is not None else []
        more += [f"TTC {self.ttc_s:.1f} s"] if self.ttc_s is not None else []
        return f"{self.name}: " + ", ".join(part for part in more if part)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return [_rounded(part) for part in value] if isinstance(value, tuple) else value


@dataclass
class _InZone:
    inside: bool = False
    since_ns: int | None = None
    """Since when it is on the other side of the border, not yet long enough to count."""
    entered_ns: int = 0
    dwelled: bool = False


@dataclass
class _AtLine:
    side: int = 0
    point: F64 = field(default_factory=lambda: np.zeros(2))
    at_ns: int = 0
    """The last point on this side, and when."""
    since_ns: int | None = None
    crossed_ns: int | None = None
    """When the way to the other side met the line; None where it went past its ends."""
    seen: int = 0
    """Frames on the other side."""


@dataclass
class _AtAlarm:
    active: bool = False
    since_ns: int | None = None


@dataclass
class _Object:
    """What is known of one track."""

    last: Track
    last_ns: int
    frame_id: int
    states: dict[str, Any] = field(default_factory=dict)


class EventEngine:
    """Events of all sources of a run. The same tracks give the same events."""

    def __init__(self, config: EventConfig, class_names: Sequence[str]) -> None:
        self._config, self._class_names = config, class_names
        self._hold_ns, self._gone_ns = round(config.hold_s * 1e9), round(config.gone_s * 1e9)
        self._objects: dict[tuple[str, int], _Object] = {}
        self._counted: dict[tuple[str, str, str], set[int]] = {}

    def update(self, result: Result) -> list[SceneEvent]:
        """Events that one frame completes, mostly none."""
        frame, now_ns = result.frame, result.frame.timestamp_ns
        events: list[SceneEvent] = []
        for track in result.tracks:
            if track.state != "confirmed" or track.frames_since_seen:
                continue
            key = (frame.source, track.track_id)
            known = self._objects.get(key)
            if known is None:
                known = self._objects[key] = _Object(track, now_ns, frame.frame_id)
            known.last, known.last_ns, known.frame_id = track, now_ns, frame.frame_id
            events += self._of_object(frame.source, known, now_ns)
        gone = [k for k, o in self._objects.items() if k[0] == frame.source and now_ns - o.last_ns > self._gone_ns]
        for key in gone:
            events += self._of_gone(key[0], self._objects.pop(key))
        return events

    def finish(self, name: str | None = None) -> list[SceneEvent]:
        """What ends with a source, or with the run: objects that are still in a zone leave it."""
        keys = [key for key in self._objects if name in (None, key[0])]
        events = [event for key in keys for event in self._of_gone(key[0], self._objects.pop(key))]
        if name is not None:
            self._counted = {key: seen for key, seen in self._counted.items() if key[0] != name}
        return events

    # ------------------------------------------------------------ one object

    def _of_object(self, source: str, known: _Object, now_ns: int) -> Iterator[SceneEvent]:
        name = self._class_name(known.last)
        for zone in self._config.zones:
            if zone.concerns(source, name) and (point := _where(known.last, zone)) is not None:
                yield from self._zone(source, known, zone, point, now_ns)
        for line in self._config.lines:
            if line.concerns(source, name) and (point := _where(known.last, line)) is not None:
                yield from self._line(source, known, line, point, now_ns)
        for alarm in self._config.alarms:
            if alarm.concerns(source, name):
                yield from self._alarm(source, known, alarm, now_ns)

    def _zone(self, source: str, known: _Object, zone: Zone, point: F64, now_ns: int) -> Iterator[SceneEvent]:
        state: _InZone = known.states.setdefault(zone.name, _InZone())
        inside = cv2.pointPolygonTest(zone.outline.astype(np.float32), (float(point[0]), float(point[1])), False) >= 0
        if inside == state.inside:
            state.since_ns = None
        else:
            if state.since_ns is None:
                state.since_ns = now_ns
            if now_ns - state.since_ns >= self._hold_ns:
                at_ns, state.since_ns, state.inside = state.since_ns, None, inside
                if inside:
                    state.entered_ns, state.dwelled = at_ns, False
                    yield self._event("enter", zone.name, source, known, at_ns, point, counted="")
                else:
                    stayed = (at_ns - state.entered_ns) / 1e9
                    yield self._event("leave", zone.name, source, known, at_ns, point, inside_s=stayed)
        if zone.dwell_s is not None and state.inside and not state.dwelled:
            stayed = (now_ns - state.entered_ns) / 1e9
            if stayed >= zone.dwell_s:
                state.dwelled = True
                yield self._event("dwell", zone.name, source, known, now_ns, point, inside_s=stayed)

    def _line(self, source: str, known: _Object, line: Line, point: F64, now_ns: int) -> Iterator[SceneEvent]:
        state: _AtLine = known.states.setdefault(line.name, _AtLine())
        offset = _offset(line, point)
        side = 1 if offset > 0 else -1 if offset < 0 else state.side
        if not state.side or side == state.side:
            state.side, state.point, state.at_ns = side, point, now_ns
            state.since_ns, state.seen = None, 0
            return
        state.seen += 1
        if state.since_ns is None:
            state.since_ns = now_ns
            state.crossed_ns = _met(line, state.point, state.at_ns, point, now_ns)
        if now_ns - state.since_ns >= self._hold_ns:
            yield from self._crossing(source, known, line, state)
            state.side, state.point, state.at_ns = side, point, now_ns
            state.since_ns, state.seen = None, 0

    def _crossing(self, source: str, known: _Object, line: Line, state: _AtLine) -> Iterator[SceneEvent]:
        if state.crossed_ns is not None:
            direction = "left-to-right" if state.side < 0 else "right-to-left"
            point = _where(known.last, line)
            yield self._event(
                "crossing", line.name, source, known, state.crossed_ns, point, counted=direction, direction=direction
            )

    def _alarm(self, source: str, known: _Object, alarm: Alarm, now_ns: int) -> Iterator[SceneEvent]:
        state: _AtAlarm = known.states.setdefault(alarm.name, _AtAlarm())
        track = known.last
        pairs = [(track.ttc_s, alarm.ttc_s), (track.distance_m, alarm.distance_m)]
        near = any(value is not None and limit is not None and value < limit for value, limit in pairs)
        far = not any(value is not None and limit is not None and value < _RELEASE * limit for value, limit in pairs)
        if near and not state.active:
            state.active, state.since_ns = True, None
            yield self._event("alarm", alarm.name, source, known, now_ns, None)
        elif state.active and far:
            if state.since_ns is None:
                state.since_ns = now_ns
            if now_ns - state.since_ns >= self._hold_ns:
                state.active = False
                yield self._event("alarm-over", alarm.name, source, known, state.since_ns, None)
        elif state.active:
            state.since_ns = None

    def _of_gone(self, source: str, known: _Object) -> Iterator[SceneEvent]:
        """An object that is seen no more leaves its zones; a crossing that more than one frame showed counts."""
        for zone in self._config.zones:
            state = known.states.get(zone.name)
            if state is not None and state.inside:
                stayed = (known.last_ns - state.entered_ns) / 1e9
                point = _where(known.last, zone)
                yield self._event("leave", zone.name, source, known, known.last_ns, point, inside_s=stayed)
        for line in self._config.lines:
            state = known.states.get(line.name)
            if state is not None and state.since_ns is not None and state.seen > 1:
                yield from self._crossing(source, known, line, state)
        for alarm in self._config.alarms:
            state = known.states.get(alarm.name)
            if state is not None and state.active:
                yield self._event("alarm-over", alarm.name, source, known, known.last_ns, None)

    # ------------------------------------------------------------ making events

    def _class_name(self, track: Track) -> str:
        names = self._class_names
        return names[track.class_id] if 0 <= track.class_id < len(names) else str(track.class_id)

    def _event(
        self,
        kind: EventKind,
        name: str,
        source: str,
        known: _Object,
        at_ns: int,
        point: F64 | None,
        counted: str | None = None,
        **more: Any,
    ) -> SceneEvent:
        track = known.last
        count: dict[str, Any] = {}
        if counted is not None:
            seen = self._counted.setdefault((source, name, counted), set())
            count = {"first": track.track_id not in seen}
            seen.add(track.track_id)
            count["count"] = len(seen)
        return SceneEvent(
            kind,
            name,
            source,
            at_ns,
            known.frame_id,
            track.track_id,
            self._class_name(track),
            None if point is None else (float(point[0]), float(point[1])),
            speed_mps=None if track.velocity_mps is None else math.hypot(*track.velocity_mps),
            distance_m=track.distance_m,
            ttc_s=track.ttc_s,
            **count,
            **more,
        )


def _where(track: Track, place: Place) -> F64 | None:
    """Where an object stands, in the terms of a zone or line; None where that is not known."""
    if place.metric:
        return None if track.position_m is None else np.array(track.position_m)
    left, _, right, bottom = track.box_xyxy.tolist()
    return np.array([(left + right) / 2, bottom])


def _offset(line: Line, point: F64) -> float:
    """On which side a point lies, and how far: positive is right of the way from the first point to the second."""
    (ax, ay), (bx, by) = line.outline
    cross = (bx - ax) * (point[1] - ay) - (by - ay) * (point[0] - ax)
    return float(-cross if line.metric else cross)  # y of an image points down, z ahead points up


def _met(line: Line, before: F64, before_ns: int, after: F64, after_ns: int) -> int | None:
    """When the straight way between two points met the line; None where it passed beyond its ends."""
    first, second = _offset(line, before), _offset(line, after)
    share = first / (first - second) if first != second else 0.0
    at = before + share * (after - before)
    start, way = line.outline[0], line.outline[1] - line.outline[0]
    if not 0 <= float(np.dot(at - start, way)) <= float(np.dot(way, way)):
        return None
    return round(before_ns + share * (after_ns - before_ns))
