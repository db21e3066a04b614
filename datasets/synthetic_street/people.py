"""Pedestrians and cyclists: jointed figures of tapered limbs that walk, stand or pedal, dressed at random.

Local axes as for vehicles: x right, h up, f forward; origin on the road below the hips. Metres.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from datasets.synthetic_street.chance import pick
from datasets.synthetic_street.geometry import View
from perception.arrays import F64, I64

SKIN, HAIR, TOP, TROUSERS, SHOES, BAG, FRAME, RUBBER = range(8)

_CAP = np.linspace(-np.pi / 2, np.pi / 2, 5)
_ROUND = np.concatenate([np.pi + _CAP, _CAP])
"""Half circles round both ends of a limb: the start's looks back, the end's looks on."""
_END = np.repeat([0, 1], 5)
_CIRCLE_COS, _CIRCLE_SIN = (f(np.linspace(0, 2 * np.pi, 21)[:-1]) for f in (np.cos, np.sin))


@dataclass(frozen=True, eq=False)
class Limbs:
    """Tapered capsules: joints and radii of both ends, and what covers them."""

    start: F64
    """(L, 3) x, h, f."""
    end: F64
    """(L, 3)."""
    radii: F64
    """(L, 2) metres at start and end."""
    materials: I64
    """(L,)."""
    wheels: F64
    """(W, 4) centre h, centre f, radius, thickness of each bicycle wheel, metres."""


@dataclass(frozen=True, eq=False)
class Person:
    """One person's looks and build; `rides` makes a cyclist of them."""

    name: str
    height_m: float
    bulk: float
    palette: F64
    """(8, 3) BGR reflectance 0..255."""
    stride: float
    """Metres of a double step."""
    coat: bool
    skirt: bool
    bag: int
    """0 none, 1 rucksack, 2 hand bag."""
    lean: float
    """Of a rider's trunk, radians from upright."""
    bare_arms: bool
    rides: bool

    @property
    def dimensions_hwl(self) -> tuple[float, float, float]:
        if self.rides:
            return self.height_m * 0.99, 0.6, 1.76
        return self.height_m, 0.6 * self.bulk, 0.55 + 0.2 * self.stride


def make_person(rides: bool, rng: np.random.Generator) -> Person:
    """Somebody, with looks drawn from `rng`; one in eight pedestrians is a child."""
    child = not rides and rng.random() < 0.12
    height = rng.uniform(1.05, 1.5) if child else float(np.clip(rng.normal(1.74, 0.09), 1.5, 1.98))

    def cloth(dark: float) -> tuple[float, float, float]:
        a, b, c, d = rng.random(4).tolist()
        if a < dark:
            r, g, b = colorsys.hsv_to_rgb(0.53 + 0.17 * b, 0.47 * c, 15 + 65 * d)
        else:
            r, g, b = colorsys.hsv_to_rgb(b, 0.86 * c**1.4, 60 + 180 * d)
        return b, g, r

    palette = np.zeros((8, 3))
    palette[SKIN] = np.array([110, 140, 195]) * rng.uniform(0.45, 1.15)
    palette[HAIR] = np.array([30, 45, 65]) * rng.uniform(0.3, 3.0)
    palette[TOP], palette[TROUSERS] = cloth(0.4), cloth(0.65)
    palette[SHOES] = rng.uniform(20, 200) if rng.random() < 0.3 else 25
    palette[BAG] = cloth(0.6)
    palette[FRAME] = cloth(0.6)
    palette[RUBBER] = 22
    if rides and rng.random() < 0.4:
        palette[HAIR] = cloth(0.2)  # a helmet
    return Person(
        "Cyclist" if rides else "Pedestrian",
        height,
        float(rng.uniform(0.85, 1.2)),
        np.clip(palette, 5, 250),
        float(rng.uniform(1.1, 1.5)) * height / 1.74,
        bool(rng.random() < 0.3),
        bool(rng.random() < 0.15),
        pick(rng, (0.5, 0.25, 0.25)),
        float(rng.uniform(0.15, 0.75)),
        bool(rng.random() < 0.4),
        rides,
    )


Point = tuple[float, float, float]


def _off(p: Point, x: float, h: float, f: float) -> Point:
    return p[0] + x, p[1] + h, p[2] + f


