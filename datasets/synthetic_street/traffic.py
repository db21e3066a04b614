"""How everyone moves: cars keep their gap in the lane, stop for people who cross, and come and go with the view.

The whole drive is simulated once, in numbers only, so any frame can then be drawn on its own. Vehicles follow the
Intelligent Driver Model (Treiber, Hennecke, Helbing, Physical Review E 62, 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.synthetic_street.chance import pick, stable_seed
from datasets.synthetic_street.chance import sign as sign_of
from datasets.synthetic_street.config import StreetConfig
from datasets.synthetic_street.scene import VEHICLE_KINDS, Street
from perception.arrays import F64, I64

AHEAD_M = 150.0
BEHIND_M = 45.0
KINDS = (*VEHICLE_KINDS, "pedestrian", "cyclist")
_ACCELERATION, _BRAKE, _HEADWAY_S, _STANDSTILL_M = 1.6, 2.2, 1.3, 2.5
_LENGTHS = np.array([4.3, 5.4, 10.0, 0.6, 1.8])
_CROSSERS = 3


@dataclass(eq=False)
class _Crowd:
    """Everyone of one way of moving, column by column. The first vehicle of the first lane is the camera's car."""

    kind: I64
    ids: I64
    lane: I64
    """Index of the lane, or of the pavement's side."""
    s: F64
    d: F64
    v: F64
    wish: F64
    """Speed each would like, metres a second."""
    direction: F64
    """+1 with the camera, −1 against it."""


@dataclass(frozen=True, eq=False)
class Traffic:
    """The drive in numbers, frame by frame; column j of a row is one body for as long as its id stays."""

    ego_s: F64
    """(T,) of the camera along the road, metres."""
    ego_d: float
    kind: I64
    """(T, N) index into `KINDS`."""
    ids: I64
    """(T, N) track ids, -1 where nobody is."""
    s: F64
    d: F64
    turn: F64
    """(T, N) heading relative to the road's, radians."""
    phase: F64
    """(T, N) of the step or pedal turn, radians."""
    moving: np.ndarray
    """(T, N) bool."""


