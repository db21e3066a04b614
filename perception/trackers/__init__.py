"""Trackers: one file each, found by file name. `create_tracker("bytetrack", lost_s=2.0)` makes one."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import numbers
import pkgutil
from dataclasses import is_dataclass
from typing import Any, Protocol

import numpy as np

from perception.errors import UserError
from perception.model import RENAMED_KEYS
from perception.trackers.base import Sighting
from perception.types import Detections, Tracks

DEFAULT_TRACKER = "drivetrack"


class Tracker(Protocol):
    """What every tracker is: a config, `update` once per frame, `reset` to start afresh, `record` for hindsight.

    `config` is a frozen dataclass, the constructor's only argument, with a default.
    """

    @property
    def config(self) -> Any: ...

    def update(self, detections: Detections, timestamp_ns: int, image_bgr: np.ndarray | None = None) -> Tracks: ...

    def reset(self) -> None: ...

    def record(self) -> list[Sighting]:
        """Keep every match from now on until `reset`; returns the list that grows. `base.Recorder` has it."""
        ...


def tracker_class(name: str) -> type | None:
    """The class `…Tracker` that the file `name.py` in this folder defines; None where there is no such class."""
    if name not in {module.name for module in pkgutil.iter_modules(__path__)}:
        return None
    module = importlib.import_module(f"{__name__}.{name}")
    own = [
        value
        for key, value in vars(module).items()
        if key.endswith("Tracker") and inspect.isclass(value) and value.__module__ == module.__name__
    ]
    return own[0] if own else None


def tracker_names() -> tuple[str, ...]:
    """Names of all trackers in this folder, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if tracker_class(module.name)))


def tracker_for_model(name: str, confirm_thresholds: tuple[float, ...], /, **overrides: Any) -> Tracker:
    """Create a tracker that starts with a network's confirmation thresholds, where it takes any.

    Args:
        name: as for `create_tracker`.
        confirm_thresholds: `ModelSpec.confirm_thresholds`; empty leaves the tracker's own.
        overrides: fields of its config; they win over the network's thresholds.
    """
    found = tracker_class(name)
    takes = found is not None and "confirm_thresholds" in _default_config(found).__dataclass_fields__
    of_model = {"confirm_thresholds": confirm_thresholds} if takes and confirm_thresholds else {}
    return create_tracker(name, **(of_model | overrides))


def _default_config(found: type) -> Any:
    """The default of a tracker's argument `config`.

    Raises:
        UserError: its author left it out.
    """
    argument = inspect.signature(found).parameters.get("config")
    if argument is None or not is_dataclass(argument.default) or isinstance(argument.default, type):
        name = found.__name__.removesuffix("Tracker")
        raise UserError(
            f"{found.__module__}.{found.__qualname__} takes no config",
            "an argument `config` whose default is a dataclass",
            f"def __init__(self, config: {name}Config = {name}Config())",
        )
    return argument.default


def _check_value(key: str, value: Any, default: Any) -> None:
    """Refuse a value that is of another kind than the default, not finite, or a negative time.

    Raises:
        UserError: such a value.
    """
    if isinstance(default, bool):
        right, expected = isinstance(value, bool), "True or False"
    elif isinstance(default, int):
        right, expected = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif isinstance(default, float):
        lowest = 0.0 if key.endswith("_s") and not key.endswith("_per_s") else -math.inf
        right = _is_number(value) and value >= lowest
        expected = "a number" if lowest else "seconds, from 0"
    elif isinstance(default, tuple):
        right = isinstance(value, (tuple, list)) and all(map(_is_number, value))
        expected = "a number, or one for each class with commas between"
    else:
        right, expected = isinstance(value, type(default)) or default is None, f"a {type(default).__name__}"
    if not right:
        raise UserError(f"--set {key}={_as_typed(value)}", expected, f"--set {key}={_as_typed(default)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _as_typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def create_tracker(name: str = DEFAULT_TRACKER, /, **overrides: Any) -> Tracker:
    """Create a tracker by its file's name; `overrides` are fields of its config.

    Raises:
        UserError: no such tracker, one without a config, a field that its config does not have, or a value of another
            kind than the field's default.
    """
    found = tracker_class(name)
    if found is None:
        names = tracker_names()
        near = difflib.get_close_matches(name, names, n=1)
        raise UserError(
            f"unknown tracker '{name}'", "one of " + ", ".join(names), f"--tracker {(near or [DEFAULT_TRACKER])[0]}"
        )
    default = _default_config(found)
    fields = default.__dataclass_fields__
    for key in overrides:
        if key not in fields:
            near = difflib.get_close_matches(RENAMED_KEYS.get(key, key), fields, n=1)
            hint = near[0] if near else next(iter(fields))
            do = f"--set {hint}={_as_typed(getattr(default, hint))}"
            raise UserError(f"tracker '{name}' has no option '{key}'", "one of " + ", ".join(fields), do)
    # one number serves a field that holds one for each class
    overrides = {
        key: (value,) if isinstance(value, (int, float)) and isinstance(getattr(default, key), tuple) else value
        for key, value in overrides.items()
    }
    for key, value in overrides.items():
        _check_value(key, value, getattr(default, key))
    return found(type(default)(**{k: getattr(default, k) for k in fields} | overrides))
