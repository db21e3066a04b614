"""Independent street scenes for training: each seed gives another street, light and crowd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from datasets.sample import Sample
from datasets.synthetic_street.chance import pick, stable_seed
from datasets.synthetic_street.chance import sign as sign_of
from datasets.synthetic_street.geometry import KITTI_SIZE_HW, View, kitti_camera
from datasets.synthetic_street.ground import strip
from datasets.synthetic_street.light import make_light
from datasets.synthetic_street.render import render
from datasets.synthetic_street.scene import VEHICLE_KINDS, Actor, Street
from datasets.synthetic_street.truth import rows_of, sample_of

Add = Callable[..., None]
"""Adds an actor of a kind at a place (along and across the road) with a heading and a state."""


def _traffic(rng: np.random.Generator, street: Street, s: float, ego_d: float) -> list[Actor]:
    """Draw vehicles in lanes with plausible gaps, cyclists at the edge, and people on pavements and crossings."""
    actors: list[Actor] = []

    def add(kind: str, at: float, d: float, turn: float, **state: object) -> None:
        actors.append(street.actor(kind, len(actors) + 1, int(rng.integers(1 << 30)), at, d, turn, **state))

    _vehicles_in_lanes(rng, street, s, ego_d, add)
    crowd = (0.0, 0.6, 1.5, 3.0)[pick(rng, (0.25, 0.4, 0.25, 0.1))] * street.people_factor
    _people_beside(rng, street, s, crowd, add)
    _people_on_crossings(rng, street, s, crowd, add)
    section = street.section
    streets = [st for _, b in street.blocks(s, s + 60) for st in b.streets if s + 9 < st[0] < s + 55]
    for at, _, sign in streets:  # vehicles that turn or cross
        if rng.random() < 0.45:
            add(
                "car",
                at + rng.uniform(-2, 2),
                sign * rng.uniform(0, section.side(sign).road + 3),
                sign_of(rng) * rng.uniform(0.5, 1.6),
                moving=True,
            )
    return actors


def _vehicles_in_lanes(rng: np.random.Generator, street: Street, s: float, ego_d: float, add: Add) -> None:
    section = street.section
    for direction in (1, -1):
        for lane in range(section.lanes):
            centre = section.lane_centre(lane, direction)
            dense = (8.0, 14.0, 30.0, 80.0)[pick(rng, (0.15, 0.3, 0.35, 0.2))]
            own = abs(centre - ego_d) < 1.2
            at = s + (rng.uniform(5, 9) if own else -6) + rng.exponential(dense) * (1.0 if not own else 1.2)
            while at < s + 95:
                kind = VEHICLE_KINDS[pick(rng, (0.87, 0.08, 0.05))]
                long = 6.0 if kind == "truck" else 0.0
                add(
                    kind,
                    at + long,
                    centre + rng.normal(0, 0.15),
                    (0.0 if direction > 0 else np.pi) + rng.normal(0, 0.02),
                    moving=True,
                )
                at += 6.5 + 2 * long + rng.exponential(dense)


def _people_beside(rng: np.random.Generator, street: Street, s: float, crowd: float, add: Add) -> None:
    section = street.section
    busy = {"city": 1.3, "suburb": 0.8, "country": 0.25, "arterial": 0.5}[section.setting]
    for sign in (-1, 1):
        side = section.side(sign)
        inner, outer = side.parking + 0.4, max(side.pavement - 0.3, side.parking + 0.8)
        for _ in range(rng.poisson(1.4 * crowd * busy)):
            at, d = s + 4 + rng.uniform(0, 1) ** 1.6 * 42, sign * rng.uniform(inner, outer)
            for _ in range(int((1, 2, 3)[pick(rng, (0.7, 0.24, 0.06))])):
                turn = (0.0, np.pi)[int(rng.integers(2))] + rng.normal(0, 0.25)
                if rng.random() < 0.15:
                    turn = rng.uniform(0, 2 * np.pi)
                add(
                    "pedestrian",
                    at + rng.normal(0, 0.4),
                    d + rng.normal(0, 0.45),
                    turn,
                    phase=float(rng.uniform(0, 6.28)),
                    moving=bool(rng.random() < 0.8),
                )
        for _ in range(rng.poisson(0.28 * (0.4 + crowd) * busy)):
            at = s + 5 + rng.uniform(0, 1) ** 1.5 * 45
            d = sign * (side.road - rng.uniform(0.2, 0.9) if rng.random() < 0.6 else rng.uniform(inner, outer))
            turn = (0.0 if (sign > 0) == (rng.random() < 0.9) else np.pi) + rng.normal(0, 0.06)
            add("cyclist", at, d, turn, phase=float(rng.uniform(0, 6.28)), moving=True)


def _people_on_crossings(rng: np.random.Generator, street: Street, s: float, crowd: float, add: Add) -> None:
    section = street.section
    places = [c for _, b in street.blocks(s, s + 70) for c in b.crossings if s + 5 < c < s + 60]
    if rng.random() < 0.25 * min(1.0, crowd):
        places.append(s + rng.uniform(8, 40))
    for at in places:
        for _ in range(rng.poisson(1.5 * crowd)):
            kind = "pedestrian" if rng.random() < 0.8 else "cyclist"
            add(
                kind,
                at + rng.uniform(-1.5, 1.5),
                rng.uniform(-section.left.pavement, section.right.pavement),
                sign_of(rng) * np.pi / 2 + rng.normal(0, 0.15),
                phase=float(rng.uniform(0, 6.28)),
                moving=True,
            )


def _apart(actors: list[Actor], parked: list[Actor]) -> list[Actor]:
    """Return the actors without those that overlap an earlier one."""
    kept: list[Actor] = []
    vehicles: list[tuple[float, float, float]] = []
    for actor in parked + actors:
        big = actor.kind in VEHICLE_KINDS
        mine = (1.1, 5.2) if big else (0.35, 0.9 if actor.kind == "pedestrian" else 1.9)
        clash = False
        for x, y, heading in vehicles:
            dx, dy = actor.x - x, actor.y - y
            across, along = dx * np.cos(heading) - dy * np.sin(heading), dx * np.sin(heading) + dy * np.cos(heading)
            turn = abs(np.sin(actor.heading - heading)) if big else 0.0
            if (
                abs(across) < 1.0 + mine[0] * (1 - turn) + 2.4 * turn
                and abs(along) < 2.5 + mine[1] / 2 * (1 - turn) + 1.1 * turn
            ):
                clash = True
                break
        if clash:
            continue
        if big:
            vehicles.append((actor.x, actor.y, actor.heading))
        kept.append(actor)
    return kept


def _turned(seed: int, actors: list[Actor], share: float) -> list[Actor]:
    """Return the actors, a share of them with a heading drawn from the whole circle."""
    rng = np.random.default_rng(stable_seed(seed, 91, seed >> 31))
    chosen, headings = rng.random(len(actors)) < share, rng.uniform(-np.pi, np.pi, len(actors))
    return [
        replace(actor, heading=float(heading)) if free else actor
        for actor, free, heading in zip(actors, chosen, headings, strict=True)
    ]


def street_sample(seed: int, size_hw: tuple[int, int] = KITTI_SIZE_HW, turned: float = 0.0) -> Sample:
    """Return a random scene. Each seed gives another street, light, weather, crowd and camera.

    Args:
        seed: any integer; equal seeds give equal samples.
        size_hw: height and width, pixels.
        turned: share of vehicles and people that face any direction instead of where traffic goes: what 3-D boxes
            are trained with, because streets show few oblique views.
    """
    rng = np.random.default_rng(stable_seed(seed, 90, seed >> 31))
    street = Street(
        int(rng.integers(1 << 30)),
        -30.0,
        330.0,
        None,
        float((0.0, 0.5, 1.0)[int(rng.integers(3))]),
        float((0.6, 1.0, 1.3)[int(rng.integers(3))]),
        1.0,
    )
    light = make_light(rng, None, 1.0)
    section = street.section
    s = float(rng.uniform(0, 40))
    lane = int(rng.integers(section.lanes))
    d = section.lane_centre(lane, 1) + float(rng.normal(0, 0.3))
    x, y, heading = street.line.place(s, d)
    view = View(kitti_camera(size_hw, rng), size_hw, float(x), float(y), float(heading + rng.normal(0, 0.025)))
    parked = [a for _, b in street.blocks(s - 12, s + 92) for a in b.parked]
    actors = _traffic(rng, street, s, d)
    if turned:
        everyone = _turned(seed, parked + actors, turned)
        parked, actors = everyone[: len(parked)], everyone[len(parked) :]
    actors = _apart(actors, parked)
    actors = [a for a in actors if (a.x - view.x) ** 2 + (a.y - view.y) ** 2 > 3.4**2]
    rendered = render(street, actors, view, s, light, strip(street), (seed, 5))
    rows = rows_of(rendered.placed, rendered.visible, view, 0)
    return sample_of(rows, rendered.image_bgr, rendered.road, view.camera, f"street_{seed}", f"street_{seed}")
