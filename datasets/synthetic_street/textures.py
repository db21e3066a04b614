"""Textures painted once a process from a fixed seed: trees, ground, clouds, skyline, sensor noise.

They are a palette, the same for every scene; scenes differ in which ones they take, how they cut, stretch, tint and
light them.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from datasets.synthetic_street.paint import fractal, hsv, leaf_colour, leaves, rect, shade, stones
from perception.arrays import U8

SPRITE = 256
TREES, BUSHES = 24, 8


def _tree(rng: np.random.Generator, image: U8) -> None:
    """Trunk, a crown of clumps, branches that lead to some of them."""
    leaf, bark = leaf_colour(rng), hsv(12, rng.uniform(20, 80), rng.uniform(25, 80))
    crown = rng.uniform(0.42, 0.74) * SPRITE  # height of the crown
    bottom = min(SPRITE * rng.uniform(0.6, 0.9), SPRITE - 14.0)
    bottom = max(bottom, crown + 26)
    conifer = rng.random() < 0.15
    clumps = []
    for _ in range(46):
        up = rng.uniform(0, 1)
        half = 74 * (1 - up) + 8 if conifer else 84 * np.sqrt(max(0.0, 1 - (2 * up - 1) ** 2)) + 10
        x, y = 128 + np.clip(rng.normal(0, 0.5), -1, 1) * half, bottom - up * crown
        radius = int(rng.uniform(16, 30) * (0.7 if conifer else 1.0))
        clumps.append((float(np.clip(x, radius, SPRITE - radius)), max(y, radius + 2.0), radius))
    top = bottom - crown * 0.5
    foot = (128 + int(rng.normal(0, 4)), SPRITE)
    cv2.line(image, foot, (128, int(top)), (*bark, 255), int(rng.uniform(5, 11)))
    for x, y, _ in clumps[:8]:
        cv2.line(image, (128, int(bottom - crown * 0.15)), (int(x), int(y)), (*bark, 255), int(rng.integers(2, 5)))
    for x, y, radius in clumps[: int(rng.integers(26, 47))]:
        leaves(rng, image, int(x), int(y), radius, leaf)


def _bush(rng: np.random.Generator, image: U8) -> None:
    leaf = leaf_colour(rng)
    for _ in range(34):
        radius = int(rng.uniform(18, 40))
        x = np.clip(rng.normal(128, 48), radius, SPRITE - radius)
        y = SPRITE - abs(rng.normal(0, 0.55)) * (190 - abs(x - 128)) - 10
        leaves(rng, image, int(x), int(max(y, radius)), radius, leaf)


@cache
def trees() -> tuple[tuple[U8, ...], ...]:
    """Tree and bush sprites, BGRA, each with its halvings 256, 128, 64, 32; the last `BUSHES` are bushes."""
    rng = np.random.default_rng(20240902)
    sprites = []
    for index in range(TREES + BUSHES):
        image = np.zeros((SPRITE, SPRITE, 4), np.uint8)
        (_tree if index < TREES else _bush)(rng, image)
        image[image[..., 3] == 0, :3] = 30
        levels = [image]
        while levels[-1].shape[0] > 32:
            size = levels[-1].shape[0] // 2
            levels.append(cv2.resize(levels[-1], (size, size), interpolation=cv2.INTER_AREA))
        sprites.append(tuple(levels))
    return tuple(sprites)


GROUND = 512


@cache
def ground_tiles() -> dict[str, tuple[U8, ...]]:
    """Tileable ground images of 512×512 texels, BGR, by material."""
    rng = np.random.default_rng(20240903)

    def coloured(base: tuple[int, int, int], pattern: np.ndarray, strength: float) -> U8:
        image = np.empty((GROUND, GROUND, 3), np.uint8)
        image[:] = base
        shade(image, pattern, strength)
        return image

    asphalt = []
    for _ in range(6):
        image = coloured(
            hsv(rng.uniform(0, 180), rng.uniform(0, 14), rng.uniform(88, 128)),
            fractal(rng, GROUND, GROUND, (2, 3, 9, 64)),
            0.07,
        )
        for _ in range(int(rng.integers(2, 9))):  # repaired patches
            x, y = rng.integers(0, GROUND, 2)
            w, h = rng.integers(12, 70), rng.integers(12, 160)
            patch = image[y : y + h, x : x + w]
            patch[:] = np.clip(patch * rng.uniform(0.7, 1.15), 0, 255).astype(np.uint8)
        for _ in range(int(rng.integers(3, 14))):  # cracks filled with tar
            points = np.cumsum(rng.normal(0, 9, (14, 2)) + rng.normal(0, 7, 2), 0) + rng.uniform(0, GROUND, 2)
            cv2.polylines(image, [points.astype(np.int32)], False, (45, 45, 45), int(rng.integers(1, 3)))
        asphalt.append(image)
    paving = []
    for _ in range(6):
        image = coloured(
            hsv(rng.uniform(0, 25), rng.uniform(0, 45), rng.uniform(95, 165)),
            fractal(rng, GROUND, GROUND, (2, 6, 48)),
            0.07,
        )
        size = int(rng.choice([4, 8, 16]))
        stones(rng, image, size, size * int(rng.integers(1, 3)), rng.uniform(0.04, 0.11))
        paving.append(image)
    grass, soil = [], []
    for _ in range(5):
        image = coloured(
            hsv(rng.uniform(24, 42), rng.uniform(70, 150), rng.uniform(60, 120)),
            fractal(rng, GROUND, GROUND, (2, 4, 14, 60)),
            0.24,
        )
        dry = np.clip(fractal(rng, GROUND, GROUND, (10, 60)), 0, 1)[..., None]
        straw = np.array(hsv(20, 80, 140), np.float32)
        grass.append(np.clip(image * (1 - 0.6 * dry) + straw * 0.6 * dry, 0, 255).astype(np.uint8))
    for _ in range(3):
        soil.append(
            coloured(
                hsv(rng.uniform(10, 25), rng.uniform(20, 90), rng.uniform(80, 150)),
                fractal(rng, GROUND, GROUND, (2, 5, 16, 90)),
                0.17,
            )
        )
    return {"asphalt": tuple(asphalt), "paving": tuple(paving), "grass": tuple(grass), "soil": tuple(soil)}


@cache
def grain() -> U8:
    """(2048, 2048) fine structure of the ground around 128, twice over each way, for the nearest metres."""
    rng = np.random.default_rng(20240904)
    pattern = fractal(rng, 1024, 1024, (2, 3, 6, 20))
    return np.tile(np.clip(128 + 9 * pattern, 0, 255).astype(np.uint8), (2, 2))


@cache
def clouds() -> tuple[U8, ...]:
    """Four panoramas (160, 2048) of cloud cover, 0 clear to 255 white: the circle twice, so any part is one cut."""
    rng = np.random.default_rng(20240905)
    skies = []
    for _ in range(4):
        pattern = fractal(rng, 160, 1024, (5, 10, 20, 40))
        pattern = cv2.resize(pattern[:80], (1024, 160), interpolation=cv2.INTER_LINEAR)
        sky = np.clip(90 + 110 * pattern, 0, 255).astype(np.uint8)
        skies.append(np.concatenate([sky, sky], axis=1))
    return tuple(skies)


@cache
def dapple() -> U8:
    """(2048, 2048) shadow of foliage, twice over each way, 0 dark to 255 lit, soft-edged."""
    rng = np.random.default_rng(20240906)
    pattern = fractal(rng, 1024, 1024, (8, 16, 32, 90))
    return np.tile(np.clip(128 + 190 * pattern, 0, 255).astype(np.uint8), (2, 2))


@cache
def sensor_noise() -> U8:
    """(512, 1536, 3) noise around 128, mostly brightness, a little colour, slightly soft."""
    rng = np.random.default_rng(20240907)
    luma = rng.standard_normal((512, 1536, 1)).astype(np.float32)
    chroma = cv2.GaussianBlur(rng.standard_normal((512, 1536, 3)).astype(np.float32), (3, 3), 0.8) * 1.2
    return np.clip(128 + 24 * (luma + 0.6 * chroma), 0, 255).astype(np.uint8)


@cache
def skyline() -> tuple[U8, ...]:
    """Four far horizons (96, 4096, 4) BGRA of hills, woods and roofs, the full circle twice."""
    rng = np.random.default_rng(20240908)
    lines = []
    for _ in range(4):
        image = np.zeros((96, 2048, 4), np.uint8)
        x = np.arange(2048)
        hills = 14 + 10 * np.sin(x / 163 + rng.uniform(0, 6)) + 7 * np.sin(x / 71 + rng.uniform(0, 6))
        for column in range(2048):
            top = 96 - int(max(2, hills[column]))
            image[top:, column] = (*hsv(rng.uniform(50, 60), 60, rng.uniform(60, 80)), 255)
        for _ in range(120):
            left, w, h = int(rng.uniform(0, 2000)), int(rng.uniform(10, 50)), int(rng.uniform(12, 55))
            rect(image, left, 96 - h, left + w, 96, hsv(rng.uniform(0, 30), rng.uniform(0, 70), rng.uniform(70, 210)))
            rect(image, left, 96 - h, left + w, 96 - h + 5, hsv(5, rng.uniform(0, 140), rng.uniform(50, 120)))
            for wx in range(left + 2, left + w - 2, 5):
                for wy in range(96 - h + 8, 94, 7):
                    image[wy : wy + 3, wx : wx + 2, :3] = 60
        leaf = leaf_colour(rng)
        for _ in range(330):
            leaves(rng, image, int(rng.uniform(0, 2048)), int(96 - rng.uniform(0, 22)), int(rng.uniform(7, 17)), leaf)
        lines.append(np.concatenate([image, image], axis=1))
    return tuple(lines)
