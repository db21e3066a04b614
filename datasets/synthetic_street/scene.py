"""The street itself: cross-section of the road and what stands beside it, block by block, all from seeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from datasets.synthetic_street import facades, textures
from datasets.synthetic_street.chance import pick, stable_seed
from datasets.synthetic_street.chance import sign as sign_of
from datasets.synthetic_street.config import SETTINGS, Setting
from datasets.synthetic_street.geometry import Centreline
from datasets.synthetic_street.people import Person, make_person
from datasets.synthetic_street.vehicles import Vehicle, make_vehicle

BLOCK_M = 40.0
"""Length of the stretches that are furnished one at a time."""
AHEAD_M = 170.0
BEHIND_M = 12.0
VEHICLE_KINDS = ("car", "van", "truck")


@dataclass(frozen=True)
class Actor:
    """Somebody or something with a label, at one moment."""

    kind: str
    """car, van, truck, pedestrian or cyclist."""
    track_id: int
    look: int
    """Seed of its looks."""
    x: float
    y: float
    heading: float
    """Of its front, world radians."""
    phase: float = 0.0
    """Of its step or pedal turn, radians."""
    moving: bool = False
    shaded: bool = False
    """Stands in the shadow of a building."""


@lru_cache(maxsize=4096)
def looks(kind: str, look: int) -> Vehicle | Person:
    """The looks of an actor; the same seed gives the same looks."""
    rng = np.random.default_rng((look, 77))
    if kind in VEHICLE_KINDS:
        return make_vehicle(kind, rng)
    return make_person(kind == "cyclist", rng)


@dataclass(frozen=True)
class Side:
    """One side of the road, distances from the centreline, metres, all positive."""

    road: float
    """Edge of the lanes."""
    parking: float
    """Edge of the parking lane; equal to `road` where there is none."""
    pavement: float
    """Outer edge of the pavement."""
    wall: float
    """Line of the buildings or of the woods."""


@dataclass(frozen=True)
class Section:
    """The road across: lanes, sides, paint."""

    setting: Setting
    lane_m: float
    lanes: int
    """Each way."""
    right: Side
    left: Side
    centre_line: int
    """0 none, 1 dashed, 2 solid, 3 double."""
    edge_line: bool
    speed_mps: float

    def side(self, sign: int) -> Side:
        return self.right if sign > 0 else self.left

    def lane_centre(self, lane: int, direction: int) -> float:
        """Offset of a lane's middle, lane 0 next to the centreline, direction +1 with the camera."""
        return direction * self.lane_m * (lane + 0.5)


def make_section(rng: np.random.Generator, setting: Setting | None) -> Section:
    """A cross-section that suits the setting."""
    kind: Setting = setting or SETTINGS[pick(rng, (0.36, 0.32, 0.16, 0.16))]
    lanes = 2 if kind == "arterial" or (kind == "city" and rng.random() < 0.15) else 1
    lane = rng.uniform(2.7, 3.3) if kind in ("city", "suburb") else rng.uniform(3.2, 3.7)

    def side() -> Side:
        road = lanes * lane + rng.uniform(0.1, 0.5)
        parking = road + (
            rng.uniform(2.0, 2.4) if rng.random() < {"city": 0.85, "suburb": 0.65}.get(kind, 0.1) else 0
        )
        walk = {"city": rng.uniform(2.0, 4.5), "suburb": rng.uniform(1.3, 2.6)}.get(kind, rng.uniform(0.0, 2.4))
        pavement = parking + walk
        wall = (
            pavement
            + {
                "city": rng.uniform(0.5, 5) if rng.random() < 0.5 else 0.0,
                "suburb": rng.uniform(3, 10),
                "country": rng.uniform(2, 14),
                "arterial": rng.uniform(4, 22),
            }[kind]
        )
        return Side(road, parking, pavement, wall)

    speed = {"city": 9.0, "suburb": 8.0, "country": 16.0, "arterial": 14.0}[kind] * rng.uniform(0.85, 1.2)
    return Section(
        kind,
        lane,
        lanes,
        side(),
        side(),
        pick(rng, (0.25, 0.5, 0.2, 0.05)) if kind != "suburb" else pick(rng, (0.75, 0.25)),
        bool(rng.random() < (0.2 if kind in ("city", "suburb") else 0.8)),
        speed,
    )


