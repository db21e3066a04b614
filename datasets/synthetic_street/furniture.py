"""Street furniture: what stands about, hides others and carries no label. Much of it has a car's size or colours."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from datasets.synthetic_street import people
from datasets.synthetic_street.backdrop import OCCLUDER
from datasets.synthetic_street.brush import SHADE, Brush, fixed
from datasets.synthetic_street.figures import draw_person
from datasets.synthetic_street.geometry import NEAR_M

Colour = Sequence[float]
_WHITE, _BLACK, _RED, _BLUE, _YELLOW = (
    (235.0, 235.0, 235.0), (40.0, 40.0, 40.0), (40.0, 35.0, 200.0), (180.0, 90.0, 20.0), (30.0, 200.0, 240.0),
)  # fmt: skip
_SIGNS = (  # corners, turn of the first, colours from the rim inwards
    (16, 0.0, (_RED, _WHITE, _BLACK)),
    (16, 0.0, (_WHITE, _BLUE, _WHITE)),
    (3, math.pi / 2, (_RED, _WHITE, _BLACK)),
    (4, math.pi / 4, (_WHITE, _BLUE, _WHITE)),
    (4, 0.0, (_WHITE, _YELLOW, _YELLOW)),
)
_LAMPS = ((78.0, 78.0, 325.0), (78.0, 247.0, 325.0), (182.0, 299.0, 78.0))
_BOXES = {  # half width, half length, height from, to
    "bin": (0.28, 0.34, 0.0, 1.05),
    "cabinet": (0.45, 0.2, 0.0, 1.15),
    "skip": (0.9, 1.9, 0.1, 1.45),
    "heap": (0.8, 0.8, 0.0, 0.7),
    "bench": (0.25, 0.9, 0.38, 0.48),
}


def _box(
    brush: Brush, X: float, Z: float, yaw: float, half: tuple[float, float], heights: tuple[float, float],
    albedo: Colour, shaded: bool = False,
) -> None:  # fmt: skip
    """An upright box: two or three faces."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    corners = [
        (X + sx * half[0] * cos + sf * half[1] * sin, Z - sx * half[0] * sin + sf * half[1] * cos)
        for sx, sf in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    if min(z for _, z in corners) < NEAR_M:
        return
    light = brush.light
    sky, bounce = light.sky.tolist(), light.bounce.tolist()
    sun = [s * (SHADE if shaded else 1.0) for s in light.sun.tolist()]
    sun_x, sun_up, sun_z = light.sun_in_camera(brush.view.heading).tolist()
    low = [brush.pixel(x, heights[0], z) for x, z in corners]
    top = [brush.pixel(x, heights[1], z) for x, z in corners]
    faces = []
    for i in range(4):
        j = (i + 1) % 4
        nx, nz = corners[j][1] - corners[i][1], corners[i][0] - corners[j][0]
        if nx * corners[i][0] + nz * corners[i][1] < 0:
            facing = max(0.0, (nx * sun_x + nz * sun_z) / max(math.hypot(nx, nz), 1e-9))
            gain = [0.5 * a + 0.5 * b + facing * c for a, b, c in zip(sky, bounce, sun, strict=True)]
            faces.append((corners[i][1] + corners[j][1], [low[i], low[j], top[j], top[i]], gain))
    for _, outline, gain in sorted(faces, key=lambda face: -face[0]):
        brush.fill(fixed(np.array(outline)), brush.one_colour(albedo, gain, Z), OCCLUDER)
    if heights[1] < brush.view.camera.height_m:
        gain = [a + max(sun_up, 0.0) * c for a, c in zip(sky, sun, strict=True)]
        brush.fill(fixed(np.array(top)), brush.one_colour(albedo, gain, Z), OCCLUDER)


def _post(brush: Brush, X: float, Z: float, radius: float, height: float, albedo: Colour) -> None:
    """A round post with a lighter flank."""
    (u, foot), (_, top) = brush.pixel(X, 0.0, Z), brush.pixel(X, height, Z)
    r = max(radius * brush.view.P_rows[0][0] / Z, 0.35)
    light = brush.light
    for left, right, gain in (
        (-1.0, 1.0, light.sky * 0.5 + light.bounce * 0.4),
        (-0.1, 0.7, light.sky * 0.7 + light.sun * 0.4),
    ):
        outline = np.array([[u + left * r, foot], [u + right * r, foot], [u + right * r, top], [u + left * r, top]])
        brush.fill(fixed(outline), brush.one_colour(albedo, gain.tolist(), Z), OCCLUDER)


