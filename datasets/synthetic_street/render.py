"""One picture of a street with its truth: sky, ground, walls, then everything that stands, from far to near."""

from __future__ import annotations

from dataclasses import dataclass

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
from perception.types import F64, U8


@dataclass(frozen=True, eq=False)
class Picture:
    """What `render` returns."""

    image_bgr: U8
    road: U8
    """(H, W) 1 road, 0 not road, 255 not judged."""
    placed: list[Placed]
    visible: F64
    """(N,) share of each one's pixels that nothing hides, 0..1."""


def _shadows(placed: list[Placed], view: View, light: Light, offset: int) -> list[tuple[F64, int]]:
    """Ground polygons: soft dark under every body, and the sun's shadow of its cuboid."""
    shapes = []
    sun = light.sun_in_camera(view.heading)
    throws = light.shade < 0.8 and sun[1] > 0.1
    for p in placed:
        look = looks(p.actor.kind, p.actor.look)
        h, w, length = look.dimensions_hwl
        vehicle = isinstance(look, Vehicle)
        if not vehicle:
            w, length = 0.4, 0.5 if p.actor.kind == "pedestrian" else 1.4
        cos, sin = np.cos(p.yaw), np.sin(p.yaw)

        def corners(
            grow: float, cos: float = cos, sin: float = sin, w: float = w, length: float = length, p: Placed = p
        ) -> F64:
            x = np.array([-w, w, w, -w]) / 2 * grow
            f = np.array([-length, -length, length, length]) / 2 * grow
            return np.stack([p.X + x * cos + f * sin, p.Z - x * sin + f * cos], 1)

        ground = corners(1.0)
        if ground[:, 1].min() < 0.8:
            continue
        if throws and not p.actor.shaded:
            throw = -np.array([sun[0], sun[2]]) / max(sun[1], 0.2) * h * 0.9
            cast = np.concatenate([ground, corners(0.8) + throw])
            if cast[:, 1].min() > 0.8:
                u, v = view.project(cast[:, 0], np.zeros(len(cast)), cast[:, 1])
                hull = cv2.convexHull(np.stack([u, v], 1).astype(np.float32))[:, 0]
                shapes.append((hull.astype(np.float64), int(255 * light.shade)))
    for p in placed:
        look = looks(p.actor.kind, p.actor.look)
        if not isinstance(look, Vehicle):
            continue
        h, w, length = look.dimensions_hwl
        cos, sin = np.cos(p.yaw), np.sin(p.yaw)
        for grow, value in ((1.04, 0.62), (0.94, 0.3)):
            x, f = np.array([-w, w, w, -w]) / 2 * grow, np.array([-length, -length, length, length]) / 2 * grow
            X, Z = p.X + x * cos + f * sin, p.Z - x * sin + f * cos
            if Z.min() > 0.8:
                u, v = view.project(X, np.zeros(4), Z)
                shapes.append((np.stack([u, v], 1), int(255 * min(value, light.shade * value * 1.6))))
    return shapes


def render(
    street: Street,
    actors: list[Actor],
    view: View,
    s: float,
    light: Light,
    levels: tuple[U8, ...],
    frame_seed: tuple[int, ...],
) -> Picture:
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
    ground.draw(
        image, levels, _shadows([p for p in placed if p.Z < 70], view, light, ground.top), street.seed & 0xFFFF
    )
    walls = Walls(street, view, s, light)
    walls.draw(image, ids)

    # everything that stands, far ones first
    stand: list[tuple[float, int, object]] = [(p.Z, i + 1, p) for i, p in enumerate(placed)]
    for _, block in street.blocks(s - 10, s + 130):
        for sprite in block.sprites:
            X, Z = view.point_to_camera(sprite[0], sprite[1])
            if 2.5 < Z < 170 and abs(X) < Z + sprite[2]:
                stand.append((Z, -1, (sprite, X)))
        for prop in block.props:
            X, Z = view.point_to_camera(prop[1], prop[2])
            if 1.5 < Z < 70 and abs(X) < Z * 0.9 + 3:
                stand.append((Z, -2, (prop, X)))
    brush = Brush(image, ids, view, light)
    seen = [p for p in placed if not _behind_walls(walls, p, view)]
    vehicles = [(look, p) for p in seen if isinstance(look := looks(p.actor.kind, p.actor.look), Vehicle)]
    prepared = dict(zip((id(p) for _, p in vehicles), prepare(brush, vehicles), strict=True))
    full = np.zeros(len(placed))
    for Z, number, thing in sorted(stand, key=lambda t: -t[0]):
        if number == -1:
            sprite, X = thing  # type: ignore[misc]
            if not _hidden(walls, view, X, Z):
                draw_sprite(image, ids, view, light, sprite, X, Z)
        elif number == -2:
            prop, X = thing  # type: ignore[misc]
            if not _hidden(walls, view, X, Z):
                draw_prop(brush, prop[0], X, Z, prop[3] - view.heading, prop[4])
        else:
            full[number - 1] = _draw_actor(brush, walls, thing, number, prepared.get(id(thing)))  # type: ignore[arg-type]
    counts = cv2.calcHist([ids], [0], None, [256], [0, 256]).ravel()[1 : len(placed) + 1]
    visible = np.divide(counts, full, out=np.zeros(len(placed)), where=full > 0)
    road = ground.road_mask(ids)
    picture = photograph(image, light, np.random.default_rng(stable_seed(*frame_seed)))
    return Picture(picture, road, placed, visible)


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
