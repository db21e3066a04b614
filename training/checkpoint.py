"""Checkpoint files: the complete state of a run, so that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import torch

from datasets.splits import Holdout, HoldoutOptions, common
from perception.classes import ClassInfo
from perception.errors import UserError
from perception.files import write_atomically
from perception.model import shipped_or
from training.config import TrainConfig, read_fold
from training.models.config import ModelConfig
from training.models.network import Network
from training.tensor_file import read_tensor_file

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically: after a crash the file is either the old one or the new one.

    Raises:
        UserError: the file cannot be written.
    """
    for leftover in path.parent.glob(f".{path.name}.*.part"):  # a killed run leaves its partial file
        leftover.unlink(missing_ok=True)
    content = io.BytesIO()  # on a full disk, torch.save into a file raises an error that does not mention the disk
    torch.save({"format": FORMAT, **state}, content)
    do = f"free some space, then perception train --resume {path.parent}; the previous checkpoint is untouched"
    write_atomically(path, content.getbuffer(), sync=True, do=do)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without executing its content. A bare name reads a shipped checkpoint.

    Names that have changed since the file was written are returned as the current ones.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of this project.
    """
    expected, do = "a checkpoint that `perception train` wrote", "best.pt or last.pt of a run directory"
    state = read_tensor_file(shipped_or(path), expected, do)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(
            f"{path}: is not a checkpoint of this project", f"format {FORMAT}", "best.pt of a run directory"
        )
    current = {
        part: renamed(state[part], names, by_prefix)
        for part, names, by_prefix in (
            ("network", RENAMED_WEIGHTS, True),
            ("ema", RENAMED_WEIGHTS, True),
            ("scores", RENAMED_SCORES, True),
            ("progress", RENAMED_PROGRESS, False),
        )
        if part in state
    }
    return {**state, **current}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def model_config_to_json(config: ModelConfig) -> str:
    """Return the network's architecture as JSON, without the source of its initial weights."""
    return json.dumps(dataclasses.asdict(dataclasses.replace(config, pretrained=False, backbone_weights=None)))


def model_config_from_json(text: str) -> ModelConfig:
    """Return the network's architecture from JSON. Missing options keep their defaults."""
    return _from_json(ModelConfig(), with_current_names({"model": json.loads(text)})["model"])


def _from_json(default: Any, values: dict[str, Any]) -> Any:
    """Return a dataclass with fields replaced by JSON values: lists become tuples, objects become dataclasses."""
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if isinstance(default, ModelConfig) and "classes" in changes:
        changes["classes"] = tuple(ClassInfo.from_table(table, "classes") for table in changes["classes"])
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
"""Fields of `DetectionConfig`: stored name → current name."""
RENAMED_WEIGHTS = {"single.": "one_to_one."}
"""Modules of the network: stored prefix → current prefix."""
RENAMED_SCORES = {"even_score_": "confirm_threshold_", "many_even_score_": "many_confirm_threshold_"}
"""Confirmation thresholds among the scores: stored prefix → current prefix."""
RENAMED_PROGRESS = {"scorings_since": "evaluations_since_best"}
"""Fields of `Progress`: stored name → current name."""


def with_current_names(config: dict[str, Any]) -> dict[str, Any]:
    """Return a stored run's config with the current names of its options."""
    model = config.get("model", {})
    if not isinstance(model, dict) or not isinstance(model.get("detection"), dict):
        return config
    return {**config, "model": {**model, "detection": renamed(model["detection"], RENAMED_OPTIONS)}}


def renamed(values: Any, names: dict[str, str], by_prefix: bool = False) -> Any:
    """Return a dictionary with keys renamed; anything else is returned unchanged.

    Args:
        values: dictionary read from a file.
        names: stored name → current name.
        by_prefix: the names are prefixes of keys.
    """
    if not isinstance(values, dict):
        return values

    def current(key: Any) -> Any:
        if not by_prefix:
            return names.get(key, key)
        for stored, now in names.items():
            if isinstance(key, str) and key.startswith(stored):
                return now + key.removeprefix(stored)
        return key

    return {current(key): value for key, value in values.items()}


def backbone_of(path: Path) -> str | None:
    """Return the name of a checkpoint's backbone, or None where the checkpoint does not record it.

    Raises:
        UserError: see `load_checkpoint`.
    """
    try:
        return json.loads(load_checkpoint(path)["model_config"])["backbone"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def with_widths_of(config: TrainConfig, init: Path) -> TrainConfig:
    """Return the config with the channels of a pruned checkpoint of the same backbone, from which a run starts.

    They replace those of a preset: pruning anew need not leave the same ones.

    Raises:
        UserError: see `load_checkpoint`.
    """
    try:
        theirs = json.loads(load_checkpoint(init)["model_config"])
        widths = tuple(theirs["widths"]) if theirs["backbone"] == config.model.backbone else ()
    except (KeyError, TypeError, ValueError, RecursionError):
        return config
    if not widths:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, widths=widths))


def load_network(path: Path) -> tuple[Network, dict[str, Any]]:
    """Return the network of a checkpoint with its averaged weights, in evaluation mode, and the checkpoint.

    Raises:
        UserError: see `load_checkpoint`; or the checkpoint belongs to another network or to newer code.
    """
    state = load_checkpoint(path)
    try:
        config = model_config_from_json(state["model_config"])
        # an untrusted checkpoint must not trigger a download or read another file
        network = Network(dataclasses.replace(config, pretrained=False, backbone_weights=None))
        network.load_state_dict(state["ema"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UserError) as error:
        raise UserError(
            f"{path}: does not hold a network of this project ({_first_line(error)})",
            "best.pt or last.pt of `perception train`, written by this version or an older one",
        ) from None
    return network.eval(), state


def holdout_of(state: dict[str, Any]) -> Holdout | None:
    """Return the frames that a checkpoint's run held out, or None where the checkpoint does not record them.

    Raises:
        UserError: the record cannot be read.
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
    """Return the frames that were held out by a run and by every run whose weights it starts from.

    Args:
        own: frames that the run itself holds out.
        weights: checkpoint that the run starts from or resumes, if any. One without a record changes nothing.
    """
    before = holdout_of(load_checkpoint(weights)) if weights is not None else None
    return common([own, before]) if before is not None else own


def holdout_options_of(state: dict[str, Any]) -> HoldoutOptions:
    """Return the hold-out options of a checkpoint's run, or the defaults where the checkpoint has none."""
    try:
        data = json.loads(state["description"])["config"]["data"]
        if isinstance(data["fold"], str):
            return read_fold(data["fold"])
        return HoldoutOptions(int(data["fold"]), int(data["folds"]), int(data["road_fold"]))
    except (KeyError, TypeError, ValueError, RecursionError, UserError):
        return HoldoutOptions()


def resolved_config(config: TrainConfig) -> dict[str, Any]:
    """Return every field of a config as JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))