def _two_bone(a: Point, b: Point, upper: float, lower: float, bend: float) -> Point:
    """The joint between a and b in the f-h plane for two bones; `bend` picks the side (knees +1, elbows −1)."""
    dx, dh, df = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    length = max(math.sqrt(dx * dx + dh * dh + df * df), 1e-6)
    reach = min(length, upper + lower - 1e-4)
    along = (upper**2 - lower**2 + reach**2) / (2 * reach)
    off = math.sqrt(max(upper**2 - along**2, 0.0))
    ux, uh, uf = dx / length, dh / length, df / length
    nh, nf = (-uf, uh) if uh * bend >= 0 else (uf, -uh)
    return a[0] + ux * along, a[1] + uh * along + nh * off, a[2] + uf * along + nf * off


def pose(person: Person, phase: float, walking: bool) -> Limbs:
    """The figure at a phase of its step or pedal turn (radians)."""
    return _riding(person, phase) if person.rides else _walking(person, phase, walking)


class _Figure:
    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []
        self.materials: list[int] = []
        self.wheels: list[tuple[float, float, float, float]] = []

    def add(self, a: Point, b: Point, ra: float, rb: float, material: int) -> None:
        self.rows.append((*a, *b, ra, rb))
        self.materials.append(material)

    def limbs(self, scale: float) -> Limbs:
        table = np.array(self.rows) * scale  # (L, 8)
        return Limbs(
            table[:, :3],
            table[:, 3:6],
            table[:, 6:],
            np.array(self.materials),
            np.array(self.wheels).reshape(-1, 4),
        )


def _head(figure: _Figure, neck: Point, tilt: float) -> None:
    """Head and hair or helmet above the neck."""
    crown = _off(neck, 0, 0.17, 0.03 + tilt * 0.1)
    figure.add(_off(neck, 0, -0.03, 0), _off(neck, 0, 0.08, 0.01), 0.06, 0.06, SKIN)
    figure.add(_off(neck, 0, 0.09, 0.02), crown, 0.085, 0.1, SKIN)
    figure.add(_off(crown, 0, -0.06, -0.045), _off(crown, 0, 0.02, -0.01), 0.09, 0.103, HAIR)


def _walking(person: Person, phase: float, walking: bool) -> Limbs:
    """Figure of unit height 1.74 m, scaled after."""
    figure, bulk = _Figure(), person.bulk
    swing = 0.30 * (person.stride / 1.3) if walking else 0.03
    bob = 0.02 * abs(math.cos(phase)) if walking else 0.0
    hip_h, shoulder_h = 0.90 + bob, 1.42 + bob
    cover = SKIN if person.skirt else TROUSERS
    for side, shift in ((-1, 0.0), (1, math.pi)):
        along = math.sin(phase + shift)
        lift = max(0.0, math.cos(phase + shift)) * 0.12 if walking else 0.0
        hip = (side * 0.09 * bulk, hip_h, 0.0)
        ankle = (side * 0.08, 0.09 + lift, along * swing)
        knee = _two_bone(hip, ankle, 0.44, 0.43, 1)
        figure.add(hip, knee, 0.095 * bulk, 0.07 * bulk, cover)
        figure.add(knee, ankle, 0.068 * bulk, 0.045, cover)
        figure.add(_off(ankle, 0, -0.04, -0.03), _off(ankle, 0, -0.05, 0.14), 0.042, 0.035, SHOES)
        shoulder = (side * 0.19 * bulk, shoulder_h - 0.03, 0.0)
        hand = (side * 0.25 * bulk, 0.86 + bob, -along * swing * 0.75 + 0.06)
        elbow = _two_bone(shoulder, hand, 0.29, 0.27, -1)
        figure.add(shoulder, elbow, 0.058 * bulk, 0.05 * bulk, TOP)
        figure.add(elbow, hand, 0.045, 0.035, SKIN if person.bare_arms else TOP)
        figure.add(hand, _off(hand, 0, -0.07, 0.01), 0.04, 0.035, SKIN)
    hem = 0.62 if person.coat else 0.92
    for side in (-1, 1):
        figure.add(
            (side * 0.1 * bulk, shoulder_h - 0.06, 0.0),
            (side * 0.08 * bulk, hem + bob, 0.0),
            0.105 * bulk,
            0.105 * bulk,
            TOP,
        )
    if person.skirt:
        figure.add((0.0, 0.95, 0.0), (0.0, 0.6, 0.0), 0.14 * bulk, 0.19 * bulk, TROUSERS)
    if person.bag == 1:
        figure.add((0.0, 1.32, -0.16), (0.0, 1.02, -0.17), 0.12, 0.13, BAG)
    elif person.bag == 2:
        figure.add((0.3 * bulk, 0.74, 0.05), (0.3 * bulk, 0.62, 0.05), 0.1, 0.12, BAG)
    _head(figure, (0.0, 1.47 + bob, 0.02), 0.0)
    return figure.limbs(person.height_m / 1.74)


