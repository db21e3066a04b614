"""A network's description, which travels in the model file's metadata, and the choice of a shipped model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from perception.classes import MOST_CLASSES, MOST_NAME, ClassInfo, class_problems, classes_named, is_class_name
from perception.doubt import Doubt
from perception.errors import UserError
from perception.familiarity import Familiarity

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""Weights that ship with the package: `NAME-HEIGHTxWIDTH.onnx`."""
METADATA_KEY = "perception"
"""The one metadata entry of the model file; its value is a `ModelSpec` as JSON."""
RENAMED_KEYS = {"even_scores": "confirm_thresholds"}
"""Metadata keys of older files, and their present names."""
CONTRACT_VERSION = 1
MOST_METADATA = 100_000
"""Longest description that is read, characters."""
MOST_TEXT = 1000
"""Longest of the other texts, characters."""
MOST_SIDE = 8192
"""Largest height or width of the input, pixels."""
MOST_BATCH = 256
"""Largest fixed batch: the input of one is allocated at the start."""

Tensors = Mapping[str, tuple[Any, ...]]
"""Name → shape; a dimension that is not a number may vary."""
DEFAULT_NETWORK = "nano"
_SIZE_IN_NAME = re.compile(r"(?P<height>\d+)x(?P<width>\d+)")


