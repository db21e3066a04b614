"""Road users and street furniture as polygons: each face shaded by its normal, drawn from far to near."""

from __future__ import annotations

from collections.abc import Sequence

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
    MATERIALS,
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

    def fill(self, outline: np.ndarray, colour: Sequence[float] | F64, number: int, smooth: bool = True) -> None:
        """A convex polygon given in fixed point; `number` 0 leaves the id plane as it is."""
        cv2.fillConvexPoly(self.image, outline, colour, cv2.LINE_AA if smooth else cv2.LINE_8, SHIFT)
        if number:
            cv2.fillConvexPoly(self.ids, outline, number, cv2.LINE_8, SHIFT)


def _hazed(colours: F64, light: Light, distance: float) -> F64:
    keep = float(light.fade(distance))
    return np.clip(colours * keep + light.haze * (1 - keep), 0, 255)


_SHINE = np.zeros(MATERIALS)
_SHINE[[GLASS, PAINT, TRIM, RIM]] = (1.0, 1.0, 0.4, 0.4)


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
    x, up, z = vehicle_points(look, X, Z, yaw)
    cos, sin = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
    eye = np.array([-X, view.camera.height_m, -Z]) @ turn.T - look.centres  # to the camera, in the body's axes
    facing = np.einsum("ij,ij->i", shape.normals, eye)
    seen = (facing > 0.0) & (shape.detail <= box_height)
    whole = bool(z.min() > NEAR_M)
    if whole:
        pixels = np.stack(view.project(x, up, z), 1)
        corners = pixels[shape.quads]  # (F, 4, 2)
        a, b = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
        seen &= np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) > 1.2  # twice the area in pixels
    visible = np.flatnonzero(seen)
    if not len(visible):
        return
    distance = np.sqrt(np.einsum("ij,ij->i", eye[visible], eye[visible]))
    order = np.lexsort((-distance, shape.layers[visible]))
    visible, distance = visible[order], distance[order]
    facing = facing[visible] / distance
    rise = shape.normals[visible, 1]
    normals = shape.normals[visible]
    colours = _lit(
        look,
        light,
        view,
        normals @ turn,
        facing,
        eye[visible, 1] / distance,
        rise,
        look.centres[visible, 1],
        shape.materials[visible],
        shape.mottle[visible],
        shaded,
    )
    colours = _hazed(colours, light, Z)
    smooth = box_height > 24
    rings = shape.rings[visible].tolist()
    if whole:
        for part in shape.parts:
            hull = cv2.convexHull(pixels[part].astype(np.float32)).reshape(-1, 2)
            cv2.fillConvexPoly(brush.ids, fixed(hull), number, cv2.LINE_8, SHIFT)
        for outline, ring, colour in zip(fixed(corners[visible]), rings, colours.tolist(), strict=True):
            brush.fill(outline if ring < 0 else fixed(pixels[shape.gons[ring]]), colour, 0, smooth)
        return
    points = np.stack([x, up, z], 1)
    for quad, ring, colour in zip(shape.quads[visible], rings, colours.tolist(), strict=True):
        cut = clip_near(points[quad if ring < 0 else shape.gons[ring]])
        if len(cut) >= 3:
            brush.fill(fixed(np.stack(view.project(cut[:, 0], cut[:, 1], cut[:, 2]), 1)), colour, number, smooth)


def _lit(
    look: Vehicle,
    light: Light,
    view: View,
    normals: F64,
    facing: F64,
    eye_up: F64,
    rise: F64,
    height: F64,
    materials: np.ndarray,
    mottle: F64,
    shaded: bool,
) -> F64:
    """Colour of each face: light of sun and sky on its paint, and what it mirrors, BGR (F, 3)."""
    sun = light.sun * (0.12 if shaded else 1.0)
    direct = np.maximum(normals @ light.sun_in_camera(view.heading), 0)[:, None] * sun
    above = (rise * 0.5 + 0.5)[:, None]
    gain = light.sky * above * (0.7 if shaded else 1.0) + light.bounce * (1 - above) + direct
    gain *= (np.minimum(0.55 + height * 0.45, 1.0) * mottle)[:, None]  # low parts see less of the sky
    own = look.palette[materials]
    colours = own * gain
    # the height of the mirrored ray says whether sky, the other side of the street or the road is seen in the face
    up = 2 * facing * rise - eye_up
    t = np.clip(up * 2.8 - 0.05, 0, 1)[:, None]
    bright = min(max(float(light.sky.mean()) * 1.6, 0.3), 1.0)
    around = np.array([62.0, 64, 60]) * (light.sky.mean() + light.bounce.mean())
    sky = np.minimum(light.sky_low * (1 - t) + light.sky_top * t, 255) * bright
    mirror = around * (1 - t) + sky * t
    fresnel = 0.05 + 0.9 * (1 - np.minimum(facing, 1)) ** 4
    panes = (materials == GLASS) * (0.05 + 0.3 * look.glare)
    share = _SHINE[materials] * np.where(materials == PAINT, look.gloss, 1.0) * (fresnel + 0.05) + panes
    share = np.minimum(share, 0.85)[:, None]
    colours = colours * (1 - share) + mirror * share
    if light.weather in ("dusk", "fog", "rain"):
        glows = (materials == HEADLIGHT) | ((materials == TAIL) & look.brake)
        colours[glows] = np.maximum(colours[glows], own[glows] * 1.1)
    elif look.brake:
        glows = materials == TAIL
        colours[glows] = np.maximum(colours[glows], own[glows] * 0.9)
    return colours


def draw_person(
    brush: Brush,
    light: Light,
    look: Person,
    figure: Silhouette,
    Z: float,
    number: int,
    box_height: float,
    shaded: bool,
    sun_side: float,
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
    outlines, lit = fixed(figure.capsules), fixed(figure.lit(sun_side))
    for i in np.argsort(-figure.depth, kind="stable").tolist():
        material = figure.materials[i]
        brush.fill(outlines[i], dark_colours[material], number)
        if box_height > 22:
            brush.fill(lit[i], lit_colours[material], 0)


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
        figure = people.silhouette(people.bicycle(), view, X, Z, yaw)
        draw_person(brush, light, rider, figure, Z, OCCLUDER, view.camera.P_cam2[1, 1] * 1.1 / Z, shaded, 0.5)
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
