"""Exact labels from geometry: tight boxes, truncation, occlusion level, metric pose, in KITTI's conventions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from datasets.labels import boxes_xyzlhwr
from datasets.sample import Sample
from datasets.synthetic_street.geometry import NEAR_M, View
from datasets.synthetic_street.people import Limbs, Person, Silhouette, pose, silhouettes
from datasets.synthetic_street.scene import Actor, looks
from datasets.synthetic_street.vehicles import Vehicle
from perception.arrays import F64, I64, U8
from perception.cameras.pinhole import PinholeCamera
from perception.formats.kitti import UNKNOWN_ALPHA, ObjectRows, TrackingRows
from perception.types import CLASS_NAMES

LABELLED_M = 75.0
"""Objects farther away become DontCare, as in KITTI."""
_POSES_A_RADIAN = 10.0
_FIGURE_NEAR_M = 0.8
SMALLEST_PX = 13.0
"""Objects lower than this become DontCare."""
VISIBLE_SHARES = (0.80, 0.45, 0.10)
"""Least visible share of occlusion levels 0, 1 and 2; below the last an object is level 3, unknown."""


@dataclass(frozen=True, eq=False)
class Placed:
    """An actor as one camera sees it."""

    actor: Actor
    X: float
    Z: float
    yaw: float
    """Relative to the camera's heading."""
    box: F64
    """(4,) tight, cut to the image."""
    truncation: float
    """Share of its volume outside the image, 0..1."""
    figure: Silhouette | None = None
    """Of people."""
    vertices: F64 | None = None
    """(V, 3) of vehicles in camera coordinates: X, height above the road, Z."""

    @property
    def height_px(self) -> float:
        return float(self.box[3] - self.box[1])


