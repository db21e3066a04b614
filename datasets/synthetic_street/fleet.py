"""All vehicles of a image at once: seen faces, their colours and outlines, ready to be filled from far to near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from datasets.synthetic_street.brush import SHADE, SHIFT, Brush, fixed
from datasets.synthetic_street.geometry import NEAR_M
from datasets.synthetic_street.light import Light
from datasets.synthetic_street.truth import Placed
from datasets.synthetic_street.vehicles import (
    GLASS,
    HEADLIGHT,
    MATERIALS,
    PAINT,
    RIM,
    TAIL,
    TRIM,
    Vehicle,
    VehicleShape,
    clip_near,
)
from perception.arrays import F64, I64

SMALLEST_FACE_PX = 0.7
"""Faces that cover less are left out."""
COARSE_TO_PX = 40.0
"""Height of a vehicle up to which its silhouette is painted first, and only faces from `COARSE_FACE_PX` on it."""
COARSE_FACE_PX = 4.0
SMOOTH_FROM_PX = 24.0
"""Height of a vehicle in pixels from which its edges are drawn smooth."""

_SHINE = np.zeros(MATERIALS)
_SHINE[[GLASS, PAINT, TRIM, RIM]] = (1.0, 1.0, 0.4, 0.4)


@dataclass(frozen=True, eq=False)
class Prepared:
    """One vehicle's seen faces in drawing order."""

    outlines: list[np.ndarray]
    """Fixed point outlines."""
    colours: list[list[float]]
    hulls: list[np.ndarray]
    """Fixed point outlines that together make the silhouette."""
    ground: list[float] | None
    """Colour under the faces of a small vehicle, whose smallest faces are left out."""
    smooth: bool

    def draw(self, brush: Brush, number: int) -> None:
        image, ids, fill = brush.image, brush.ids, cv2.fillConvexPoly
        for hull in self.hulls:
            fill(ids, hull, number, cv2.LINE_8, SHIFT)
        if self.ground is not None:
            for hull in self.hulls:
                fill(image, hull, self.ground, cv2.LINE_8, SHIFT)
        line = cv2.LINE_AA if self.smooth else cv2.LINE_8
        for outline, colour in zip(self.outlines, self.colours, strict=True):
            fill(image, outline, colour, line, SHIFT)


@dataclass(frozen=True, eq=False)
class _Faces:
    """The faces of all vehicles, one below the other; `of` says whose each is."""

    of: I64
    normals: F64
    centres: F64
    materials: I64
    layers: I64
    detail: I64
    mottle: F64


def prepare(brush: Brush, vehicles: list[tuple[Vehicle, Placed]]) -> list[Prepared]:
    """Transform, cull, shade and sort the faces of all vehicles in one pass."""
    if not vehicles:
        return []
    looks, places = [v for v, _ in vehicles], [p for _, p in vehicles]
    shapes = [look.shape for look in looks]
    counts = np.array([len(shape.quads) for shape in shapes])
    of = np.repeat(np.arange(len(looks)), counts)
    faces = _Faces(
        of,
        np.concatenate([shape.normals for shape in shapes]),
        np.concatenate([look.centres for look in looks]),
        np.concatenate([shape.materials for shape in shapes]),
        np.concatenate([shape.layers for shape in shapes]),
        np.concatenate([shape.detail for shape in shapes]),
        np.concatenate([shape.mottle for shape in shapes]),
    )
    first_vertex = np.cumsum([0] + [len(look.vertices) for look in looks])
    quads = np.concatenate([shape.quads for shape in shapes]) + first_vertex[of][:, None]
    camera = np.concatenate([p.vertices for p in places if p.vertices is not None])  # (V, 3) X, up, Z
    near = np.minimum.reduceat(camera[:, 2], first_vertex[:-1]) <= NEAR_M
    pixels = np.stack(brush.view.project(camera[:, 0], camera[:, 1], np.maximum(camera[:, 2], NEAR_M)), 1)

    X, Z, yaw, heights = (np.array([getattr(p, k) for p in places]) for k in ("X", "Z", "yaw", "height_px"))
    eye = _camera_in_body(X, Z, yaw, brush.view.camera.height_m)[of] - faces.centres
    facing = np.einsum("ij,ij->i", faces.normals, eye)
    candidates = np.flatnonzero((facing > 0) & (faces.detail <= heights[of]))
    corners = pixels[quads[candidates]]  # (C, 4, 2)
    a, b = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    least = np.where(heights < COARSE_TO_PX, COARSE_FACE_PX, SMALLEST_FACE_PX)[of[candidates]]
    large = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) > 2 * least
    kept = large | near[of[candidates]]
    visible = candidates[kept]
    distance = np.sqrt(np.einsum("ij,ij->i", eye[visible], eye[visible]))
    order = np.lexsort((-distance, faces.layers[visible], of[visible]))
    visible, distance = visible[order], distance[order]
    colours = _colours(brush, looks, places, faces, visible, facing[visible] / distance, eye[visible, 1] / distance)
    colours = brush.hazed(colours, Z[of[visible]][:, None])
    colour_rows = colours.tolist()

    points = fixed(pixels)
    outlines = _outlines(points, quads, shapes, visible, of, first_vertex)
    bounds = np.searchsorted(of[visible], np.arange(len(looks) + 1))
    # mean colour of each vehicle's faces, as the ground of small vehicles
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(colours, 0)])
    means = ((sums[bounds[1:]] - sums[bounds[:-1]]) / np.maximum(np.diff(bounds), 1)[:, None]).tolist()
    first_face = np.cumsum([0, *counts])
    prepared = []
    for i, shape in enumerate(shapes):
        part = slice(int(bounds[i]), int(bounds[i + 1]))
        if near[i]:
            body = camera[first_vertex[i] : first_vertex[i + 1]]
            prepared.append(_cut_near(brush, shape, visible[part] - first_face[i], body, colour_rows[part]))
            continue
        mine = points[first_vertex[i] : first_vertex[i + 1]]
        hulls = [cv2.convexHull(mine[group]).reshape(-1, 2) for group in shape.parts if len(group) > 2]
        ground = means[i] if heights[i] < COARSE_TO_PX else None
        smooth = bool(heights[i] > SMOOTH_FROM_PX)
        prepared.append(Prepared(outlines[part], colour_rows[part], hulls, ground, smooth))
    return prepared


