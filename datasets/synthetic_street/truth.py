"""Exact labels from geometry: tight boxes, truncation, occlusion level, metric pose, in KITTI's conventions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.sample import Sample
from datasets.synthetic_street.geometry import NEAR_M, View
from datasets.synthetic_street.people import Silhouette, pose, silhouette
from datasets.synthetic_street.scene import Actor, looks
from datasets.synthetic_street.vehicles import Vehicle, vehicle_points
from perception.camera import PinholeCamera
from perception.formats.kitti import UNKNOWN_ALPHA, ObjectRows, TrackingRows
from perception.types import CLASS_NAMES, F64, I64, U8

LABELLED_M = 75.0
"""Objects farther away become DontCare, as in KITTI."""
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


def place(actor: Actor, view: View, light_side: float = 1.0) -> Placed | None:
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
        figure = silhouette(pose(look, actor.phase, actor.moving), view, X, Z, yaw, light_side)
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


def visibility_from_boxes(placed: list[Placed]) -> F64:
    """Visible share of each object from boxes and depth alone: what nearer boxes cover is hidden.

    An approximation for drives that are not rendered: boxes overstate what stands in front, and walls, trees and
    posts are left out.
    """
    shares = np.ones(len(placed))
    for i, far in enumerate(placed):
        x0, y0, x1, y1 = far.box
        area = (x1 - x0) * (y1 - y0)
        nearer = [
            p.box
            for p in placed
            if p.Z < far.Z - 0.3 and p.box[0] < x1 and p.box[2] > x0 and p.box[1] < y1 and p.box[3] > y0
        ]
        if not nearer or area <= 0:
            continue
        # exact union on the grid of all edges; few boxes overlap, so the grid is small
        boxes = np.clip(np.array(nearer), [x0, y0, x0, y0], [x1, y1, x1, y1])
        xs, ys = (
            np.unique(np.r_[x0, x1, boxes[:, 0], boxes[:, 2]]),
            np.unique(np.r_[y0, y1, boxes[:, 1], boxes[:, 3]]),
        )
        cx, cy = (xs[:-1] + xs[1:]) / 2, (ys[:-1] + ys[1:]) / 2
        inside_x = (cx[None] > boxes[:, :1]) & (cx[None] < boxes[:, 2:3])  # (M, X)
        inside_y = (cy[None] > boxes[:, 1:2]) & (cy[None] < boxes[:, 3:4])  # (M, Y)
        covered = np.einsum("my,mx->yx", inside_y.astype(int), inside_x.astype(int)) > 0
        hidden = float((covered * np.outer(np.diff(ys), np.diff(xs))).sum()) / area
        # boxes cover about a third more than the bodies in them
        shares[i] = 1.0 - min(1.0, hidden * 0.85)
    return shares


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
