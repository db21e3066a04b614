"""Road users and street furniture as polygons: each face shaded by its normal, drawn from far to near."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.synthetic_street import people
from datasets.synthetic_street.backdrop import OCCLUDER
from datasets.synthetic_street.geometry import NEAR_M, View
from datasets.synthetic_street.ground import SHIFT, fixed
from datasets.synthetic_street.light import Light
from datasets.synthetic_street.people import Person, Silhouette
from datasets.synthetic_street.vehicles import (
    GLASS,
    HEADLIGHT,
    PAINT,
    RIM,
    TAIL,
    TRIM,
    Vehicle,
    clip_near,
    vehicle_points,
)
from perception.types import F64, U8


class Brush:
    """Draws polygons into picture and id plane alike."""

    def __init__(self, image: U8, ids: U8) -> None:
        self.image, self.ids = image, ids

    def fill(self, outline: np.ndarray, colour: np.ndarray, number: int, smooth: bool = True) -> None:
        """A convex polygon given in fixed point; `number` 0 leaves the id plane as it is."""
        cv2.fillConvexPoly(self.image, outline, colour.tolist(), cv2.LINE_AA if smooth else cv2.LINE_8, SHIFT)
        if number:
            cv2.fillConvexPoly(self.ids, outline, number, cv2.LINE_8, SHIFT)


def _hazed(colours: F64, light: Light, distance: float) -> F64:
    keep = float(light.fade(distance))
    return np.clip(colours * keep + light.haze * (1 - keep), 0, 255)


def _mirrored(normals: F64, eye: F64, light: Light) -> F64:
    """What a shiny face shows, by the height of the mirrored ray: sky, horizon or road, BGR (F, 3)."""
    against = (normals * eye).sum(1, keepdims=True)
    up = 2 * against[:, 0] * normals[:, 1] - eye[:, 1]
    sky, low = np.minimum(light.sky_top, 255), np.minimum(light.sky_low, 255)
    t = np.clip(up * 2.2, 0, 1)[:, None]
    above = (low * 0.75 * (1 - t) + sky * t) * np.clip(light.sky.mean() * 1.6, 0.3, 1.0)
    below = np.array([58.0, 56, 54]) * (light.bounce.mean() * 2.5)
    return np.where(up[:, None] > 0.02, above, below)


def draw_vehicle(
    brush: Brush,
    view: View,
    light: Light,
    look: Vehicle,
    X: float,
    Z: float,
    yaw: float,
    number: int,
    box_height: float,
    shaded: bool,
) -> None:
    """A vehicle: faces turned to the camera, inner layers before outer ones, far before near."""
    shape = look.shape
    x, up, z = vehicle_points(look, view, X, Z, yaw)
    cos, sin = np.cos(yaw), np.sin(yaw)

    def turned(v: F64) -> F64:
        return np.stack([v[:, 0] * cos + v[:, 2] * sin, v[:, 1], -v[:, 0] * sin + v[:, 2] * cos], 1)

    normals = turned(shape.normals)
    centres = turned(shape.centres * look.scale) + [X, 0, Z]
    eye = np.array([0.0, view.camera.height_m, 0.0]) - centres
    distance = np.linalg.norm(eye, axis=1, keepdims=True)
    eye = eye / np.maximum(distance, 1e-6)
    facing = (normals * eye).sum(1)
    visible = np.flatnonzero((facing > 0.0) & (shape.detail <= box_height))
    if not len(visible):
        return
    order = visible[np.lexsort((-distance[visible, 0], shape.layers[visible]))]
    normals, eye, materials = normals[order], eye[order], shape.materials[order]
    sun = light.sun * (0.12 if shaded else 1.0)
    direct = np.maximum(normals @ light.sun_in_camera(view.heading), 0)[:, None] * sun
    rise = normals[:, 1:2] * 0.5 + 0.5
    gain = light.sky * rise * (0.7 if shaded else 1.0) + light.bounce * (1 - rise) + direct
    # low parts get less of the sky
    gain = gain * np.clip(0.55 + centres[order, 1:2] * 0.45, 0.5, 1.0)
    colours = look.palette[materials] * gain
    mirror = _mirrored(normals, eye, light)
    fresnel = (0.05 + 0.9 * (1 - np.clip(facing[order], 0, 1)) ** 4)[:, None]
    gloss = np.select(
        [materials == GLASS, materials == PAINT, np.isin(materials, (TRIM, RIM))], [1.0, look.gloss, 0.4], 0.0
    )[:, None]
    share = np.clip(gloss * (fresnel + 0.12 * (materials == GLASS)[:, None] + 0.05), 0, 0.85)
    colours = colours * (1 - share) + mirror * share
    glowing = (materials == HEADLIGHT) | ((materials == TAIL) & look.brake)
    if light.weather in ("dusk", "fog", "rain"):
        colours = np.where(glowing[:, None], np.maximum(colours, look.palette[materials] * 1.1), colours)
    elif look.brake:
        colours = np.where(
            ((materials == TAIL) & look.brake)[:, None], np.maximum(colours, look.palette[materials] * 0.9), colours
        )
    colours = _hazed(colours, light, Z)
    quads = shape.quads[order]
    smooth = box_height > 14
    if z.min() > NEAR_M:
        u, v = view.project(x, up, z)
        points = fixed(np.stack([u, v], 1))[quads]  # (F, 4, 2)
        solid = shape.layers[order] <= 1
        for outline, colour, body in zip(points, colours, solid, strict=True):
            brush.fill(outline, colour, number if body else 0, smooth)
        return
    corners = np.stack([x, up, z], 1)[quads]
    for polygon, colour, layer in zip(corners, colours, shape.layers[order], strict=True):
        cut = clip_near(polygon)
        if len(cut) >= 3:
            u, v = view.project(cut[:, 0], cut[:, 1], cut[:, 2])
            brush.fill(fixed(np.stack([u, v], 1)), colour, number if layer <= 1 else 0, smooth)


def draw_person(
    brush: Brush,
    light: Light,
    look: Person,
    figure: Silhouette,
    Z: float,
    number: int,
    box_height: float,
    shaded: bool,
) -> None:
    """A figure limb by limb: shadow side first, lit side over it."""
    sun = light.sun * (0.12 if shaded else 1.0)
    base = light.sky * 0.55 + light.bounce * 0.4 + sun * 0.12
    bright = light.sky * 0.65 + light.bounce * 0.3 + sun * 0.62
    dark_colours = _hazed(look.palette * base, light, Z)
    lit_colours = _hazed(look.palette * bright, light, Z)
    for rim, thickness in figure.wheels:
        colour = dark_colours[people.RUBBER].tolist()
        width = max(1, round(thickness))
        outline = fixed(rim)
        cv2.polylines(brush.image, [outline], True, colour, width, cv2.LINE_AA, SHIFT)
        cv2.polylines(brush.ids, [outline], True, number, max(width, 2), cv2.LINE_8, SHIFT)
        if box_height > 70:
            hub = rim.mean(0)
            for k in range(0, 20, 3):
                cv2.line(brush.image, tuple(fixed(hub)), tuple(outline[k]), (90, 90, 90), 1, cv2.LINE_AA, SHIFT)
    outlines, lit = fixed(figure.capsules), fixed(figure.lit)
    for i in figure.order:
        material = figure.materials[i]
        brush.fill(outlines[i], dark_colours[material], number)
        if box_height > 22:
            brush.fill(lit[i], lit_colours[material], 0)
    if box_height <= 22:
        return


# ------------------------------------------------------------------- furniture

_PRISMS = {  # half width x, half depth f, height from, to
    "bin": (0.28, 0.34, 0.0, 1.05),
    "cabinet": (0.45, 0.2, 0.0, 1.15),
    "skip": (0.9, 1.9, 0.1, 1.45),
    "heap": (0.8, 0.8, 0.0, 0.7),
    "bench": (0.25, 0.9, 0.38, 0.48),
    "shelter": (0.8, 2.0, 2.3, 2.45),
}


def _prism(
    brush: Brush,
    view: View,
    light: Light,
    X: float,
    Z: float,
    yaw: float,
    half: tuple[float, float],
    heights: tuple[float, float],
    albedo: F64,
    shaded: bool,
) -> None:
    """An upright box."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    hx, hf = half
    corners = np.array([[-hx, -hf], [hx, -hf], [hx, hf], [-hx, hf]])
    px, pz = X + corners[:, 0] * cos + corners[:, 1] * sin, Z - corners[:, 0] * sin + corners[:, 1] * cos
    if pz.min() < NEAR_M:
        return
    low_u, low_v = view.project(px, np.full(4, heights[0]), pz)
    top_u, top_v = view.project(px, np.full(4, heights[1]), pz)
    sun_dir = light.sun_in_camera(view.heading)
    sun = light.sun * (0.12 if shaded else 1.0)
    faces = []
    for i in range(4):
        j = (i + 1) % 4
        normal = np.array([pz[j] - pz[i], 0.0, -(px[j] - px[i])])
        normal /= max(float(np.linalg.norm(normal)), 1e-9)
        if normal[0] * px[i] + normal[2] * pz[i] < 0:
            gain = light.sky * 0.5 + light.bounce * 0.5 + sun * max(0.0, float(normal @ sun_dir))
            outline = np.array(
                [[low_u[i], low_v[i]], [low_u[j], low_v[j]], [top_u[j], top_v[j]], [top_u[i], top_v[i]]]
            )
            faces.append((pz[i] + pz[j], outline, gain))
    for _, outline, gain in sorted(faces, key=lambda f: -f[0]):
        brush.fill(fixed(outline), _hazed(albedo * gain, light, Z), OCCLUDER)
    if heights[1] < view.camera.height_m:
        gain = light.sky + sun * max(0.0, sun_dir[1])
        brush.fill(fixed(np.stack([top_u, top_v], 1)), _hazed(albedo * gain, light, Z), OCCLUDER)


