"""Names of the frames that choose a network and of those that report it (`annotations/yardstick.json`).

Two held-out parts without a common drive or city. The choosing part may be looked at as often as wanted. The report
part is scored for a model card, and never while weights, thresholds or options are decided.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

SPLIT = Path(__file__).parent / "annotations/yardstick.json"
PartName = Literal["choosing", "report"]


@dataclass(frozen=True)
class Part:
    """Names of what is held out."""

    kitti_drives: frozenset[str] = frozenset()
    """Raw recordings of object and tracking frames."""
    citypersons_cities: frozenset[str] = frozenset()
    """First part of an image's name."""
    dawn: frozenset[str] = frozenset()
    """Images."""
    kitti_road: frozenset[str] = frozenset()
    """Frames."""


@cache
def part(name: PartName) -> Part:
    """Return one part."""
    return Part(**{key: frozenset(values) for key, values in _split()[name].items()})


@cache
def withheld() -> Part:
    """Return what no training may show: both parts, and road frames that show the same streets."""
    return Part(
        **{key: frozenset(v for said in _split().values() for v in said.get(key, ())) for key in Part.__annotations__}
    )


def same_streets() -> frozenset[str]:
    """Return the road frames that show streets of the yardstick's object frames, most of them of drive 0015."""
    return frozenset(_split()["same_streets"]["kitti_road"])


@cache
def _split() -> dict[str, dict[str, list[str]]]:
    return json.loads(SPLIT.read_text())