def _camera_in_body(X: F64, Z: F64, yaw: F64, height_m: float) -> F64:
    """Return the camera's position (N, 3) in the axes of each body, which decides the faces that it sees."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([-X * cos + Z * sin, np.full(len(X), height_m), -X * sin - Z * cos], 1)


def _outlines(
    points: Any, quads: I64, shapes: list[VehicleShape], visible: I64, of: I64, first_vertex: I64
) -> list[Any]:
    """Return the outline of each visible face: four corners, or the points of its ring where it is round."""
    outlines = list(points[quads[visible]])
    rings = np.concatenate([shape.rings for shape in shapes])[visible]
    first_ring = np.cumsum([0] + [len(shape.gons) for shape in shapes])
    gons = np.concatenate([shape.gons + start for shape, start in zip(shapes, first_vertex[:-1], strict=True)])
    round_faces = np.flatnonzero(rings >= 0)
    circles = points[gons[rings[round_faces] + first_ring[of[visible[round_faces]]]]]
    for at, circle in zip(round_faces.tolist(), circles, strict=True):
        outlines[at] = circle
    return outlines


def _cut_near(brush: Brush, shape: VehicleShape, numbers: I64, body: F64, colours: list[list[float]]) -> Prepared:
    """A vehicle that reaches behind the near plane: each of its seen faces is cut there."""
    outlines, kept = [], []
    for quad, ring, colour in zip(shape.quads[numbers], shape.rings[numbers].tolist(), colours, strict=True):
        cut = clip_near(body[quad if ring < 0 else shape.gons[ring]])
        if len(cut) >= 3:
            outlines.append(fixed(np.stack(brush.view.project(cut[:, 0], cut[:, 1], cut[:, 2]), 1)))
            kept.append(colour)
    return Prepared(outlines, kept, list(outlines), None, True)


def _colours(
    brush: Brush, looks: list[Vehicle], places: list[Placed], faces: _Faces, visible: I64, facing: F64, eye_up: F64
) -> F64:
    """Light of sun and sky on each seen face's paint, and what it mirrors, BGR (F, 3).

    Args:
        facing: cosine between normal and view ray.
        eye_up: upward part of the unit ray to the camera.
    """
    light: Light = brush.light
    of, materials, normals = faces.of[visible], faces.materials[visible], faces.normals[visible]
    yaw = np.array([p.yaw for p in places])
    sun_x, sun_up, sun_z = light.sun_in_camera(brush.view.heading)
    cos, sin = np.cos(yaw), np.sin(yaw)
    # the sun in each body's axes
    sun = np.stack([sun_x * cos - sun_z * sin, np.full(len(yaw), sun_up), sun_x * sin + sun_z * cos], 1)
    shaded = np.array([p.actor.shaded for p in places])
    direct = np.maximum(np.einsum("ij,ij->i", normals, sun[of]), 0) * np.where(shaded, SHADE, 1.0)[of]
    rise = normals[:, 1]
    above = (rise * 0.5 + 0.5)[:, None]
    gain = light.sky * (above * np.where(shaded, 0.7, 1.0)[of, None]) + light.bounce * (1 - above)
    gain += direct[:, None] * light.sun
    # low parts see less of the sky
    gain *= (np.minimum(0.55 + faces.centres[visible, 1] * 0.45, 1.0) * faces.mottle[visible])[:, None]
    own = np.concatenate([look.palette for look in looks])[of * MATERIALS + materials]
    colours = own * gain
    # the height of the mirrored ray says whether sky, the other side of the street or the road is seen in the face
    t = np.clip((2 * facing * rise - eye_up) * 2.8 - 0.05, 0, 1)[:, None]
    bright = min(max(float(light.sky.mean()) * 1.6, 0.3), 1.0)
    around = np.array([62.0, 64, 60]) * (light.sky.mean() + light.bounce.mean())
    sky = np.minimum(light.sky_low * (1 - t) + light.sky_top * t, 255) * bright
    mirror = around * (1 - t) + sky * t
    fresnel = 0.05 + 0.9 * (1 - np.minimum(facing, 1)) ** 4
    gloss, glare = np.array([look.gloss for look in looks]), np.array([look.glare for look in looks])
    share = _SHINE[materials] * np.where(materials == PAINT, gloss[of], 1.0) * (fresnel + 0.05)
    share += (materials == GLASS) * (0.05 + 0.3 * glare[of])
    share = np.minimum(share, 0.85)[:, None]
    colours += (mirror - colours) * share
    braking = np.array([look.brake for look in looks])[of] & (materials == TAIL)
    lamps = materials == HEADLIGHT if light.weather in ("dusk", "fog", "rain") else np.zeros(len(of), bool)
    glows = braking | lamps
    colours[glows] = np.maximum(colours[glows], own[glows])
    return colours