@dataclass(frozen=True)
class Surface:
    """What the ground is covered with: numbers of ground tiles, and how bright each is."""

    asphalt: int
    paving: int
    parking: str
    verge: str
    """Material beyond the pavement: grass, soil, paving or asphalt."""
    tile: int
    """Of parking lane and verge, where they have as many."""
    gains: tuple[float, float, float, float]
    """Of verge, pavement, parking lane and road."""


def make_surface(rng: np.random.Generator, setting: Setting) -> Surface:
    """Surfaces that suit the setting."""
    verges = {
        "city": (0.15, 0.1, 0.6, 0.15),
        "suburb": (0.5, 0.15, 0.25, 0.1),
        "country": (0.85, 0.15, 0, 0),
        "arterial": (0.7, 0.1, 0.1, 0.1),
    }
    verge = ("grass", "soil", "paving", "asphalt")[pick(rng, verges[setting])]
    asphalt, paving, tile = rng.integers(0, [6, 6, 64]).tolist()
    parking = "paving" if rng.random() < 0.5 else "asphalt"
    a, b, c, d = rng.uniform(0.75, 1.25, 4).tolist()
    return Surface(asphalt, paving, parking, verge, tile, (a, b, c, d))


@dataclass(eq=False)
class Block:
    """Everything fixed on one stretch. Walls: rows of x0 y0 x1 y1 height tile mirror gain offset_m."""

    back: list[tuple[float, ...]] = field(default_factory=list)
    front: list[tuple[float, ...]] = field(default_factory=list)
    low: list[tuple[float, ...]] = field(default_factory=list)
    sprites: list[tuple[float, float, float, float, int, float]] = field(default_factory=list)
    """x, y, width, height, sprite, gain."""
    props: list[tuple[str, float, float, float, int]] = field(default_factory=list)
    """kind, x, y, heading, look."""
    parked: list[Actor] = field(default_factory=list)
    crossings: list[float] = field(default_factory=list)
    """s of each zebra or signalled crossing."""
    streets: list[tuple[float, float, int]] = field(default_factory=list)
    """s, width, side of each side street."""
    patches: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    """s, d, length, width, gain: repairs, manholes, puddles, arrows."""