def _post(
    brush: Brush, view: View, light: Light, X: float, Z: float, radius: float, height: float, albedo: F64
) -> None:
    """A round post with a lighter flank."""
    u, v = view.project(np.array([X, X]), np.array([0.0, height]), np.array([Z, Z]))
    r = max(radius * view.camera.P_cam2[0, 0] / Z, 0.35)
    for left, right, gain in (
        (-1.0, 1.0, light.sky * 0.5 + light.bounce * 0.4),
        (-0.1, 0.7, light.sky * 0.7 + light.sun * 0.4),
    ):
        outline = np.array(
            [[u[0] + left * r, v[0]], [u[0] + right * r, v[0]], [u[1] + right * r, v[1]], [u[1] + left * r, v[1]]]
        )
        brush.fill(fixed(outline), _hazed(albedo * gain, light, Z), OCCLUDER)


def _disc(
    brush: Brush,
    view: View,
    light: Light,
    X: float,
    Z: float,
    height: float,
    radius: float,
    sides: int,
    turn: float,
    colours: list[F64],
) -> None:
    """A sign: nested polygons facing the camera."""
    u, v = view.project(np.array([X]), np.array([height]), np.array([Z]))
    r = radius * view.camera.P_cam2[0, 0] / Z
    angle = turn + np.linspace(0, 2 * np.pi, sides, endpoint=False)
    for share, albedo in zip((1.0, 0.78, 0.35), colours, strict=False):
        outline = np.stack([u[0] + r * share * np.cos(angle), v[0] - r * share * np.sin(angle)], 1)
        brush.fill(fixed(outline), _hazed(albedo * (light.sky * 0.8 + light.sun * 0.35), light, Z), OCCLUDER)


