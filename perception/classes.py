"""The classes of a network: names, label names, evaluation, ignored neighbours, size and colour.

They travel in the model file's metadata. Training reads them from a TOML file with one table a class:

    [Bus]
    labels = ["bus", "coach"]
    neighbours = ["truck"]
    evaluated_as = "Bus"
    colour = "#ff8c00"
    size = { height_m = 3.1, height_spread = 0.1, half_width_m = 1.3, half_depth_m = 6.0, half_depth_std_m = 1.0 }
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from perception.errors import UserError
from perception.files import read_toml
from perception.types import CLASS_NAMES

MOST_CLASSES = 1000
MOST_NAME = 64
"""Longest class or label name, characters: a class name is drawn on every box."""
MOST_LABELS = 100
"""Most label names and neighbours of a class."""
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_EXAMPLE = '[Bus] with labels = ["bus"]'


@dataclass(frozen=True)
class SizePrior:
    """The size of a class of objects."""

    height_m: float
    """Median height."""
    height_spread: float
    """Standard deviation of the height's logarithm: 0.08 is 8 %."""
    half_width_m: float
    """Half the width, seen from behind."""
    half_depth_m: float
    """Half the extent along the line of sight when seen from behind: from the nearest point to the centre."""
    half_depth_std_m: float
    """Standard deviation of that."""
    side_aspects: tuple[float, float] = (9.0, 10.0)
    """Width over height of a box from which an object turns its side to us, and where it wholly does."""
    half_depth_side_m: float = 0.0
    """Half the extent along the line of sight when seen from the side."""
    edge_std_share: float = 0.025
    """Noise of a box edge as a share of the box's height: large boxes have larger errors, and limbs are vague."""

    def __post_init__(self) -> None:
        sizes = (self.height_m, self.height_spread, self.half_width_m, self.half_depth_m, self.half_depth_std_m)
        if not all(size > 0 for size in sizes):
            raise ValueError(f"SizePrior: found {sizes}, expected sizes above 0")
        begin, end = self.side_aspects
        rest = (begin, end, self.half_depth_side_m, self.edge_std_share)
        if not all(math.isfinite(value) and value >= 0 for value in (*sizes, *rest)) or begin >= end:
            raise ValueError(f"SizePrior: found {(*sizes, *rest)}, expected finite sizes and rising side_aspects")

    def turning(self) -> tuple[float, float, float]:
        """How far an object has turned its side to us is `aspect · scale − start`, held within 0 and 1.

        Returns:
            start and scale; and what half its extent along the line of sight then changes by, metres.
        """
        begin, end = self.side_aspects
        return begin / (end - begin), 1 / (end - begin), self.half_depth_side_m - self.half_depth_m


@dataclass(frozen=True)
class ClassInfo:
    """One class of a network."""

    name: str
    """Without spaces: it ends in rows of text."""
    labels: tuple[str, ...] = ()
    """Names in label files that are this class, without regard to case; empty: the class's own name."""
    neighbours: tuple[str, ...] = ()
    """Names in label files whose boxes are ignore regions of this class, as Van is for Car."""
    evaluated_as: str = ""
    """Name in result files, and in evaluation; empty: the class's own name."""
    size: SizePrior | None = None
    """Size for ranging; None: that of the class of this name, or that it is evaluated as, else an unknown size."""
    colour: str = ""
    """Colour of its boxes in videos and pages, as #rrggbb; empty: a colour for each track."""

    def __post_init__(self) -> None:
        for found, expected in _problems(self):
            raise UserError(f"class {_short(self.name)}: {found}", expected)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Lower-case names in label files that are this class."""
        return tuple(label.lower() for label in self.labels or (self.name,))

    @property
    def result_name(self) -> str:
        """Name in result files."""
        return self.evaluated_as or self.name

    @property
    def colour_bgr(self) -> tuple[int, int, int] | None:
        """(blue, green, red), 0..255; None without a colour of its own."""
        if not self.colour:
            return None
        red, green, blue = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return blue, green, red

    @staticmethod
    def from_table(table: Mapping[str, Any], where: Path | str, name: str = "") -> ClassInfo:
        """Read a class from a table of TOML or JSON, which may come from a stranger.

        Raises:
            UserError: an unknown key, or a value of another type.
        """
        values = _values(ClassInfo, {"name": name, **table} if name else table, f"{where}: class {_short(name)}")
        if (size := values.get("size")) is not None:
            if not isinstance(size, Mapping):
                raise UserError(f"{where}: class {_short(name)}: size {_short(size)}", "a table of metres")
            values["size"] = _size(size, f"{where}: class {_short(name or values.get('name'))}: size")
        try:
            return ClassInfo(**values)
        except UserError as error:
            raise UserError(f"{where}: {error.found}", error.expected) from None


def classes_named(names: Iterable[str], defined: Sequence[ClassInfo] = ()) -> tuple[ClassInfo, ...]:
    """Return a class for each name: the one defined, else KITTI's, else a plain one."""
    by_name = {**KNOWN_CLASSES, **{info.name: info for info in defined}}
    return tuple(by_name.get(name) or ClassInfo(name) for name in names)


