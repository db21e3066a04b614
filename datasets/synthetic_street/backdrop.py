"""What stands up behind the road users: sky, skyline, façades and walls (one ray a column), trees and bushes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from datasets.synthetic_street import facades, textures
from datasets.synthetic_street.geometry import View
from datasets.synthetic_street.light import Light
from datasets.synthetic_street.scene import Street
from perception.arrays import F64, I64, U8

OCCLUDER = 255
"""Value in the id plane of everything upright that carries no label."""
WALL_COLUMNS = 9
STRIP = 312
"""Columns of a layer that are drawn at a time."""
GAIN_UNIT = 110
"""Fixed point of the brightness of walls: this is 1."""


def draw_sky(image: U8, view: View, light: Light, seed: int) -> None:
    """Gradient, clouds and the far skyline, turned with the heading."""
    width = image.shape[1]
    bottom = int(np.clip(view.horizon + 8, 1, image.shape[0]))
    rows, cols = (bottom + 3) // 4, (width + 3) // 4
    share = (np.linspace(0, 1, rows, dtype=np.float32) ** 1.5)[:, None]
    turn = view.heading * view.camera.P_cam2[0, 0]
    start = int(turn / 4 + seed % 997) % 1024
    cover = cv2.resize(textures.clouds()[light.cloud][:, start : start + 1024], (max(cols, 1), rows))
    cover = cover * np.float32(light.cloud_cover / 255)
    white = 252.0 * min(1.0, float(light.haze.mean()) / 200)
    sky = np.empty((rows, cols, 3), np.uint8)
    for channel in range(3):
        clear = light.sky_top[channel] * (1 - share) + light.sky_low[channel] * share
        sky[..., channel] = np.clip(clear + (white - clear) * cover, 0, 255)
    image[:bottom] = cv2.resize(sky, (cols * 4, rows * 4), interpolation=cv2.INTER_LINEAR)[:bottom, :width]
    far = textures.skyline()[seed % 4]
    start = int(turn + seed) % 2048
    first = 36 if seed % 3 == 0 else 0  # far away and low
    top = bottom - far.shape[0] + first
    first, top = first + max(0, -top), max(0, top)
    keep = float(light.fade(320.0)) * 0.8 + 0.1
    gain = float((light.sky + light.sun * 0.4).mean())
    for left in range(0, width, 2048):
        part = far[first:, start : start + min(2048, width - left)]
        coloured = cv2.add(cv2.multiply(part, (gain * keep,) * 4), (*(light.haze * (1 - keep)), 0.0))
        target = image[top:bottom, left : left + part.shape[1]]
        cv2.copyTo(cv2.cvtColor(coloured, cv2.COLOR_BGRA2BGR), cv2.extractChannel(part, 3), target)


@dataclass(frozen=True, eq=False)
class _Hit:
    """What each column's ray meets first in one layer."""

    depth: F64
    """(W,) metres, infinite where nothing stands."""
    which: I64
    """(W,) row of the layer."""
    along: F64
    """(W,) 0..1 from the wall's start to its end."""


@cache
def _tile_facts() -> tuple[F64, np.ndarray, I64]:
    """Of the façade tiles: natural heights, whether they must not be cut, first column of each level."""
    atlas = facades.atlas()
    whole = np.array([kind in ("house", "gable") for kind in atlas.kinds])
    return np.array(atlas.heights_m), whole, np.array(atlas.level_columns)