def _bicycle(figure: _Figure) -> tuple[Point, Point, Point]:
    """Frame, bars, saddle and wheels; returns crank, saddle and bars. The saddle is 0.95 m high."""
    wheel, rear_f, front_f = 0.335, -0.52, 0.53
    crank, saddle, bars, head = (0.0, 0.29, -0.08), (0.0, 0.93, -0.26), (0.0, 1.02, 0.36), (0.0, 0.82, 0.36)
    rear, front = (0.0, wheel, rear_f), (0.0, wheel, front_f)
    for a, b in (
        (crank, saddle), (crank, head), (_off(saddle, 0, -0.12, 0.03), head), (head, bars), (crank, rear),
        (_off(saddle, 0, -0.1, 0), rear), (head, front),
    ):  # fmt: skip
        figure.add(a, b, 0.018, 0.018, FRAME)
    figure.add(_off(bars, -0.27, 0.02, -0.03), _off(bars, 0.27, 0.02, -0.03), 0.016, 0.016, RUBBER)
    figure.add(_off(saddle, 0, 0.02, -0.1), _off(saddle, 0, 0.02, 0.1), 0.06, 0.03, RUBBER)
    figure.wheels = [(wheel, rear_f, wheel, 0.045), (wheel, front_f, wheel, 0.045)]
    return crank, saddle, bars


def bicycle() -> Limbs:
    """A bicycle without a rider."""
    figure = _Figure()
    _bicycle(figure)
    return figure.limbs(1.0)


def _riding(person: Person, phase: float) -> Limbs:
    """Rider and bicycle."""
    figure, bulk = _Figure(), person.bulk
    crank, saddle, bars = _bicycle(figure)
    if person.bag == 2:
        figure.add((0.0, 0.72, -0.6), (0.0, 0.62, -0.45), 0.13, 0.13, BAG)
    size = person.height_m / 1.74
    hips = _off(saddle, 0, 0.09, 0)
    trunk = 0.52 * size
    neck = _off(hips, 0, math.cos(person.lean) * trunk, math.sin(person.lean) * trunk)
    for side, shift in ((-1, 0.0), (1, math.pi)):
        turn = phase + shift
        pedal = _off(crank, side * 0.12, -0.17 * math.cos(turn) + 0.04, 0.17 * math.sin(turn))
        hip = _off(hips, side * 0.09, 0, 0)
        knee = _two_bone(hip, pedal, 0.44 * size, 0.44 * size, 1)
        figure.add(hip, knee, 0.1 * bulk, 0.068 * bulk, TROUSERS)
        figure.add(knee, pedal, 0.066 * bulk, 0.045, TROUSERS if not person.skirt else SKIN)
        figure.add(_off(pedal, 0, -0.02, -0.05), _off(pedal, 0, -0.03, 0.13), 0.042, 0.035, SHOES)
        shoulder = _off(neck, side * 0.18 * bulk, -0.05, 0)
        grip = _off(bars, side * 0.25, 0.05, -0.03)
        elbow = _two_bone(shoulder, grip, 0.3 * size, 0.28 * size, -1)
        figure.add(shoulder, elbow, 0.055 * bulk, 0.048 * bulk, TOP)
        figure.add(elbow, grip, 0.044, 0.036, SKIN if person.bare_arms else TOP)
    for side in (-1, 1):
        figure.add(
            _off(neck, side * 0.09 * bulk, -0.07, 0),
            _off(hips, side * 0.07 * bulk, 0.02, 0),
            0.105 * bulk,
            0.105 * bulk,
            TOP,
        )
    if person.bag == 1:
        middle = ((neck[0] + hips[0]) / 2, (neck[1] + hips[1]) / 2 + 0.06, (neck[2] + hips[2]) / 2 - 0.17)
        figure.add(_off(middle, 0, 0.14, 0.05), _off(middle, 0, -0.14, -0.05), 0.11, 0.12, BAG)
    _head(figure, _off(neck, 0, 0.07, 0.05), 0.4 * person.lean)
    return figure.limbs(1.0)


