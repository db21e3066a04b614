"""Several networks that label together: what each finds, and all of it fused class by class.

A network counts only for the classes that it knows, so a detector of people does not speak against cars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from perception.arrays import U8
from perception.classes import ClassInfo, classes_named
from perception.detector import Finder
from perception.errors import UserError
from perception.trust.fusion import Opinion, fuse
from perception.types import Detections

LOWEST_SCORE = 0.05
"""Detections below are not kept."""


@dataclass(frozen=True, eq=False)
class Member:
    """One network of a committee."""

    path: Path
    finder: Finder
    knows: tuple[str, ...]
    """Classes that it finds wherever they are."""


class Committee:
    """Networks that look at the same image."""

    def __init__(self, members: Sequence[Member]) -> None:
        """Number the classes of all networks, those of the first network first.

        Raises:
            UserError: no network.
        """
        if not members:
            raise UserError("no model", "one model or more", "--models nano")
        self.members = tuple(members)
        self.class_names = tuple(dict.fromkeys(name for member in members for name in member.knows))
        described = [info for member in members for info in member.finder.spec.class_infos]
        self.classes: tuple[ClassInfo, ...] = classes_named(self.class_names, described)
        self._ids = [
            np.array([self.class_names.index(n) if n in member.knows else -1 for n in member.finder.spec.class_names])
            for member in members
        ]
        self._experts = [[i for i, member in enumerate(members) if name in member.knows] for name in self.class_names]

    def look(self, image_bgr: U8) -> tuple[Detections, ...]:
        """Return what each network finds in an image (H, W, 3), with the committee's class ids."""
        found = []
        for member, ids in zip(self.members, self._ids, strict=True):
            detections, _ = member.finder(image_bgr)
            numbered = replace(detections, class_ids=ids[detections.class_ids].astype(np.int64), depths=None)
            found.append(numbered[(numbered.class_ids >= 0) & (numbered.scores >= LOWEST_SCORE)])
        return tuple(found)

    def fuse(self, parts: Sequence[Detections], size_hw: tuple[int, int]) -> Detections:
        """Fuse what the networks found in one image, by falling score."""
        if len(parts) == 1:
            return parts[0]
        window = np.array([0, 0, size_hw[1], size_hw[0]], np.float32)
        fused = [
            fuse([Opinion(parts[i][parts[i].class_ids == class_id], window) for i in experts])
            for class_id, experts in enumerate(self._experts)
        ]
        scores = np.concatenate([one.scores for one in fused])
        order = np.argsort(-scores, kind="stable")
        return Detections(
            np.concatenate([one.boxes_xyxy for one in fused])[order],
            scores[order],
            np.concatenate([one.class_ids for one in fused])[order],
        )
