"""Cars, vans and trucks: closed 3-D bodies lofted from a side profile, with glass, lights, plates and wheels on them.

Local axes: x to the right, h up from the road, f forward; origin on the road below the middle. Metres.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from datasets.synthetic_street.chance import pick
from datasets.synthetic_street.geometry import NEAR_M
from perception.arrays import F64, I64

PAINT, GLASS, DARK, TYRE, RIM, HEADLIGHT, TAIL, PLATE, UNDER, TRIM, CARGO = range(11)
MATERIALS = 11


@dataclass(frozen=True, eq=False)
class VehicleShape:
    """A body of unit scale: vertices and outward-turned faces."""

    name: str
    """KITTI's class: Car, Van or Truck."""
    dimensions_hwl: tuple[float, float, float]
    vertices: F64
    """(V, 3) x, h, f."""
    quads: I64
    """(F, 4), anticlockwise from outside (x right, h up, f towards the viewer)."""
    normals: F64
    """(F, 3) unit, outward."""
    centres: F64
    """(F, 3)."""
    materials: I64
    """(F,)."""
    layers: I64
    """(F,) 0 underbody and wheels seen through, 1 body, 2 and above what is stuck on the body."""
    detail: I64
    """(F,) smallest height in pixels at which the face is worth drawing."""
    mottle: F64
    """(F,) brightness of each face about 1: dirt, dents and what else keeps panels from being even."""
    rings: I64
    """(F,) row of `gons` that takes the quad's place, -1 for plain quads."""
    gons: I64
    """(G, 12) vertices of round faces."""
    outline: I64
    """Vertices that can reach the edge of the silhouette."""
    parts: tuple[I64, ...]
    """Groups of vertices whose convex hulls together fill the silhouette."""


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product over the last axis; numpy's own takes ten times as long for one pair."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


RING = 12
Parts = Callable[[F64], list[np.ndarray]]
"""From vertices (N, 3) to masks of convex groups."""