def read_classes(path: Path) -> tuple[ClassInfo, ...]:
    """Read the classes of a TOML file, in its order.

    Raises:
        UserError: no TOML, an unknown key, a label that two classes claim, or a wrong value.
    """
    tables = read_toml(path, f"a TOML file of classes, such as {_EXAMPLE}")
    wrong = next((name for name, table in tables.items() if not isinstance(table, dict)), None)
    if wrong is not None or not tables:
        raise UserError(f"{path}: {wrong if wrong is not None else 'no class'}", f"one table a class: {_EXAMPLE}")
    classes = tuple(ClassInfo.from_table(table, path, name) for name, table in tables.items())
    for found, expected in class_problems(classes):
        raise UserError(f"{path}: {found}", expected)
    return classes


def class_problems(classes: Sequence[ClassInfo]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a list of classes, as found and expected."""
    if not 1 <= len(classes) <= MOST_CLASSES:
        yield f"{len(classes)} classes", f"1 to {MOST_CLASSES}"
    owners: dict[str, str] = {}
    for info in classes:
        for label in info.label_names:
            other = owners.setdefault(label, info.name)
            if other != info.name:
                yield f"label '{label}' in {other} and {info.name}", "each label in one class"
    names = [info.name for info in classes]
    if len(set(names)) < len(names):
        yield f"classes {_short(', '.join(names))}", "each name once"


def _problems(info: ClassInfo) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a class; its values may be of any type."""
    if not is_class_name(info.name):
        yield f"name {_short(info.name)}", f"1 to {MOST_NAME} printable characters without spaces"
    for field in ("labels", "neighbours"):
        names = getattr(info, field)
        good = isinstance(names, tuple) and len(names) <= MOST_LABELS
        if not good or not all(isinstance(n, str) and 1 <= len(n) <= MOST_NAME and n.isprintable() for n in names):
            yield f"{field} {_short(names)}", f"a list of up to {MOST_LABELS} printable names"
    if info.evaluated_as != "" and not is_class_name(info.evaluated_as):
        yield f"evaluated_as {_short(info.evaluated_as)}", "a name without spaces"
    if not isinstance(info.colour, str) or (info.colour and not _COLOUR.fullmatch(info.colour)):
        yield f"colour {_short(info.colour)}", 'a colour such as "#ff8c00"'
    if info.size is not None and not isinstance(info.size, SizePrior):
        yield f"size {_short(info.size)}", "a table of metres"


def is_class_name(name: object) -> bool:
    """Whether a value can name a class: a space ends the name in a row of text, OpenCV crashes on a surrogate."""
    return isinstance(name, str) and 1 <= len(name) <= MOST_NAME and name.isprintable() and " " not in name


def _size(table: Mapping[str, Any], where: str) -> SizePrior:
    values = _values(SizePrior, table, where)
    flat = [v for value in values.values() for v in (value if isinstance(value, tuple) else (value,))]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in flat):
        raise UserError(f"{where} {_short(dict(table))}", "numbers, in metres")
    if len(values.get("side_aspects", (0, 0))) != 2:
        raise UserError(f"{where}: side_aspects {_short(values['side_aspects'])}", "two numbers")
    try:
        return SizePrior(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {error}", "sizes above 0, in metres") from None


def _values(kind: type, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a dataclass that a table gives; lists become tuples.

    Raises:
        UserError: a key that is no field, or a field without a default is missing.
    """
    known = {field.name: field for field in fields(kind)}
    if unknown := [key for key in table if key not in known]:
        raise UserError(f"{where}: unknown key '{_short(unknown[0])}'", "one of " + ", ".join(known))
    if missing := [name for name, field in known.items() if field.default is MISSING and name not in table]:
        raise UserError(f"{where}: no {missing[0]}", f"all of {', '.join(missing)}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _short(value: object, most: int = 60) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else text[:most] + "…"


KNOWN_CLASSES: Mapping[str, ClassInfo] = {
    info.name: info
    for info in (
        ClassInfo("Car", neighbours=("Van",)),
        ClassInfo("Pedestrian", neighbours=("Person_sitting", "Person")),
        ClassInfo("Cyclist"),
    )
}
"""What a class of these names means where nobody defines it: KITTI's rules."""
DEFAULT_CLASSES = classes_named(CLASS_NAMES)
