"""What speaks for labelling a frame: doubt, disagreement, rarity. And features that tell how alike two frames are.

Features need no network of their own: a small thumbnail in Lab, and where the networks see how much of each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from datasets.labelling.looking import Seen
from perception.arrays import F64
from perception.boxes import iou
from perception.labelling.committee import Committee
from perception.labelling.verdict import SAME_IOU, track
from perception.types import Detections

GRID_HW = (3, 6)
"""Cells in which objects are counted."""
DOUBTS = 8
"""Boxes of a frame, the most doubtful first, whose doubt is added up."""
FIRM = 0.5
"""A network that gives a box this score, and another that sees nothing there, disagree."""
FAINT = 0.1
"""A box of this score is seen."""
NEIGHBOURS = 3
"""A frame is as rare as it is far from its nearest frames of other moments, so many of them."""


@dataclass(frozen=True, eq=False)
class Signals:
    """One value a frame for each signal; higher speaks for labelling it."""

    values: Mapping[str, F64]
    """(N,) by name."""
    features: F64
    """(N, D)"""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What a signal says of each frame, by name of the signal, where that depends on the frame."""

    def of(self, rows: Sequence[int]) -> Signals:
        """Return the signals of some frames."""
        return Signals(
            {name: values[list(rows)] for name, values in self.values.items()},
            self.features[list(rows)],
            {name: tuple(words[i] for i in rows) for name, words in self.words.items()},
        )

    def ranks(self) -> dict[str, F64]:
        """Return each signal as 0..1, the share of frames with a lower value; constant signals are left out."""
        found = {}
        for name, values in self.values.items():
            ordered = np.sort(values)
            below = np.searchsorted(ordered, values, side="left")
            if ordered[0] < ordered[-1]:
                found[name] = below / max(1, len(values) - 1)
        return found


def signals_of(seen: Sequence[Seen], committee: Committee) -> Signals:
    """Return what speaks for labelling each frame."""
    fused = [committee.fuse(one.parts, one.size_hw) for one in seen]
    features = _features(seen, fused, len(committee.class_names))
    rare, rarest = _rare_class(fused, committee.class_names)
    values = {
        "doubt": np.array([doubt(found) for found in fused]),
        "models disagree": np.array([_models_disagree(one, committee) for one in seen]),
        "tracker disagrees": _tracker_disagrees(seen, fused),
        "unusual": _unusual(features, [one.frame.drive for one in seen]),
        "rare class": rare,
    }
    counts = [int(((found.scores >= FAINT) & (found.scores < FIRM)).sum()) for found in fused]
    words = {
        "doubt": tuple(f"{count} doubtful box{'es' * (count != 1)}" for count in counts),
        "rare class": tuple(f"shows {name}, rare here" for name in rarest),
    }
    return Signals(values, features, words)


def doubt(found: Detections) -> float:
    """Return the binary entropy of the scores in bits, of the most doubtful boxes together."""
    scores = np.clip(found.scores.astype(np.float64), 1e-9, 1 - 1e-9)
    bits = -(scores * np.log2(scores) + (1 - scores) * np.log2(1 - scores))
    return float(np.sort(bits[scores >= FAINT])[::-1][:DOUBTS].sum())


def unmatched(a: Detections, b: Detections) -> float:
    """Return the summed score of the firm boxes in `a` of which `b` sees nothing."""
    firm, seen = a[a.scores >= FIRM], b[b.scores >= FAINT]
    same = iou(firm.boxes_xyxy, seen.boxes_xyxy) * (firm.class_ids[:, None] == seen.class_ids)
    return float(firm.scores[same.max(axis=1, initial=0) < SAME_IOU].sum())


def _models_disagree(one: Seen, committee: Committee) -> float:
    """Return the summed score of what one network is sure of and another that knows the class does not see."""
    total = 0.0
    for i, a in enumerate(one.parts):
        for j, b in enumerate(one.parts):
            known = [committee.class_names.index(name) for name in committee.members[j].knows]
            total += unmatched(a[np.isin(a.class_ids, known)], b) if i != j else 0.0
    return total


def _tracker_disagrees(seen: Sequence[Seen], fused: Sequence[Detections]) -> F64:
    """Return, for frames of recordings, what is tracked and not seen, and what is seen and not tracked."""
    values = np.zeros(len(seen))
    recordings: dict[str, list[int]] = {}
    for i, one in enumerate(seen):
        if one.frame.is_recorded:
            recordings.setdefault(one.frame.drive, []).append(i)
    for rows in recordings.values():
        results = track([(seen[i].frame.timestamp_ns, fused[i]) for i in rows])
        for i, (tracks, confidences) in zip(rows, results, strict=True):
            tracked = Detections(tracks.boxes_xyxy, confidences.astype(np.float32), tracks.class_ids)
            values[i] = unmatched(tracked, fused[i]) + unmatched(fused[i], tracked)
    return values


def _features(seen: Sequence[Seen], fused: Sequence[Detections], class_count: int) -> F64:
    """Return (N, D): the thumbnail and the objects by class and place, each block with a mean length of 1."""
    thumbs = np.stack([one.thumb.reshape(-1) for one in seen]).astype(np.float64) / 255
    objects = np.stack([_placed(found, one.size_hw, class_count) for one, found in zip(seen, fused, strict=True)])
    blocks = []
    for block in (thumbs, objects):
        block = block - block.mean(axis=0)
        blocks.append(block / max(float(np.linalg.norm(block, axis=1).mean()), 1e-9))
    return np.concatenate(blocks, axis=1)


def _placed(found: Detections, size_hw: tuple[int, int], class_count: int) -> F64:
    """Return the square root of the summed scores by class and cell."""
    grid = np.zeros((class_count, *GRID_HW))
    height, width = size_hw
    x = (found.boxes_xyxy[:, 0] + found.boxes_xyxy[:, 2]) / 2 / width
    y = (found.boxes_xyxy[:, 1] + found.boxes_xyxy[:, 3]) / 2 / height
    column = np.clip((x * GRID_HW[1]).astype(int), 0, GRID_HW[1] - 1)
    row = np.clip((y * GRID_HW[0]).astype(int), 0, GRID_HW[0] - 1)
    np.add.at(grid, (found.class_ids, row, column), found.scores)
    return np.sqrt(grid).reshape(-1)


def _unusual(features: F64, drives: Sequence[str]) -> F64:
    """Return the mean distance to the nearest frames: of other recordings where there are several."""
    names = np.array(drives)
    values = np.zeros(len(features))
    for i, one in enumerate(features):
        far = np.linalg.norm(features - one, axis=1)
        others = far[names != names[i]] if (names != names[i]).any() else np.delete(far, i)
        values[i] = float(np.sort(others)[:NEIGHBOURS].mean()) if len(others) else 0.0
    return values


def _rare_class(fused: Sequence[Detections], class_names: Sequence[str]) -> tuple[F64, list[str]]:
    """Return the summed scores of each frame, each over how often its class is seen; and the class that adds most."""
    sums = np.zeros((len(fused), len(class_names)))
    for i, found in enumerate(fused):
        np.add.at(sums[i], found.class_ids, found.scores * (found.scores >= FAINT))
    worth = sums / np.maximum(sums.sum(axis=0), 1)
    return worth.sum(axis=1), [class_names[k] for k in worth.argmax(axis=1).tolist()]