class _Simulation:
    def __init__(self, config: StreetConfig, street: Street) -> None:
        self.rng = np.random.default_rng(stable_seed(config.seed, 3))
        self.config, self.street, self.section = config, street, street.section
        self.next_id = 1
        self.ego = 30.0
        self.ego_lane = int(self.rng.integers(self.section.lanes))
        self.lanes = [(direction, lane) for direction in (1, -1) for lane in range(self.section.lanes)]
        self.cars = self._start_cars()
        self.walkers = self._start_walkers()
        self.crossings: dict[float, _Crowd] = {}
        self.crossing_since: dict[float, float] = {}

    def _new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    # ----------------------------------------------------------------- start

    def _start_cars(self) -> _Crowd:
        rng, section = self.rng, self.section
        own = section.lane_centre(self.ego_lane, 1)
        wish = self.config.ego_speed_mps
        rows = [(0, 0, self.ego_lane, self.ego, own, 0.0, section.speed_mps if wish is None else wish, 1.0)]
        for index, (direction, lane) in enumerate(self.lanes):
            spacing = rng.uniform(16, 34) / max(self.config.traffic, 1e-3)
            at = self.ego - BEHIND_M + rng.uniform(0, spacing)
            while at < self.ego + AHEAD_M:
                ours = direction > 0 and lane == self.ego_lane
                if not (ours and self.ego - 18 < at < self.ego + 14):
                    kind = pick(rng, (0.86, 0.09, 0.05))
                    rows.append(
                        (
                            kind,
                            self._new_id(),
                            index,
                            at,
                            section.lane_centre(lane, direction) + rng.normal(0, 0.12),
                            0.0,
                            section.speed_mps * rng.uniform(0.8, 1.15),
                            float(direction),
                        )
                    )
                at += 9 + rng.exponential(spacing)
        crowd = _crowd(rows)
        crowd.v = crowd.wish * 0.9
        return crowd

    def _start_walkers(self) -> _Crowd:
        rng, section = self.rng, self.section
        busy = {"city": 1.3, "suburb": 0.8, "country": 0.2, "arterial": 0.5}[section.setting] * self.config.people
        rows = []
        for sign in (-1, 1):
            side = section.side(sign)
            inner, outer = side.parking + 0.4, max(side.pavement - 0.3, side.parking + 0.8)
            for kind, mean in ((3, 3.0 * busy), (4, 0.8 * busy)):
                for _ in range(rng.poisson(mean)):
                    if kind == 4:
                        d = sign * (side.road - rng.uniform(0.25, 0.6))
                        direction, wish = float(sign), rng.uniform(3.2, 6.0)
                    else:
                        d = sign * rng.uniform(inner, outer)
                        direction, wish = float(sign_of(rng)), rng.uniform(0.9, 1.7)
                    at = self.ego + rng.uniform(4, 90 if kind == 3 else AHEAD_M)
                    rows.append((kind, self._new_id(), sign, at, d, wish, wish, direction))
                    if kind == 3 and rng.random() < 0.35:  # two together
                        rows.append(
                            (
                                3,
                                self._new_id(),
                                sign,
                                at + rng.normal(0, 0.3),
                                d + sign_of(rng) * 0.6,
                                wish,
                                wish,
                                direction,
                            )
                        )
        return _crowd(rows)

    # ------------------------------------------------------------------ step

    def step(self, dt: float, time_s: float) -> None:
        self._people(dt, time_s)
        self._drive(dt)
        self._renew()

    def _drive(self, dt: float) -> None:
        cars = self.cars
        gap, closing = np.full(len(cars.s), 1e3), np.zeros(len(cars.s))
        along = cars.s * cars.direction
        length = _LENGTHS[cars.kind]
        for index in range(len(self.lanes)):
            lane = np.flatnonzero(cars.lane == index)
            if len(lane) < 2:
                continue
            order = lane[np.argsort(along[lane], kind="stable")]
            here, front = order[:-1], order[1:]
            gap[here] = along[front] - along[here] - (length[front] + length[here]) / 2
            closing[here] = cars.v[here] - cars.v[front]
        for at, crowd in self.crossings.items():
            if not self._busy(crowd):
                continue
            to_line = (at - cars.s) * cars.direction - 4.6 - length / 2
            stops = (to_line > 0) & (to_line < gap) & (to_line > cars.v**2 / 9.0)
            gap, closing = np.where(stops, to_line, gap), np.where(stops, cars.v, closing)
        gap = np.maximum(gap, 0.3)
        wish_gap = _STANDSTILL_M + np.maximum(
            0, cars.v * _HEADWAY_S + cars.v * closing / (2 * np.sqrt(_ACCELERATION * _BRAKE))
        )
        change = _ACCELERATION * (1 - (cars.v / np.maximum(cars.wish, 0.1)) ** 4 - (wish_gap / gap) ** 2)
        cars.v = np.maximum(0, cars.v + np.clip(change, -7.0, _ACCELERATION) * dt)
        cars.s = cars.s + cars.v * cars.direction * dt
        self.ego = float(cars.s[0])

    def _busy(self, crowd: _Crowd) -> bool:
        right, left = self.section.right.road + 0.8, self.section.left.road + 0.8
        return bool(((crowd.d < right) & (crowd.d > -left)).any())

    def _people(self, dt: float, time_s: float) -> None:
        walkers = self.walkers
        walkers.s = walkers.s + walkers.v * walkers.direction * dt
        for _, block in self.street.blocks(self.ego, self.ego + 90):
            for at in block.crossings:
                # they set out while we are far enough to see it and to stop
                if at not in self.crossings and 28 < at - self.ego < 75:
                    self.crossings[at] = self._crossers(at)
                    self.crossing_since[at] = time_s
        for crowd in self.crossings.values():
            crowd.d = crowd.d + crowd.direction * crowd.v * dt

    def _crossers(self, at: float) -> _Crowd:
        rng, section = self.rng, self.section
        rows = []
        for _ in range(int(min(_CROSSERS, rng.poisson(1.8 * self.config.people)))):
            sign = sign_of(rng)
            speed = rng.uniform(1.1, 1.7)
            # a few steps from the kerb when the camera comes near
            start = sign * (section.side(sign).parking + 0.4 + rng.uniform(0, 2.5))
            kind = 3 if rng.random() < 0.85 else 4
            rows.append(
                (
                    kind,
                    self._new_id(),
                    sign,
                    at + rng.uniform(-1.4, 1.4),
                    start,
                    speed * (1 if kind == 3 else 2.0),
                    speed,
                    float(-sign),
                )
            )
        return _crowd(rows)

    def _renew(self) -> None:
        """Who has left the view comes back as somebody else at its other end."""
        rng, cars, section = self.rng, self.cars, self.section
        ahead = cars.s - self.ego
        for i in np.flatnonzero((ahead < -BEHIND_M - 20) | (ahead > AHEAD_M + 30)):
            if i == 0:
                continue
            direction, lane = self.lanes[cars.lane[i]]
            far = ahead[i] < 0  # left behind: next seen far ahead
            at = self.ego + (AHEAD_M + rng.uniform(0, 25) if far else -BEHIND_M - rng.uniform(0, 15))
            same = np.flatnonzero(cars.lane == cars.lane[i])
            same = same[same != i]
            if len(same) and np.abs(cars.s[same] - at).min() < 20:
                continue
            kind = pick(rng, (0.86, 0.09, 0.05))
            cars.kind[i], cars.ids[i] = kind, self._new_id()
            cars.s[i], cars.d[i] = at, section.lane_centre(lane, direction) + rng.normal(0, 0.12)
            cars.wish[i] = section.speed_mps * rng.uniform(0.8, 1.15)
            cars.v[i] = cars.wish[i] * 0.8
        walkers = self.walkers
        offset = walkers.s - self.ego
        for i in np.flatnonzero((offset < -12) | (offset > AHEAD_M + 10)):
            walkers.ids[i] = self._new_id()
            walkers.s[i] = self.ego + (rng.uniform(55, 110) if offset[i] < 0 else rng.uniform(40, 90))
        for at in [a for a in self.crossings if a < self.ego - 15]:
            del self.crossings[at]


