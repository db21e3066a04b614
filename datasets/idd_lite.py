"""IDD-Lite: Indian roads, 320x227, seven coarse classes at every pixel."""

from __future__ import annotations

from pathlib import Path

from datasets.index_masks import PERSON, VEHICLE, IndexMasks, Legend

LEGEND = Legend(
    name="idd",
    classes=frozenset({0, 1, 2, 3, 4, 5, 6, 255}),
    road=0,
    void=255,
    semantic={2: PERSON, 3: VEHICLE},
)
"""0 drivable, 1 other ground, 2 people and riders (together), 3 vehicles, 4 roadside, 5 far objects, 6 sky."""


class IddLite(IndexMasks):
    """Folders `train`, `val` with masks in `<split>annot`. The drive is the name up to its underscore."""

    def __init__(self, root: Path, split: str = "train") -> None:
        super().__init__(root, split, LEGEND)
