"""What stands up behind the road users: sky, skyline, façades and walls (one ray a column), trees and street furniture."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.synthetic_street import textures
from datasets.synthetic_street.geometry import View
from datasets.synthetic_street.light import Light
from datasets.synthetic_street.scene import Street
from perception.types import F64, U8

OCCLUDER = 255
"""Value in the id plane of everything upright that carries no label."""


def draw_sky(image: U8, view: View, light: Light, seed: int) -> None:
    """Gradient, clouds and the far skyline, turned with the heading."""
    width = image.shape[1]
    bottom = int(np.clip(view.horizon + 8, 1, image.shape[0]))
    rows, cols = (bottom + 3) // 4, (width + 3) // 4
    share = (np.linspace(0, 1, rows) ** 1.5)[:, None, None]
    sky = light.sky_top * (1 - share) + light.sky_low * share
    turn = int(view.heading * view.camera.P_cam2[0, 0] / 4 + seed % 997)
    cloud = np.roll(textures.clouds()[light.cloud], -turn, axis=1)
    cloud = cv2.resize(cloud[:, : cols if cols <= 1024 else 1024], (cols, rows)).astype(np.float32)[..., None] / 255
    sky = sky * (1 - cloud * light.cloud_cover) + np.array([252.0, 252, 250]) * cloud * light.cloud_cover * min(
        1.0, light.haze.mean() / 200
    )
    sky = np.clip(sky, 0, 255).astype(np.uint8)
    image[:bottom] = cv2.resize(sky, (cols * 4, rows * 4), interpolation=cv2.INTER_LINEAR)[:bottom, :width]
    far = textures.skyline()[seed % 4]
    start = int(view.heading * view.camera.P_cam2[0, 0] + seed) % 2048
    columns = (np.arange(width) + start) % 2048
    part = far[:, columns]
    if seed % 3 == 0:  # far away and low
        part = part[36:]
    top = bottom - part.shape[0]
    if top < 0:
        part, top = part[-top:], 0
    keep = float(light.fade(320.0)) * 0.8 + 0.1
    gain = float((light.sky + light.sun * 0.4).mean())
    coloured = cv2.add(cv2.multiply(part, (gain * keep,) * 3 + (1.0,)), tuple(light.haze * (1 - keep)) + (0.0,))
    cv2.copyTo(cv2.cvtColor(coloured, cv2.COLOR_BGRA2BGR), np.ascontiguousarray(part[..., 3]), image[top:bottom])


class Walls:
    """Façades and walls of the blocks in view, and what each column sees of them."""

    def __init__(self, street: Street, view: View, s: float, light: Light) -> None:
        self.view, self.light = view, light
        blocks = street.blocks(s - 20, s + 170)
        self.columns = np.arange(view.size_hw[1], dtype=np.float64)
        self.depth = np.full(view.size_hw[1], np.inf)
        self.top = np.zeros(view.size_hw[1])
        self.layers = [
            np.array([row for _, b in blocks for row in getattr(b, name)], np.float64).reshape(-1, 9)
            for name in ("back", "front", "low")
        ]

    def draw(self, image: U8, ids: U8) -> None:
        """All layers, far ones first."""
        nearest = np.full(len(self.columns), np.inf)
        hits = [self._cast(layer) for layer in self.layers]
        for hit in hits[1:2]:
            if hit is not None:
                nearest = np.minimum(nearest, hit[0])
        for index, hit in enumerate(hits):
            if hit is None:
                continue
            depth = hit[0]
            seen = np.isfinite(depth) if index == 1 else depth < nearest
            if index == 0:
                seen = np.isfinite(depth) & (depth < 190)
                seen &= depth > 0
                behind = depth >= nearest
                depth = np.where(behind | (depth < nearest), depth, np.inf)
            self._paint(image, ids, self.layers[index], hit, seen, opaque=index == 1)

    def _cast(self, rows: F64) -> tuple[F64, np.ndarray, F64] | None:
        """Nearest wall along each column's ray: depth, which wall, how far along it (0..1)."""
        if not len(rows):
            return None
        x0, z0 = self.view.to_camera(rows[:, 0], rows[:, 1])
        x1, z1 = self.view.to_camera(rows[:, 2], rows[:, 3])
        near = np.maximum(z0, z1) > 0.5
        a, b = self.view.column_ray(self.columns)  # X = a Z + b
        dx, dz = x1 - x0, z1 - z0
        # x0 + t dx = a (z0 + t dz) + b
        denominator = dx[:, None] - a[None] * dz[:, None]  # (N, W)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (a[None] * z0[:, None] + b[None] - x0[:, None]) / denominator
        depth = z0[:, None] + t * dz[:, None]
        good = (t >= 0) & (t <= 1) & (depth > 0.6) & near[:, None]
        depth = np.where(good, depth, np.inf)
        which = np.argmin(depth, axis=0)
        columns = np.arange(len(self.columns))
        return depth[which, columns], which, np.nan_to_num(t[which, columns])

    def _paint(
        self, image: U8, ids: U8, rows: F64, hit: tuple[F64, np.ndarray, F64], seen: np.ndarray, opaque: bool
    ) -> None:
        depth, which, t = hit
        if not seen.any():
            return
        atlas, P = textures.facades(), self.view.camera.P_cam2
        wall = rows[which]  # (W, 9)
        z = np.where(seen, depth, 50.0)
        scale = 16.0 / wall[:, 4]  # natural metres a metre
        tile = wall[:, 5].astype(np.int64)
        length = np.hypot(wall[:, 2] - wall[:, 0], wall[:, 3] - wall[:, 1])
        tall = np.array(atlas.heights_m)[tile] / scale
        w = z + P[2, 3]
        v_foot = (P[1, 1] * self.view.camera.height_m + P[1, 2] * z + P[1, 3]) / w
        v_top = np.where(seen, v_foot - P[1, 1] * tall / w, 1e6)
        v_foot = np.where(seen, v_foot, -1e6)
        first = int(np.clip(np.floor(v_top.min()), 0, image.shape[0]))
        last = int(np.clip(np.ceil(v_foot.max()) + 1, 0, image.shape[0]))
        if last <= first:
            return
        # texels a pixel decide the level
        texels_v = textures.TILE_PPM * scale * w / P[1, 1]
        along = (t * length * scale + wall[:, 8]) * textures.TILE_PPM
        whole = np.array([k in ("house", "gable") for k in atlas.kinds])[tile]
        along = np.where(whole, t * textures.TILE, along)
        texels_u = np.minimum(np.abs(np.gradient(along)), 64)
        level = np.clip(
            np.floor(np.log2(np.maximum(np.maximum(texels_v, texels_u * 0.6), 1.0)) + 0.35), 0, textures.LEVELS - 1
        ).astype(np.int64)
        size = textures.TILE >> level
        u = along % textures.TILE
        u = np.where(wall[:, 6] > 0, textures.TILE - u, u) / (1 << level)
        u = np.clip(u, 0.5, size - 1.5) + (tile % textures.COLUMNS) * size
        foot_row = np.array(atlas.level_rows)[level] + (tile // textures.COLUMNS + 1) * size - 1.0
        step = texels_v / (1 << level)  # texel rows a pixel row
        v = np.arange(first, last, dtype=np.float32)[:, None]
        map_y = (v - v_foot[None].astype(np.float32)) * step[None].astype(np.float32) + foot_row[None].astype(
            np.float32
        )
        map_x = np.broadcast_to(u.astype(np.float32)[None], map_y.shape).copy()
        inside = (v >= v_top[None]) & (v <= v_foot[None])
        patch = cv2.remap(atlas.image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        mask = ((patch[..., 3] > 127) & inside).astype(np.uint8)
        normal = np.stack([-(wall[:, 3] - wall[:, 1]), wall[:, 2] - wall[:, 0]], 1) / np.maximum(length, 0.1)[:, None]
        eye = np.stack([self.view.x - wall[:, 0], self.view.y - wall[:, 1]], 1)
        normal *= np.sign((normal * eye).sum(1))[:, None]
        sun = self.light.sun_world
        facing = np.maximum(normal[:, 0] * sun[0] + normal[:, 1] * sun[2], 0)
        lit = (self.light.sky * 0.62 + self.light.bounce * 0.5)[None] + facing[:, None] * self.light.sun
        keep = self.light.fade(z)[:, None]
        gain = np.clip(lit * wall[:, 7:8] * keep * 110, 0, 255).astype(np.uint8)
        haze = np.clip(self.light.haze * (1 - keep), 0, 255).astype(np.uint8)
        colours = cv2.cvtColor(patch, cv2.COLOR_BGRA2BGR)
        colours = cv2.multiply(colours, np.repeat(gain[None], len(v), 0), scale=1 / 110)
        colours = cv2.add(colours, np.repeat(haze[None], len(v), 0))
        cv2.copyTo(colours, mask, image[first:last])
        ids[first:last][mask > 0] = OCCLUDER
        if opaque:
            nearer = seen & (depth < self.depth)
            self.depth = np.where(nearer, depth, self.depth)
            self.top = np.where(nearer, v_top + tall * 0.1 * P[1, 1] / w, self.top)


def draw_sprite(image: U8, ids: U8, view: View, light: Light, sprite: tuple[float, ...], X: float, Z: float) -> None:
    """A tree or bush standing at (X, Z)."""
    _, _, width_m, height_m, index, own_gain = sprite
    P = view.camera.P_cam2
    u, v = view.project(np.array([X]), np.zeros(1), np.array([Z]))
    w_px, h_px = width_m * P[0, 0] / Z, height_m * P[1, 1] / Z
    left, top = float(u[0]) - w_px / 2, float(v[0]) - h_px
    x0, x1 = int(max(0, np.floor(left))), int(min(image.shape[1], np.ceil(left + w_px)))
    y0, y1 = int(max(0, np.floor(top))), int(min(image.shape[0], np.ceil(top + h_px)))
    if x1 <= x0 or y1 <= y0 or h_px < 3:
        return
    levels = textures.trees()[int(index)]
    level = int(np.clip(np.floor(np.log2(textures.SPRITE / max(h_px, 1.0)) + 0.4), 0, len(levels) - 1))
    source = levels[level]
    sx, sy = w_px / source.shape[1], h_px / source.shape[0]
    move = np.array([[1 / sx, 0, (x0 - left) / sx], [0, 1 / sy, (y0 - top) / sy]])
    patch = cv2.warpAffine(source, move, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    mask = cv2.threshold(cv2.extractChannel(patch, 3), 110, 255, cv2.THRESH_BINARY)[1]
    keep = float(light.fade(Z))
    gain = own_gain * keep * (light.sky * 0.6 + light.bounce * 0.3 + light.sun * 0.35)
    haze = light.haze * (1 - keep)
    colours = cv2.add(cv2.multiply(patch, (*gain, 1.0)), (*haze, 0.0))
    cv2.copyTo(cv2.cvtColor(colours, cv2.COLOR_BGRA2BGR), mask, image[y0:y1, x0:x1])
    roi = ids[y0:y1, x0:x1]
    cv2.copyTo(np.full_like(roi, OCCLUDER), mask, roi)
