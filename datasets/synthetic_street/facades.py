"""Façade tiles: town houses, houses, halls, garages, walls, fences, hedges and woods, painted once a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np

from datasets.synthetic_street.paint import fractal, hsv, leaf_colour, leaves, rect, shade, stones
from perception.arrays import U8

TILE = 320
"""Side of a façade tile, texels."""
TILE_PPM = 20.0
"""Texels a metre of a façade tile at its natural size, so a tile is 16 m square."""
LEVELS = 4


@dataclass(frozen=True, eq=False)
class Atlas:
    """Façade tiles one below the other, with copies at 1/2, 1/4 and 1/8 to their right for distant walls."""

    image: U8
    """(rows, columns, 4) uint8 BGRA; alpha 0 is open sky."""
    kinds: tuple[str, ...]
    """What each tile shows."""
    heights_m: tuple[float, ...]
    """Natural height of each tile's content."""
    level_columns: tuple[int, ...]
    """First column of each level."""

    @cached_property
    def by_kind(self) -> dict[str, list[int]]:
        """Numbers of the tiles that show each kind of thing."""
        found: dict[str, list[int]] = {}
        for number, kind in enumerate(self.kinds):
            found.setdefault(kind, []).append(number)
        return found


def _window(rng: np.random.Generator, image: np.ndarray, x: int, y: int, w: int, h: int, style: dict) -> None:
    """A window with surround, frame, panes that mirror something, and sometimes shutters, blinds or an arch."""
    surround, frame = style["surround"], style["frame"]
    margin = style["margin"]
    rect(image, x - margin, y - margin, x + w + margin, y + h + margin + 1, surround)
    rect(image, x - margin - 1, y + h + margin, x + w + margin + 1, y + h + margin + 2, style["sill"])
    if style["shutters"] and rng.random() < 0.8:
        for left in (x - w // 2 - 1, x + w + 1):
            rect(image, left, y, left + w // 2, y + h, style["shutter"])
    rect(image, x, y, x + w, y + h, frame)
    value = rng.choice([22, 35, 60, 110, 165], p=[0.35, 0.3, 0.15, 0.12, 0.08])
    glass = np.array(hsv(rng.uniform(95, 120), rng.uniform(0, 70), value))
    rect(image, x + 1, y + 1, x + w - 1, y + h - 1, tuple(int(v) for v in glass))
    if rng.random() < 0.4:  # a blind or curtain
        rect(image, x + 1, y + 1, x + w - 1, y + 1 + h * rng.uniform(0.15, 0.7), hsv(20, 20, rng.uniform(90, 200)))
    if rng.random() < 0.5:  # mirrored sky
        rect(
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
        "frame": hsv(15, rng.uniform(0, 60), rng.choice([215, 235, 60, 40])),
        "sill": tuple(int(c * 0.7) for c in lighter),
        "margin": int(rng.integers(0, 4)),
        "shutters": bool(rng.random() < 0.2),
        "shutter": hsv(rng.uniform(0, 120), rng.uniform(30, 160), rng.uniform(50, 150)),
        "cross": bool(rng.random() < 0.6),
    }


def _wall_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """Plaster, sandstone, brick, concrete: as often as a German town has them."""
    kind = rng.choice(5, p=[0.38, 0.2, 0.17, 0.15, 0.1])
    if kind == 0:
        return hsv(rng.uniform(12, 28), rng.uniform(8, 60), rng.uniform(150, 240))
    if kind == 1:
        return hsv(rng.uniform(10, 22), rng.uniform(40, 110), rng.uniform(110, 180))
    if kind == 2:
        return hsv(rng.uniform(2, 12), rng.uniform(90, 170), rng.uniform(80, 160))
    if kind == 3:
        return hsv(rng.uniform(0, 180), rng.uniform(0, 18), rng.uniform(70, 190))
    return hsv(rng.uniform(0, 180), rng.uniform(25, 85), rng.uniform(100, 200))


def _scribble(rng: np.random.Generator, image: np.ndarray, x: int, y: int, w: int, h: int) -> None:
    """A sign: a panel with strokes that look like letters from a car."""
    ground = hsv(rng.uniform(0, 180), rng.uniform(0, 255), rng.uniform(60, 255))
    ink = (255, 255, 255) if sum(ground) < 380 else hsv(rng.uniform(0, 180), 200, 60)
    rect(image, x, y, x + w, y + h, ground)
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
    roof = hsv(rng.uniform(0, 14), rng.uniform(20, 150), rng.uniform(40, 120))
    rect(image, 0, top - 30, TILE, top, roof)
    for x in range(int(rng.integers(8, 40)), TILE - 20, int(rng.integers(50, 90))):
        rect(image, x, top - 24, x + 18, top, base)
        rect(image, x + 3, top - 20, x + 15, top - 4, (40, 36, 32))
    rect(image, 0, top, TILE, TILE, base)
    if rng.random() < 0.6:
        stones(rng, image, int(rng.integers(4, 12)), int(rng.integers(9, 26)), rng.uniform(0.03, 0.12))
    rect(image, 0, top, TILE, top + 4, tuple(int(min(255, c * 1.2)) for c in base))
    style = _window_style(rng, base)
    bay, width = int(rng.uniform(38, 64)), int(rng.uniform(14, 24))
    height = int(storey * rng.uniform(0.45, 0.62))
    shift = int(rng.integers(4, 18))
    for floor in range(floors - 1):
        y = top + 10 + floor * storey + (storey - height) // 3
        if rng.random() < 0.4:
            rect(image, 0, y - 9, TILE, y - 7, tuple(int(c * 0.8) for c in base))
        for x in range(shift, TILE - width, bay):
            _window(rng, image, x, y, width, height, style)
            if rng.random() < 0.12:  # balcony
                rect(image, x - 8, y + height - 8, x + width + 8, y + height + 5, hsv(0, 10, rng.uniform(50, 170)))
    y = TILE - ground
    if rng.random() < 0.55:  # shops
        rect(image, 0, y, TILE, TILE, hsv(rng.uniform(0, 180), rng.uniform(0, 60), rng.uniform(40, 180)))
        for x in range(4, TILE - 40, 78):
            rect(image, x, y + 20, x + 68, TILE - 8, hsv(105, rng.uniform(0, 60), rng.uniform(15, 80)))
            for _ in range(5):
                px, py = int(x + rng.uniform(2, 58)), int(y + rng.uniform(22, 50))
                rect(
                    image,
                    px,
                    py,
                    px + rng.uniform(2, 10),
                    py + rng.uniform(3, 18),
                    hsv(rng.uniform(0, 180), rng.uniform(0, 200), rng.uniform(30, 220)),
                )
            _scribble(rng, image, x, y + 4, 66, 13)
    else:
        rect(image, 0, TILE - int(rng.uniform(8, 30)), TILE, TILE, tuple(int(c * 0.7) for c in base))
        for x in range(shift, TILE - width, bay):
            if rng.random() < 0.25:
                rect(image, x - 2, TILE - 48, x + 22, TILE - 2, hsv(rng.uniform(5, 20), 120, rng.uniform(30, 110)))
            else:
                _window(rng, image, x, y + 16, width, height - 4, style)
    return (body + 30) / TILE_PPM


def _modern(rng: np.random.Generator, image: np.ndarray) -> float:
    """Office or flats with bands of glass."""
    floors = int(rng.integers(2, 5))
    storey = int(rng.uniform(60, 72))
    body = min(TILE, floors * storey)
    top = TILE - body
    base = hsv(rng.uniform(0, 180), rng.uniform(0, 40), rng.uniform(60, 235))
    rect(image, 0, top, TILE, TILE, base)
    panel = int(rng.uniform(16, 50))
    for floor in range(floors):
        y = top + floor * storey + int(storey * rng.uniform(0.15, 0.3))
        band = int(storey * rng.uniform(0.4, 0.6))
        for x in range(0, TILE, panel):
            value = rng.choice([25, 50, 90, 150], p=[0.4, 0.3, 0.2, 0.1])
            rect(image, x, y, x + panel - 2, y + band, hsv(rng.uniform(95, 115), rng.uniform(10, 90), value))
            if rng.random() < 0.25:
                rect(image, x, y, x + panel - 2, y + band * rng.uniform(0.2, 0.9), hsv(20, 15, rng.uniform(110, 210)))
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
    base = hsv(rng.uniform(10, 30), rng.uniform(5, 70), rng.uniform(150, 245))
    roof = hsv(rng.uniform(0, 14), rng.uniform(40, 180), rng.uniform(50, 150))
    if rng.random() < 0.5:
        points = [[left - 6, top], [right + 6, top], [(left + right) // 2, top - roof_h]]
        cv2.fillPoly(image, [np.array(points)], (*base, 255))
        cv2.polylines(image, [np.array(points)], True, (*roof, 255), 7)
        rect(image, left, top, right, TILE, base)
        style = _window_style(rng, base)
        _window(rng, image, (left + right) // 2 - 14, top - roof_h // 2, 28, 24, style)
    else:
        inset = int(rng.uniform(4, 40))
        points = [[left - 8, top], [right + 8, top], [right - inset, top - roof_h], [left + inset, top - roof_h]]
        cv2.fillPoly(image, [np.array(points)], (*roof, 255))
        for y in range(top - roof_h, top, 4):
            cv2.line(image, (left, y), (right, y), (*[int(c * 0.8) for c in roof], 255), 1)
        rect(image, left, top, right, TILE, base)
        image[: top - roof_h, :, 3] = 0
    style = _window_style(rng, base)
    for y in range(top + 10, TILE - 30, 56):
        for x in range(left + 12, right - 30, int(rng.uniform(44, 70))):
            if y > TILE - 60 and rng.random() < 0.3:
                rect(image, x, TILE - 46, x + 22, TILE, hsv(10, 100, rng.uniform(40, 120)))
            else:
                _window(rng, image, x, y, int(rng.uniform(20, 30)), 28, style)
    chimney = int(rng.uniform(left + 20, right - 30))
    rect(image, chimney, top - roof_h - 12, chimney + 12, top - roof_h + 20, hsv(6, 120, 90))
    return (body + roof_h + 12) / TILE_PPM


def _hall(rng: np.random.Generator, image: np.ndarray) -> float:
    """A shed, supermarket or factory: corrugated panels, big letters, gates."""
    body = int(rng.uniform(90, 200))
    top = TILE - body
    base = hsv(rng.uniform(0, 180), rng.choice([5, 20, 90]), rng.uniform(60, 230))
    rect(image, 0, top, TILE, TILE, base)
    period = int(rng.integers(3, 10))
    lines = np.sin(np.arange(TILE) * 2 * np.pi / period).astype(np.float32)
    pattern = np.broadcast_to(lines if rng.random() < 0.5 else lines[:, None], (TILE, TILE))
    shade(image, pattern, rng.uniform(0.03, 0.12))
    rect(image, 0, top, TILE, top + 10, hsv(rng.uniform(0, 180), rng.uniform(0, 220), rng.uniform(60, 230)))
    if rng.random() < 0.7:
        _scribble(
            rng, image, int(rng.integers(8, 150)), top + 12, int(rng.integers(60, 150)), int(rng.integers(18, 40))
        )
    for x in range(int(rng.integers(6, 60)), TILE - 60, int(rng.integers(70, 140))):
        w = rng.uniform(30, 60)
        rect(image, x, TILE - rng.uniform(40, 80), x + w, TILE, hsv(rng.uniform(0, 180), 60, rng.uniform(20, 200)))
    return body / TILE_PPM


def _garages(rng: np.random.Generator, image: np.ndarray) -> float:
    """A row of garages: dark and light rectangles of a car's size that are not cars."""
    body = int(rng.uniform(50, 64))
    base = _wall_colour(rng)
    rect(image, 0, TILE - body, TILE, TILE, base)
    rect(image, 0, TILE - body, TILE, TILE - body + 7, hsv(15, 60, rng.uniform(40, 150)))
    door = hsv(rng.uniform(0, 120), rng.uniform(0, 120), rng.uniform(40, 200))
    step = int(rng.uniform(54, 70))
    for x in range(6, TILE - 46, step):
        rect(image, x, TILE - 44, x + 46, TILE, door)
        for y in range(TILE - 44, TILE, 6):
            cv2.line(image, (x, y), (x + 46, y), (*[int(c * 0.75) for c in door], 255), 1)
    return body / TILE_PPM


def _low_wall(rng: np.random.Generator, image: np.ndarray) -> float:
    """A garden or noise wall of brick, stone, planks or plaster, with creepers and graffiti now and then."""
    body = int(rng.uniform(22, 60))
    top = TILE - body
    rect(image, 0, top, TILE, TILE, _wall_colour(rng))
    kind = rng.integers(3)
    if kind == 0:
        stones(rng, image, int(rng.integers(3, 9)), int(rng.integers(6, 22)), rng.uniform(0.06, 0.2))
    elif kind == 1:
        for x in range(0, TILE, int(rng.integers(3, 9))):
            cv2.line(image, (x, top), (x, TILE), (*hsv(15, 80, rng.uniform(30, 120)), 255), 1)
    rect(image, 0, top, TILE, top + 2, hsv(20, 20, rng.uniform(60, 220)))
    for _ in range(int(rng.integers(0, 5))):
        leaves(rng, image, int(rng.uniform(0, TILE)), int(rng.uniform(top - 4, top + 20)), 26, leaf_colour(rng))
    if rng.random() < 0.3:
        _scribble(rng, image, int(rng.uniform(0, 200)), top + 6, int(rng.uniform(40, 100)), max(8, body // 2))
    image[: top - 6, :, 3] = 0
    return (body + 6) / TILE_PPM


def _fence(rng: np.random.Generator, image: np.ndarray) -> float:
    """Bars or mesh that let the background through."""
    body = int(rng.uniform(22, 44))
    colour = hsv(rng.uniform(0, 180), rng.uniform(0, 80), rng.choice([40, 90, 220]))
    for x in range(0, TILE, int(rng.integers(5, 12))):
        rect(image, x, TILE - body, x + int(rng.integers(1, 3)), TILE, colour)
    for y in (TILE - body, TILE - body // 2, TILE - 3):
        rect(image, 0, y, TILE, y + 2, colour)
    return body / TILE_PPM


def _hedge(rng: np.random.Generator, image: np.ndarray) -> float:
    """A cut hedge."""
    body = int(rng.uniform(20, 50))
    leaf = leaf_colour(rng)
    rect(image, 0, TILE - body + 4, TILE, TILE, hsv(leaf[0], leaf[1], leaf[2] * 0.4))
    for y in range(TILE - body + 8, TILE, 12):
        for x in range(0, TILE + 12, 12):
            leaves(
                rng,
                image,
                x + int(rng.integers(-4, 5)),
                y + int(rng.integers(-4, 5)),
                int(rng.integers(11, 18)),
                leaf,
            )
    image[: TILE - body - 6, :, 3] = 0
    return (body + 4) / TILE_PPM


def _woods(rng: np.random.Generator, image: np.ndarray) -> float:
    """The edge of a wood or a row of big trees: dark inside, ragged against the sky."""
    tallest = 0
    low = int(rng.uniform(60, 150))
    rect(image, 0, TILE - low, TILE, TILE, hsv(35, 90, rng.uniform(8, 30)))
    kind = leaf_colour(rng)
    for _ in range(int(rng.integers(8, 14))):
        x, top = int(rng.uniform(0, TILE)), int(rng.uniform(120, 290))
        tallest = max(tallest, top)
        leaf = kind if rng.random() < 0.6 else leaf_colour(rng)
        leaf = (leaf[0], leaf[1], leaf[2] * rng.uniform(0.5, 0.95))
        bark = hsv(12, 60, rng.uniform(15, 60))
        cv2.line(image, (x, TILE), (x, TILE - top + 30), (*bark, 255), int(rng.integers(3, 8)))
        for _ in range(15):
            up = rng.uniform(0, 1)
            spread = 14 + 34 * np.sqrt(1 - (2 * up - 1) ** 2)
            cy = TILE - top + 30 + (1 - up) * top * 0.7
            leaves(rng, image, int(x + rng.normal(0, 0.6) * spread), int(cy), int(rng.uniform(18, 34)), leaf)
    for x in range(0, TILE, 14):
        leaves(rng, image, x, TILE - int(rng.uniform(4, 36)), int(rng.uniform(14, 24)), kind)
    return min(TILE, tallest + 10) / TILE_PPM


def _bank(rng: np.random.Generator, image: np.ndarray) -> float:
    """A slope of dry grass and scrub."""
    body = int(rng.uniform(24, 70))
    base = hsv(rng.uniform(12, 30), rng.uniform(50, 110), rng.uniform(70, 140))
    rect(image, 0, TILE - body, TILE, TILE, base)
    shade(image, fractal(rng, TILE, TILE, (2, 5, 20)), 0.25)
    leaf = leaf_colour(rng)
    for _ in range(22):
        leaves(rng, image, int(rng.uniform(0, TILE)), TILE - int(rng.uniform(10, body + 14)), 14, leaf)
    image[: TILE - body - 20, :, 3] = 0
    return (body + 16) / TILE_PPM


def _gable(rng: np.random.Generator, image: np.ndarray) -> float:
    """The blind or nearly blind end of a building."""
    body = int(rng.uniform(120, 290))
    base = _wall_colour(rng)
    rect(image, 0, TILE - body, TILE, TILE, base)
    if rng.random() < 0.4:
        stones(rng, image, int(rng.integers(4, 10)), int(rng.integers(8, 24)), 0.08)
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
def atlas() -> Atlas:
    """All façade tiles, painted once (about a second)."""
    rng = np.random.default_rng(20240901)
    tiles, kinds, heights = [], [], []
    for kind, painter, count in _PAINTERS:
        for _ in range(count):
            image = np.zeros((TILE, TILE, 4), np.uint8)
            heights.append(painter(rng, image))
            dirt = fractal(rng, TILE, TILE, (3, 12, 60))
            shade(image, dirt, 0.05)
            shade(image, np.linspace(0.5, -1, TILE, dtype=np.float32)[:, None] ** 3, 0.12)
            # where alpha is 0 the colour still bleeds in by interpolation: make it dark, as gaps are
            image[image[..., 3] == 0, :3] = 40
            tiles.append(image)
            kinds.append(kind)
    # one tile below the other keeps each tile's texels together in memory, which halves the time of a lookup
    image = np.zeros((len(tiles) * TILE, sum(TILE >> level for level in range(LEVELS)), 4), np.uint8)
    starts = []
    at = 0
    for level in range(LEVELS):
        size = TILE >> level
        for i, tile in enumerate(tiles):
            image[i * size : (i + 1) * size, at : at + size] = tile
        tiles = [cv2.resize(tile, (size // 2, size // 2), interpolation=cv2.INTER_AREA) for tile in tiles]
        starts.append(at)
        at += size
    return Atlas(image, tuple(kinds), tuple(heights), tuple(starts))
