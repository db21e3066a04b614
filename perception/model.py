"""A network's description, which travels in the model file's metadata, and the choice of a shipped model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from perception.errors import UserError

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""Weights that ship with the package: `NAME-HEIGHTxWIDTH.onnx`."""
METADATA_KEY = "perception"
"""The one metadata entry of the model file; its value is a `ModelSpec` as JSON."""
RENAMED_KEYS = {"even_scores": "confirm_thresholds"}
"""Metadata keys of older files, and their present names."""
CONTRACT_VERSION = 1
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
    contract: int = CONTRACT_VERSION
    """Version of inputs and outputs."""

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError("class_names is empty")
        if not all(0 < score < 1 for score in self.confirm_thresholds):
            found = list(self.confirm_thresholds)
            raise UserError(f"confirmation thresholds {found}", "numbers between 0 and 1, one for each class")
        if len(self.size_hw) != 2 or min(self.size_hw) < 32:
            raise ValueError(f"size_hw: found {self.size_hw}, expected height and width of at least 32 pixels")

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
        try:
            values = json.loads(metadata[METADATA_KEY])
            if values.get("contract") != CONTRACT_VERSION:
                raise UserError(
                    f"{path}: model contract {values.get('contract')!r}",
                    f"contract {CONTRACT_VERSION}",
                    "export the checkpoint again with this version",
                )
            for old, new in RENAMED_KEYS.items():
                if old in values:
                    values.setdefault(new, values.pop(old))
            known = {f.name for f in fields(ModelSpec)}
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
            return ModelSpec(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: broken model metadata ({error})", "metadata as `perception export` writes it"
            ) from None


def shipped_or(path: Path) -> Path:
    """The path itself, or the shipped file where a bare name is not found in the current folder."""
    shipped = WEIGHTS_FOLDER / path.name
    return shipped if path.parent == Path() and not path.exists() and shipped.is_file() else path


def default_model(source_size_hw: tuple[int, int] | None, folder: Path = WEIGHTS_FOLDER) -> Path:
    """Choose the shipped model with the aspect ratio nearest the source's, the wide one for an unknown size.

    Among ratios within a tenth of each other, the largest input is chosen.

    Raises:
        UserError: no weights are shipped.
    """
    sizes = {path: match for path in sorted(folder.glob("*.onnx")) if (match := _SIZE_IN_NAME.search(path.stem))}
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
