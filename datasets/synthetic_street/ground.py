"""The road plane: surfaces by one lookup a pixel, paint and kerbs as sharp polygons, shadows, and the road mask."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from datasets.sample import ROAD_IGNORE
from datasets.synthetic_street import textures
from datasets.synthetic_street.brush import SHIFT, fixed
from datasets.synthetic_street.geometry import View
from datasets.synthetic_street.light import Light
from datasets.synthetic_street.scene import Street
from perception.arrays import F32, F64, U8

PPM = 12.8
"""Texels a metre of the ground strip."""
HALF_WIDTH_M = 30.0
LEVELS = 4
FAR_M = 260.0
NEAR_M = 0.8
"""The road nearer than this lies below every image."""
JUDGED_M = 85.0
"""Road farther away is not judged, as labels end there in KITTI too."""
GRAIN_PPM = 70.0
GRAIN_M = 16.0


@cache
def _mean_colour(material: str, index: int) -> F64:
    return textures.ground_tiles()[material][index].reshape(-1, 3).mean(0)


def strip(street: Street) -> tuple[U8, ...]:
    """Top view of the street's surfaces, s down, d across, with coarser copies for the distance."""
    tiles, section, surface = textures.ground_tiles(), street.section, street.surface
    size = textures.GROUND
    width = int(2 * HALF_WIDTH_M * PPM)
    image = np.empty((size, width, 3), np.uint8)
    # lighter where wheels run
    d = (np.arange(width) + 0.5) / PPM - HALF_WIDTH_M
    tracks = np.ones(width)
    for direction in (-1, 1):
        for lane in range(section.lanes):
            for wheel in (-0.75, 0.75):
                tracks += 0.07 * np.exp(-(((d - section.lane_centre(lane, direction) - wheel) / 0.3) ** 2))
    rows = np.repeat(np.round(tracks * 128).astype(np.uint8)[None, :, None], 3, 2).repeat(size, 0)

    def band(d0: float, d1: float, tile: U8, gain: float) -> None:
        c0, c1 = (int(np.clip((d + HALF_WIDTH_M) * PPM, 0, width)) for d in (d0, d1))
        at = c0
        while at < c1:
            start = at % size
            stop = min(size, start + c1 - at)
            image[:, at : at + stop - start] = cv2.multiply(
                tile[:, start:stop], rows[:, at : at + stop - start], scale=gain / 128
            )
            at += stop - start

    gain = surface.gains
    verge = tiles[surface.verge][surface.tile % len(tiles[surface.verge])]
    walk = tiles["paving"][surface.paving]
    parking = tiles[surface.parking][surface.tile % len(tiles[surface.parking])]
    band(-HALF_WIDTH_M, -section.left.pavement, verge, gain[0])
    band(-section.left.pavement, -section.left.parking, walk, gain[1])
    band(-section.left.parking, -section.left.road, parking, gain[2])
    band(-section.left.road, section.right.road, tiles["asphalt"][surface.asphalt], gain[3])
    band(section.right.road, section.right.parking, parking, gain[2])
    band(section.right.parking, section.right.pavement, walk, gain[1])
    band(section.right.pavement, HALF_WIDTH_M, verge, gain[0])
    levels = []
    for level in range(LEVELS):
        if level:
            image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 4), interpolation=cv2.INTER_AREA)
        half = image.shape[0] // 2
        levels.append(np.concatenate([image[-half:], image, image[:half]]))
    return tuple(levels)


