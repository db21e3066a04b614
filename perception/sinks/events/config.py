"""Zones, lines and alarms, from a TOML file."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.arrays import F64
from perception.errors import UserError
from perception.files import read_toml

MOST = 1000
"""Zones, lines and alarms in one file."""
_WHO = ("name", "source", "classes")
_PLACE = ("points_px", "points_m")
_TABLES = {
    "zone": (*_WHO, *_PLACE, "dwell_s"),
    "line": (*_WHO, *_PLACE),
    "alarm": (*_WHO, "ttc_s", "distance_m"),
    "clips": ("before_s", "after_s", "most"),
}


@dataclass(frozen=True, eq=False)
class Watch:
    """What zones, lines and alarms share."""

    name: str
    source: str | None = None
    """None: all sources."""
    classes: frozenset[str] = frozenset()
    """Names; empty: all classes."""

    def concerns(self, source: str, class_name: str) -> bool:
        """Whether it watches such an object."""
        return self.source in (None, source) and (not self.classes or class_name in self.classes)


@dataclass(frozen=True, eq=False)
class Place(Watch):
    """A polygon or a line."""

    points: F64 | None = None
    """(N, 2): pixels of the upright image, or metres right of the camera and ahead of it."""
    metric: bool = False

    @property
    def outline(self) -> F64:
        assert self.points is not None
        return self.points


@dataclass(frozen=True, eq=False)
class Zone(Place):
    """A polygon."""

    dwell_s: float | None = None
    """Report an object that stays this long, seconds."""


@dataclass(frozen=True, eq=False)
class Line(Place):
    """From the first point to the second; left and right are those of somebody who walks there."""


@dataclass(frozen=True, eq=False)
class Alarm(Watch):
    """Reported while one of the two is below its limit."""

    ttc_s: float | None = None
    distance_m: float | None = None


@dataclass(frozen=True)
class EventConfig:
    """All of one file."""

    zones: tuple[Zone, ...] = ()
    lines: tuple[Line, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    hold_s: float = 0.3
    """A change of zone or side counts once it has held this long: a box that trembles on a border is no event."""
    gone_s: float = 1.0
    """An object that is not seen for this long has left."""
    clip_before_s: float = 0.0
    """Video of an event: seconds before it and after it; both 0: none."""
    clip_after_s: float = 0.0
    most_clips: int = 1000

    @property
    def places(self) -> tuple[Place, ...]:
        return (*self.zones, *self.lines)


def read_events(path: Path) -> EventConfig:
    """Read the file.

    Raises:
        UserError: not TOML, an unknown key, or values that cannot be meant.
    """
    table = read_toml(path, '[[zone]] with name = "…" and points_px = [[x, y], …]')
    known = {**dict.fromkeys(_TABLES), "hold_s": None, "gone_s": None}
    _check_keys(table, known, str(path))
    zones = tuple(_zone(row, where) for row, where in _rows(table, "zone", path))
    lines = tuple(_line(row, where) for row, where in _rows(table, "line", path))
    alarms = tuple(_alarm(row, where) for row, where in _rows(table, "alarm", path))
    names = [one.name for one in (*zones, *lines, *alarms)]
    if not names:
        raise UserError(f"{path}: nothing to watch", "[[zone]], [[line]] or [[alarm]]")
    if len(names) > MOST:
        raise UserError(f"{path}: {len(names)} zones, lines and alarms", f"at most {MOST}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: two are called '{twice[0]}'", "a name for each")
    clips = table.get("clips", {})
    if not isinstance(clips, Mapping):
        raise UserError(f"{path}: clips is no table", "[clips]")
    _check_keys(clips, _TABLES["clips"], f"{path} [clips]")
    return EventConfig(
        zones,
        lines,
        alarms,
        _number(table, "hold_s", str(path), 0, 10, 0.3),
        _number(table, "gone_s", str(path), 0, 60, 1.0),
        _number(clips, "before_s", f"{path} [clips]", 0, 30, 0.0),
        _number(clips, "after_s", f"{path} [clips]", 0, 30, 0.0),
        int(_number(clips, "most", f"{path} [clips]", 1, 100_000, 1000)),
    )


def check_events(
    config: EventConfig, sources: Mapping[str, tuple[tuple[int, int] | None, bool]], path: Path
) -> list[str]:
    """Check the places against the sources of a run; returns what should be said.

    Args:
        config: what to watch.
        sources: name → size of its images where it is known, and whether it is calibrated.
        path: the file, for messages.

    Raises:
        UserError: a source that is not there, or a place outside the image.
    """
    notes = []
    for watch in (*config.places, *config.alarms):
        if watch.source is not None and watch.source not in sources:
            raise UserError(f"{path}: '{watch.name}' watches '{watch.source}'", f"one of {', '.join(sources)}")
        concerned = {name: fact for name, fact in sources.items() if watch.source in (None, name)}
        needs_metres = isinstance(watch, Alarm) or (isinstance(watch, Place) and watch.metric)
        if needs_metres and (without := [name for name, fact in concerned.items() if not fact[1]]):
            notes.append(f"'{watch.name}' needs metres, and {', '.join(without)} has no calibration")
        if isinstance(watch, Place) and not watch.metric:
            for name, (size_hw, _) in concerned.items():
                if size_hw is not None and not _meets(watch.outline, size_hw):
                    raise UserError(
                        f"{path}: '{watch.name}' lies outside the image of {name}, {size_hw[1]}×{size_hw[0]} pixels",
                        "points_px within the upright image",
                    )
    return notes


def _meets(points: F64, size_hw: tuple[int, int]) -> bool:
    low, high = points.min(axis=0), points.max(axis=0)
    return bool((high >= 0).all() and low[0] <= size_hw[1] and low[1] <= size_hw[0])


def _rows(table: Mapping[str, Any], kind: str, path: Path) -> Iterable[tuple[Mapping[str, Any], str]]:
    rows = table.get(kind, [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise UserError(f"{path}: {kind} is no list of tables", f"[[{kind}]]")
    for number, row in enumerate(rows, 1):
        where = f"{path} [[{kind}]] {number}"
        _check_keys(row, _TABLES[kind], where)
        yield row, where


def _check_keys(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1)
            raise UserError(f"{where}: unknown key '{key}'", "one of " + ", ".join(known), *near)


def _who(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    name, source, classes = row.get("name"), row.get("source"), row.get("classes", [])
    if not isinstance(name, str) or not 0 < len(name) <= 100:
        raise UserError(f"{where}: name is {name!r}", 'a short text: name = "crossing"')
    if not isinstance(source, str | None) or not isinstance(classes, list):
        raise UserError(f"{where}: source or classes", 'source = "front", classes = ["Car"]')
    return {"name": name, "source": source, "classes": frozenset(map(str, classes))}


def _place(row: Mapping[str, Any], where: str, least: int, most: int) -> dict[str, Any]:
    given = [key for key in _PLACE if key in row]
    wanted = f"{least} points" if least == most else f"{least} points or more"
    if len(given) != 1:
        found = "both points_px and points_m" if given else "neither points_px nor points_m"
        raise UserError(f"{where}: {found}", "one of them")
    try:
        points = np.array(row[given[0]], np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or not least <= len(points) <= most or not np.isfinite(points).all():
        raise UserError(f"{where}: {given[0]}", f"{wanted}: [[x, y], …]")
    return {"points": points, "metric": given[0] == "points_m"}


def _zone(row: Mapping[str, Any], where: str) -> Zone:
    dwell = _number(row, "dwell_s", where, 0, 86_400, math.nan)
    return Zone(**_who(row, where), **_place(row, where, 3, 1000), dwell_s=None if dwell != dwell else dwell)


def _line(row: Mapping[str, Any], where: str) -> Line:
    line = Line(**_who(row, where), **_place(row, where, 2, 2))
    if (line.outline[0] == line.outline[1]).all():
        raise UserError(f"{where}: its two points are the same", "two points")
    return line


def _alarm(row: Mapping[str, Any], where: str) -> Alarm:
    ttc, distance = (_number(row, key, where, 0, 1000, math.nan) for key in ("ttc_s", "distance_m"))
    if ttc != ttc and distance != distance:
        raise UserError(f"{where}: no limit", "ttc_s or distance_m")
    return Alarm(
        **_who(row, where), ttc_s=None if ttc != ttc else ttc, distance_m=None if distance != distance else distance
    )


def _number(table: Mapping[str, Any], key: str, where: str, low: float, high: float, default: float) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or (key in table and not low <= value <= high):
        raise UserError(f"{where}: {key} is {value!r}", f"a number from {low:g} to {high:g}")
    return float(value)