def _disc(
    brush: Brush,
    X: float,
    Z: float,
    height: float,
    radius: float,
    corners: int,
    turn: float,
    colours: Sequence[Colour],
) -> None:
    """A sign: nested polygons that face the camera."""
    u, v = brush.pixel(X, height, Z)
    r = radius * brush.view.P_rows[0][0] / Z
    angle = turn + np.linspace(0, 2 * np.pi, corners, endpoint=False)
    ring = np.stack([np.cos(angle), -np.sin(angle)], 1)
    gain = (brush.light.sky * 0.8 + brush.light.sun * 0.35).tolist()
    for share, albedo in zip((1.0, 0.78, 0.35), colours, strict=False):
        brush.fill(fixed(ring * (r * share) + [u, v]), brush.one_colour(albedo, gain, Z), OCCLUDER)


def draw_prop(brush: Brush, kind: str, X: float, Z: float, yaw: float, look: int) -> None:
    """One piece at (X, Z), with looks drawn from the seed `look`."""
    if Z < 1.2:
        return
    rng = random.Random(look)  # a tenth of the cost of numpy's generator, and as repeatable
    tone = rng.uniform(40, 150)
    grey = (tone, tone, tone)
    mean = rng.uniform(40, 200)
    colour = tuple(min(max(mean + rng.gauss(0, 45), 10.0), 240.0) for _ in range(3))
    if kind in ("lamp", "pole", "signal"):
        height = {"lamp": rng.uniform(6, 9), "pole": rng.uniform(3, 8), "signal": 3.3}[kind]
        _post(brush, X, Z, rng.uniform(0.05, 0.13), height, grey)
        if kind == "lamp":
            arm = rng.uniform(0.8, 2.0) * (-1 if X > 0 else 1)
            (u0, v0), (u1, v1) = brush.pixel(X, height, Z), brush.pixel(X + arm, height + 0.3, Z)
            r = max(0.08 * brush.view.P_rows[0][0] / Z, 0.5)
            outline = np.array([[u0, v0 - r], [u1, v1 - r], [u1, v1 + r], [u0, v0 + r]])
            brush.fill(fixed(outline), brush.one_colour(grey, brush.light.sky.tolist(), Z), OCCLUDER)
        elif kind == "signal":
            _box(brush, X, Z - 0.2, 0.0, (0.16, 0.12), (2.3, 3.3), (25.0, 25.0, 25.0))
            lamp = rng.randrange(3)
            _disc(brush, X, Z - 0.35, 3.1 - 0.3 * lamp, 0.1, 10, 0.0, [_LAMPS[lamp]])
    elif kind == "sign":
        height = rng.uniform(2.0, 2.8)
        _post(brush, X, Z, 0.035, height + 0.3, (130.0, 130.0, 130.0))
        corners, turn, palette = rng.choice(_SIGNS)
        _disc(brush, X, Z - 0.05, height, rng.uniform(0.28, 0.45), corners, turn, palette)
    elif kind == "bollard":
        tall, radius = rng.uniform(0.5, 1.1), rng.uniform(0.04, 0.1)
        _post(brush, X, Z, radius, tall, grey if rng.random() < 0.6 else _WHITE)
    elif kind == "board":
        base = rng.uniform(0.4, 1.6)
        _post(brush, X, Z, 0.06, base, grey)
        half, top = rng.uniform(0.5, 1.9), base + rng.uniform(0.8, 2.4)
        _box(brush, X, Z, yaw + math.pi / 2, (0.08, half), (base, top), colour)
    elif kind == "shelter":
        for f in (-1.9, 1.9):
            _box(brush, X, Z + f, yaw, (0.7, 0.04), (0.0, 2.3), (110.0, 100.0, 90.0))
        _box(brush, X, Z, yaw, (0.8, 2.0), (2.3, 2.45), grey)
    elif kind == "cycle":  # parked, so no Cyclist
        owner = people.make_person(True, np.random.default_rng(look))
        figure = people.silhouette(people.bicycle(), brush.view, X, Z, yaw)
        draw_person(brush, owner, figure, Z, OCCLUDER, brush.view.P_rows[1][1] * 1.1 / Z, False)
    elif kind in _BOXES:
        hx, hf, h0, h1 = _BOXES[kind]
        size = rng.uniform(0.85, 1.2)
        _box(brush, X, Z, yaw, (hx * size, hf * size), (h0, h1 * size), colour if rng.random() < 0.6 else grey)
        if kind == "bin":
            lid = tuple(c * 0.6 for c in colour)
            _box(brush, X, Z, yaw, (hx * size * 1.05, hf * size * 1.05), (h1 * size, h1 * size + 0.06), lid)