class _Builder:
    """Collects faces and turns each one's front outward."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float, float]] = []
        self.faces: list[tuple[list[int], int, int, int, int]] = []
        self.gons: list[list[int]] = []

    def face(self, corners: list, material: int, layer: int, detail: int, outward: np.ndarray | None = None) -> None:
        """A quad, or a round face of `RING` corners; `outward` says which way it looks."""
        points = np.array(corners, np.float64)
        round_face = len(points) == RING
        spread = points[:: RING // 4] if round_face else points
        normal = _cross(spread[2] - spread[0], spread[3] - spread[1])
        direction = points.mean(0) - np.array([0, 0.6, 0]) if outward is None else outward
        if normal @ direction < 0:
            points = points[::-1]
        start = len(self.points)
        self.points.extend(map(tuple, points))
        numbers = list(range(start, start + len(points)))
        ring = -1
        if round_face:
            ring = len(self.gons)
            self.gons.append(numbers)
            numbers = numbers[:: RING // 4]
        self.faces.append((numbers, material, layer, detail, ring))

    def both_sides(self, corners: list, material: int, layer: int, detail: int, outward: list | None = None) -> None:
        """A face and its mirror image across the middle plane."""
        flip = np.array([-1.0, 1.0, 1.0])
        points = np.array(corners, np.float64)
        out = None if outward is None else np.array(outward, np.float64)
        self.face(list(points), material, layer, detail, out)
        self.face(list(points * flip), material, layer, detail, None if out is None else out * flip)

    def build(self, name: str, hwl: tuple[float, float, float], parts: Parts) -> VehicleShape:
        """The finished body; `parts` groups the vertices of its silhouette."""
        numbers: dict[tuple[float, float, float], int] = {}
        inverse = np.array([numbers.setdefault(tuple(np.round(p, 4)), len(numbers)) for p in self.points])
        vertices = np.array(list(numbers))
        quads = inverse[np.array([face[0] for face in self.faces])]
        corners = vertices[quads]  # (F, 4, 3)
        normals = _cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        _, materials, layers, detail, rings = (np.array(column) for column in zip(*self.faces, strict=True))
        outline = np.unique(quads[layers <= 1])
        return VehicleShape(
            name,
            hwl,
            vertices,
            quads,
            normals,
            corners.mean(1),
            materials,
            layers,
            detail,
            1 + 0.035 * np.random.default_rng(len(quads)).standard_normal(len(quads)),
            rings,
            inverse[np.array(self.gons)],
            outline,
            tuple(outline[mask] for mask in parts(vertices[outline])),
        )


def _inset(corners: np.ndarray, share_along: float, share_across: float, lift: float = 0.006) -> np.ndarray:
    """A quad (a b c d) shrunk along ab and across ad, lifted off its plane by `lift` metres to the outside."""
    a, b, c, d = corners
    u0, u1, v0, v1 = share_along, 1 - share_along, share_across, 1 - share_across

    def at(u: float, v: float) -> np.ndarray:
        return (a * (1 - u) + b * u) * (1 - v) + (d * (1 - u) + c * u) * v

    return np.array([at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1)]) * np.array([1, 1, 1])


def _wheel(build: _Builder, x: float, f: float, radius: float, width: float) -> None:
    """Tyre as a prism, arch, rim and hub on the outside."""
    turn = np.linspace(0, 2 * np.pi, 13)[:-1] + np.pi / 12
    ring = np.stack([np.sin(turn), np.cos(turn)], 1)  # (12, 2) of h, f

    def disc(r: float, at: float, squash: float = 1.0) -> list[list[float]]:
        return [[at, radius + r * h * squash, f + r * k] for h, k in ring]

    for side in (-1, 1):
        out = np.array([side, 0.0, 0.0])
        inner, outer = disc(radius, side * (x - width)), disc(radius, side * x)
        for i in range(12):
            j = (i + 1) % 12
            middle = np.array(
                [0, np.mean([outer[i][1], outer[j][1]]) - radius, np.mean([outer[i][2], outer[j][2]]) - f]
            )
            build.face([outer[i], outer[j], inner[j], inner[i]], TYRE, 0, 26, middle)

        arch = [[side * (x + 0.002), max(0.14, p[1]), p[2]] for p in disc(radius * 1.17, 0)]
        build.face(arch, UNDER, 2, 18, out)
        build.face(disc(radius, side * (x + 0.008)), TYRE, 3, 0, out)
        build.face(disc(radius * 0.64, side * (x + 0.014)), RIM, 4, 20, out)
        for k in range(5):  # gaps between the spokes
            angle = 2 * np.pi * k / 5
            corners = [
                [side * (x + 0.018), radius + r * radius * np.sin(angle + w), f + r * radius * np.cos(angle + w)]
                for r, w in ((0.2, -0.5), (0.55, -0.42), (0.55, 0.42), (0.2, 0.5))
            ]
            build.face(corners, DARK, 5, 70, out)


def _pane(build: _Builder, a: np.ndarray, b: np.ndarray) -> None:
    """Windscreen or rear window from one cross-section to another."""
    mirror = np.array([-1.0, 1.0, 1.0])
    slope = b[5] - a[5]
    out = np.array([0.0, abs(slope[2]), -slope[1] * np.sign(slope[2])])
    corners = np.array([a[3], a[3] * mirror, b[3] * mirror, b[3]]) + [0.0, 0.012, 0.0]
    build.face(
        list(_inset(corners, 0.04, 0.06) + out / max(float(np.linalg.norm(out)), 1e-9) * 0.025), GLASS, 2, 0, out
    )


def _loft(build: _Builder, stations: list[dict], glass: dict[int, tuple[bool, int]], bevel: float) -> None:
    """Skin over cross-sections from front to back.

    Each station has f, low, belt, top (heights), w (half width at the belt), roof (half width at the top).
    `glass[i] = (side, top)` says that the strip from station i to i+1 carries a side window, and over how many
    strips a windscreen or rear window reaches from station i.
    """
    rings = []
    for s in stations:
        w, belt, low = s["w"], s["belt"], s["low"]
        mid = low + (belt - low) * 0.55
        rings.append(
            np.array(
                [
                    [w * 0.96, low, s["f"]],
                    [w, mid, s["f"]],
                    [w * 0.985, belt, s["f"]],
                    [s["roof"], s["top"] - bevel * min(1.0, (s["top"] - belt) * 4 + 0.2), s["f"]],
                    [s["roof"] * 0.72, s["top"], s["f"]],
                    [0.0, s["top"] + 0.012, s["f"]],
                ]
            )
        )
    for i in range(len(rings) - 1):
        a, b = rings[i], rings[i + 1]
        for k in range(5):
            corners = np.array([a[k], b[k], b[k + 1], a[k + 1]])
            span = np.linalg.norm(corners[0] - corners[1]) + np.linalg.norm(corners[2] - corners[3])
            if span < 1e-3:
                continue
            if k < 4:
                outward = [1.0, 0.0, 0.0] if k < 2 else [0.7, 1.0, 0.0]
            else:
                outward = [0.0, 1.0, 0.0]
            slope = b[5] - a[5]
            tilt = np.array([0.0, abs(slope[2]) + 1e-6, slope[1] * np.sign(-slope[2]) * -1.0])
            out = np.array(outward) if k < 3 else np.array(outward) * 0.3 + tilt
            build.both_sides(list(corners), PAINT, 1, 0, list(out))
            side, top = glass.get(i, (False, 0))
            if side and k == 2:
                build.both_sides(list(_inset(corners, 0.05, 0.08) + [0.008, 0, 0]), GLASS, 2, 0, list(out))
        side, top = glass.get(i, (False, 0))
        if top:
            _pane(build, a, rings[i + 1 + top - 1])
    for ring, direction in ((rings[0], 1.0), (rings[-1], -1.0)):
        out = np.array([0.0, 0.0, direction])
        for k in range(5):
            build.both_sides(
                [ring[k], ring[k + 1], ring[k + 1] * [0, 1, 1], ring[k] * [0, 1, 1]], PAINT, 1, 0, list(out)
            )


def _box(build: _Builder, x: float, h0: float, h1: float, f0: float, f1: float, material: int, layer: int) -> None:
    """A cuboid over half width x, heights h0..h1, from f0 back to f1."""
    build.both_sides([[x, h0, f0], [x, h0, f1], [x, h1, f1], [x, h1, f0]], material, layer, 0, [1, 0, 0])
    for f, direction in ((f0, 1.0), (f1, -1.0)):
        build.face(
            [[x, h0, f], [-x, h0, f], [-x, h1, f], [x, h1, f]], material, layer, 0, np.array([0, 0, direction])
        )
    build.face([[x, h1, f0], [-x, h1, f0], [-x, h1, f1], [x, h1, f1]], material, layer, 0, np.array([0, 1.0, 0]))


def _panel(
    build: _Builder, f: float, x0: float, x1: float, h0: float, h1: float, material: int, detail: int, layer: int = 3
) -> None:
    """An upright rectangle on the front (f > 0) or the back."""
    build.face(
        [[x0, h0, f], [x1, h0, f], [x1, h1, f], [x0, h1, f]], material, layer, detail, np.array([0, 0, np.sign(f)])
    )


def _dress(build: _Builder, rng: np.random.Generator, stations: list[dict], boxy: bool) -> None:
    """Lights that turn the corners, grille, bumpers and plates."""
    front, second, before, rear = stations[0], stations[1], stations[-2], stations[-1]
    nose, tail = front["f"] + 0.008, rear["f"] - 0.008
    w, low, top = front["w"], front["low"], front["top"]
    _panel(build, nose, -w * 0.9, w * 0.9, low, low + 0.1, DARK, 18)
    _panel(build, nose, -w * rng.uniform(0.4, 0.62), w * 0.55, low + 0.14, low + 0.24, DARK, 24)
    lamp, inner, slant = rng.uniform(0.09, 0.19), rng.uniform(0.5, 0.72), rng.uniform(0.0, 0.08)
    high = top - rng.uniform(0.02, 0.07)
    lower_out = high - lamp * rng.uniform(0.5, 1.0)
    build.both_sides(
        [[w * inner, high - lamp, nose], [w, lower_out, nose], [w, high, nose], [w * inner, high - slant, nose]],
        HEADLIGHT, 3, 10, [0, 0, 1],
    )  # fmt: skip
    wrap = rng.uniform(0.4, 1.0)
    side = w + (second["w"] - w) * wrap + 0.012, nose + (second["f"] - nose) * wrap
    build.both_sides(
        [[w + 0.012, lower_out, nose], [side[0], lower_out + 0.03, side[1]], [side[0], high, side[1]],
         [w + 0.012, high, nose]],
        HEADLIGHT, 3, 14, [1, 0, 0.4],
    )  # fmt: skip
    for sign in (-1, 1):
        _panel(build, nose, sign * w * 0.66, sign * w * 0.86, low + 0.12, low + 0.2, DARK, 40)
    if rng.random() < 0.75:
        _panel(build, nose, -w * inner * 0.92, w * inner * 0.92, high - lamp * 0.9, high - 0.03, DARK, 14)
    _panel(build, nose, -w * 0.07, w * 0.07, high - lamp * 0.75, high - 0.04, TRIM, 40, 4)
    _panel(build, nose, -0.26, 0.26, low + 0.12, low + 0.23, PLATE, 20, 4)
    wr, lr, br = rear["w"], rear["low"], rear["belt"]
    _panel(build, tail, -wr * 0.92, wr * 0.92, lr, lr + rng.uniform(0.08, 0.2), DARK, 18)
    tall = rng.uniform(0.3, 0.5) if boxy else rng.uniform(0.13, 0.32)
    share = rng.uniform(0.76, 0.85) if boxy else rng.uniform(0.5, 0.74)
    lift = rng.uniform(-0.04, 0.06)
    build.both_sides(
        [[wr * share, br - tall * 0.9, tail], [wr * 0.99, br - tall - lift, tail], [wr * 0.99, br - 0.02, tail],
         [wr * share, br - 0.02 - max(lift, 0), tail]],
        TAIL, 3, 8, [0, 0, -1],
    )  # fmt: skip
    wrap = rng.uniform(0.2, 0.7)
    side = wr + (before["w"] - wr) * wrap + 0.012, tail + (before["f"] - tail) * wrap
    build.both_sides(
        [[wr + 0.012, br - tall, tail], [side[0], br - tall * 0.8, side[1]], [side[0], br - 0.03, side[1]],
         [wr + 0.012, br - 0.02, tail]],
        TAIL, 3, 12, [1, 0, -0.4],
    )  # fmt: skip
    for sign in (-1, 1):
        _panel(
            build, tail, sign * wr * (share + 0.03), sign * wr * 0.95, br - tall * 0.6, br - tall * 0.35, TRIM, 40, 4
        )
    plate = lr + 0.2 if rng.random() < 0.4 else br - 0.2
    _panel(build, tail, -0.26, 0.26, plate - 0.055, plate + 0.055, PLATE, 16, 4)
    _panel(build, tail, -wr * 0.9, wr * 0.9, lr + 0.27, lr + 0.285, UNDER, 50)
    _panel(build, tail, -wr * 0.06, wr * 0.06, br - 0.09, br - 0.02, TRIM, 40, 4)


def _side_details(build: _Builder, rng: np.random.Generator, stations: list[dict], doors: list[float]) -> None:
    """Door gaps, handles, sill and mirrors on both sides."""
    wide = [s for s in stations if s["w"] == max(t["w"] for t in stations)]
    w, low, belt = wide[0]["w"], wide[0]["low"], np.mean([s["belt"] for s in wide])
    x = w + 0.006
    out = [1.0, 0.0, 0.0]
    for f in doors:
        build.both_sides(
            [[x, low + 0.05, f], [x, low + 0.05, f - 0.02], [x, belt - 0.02, f - 0.02], [x, belt - 0.02, f]],
            UNDER,
            2,
            36,
            out,
        )
        build.both_sides(
            [
                [x, belt - 0.13, f + 0.28],
                [x, belt - 0.13, f + 0.12],
                [x, belt - 0.09, f + 0.12],
                [x, belt - 0.09, f + 0.28],
            ],
            TRIM,
            2,
            45,
            out,
        )
    build.both_sides([[x, low, 1.0], [x, low, -1.0], [x, low + 0.06, -1.0], [x, low + 0.06, 1.0]], DARK, 2, 25, out)
    if rng.random() < 0.35:
        build.both_sides(
            [[x, low + 0.28, 1.1], [x, low + 0.28, -1.1], [x, low + 0.33, -1.1], [x, low + 0.33, 1.1]],
            DARK,
            2,
            30,
            out,
        )


def _mirror(build: _Builder, x: float, h: float, f: float) -> None:
    """A small block on each side."""
    for side in (-1, 1):
        x0, x1 = side * x, side * (x + 0.17)
        build.face(
            [[x0, h, f], [x1, h, f], [x1, h + 0.12, f], [x0, h + 0.12, f]], PAINT, 2, 30, np.array([0, 0, 1.0])
        )
        build.face(
            [[x0, h, f - 0.1], [x1, h, f - 0.1], [x1, h + 0.12, f - 0.1], [x0, h + 0.12, f - 0.1]],
            DARK,
            2,
            30,
            np.array([0, 0, -1.0]),
        )
        build.face(
            [[x1, h, f], [x1, h, f - 0.1], [x1, h + 0.12, f - 0.1], [x1, h + 0.12, f]],
            PAINT,
            2,
            30,
            np.array([side, 0, 0.0]),
        )


# share of the length (0 front .. 1 back) of cowl, roof front, roof rear, foot of the rear window;
# bonnet and boot as shares of the height; height, width, length in metres
_PROFILES = {
    "small": (0.20, 0.36, 0.86, 0.96, 0.56, 0.62, 1.48, 1.62, 3.55),
    "hatch": (0.26, 0.44, 0.84, 0.97, 0.57, 0.64, 1.47, 1.72, 4.05),
    "saloon": (0.27, 0.44, 0.72, 0.86, 0.58, 0.70, 1.45, 1.77, 4.55),
    "estate": (0.26, 0.43, 0.90, 0.98, 0.58, 0.63, 1.48, 1.76, 4.6),
    "suv": (0.25, 0.40, 0.90, 0.98, 0.60, 0.66, 1.72, 1.82, 4.4),
    "mpv": (0.17, 0.37, 0.91, 0.985, 0.60, 0.62, 1.66, 1.78, 4.4),
    "coupe": (0.32, 0.50, 0.72, 0.93, 0.58, 0.68, 1.33, 1.74, 4.2),
}


def _car(rng: np.random.Generator, profile: str) -> VehicleShape:
    cowl, roof_front, roof_rear, rear_foot, bonnet, boot, height, width, length = _PROFILES[profile]
    height *= rng.uniform(0.97, 1.03)
    width *= rng.uniform(0.97, 1.02)
    length *= rng.uniform(0.94, 1.06)
    cowl, roof_front, roof_rear = (v + rng.normal(0, 0.012) for v in (cowl, roof_front, roof_rear))
    half = width / 2
    belt = height * rng.uniform(0.60, 0.64)
    nose = height * bonnet * rng.uniform(0.82, 0.95)
    low = 0.18 + 0.1 * (profile == "suv") + rng.uniform(0, 0.05)
    roof = half * rng.uniform(0.62, 0.72)
    back = height * boot * rng.uniform(0.98, 1.05)
    hood = height * bonnet * 1.08

    def station(share: float, belt: float, top: float, w: float, roof: float) -> dict:
        return {"f": length * (0.5 - share), "low": low, "belt": belt, "top": top, "w": half * w, "roof": roof}

    front = station(0.0, nose * 0.86, nose * 0.93, 0.80, half * 0.66)
    rear = station(1.0, back * 0.97, back * 0.99, 0.86, half * 0.70)
    middle = (roof_front + roof_rear) / 2
    stations = [
        front,
        station(0.045, nose * 0.95, nose * 1.02, 0.95, half * 0.78),
        station(0.13, nose * 1.02, (nose + hood) / 2 + 0.03, 1.0, half * 0.84),
        station(cowl, belt * 0.98, hood + 0.03, 1.0, half * 0.86),
        station((cowl * 0.45 + roof_front * 0.55), belt, hood + (height - hood) * 0.58, 1.0, roof * 1.12),
        station(roof_front, belt, height - 0.02, 1.0, roof),
        station(middle, belt * 1.01, height, 1.0, roof),
        station(roof_rear, belt * 1.02, height - 0.03, 1.0, roof * 0.97),
        station(rear_foot, belt * 1.02, max(back + 0.04, belt * 1.03), 0.97, half * 0.8),
        rear,
    ]
    build = _Builder()
    wheel = 0.31 + 0.05 * (profile == "suv") + rng.uniform(-0.015, 0.02)
    base = length * rng.uniform(0.295, 0.32)
    _box(build, half * 0.86, 0.14, low + 0.02, length * 0.46, -length * 0.46, UNDER, 0)
    for f in (base + 0.02 * length, -base):
        _wheel(build, half, f, wheel, 0.2)
    glass = {
        3: (False, 2),
        4: (True, 0),
        5: (True, 0),
        6: (True, 0),
        7: (profile in ("estate", "suv", "mpv"), 1),
    }
    _loft(build, stations, glass, 0.09)
    _dress(build, rng, stations, False)
    doors = [length * (0.5 - cowl - 0.03), length * (0.5 - middle), length * (0.5 - roof_rear + 0.03)]
    if profile in ("coupe", "small"):
        doors = doors[:2]
    _side_details(build, rng, stations, doors)
    _mirror(build, half * 0.97, belt + 0.02, length * (0.5 - cowl - 0.07))
    return build.build(
        "Car",
        (height + 0.012, width, length),
        lambda p: [p[:, 1] < height * 0.7, (p[:, 1] > height * 0.56) & (p[:, 2] > length * (0.49 - rear_foot))],
    )


def _van(rng: np.random.Generator) -> VehicleShape:
    """Delivery van or minibus."""
    height, width, length = rng.uniform(1.9, 2.6), rng.uniform(1.85, 2.0), rng.uniform(4.5, 5.9)
    half, low = width / 2, 0.25
    belt, roof = 1.12, half * rng.uniform(0.84, 0.92)
    windows = rng.random() < 0.45

    def station(share: float, belt: float, top: float, w: float, roof: float) -> dict:
        return {"f": length * (0.5 - share), "low": low, "belt": belt, "top": top, "w": half * w, "roof": roof}

    front = station(0.0, 0.78, 0.86, 0.86, half * 0.74)
    rear = station(1.0, belt, height - 0.1, 0.97, roof * 0.97)
    stations = [
        front,
        station(0.04, 0.9, 0.98, 0.98, half * 0.82),
        station(0.17, belt * 0.98, 1.22, 1.0, half * 0.86),
        station(0.30, belt, height - 0.06, 1.0, roof),
        station(0.40, belt, height, 1.0, roof),
        station(0.68, belt, height, 1.0, roof),
        station(0.97, belt, height - 0.02, 1.0, roof),
        rear,
    ]
    build = _Builder()
    _box(build, half * 0.88, 0.16, low + 0.02, length * 0.46, -length * 0.46, UNDER, 0)
    for f in (length * 0.31, -length * 0.29):
        _wheel(build, half, f, 0.34, 0.22)
    glass = {2: (True, 1), 3: (True, 0), 4: (windows, 0), 5: (windows, 0)}
    _loft(build, stations, glass, 0.08)
    _dress(build, rng, stations, True)
    tail = -length / 2 - 0.008
    if rng.random() < 0.8:
        for x0, x1 in ((-roof * 0.86, -0.04), (0.04, roof * 0.86)):
            _panel(build, tail, x0, x1, belt + 0.12, height - 0.28, GLASS, 8)
    _panel(build, tail, -0.012, 0.012, 0.4, height - 0.15, UNDER, 40)
    _side_details(build, rng, stations, [length * 0.28, length * 0.1, -length * 0.15])
    _mirror(build, half, belt + 0.05, length * 0.28)
    return build.build(
        "Van",
        (height + 0.012, width, length),
        lambda p: [p[:, 1] < 1.25, (p[:, 1] > 0.9) & (p[:, 2] < length * 0.34)],
    )


def _truck(rng: np.random.Generator) -> VehicleShape:
    """Cab and box; also serves as bus where the box carries windows."""
    height, width, length = rng.uniform(2.9, 3.7), rng.uniform(2.3, 2.55), rng.uniform(6.5, 11.5)
    half = width / 2
    build = _Builder()
    nose, tail = length / 2, -length / 2
    bus = rng.random() < 0.3
    cab = 2.0
    _box(build, half * 0.85, 0.3, 0.85, nose - 0.1, tail + 0.1, UNDER, 0)
    for f in (nose - 1.2, tail + 1.9):
        _wheel(build, half * 0.98, f, 0.48, 0.3)
    if bus:
        _box(build, half, 0.35, height, nose, tail, PAINT, 1)
        x = half + 0.01
        for f in np.arange(nose - 0.4, tail + 1.2, -1.5):
            build.both_sides(
                [[x, 1.3, f], [x, 1.3, f - 1.35], [x, height - 0.5, f - 1.35], [x, height - 0.5, f]],
                GLASS,
                2,
                0,
                [1, 0, 0],
            )
        _panel(build, nose + 0.01, -half * 0.92, half * 0.92, 1.2, height - 0.45, GLASS, 0)
        _panel(build, tail - 0.01, -half * 0.85, half * 0.85, 1.7, height - 0.5, GLASS, 0)
    else:
        top = min(height - 0.2, 2.7)
        _box(build, half * 0.95, 0.4, top, nose, nose - cab, PAINT, 1)
        _box(build, half, 0.95, height, nose - cab - 0.15, tail, CARGO, 1)
        _panel(build, nose + 0.01, -half * 0.85, half * 0.85, 1.45, top - 0.25, GLASS, 0)
        x = half * 0.95 + 0.01
        build.both_sides(
            [[x, 1.5, nose - 0.2], [x, 1.5, nose - 1.3], [x, top - 0.3, nose - 1.3], [x, top - 0.3, nose - 0.35]],
            GLASS,
            2,
            0,
            [1, 0, 0],
        )
        _panel(build, tail - 0.01, -half * 0.03, half * 0.03, 1.0, height - 0.1, UNDER, 30)
    for side in (-1, 1):
        _panel(build, nose + 0.01, side * half * 0.6, side * half * 0.88, 0.6, 0.85, HEADLIGHT, 10)
        _panel(build, tail - 0.01, side * half * 0.72, side * half * 0.95, 0.65, 0.85, TAIL, 8)
    _panel(build, nose + 0.01, -half * 0.55, half * 0.55, 0.75, 1.15, DARK, 10)
    _panel(build, nose + 0.01, -0.26, 0.26, 0.5, 0.62, PLATE, 16)
    _panel(build, tail - 0.01, -0.26, 0.26, 0.7, 0.82, PLATE, 16)
    return build.build(
        "Truck",
        (height, width, length),
        lambda p: [p[:, 1] < 1.0, p[:, 2] > nose - cab - 0.1, p[:, 2] < nose - cab + 0.1],
    )


@cache
def shapes() -> dict[str, tuple[VehicleShape, ...]]:
    """All bodies by kind, made once a process."""
    rng = np.random.default_rng(20240910)
    cars = [_car(rng, profile) for profile in _PROFILES for _ in range(7)]
    return {
        "car": tuple(cars),
        "van": tuple(_van(rng) for _ in range(10)),
        "truck": tuple(_truck(rng) for _ in range(8)),
    }


# how often a car wears each colour (hue, saturation, value), as on a German street: many greys, few bright ones
_PAINTS = (
    (0.22, (110, 8, 24)),
    (0.20, (110, 8, 170)),
    (0.12, (110, 10, 95)),
    (0.13, (20, 4, 235)),
    (0.09, (112, 170, 70)),
    (0.06, (108, 120, 120)),
    (0.08, (178, 215, 125)),
    (0.03, (2, 230, 180)),
    (0.02, (60, 120, 60)),
    (0.03, (20, 60, 150)),
    (0.02, (25, 220, 220)),
)

_PAINT_WEIGHTS = [weight for weight, _ in _PAINTS]


@dataclass(frozen=True, eq=False)
class Vehicle:
    """One vehicle's looks: which body, how scaled, in which colours."""

    shape: VehicleShape
    dimensions_hwl: tuple[float, float, float]
    vertices: F64
    """(V, 3) of the shape, scaled."""
    centres: F64
    """(F, 3) of the faces, scaled."""
    palette: F64
    """(MATERIALS, 3) BGR reflectance 0..255."""
    gloss: float
    """Of the paint, 0..1."""
    glare: float
    """Of the windows: how much of the sky they mirror, 0..1."""
    brake: bool

    @property
    def name(self) -> str:
        return self.shape.name