class Ground:
    """One view of the road plane. Draws into the image and knows the road's outline in it."""

    def __init__(self, street: Street, view: View, s: float, light: Light) -> None:
        self.street, self.view, self.light, self.s = street, view, light, s
        height, width = view.size_hw
        lowest = view.horizon + view.camera.P_cam2[1, 1] * view.camera.height_m / FAR_M
        self.top = int(np.clip(np.ceil(lowest), 0, height))
        # the centreline, densely near and sparsely far, as long as it leads away from us
        ahead = np.concatenate([np.arange(-6, 30, 1.0), np.arange(30, 90, 2.0), np.arange(90, FAR_M + 20, 6.0)])
        x, y, heading = street.line.at(s + ahead)
        turn = heading - view.heading
        keep = np.cumprod(np.abs(turn) < 1.2).astype(bool)
        self.samples_s, self.turn = s + ahead[keep], turn[keep]
        self.X, self.Z = view.to_camera(x[keep], y[keep])
        self._right = np.cos(self.turn), -np.sin(self.turn)
        # per row: distance, and where the road's line is and leads there
        self.row_Z = view.row_depth(np.arange(self.top, height, dtype=np.float64))
        order = np.maximum.accumulate(self.Z)
        self.row_turn = np.interp(self.row_Z, order, self.turn)
        self.row_s = np.interp(self.row_Z, order, self.samples_s)
        a, b = view.column_ray(np.arange(width, dtype=np.float64))
        offset = (np.interp(self.row_Z, order, self.X)).astype(np.float32)
        # (rows, W) metres to the right of the road's line at the same depth: X = a·Z + b changes evenly along a row
        self.off_line: F32 = np.multiply.outer(self.row_Z.astype(np.float32), a.astype(np.float32))
        self.off_line += b.astype(np.float32)
        self.off_line -= offset[:, None]
        self._edges: dict[float, F64] = {}
        self.mouths = [
            (at - width_m / 2, at + width_m / 2, sign * street.section.side(sign).road,
             sign * (street.section.side(sign).wall + 45))
            for _, block in street.blocks(s - 10, s + 150)
            for at, width_m, sign in block.streets
        ]  # fmt: skip

    # ---------------------------------------------------------------- outline

    def edge(self, d: float) -> F64:
        """The line at offset d in pixels, (N, 2), from the nearest visible point to the farthest."""
        if d not in self._edges:
            X, Z = self.X + self._right[0] * d, self.Z + self._right[1] * d
            first = int(np.argmax(Z > NEAR_M))
            if Z[first] <= NEAR_M:
                return np.zeros((0, 2))
            if first > 0:
                share = (NEAR_M - Z[first - 1]) / (Z[first] - Z[first - 1])
                start = X[first - 1] + share * (X[first] - X[first - 1])
                X, Z = np.r_[start, X[first:]], np.r_[NEAR_M, Z[first:]]
            self._edges[d] = np.stack(self.view.project(X, np.zeros(len(X)), Z), 1)
        return self._edges[d]

    def ribbon(self, d0: float, d1: float) -> F64:
        """Outline (N, 2) in pixels of the whole visible strip between two offsets."""
        return np.concatenate([self.edge(d0), self.edge(d1)[::-1]])

    def patches(self, rows: list[tuple[float, float, float, float]]) -> list[F64]:
        """Rectangles s0, s1, d0, d1 as pixel outlines, cut where they come too near; what is unseen is empty."""
        if not rows:
            return []
        table = np.array(rows)
        s, d = table[:, [0, 0, 1, 1]], table[:, [2, 3, 3, 2]]
        x, y, _ = self.street.line.place(s.ravel(), d.ravel())
        X, Z = (v.reshape(-1, 4) for v in self.view.to_camera(x, y))
        before = Z < NEAR_M
        u, v = self.view.project(X, np.zeros_like(X), np.maximum(Z, NEAR_M))
        outlines = list(np.stack([u, v], -1))
        for i in np.flatnonzero(before.any(1)):
            outlines[i] = self._cut(np.stack([X[i], Z[i]], 1))
        return outlines

    def _cut(self, ground_xz: F64) -> F64:
        kept = []
        for a, b in zip(ground_xz, np.roll(ground_xz, -1, axis=0), strict=True):
            if a[1] >= NEAR_M:
                kept.append(a)
            if (a[1] >= NEAR_M) != (b[1] >= NEAR_M):
                kept.append(a + (b - a) * ((NEAR_M - a[1]) / (b[1] - a[1])))
        if len(kept) < 3:
            return np.zeros((0, 2))
        points = np.array(kept)
        return np.stack(self.view.project(points[:, 0], np.zeros(len(points)), points[:, 1]), 1)

    # ---------------------------------------------------------------- drawing

    def draw(self, image: U8, levels: tuple[U8, ...], shadows: list[tuple[F64, int]], seed: int) -> None:
        """Paint everything that lies flat; `shadows` are pixel polygons with their brightness 0..255."""
        if self.top >= image.shape[0]:
            return
        self._surface(image, levels)
        self._kerbs(image)
        self._streets(image)
        self._paint(image)
        self._shade(image, shadows, seed)

    def _surface(self, image: U8, levels: tuple[U8, ...]) -> None:
        step = np.abs(np.gradient(self.row_Z))
        level = np.digitize(step, [0.13, 0.5, 2.0])
        cos, sin = np.cos(self.row_turn).astype(np.float32), np.sin(self.row_turn).astype(np.float32)
        for k in range(LEVELS):
            chosen = np.flatnonzero(level == k)
            if not len(chosen):
                continue
            part = slice(chosen[0], chosen[-1] + 1)
            source, off = levels[k], self.off_line[part]
            length = source.shape[0] // 2
            ppm_d, ppm_s = PPM / 2**k, PPM / 4**k
            map_x = off * (cos[part] * np.float32(ppm_d))[:, None]
            map_x += np.float32(HALF_WIDTH_M * ppm_d)
            base = ((self.row_s[part] * ppm_s) % length + length / 2).astype(np.float32)
            map_y = off * (sin[part] * np.float32(ppm_s))[:, None]
            map_y += base[:, None]
            band = image[self.top + chosen[0] : self.top + chosen[-1] + 1]
            cv2.remap(source, map_x, map_y, cv2.INTER_LINEAR, dst=band, borderMode=cv2.BORDER_REPLICATE)

    def _fill(self, image: U8, outline: F64, colour: tuple[float, ...] | float) -> None:
        if len(outline) >= 3:
            value = colour if isinstance(colour, tuple) else (colour,) * 3
            cv2.fillPoly(image, [fixed(outline)], value, cv2.LINE_AA, SHIFT)

    def _streets(self, image: U8) -> None:
        street = self.street
        tone = _mean_colour("asphalt", street.surface.asphalt) * street.surface.gains[3]
        self.mouth_outlines = self.patches(self.mouths)
        for outline in self.mouth_outlines:
            self._fill(image, outline, tuple(float(c) for c in tone))
        rows, gains = [], []
        for _, block in street.blocks(self.s - 10, self.s + 70):
            for at, d, length, width, gain in block.patches:
                rows.append((at, at + length, d - width / 2, d + width / 2))
                gains.append(gain)
        for outline, gain in zip(self.patches(rows), gains, strict=True):
            self._fill(image, outline, tuple(float(c) for c in tone * gain))

    def _kerbs(self, image: U8) -> None:
        section = self.street.section
        for sign in (-1, 1):
            side = section.side(sign)
            if side.pavement - side.parking > 0.3:
                d = sign * side.parking
                self._fill(image, self.ribbon(d, d + sign * 0.14), 130.0 * self.street.paint + 20)
                self._fill(image, self.ribbon(d - sign * 0.05, d), 62.0)
                self._fill(image, self.ribbon(sign * side.pavement, sign * (side.pavement + 0.08)), 95.0)
            if side.parking > side.road + 1:
                self._fill(image, self.ribbon(sign * side.road, sign * (side.road + 0.16)), 118.0)

    def _dashes(self, d: float, dash: float, gap: float, width: float) -> list[tuple[float, float, float, float]]:
        period = dash + gap
        first = np.floor((self.s + 1) / period) * period
        return [(s0, s0 + dash, d - width / 2, d + width / 2) for s0 in np.arange(first, self.s + 100, period)]

    def _paint(self, image: U8) -> None:
        section, white = self.street.section, 235.0 * self.street.paint
        rows: list[tuple[float, float, float, float]] = []
        if section.centre_line == 1:
            rows += self._dashes(0.0, 3.0 if section.speed_mps < 12 else 4.0, 6.0, 0.13)
        elif section.centre_line >= 2:
            for d in (0.0,) if section.centre_line == 2 else (-0.14, 0.14):
                self._fill(image, self.ribbon(d - 0.06, d + 0.06), white)
        if section.lanes > 1:
            for sign in (-1, 1):
                rows += self._dashes(sign * section.lane_m, 3.0, 6.0, 0.13)
        if section.edge_line:
            for sign in (-1, 1):
                d = sign * (section.side(sign).road - 0.2)
                self._fill(image, self.ribbon(d - 0.07, d + 0.07), white)
        left, right = -section.left.road + 0.3, section.right.road - 0.3
        for index, block in self.street.blocks(self.s - 10, self.s + 90):
            for at in block.crossings:
                if index % 3:  # zebra
                    rows += [(at - 1.8, at + 1.8, d, d + 0.5) for d in np.arange(left, right - 0.4, 1.0)]
                else:  # signalled: two dashed lines
                    for s0 in (at - 2.0, at + 2.0):
                        rows += [(s0 - 0.06, s0 + 0.06, d, d + 0.5) for d in np.arange(left, right - 0.4, 0.9)]
                rows.append((at - 4.2, at - 3.8, 0.1, right))
                rows.append((at + 3.8, at + 4.2, left, -0.1))
        for outline in self.patches(rows):
            self._fill(image, outline, white)

    # ---------------------------------------------------------------- shading

    def _shade(self, image: U8, shadows: list[tuple[F64, int]], seed: int) -> None:
        """Multiply by cast shadows, light and the fine grain of the nearest metres, and fade into the haze."""
        height, width = image.shape[:2]
        light = self.light
        gain = np.full((height - self.top, width), 255, np.uint8)
        if light.shade < 0.8:
            self._cast(gain, np.random.default_rng(seed))
        offset = np.array([0.0, self.top])
        for outline, value in shadows:
            if len(outline) >= 3:
                cv2.fillConvexPoly(gain, fixed(outline - offset), value, cv2.LINE_AA, SHIFT)
        if shadows:
            gain = cv2.blur(gain, (5, 3))
        near = int(np.searchsorted(-self.row_Z, -GRAIN_M))
        if near < len(gain):
            gain[near:] = cv2.multiply(
                gain[near:], self._fetch(textures.grain(), near, GRAIN_PPM, GRAIN_PPM), scale=1 / 136.0
            )
        level = (light.sky + light.sun * max(light.sun_world[1], 0.25)) * (1 - 0.35 * light.wet)
        keep = light.fade(self.row_Z)[:, None]
        factor = np.clip(keep * level * 128, 0, 255).astype(np.uint8)  # (rows, 3)
        haze = np.clip((1 - keep) * light.haze, 0, 255).astype(np.uint8)
        ground = image[self.top :]
        shaded = cv2.multiply(ground, cv2.merge([gain] * 3), scale=1 / 255.0)
        # one factor a row, spread over its pixels
        factor, haze = (
            cv2.resize(v[:, None], (width, len(v)), interpolation=cv2.INTER_NEAREST) for v in (factor, haze)
        )
        cv2.add(cv2.multiply(shaded, factor, scale=1 / 128.0), haze, dst=ground)

    def _cast(self, gain: U8, rng: np.random.Generator) -> None:
        """Shadows of what stands beside the road: foliage overhead in patches, houses as a band."""
        light, section = self.light, self.street.section
        dark = int(255 * light.shade)
        foliage = rng.random() < 0.5
        if foliage:
            near = int(np.searchsorted(-self.row_Z, -60.0))
            spots = self._fetch(textures.dapple(), near, rng.uniform(5, 16), rng.uniform(5, 12))
            bias = int(rng.uniform(-80, 130))
            gain[near:] = cv2.max(cv2.add(spots, bias) if bias > 0 else cv2.subtract(spots, -bias), dark)
        side = 1 if light.sun_world[0] > 0 else -1  # one side for the whole drive, whichever way it bends
        reach = rng.uniform(-0.1, 1.3) if section.setting == "city" else rng.uniform(-0.8, 0.8)
        if reach > 0.05:
            near_wall, far_wall = section.side(side).wall, section.side(-side).wall
            outline = self.ribbon(side * 45.0, side * (near_wall - reach * (near_wall + far_wall * 0.7)))
            if len(outline) >= 3:
                cv2.fillPoly(gain, [fixed(outline - np.array([0.0, self.top]))], dark, cv2.LINE_AA, SHIFT)

    def _fetch(self, texture: U8, near: int, ppm_across: float, ppm_along: float) -> U8:
        """A texture that lies on the road, for the rows from `near` on; it is stored twice over each way."""
        period = texture.shape[0] // 2
        off = self.off_line[near:]
        cos, sin = (f(self.row_turn[near:]).astype(np.float32)[:, None] for f in (np.cos, np.sin))
        map_x = off * (cos * np.float32(ppm_across))
        map_x += np.float32(period)
        map_y = off * (sin * np.float32(ppm_along))
        map_y += (self.row_s[near:] * ppm_along % period + period / 2).astype(np.float32)[:, None]
        return cv2.remap(texture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    # ------------------------------------------------------------------ truth

    def road_mask(self, ids: U8) -> U8:
        """(H, W) 1 road, 0 not road, 255 not judged: parking lanes, side streets, road too far to tell.

        Args:
            ids: who covers each pixel, 0 where the ground or the sky is seen.
        """
        section = self.street.section
        mask = np.zeros(self.view.size_hw, np.uint8)
        for sign in (-1, 1):
            side = section.side(sign)
            if side.parking > side.road + 1:
                self._mask(mask, self.ribbon(sign * side.road, sign * side.parking), ROAD_IGNORE)
        for outline in self.patches(self.mouths):
            self._mask(mask, outline, ROAD_IGNORE)
        self._mask(mask, self.ribbon(-section.left.road, section.right.road), 1)
        P = self.view.camera.P_cam2
        far = int(np.clip(self.view.horizon + P[1, 1] * self.view.camera.height_m / JUDGED_M, 0, len(mask)))
        mask[:far] = np.where(mask[:far] == 1, ROAD_IGNORE, mask[:far])
        mask[ids != 0] = 0
        return mask

    def _mask(self, mask: U8, outline: F64, value: int) -> None:
        if len(outline) >= 3:
            cv2.fillPoly(mask, [fixed(outline)], value, cv2.LINE_8, SHIFT)
