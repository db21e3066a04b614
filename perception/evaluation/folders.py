"""Find the files of an evaluation and name what is wrong with them. The loaders of the three tasks build on this.

Nothing is dropped in silence. An input that the official tool refuses is an error. An input that it accepts without
a word (boxes outside the image, unknown classes, results of other frames) is scored and counted in `warnings`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from perception.arrays import F64
from perception.errors import UserError
from perception.files import data_files, read_text

LAYOUT = {
    "object": ("label_2", ".txt", "label files", "image_2"),
    "road": ("gt_image_2", ".png", "ground truth images", "image_2"),
    "tracking": ("label_02", ".txt", "label files", "image_02"),
}
"""By task: KITTI's label folder, the labels' suffix, what they are, and the image folder."""
LARGEST_KITTI_WH = (1242, 376)
"""Size of KITTI's largest image, pixels."""
ALLOW_MISSING = "--allow-missing counts them as empty"
Progress = Callable[[int, int], None]
"""Called with the number of finished items and their total."""


def first_ten(names: Iterable[object]) -> str:
    """List names as 'a, b, c', or the first ten 'and 17 more'."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return ", ".join(listed[:10]) + more


def find_folder(root: Path, inside: Sequence[str], suffix: str, what: str, do: str = "") -> Path:
    """Find the folder with files of `suffix`: `root`, or the first of the folders `inside` it.

    Raises:
        UserError: there is none; the message shows the official layout.
    """
    for folder in (root, *(root / name for name in inside)):
        if folder.is_dir() and any(name.suffix.lower() == suffix for name in folder.iterdir()):
            return folder
    if not root.is_dir():
        problem = "is a file" if root.exists() else "no such folder"
    elif not any(root.iterdir()):
        problem = "the folder is empty"
    else:
        problem = f"holds no {suffix} files"
    places = f"{what}: *{suffix} in it" + (f" or in its {inside[0]}" if inside else "")
    raise UserError(f"{root}: {problem}", places, do)


def find_labels(root: Path, task: str) -> Path:
    """Find the label folder of a task: `root` itself, or its place in KITTI's layout.

    Raises:
        UserError: there is none.
    """
    name, suffix, what, _ = LAYOUT[task]
    places = (f"training/{name}", name, f"{task}/training/{name}")
    return find_folder(root, places, suffix, what, "--gt DIR, or --data ROOT with labels")


def find_images(root: Path, task: str) -> Path | None:
    """Find the camera images that belong to `root`, which is KITTI's root or the label folder."""
    name = LAYOUT[task][3]
    folders = (root / "training" / name, root / name, root / task / "training" / name, root.parent / name)
    return next((folder for folder in folders if folder.is_dir()), None)


def read_names(path: Path) -> tuple[str, ...]:
    """Read the frame names of a split, one per line.

    Raises:
        UserError: the file is empty, repeats a name, or holds something that is not a file name.
    """
    lines = [(i, name) for i, line in enumerate(read_text(path).split("\n"), 1) if (name := line.strip())]
    if not lines:
        raise UserError(
            f"{path}: no names", "one frame name on a line, such as 000042", "--split FILE, or --split val"
        )
    seen: dict[str, int] = {}
    for i, name in lines:
        if not re.fullmatch(r"[\w.-]+", name):
            raise UserError(
                f"{path}:{i}: found {name!r}",
                "one frame name on a line, such as 000042",
                "--split FILE, or --split val",
            )
        if name in seen:
            raise UserError(f"{path}:{i}: {name} for the second time, first in line {seen[name]}", "each frame once")
        seen[name] = i
    return tuple(seen)


def stems(folder: Path, suffix: str) -> list[str]:
    """List the stems of the files with `suffix`, sorted."""
    return [path.stem for path in data_files(folder, (suffix,))]


def require(missing: Sequence[str], what: str, do: str, each: str = "frame") -> None:
    """Refuse missing files.

    Raises:
        UserError: anything is missing.
    """
    if missing:
        raise UserError(f"{len(missing)} {what} missing: {first_ten(missing)}", f"one for each {each}", do)


def missing_warning(missing: Sequence[str], kind: str) -> list[str]:
    """Name the frames or images that count as empty."""
    return [f"{len(missing)} {kind} had no result file and count as empty: {first_ten(missing)}"] if missing else []


def class_warnings(names: Sequence[str], counts: Sequence[int], known: Sequence[str], whose: str) -> list[str]:
    """Name classes that KITTI does not know, with their row counts."""
    lower = {name.lower() for name in known}
    return [
        f"{count} {whose} row(s) of class '{name}', which KITTI does not know, are not scored"
        for name, count in zip(names, counts, strict=True)
        if name.lower() not in lower
    ]


def refuse_unknown_classes(names: Sequence[str], known: Sequence[str], found: Path, column: int) -> None:
    """Refuse results whose rows all have an unknown class. Empty results are legal."""
    names = [name for name in names if name.lower() != "dontcare"]
    if names and not {name.lower() for name in names} & {name.lower() for name in known}:
        raise UserError(
            f"{found}: no result row is of a class that KITTI knows, but of {first_ten(sorted(names))}",
            "one of " + ", ".join(known),
            f"write KITTI's names into column {column} of the result files",
        )


def box_warnings(boxes: F64, gt_boxes: F64) -> list[str]:
    """Count impossible boxes, which the official tools score unchanged."""
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    outside = (boxes[:, :2] < -1).any(axis=1)  # a pixel of slack for rounding
    limit = "left of or above the image"
    if len(gt_boxes) and (gt_boxes[:, 2:].max(axis=0) <= LARGEST_KITTI_WH).all():
        outside |= (boxes[:, 2:] > np.array(LARGEST_KITTI_WH) + 1).any(axis=1)
        limit = f"outside the image (none is larger than {LARGEST_KITTI_WH[0]}x{LARGEST_KITTI_WH[1]})"
    found = []
    if inverted.any():
        found.append(f"{int(inverted.sum())} result box(es) have right < left or bottom < top: they match nothing")
    if outside.any():
        found.append(f"{int(outside.sum())} result box(es) reach {limit}: they are scored as they are")
    return found


def find_split(split: Path, gt: Path, labels: Path) -> Path:
    """Find a split: a file, or a name in KITTI's ImageSets such as `val` or `val.txt`.

    Raises:
        UserError: there is no such file or name.
    """
    if split.is_file():
        return split
    for root in (gt, *list(labels.parents)[:3]):
        if (named := root / "ImageSets" / f"{split.name.removesuffix('.txt')}.txt").is_file():
            return named
    raise UserError(
        f"{split}: no such file",
        "a file with one frame name on a line, or the name of one in ImageSets/",
        "--split val",
    )
