"""What the page shows, in constant memory: written by the sink's thread, read by the server's."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from perception.overlay import class_colours, radial_speed_mps, track_colour
from perception.redact import redact
from perception.sinks import RunInfo, SourceInfo
from perception.timing import StageClock
from perception.types import CONFIRMED, MOMENTARY, Frame, HealthEvent, Result, Track

HISTORY_S = 300
MOST_EVENTS = 60
MOST_OBJECTS = 100
SILENT_S = 3.0
"""A source that reports nothing wrong and sends nothing for this long is shown as silent."""
RATE_S = 3
"""Seconds over which the frame rate is taken."""
GONE = ("failed", "lost", "stalled")
"""States in which there should be a frame and is none."""
OVER = (*GONE, "ended")
"""States in which what was last seen is no longer so."""


@dataclass
class Second:
    """One point of the charts."""

    frames: int = 0
    dropped: int = 0
    latency_ms: list[float] = field(default_factory=list)
    age_ms: list[float] = field(default_factory=list)

    def summary(self) -> tuple[int, int, float | None, float | None]:
        """Frames, drops, median latency, greatest age."""
        return (
            self.frames,
            self.dropped,
            round(statistics.median(self.latency_ms), 1) if self.latency_ms else None,
            round(max(self.age_ms), 1) if self.age_ms else None,
        )


@dataclass
class SourceBoard:
    """One source."""

    info: SourceInfo
    frames: int = 0
    dropped: int = 0
    latest: Result | None = None
    latest_s: float = 0.0
    clock: StageClock = field(default_factory=StageClock)
    active: dict[str, str] = field(default_factory=dict)
    """What is wrong now, with the reason."""
    ended: str = ""
    """Why no more is to come; empty while there may be more."""
    spans: deque[list[Any]] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    """What was wrong: [kind, begin_s, end_s or None]."""
    second: Second = field(default_factory=Second)
    history: deque[tuple[int, int, float | None, float | None]] = field(
        default_factory=lambda: deque(maxlen=HISTORY_S)
    )

    @property
    def rate_hz(self) -> float | None:
        """Frames a second, over the last whole seconds; None before there are any."""
        last = list(self.history)[-RATE_S:]
        return sum(second[0] for second in last) / len(last) if last else None

    def state(self, now_s: float) -> str:
        """One word: failed, lost, ended, stalled, waiting, silent, impaired, running."""
        for kind in GONE:
            if kind == "stalled" and self.ended:
                break
            if kind in self.active:
                return kind
        if self.ended:
            return "ended"
        if self.latest is None:
            return "waiting"
        if now_s - self.latest_s > SILENT_S:
            return "silent"
        return "impaired" if self.active else "running"


class Board:
    """All sources. Times are seconds on any one clock, given by the caller."""

    def __init__(self, info: RunInfo, now_s: float) -> None:
        self.info, self.started_s = info, now_s
        self.sources = {source.name: SourceBoard(source) for source in info.sources}
        self.events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self._second_began_s = now_s
        self._lock = RLock()

    # ------------------------------------------------------------ in

    def sources_changed(self, info: RunInfo) -> None:
        """Show further sources, and forget those that are gone."""
        with self._lock:
            self.info = info
            self.sources = {s.name: self.sources.get(s.name) or SourceBoard(s) for s in info.sources}

    def write(self, result: Result, now_s: float) -> None:
        """One result."""
        latency_ms = sum(result.timings_ms.values())
        with self._lock:
            self._roll(now_s)
            source = self.sources[result.frame.source]
            source.frames += 1
            source.dropped += result.frame.dropped_before
            source.latest, source.latest_s = result, now_s
            source.second.frames += 1
            source.second.dropped += result.frame.dropped_before
            source.second.latency_ms.append(latency_ms)
            if result.age_ms is not None:
                source.second.age_ms.append(result.age_ms)
        source.clock.add_all(result.timings_ms)
        source.clock.add("latency", latency_ms)
        if result.age_ms is not None:
            source.clock.add("age", result.age_ms)

    def event(self, event: HealthEvent, now_s: float) -> None:
        """One health event."""
        detail = redact(event.detail)[:300]
        with self._lock:
            self.events.append(
                {"kind": event.kind, "source": event.source, "active": event.active, "detail": detail, "at_s": now_s}
            )
            source = self.sources.get(event.source)
            if source is None:
                return
            if event.kind == "ended":
                source.ended = detail or "ended"
            elif event.kind in MOMENTARY:
                source.spans.append([event.kind, now_s, now_s])
            elif event.active:
                source.active[event.kind] = detail
                source.spans.append([event.kind, now_s, None])
            else:
                source.active.pop(event.kind, None)
                for span in source.spans:
                    if span[0] == event.kind and span[2] is None:
                        span[2] = now_s

    def scene_event(self, kind: str, source: str, detail: str, now_s: float) -> None:
        """One event of a zone, line or alarm."""
        with self._lock:
            self.events.append(
                {"kind": kind, "source": source, "active": True, "detail": detail[:300], "at_s": now_s}
            )

    def _roll(self, now_s: float) -> None:
        """Close the seconds that are over; those without a frame count too."""
        passed = int(now_s - self._second_began_s)
        if passed < 1:
            return
        for source in self.sources.values():
            source.history.append(source.second.summary())
            source.second = Second()
            source.history.extend([source.second.summary()] * min(passed - 1, HISTORY_S))
        self._second_began_s += passed

    # ------------------------------------------------------------ out

    def healthy(self, now_s: float) -> dict[str, str]:
        """State by source."""
        with self._lock:
            return {name: source.state(now_s) for name, source in self.sources.items()}

    def now(self, detail: str | None, now_s: float) -> dict[str, Any]:
        """What changes with every frame: a line for each source, and the objects of the one that is looked at."""
        with self._lock:
            self._roll(now_s)
            message: dict[str, Any] = {
                "type": "now",
                "run_s": round(now_s - self.started_s, 1),
                "sources": [self._line(source, now_s) for source in self.sources.values()],
            }
            source = self.sources.get(detail or "")
            latest = source.latest if source and source.state(now_s) not in OVER else None
        if latest is not None:
            names, colours = self.info.spec.class_names, class_colours(self.info.spec)
            shown = [track for track in latest.tracks if track.state == "confirmed"]
            shown.sort(key=_nearest_first)
            message["objects"] = [_object(track, names, colours) for track in shown[:MOST_OBJECTS]]
            message["view"] = _view(latest.frame)
        return message

    def minutes(self, detail: str | None, now_s: float) -> dict[str, Any]:
        """What changes slowly: the charts, the stages and the percentiles of one source, and all events."""
        with self._lock:
            self._roll(now_s)
            message: dict[str, Any] = {
                "type": "minutes",
                "events": [
                    {k: v for k, v in event.items() if k != "at_s"} | {"ago_s": round(now_s - event["at_s"], 1)}
                    for event in reversed(self.events)
                ],
            }
            source = self.sources.get(detail or "")
            if source is None:
                return message
            rows = list(source.history)
            spans = [
                [kind, round(now_s - begin, 1), None if end is None else round(now_s - end, 1)]
                for kind, begin, end in source.spans
                if end is None or now_s - end < HISTORY_S
            ]
        columns = zip(("frames", "dropped", "latency_ms", "age_ms"), zip(*rows, strict=True), strict=False)
        message["history"] = {name: list(values) for name, values in columns}
        message["spans"] = spans
        summary = source.clock.summary()
        message["stages"] = [
            [stage, round(d["p50_ms"], 2), round(d["p95_ms"], 2), round(d["p99_ms"], 2)]
            for stage, d in summary.items()
        ]
        return message

    def _line(self, source: SourceBoard, now_s: float) -> dict[str, Any]:
        state = source.state(now_s)
        latest = source.latest if state not in OVER else None
        return {
            "state": state,
            "trouble": [] if state == "ended" else [[kind, detail] for kind, detail in source.active.items()],
            "ended": source.ended,
            "rate_hz": None if state == "ended" else rounded(source.rate_hz, 1),
            "frames": source.frames,
            "dropped": source.dropped,
            "latency_ms": rounded(sum(latest.timings_ms.values()), 1) if latest else None,
            "age_ms": rounded(latest.age_ms, 1) if latest else None,
            "silent_s": round(now_s - source.latest_s, 1) if source.latest else None,
            "count": int((latest.tracks.states == CONFIRMED).sum()) if latest else 0,
        }


def rounded(value: float | None, digits: int) -> float | None:
    """For JSON: what is not a number is not known."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def _nearest_first(track: Track) -> tuple[float, float]:
    distance = rounded(track.distance_m, 3)
    return (math.inf if distance is None else distance), -float(track.box_xyxy[3])