def _wrap(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


_FILL = 0.85
"""Share of a box that hides what is behind it."""
_GRID = np.stack(
    np.meshgrid(np.linspace(-0.5, 0.5, 4), np.linspace(0.05, 0.95, 3), np.linspace(-0.5, 0.5, 7)), -1
).reshape(-1, 3)


def _truncation(view: View, X: float, Z: float, yaw: float, hwl: tuple[float, float, float]) -> float:
    """Share of the object's cuboid that the image does not show, by sampling it."""
    h, w, length = hwl
    x, f = _GRID[:, 0] * w, _GRID[:, 2] * length
    cos, sin = np.cos(yaw), np.sin(yaw)
    px, pz = X + x * cos + f * sin, Z - x * sin + f * cos
    ahead = pz > NEAR_M
    u, v = view.project(px, _GRID[:, 1] * h, np.where(ahead, pz, 1.0))
    height, width = view.size_hw
    inside = ahead & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    return float(1.0 - inside.mean())


@lru_cache(maxsize=4096)
def _posed(kind: str, look: int, step: int, moving: bool) -> Limbs:
    """A person's limbs at one of ten poses a radian; a drive sees the same ones again and again."""
    person = looks(kind, look)
    assert isinstance(person, Person)
    return pose(person, step / _POSES_A_RADIAN, moving)


def place(actor: Actor, view: View) -> Placed | None:
    """Where the camera sees an actor; None where it does not."""
    found = place_all([actor], view)
    return found[0] if found else None


def place_all(actors: list[Actor], view: View) -> list[Placed]:
    """Everyone the camera sees, in the order given; vehicles are projected all at once."""
    near = []
    for actor in actors:
        X, Z = view.point_to_camera(actor.x, actor.y)
        look = looks(actor.kind, actor.look)
        reach = max(look.dimensions_hwl) * 0.75
        if -reach < Z < 130 and abs(X) - reach < (Z + reach) * 0.95 + 2:
            near.append((actor, look, X, Z, actor.heading - view.heading))
    walking = [n for n in near if isinstance(n[1], Person) and n[3] > _FIGURE_NEAR_M]
    poses = [
        (_posed(a.kind, a.look, int(a.phase * _POSES_A_RADIAN), a.moving), X, Z, yaw) for a, _, X, Z, yaw in walking
    ]
    figures = iter(silhouettes(poses, view))
    bodies = iter(_vehicle_extents([n for n in near if isinstance(n[1], Vehicle)], view))
    placed = []
    for actor, look, X, Z, yaw in near:
        figure, vertices, extent = None, None, None
        if isinstance(look, Vehicle):
            extent, vertices = next(bodies)
        elif Z > _FIGURE_NEAR_M:
            figure = next(figures)
            points = figure.points()
            extent = [*points.min(0).tolist(), *points.max(0).tolist()]
        if extent is None or (cut := _cut_to(extent, view.size_hw)) is None:
            continue
        outside = _truncation(view, X, Z, yaw, look.dimensions_hwl) if cut != extent else 0.0
        placed.append(Placed(actor, X, Z, yaw, np.array(cut), outside, figure, vertices))
    return placed


def _cut_to(extent: list[float], size_hw: tuple[int, int]) -> list[float] | None:
    """A box cut to the image; None where nothing of a pixel's size is left."""
    bottom, right = size_hw[0] - 1.0, size_hw[1] - 1.0
    x0, y0, x1, y1 = extent
    cut = [min(max(x0, 0.0), right), min(max(y0, 0.0), bottom), min(max(x1, 0.0), right), min(max(y1, 0.0), bottom)]
    return cut if cut[2] - cut[0] >= 1 and cut[3] - cut[1] >= 1 else None


def _vehicle_extents(near: list, view: View) -> list[tuple[list[float] | None, F64]]:
    """Tight boxes before cutting, None for vehicles behind the camera, and all vertices as (V, 3) X, height, Z."""
    if not near:
        return []
    sizes = [len(look.vertices) for _, look, *_ in near]
    of = np.repeat(np.arange(len(near)), sizes)
    local = np.concatenate([look.vertices for _, look, *_ in near])
    X, Z, yaw = (np.array([n[k] for n in near])[of] for k in (2, 3, 4))
    cos, sin = np.cos(yaw), np.sin(yaw)
    camera = np.stack(
        [X + local[:, 0] * cos + local[:, 2] * sin, local[:, 1], Z - local[:, 0] * sin + local[:, 2] * cos], 1
    )
    starts = np.cumsum([0, *sizes])
    bodies = [camera[a:b] for a, b in pairwise(starts.tolist())]
    outlines = [body[look.shape.outline] for body, (_, look, *_) in zip(bodies, near, strict=True)]
    ends = np.cumsum([0] + [len(o) for o in outlines])[:-1]
    points = np.concatenate(outlines)
    first = np.minimum.reduceat(points[:, 2], ends)
    pixels = np.stack(view.project(points[:, 0], points[:, 1], np.maximum(points[:, 2], NEAR_M)), 1)
    low, high = np.minimum.reduceat(pixels, ends).tolist(), np.maximum.reduceat(pixels, ends).tolist()
    extents: list[list[float] | None] = [[*a, *b] for a, b in zip(low, high, strict=True)]
    for i in np.flatnonzero(first < NEAR_M).tolist():
        outline = outlines[i]
        if (outline[:, 2] < NEAR_M).all():
            extents[i] = None
            continue
        # what lies before the near plane, and where the lines to the rest cross it
        u, v = view.project(*_cut(outline[:, 0], outline[:, 1], outline[:, 2]))
        extents[i] = [float(u.min()), float(v.min()), float(u.max()), float(v.max())]
    return list(zip(extents, bodies, strict=True))


def _cut(x: F64, up: F64, z: F64) -> tuple[F64, F64, F64]:
    """Points before the near plane, with those behind it drawn forward along lines to the foremost point."""
    front = int(np.argmax(z))
    behind = z < NEAR_M
    share = np.where(behind, (NEAR_M - z) / np.maximum(z[front] - z, 1e-9), 0.0)
    return x + (x[front] - x) * share, up, np.where(behind, NEAR_M, z)


def visibility_from_boxes(placed: list[Placed], size_hw: tuple[int, int]) -> F64:
    """Visible share of each object from boxes and depth alone: nearer boxes hide what lies behind them.

    An approximation for drives that are not drawn: boxes are painted far to near on a grid of half the image's
    resolution. A body fills its box only to the most part, which is allowed for; walls, trees and posts are left out.
    """
    order = np.argsort([-p.Z for p in placed], kind="stable")
    grid = np.zeros((size_hw[0] // 2 + 1, size_hw[1] // 2 + 1), np.int16)
    areas = np.ones(len(placed))
    for index in order.tolist():
        left, top, right, bottom = (placed[index].box / 2).tolist()
        x0, y0, x1, y1 = int(left), int(top), int(right) + 1, int(bottom) + 1
        grid[y0:y1, x0:x1] = index + 1
        areas[index] = (x1 - x0) * (y1 - y0)
    seen = np.bincount(grid.ravel(), minlength=len(placed) + 1)[1:]
    return 1 - _FILL * (1 - seen / areas)


def level_of(visible: np.ndarray) -> I64:
    """Occlusion level 0..3 from the visible share."""
    full, part, little = VISIBLE_SHARES
    return np.where(visible >= full, 0, np.where(visible >= part, 1, np.where(visible >= little, 2, 3))).astype(
        np.int64
    )


def rows_of(placed: list[Placed], visible: np.ndarray, view: View, frame_id: int) -> TrackingRows:
    """KITTI tracking rows of one frame, nearest first, DontCare last; what is not visible at all has no row."""
    scale = view.size_hw[0] / 375
    kept: list[tuple[Placed, float]] = []
    dont_care: list[tuple[Placed, float]] = []
    for index in np.argsort([p.Z for p in placed], kind="stable"):
        p, share = placed[index], visible[index]
        if share <= 0.005:
            continue
        small = p.box[3] - p.box[1] < SMALLEST_PX * scale and p.truncation < 0.3
        (dont_care if small or p.Z > LABELLED_M else kept).append((p, share))
    count, total = len(kept), len(kept) + len(dont_care)
    everyone = [p for p, _ in kept + dont_care]
    names = tuple(looks(p.actor.kind, p.actor.look).name for p, _ in kept) + ("DontCare",) * len(dont_care)
    truncation = np.full(total, -1.0)
    occlusion = np.full(total, -1, np.int64)
    alpha = np.full(total, UNKNOWN_ALPHA)
    rotation = np.full(total, UNKNOWN_ALPHA)
    dimensions = np.full((total, 3), -1.0)
    location = np.full((total, 3), -1000.0)
    ids = np.full(total, -1, np.int64)
    occlusion[:count] = level_of(np.array([share for _, share in kept]))
    for i, (p, _) in enumerate(kept):
        yaw = _wrap(p.yaw - np.pi / 2)
        truncation[i] = p.truncation
        rotation[i] = yaw
        alpha[i] = _wrap(yaw - np.arctan2(p.X, p.Z))
        dimensions[i] = looks(p.actor.kind, p.actor.look).dimensions_hwl
        location[i] = (p.X, view.camera.height_m, p.Z)
        ids[i] = p.actor.track_id
    boxes = np.array([p.box for p in everyone], np.float64).reshape(-1, 4)
    objects = ObjectRows(names, truncation, occlusion, alpha, boxes, dimensions, location, rotation)
    return TrackingRows(np.full(total, frame_id, np.int64), ids, objects)


def sample_of(rows: TrackingRows, image_bgr: U8, road: U8, camera: PinholeCamera, name: str, drive: str) -> Sample:
    """A training sample from the rows of one frame; Vans are ignored for Car, level 3 and DontCare for all."""
    objects = rows.objects
    names = np.array(objects.names, dtype=object)
    known = np.isin(names, CLASS_NAMES) & (objects.occlusion < 3)
    vans = (names == "Van") & (objects.occlusion < 3)
    # a truck is no car, and hardly visible things are nobody's fault
    rest = ~known & ~vans & (names != "Truck") | (objects.occlusion >= 3)
    ignored = vans | rest
    return Sample(
        image_bgr=image_bgr,
        name=name,
        drive=drive,
        boxes_xyxy=objects.boxes_xyxy[known].astype(np.float32),
        class_ids=np.array([CLASS_NAMES.index(n) for n in names[known]], np.int64),
        ignore_boxes_xyxy=objects.boxes_xyxy[ignored].astype(np.float32),
        ignore_class_ids=np.where(vans[ignored], CLASS_NAMES.index("Car"), -1).astype(np.int64),
        distances_m=objects.location_cam2[known, 2].astype(np.float32),
        boxes_xyzlhwr=boxes_xyzlhwr(objects[known]),
        road=road,
        camera=camera,
    )
