"""Painting with numpy: noise, stones, rectangles and leaves. What the textures are made of."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np


def noise(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Smooth tileable noise of mean 0 and unit spread, cells of `cell` pixels."""
    rows, cols = max(2, height // cell), max(2, width // cell)
    grid = np.pad(rng.standard_normal((rows, cols)).astype(np.float32), 2, mode="wrap")
    big = cv2.resize(grid, None, fx=width / cols, fy=height / rows, interpolation=cv2.INTER_CUBIC)
    top, left = int(2 * height / rows), int(2 * width / cols)
    return big[top : top + height, left : left + width]


def fractal(rng: np.random.Generator, height: int, width: int, cells: tuple[int, ...]) -> np.ndarray:
    """Sum of noises of several cell sizes, coarse ones a little stronger, unit spread."""
    total = np.zeros((height, width), np.float32)
    for cell in cells:
        total += noise(rng, height, width, cell) * np.float32(cell**0.25)
    return total / max(float(total.std()), 1e-6)


def shade(image: np.ndarray, pattern: np.ndarray, strength: float) -> None:
    """Multiply the colour channels by 1 + strength·pattern, in place."""
    image[..., :3] = np.clip(image[..., :3] * (1 + strength * pattern[..., None]), 0, 255).astype(np.uint8)


def hsv(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    """BGR of hue 0..180, saturation and value 0..255."""
    pixel = np.array([[[hue % 180, np.clip(saturation, 0, 255), np.clip(value, 0, 255)]]], np.uint8)
    b, g, r = cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0]
    return int(b), int(g), int(r)


def rect(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour: tuple[int, ...]) -> None:
    cv2.rectangle(image, (round(x0), round(y0)), (round(x1), round(y1)), (*colour[:3], 255), -1)


def stones(rng: np.random.Generator, image: np.ndarray, course: int, brick: int, depth: float) -> None:
    """Courses of bricks or ashlar over a whole image, each stone of its own brightness."""
    height, width = image.shape[:2]
    rows = np.arange(height) // course
    columns = (np.arange(width)[None, :] + (rows[:, None] % 2) * (brick // 2)) // brick
    tone = rng.standard_normal((height // course + 1, width // brick + 3)).astype(np.float32)
    pattern = tone[rows[:, None], columns]
    joint = ((np.arange(height) % course == 0)[:, None]) | (
        (np.arange(width)[None, :] + (rows[:, None] % 2) * (brick // 2)) % brick == 0
    )
    pattern = np.where(joint, -1.5, pattern)
    shade(image, pattern, depth)


def leaf_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """Hue, saturation and value of a kind of leaf."""
    return float(rng.uniform(25, 48)), float(rng.uniform(80, 200)), float(rng.uniform(45, 120))


@cache
def _leaf_noise() -> tuple[np.ndarray, np.ndarray]:
    """Two (512, 512) patterns that clumps are cut from: single leaves, and ragged outlines."""
    rng = np.random.default_rng(20240909)
    leaves = fractal(rng, 512, 512, (2, 3, 3, 6))
    outline = fractal(rng, 512, 512, (3, 8, 20))
    return leaves, outline


def leaves(
    rng: np.random.Generator, image: np.ndarray, x: int, y: int, radius: int, leaf: tuple[float, float, float]
) -> None:
    """A clump of foliage: single leaves light and dark, lighter on top, darker inside and below, ragged outside."""
    height, width = image.shape[:2]
    x0, x1, y0, y1 = max(0, x - radius), min(width, x + radius), max(0, y - radius), min(height, y + radius)
    if x1 <= x0 or y1 <= y0:
        return
    fine, ragged = _leaf_noise()
    a, b = rng.integers(0, 512 - 2 * radius, 2)
    part = slice(b, b + y1 - y0), slice(a, a + x1 - x0)
    dx, dy = np.arange(x0, x1, dtype=np.float32) - x, (np.arange(y0, y1, dtype=np.float32) - y) / np.float32(0.85)
    reach = np.sqrt(dx[None] ** 2 + dy[:, None] ** 2) / radius
    solid = reach + 0.16 * ragged[part] + 0.1 * fine[part] < 0.86
    value = leaf[2] * (0.72 - 0.45 * dy[:, None] / radius + 0.42 * fine[part])
    hsv = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    hsv[..., 0] = np.clip(leaf[0] - 2 * fine[part], 0, 179)
    hsv[..., 1] = np.clip(leaf[1] + 12 * ragged[part], 0, 255)
    hsv[..., 2] = np.clip(value, 5, 250)
    roi = image[y0:y1, x0:x1]
    roi[solid, :3] = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[solid]
    roi[solid, 3] = 255