def _object(
    track: Track, class_names: tuple[str, ...], colours: Mapping[int, tuple[int, int, int]]
) -> dict[str, Any]:
    blue, green, red = track_colour(track, colours)
    known = 0 <= track.class_id < len(class_names)
    return {
        "id": track.track_id,
        "class": class_names[track.class_id] if known else str(track.class_id),
        "colour": f"#{red:02x}{green:02x}{blue:02x}",
        "score": rounded(track.score, 2),
        "seen": track.frames_since_seen == 0,
        "distance_m": rounded(track.distance_m, 1),
        "speed_mps": rounded(radial_speed_mps(track), 1),
        "ttc_s": rounded(track.ttc_s, 1),
        "position_m": _all_rounded(track.position_m),
        "position_std_m": _all_rounded(track.position_std_m),
        "velocity_mps": _all_rounded(track.velocity_mps),
        "size_m": _all_rounded(track.size_m),
        "heading_rad": rounded(track.heading_rad, 3),
        "heading_std_rad": rounded(track.heading_std_rad, 3),
    }


def _all_rounded(values: tuple[float, ...] | None) -> list[float] | None:
    """For JSON, in centimetres; None where one of them is not known."""
    if values is None or not all(map(math.isfinite, values)):
        return None
    return [round(value, 2) for value in values]


def _view(frame: Frame) -> list[float] | None:
    """Directions of the left and right edge of the image, radians right of straight ahead; None uncalibrated."""
    if frame.camera is None:
        return None
    focal, centre = frame.camera.P_cam2[0, 0], frame.camera.P_cam2[0, 2]
    return [round(math.atan2(x - centre, focal), 3) for x in (0, frame.size_hw[1])]