class Walls:
    """Façades and walls of the blocks in view, and how far each column sees before one of them."""

    def __init__(self, street: Street, view: View, s: float, light: Light) -> None:
        self.view, self.light = view, light
        blocks = street.blocks(s - 20, s + 170)
        self.columns = np.arange(view.size_hw[1], dtype=np.float64)
        self.back, self.front, self.low = (
            np.array([row for _, b in blocks for row in getattr(b, name)], np.float64).reshape(-1, WALL_COLUMNS)
            for name in ("back", "front", "low")
        )
        self._nearest = self._cast(self.front)
        self.depth = self._nearest.depth
        """(W,) distance of the high walls that hide what is behind, metres."""
        self.top = self._rows_of(self.front, self._nearest)[0]
        """(W,) pixel row of their upper edge."""

    def draw(self, image: U8, ids: U8) -> None:
        """Houses behind, houses in front, then garden walls, fences and hedges."""
        back = self._cast(self.back)
        hidden = (back.depth >= self.depth) & (self._rows_of(self.back, back)[0] >= self.top)
        if (np.isfinite(back.depth) & ~hidden).mean() > 0.02:
            self._paint(image, ids, self.back, _Hit(np.where(hidden, np.inf, back.depth), back.which, back.along))
        self._paint(image, ids, self.front, self._nearest)
        low = self._cast(self.low)
        hidden = low.depth >= self.depth
        self._paint(image, ids, self.low, _Hit(np.where(hidden, np.inf, low.depth), low.which, low.along))

    def _cast(self, rows: F64) -> _Hit:
        width = len(self.columns)
        if not len(rows):
            return _Hit(np.full(width, np.inf), np.zeros(width, np.int64), np.zeros(width))
        x0, z0 = self.view.to_camera(rows[:, 0], rows[:, 1])
        x1, z1 = self.view.to_camera(rows[:, 2], rows[:, 3])
        ahead = np.flatnonzero(np.maximum(z0, z1) > 0.5)
        x0, z0, x1, z1 = x0[ahead, None], z0[ahead, None], x1[ahead, None], z1[ahead, None]
        if not len(ahead):
            return self._cast(rows[:0])
        a, b = self.view.column_ray(self.columns)  # X = a·Z + b along a column's ray
        dx, dz = x1 - x0, z1 - z0
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (a * z0 + b - x0) / (dx - a * dz)  # (N, W): where the ray crosses the wall's line
        depth = z0 + t * dz
        depth[~((t >= 0) & (t <= 1) & (depth > 0.6))] = np.inf
        which = np.argmin(depth, axis=0)
        columns = np.arange(width)
        return _Hit(depth[which, columns], ahead[which], np.nan_to_num(t[which, columns], posinf=0.0, neginf=0.0))

    def _rows_of(self, rows: F64, hit: _Hit) -> tuple[F64, F64]:
        """Pixel rows of the upper edge and the foot in each column; an empty range where nothing stands."""
        seen = np.isfinite(hit.depth)
        if not len(rows):
            return np.full(len(seen), 1e4), np.full(len(seen), -1.0)
        P = self.view.camera.P_cam2
        w = np.where(seen, hit.depth, 50.0) + P[2, 3]
        wall = rows[hit.which]
        tall = _tile_facts()[0][wall[:, 5].astype(np.int64)] * wall[:, 4] / 16.0
        foot = (P[1, 1] * self.view.camera.height_m + P[1, 2] * (w - P[2, 3]) + P[1, 3]) / w
        return np.where(seen, foot - P[1, 1] * tall / w, 1e4), np.where(seen, foot, -1.0)

    def _paint(self, image: U8, ids: U8, rows: F64, hit: _Hit) -> None:
        """Draw a layer in strips of columns: walls are tall at the sides and low in the middle."""
        if not len(rows):
            return
        top, foot = self._rows_of(rows, hit)
        for left in range(0, len(top), STRIP):
            part = slice(left, min(left + STRIP, len(top)))
            first = int(np.clip(top[part].min(), 0, image.shape[0]))
            last = int(np.clip(foot[part].max() + 1, 0, image.shape[0]))
            if last > first:
                self._paint_strip(
                    image[first:last, part], ids[first:last, part], first, part, rows, hit, top[part], foot[part]
                )

    def _paint_strip(
        self, image: U8, ids: U8, first: int, part: slice, rows: F64, hit: _Hit, v_top: F64, v_foot: F64
    ) -> None:  # fmt: skip
        """Fetch every pixel from the atlas: across by the ray's hit, down by height over distance."""
        tiles, P = facades.atlas(), self.view.camera.P_cam2
        _, whole, level_columns = _tile_facts()
        wall, depth = rows[hit.which[part]], hit.depth[part]  # (W, 9)
        z = np.where(np.isfinite(depth), depth, 50.0)
        tile = wall[:, 5].astype(np.int64)
        scale = 16.0 / wall[:, 4]  # natural metres a metre
        length = np.hypot(wall[:, 2] - wall[:, 0], wall[:, 3] - wall[:, 1])
        along = (hit.along[part] * length * scale + wall[:, 8]) * facades.TILE_PPM
        along = np.where(whole[tile], hit.along[part] * facades.TILE, along)
        # texels a pixel choose the level of detail
        texels_v = facades.TILE_PPM * scale * (z + P[2, 3]) / P[1, 1]
        texels_u = np.minimum(np.abs(np.diff(along, append=along[-1])), 64) * 0.6
        fine = np.log2(np.maximum(np.maximum(texels_v, texels_u), 1.0)) + 0.35
        level = np.minimum(fine.astype(np.int64), facades.LEVELS - 1)
        size = facades.TILE >> level
        u = along % facades.TILE
        u = np.where(wall[:, 6] > 0, facades.TILE - u, u) / (1 << level)
        u = np.clip(u, 0.5, size - 1.5) + level_columns[level]
        foot_texel = (tile + 1) * size - 1.0
        step = texels_v / (1 << level)  # texel rows a pixel row
        v = np.arange(first, first + len(image), dtype=np.float32)
        map_y = np.multiply.outer(v, step.astype(np.float32))
        map_y += (foot_texel - v_foot * step).astype(np.float32)
        map_x = np.repeat(u.astype(np.float32)[None], len(v), 0)
        patch = cv2.remap(tiles.image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        rows_16 = np.arange(first, first + len(image), dtype=np.int16)[:, None]
        inside = rows_16 >= np.ceil(v_top).astype(np.int16)
        inside &= rows_16 <= np.floor(v_foot).astype(np.int16)
        solid = cv2.threshold(cv2.extractChannel(patch, 3), 127, 255, cv2.THRESH_BINARY)[1]
        mask = cv2.copyTo(solid, inside.view(np.uint8), np.zeros_like(solid))
        gain, haze = self._light(wall, length, z)
        colours = cv2.cvtColor(patch, cv2.COLOR_BGRA2BGR)
        cv2.multiply(colours, np.repeat(gain[None], len(v), 0), dst=colours, scale=1 / GAIN_UNIT)
        if haze.max() > 2:
            cv2.add(colours, np.repeat(haze[None], len(v), 0), dst=colours)
        cv2.copyTo(colours, mask, image)
        cv2.max(ids, mask, dst=ids)

    def _light(self, wall: F64, length: F64, z: F64) -> tuple[U8, U8]:
        """Brightness (W, 3) in `GAIN_UNIT`s and haze (W, 3) of each column's wall."""
        normal = np.stack([wall[:, 1] - wall[:, 3], wall[:, 2] - wall[:, 0]], 1) / np.maximum(length, 0.1)[:, None]
        towards = normal[:, 0] * (self.view.x - wall[:, 0]) + normal[:, 1] * (self.view.y - wall[:, 1])
        sun = self.light.sun_world
        facing = np.maximum((normal[:, 0] * sun[0] + normal[:, 1] * sun[2]) * np.sign(towards), 0)
        lit = self.light.sky * 0.62 + self.light.bounce * 0.5 + facing[:, None] * self.light.sun
        keep = self.light.fade(z)[:, None]
        gain = np.clip(lit * wall[:, 7:8] * keep * GAIN_UNIT, 0, 255).astype(np.uint8)
        return gain, np.clip(self.light.haze * (1 - keep), 0, 255).astype(np.uint8)


def draw_sprite(image: U8, ids: U8, view: View, light: Light, sprite: tuple[float, ...], X: float, Z: float) -> None:
    """A tree or bush standing at (X, Z)."""
    _, _, width_m, height_m, index, own_gain = sprite
    P = view.camera.P_cam2
    w = Z + P[2, 3]
    u = (P[0, 0] * X + P[0, 2] * Z + P[0, 3]) / w
    v = (P[1, 1] * view.camera.height_m + P[1, 2] * Z + P[1, 3]) / w
    w_px, h_px = width_m * P[0, 0] / Z, height_m * P[1, 1] / Z
    left, top = u - w_px / 2, v - h_px
    x0, x1 = max(0, int(left)), min(image.shape[1], int(left + w_px) + 1)
    y0, y1 = max(0, int(top)), min(image.shape[0], int(top + h_px) + 1)
    if x1 <= x0 or y1 <= y0 or h_px < 3:
        return
    levels = textures.trees()[int(index)]
    level = 0
    while level + 1 < len(levels) and levels[level].shape[0] > 1.5 * h_px:
        level += 1
    source = levels[level]
    sx, sy = w_px / source.shape[1], h_px / source.shape[0]
    move = np.array([[1 / sx, 0, (x0 - left) / sx], [0, 1 / sy, (y0 - top) / sy]])
    patch = cv2.warpAffine(source, move, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    mask = cv2.threshold(cv2.extractChannel(patch, 3), 110, 255, cv2.THRESH_BINARY)[1]
    keep = float(light.fade(Z))
    gain = own_gain * keep * (light.sky * 0.6 + light.bounce * 0.3 + light.sun * 0.35)
    haze = light.haze * (1 - keep)
    colours = cv2.cvtColor(patch, cv2.COLOR_BGRA2BGR)
    colours = cv2.add(cv2.multiply(colours, (*gain, 0.0)), (*haze, 0.0))
    cv2.copyTo(colours, mask, image[y0:y1, x0:x1])
    cv2.max(ids[y0:y1, x0:x1], mask, dst=ids[y0:y1, x0:x1])