def make_vehicle(kind: str, rng: np.random.Generator) -> Vehicle:
    """A vehicle of a kind ('car', 'van', 'truck') with looks drawn from `rng`."""
    family = shapes()[kind]
    shape = family[int(rng.integers(len(family)))]
    draws = rng.random(16).tolist()
    hue, saturation, value = _PAINTS[pick(rng, _PAINT_WEIGHTS)][1]
    if kind != "car" and draws[0] < 0.5:
        hue, saturation, value = 20, 5, 230
    hue, saturation = hue + 12 * (draws[1] - 0.5), saturation * (0.7 + 0.5 * draws[2])
    value = value * (0.7 + 0.45 * draws[3])
    if draws[4] < 0.06:  # any colour at all: the network must not lean on colour
        hue, saturation, value = 180 * draws[1], 255 * draws[2], 20 + 230 * draws[3]
    r, g, b = colorsys.hsv_to_rgb(hue % 180 / 180, min(saturation, 255) / 255, min(value, 255))
    paint = [b, g, r]
    brake = draws[5] < 0.2
    tail = 0.6 + 0.6 * draws[6]
    glass, lamp, plate = 0.4 + 1.4 * draws[7], 0.6 + 0.5 * draws[8], 0.75 + 0.3 * draws[9]
    cargo = [150 + 90 * draws[10] + 30 * (c - 0.5) for c in draws[11:14]] if draws[14] < 0.75 else paint
    palette = np.array(
        [
            paint,
            [26 * glass, 24 * glass, 20 * glass],
            [18 + 27 * draws[11]] * 3,
            [14 + 16 * draws[12]] * 3,
            [(150, 120, 60, 30)[int(draws[13] * 4)]] * 3,
            [205 * lamp, 205 * lamp, 200 * lamp],
            [60.0, 60.0, 250.0] if brake else [26 * tail, 22 * tail, 150 * tail],
            [215 * plate, 220 * plate, 225 * plate],
            [6 + 10 * draws[10]] * 3,
            [40 + 150 * draws[15]] * 3,
            cargo,
        ]
    )
    scale = 1 + rng.standard_normal(3) * [0.015, 0.02, 0.02]
    h, w, length = shape.dimensions_hwl
    return Vehicle(
        shape,
        (h * float(scale[1]), w * float(scale[0]), length * float(scale[2])),
        shape.vertices * scale,
        shape.centres * scale,
        np.minimum(palette, 255),
        0.15 + 0.45 * draws[14],
        draws[15] ** 1.5,
        brake,
    )


def clip_near(polygon: np.ndarray, near: float = NEAR_M) -> np.ndarray:
    """A polygon (N, 3) of X, height, Z cut at the near plane; may come back empty."""
    kept = []
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if a[2] >= near:
            kept.append(a)
        if (a[2] >= near) != (b[2] >= near):
            kept.append(a + (b - a) * ((near - a[2]) / (b[2] - a[2])))
    return np.array(kept)