@dataclass(frozen=True, eq=False)
class Silhouette:
    """A figure projected to pixels."""

    capsules: F64
    """(L, 10, 2) outlines."""
    middles: F64
    """(L, 10, 2) the joint that each outline point goes round."""
    radii: F64
    """(L, 10) pixels."""
    depth: F64
    """(L,) metres."""
    materials: I64
    wheels: list[tuple[F64, float]]
    """(20, 2) rim outline and thickness in pixels of each wheel."""

    def points(self) -> F64:
        """All outline points, (N, 2)."""
        return np.concatenate([self.capsules.reshape(-1, 2)] + [rim for rim, _ in self.wheels])

    def lit(self, light_side: float) -> F64:
        """(L, 10, 2) the part of each limb that faces the light; `light_side` −1..1 says from where it falls."""
        shrunk = self.middles + (self.capsules - self.middles) * [0.58, 0.7]
        return shrunk + self.radii[..., None] * [0.42 * light_side, -0.22]


def silhouette(limbs: Limbs, view: View, X: float, Z: float, yaw: float) -> Silhouette:
    """Project a posed figure that stands at (X, Z), turned by `yaw` from the camera's heading."""
    return silhouettes([(limbs, X, Z, yaw)], view)[0]


def silhouettes(figures: list[tuple[Limbs, float, float, float]], view: View) -> list[Silhouette]:
    """`silhouette` for limbs, X, Z and yaw of many figures in one pass."""
    if not figures:
        return []
    bounds = np.cumsum([0] + [len(limbs.materials) for limbs, *_ in figures]).tolist()
    of = np.repeat(np.arange(len(figures)), np.diff(bounds))
    X, Z, yaw = (np.array([figure[k] for figure in figures]) for k in (1, 2, 3))
    cos, sin = np.cos(yaw)[of, None], np.sin(yaw)[of, None]
    # (L, 2) x, height and f of both joints of every limb
    x, up, f = (np.concatenate([np.stack([b.start[:, k], b.end[:, k]], 1) for b, *_ in figures]) for k in range(3))
    cz = np.maximum(Z[of, None] - x * sin + f * cos, 0.3)
    u, v = view.project(X[of, None] + x * cos + f * sin, up, cz)
    focal = view.camera.P_cam2[1, 1]
    radius = np.maximum(np.concatenate([limbs.radii for limbs, *_ in figures]) * focal / cz, 0.5)  # (L, 2)
    along = np.arctan2(v[:, 1] - v[:, 0], u[:, 1] - u[:, 0])
    angle = along[:, None] + _ROUND  # (L, 10)
    r = radius[:, _END]
    middles = np.stack([u[:, _END], v[:, _END]], -1)
    capsules = middles + np.stack([r * np.cos(angle), r * np.sin(angle)], -1)
    depth = cz.mean(1)
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    return [
        Silhouette(
            capsules[part], middles[part], r[part], depth[part], limbs.materials, _rims(limbs, view, x0, z0, turn)
        )
        for part, (limbs, x0, z0, turn) in zip(parts, figures, strict=True)
    ]


def _rims(limbs: Limbs, view: View, X: float, Z: float, yaw: float) -> list[tuple[F64, float]]:
    """Outline and thickness in pixels of a bicycle's wheels."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    rims = []
    for h, f, radius, thickness in limbs.wheels.tolist():
        along, up = f + radius * _CIRCLE_COS, h + radius * _CIRCLE_SIN
        u, v = view.project(X + along * sin, up, np.maximum(Z + along * cos, 0.3))
        rims.append((np.stack([u, v], 1), thickness * view.P_rows[1][1] / max(Z + f * cos, 0.3)))
    return rims