@dataclass(frozen=True)
class ModelSpec:
    """The model file's own description of itself."""

    class_names: tuple[str, ...]
    """In the order of `class_ids`."""
    size_hw: tuple[int, int]
    """Height and width of the input, pixels."""
    score_threshold: float = 0.3
    """Detections below it are not shown by default; the tracker gets them down to `track_threshold`."""
    track_threshold: float = 0.1
    """Lowest score of the detections that a tracker gets."""
    confirm_thresholds: tuple[float, ...] = ()
    """For each class the tracker's confirmation threshold, as `DriveConfig.confirm_thresholds`; empty leaves the
    tracker's own."""
    road_threshold: int = 128
    """Road confidence (0..255) from which a pixel counts as road: the MaxF point on the held-out frames."""
    name: str = ""
    """Preset and size, for people."""
    precision: str = "fp32"
    licence: str = ""
    """Terms of the weights, which may differ from the code's."""
    training_run: str = ""
    """Folder name, date and commit of the run that made the weights."""
    data_hash: str = ""
    """Hash of the list of training files."""
    suppression: bool = True
    """Whether the graph suppresses duplicates; False for a one-to-one head, which outputs none. No suppression is
    needed outside the graph."""
    doubt: Doubt | None = None
    """Scores as probabilities, and margins that hold the true box; None where nobody has measured them."""
    familiar: Familiarity | None = None
    """What usual frames look like; None where nobody has measured them."""
    contract: int = CONTRACT_VERSION
    """Version of inputs and outputs."""
    classes: tuple[ClassInfo, ...] = ()
    """Classes that are more than a name, in any order; the others are as `classes_named` defines them."""

    def __post_init__(self) -> None:
        for found, expected in _problems(self):
            raise UserError(found, expected)

    @property
    def class_infos(self) -> tuple[ClassInfo, ...]:
        """What is known of each class, in the order of `class_names`."""
        return classes_named(self.class_names, self.classes)

    @property
    def result_names(self) -> tuple[str, ...]:
        """Name of each class in result files."""
        return tuple(info.result_name for info in self.class_infos)

    def to_json(self) -> str:
        """Format as JSON, the value of the metadata entry."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_metadata(metadata: Mapping[str, str], path: Path | str) -> ModelSpec:
        """Read the description from a model file's metadata.

        Raises:
            UserError: the file was not exported by this project, or by a newer contract.
        """
        if METADATA_KEY not in metadata:
            raise UserError(
                f"{path}: the model has no description (no metadata '{METADATA_KEY}')",
                "an ONNX file that `perception export` wrote",
                "perception export CHECKPOINT",
            )
        values = _read_json(metadata[METADATA_KEY], path)
        if values.get("contract") != CONTRACT_VERSION:
            raise UserError(
                f"{path}: model contract {shorten(repr(values.get('contract')))}",
                f"contract {CONTRACT_VERSION}",
                "export the checkpoint again with this version",
            )
        for old, new in RENAMED_KEYS.items():
            if old in values:
                values.setdefault(new, values.pop(old))
        if missing := [name for name in ("class_names", "size_hw") if name not in values]:
            raise UserError(f"{path}: broken model metadata (no {missing[0]})", _METADATA, _EXPORT)
        known = {f.name for f in fields(ModelSpec)}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        for name, kind in (("doubt", Doubt), ("familiar", Familiarity)):
            if values.get(name) is not None:
                values[name] = kind.from_json(values[name])  # type: ignore[attr-defined]
                if values[name] is None:
                    do = f"perception export {name} MODEL"
                    raise UserError(f"{path}: broken model metadata ({name})", _METADATA, do)
        try:
            values["classes"] = _read_classes(values.get("classes", ()))
            return ModelSpec(**values)
        except UserError as error:
            raise UserError(f"{path}: broken model metadata ({error.found})", error.expected, _EXPORT) from None


def _read_classes(tables: object) -> tuple[ClassInfo, ...]:
    if not isinstance(tables, tuple) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"classes {shorten(repr(tables))}", "a list of tables")
    return tuple(ClassInfo.from_table(table, "classes") for table in tables[: MOST_CLASSES + 1])


_METADATA = "metadata as `perception export` writes it"
_EXPORT = "perception export CHECKPOINT"


def _read_json(text: str, path: Path | str) -> dict[str, Any]:
    problem = f"{len(text):,} characters, more than {MOST_METADATA:,}"
    if len(text) <= MOST_METADATA:
        try:
            values = json.loads(text)
            if isinstance(values, dict):
                return values
            problem = "no JSON object"
        except (ValueError, RecursionError) as error:
            problem = str(error)
    raise UserError(f"{path}: broken model metadata ({problem})", _METADATA, _EXPORT)


def _problems(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a description, as found and expected; its values may be of any type."""

    def found(field: str) -> str:
        return f"{field} {shorten(repr(getattr(spec, field)))}"

    names, size, scores = spec.class_names, spec.size_hw, spec.confirm_thresholds
    if not isinstance(names, tuple) or not 1 <= len(names) <= MOST_CLASSES:
        yield found("class_names"), f"a list of 1 to {MOST_CLASSES} names"
    for name in names:
        if not is_class_name(name):
            yield f"class name {shorten(repr(name))}", f"1 to {MOST_NAME} printable characters without spaces"
    if len(set(names)) != len(names):
        yield found("class_names"), "each name once"
    if strangers := [info.name for info in spec.classes if info.name not in names]:
        yield f"a description of class {shorten(strangers[0])}", "one of class_names"
    yield from class_problems(spec.classes) if spec.classes else ()
    if not isinstance(size, tuple) or len(size) != 2 or not all(_is_whole(side, 32, MOST_SIDE) for side in size):
        yield found("size_hw"), f"height and width, 32 to {MOST_SIDE} pixels each"
    for field in ("score_threshold", "track_threshold"):
        if not _is_number(value := getattr(spec, field)) or not 0 <= value <= 1:
            yield found(field), "a number from 0 to 1"
    is_list = isinstance(scores, tuple) and len(scores) in (0, len(names))
    if not is_list or not all(_is_number(score) and 0 < score < 1 for score in scores):
        yield f"confirmation thresholds {shorten(repr(scores))}", "numbers between 0 and 1, one for each class"
    if not _is_whole(spec.road_threshold, 0, 255):
        yield found("road_threshold"), "a whole number from 0 to 255"
    for field in ("name", "precision", "licence", "training_run", "data_hash"):
        text = getattr(spec, field)
        if not isinstance(text, str) or len(text) > MOST_TEXT or not text.isprintable():
            yield found(field), f"one line of at most {MOST_TEXT} characters"
    if not isinstance(spec.suppression, bool):
        yield found("suppression"), "true or false"
    if isinstance(names, tuple) and isinstance(spec.doubt, Doubt):
        yield from spec.doubt.problems(len(names))
    if isinstance(spec.familiar, Familiarity):
        yield from spec.familiar.problems()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def shorten(text: str, most: int = 80) -> str:
    """Cut text that comes from a file, so that an error message stays a sentence."""
    return text if len(text) <= most else text[:most] + "…"


