"""One image of a street with its truth: sky, ground, walls, then everything that stands, from far to near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from datasets.synthetic_street.backdrop import Walls, draw_sky, draw_sprite
from datasets.synthetic_street.brush import Brush
from datasets.synthetic_street.chance import stable_seed
from datasets.synthetic_street.figures import draw_person
from datasets.synthetic_street.fleet import Prepared, prepare
from datasets.synthetic_street.furniture import draw_prop
from datasets.synthetic_street.geometry import View
from datasets.synthetic_street.ground import Ground
from datasets.synthetic_street.light import Light, photograph
from datasets.synthetic_street.people import Person
from datasets.synthetic_street.scene import Actor, Street, looks
from datasets.synthetic_street.truth import Placed, place_all
from datasets.synthetic_street.vehicles import Vehicle
from perception.arrays import F64, U8


@dataclass(frozen=True, eq=False)
class Rendering:
    """What `render` returns."""

    image_bgr: U8
    road: U8
    """(H, W) 1 road, 0 not road, 255 not judged."""
    placed: list[Placed]
    visible: F64
    """(N,) share of each one's pixels that nothing hides, 0..1."""


_CORNERS = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
"""Of a footprint: across, along."""
_SHADOW_NEAR_M = 0.8


def _shadows(placed: list[Placed], view: View, light: Light) -> list[tuple[F64, int]]:
    """Ground polygons with their brightness: the sun's shadow of each cuboid, and a soft dark under vehicles."""
    if not placed:
        return []
    found = [looks(p.actor.kind, p.actor.look) for p in placed]
    vehicle = np.array([isinstance(look, Vehicle) for look in found])
    hwl = np.array([look.dimensions_hwl for look in found])
    cycling = np.array([p.actor.kind == "cyclist" for p in placed])
    width = np.where(vehicle, hwl[:, 1], 0.4)
    length = np.where(vehicle, hwl[:, 2], np.where(cycling, 1.4, 0.5))
    X, Z, yaw = (np.array([getattr(p, k) for p in placed])[:, None] for k in ("X", "Z", "yaw"))
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, f = width[:, None] * _CORNERS[:, 0], length[:, None] * _CORNERS[:, 1]  # (N, 4)
    across, ahead = x * cos + f * sin, f * cos - x * sin

    def pixels(X: F64, Z: F64) -> F64:
        return np.stack(view.project(X, np.zeros_like(X), np.maximum(Z, _SHADOW_NEAR_M)), -1)

    shapes: list[tuple[F64, int]] = []
    sun_x, sun_up, sun_z = light.sun_in_camera(view.heading).tolist()
    if light.shade < 0.8 and sun_up > 0.1:
        throw = -0.9 * hwl[:, :1] / max(sun_up, 0.2)
        cast_X = np.concatenate([X + across, X + 0.8 * across + throw * sun_x], 1)  # (N, 8)
        cast_Z = np.concatenate([Z + ahead, Z + 0.8 * ahead + throw * sun_z], 1)
        shown = (cast_Z > _SHADOW_NEAR_M).all(1) & ~np.array([p.actor.shaded for p in placed])
        for outline in pixels(cast_X[shown], cast_Z[shown]).astype(np.float32):
            hull = cv2.convexHull(outline).reshape(-1, 2)
            shapes.append((hull.astype(np.float64), int(255 * light.shade)))
    for grow, value in ((1.04, 0.62), (0.94, 0.3)):
        under_X, under_Z = (X + grow * across)[vehicle], (Z + grow * ahead)[vehicle]
        shown = (under_Z > _SHADOW_NEAR_M).all(1)
        brightness = int(255 * min(value, light.shade * value * 1.6))
        shapes += [(outline, brightness) for outline in pixels(under_X[shown], under_Z[shown])]
    return shapes


