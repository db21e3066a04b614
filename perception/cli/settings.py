"""`--set NAME=VALUE`: fields of the tracker's config, and of a sink with its name before them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from perception.errors import UserError
from perception.trackers import Tracker, tracker_for_model


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Read `NAME=VALUE` texts; a value is a plain Python literal, and a word without quotes is text.

    Raises:
        UserError: no equals sign, or a value that is neither.
    """
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            if not (equals and name.strip()):
                raise ValueError
            settings[name.strip().replace("-", "_")] = _literal(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise UserError(f"--set {text}", "a name and a value", "--set lost_s=1.5") from None
    return settings


def _literal(text: str) -> Any:
    is_word = text.isidentifier() and text not in ("True", "False", "None")
    return text if is_word else ast.literal_eval(text)


def make_tracker(name: str, settings: dict[str, Any], confirm_thresholds: tuple[float, ...] = ()) -> Tracker:
    """Create a tracker with some fields of its config set.

    Raises:
        UserError: no such tracker or field, or a value that its config refuses.
    """
    try:
        return tracker_for_model(name, confirm_thresholds, **settings)
    except (TypeError, ValueError) as error:
        given = " ".join(f"{key}={value}" for key, value in settings.items())
        raise UserError(f"--set {given}: {error}", "a value as its default has", "--set lost_s=1.5") from None