class Street:
    """Road line, cross-section and furnished blocks of one world; blocks are made when first asked for."""

    def __init__(
        self,
        seed: int,
        start_m: float,
        length_m: float,
        setting: Setting | None,
        curviness: float,
        parked: float,
        people: float,
    ) -> None:
        rng = np.random.default_rng(stable_seed(seed, 1))
        self.seed, self.parked_factor, self.people_factor = seed, parked, people
        self.section = make_section(rng, setting)
        self.line = Centreline(rng, start_m, length_m, curviness)
        self.surface = make_surface(rng, self.section.setting)
        self.tree_rate = (0.0, 0.5, 1.0, 1.8)[int(rng.integers(4))]
        self.paint = float(rng.uniform(0.55, 1.0))
        self.avenue = int(rng.integers(textures.TREES))
        self._blocks: dict[int, Block] = {}

    def blocks(self, s0: float, s1: float) -> list[tuple[int, Block]]:
        """Blocks that touch [s0, s1], with their numbers."""
        first, last = int(np.floor(s0 / BLOCK_M)), int(np.floor(s1 / BLOCK_M))
        found = []
        for index in range(first, last + 1):
            if index not in self._blocks:
                if len(self._blocks) > 64:
                    self._blocks.clear()
                self._blocks[index] = self._furnish(index)
            found.append((index, self._blocks[index]))
        return found

    # ------------------------------------------------------------ furnishing

    def _furnish(self, index: int) -> Block:
        rng = np.random.default_rng(stable_seed(self.seed, 2, index + 1_000_000))
        block = Block()
        s0 = index * BLOCK_M
        setting = self.section.setting
        junction = rng.random() < {"city": 0.33, "suburb": 0.4, "country": 0.1, "arterial": 0.25}[setting]
        gaps: dict[int, tuple[float, float] | None] = {-1: None, 1: None}
        if junction:
            at, width = s0 + rng.uniform(8, 32), rng.uniform(5.5, 9.0)
            for sign in (-1, 1):
                if rng.random() < 0.7:
                    gaps[sign] = (at - width / 2, at + width / 2)
                    block.streets.append((at, width, sign))
        if rng.random() < {"city": 0.3, "suburb": 0.18, "country": 0.02, "arterial": 0.2}[setting]:
            block.crossings.append(s0 + rng.uniform(2, 38) if not junction else at - width / 2 - 5.0)
        for sign in (-1, 1):
            self._walls(block, rng, s0, sign, gaps[sign])
            self._planting(block, rng, s0, sign, gaps[sign])
            self._furniture(block, rng, s0, sign, gaps[sign])
            self._parking(block, rng, s0, sign, gaps[sign], index)
        if setting in ("suburb", "arterial") and rng.random() < 0.3:
            self._car_park(block, rng, s0, index)
        for _ in range(int(rng.integers(0, 5))):
            half = self.section.right.road
            block.patches.append(
                (
                    s0 + rng.uniform(0, 40),
                    rng.uniform(-half, half),
                    rng.uniform(0.5, 9),
                    rng.uniform(0.4, 2.0),
                    rng.uniform(0.6, 1.15),
                )
            )
        return block

    def _wall(
        self,
        rows: list,
        s0: float,
        d0: float,
        s1: float,
        d1: float,
        tile: int,
        rng: np.random.Generator,
        gain: float = 1.0,
        stretch: tuple[float, float] = (0.85, 1.2),
    ) -> None:
        x0, y0, _ = self.line.place_one(s0, d0)
        x1, y1, _ = self.line.place_one(s1, d1)
        a, b, c, e = rng.random(4).tolist()
        height = 16.0 * (stretch[0] + (stretch[1] - stretch[0]) * a)
        rows.append((x0, y0, x1, y1, height, float(tile), float(b < 0.5), gain * (0.7 + 0.5 * c), 16 * e))

    def _pick(self, rng: np.random.Generator, *kinds: str) -> int:
        tiles = facades.atlas().by_kind[kinds[int(rng.integers(len(kinds)))]]
        return tiles[int(rng.integers(len(tiles)))]

    def _walls(
        self, block: Block, rng: np.random.Generator, s0: float, sign: int, gap: tuple[float, float] | None
    ) -> None:
        side, setting = self.section.side(sign), self.section.setting
        spans = [(s0, s0 + BLOCK_M)] if gap is None else [(s0, max(s0, gap[0] - 1.5)), (gap[1] + 1.5, s0 + BLOCK_M)]
        wall = side.wall
        for start, stop in spans:
            at = start
            while at < stop - 1:
                end = min(stop, at + rng.uniform(9, 18))
                if stop - end < 4:
                    end = stop
                kind = {
                    "city": ("townhouse", "townhouse", "modern", "townhouse", "hall"),
                    "suburb": ("house", "house", "house", "garages", "woods", "modern"),
                    "country": ("woods", "woods", "bank", "woods", "", "hedge"),
                    "arterial": ("hall", "woods", "modern", "townhouse", "", "hall"),
                }[setting][int(rng.integers(6 if setting != "city" else 5))]
                if rng.random() < 0.06:
                    kind = ""
                d = sign * (
                    wall + (rng.uniform(0, 6) if setting != "city" else rng.uniform(0, 1) * (rng.random() < 0.33))
                )
                if kind:
                    tile = self._pick(rng, kind)
                    self._wall(block.front, at, d, end, d, tile, rng)
                    if kind not in ("woods", "bank", "hedge", "garages") and (at == start or setting != "city"):
                        height = facades.atlas().heights_m[tile] * block.front[-1][4] / 16.0
                        gable = self._pick(rng, "gable")
                        stretch = height / facades.atlas().heights_m[gable]
                        for s in (at, end):
                            self._wall(block.front, s, d, s, d + sign * 10, gable, rng, 0.8, (stretch, stretch))
                at = end
            if setting != "city" and stop - start > 4 and rng.random() < 0.75:
                kind = ("wall", "fence", "hedge", "hedge", "bank")[int(rng.integers(5))]
                d = sign * (side.pavement + 0.3)
                self._wall(block.low, start, d, stop, d, self._pick(rng, kind), rng)
            if stop - start > 2:
                d = sign * (wall + rng.uniform(12, 26))
                if rng.random() < 0.8:
                    kind = ("woods", "woods", "townhouse", "hall")[int(rng.integers(4))]
                    self._wall(block.back, start - 4, d, stop + 4, d, self._pick(rng, kind), rng, 0.9)
        if gap is not None:
            for s in gap:
                self._wall(
                    block.front,
                    s,
                    sign * (wall + 0.1),
                    s,
                    sign * (wall + 40),
                    self._pick(rng, *(("townhouse", "gable") if setting == "city" else ("hedge", "wall", "woods"))),
                    rng,
                )
            far = sign * (wall + rng.uniform(35, 60))
            self._wall(
                block.back, gap[0] - 14, far, gap[1] + 14, far, self._pick(rng, "townhouse", "woods", "hall"), rng
            )

    def _planting(
        self, block: Block, rng: np.random.Generator, s0: float, sign: int, gap: tuple[float, float] | None
    ) -> None:
        side, setting = self.section.side(sign), self.section.setting
        count = rng.poisson({"city": 1.3, "suburb": 2.2, "country": 3.0, "arterial": 2.4}[setting] * self.tree_rate)
        for _ in range(count):
            s = s0 + rng.uniform(0, BLOCK_M)
            if gap and gap[0] - 3 < s < gap[1] + 3:
                continue
            if setting in ("city", "arterial") and rng.random() < 0.6:
                d = side.parking + rng.uniform(0.6, max(0.7, side.pavement - side.parking))
            else:
                d = rng.uniform(side.pavement + 0.5, side.wall + 8)
            sprite = self.avenue if rng.random() < 0.5 else int(rng.integers(textures.TREES))
            size = rng.uniform(6, 13)
            x, y, _ = self.line.place_one(s, sign * d)
            block.sprites.append(
                (float(x), float(y), size * rng.uniform(0.9, 1.5), size, sprite, rng.uniform(0.35, 1.05))
            )
        for _ in range(rng.poisson({"city": 0.4, "suburb": 1.8, "country": 2.5, "arterial": 1.5}[setting])):
            s, d = s0 + rng.uniform(0, BLOCK_M), rng.uniform(side.pavement + 0.3, side.wall + 3)
            if gap and gap[0] - 3 < s < gap[1] + 3:
                continue
            size = rng.uniform(0.8, 2.6)
            x, y, _ = self.line.place_one(s, sign * d)
            block.sprites.append(
                (
                    float(x),
                    float(y),
                    size * rng.uniform(1, 2),
                    size,
                    textures.TREES + int(rng.integers(textures.BUSHES)),
                    rng.uniform(0.5, 1.1),
                )
            )

    def _furniture(
        self, block: Block, rng: np.random.Generator, s0: float, sign: int, gap: tuple[float, float] | None
    ) -> None:
        side, setting = self.section.side(sign), self.section.setting
        kinds = (
            "lamp",
            "sign",
            "bin",
            "bollard",
            "cabinet",
            "pole",
            "board",
            "skip",
            "bench",
            "shelter",
            "cycle",
            "heap",
        )
        weights = [1.6, 2.0, 1.2, 1.6, 0.8, 1.4, 0.5, 0.25, 0.3, 0.15, 0.9, 0.4]
        if setting == "country":
            weights = [0.5, 1.4, 0.0, 2.2, 0.1, 1.2, 0.2, 0.1, 0.1, 0.05, 0.0, 0.3]
        for _ in range(rng.poisson(sum(weights) * 0.33)):
            kind = kinds[pick(rng, weights)]
            s = s0 + rng.uniform(0, BLOCK_M)
            if gap and gap[0] - 1 < s < gap[1] + 1:
                continue
            near = side.parking + 0.35
            d = (
                near
                if kind in ("lamp", "sign", "bollard", "pole")
                else rng.uniform(near + 0.3, max(side.pavement, near + 1.5))
            )
            x, y, heading = self.line.place_one(s, sign * d)
            turn = 0.0 if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
            block.props.append((kind, float(x), float(y), float(heading + turn), int(rng.integers(1 << 30))))
        for street, width, where in block.streets:
            if where == sign and rng.random() < 0.5:
                x, y, heading = self.line.place_one(street - width / 2 - 1, sign * (side.parking + 0.6))
                block.props.append(("signal", float(x), float(y), float(heading), int(rng.integers(1 << 30))))

    def actor(self, kind: str, track_id: int, look: int, s: float, d: float, turn: float, **state: object) -> Actor:
        """An actor at road coordinates, turned from the road's direction."""
        x, y, heading = self.line.place_one(s, d)
        return Actor(kind, track_id, look, float(x), float(y), float(heading + turn), **state)  # type: ignore[arg-type]

    def _parking(
        self,
        block: Block,
        rng: np.random.Generator,
        s0: float,
        sign: int,
        gap: tuple[float, float] | None,
        index: int,
    ) -> None:
        side = self.section.side(sign)
        if side.parking - side.road < 1:
            return
        at = s0 + rng.uniform(0, 3)
        full = (0.15, 0.55, 0.85)[int(rng.integers(3))] * self.parked_factor
        blocked = [(c - 6.0, c + 6.0) for c in block.crossings] + ([(gap[0] - 5, gap[1] + 5)] if gap else [])
        while at < s0 + BLOCK_M - 2.5:
            at += rng.uniform(5.2, 6.4)
            if rng.random() > full or any(a < at < b for a, b in blocked) or at > s0 + BLOCK_M - 2.0:
                continue
            self._park(
                block,
                rng,
                index,
                at,
                sign * ((side.road + side.parking) / 2 + rng.normal(0, 0.1)),
                0.0 if (rng.random() < 0.8) == (sign > 0) else np.pi,
            )
        if gap and rng.random() < 0.6 * self.parked_factor:  # waits in the side street
            out = side.parking + rng.uniform(3.5, 9)
            middle = (gap[0] + gap[1]) / 2
            towards = rng.random() < 0.7
            self._park(
                block,
                rng,
                index,
                middle + (1.4 if towards == (sign > 0) else -1.4),
                sign * out,
                (-sign if towards else sign) * np.pi / 2,
            )

    def _park(self, block: Block, rng: np.random.Generator, index: int, s: float, d: float, turn: float) -> None:
        kind = VEHICLE_KINDS[pick(rng, (0.88, 0.105, 0.015))]
        track_id = 100_000 + (index + 1000) * 64 + len(block.parked)
        block.parked.append(self.actor(kind, track_id, int(rng.integers(1 << 30)), s, d, turn + rng.normal(0, 0.02)))

    def _car_park(self, block: Block, rng: np.random.Generator, s0: float, index: int) -> None:
        sign = sign_of(rng)
        side = self.section.side(sign)
        if side.wall - side.pavement < 5.2:
            return
        d = (side.pavement + 0.4 + side.wall) / 2
        at = s0 + rng.uniform(1, 8)
        while at < s0 + 36:
            if rng.random() < 0.7 * self.parked_factor and len(block.parked) < 60:
                self._park(block, rng, index, at, sign * d, sign_of(rng) * np.pi / 2 + rng.normal(0, 0.05))
            at += rng.uniform(2.5, 3.1)