def render(
    street: Street,
    actors: list[Actor],
    view: View,
    s: float,
    light: Light,
    levels: tuple[U8, ...],
    frame_seed: tuple[int, ...],
) -> Rendering:
    """Draw a street as the camera at road distance `s` sees it.

    Args:
        street: what stands still.
        actors: everyone with a label, parked ones too.
        view: the camera.
        s: its distance along the road, for choosing what is near.
        light: sun, sky, camera.
        levels: `ground.strip` of the street.
        frame_seed: for the sensor's noise.
    """
    height, width = view.size_hw
    image = np.empty((height, width, 3), np.uint8)
    ids = np.zeros((height, width), np.uint8)
    placed = sorted(place_all(actors, view), key=lambda p: p.Z)[:250]
    draw_sky(image, view, light, street.seed & 0xFFFF)
    ground = Ground(street, view, s, light)
    ground.draw(image, levels, _shadows([p for p in placed if p.Z < 70], view, light), street.seed & 0xFFFF)
    walls = Walls(street, view, s, light)
    walls.draw(image, ids)

    # everything upright, from far to near
    stand: list[tuple[float, int, Any]] = [(p.Z, i + 1, p) for i, p in enumerate(placed)]
    stand += _furniture(street, view, s)
    brush = Brush(image, ids, view, light)
    seen = [p for p in placed if not _behind_walls(walls, p, view)]
    vehicles = [(look, p) for p in seen if isinstance(look := looks(p.actor.kind, p.actor.look), Vehicle)]
    prepared = dict(zip((id(p) for _, p in vehicles), prepare(brush, vehicles), strict=True))
    full = np.zeros(len(placed))
    for Z, number, thing in sorted(stand, key=lambda t: -t[0]):
        if number == -1:
            sprite, X = thing
            if not _hidden(walls, view, X, Z):
                draw_sprite(image, ids, view, light, sprite, X, Z)
        elif number == -2:
            prop, X = thing
            if not _hidden(walls, view, X, Z):
                draw_prop(brush, prop[0], X, Z, prop[3] - view.heading, prop[4])
        else:
            full[number - 1] = _draw_actor(brush, walls, thing, number, prepared.get(id(thing)))
    counts = cv2.calcHist([ids], [0], None, [256], [0, 256]).ravel()[1 : len(placed) + 1]
    visible = np.divide(counts, full, out=np.zeros(len(placed)), where=full > 0)
    road = ground.road_mask(ids)
    photo = photograph(image, light, np.random.default_rng(stable_seed(*frame_seed)))
    return Rendering(photo, road, placed, visible)


def _furniture(street: Street, view: View, s: float) -> list[tuple[float, int, Any]]:
    """Return depth, kind and thing of the sprites (-1) and props (-2) near the camera."""
    found: list[tuple[float, int, Any]] = []
    for _, block in street.blocks(s - 10, s + 130):
        for sprite in block.sprites:
            X, Z = view.point_to_camera(sprite[0], sprite[1])
            if 2.5 < Z < 170 and abs(X) < Z + sprite[2]:
                found.append((Z, -1, (sprite, X)))
        for prop in block.props:
            X, Z = view.point_to_camera(prop[1], prop[2])
            if 1.5 < Z < 70 and abs(X) < Z * 0.9 + 3:
                found.append((Z, -2, (prop, X)))
    return found


def _hidden(walls: Walls, view: View, X: float, Z: float) -> bool:
    """Whether the foot of something lies behind a wall."""
    P = view.camera.P_cam2
    column = int((P[0, 0] * X + P[0, 2] * Z + P[0, 3]) / (Z + P[2, 3]))
    return bool(walls.depth[min(max(column, 0), view.size_hw[1] - 1)] < Z - 0.5)


def _window(p: Placed, view: View) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the pixels an actor can touch."""
    x0, y0, x1, y1 = p.box.tolist()
    height, width = view.size_hw
    return max(int(x0) - 3, 0), max(int(y0) - 3, 0), min(int(x1) + 5, width), min(int(y1) + 5, height)


def _behind_walls(walls: Walls, p: Placed, view: View) -> bool:
    """Whether walls hide an actor wholly."""
    x0, y0, x1, _ = _window(p, view)
    return bool((walls.depth[x0:x1] < p.Z - 1.0).all() and walls.top[x0:x1].max() < y0)


def _draw_actor(brush: Brush, walls: Walls, p: Placed, number: int, prepared: Prepared | None) -> float:
    """Draw one actor, behind walls where walls are nearer; returns the pixels it would have alone."""
    x0, y0, x1, y1 = _window(p, brush.view)
    image, ids = brush.image[y0:y1, x0:x1], brush.ids[y0:y1, x0:x1]
    behind = walls.depth[x0:x1] < p.Z - 1.0
    saved = (image.copy(), ids.copy()) if behind.any() else None
    look = looks(p.actor.kind, p.actor.look)
    if prepared is not None:
        prepared.draw(brush, number)
    elif isinstance(look, Person) and p.figure is not None:
        draw_person(brush, look, p.figure, p.Z, number, p.height_px, p.actor.shaded)
    else:
        return 0.0
    full = float(np.count_nonzero(ids == number))
    if saved is not None:
        hidden = behind[None] & (np.arange(y0, y1)[:, None] >= walls.top[None, x0:x1])
        image[hidden], ids[hidden] = saved[0][hidden], saved[1][hidden]
    return full
