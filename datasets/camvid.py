"""CamVid in SegNet's 12 classes: street pictures of 480x360 with a class number at every pixel."""

from __future__ import annotations

from pathlib import Path

from datasets.index_masks import PERSON, RIDER, VEHICLE, IndexMasks, Legend

LEGEND = Legend(
    name="camvid",
    classes=frozenset(range(12)),
    road=3,
    void=11,
    semantic={8: VEHICLE, 9: PERSON, 10: RIDER},
)
"""3 road, 8 car, 9 pedestrian, 10 bicyclist, 11 unlabelled."""


class CamVid(IndexMasks):
    """Folders `train`, `val`, `test` with masks in `<split>annot`. The drive is the name up to its underscore.

    SegNet's train and val share the recording 0016E5.
    """

    def __init__(self, root: Path, split: str = "train") -> None:
        super().__init__(root, split, LEGEND)