def check_tensors(
    path: Path | str, spec: ModelSpec, inputs: Tensors, outputs: Tensors, types: Mapping[str, str]
) -> None:
    """Check that a model file's inputs and outputs are those of the contract. More outputs are allowed.

    Args:
        path: the file, for messages.
        spec: its description of itself.
        inputs: its inputs.
        outputs: its outputs.
        types: numpy's name of the type of each input and output, as `uint8`.

    Raises:
        UserError: a name, shape or type differs.
    """
    height, width = spec.size_hw
    if set(inputs) != {"images"}:
        found = shorten(", ".join(inputs) or "none")
        raise UserError(f"{path}: the model's inputs are {found}", "one input named 'images'", _EXPORT)
    wanted: list[tuple[str, str, tuple[Any, ...], bool]] = [
        ("images", "uint8", ("N", height, width, 3), True),
        ("boxes_xyxy", "float32", ("N", "K", 4), True),
        ("scores", "float32", ("N", "K"), True),
        ("class_ids", "int64", ("N", "K"), True),
        ("road", "uint8", ("N", "H/s", "W/s"), False),
        ("distances", "float32", ("N", "K", 2), False),
        ("cuboids", "float32", ("N", "K", (9, 8)), False),  # 8: model files of earlier versions
    ]
    tensors = {**outputs, **inputs}
    for name, kind, shape, required in wanted:
        text = f"'{name}' {kind} ({', '.join(map(_side, shape))})"
        if name not in tensors:
            if not required:
                continue
            found = shorten(", ".join(outputs) or "none")
            raise UserError(f"{path}: the model's outputs are {found}", f"among them {text}", _EXPORT)
        found_shape = tensors[name]
        if types.get(name) != kind or len(found_shape) != len(shape) or not all(map(_agrees, found_shape, shape)):
            sides = ", ".join("?" if side is None else str(side) for side in found_shape)
            raise UserError(f"{path}: '{name}' is {types.get(name)} ({shorten(sides)})", text, _EXPORT)
    batch = inputs["images"][0]
    if isinstance(batch, int) and batch > MOST_BATCH:
        raise UserError(f"{path}: a batch of {batch}", f"at most {MOST_BATCH}", _EXPORT)
    lengths = {side for name in ("boxes_xyxy", "scores", "class_ids") if isinstance(side := outputs[name][1], int)}
    if len(lengths) > 1:
        found = ", ".join(map(str, sorted(lengths)))
        raise UserError(f"{path}: outputs of {found} rows", "as many boxes as scores and class_ids", _EXPORT)


def _side(wanted: Any) -> str:
    """Return one side of a wanted shape as text."""
    return " or ".join(map(str, wanted)) if isinstance(wanted, tuple) else str(wanted)


def _agrees(found: Any, wanted: Any) -> bool:
    """Whether one side of a declared shape can be what is wanted; a side that is no number may vary."""
    if not isinstance(found, int):
        return True
    if isinstance(wanted, tuple):
        return found in wanted
    return found > 0 if isinstance(wanted, str) else bool(found == wanted)


def shipped_or(path: Path, source_size_hw: tuple[int, int] | None = None) -> Path:
    """The path itself, or the shipped file where a bare name is not found in the current folder.

    A name without a suffix (`small`) is a shipped network, in the input size that suits the source.
    """
    if path.parent != Path() or path.exists():
        return path
    if not path.suffix and any(WEIGHTS_FOLDER.glob(f"{path.name}-*.onnx")):
        return default_model(source_size_hw, network=path.name)
    shipped = WEIGHTS_FOLDER / path.name
    return shipped if shipped.is_file() else path


def default_model(
    source_size_hw: tuple[int, int] | None, folder: Path | None = None, network: str = DEFAULT_NETWORK
) -> Path:
    """Choose the file of a shipped network by the source's aspect ratio; the wide one for an unknown size.

    Among ratios within a tenth of each other, the largest input is chosen.

    Raises:
        UserError: no weights are shipped.
    """
    folder = folder or WEIGHTS_FOLDER
    sizes = {
        path: match for path in sorted(folder.glob(f"{network}-*.onnx")) if (match := _SIZE_IN_NAME.search(path.stem))
    }
    if not sizes:
        raise UserError(
            f"{folder}: no weights are shipped here",
            "files like nano-384x1248.onnx",
            "--model FILE.onnx   (perception train and perception export make one)",
        )
    height, width = source_size_hw or (375, 1242)

    def mismatch(path: Path) -> tuple[float, int]:
        own_height, own_width = int(sizes[path]["height"]), int(sizes[path]["width"])
        return round(abs(math.log((width / height) / (own_width / own_height))), 1), -own_height * own_width

    return min(sizes, key=mismatch)
