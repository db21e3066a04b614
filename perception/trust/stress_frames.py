"""Choose the frames of `perception stress` from a folder in KITTI's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from perception.errors import UserError
from perception.evaluation.folders import find_images, find_labels, find_split, read_names, stems
from perception.evaluation.predictions import find_all_images, find_sequences
from perception.trust.stress import StressFrames

Item = TypeVar("Item")
ROADS_SHARE, SEQUENCE_TIMES = 2, 4
"""Half as many road frames as object frames, and four times as many tracked ones."""


def choose_frames(
    root: Path, split: Path | None, road_split: Path | None, sequence: str, count: int
) -> tuple[StressFrames, list[str]]:
    """Choose what is there: objects, roads, a tracked drive.

    Args:
        root: KITTI's root, or a folder that holds `object`, `road` and `tracking`.
        split: names of object frames, a file or a name in ImageSets; None takes all.
        road_split: file with names of road ground truths; None takes all.
        sequence: name of the tracked drive.
        count: object frames, evenly spread; 0 takes all of everything.

    Returns:
        The frames, and a note for each part that is missing.

    Raises:
        UserError: neither objects nor roads are there, or images are missing.
    """
    objects, roads = [], []
    missing: list[UserError] = []
    if labels := _labels(root, "object", missing):
        names = stems(labels, ".txt") if split is None else list(read_names(find_split(split, root, labels)))
        images = find_all_images(_images(root, labels, "object"), spread(names, count))
        objects = [(name, path, labels / f"{name}.txt") for name, path in images]
    if truths := _labels(root, "road", missing):
        names = list(read_names(road_split)) if road_split is not None else stems(truths, ".png")
        names = spread([name for name in names if "_lane_" not in name], -(-count // ROADS_SHARE))
        paths = find_all_images(_images(root, truths, "road"), [name.replace("_road_", "_") for name in names])
        roads = [(name, path, truths / f"{name}.png") for name, (_, path) in zip(names, paths, strict=True)]
    if len(missing) == 2:
        raise UserError(missing[0].found, missing[0].expected, "--data with KITTI's root")
    notes = [f"not scored for want of labels: {error.expected}" for error in missing]
    if not sequence:
        return StressFrames(objects, roads), notes
    labels = find_labels(root, "tracking")
    drives = find_sequences(_images(root, labels, "tracking"), labels)
    if sequence not in drives:
        known = list(drives)
        raise UserError(
            f"no sequence '{sequence}' with images", f"one of {', '.join(known)}", f"--sequence {known[0]}"
        )
    frames = list(drives[sequence].items())
    frames = frames[: SEQUENCE_TIMES * count] if count else frames
    return StressFrames(objects, roads, dict(frames), labels / f"{sequence}.txt"), notes


def _labels(root: Path, task: str, missing: list[UserError]) -> Path | None:
    """Find a task's label folder; where there is none, note it in `missing`."""
    try:
        return find_labels(root, task)
    except UserError as error:
        missing.append(error)
        return None


def _images(root: Path, labels: Path, task: str) -> Path:
    folder = find_images(root, task) or find_images(labels, task)
    if folder is None:
        raise UserError(f"{root}: no images for {labels}", "the camera's images beside the labels", "--data ROOT")
    return folder


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Choose `count` items evenly; all of them where `count` is 0 or there are no more."""
    if not count or count >= len(items):
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]
