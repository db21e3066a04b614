"""Exact labels from geometry: tight boxes, truncation, occlusion level, metric pose, in KITTI's conventions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from datasets.sample import Sample
from datasets.synthetic_street.geometry import NEAR_M, View
from datasets.synthetic_street.people import Limbs, Person, Silhouette, pose, silhouette
from datasets.synthetic_street.scene import Actor, looks
from datasets.synthetic_street.vehicles import Vehicle, vehicle_points
from perception.camera import PinholeCamera
from perception.formats.kitti import UNKNOWN_ALPHA, ObjectRows, TrackingRows
from perception.types import CLASS_NAMES, F64, I64, U8

LABELLED_M = 75.0
"""Objects farther away become DontCare, as in KITTI."""
_POSES_A_RADIAN = 10.0
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
    X, Z = view.point_to_camera(actor.x, actor.y)
    yaw = actor.heading - view.heading
    look = looks(actor.kind, actor.look)
    reach = max(look.dimensions_hwl) * 0.75
    if -reach > Z or Z > 130 or abs(X) - reach > (Z + reach) * 0.95 + 2:
        return None
    height, width = view.size_hw
    figure = None
    if isinstance(look, Vehicle):
        x, up, z = vehicle_points(look, X, Z, yaw)
        chosen = look.shape.outline
        x, up, z = x[chosen], up[chosen], z[chosen]
        if (z < NEAR_M).all():
            return None
        if (z < NEAR_M).any():
            # what lies before the near plane, and where the lines to the rest cross it
            x, up, z = _cut(x, up, z)
        u, v = view.project(x, up, z)
    else:
        if Z < 0.8:
            return None
        figure = silhouette(
            _posed(actor.kind, actor.look, int(actor.phase * _POSES_A_RADIAN), actor.moving), view, X, Z, yaw
        )
        points = figure.points()
        u, v = points[:, 0], points[:, 1]
    box = np.array([u.min(), v.min(), u.max(), v.max()])
    if box[2] <= 0 or box[3] <= 0 or box[0] >= width - 1 or box[1] >= height - 1:
        return None
    box = np.clip(box, 0, [width - 1, height - 1, width - 1, height - 1])
    if box[2] - box[0] < 1 or box[3] - box[1] < 1:
        return None
    cut = box[0] <= 0 or box[1] <= 0 or box[2] >= width - 1 or box[3] >= height - 1
    return Placed(actor, X, Z, yaw, box, _truncation(view, X, Z, yaw, look.dimensions_hwl) if cut else 0.0, figure)


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
        road=road,
        camera=camera,
    )