def draw_prop(
    brush: Brush, view: View, light: Light, kind: str, X: float, Z: float, yaw: float, look: int, shaded: bool
) -> None:
    """A piece of street furniture; it occludes, and carries no label."""
    rng = np.random.default_rng(look)
    if Z < 1.2:
        return
    grey = np.full(3, rng.uniform(40, 150))
    colour = rng.uniform(20, 220, 3)
    if kind in ("lamp", "pole", "signal"):
        height = {"lamp": rng.uniform(6, 9), "pole": rng.uniform(3, 8), "signal": 3.3}[kind]
        _post(brush, view, light, X, Z, rng.uniform(0.05, 0.13), height, grey)
        if kind == "lamp":
            arm = rng.uniform(0.8, 2.0) * (-1 if X > 0 else 1)
            u, v = view.project(np.array([X, X + arm]), np.array([height, height + 0.3]), np.array([Z, Z]))
            r = max(0.08 * view.camera.P_cam2[0, 0] / Z, 0.5)
            outline = np.array([[u[0], v[0] - r], [u[1], v[1] - r], [u[1], v[1] + r], [u[0], v[0] + r]])
            brush.fill(fixed(outline), _hazed(grey * light.sky, light, Z), OCCLUDER)
        elif kind == "signal":
            _prism(brush, view, light, X, Z - 0.2, 0.0, (0.16, 0.12), (2.3, 3.3), np.full(3, 25.0), shaded)
            lamp = int(rng.integers(3))
            tint = [np.array([60.0, 60, 250]), np.array([60.0, 190, 250]), np.array([140.0, 230, 60])][lamp] * 1.3
            _disc(brush, view, light, X, Z - 0.35, 3.1 - 0.3 * lamp, 0.1, 10, 0.0, [tint])
    elif kind == "sign":
        height = rng.uniform(2.0, 2.8)
        _post(brush, view, light, X, Z, 0.035, height + 0.3, np.full(3, 130.0))
        white, red, blue = np.full(3, 235.0), np.array([40.0, 35, 200]), np.array([180.0, 90, 20])
        style = int(rng.integers(5))
        sides, turn, palette = [
            (16, 0.0, [red, white, np.full(3, 40.0)]),
            (16, 0.0, [white, blue, white]),
            (3, np.pi / 2, [red, white, np.full(3, 40.0)]),
            (4, np.pi / 4, [white, blue, white]),
            (4, 0.0, [white, np.array([30.0, 200, 240]), np.array([30.0, 200, 240])]),
        ][style]
        _disc(brush, view, light, X, Z - 0.05, height, rng.uniform(0.28, 0.45), sides, turn, palette)
    elif kind == "bollard":
        tall = rng.uniform(0.5, 1.1)
        _post(
            brush, view, light, X, Z, rng.uniform(0.04, 0.1), tall, grey if rng.random() < 0.6 else np.full(3, 225.0)
        )
    elif kind == "board":
        base = rng.uniform(0.4, 1.6)
        _post(brush, view, light, X, Z, 0.06, base, grey)
        _prism(
            brush,
            view,
            light,
            X,
            Z,
            yaw + np.pi / 2,
            (0.08, rng.uniform(0.5, 1.9)),
            (base, base + rng.uniform(0.8, 2.4)),
            colour,
            shaded,
        )
    elif kind == "shelter":
        for f in (-1.9, 1.9):
            _prism(brush, view, light, X, Z + f, yaw, (0.7, 0.04), (0.0, 2.3), np.array([110.0, 100, 90]), shaded)
        _prism(brush, view, light, X, Z, yaw, (0.8, 2.0), (2.3, 2.45), grey, shaded)
    elif kind == "cycle":  # parked, so no Cyclist
        rider = people.make_person(True, rng)
        limbs = people.pose(rider, 0.0, False)
        bike = people.Limbs(limbs.start[:9], limbs.end[:9], limbs.radii[:9], limbs.materials[:9], limbs.wheels)
        figure = people.silhouette(bike, view, X, Z, yaw, 0.5)
        draw_person(brush, light, rider, figure, Z, OCCLUDER, view.camera.P_cam2[1, 1] * 1.1 / Z, shaded)
    elif kind in _PRISMS:
        hx, hf, h0, h1 = _PRISMS[kind]
        size = rng.uniform(0.85, 1.2)
        _prism(
            brush,
            view,
            light,
            X,
            Z,
            yaw,
            (hx * size, hf * size),
            (h0, h1 * size),
            colour if rng.random() < 0.6 else grey,
            shaded,
        )
        if kind == "bin":
            _prism(
                brush,
                view,
                light,
                X,
                Z,
                yaw,
                (hx * size * 1.05, hf * size * 1.05),
                (h1 * size, h1 * size + 0.06),
                colour * 0.6,
                shaded,
            )
