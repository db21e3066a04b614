"""Which frames belong together: split files, and the recording (drive) that each KITTI frame comes from.

Neighbouring frames of one drive are near copies. A split that cuts through a drive measures memory, not skill.
"""

from __future__ import annotations

import json
from pathlib import Path

from perception.errors import UserError
from perception.formats.kitti import read_text

_MAPPING_FOLDERS = ("devkit/mapping", "mapping", "devkit_object/mapping")


def split_path(root: Path, split: str | Path) -> Path:
    """`train` means `<root>/ImageSets/train.txt`; a path that ends in .txt means itself."""
    path = Path(split)
    return path if path.suffix == ".txt" else root / "ImageSets" / f"{split}.txt"


def read_split(root: Path, split: str | Path) -> list[str]:
    """Frame names of a split file, one a line.

    Raises:
        UserError: no such file, no names in it, or a name twice.
    """
    path = split_path(root, split)
    if not path.exists():
        known = sorted(p.stem for p in (root / "ImageSets").glob("*.txt"))
        raise UserError(f"{path}: no such split file", f"one of {', '.join(known) or 'none: there is no ImageSets'}")
    names = read_text(path).split()
    if not names:
        raise UserError(f"{path}: holds no names", "one frame name a line")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UserError(f"{path}: {twice} stands there twice", "every frame once")
    return names


def read_drives(root: Path) -> dict[str, str]:
    """Object frame → drive, from `drives.json`, else from the object kit's `mapping` folder; empty without either.

    Raises:
        UserError: a file that is there and wrong.
    """
    if (root / "drives.json").exists():
        return _drives_of_json(root / "drives.json")
    for folder in _MAPPING_FOLDERS:
        if (root / folder / "train_rand.txt").exists():
            return _drives_of_kit(root / folder)
    return {}


def _drives_of_json(path: Path) -> dict[str, str]:
    example = '{"000002": "2011_09_26_drive_0086", …}'
    try:
        drives = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: {error.msg}", f"JSON such as {example}") from None
    if not isinstance(drives, dict) or not all(isinstance(drive, str) for drive in drives.values()):
        raise UserError(f"{path}: is not a map from frame to drive", example)
    return drives


def _drives_of_kit(folder: Path) -> dict[str, str]:
    """The i-th number of train_rand.txt is the line (from 1) of train_mapping.txt that tells about frame i.

    Source: readme of KITTI's object development kit.
    """
    lines = read_text(folder / "train_mapping.txt").splitlines()
    drives = {}
    for i, number in enumerate(read_text(folder / "train_rand.txt").replace(",", " ").split()):
        line = int(number) if number.isdecimal() else 0
        fields = lines[line - 1].split() if 1 <= line <= len(lines) else []
        if len(fields) != 3:
            raise UserError(
                f"{folder}: entry {i + 1} of train_rand.txt is {number!r}",
                f"a line from 1 to {len(lines)} of train_mapping.txt: date, drive and frame",
            )
        drives[f"{i:06d}"] = fields[1].removesuffix("_sync")
    return drives
