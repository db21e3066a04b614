"""Checkpoints: everything a run needs to go on as if it had never stopped, in one file."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import torch

from datasets.splits import Holdout, HoldoutOptions, common
from perception.errors import UserError
from perception.files import write_atomically
from perception.model import shipped_or
from training.config import TrainConfig, read_fold
from training.models.config import ModelConfig
from training.models.network import Network
from training.tensor_file import read_tensor_file

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; a kill or a power cut at any moment leaves the old file or the new one.

    Raises:
        UserError: it cannot be written.
    """
    for leftover in path.parent.glob(f".{path.name}.*.part"):  # of a run that was killed while it wrote
        leftover.unlink(missing_ok=True)
    content = io.BytesIO()  # torch.save into a file on a full disk raises an error that does not say so
    torch.save({"format": FORMAT, **state}, content)
    do = f"free some space, then perception train --resume {path.parent}; the previous checkpoint is untouched"
    write_atomically(path, content.getbuffer(), sync=True, do=do)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, or the shipped one by its bare name, without running anything in it.

    Raises:
        UserError: missing, damaged, or not one of ours.
    """
    expected, do = "a checkpoint that `perception train` wrote", "best.pt or last.pt of a run folder"
    state = read_tensor_file(shipped_or(path), expected, do)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path}: is not a checkpoint of this project", f"format {FORMAT}", "best.pt of a run folder")
    weights = {key: _weights_with_current_names(state[key]) for key in ("network", "ema") if key in state}
    return {**state, **weights}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def model_config_to_json(config: ModelConfig) -> str:
    """The network's shape as text, without where its first weights came from."""
    return json.dumps(dataclasses.asdict(dataclasses.replace(config, pretrained=False, backbone_weights=None)))


def model_config_from_json(text: str) -> ModelConfig:
    """The network's shape from text; options that it does not name keep their defaults."""
    return _from_json(ModelConfig(), with_current_names({"model": json.loads(text)})["model"])


def _from_json(default: Any, values: dict[str, Any]) -> Any:
    """A dataclass with fields replaced by JSON values: lists are tuples, objects are dataclasses in turn."""
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in values.items():
        if isinstance(value, dict):
            changes[name] = _from_json(getattr(default, name), value)
    return dataclasses.replace(default, **changes)


RENAMED_OPTIONS = {
    "assign_top": "topk",
    "assign_score_power": "alpha",
    "assign_iou_power": "beta",
    "top_k": "max_detections",
}
"""Fields of `DetectionConfig`: former name → name."""
RENAMED_WEIGHTS = {"single.": "one_to_one."}
"""Modules of the network: former prefix → prefix."""


def with_current_names(config: dict[str, Any]) -> dict[str, Any]:
    """Return a stored run's config with the names that its options have now."""
    model = config.get("model", {})
    if not isinstance(model, dict) or not isinstance(model.get("detection"), dict):
        return config
    detection = {RENAMED_OPTIONS.get(name, name): value for name, value in model["detection"].items()}
    return {**config, "model": {**model, "detection": detection}}


def _weights_with_current_names(weights: Any) -> Any:
    if not isinstance(weights, dict):
        return weights
    renamed = {}
    for name, value in weights.items():
        for former, now in RENAMED_WEIGHTS.items():
            if isinstance(name, str) and name.startswith(former):
                name = now + name.removeprefix(former)
        renamed[name] = value
    return renamed


def backbone_of(path: Path) -> str | None:
    """Name of the backbone whose weights a checkpoint holds; None where it does not say.

    Raises:
        UserError: what `load_checkpoint` raises.
    """
    try:
        return json.loads(load_checkpoint(path)["model_config"])["backbone"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def load_network(path: Path) -> tuple[Network, dict[str, Any]]:
    """The averaged weights of a checkpoint in a network ready for evaluation, and the checkpoint.

    Raises:
        UserError: what `load_checkpoint` raises, and a checkpoint of another network or of later code.
    """
    state = load_checkpoint(path)
    try:
        config = model_config_from_json(state["model_config"])
        # a checkpoint from elsewhere must not name a download or another file to read
        network = Network(dataclasses.replace(config, pretrained=False, backbone_weights=None))
        network.load_state_dict(state["ema"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{path}: does not hold this project's network ({_first_line(error)})",
            "best.pt or last.pt of `perception train`, and code no older than what wrote it",
        ) from None
    return network.eval(), state


def holdout_of(state: dict[str, Any]) -> Holdout | None:
    """Frames that the run of a checkpoint did not train on; None where the checkpoint does not name them.

    Raises:
        UserError: names that cannot be read.
    """
    if "holdout" not in state:
        return None
    try:
        return Holdout.from_json(state["holdout"])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the checkpoint's hold-out cannot be read ({_first_line(error)})", "names by data set"
        ) from None


def holdout_since(own: Holdout, weights: Path | None) -> Holdout:
    """Frames that a run and those whose weights it starts from did not train on.

    Args:
        own: what the run itself holds out.
        weights: checkpoint that the run starts from or goes on with, if any. One that names no frames is passed over.
    """
    before = holdout_of(load_checkpoint(weights)) if weights is not None else None
    return common([own, before]) if before is not None else own


def holdout_options_of(state: dict[str, Any]) -> HoldoutOptions:
    """Which part of its data the run of a checkpoint held out; the defaults where it does not say."""
    try:
        data = json.loads(state["description"])["config"]["data"]
        if isinstance(data["fold"], str):
            return read_fold(data["fold"])
        return HoldoutOptions(int(data["fold"]), int(data["folds"]), int(data["road_fold"]))
    except (KeyError, TypeError, ValueError, RecursionError, UserError):
        return HoldoutOptions()


def resolved_config(config: TrainConfig) -> dict[str, Any]:
    """Every field of a config as JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))