def _crowd(rows: list[tuple]) -> _Crowd:
    table = np.array(rows, np.float64).reshape(-1, 8)
    whole = table[:, :3].astype(np.int64)
    return _Crowd(
        whole[:, 0], whole[:, 1], whole[:, 2], table[:, 3], table[:, 4], table[:, 5], table[:, 6], table[:, 7]
    )


def simulate(config: StreetConfig, street: Street) -> Traffic:
    """Play the whole drive in numbers."""
    run = _Simulation(config, street)
    dt = 1.0 / config.fps
    for k in range(int(4 / dt) if dt < 4 else 0):  # let the queues settle
        run._drive(dt)
        run._renew() if k % 10 == 0 else None
    frames, crossing_slots = config.frames, 4 * _CROSSERS
    count = len(run.cars.s) - 1 + len(run.walkers.s) + crossing_slots
    kind = np.zeros((frames, count), np.int64)
    ids = np.full((frames, count), -1, np.int64)
    s, d, turn, phase = (np.zeros((frames, count)) for _ in range(4))
    moving = np.zeros((frames, count), bool)
    ego_s = np.zeros(frames)
    start = run.ego
    for t in range(frames):
        ego_s[t] = run.ego
        at = 0
        for crowd, first, crossing in [(run.cars, 1, False), (run.walkers, 0, False)] + [
            (c, 0, True) for c in list(run.crossings.values())[-4:]
        ]:
            n = len(crowd.s) - first
            if at + n > count:
                break
            part = slice(at, at + n)
            kind[t, part], ids[t, part] = crowd.kind[first:], crowd.ids[first:]
            s[t, part], d[t, part] = crowd.s[first:], crowd.d[first:]
            towards = crowd.direction[first:]
            turn[t, part] = towards * np.pi / 2 if crossing else np.where(towards > 0, 0.0, np.pi)
            # a step is about 1.3 m and 2π; a crank turns once in about 5 m; both follow the way gone
            way = (crowd.d[first:] if crossing else crowd.s[first:] - start) * towards
            rate = np.where(crowd.kind[first:] == 4, 2 * np.pi / 5.0, 2 * np.pi / 1.35)
            phase[t, part] = way * rate + crowd.ids[first:] * 1.7
            moving[t, part] = crowd.v[first:] > 0.3
            at += n
        run.step(dt, t * dt)
    return Traffic(ego_s, float(run.cars.d[0]), kind, ids, s, d, turn, phase, moving)
