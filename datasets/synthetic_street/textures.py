"""Textures painted once a process from a fixed seed: façades, foliage, ground, clouds, sensor noise.

They are a palette, the same for every scene; scenes differ in which ones they take, how they cut, stretch, tint and
light them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np

from perception.types import U8

TILE = 320
"""Side of a façade tile, texels."""
TILE_PPM = 20.0
"""Texels a metre of a façade tile at its natural size, so a tile is 16 m square."""
LEVELS = 4
COLUMNS = 8


@dataclass(frozen=True, eq=False)
class Atlas:
    """Façade tiles in one picture, followed below by copies at 1/2, 1/4 and 1/8 for distant walls."""

    image: U8
    """(rows, columns, 4) uint8 BGRA; alpha 0 is open sky."""
    kinds: tuple[str, ...]
    """What each tile shows."""
    heights_m: tuple[float, ...]
    """Natural height of each tile's content."""
    level_rows: tuple[int, ...]
    """First row of each level."""

    @cached_property
    def by_kind(self) -> dict[str, list[int]]:
        """Numbers of the tiles that show each kind of thing."""
        found: dict[str, list[int]] = {}
        for number, kind in enumerate(self.kinds):
            found.setdefault(kind, []).append(number)
        return found


def _noise(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Smooth tileable noise of mean 0 and unit spread, cells of `cell` pixels."""
    rows, cols = max(2, height // cell), max(2, width // cell)
    grid = np.pad(rng.standard_normal((rows, cols)).astype(np.float32), 2, mode="wrap")
    big = cv2.resize(grid, None, fx=width / cols, fy=height / rows, interpolation=cv2.INTER_CUBIC)
    top, left = int(2 * height / rows), int(2 * width / cols)
    return big[top : top + height, left : left + width]


def _fractal(rng: np.random.Generator, height: int, width: int, cells: tuple[int, ...]) -> np.ndarray:
    """Sum of noises of several cell sizes, coarse ones a little stronger, unit spread."""
    total = np.zeros((height, width), np.float32)
    for cell in cells:
        total += _noise(rng, height, width, cell) * np.float32(cell**0.25)
    return total / max(float(total.std()), 1e-6)


def _shade(image: np.ndarray, pattern: np.ndarray, strength: float) -> None:
    """Multiply the colour channels by 1 + strength·pattern, in place."""
    image[..., :3] = np.clip(image[..., :3] * (1 + strength * pattern[..., None]), 0, 255).astype(np.uint8)


def _hsv(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    """BGR of hue 0..180, saturation and value 0..255."""
    pixel = np.array([[[hue % 180, np.clip(saturation, 0, 255), np.clip(value, 0, 255)]]], np.uint8)
    b, g, r = cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0]
    return int(b), int(g), int(r)


def _rect(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour: tuple[int, ...]) -> None:
    cv2.rectangle(image, (round(x0), round(y0)), (round(x1), round(y1)), (*colour[:3], 255), -1)


def _stone_pattern(rng: np.random.Generator, image: np.ndarray, course: int, brick: int, depth: float) -> None:
    """Courses of bricks or ashlar over a whole picture, each stone of its own brightness."""
    height, width = image.shape[:2]
    rows = np.arange(height) // course
    columns = (np.arange(width)[None, :] + (rows[:, None] % 2) * (brick // 2)) // brick
    tone = rng.standard_normal((height // course + 1, width // brick + 3)).astype(np.float32)
    pattern = tone[rows[:, None], columns]
    joint = ((np.arange(height) % course == 0)[:, None]) | (
        (np.arange(width)[None, :] + (rows[:, None] % 2) * (brick // 2)) % brick == 0
    )
    pattern = np.where(joint, -1.5, pattern)
    _shade(image, pattern, depth)


def _window(rng: np.random.Generator, image: np.ndarray, x: int, y: int, w: int, h: int, style: dict) -> None:
    """A window with surround, frame, panes that mirror something, and sometimes shutters, blinds or an arch."""
    surround, frame = style["surround"], style["frame"]
    margin = style["margin"]
    _rect(image, x - margin, y - margin, x + w + margin, y + h + margin + 1, surround)
    _rect(image, x - margin - 1, y + h + margin, x + w + margin + 1, y + h + margin + 2, style["sill"])
    if style["shutters"] and rng.random() < 0.8:
        for left in (x - w // 2 - 1, x + w + 1):
            _rect(image, left, y, left + w // 2, y + h, style["shutter"])
    _rect(image, x, y, x + w, y + h, frame)
    value = rng.choice([22, 35, 60, 110, 165], p=[0.35, 0.3, 0.15, 0.12, 0.08])
    glass = np.array(_hsv(rng.uniform(95, 120), rng.uniform(0, 70), value))
    _rect(image, x + 1, y + 1, x + w - 1, y + h - 1, tuple(int(v) for v in glass))
    if rng.random() < 0.4:  # a blind or curtain
        _rect(image, x + 1, y + 1, x + w - 1, y + 1 + h * rng.uniform(0.15, 0.7), _hsv(20, 20, rng.uniform(90, 200)))
    if rng.random() < 0.5:  # mirrored sky
        _rect(
            image,
            x + 1,
            y + 1,
            x + w * rng.uniform(0.3, 0.9),
            y + h * rng.uniform(0.2, 0.6),
            tuple(int(v) for v in np.clip(glass * 1.6 + 12, 0, 255)),
        )
    cv2.line(image, (x + w // 2, y), (x + w // 2, y + h), (*frame, 255), 1)
    if style["cross"]:
        cv2.line(image, (x, y + h // 3), (x + w, y + h // 3), (*frame, 255), 1)


def _window_style(rng: np.random.Generator, base: tuple[int, int, int]) -> dict:
    lighter = tuple(int(min(255, c * rng.uniform(0.7, 1.4) + 12)) for c in base)
    return {
        "surround": lighter,
        "frame": _hsv(15, rng.uniform(0, 60), rng.choice([215, 235, 60, 40])),
        "sill": tuple(int(c * 0.7) for c in lighter),
        "margin": int(rng.integers(0, 4)),
        "shutters": bool(rng.random() < 0.2),
        "shutter": _hsv(rng.uniform(0, 120), rng.uniform(30, 160), rng.uniform(50, 150)),
        "cross": bool(rng.random() < 0.6),
    }


def _wall_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """Plaster, sandstone, brick, concrete: as often as a German town has them."""
    kind = rng.choice(5, p=[0.38, 0.2, 0.17, 0.15, 0.1])
    if kind == 0:
        return _hsv(rng.uniform(12, 28), rng.uniform(8, 60), rng.uniform(150, 240))
    if kind == 1:
        return _hsv(rng.uniform(10, 22), rng.uniform(40, 110), rng.uniform(110, 180))
    if kind == 2:
        return _hsv(rng.uniform(2, 12), rng.uniform(90, 170), rng.uniform(80, 160))
    if kind == 3:
        return _hsv(rng.uniform(0, 180), rng.uniform(0, 18), rng.uniform(70, 190))
    return _hsv(rng.uniform(0, 180), rng.uniform(40, 130), rng.uniform(100, 200))


def _scribble(rng: np.random.Generator, image: np.ndarray, x: int, y: int, w: int, h: int) -> None:
    """A sign: a panel with strokes that look like letters from a car."""
    ground = _hsv(rng.uniform(0, 180), rng.uniform(0, 255), rng.uniform(60, 255))
    ink = (255, 255, 255) if sum(ground) < 380 else _hsv(rng.uniform(0, 180), 200, 60)
    _rect(image, x, y, x + w, y + h, ground)
    pen = x + 3
    while pen < x + w - 5:
        step = int(rng.integers(2, max(3, h // 2) + 2))
        cv2.rectangle(
            image, (pen, y + 2), (pen + max(1, step // 2), y + h - 2), (*ink, 255), int(rng.integers(1, 3)) - 2
        )
        pen += step + 1


def _townhouse(rng: np.random.Generator, image: np.ndarray) -> float:
    """Three to five floors to the pavement, shop or doors below, roof with dormers above."""
    floors = int(rng.integers(3, 5))
    storey = int(rng.uniform(58, 68))
    ground = int(rng.uniform(66, 84))
    body = min(TILE - 34, floors * storey - storey + ground)
    top = TILE - body
    base = _wall_colour(rng)
    roof = _hsv(rng.uniform(0, 14), rng.uniform(20, 150), rng.uniform(40, 120))
    _rect(image, 0, top - 30, TILE, top, roof)
    for x in range(int(rng.integers(8, 40)), TILE - 20, int(rng.integers(50, 90))):
        _rect(image, x, top - 24, x + 18, top, base)
        _rect(image, x + 3, top - 20, x + 15, top - 4, (40, 36, 32))
    _rect(image, 0, top, TILE, TILE, base)
    if rng.random() < 0.6:
        _stone_pattern(rng, image, int(rng.integers(4, 12)), int(rng.integers(9, 26)), rng.uniform(0.03, 0.12))
    _rect(image, 0, top, TILE, top + 4, tuple(int(min(255, c * 1.2)) for c in base))
    style = _window_style(rng, base)
    bay, width = int(rng.uniform(38, 64)), int(rng.uniform(14, 24))
    height = int(storey * rng.uniform(0.45, 0.62))
    shift = int(rng.integers(4, 18))
    for floor in range(floors - 1):
        y = top + 10 + floor * storey + (storey - height) // 3
        if rng.random() < 0.4:
            _rect(image, 0, y - 9, TILE, y - 7, tuple(int(c * 0.8) for c in base))
        for x in range(shift, TILE - width, bay):
            _window(rng, image, x, y, width, height, style)
            if rng.random() < 0.12:  # balcony
                _rect(image, x - 8, y + height - 8, x + width + 8, y + height + 5, _hsv(0, 10, rng.uniform(50, 170)))
    y = TILE - ground
    if rng.random() < 0.55:  # shops
        _rect(image, 0, y, TILE, TILE, _hsv(rng.uniform(0, 180), rng.uniform(0, 60), rng.uniform(40, 180)))
        for x in range(4, TILE - 40, 78):
            _rect(image, x, y + 20, x + 68, TILE - 8, _hsv(105, rng.uniform(0, 60), rng.uniform(15, 80)))
            for _ in range(5):
                px, py = int(x + rng.uniform(2, 58)), int(y + rng.uniform(22, 50))
                _rect(
                    image,
                    px,
                    py,
                    px + rng.uniform(2, 10),
                    py + rng.uniform(3, 18),
                    _hsv(rng.uniform(0, 180), rng.uniform(0, 200), rng.uniform(30, 220)),
                )
            _scribble(rng, image, x, y + 4, 66, 13)
    else:
        _rect(image, 0, TILE - int(rng.uniform(8, 30)), TILE, TILE, tuple(int(c * 0.7) for c in base))
        for x in range(shift, TILE - width, bay):
            if rng.random() < 0.25:
                _rect(image, x - 2, TILE - 48, x + 22, TILE - 2, _hsv(rng.uniform(5, 20), 120, rng.uniform(30, 110)))
            else:
                _window(rng, image, x, y + 16, width, height - 4, style)
    return (body + 30) / TILE_PPM


def _modern(rng: np.random.Generator, image: np.ndarray) -> float:
    """Office or flats with bands of glass."""
    floors = int(rng.integers(2, 5))
    storey = int(rng.uniform(60, 72))
    body = min(TILE, floors * storey)
    top = TILE - body
    base = _hsv(rng.uniform(0, 180), rng.uniform(0, 40), rng.uniform(60, 235))
    _rect(image, 0, top, TILE, TILE, base)
    panel = int(rng.uniform(16, 50))
    for floor in range(floors):
        y = top + floor * storey + int(storey * rng.uniform(0.15, 0.3))
        band = int(storey * rng.uniform(0.4, 0.6))
        for x in range(0, TILE, panel):
            value = rng.choice([25, 50, 90, 150], p=[0.4, 0.3, 0.2, 0.1])
            _rect(image, x, y, x + panel - 2, y + band, _hsv(rng.uniform(95, 115), rng.uniform(10, 90), value))
            if rng.random() < 0.25:
                _rect(
                    image, x, y, x + panel - 2, y + band * rng.uniform(0.2, 0.9), _hsv(20, 15, rng.uniform(110, 210))
                )
    if rng.random() < 0.5:
        _scribble(
            rng, image, int(rng.integers(10, 180)), top + 2, int(rng.integers(40, 120)), int(rng.integers(10, 24))
        )
    return body / TILE_PPM


def _house(rng: np.random.Generator, image: np.ndarray) -> float:
    """A detached house in its garden: gable or slope to the street, sky at its sides."""
    body, roof_h = int(rng.uniform(60, 120)), int(rng.uniform(50, 95))
    left, right = int(rng.uniform(8, 50)), TILE - int(rng.uniform(8, 50))
    top = TILE - body
    base = _hsv(rng.uniform(10, 30), rng.uniform(5, 70), rng.uniform(150, 245))
    roof = _hsv(rng.uniform(0, 14), rng.uniform(40, 180), rng.uniform(50, 150))
    if rng.random() < 0.5:
        points = [[left - 6, top], [right + 6, top], [(left + right) // 2, top - roof_h]]
        cv2.fillPoly(image, [np.array(points)], (*base, 255))
        cv2.polylines(image, [np.array(points)], True, (*roof, 255), 7)
        _rect(image, left, top, right, TILE, base)
        style = _window_style(rng, base)
        _window(rng, image, (left + right) // 2 - 14, top - roof_h // 2, 28, 24, style)
    else:
        inset = int(rng.uniform(4, 40))
        points = [[left - 8, top], [right + 8, top], [right - inset, top - roof_h], [left + inset, top - roof_h]]
        cv2.fillPoly(image, [np.array(points)], (*roof, 255))
        for y in range(top - roof_h, top, 4):
            cv2.line(image, (left, y), (right, y), (*[int(c * 0.8) for c in roof], 255), 1)
        _rect(image, left, top, right, TILE, base)
        image[: top - roof_h, :, 3] = 0
    style = _window_style(rng, base)
    for y in range(top + 10, TILE - 30, 56):
        for x in range(left + 12, right - 30, int(rng.uniform(44, 70))):
            if y > TILE - 60 and rng.random() < 0.3:
                _rect(image, x, TILE - 46, x + 22, TILE, _hsv(10, 100, rng.uniform(40, 120)))
            else:
                _window(rng, image, x, y, int(rng.uniform(20, 30)), 28, style)
    chimney = int(rng.uniform(left + 20, right - 30))
    _rect(image, chimney, top - roof_h - 12, chimney + 12, top - roof_h + 20, _hsv(6, 120, 90))
    return (body + roof_h + 12) / TILE_PPM


def _hall(rng: np.random.Generator, image: np.ndarray) -> float:
    """A shed, supermarket or factory: corrugated panels, big letters, gates."""
    body = int(rng.uniform(90, 200))
    top = TILE - body
    base = _hsv(rng.uniform(0, 180), rng.choice([5, 20, 140]), rng.uniform(60, 230))
    _rect(image, 0, top, TILE, TILE, base)
    period = int(rng.integers(3, 10))
    lines = np.sin(np.arange(TILE) * 2 * np.pi / period).astype(np.float32)
    pattern = np.broadcast_to(lines if rng.random() < 0.5 else lines[:, None], (TILE, TILE))
    _shade(image, pattern, rng.uniform(0.03, 0.12))
    _rect(image, 0, top, TILE, top + 10, _hsv(rng.uniform(0, 180), rng.uniform(0, 220), rng.uniform(60, 230)))
    if rng.random() < 0.7:
        _scribble(
            rng, image, int(rng.integers(8, 150)), top + 12, int(rng.integers(60, 150)), int(rng.integers(18, 40))
        )
    for x in range(int(rng.integers(6, 60)), TILE - 60, int(rng.integers(70, 140))):
        w = rng.uniform(30, 60)
        _rect(image, x, TILE - rng.uniform(40, 80), x + w, TILE, _hsv(rng.uniform(0, 180), 60, rng.uniform(20, 200)))
    return body / TILE_PPM


def _garages(rng: np.random.Generator, image: np.ndarray) -> float:
    """A row of garages: dark and light rectangles of a car's size that are not cars."""
    body = int(rng.uniform(50, 64))
    base = _wall_colour(rng)
    _rect(image, 0, TILE - body, TILE, TILE, base)
    _rect(image, 0, TILE - body, TILE, TILE - body + 7, _hsv(15, 60, rng.uniform(40, 150)))
    door = _hsv(rng.uniform(0, 120), rng.uniform(0, 120), rng.uniform(40, 200))
    step = int(rng.uniform(54, 70))
    for x in range(6, TILE - 46, step):
        _rect(image, x, TILE - 44, x + 46, TILE, door)
        for y in range(TILE - 44, TILE, 6):
            cv2.line(image, (x, y), (x + 46, y), (*[int(c * 0.75) for c in door], 255), 1)
    return body / TILE_PPM


def _low_wall(rng: np.random.Generator, image: np.ndarray) -> float:
    """A garden or noise wall of brick, stone, planks or plaster, with creepers and graffiti now and then."""
    body = int(rng.uniform(22, 60))
    top = TILE - body
    _rect(image, 0, top, TILE, TILE, _wall_colour(rng))
    kind = rng.integers(3)
    if kind == 0:
        _stone_pattern(rng, image, int(rng.integers(3, 9)), int(rng.integers(6, 22)), rng.uniform(0.06, 0.2))
    elif kind == 1:
        for x in range(0, TILE, int(rng.integers(3, 9))):
            cv2.line(image, (x, top), (x, TILE), (*_hsv(15, 80, rng.uniform(30, 120)), 255), 1)
    _rect(image, 0, top, TILE, top + 2, _hsv(20, 20, rng.uniform(60, 220)))
    for _ in range(int(rng.integers(0, 5))):
        _leaves(
            rng, image, int(rng.uniform(0, TILE)), int(rng.uniform(top - 4, top + 20)), 26, 130, _leaf_colour(rng)
        )
    if rng.random() < 0.3:
        _scribble(rng, image, int(rng.uniform(0, 200)), top + 6, int(rng.uniform(40, 100)), max(8, body // 2))
    image[: top - 6, :, 3] = 0
    return (body + 6) / TILE_PPM


def _fence(rng: np.random.Generator, image: np.ndarray) -> float:
    """Bars or mesh that let the background through."""
    body = int(rng.uniform(22, 44))
    colour = _hsv(rng.uniform(0, 180), rng.uniform(0, 80), rng.choice([40, 90, 220]))
    for x in range(0, TILE, int(rng.integers(5, 12))):
        _rect(image, x, TILE - body, x + rng.integers(1, 3), TILE, colour)
    for y in (TILE - body, TILE - body // 2, TILE - 3):
        _rect(image, 0, y, TILE, y + 2, colour)
    return body / TILE_PPM


def _leaf_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """Hue, saturation and value of a kind of leaf."""
    return float(rng.uniform(25, 48)), float(rng.uniform(60, 170)), float(rng.uniform(45, 120))


def _leaves(
    rng: np.random.Generator,
    image: np.ndarray,
    x: int,
    y: int,
    radius: int,
    count: int,
    leaf: tuple[float, float, float],
) -> None:
    """A clump of foliage: small dabs, lighter on top, darker inside and below."""
    angle = rng.uniform(0, 2 * np.pi, count)
    reach = np.sqrt(rng.uniform(0, 1, count)) * radius
    px, py = x + np.cos(angle) * reach, y + np.sin(angle) * reach * 0.8
    height = (y - py) / max(radius, 1)
    value = leaf[2] * (0.75 + 0.5 * height + 0.35 * rng.standard_normal(count))
    order = np.argsort(value)  # light dabs last
    hsv = np.stack([leaf[0] + rng.normal(0, 3, count), leaf[1] + rng.normal(0, 18, count), value], 1)
    hsv = np.clip(hsv, [0, 0, 6], [179, 255, 250]).astype(np.uint8)[None]
    colours = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0]
    sizes = rng.integers(1, 4, count)
    for i in order:
        colour = tuple(int(c) for c in colours[i])
        cv2.circle(image, (int(px[i]), int(py[i])), int(sizes[i]), (*colour, 255), -1)


def _hedge(rng: np.random.Generator, image: np.ndarray) -> float:
    """A cut hedge."""
    body = int(rng.uniform(20, 50))
    leaf = _leaf_colour(rng)
    _rect(image, 0, TILE - body + 4, TILE, TILE, _hsv(leaf[0], leaf[1], leaf[2] * 0.4))
    for x in range(0, TILE, 10):
        for y in range(TILE - body + 6, TILE, 12):
            _leaves(rng, image, x, y, 10, 26, leaf)
    image[: TILE - body - 6, :, 3] = 0
    return (body + 4) / TILE_PPM


def _woods(rng: np.random.Generator, image: np.ndarray) -> float:
    """The edge of a wood or a row of big trees: dark inside, ragged against the sky."""
    tallest = 0
    shade = _hsv(35, 90, rng.uniform(8, 30))
    low = int(rng.uniform(60, 130))
    _rect(image, 0, TILE - low, TILE, TILE, shade)
    for _ in range(int(rng.integers(7, 12))):
        x, top = int(rng.uniform(0, TILE)), int(rng.uniform(110, 290))
        tallest = max(tallest, top)
        leaf = _leaf_colour(rng)
        leaf = (leaf[0], leaf[1], leaf[2] * 0.8)
        cv2.line(
            image, (x, TILE), (x, TILE - top + 30), (*_hsv(12, 60, rng.uniform(15, 60)), 255), int(rng.integers(3, 8))
        )
        for _ in range(12):
            cy = TILE - top + 24 + rng.uniform(0, 0.75) * top
            cx = x + rng.normal(0, 22)
            _leaves(rng, image, int(cx), int(cy), int(rng.uniform(16, 30)), 110, leaf)
    leaf = _leaf_colour(rng)
    for x in range(0, TILE, 16):
        _leaves(rng, image, x, TILE - int(rng.uniform(4, 30)), 18, 60, leaf)
    return min(TILE, tallest + 10) / TILE_PPM


def _bank(rng: np.random.Generator, image: np.ndarray) -> float:
    """A slope of dry grass and scrub."""
    body = int(rng.uniform(24, 70))
    base = _hsv(rng.uniform(12, 30), rng.uniform(50, 110), rng.uniform(70, 140))
    _rect(image, 0, TILE - body, TILE, TILE, base)
    _shade(image, _fractal(rng, TILE, TILE, (2, 5, 20)), 0.25)
    leaf = _leaf_colour(rng)
    for _ in range(22):
        _leaves(rng, image, int(rng.uniform(0, TILE)), TILE - int(rng.uniform(10, body + 14)), 14, 50, leaf)
    image[: TILE - body - 20, :, 3] = 0
    return (body + 16) / TILE_PPM


def _gable(rng: np.random.Generator, image: np.ndarray) -> float:
    """The blind or nearly blind end of a building."""
    body = int(rng.uniform(120, 290))
    base = _wall_colour(rng)
    _rect(image, 0, TILE - body, TILE, TILE, base)
    if rng.random() < 0.4:
        _stone_pattern(rng, image, int(rng.integers(4, 10)), int(rng.integers(8, 24)), 0.08)
    style = _window_style(rng, base)
    for y in range(TILE - body + 16, TILE - 50, 62):
        for x in (60, 150, 240):
            if rng.random() < 0.35:
                _window(rng, image, x, y, 20, 30, style)
    if rng.random() < 0.3:
        _scribble(rng, image, 70, TILE - body + 30, 160, 60)
    return body / TILE_PPM


_PAINTERS = (
    ("townhouse", _townhouse, 12),
    ("modern", _modern, 6),
    ("house", _house, 9),
    ("hall", _hall, 6),
    ("garages", _garages, 3),
    ("wall", _low_wall, 8),
    ("fence", _fence, 4),
    ("hedge", _hedge, 5),
    ("woods", _woods, 9),
    ("bank", _bank, 4),
    ("gable", _gable, 6),
)


@cache
def facades() -> Atlas:
    """All façade tiles, painted once (about a second)."""
    rng = np.random.default_rng(20240901)
    tiles, kinds, heights = [], [], []
    for kind, painter, count in _PAINTERS:
        for _ in range(count):
            image = np.zeros((TILE, TILE, 4), np.uint8)
            heights.append(painter(rng, image))
            dirt = _fractal(rng, TILE, TILE, (3, 12, 60))
            _shade(image, dirt, 0.05)
            _shade(image, np.linspace(0.5, -1, TILE, dtype=np.float32)[:, None] ** 3, 0.12)
            # where alpha is 0 the colour still bleeds in by interpolation: make it dark, as gaps are
            image[image[..., 3] == 0, :3] = 40
            tiles.append(image)
            kinds.append(kind)
    rows = -(-len(tiles) // COLUMNS)
    level0 = np.zeros((rows * TILE, COLUMNS * TILE, 4), np.uint8)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, COLUMNS)
        level0[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = tile
    levels, starts, at = [level0], [0], level0.shape[0]
    for _ in range(LEVELS - 1):
        last = levels[-1]
        smaller = cv2.resize(last, (last.shape[1] // 2, last.shape[0] // 2), interpolation=cv2.INTER_AREA)
        levels.append(smaller)
        starts.append(at)
        at += smaller.shape[0]
    image = np.zeros((at, level0.shape[1], 4), np.uint8)
    for start, level in zip(starts, levels, strict=True):
        image[start : start + level.shape[0], : level.shape[1]] = level
    return Atlas(image, tuple(kinds), tuple(heights), tuple(starts))


SPRITE = 256


@cache
def trees() -> tuple[tuple[U8, ...], ...]:
    """Tree and bush sprites, BGRA, each with its halvings 256, 128, 64, 32; the last six are bushes."""
    rng = np.random.default_rng(20240902)
    sprites = []
    for index in range(26):
        image = np.zeros((SPRITE, SPRITE, 4), np.uint8)
        leaf = _leaf_colour(rng)
        if index >= 20:
            for _ in range(26):
                x, y = rng.normal(128, 52), SPRITE - abs(rng.normal(60, 50)) - 20
                _leaves(rng, image, int(x), int(y), int(rng.uniform(18, 36)), 110, leaf)
        else:
            bark = _hsv(12, rng.uniform(20, 80), rng.uniform(25, 80))
            crown = rng.uniform(0.35, 0.7) * SPRITE  # height of the crown
            foot = SPRITE - 2
            bottom = SPRITE * 0.62 if rng.random() < 0.7 else SPRITE * 0.85
            thick = int(rng.uniform(5, 11))
            cv2.line(image, (128, foot), (128 + int(rng.normal(0, 6)), int(bottom - crown / 2)), (*bark, 255), thick)
            for _ in range(7):
                x, y = rng.normal(128, 50), bottom - crown * rng.uniform(0.2, 0.9)
                cv2.line(image, (128, int(bottom - 8)), (int(x), int(y)), (*bark, 255), int(rng.integers(1, 4)))
            conifer = rng.random() < 0.15
            for _ in range(34):
                height = rng.uniform(0, 1)
                spread = (58 * (1 - height) + 6) if conifer else 62 * np.sqrt(max(0.0, 1 - (2 * height - 1) ** 2)) + 6
                x, y = 128 + rng.normal(0, 0.6) * spread, bottom - height * crown * (1.25 if conifer else 1)
                radius = int(rng.uniform(12, 26))
                y = max(y, radius + 2.0)
                _leaves(rng, image, int(np.clip(x, radius, SPRITE - radius)), int(y), radius, 90, leaf)
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
    """Tileable ground pictures of 512×512 texels, BGR, by material."""
    rng = np.random.default_rng(20240903)

    def coloured(base: tuple[int, int, int], pattern: np.ndarray, strength: float) -> U8:
        image = np.empty((GROUND, GROUND, 3), np.uint8)
        image[:] = base
        _shade(image, pattern, strength)
        return image

    asphalt = []
    for _ in range(6):
        image = coloured(
            _hsv(rng.uniform(0, 180), rng.uniform(0, 14), rng.uniform(88, 128)),
            _fractal(rng, GROUND, GROUND, (2, 3, 9, 64)),
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
            _hsv(rng.uniform(0, 25), rng.uniform(0, 45), rng.uniform(95, 165)),
            _fractal(rng, GROUND, GROUND, (2, 6, 48)),
            0.07,
        )
        size = int(rng.choice([4, 8, 16]))
        _stone_pattern(rng, image, size, size * int(rng.integers(1, 3)), rng.uniform(0.04, 0.11))
        paving.append(image)
    grass, soil = [], []
    for _ in range(5):
        image = coloured(
            _hsv(rng.uniform(24, 42), rng.uniform(70, 150), rng.uniform(60, 120)),
            _fractal(rng, GROUND, GROUND, (2, 4, 14, 60)),
            0.24,
        )
        dry = np.clip(_fractal(rng, GROUND, GROUND, (10, 60)), 0, 1)[..., None]
        straw = np.array(_hsv(20, 80, 140), np.float32)
        grass.append(np.clip(image * (1 - 0.6 * dry) + straw * 0.6 * dry, 0, 255).astype(np.uint8))
    for _ in range(3):
        soil.append(
            coloured(
                _hsv(rng.uniform(10, 25), rng.uniform(20, 90), rng.uniform(80, 150)),
                _fractal(rng, GROUND, GROUND, (2, 5, 16, 90)),
                0.17,
            )
        )
    return {"asphalt": tuple(asphalt), "paving": tuple(paving), "grass": tuple(grass), "soil": tuple(soil)}


GRAIN = 1024


@cache
def grain() -> U8:
    """(1024, 1024) tileable fine structure of the ground around 128, for the nearest metres."""
    rng = np.random.default_rng(20240904)
    pattern = _fractal(rng, 1024, 1024, (2, 3, 6, 20))
    return np.clip(128 + 9 * pattern, 0, 255).astype(np.uint8)


@cache
def clouds() -> tuple[U8, ...]:
    """Four panoramas (160, 2048) of cloud cover, 0 clear to 255 white; the full circle twice, so any part is one cut."""
    rng = np.random.default_rng(20240905)
    skies = []
    for _ in range(4):
        pattern = _fractal(rng, 160, 1024, (5, 10, 20, 40))
        pattern = cv2.resize(pattern[:80], (1024, 160), interpolation=cv2.INTER_LINEAR)
        sky = np.clip(90 + 110 * pattern, 0, 255).astype(np.uint8)
        skies.append(np.concatenate([sky, sky], axis=1))
    return tuple(skies)


@cache
def dapple() -> U8:
    """(512, 512) tileable shadow of foliage, 0 dark to 255 lit, soft-edged."""
    rng = np.random.default_rng(20240906)
    pattern = _fractal(rng, 512, 512, (8, 16, 32, 90))
    return np.clip(128 + 190 * pattern, 0, 255).astype(np.uint8)


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
            image[top:, column] = (*_hsv(rng.uniform(50, 60), 60, rng.uniform(60, 80)), 255)
        for _ in range(120):
            left, w, h = int(rng.uniform(0, 2000)), int(rng.uniform(10, 50)), int(rng.uniform(12, 55))
            _rect(
                image, left, 96 - h, left + w, 96, _hsv(rng.uniform(0, 30), rng.uniform(0, 70), rng.uniform(70, 210))
            )
            _rect(image, left, 96 - h, left + w, 96 - h + 5, _hsv(5, rng.uniform(0, 140), rng.uniform(50, 120)))
            for wx in range(left + 2, left + w - 2, 5):
                for wy in range(96 - h + 8, 94, 7):
                    image[wy : wy + 3, wx : wx + 2, :3] = 60
        leaf = _leaf_colour(rng)
        for _ in range(330):
            _leaves(
                rng, image, int(rng.uniform(0, 2048)), int(96 - rng.uniform(0, 26)), int(rng.uniform(6, 15)), 40, leaf
            )
        lines.append(np.concatenate([image, image], axis=1))
    return tuple(lines)
