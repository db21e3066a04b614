"""The road plane: surfaces by one lookup a pixel, paint and kerbs as sharp polygons, shadows, and the road mask."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.sample import ROAD_IGNORE
from datasets.synthetic_street import textures
from datasets.synthetic_street.geometry import View
from datasets.synthetic_street.light import Light
from datasets.synthetic_street.scene import Street
from perception.types import F64, U8

PPM = 12.8
"""Texels a metre of the ground strip."""
HALF_WIDTH_M = 30.0
FAR_M = 260.0
SHIFT = 4
_SCALE = 1 << SHIFT
JUDGED_M = 85.0
"""Road farther away is not judged, as labels end there in KITTI too."""


def fixed(points: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) to OpenCV's fixed point coordinates, kept in its range."""
    return np.round(np.clip(points, -9000, 9000) * _SCALE).astype(np.int32)


def strip(street: Street) -> tuple[U8, ...]:
    """Top view of the street's surfaces, s down, d across, with coarser copies for the distance."""
    tiles, section, surface = textures.ground_tiles(), street.section, street.surface
    size = textures.GROUND
    image = np.empty((size, int(2 * HALF_WIDTH_M * PPM), 3), np.uint8)

    def band(d0: float, d1: float, tile: U8, gain: float) -> None:
        c0, c1 = (int(np.clip((d + HALF_WIDTH_M) * PPM, 0, image.shape[1])) for d in (d0, d1))
        at = c0
        while at < c1:
            start = at % size
            stop = min(size, start + c1 - at)
            image[:, at : at + stop - start] = cv2.convertScaleAbs(tile[:, start:stop], alpha=gain)
            at += stop - start

    gain = street.surface_gain
    verge = tiles[surface["verge"]][surface["verge_tile"] % len(tiles[surface["verge"]])]
    band(-HALF_WIDTH_M, HALF_WIDTH_M, verge, gain[0])
    for sign, side in ((1, section.right), (-1, section.left)):
        paving = tiles["paving"][surface["paving"]]
        a, b = sorted((sign * side.parking, sign * side.pavement))
        band(a, b, paving, gain[1])
        a, b = sorted((sign * side.road, sign * side.parking))
        parking = tiles["paving" if surface["parking_paved"] else "asphalt"][surface["parking"]]
        band(a, b, parking, gain[2])
    band(-section.left.road, section.right.road, tiles["asphalt"][surface["asphalt"]], gain[3])
    # darker where wheels do not run, lighter where they do
    width = image.shape[1]
    d = (np.arange(width) + 0.5) / PPM - HALF_WIDTH_M
    tracks = np.ones(width, np.float32)
    for direction in (-1, 1):
        for lane in range(section.lanes):
            centre = section.lane_centre(lane, direction)
            for wheel in (-0.75, 0.75):
                tracks += 0.07 * np.exp(-(((d - centre - wheel) / 0.3) ** 2))
    image = cv2.multiply(
        image, np.repeat(np.round(tracks * 128).astype(np.uint8)[None, :, None], size, 0).repeat(3, 2), scale=1 / 128
    )
    levels = [np.concatenate([image, image, image])]
    small = image
    for _ in range(3):
        small = cv2.resize(small, (small.shape[1] // 2, small.shape[0] // 4), interpolation=cv2.INTER_AREA)
        levels.append(np.concatenate([small, small, small]))
    return tuple(levels)


class Ground:
    """One view of the road plane. Draws into the picture and knows the road's outline in it."""

    def __init__(self, street: Street, view: View, s: float, light: Light) -> None:
        self.street, self.view, self.light = street, view, light
        self.s = s
        height, width = view.size_hw
        self.top = int(np.clip(np.ceil(view.horizon + view.camera.P_cam2[1, 1] * 1.65 / FAR_M), 0, height))
        # the centreline, densely near and sparsely far, as far as it goes away from us
        ahead = np.concatenate([np.arange(-6, 30, 1.0), np.arange(30, 90, 2.0), np.arange(90, FAR_M + 20, 6.0)])
        x, y, heading = street.line.at(s + ahead)
        turn = heading - view.heading
        keep = np.cumprod(np.abs(turn) < 1.2).astype(bool)
        self.samples_s = s + ahead[keep]
        self.heading = turn[keep]
        self.X, self.Z = view.to_camera(x[keep], y[keep])

    # ---------------------------------------------------------------- outline

    def ribbon(self, d0: float, d1: float, s0: float | None = None, s1: float | None = None) -> F64:
        """Outline (N, 2) in pixels of the road's strip between two offsets and, where given, two distances."""
        s = self.samples_s
        if s0 is not None and s1 is not None:
            inner = s[(s > s0) & (s < s1)]
            s = np.concatenate([[s0], inner, [s1]])
        near, far = self._edge(s, d0), self._edge(s, d1)
        outline = np.concatenate([near, far[::-1]])
        return self._pixels(outline)

    def _edge(self, s: np.ndarray, d: float) -> F64:
        x, y, _ = self.street.line.place(s, d)
        X, Z = self.view.to_camera(x, y)
        return np.stack([X, Z], 1)

    def patch(self, s0: float, s1: float, d0: float, d1: float) -> F64:
        """A rectangle in road coordinates as pixels; for things so short that the road is straight there."""
        s = np.array([s0, s0, s1, s1])
        d = np.array([d0, d1, d1, d0])
        x, y, _ = self.street.line.place(s, d)
        return self._pixels(np.stack(self.view.to_camera(x, y), 1))

    def _pixels(self, ground_xz: F64) -> F64:
        """Ground polygon to pixels, cut where it comes too near."""
        near = 0.8
        Z = ground_xz[:, 1]
        if (near > Z).all():
            return np.zeros((0, 2))
        if (near > Z).any():
            nxt = np.roll(ground_xz, -1, axis=0)
            rows = []
            for a, b in zip(ground_xz, nxt, strict=True):
                if a[1] >= near:
                    rows.append(a)
                if (a[1] >= near) != (b[1] >= near):
                    rows.append(a + (b - a) * ((near - a[1]) / (b[1] - a[1])))
            ground_xz = np.array(rows)
        u, v = self.view.project(ground_xz[:, 0], np.zeros(len(ground_xz)), ground_xz[:, 1])
        return np.stack([u, v], 1)

    # ---------------------------------------------------------------- drawing

    def draw(self, image: U8, levels: tuple[U8, ...], shadows: list[tuple[F64, int]], rng_seed: int) -> None:
        """Paint everything that lies flat; `shadows` are pixel polygons with their brightness 0..255."""
        if self.top >= image.shape[0]:
            return
        self._surface(image, levels)
        self._streets(image)
        self._kerbs(image)
        self._paint(image)
        self._shade(image, shadows, rng_seed)

    def _surface(self, image: U8, levels: tuple[U8, ...]) -> None:
        height, width = image.shape[:2]
        rows = np.arange(self.top, height, dtype=np.float64)
        Z = self.view.row_depth(rows)
        a, b = self.view.column_ray(np.arange(width, dtype=np.float64))
        order = np.maximum.accumulate(self.Z)
        centre = np.interp(Z, order, self.X)
        turn = np.interp(Z, order, self.heading)
        s = np.interp(Z, order, self.samples_s)
        # X = a·Z + b on a row, and s and d change evenly along it
        X = np.multiply.outer(Z, a) + b - centre[:, None]  # (rows, W)
        step = np.abs(np.gradient(Z))
        level = np.digitize(step, [0.13, 0.5, 2.0])
        for k in range(4):
            chosen = np.flatnonzero(level == k)
            if not len(chosen):
                continue
            i0, i1 = chosen[0], chosen[-1] + 1
            part, source = X[i0:i1], levels[k]
            length = source.shape[0] // 3
            ppm_d, ppm_s = PPM / 2**k, PPM / 4**k
            map_x = ((part * np.cos(turn[i0:i1])[:, None] + HALF_WIDTH_M) * ppm_d).astype(np.float32)
            base = (s[i0:i1] * ppm_s) % length + length
            along = part * (np.sin(turn[i0:i1]) * ppm_s)[:, None]
            map_y = (base[:, None] + np.clip(along, -length, length - 1)).astype(np.float32)
            band = image[self.top + i0 : self.top + i1]
            cv2.remap(source, map_x, map_y, cv2.INTER_LINEAR, dst=band, borderMode=cv2.BORDER_REPLICATE)
        self._near = (X, turn, s, Z)

    def _fill(self, image: U8, outline: F64, colour: tuple[float, ...] | float) -> None:
        if len(outline) >= 3:
            value = colour if isinstance(colour, tuple) else (colour,) * 3
            cv2.fillPoly(image, [fixed(outline)], value, cv2.LINE_AA, SHIFT)

    def _streets(self, image: U8) -> None:
        street = self.street
        tone = textures.ground_tiles()["asphalt"][street.surface["asphalt"]].reshape(-1, 3).mean(0)
        colour = tuple(float(c) for c in np.clip(tone * street.surface_gain[3], 0, 255))
        self.mouths: list[F64] = []
        for _, block in street.blocks(self.s - 10, self.s + 150):
            for at, width, sign in block.streets:
                side = street.section.side(sign)
                d0, d1 = sign * side.road, sign * (side.wall + 45)
                outline = self.patch(at - width / 2, at + width / 2, d0, d1)
                self._fill(image, outline, colour)
                if len(outline):
                    self.mouths.append(outline)
            for at, d, length, width, gain in block.patches:
                outline = self.patch(at, at + length, d - width / 2, d + width / 2)
                self._fill(image, outline, tuple(float(c * gain) for c in colour))

    def _kerbs(self, image: U8) -> None:
        section = self.street.section
        for sign in (-1, 1):
            side = section.side(sign)
            if side.pavement - side.parking > 0.3:
                d = sign * side.parking
                self._fill(image, self.ribbon(d, d + sign * 0.14), 150.0 * self.street.paint + 20)
                self._fill(image, self.ribbon(d - sign * 0.05, d), 62.0)
                self._fill(image, self.ribbon(sign * side.pavement, sign * (side.pavement + 0.08)), 95.0)
            if side.parking > side.road + 1:
                self._fill(image, self.ribbon(sign * side.road, sign * (side.road + 0.16)), 118.0)
        for outline in self.mouths:  # the kerb is let down where a street comes in
            self._fill(
                image, outline, tuple(float(c) for c in np.median(image[self.top :: 9, ::40].reshape(-1, 3), 0))
            ) if False else None

    def _dashes(self, image: U8, d: float, dash: float, gap: float, width: float, white: float) -> None:
        period = dash + gap
        first = np.floor((self.s + 2) / period) * period
        for s0 in np.arange(first, self.s + 110, period):
            self._fill(image, self.patch(s0, s0 + dash, d - width / 2, d + width / 2), white)

    def _paint(self, image: U8) -> None:
        section, white = self.street.section, 235.0 * self.street.paint
        if section.centre_line == 1:
            self._dashes(image, 0.0, 3.0 if section.speed_mps < 12 else 4.0, 6.0, 0.13, white)
        elif section.centre_line >= 2:
            for d in (0.0,) if section.centre_line == 2 else (-0.14, 0.14):
                self._fill(image, self.ribbon(d - 0.06, d + 0.06), white)
        if section.lanes > 1:
            for sign in (-1, 1):
                self._dashes(image, sign * section.lane_m, 3.0, 6.0, 0.13, white)
        if section.edge_line:
            for sign in (-1, 1):
                d = sign * (section.side(sign).road - 0.2)
                self._fill(image, self.ribbon(d - 0.07, d + 0.07), white)
        for index, block in self.street.blocks(self.s - 10, self.s + 130):
            for at in block.crossings:
                left, right = -section.left.road + 0.3, section.right.road - 0.3
                if index % 3:  # zebra
                    for d in np.arange(left, right - 0.4, 1.0):
                        self._fill(image, self.patch(at - 1.8, at + 1.8, d, d + 0.5), white)
                else:  # signalled: two dashed lines
                    for s0 in (at - 2.0, at + 2.0):
                        for d in np.arange(left, right - 0.4, 0.9):
                            self._fill(image, self.patch(s0 - 0.06, s0 + 0.06, d, d + 0.5), white)
                self._fill(image, self.patch(at - 4.2, at - 3.8, 0.1, right), white)
                self._fill(image, self.patch(at + 3.8, at + 4.2, left, -0.1), white)

    def _shade(self, image: U8, shadows: list[tuple[F64, int]], seed: int) -> None:
        """Multiply by cast shadows and the fine grain of the nearest metres, then fade into the haze."""
        X, turn, s, Z = self._near
        height, width = image.shape[:2]
        rng = np.random.default_rng(seed)
        light = self.light
        gain = np.full((height - self.top, width), 255, np.uint8)
        dark = int(255 * light.shade)
        offset = np.array([0.0, self.top])
        if light.shade < 0.8:
            if rng.random() < 0.55:  # foliage overhead
                scale = rng.uniform(18, 50)
                turn_cos, turn_sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
                map_x = ((X * turn_cos + 64) * scale * rng.uniform(0.6, 1.4) * 0.5 + 900).astype(np.float32)
                map_y = ((s[:, None] % 4096 + X * turn_sin) * scale * 0.35).astype(np.float32)
                near = int(np.argmax(Z < 60)) if (Z < 60).any() else len(Z)
                spots = cv2.remap(
                    textures.dapple(), map_x[near:], map_y[near:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
                )
                level = int(rng.uniform(-110, 110))
                spots = cv2.add(spots, level) if level > 0 else cv2.subtract(spots, -level)
                gain[near:] = cv2.max(spots, dark)
            section = self.street.section
            side = 1 if light.sun_in_camera(self.view.heading)[0] > 0 else -1
            reach = rng.uniform(0, 1.5) if section.setting == "city" else rng.uniform(-0.6, 0.9)
            if reach > 0.05:  # houses' shadow from the sun's side
                kerb = section.side(side)
                edge = side * (kerb.wall - reach * (kerb.wall + section.side(-side).wall * 0.7))
                outline = self.ribbon(side * 45.0, edge)
                if len(outline):
                    cv2.fillPoly(gain, [fixed(outline - offset)], dark, cv2.LINE_AA, SHIFT)
        for outline, value in shadows:
            if len(outline) >= 3:
                cv2.fillConvexPoly(gain, fixed(outline - offset), value, cv2.LINE_AA, SHIFT)
        if shadows:
            gain = cv2.blur(gain, (5, 3))
        near = int(np.argmax(Z < 16)) if (Z < 16).any() else len(Z)
        if near < len(Z):
            ppm = 70.0
            part = X[near:]
            map_x = ((part * np.cos(turn[near:])[:, None] + 60) * ppm).astype(np.float32)
            map_y = ((s[near:] % 1000)[:, None] * ppm + part * (np.sin(turn[near:]) * ppm)[:, None]).astype(
                np.float32
            )
            np.remainder(map_y, 1024, out=map_y)
            np.remainder(map_x, 1024, out=map_x)
            fine = cv2.remap(textures.grain(), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            gain[near:] = cv2.multiply(gain[near:], fine, scale=1 / 136.0)
        ground = image[self.top :]
        level = (light.sky + light.sun * max(light.sun_world[1], 0.25)) * (1 - 0.35 * light.wet)
        keep = light.fade(Z)
        colour_gain = np.outer(keep, level)  # (rows, 3)
        haze = np.outer(1 - keep, light.haze)
        shaded = cv2.multiply(ground, cv2.merge([gain] * 3), scale=1 / 255.0)
        for start in range(0, len(Z), 8):  # rows in bands: haze changes slowly
            stop = min(start + (8 if start > 24 else 1), len(Z))
        factor = np.repeat(np.clip(colour_gain * 128, 0, 255).astype(np.uint8)[:, None], width, 1)
        shaded = cv2.multiply(shaded, factor, scale=1 / 128.0)
        ground[:] = cv2.add(shaded, np.repeat(np.clip(haze, 0, 255).astype(np.uint8)[:, None], width, 1))

    # ------------------------------------------------------------------ truth

    def road_mask(self, ids: U8) -> U8:
        """(H, W) 1 road, 0 not road, 255 not judged: parking lanes, mouths of side streets, road too far to tell."""
        section = self.street.section
        mask = np.zeros(self.view.size_hw, np.uint8)
        for sign in (-1, 1):
            side = section.side(sign)
            if side.parking > side.road + 1:
                self._mask(mask, self.ribbon(sign * side.road, sign * side.parking), ROAD_IGNORE)
        for outline in self.mouths:
            self._mask(mask, outline, ROAD_IGNORE)
        self._mask(mask, self.ribbon(-section.left.road, section.right.road), 1)
        far = int(np.clip(self.view.horizon + self.view.camera.P_cam2[1, 1] * 1.65 / JUDGED_M, 0, mask.shape[0]))
        mask[:far][mask[:far] == 1] = ROAD_IGNORE
        mask[ids != 0] = 0
        return mask

    def _mask(self, mask: U8, outline: F64, value: int) -> None:
        if len(outline) >= 3:
            cv2.fillPoly(mask, [fixed(outline)], value, cv2.LINE_8, SHIFT)
