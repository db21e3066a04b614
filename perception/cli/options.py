"""One way to read options for every command: a frozen dataclass, from the command line, a TOML file, or both."""

from __future__ import annotations

import difflib
import tomllib
import typing
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from perception.errors import UserError

T = TypeVar("T")


def parse_options(kind: type[T], argv: list[str], command: str) -> T:
    """Options of type `kind` from `argv`; `--config FILE.toml` gives values that the command line overrides.

    Args:
        kind: a dataclass with a line of help under each field, and every field with a default.
        argv: what follows the command.
        command: as typed, for the help text.

    Raises:
        UserError: the file is missing, is not TOML, or holds an unknown key or a value of the wrong kind.
    """
    import tyro

    rest, file = _take_config(argv)
    default = from_table(kind, read_toml(file), str(file)) if file else kind()
    return tyro.cli(kind, args=rest, prog=command, default=default)


def _take_config(argv: list[str]) -> tuple[list[str], Path | None]:
    """Split `--config FILE` or `--config=FILE` off."""
    for i, word in enumerate(argv):
        if word == "--config":
            if i + 1 == len(argv):
                raise UserError("--config without a file", "--config FILE.toml")
            return argv[:i] + argv[i + 2 :], Path(argv[i + 1])
        if word.startswith("--config="):
            return argv[:i] + argv[i + 1 :], Path(word.partition("=")[2])
    return argv, None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a table, or a sentence about what is wrong with it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", "a TOML file", "check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error})", 'lines like  device = "cpu"') from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "a readable TOML file") from None


def from_table(kind: type[T], table: dict[str, Any], path: str) -> T:
    """A dataclass from a table; `-` and `_` in keys are the same.

    Raises:
        UserError: an unknown key, with the nearest known one, or a value of the wrong kind.
    """
    assert is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    names = [f.name for f in fields(kind) if f.init]
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise UserError(f"{path}: unknown key '{key}'", "one of " + ", ".join(names), near[0] if near else "")
        values[name] = _convert(hints[name], value, f"{path}: {key}")
    missing = [f.name for f in fields(kind) if f.init and f.default is MISSING and f.default_factory is MISSING]
    if absent := [name for name in missing if name not in values]:
        raise UserError(f"{path}: no '{absent[0]}'", "all of " + ", ".join(missing))
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """A TOML value as the type of its field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _convert(arguments[0], value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{where}: found {value!r}", "one of " + ", ".join(map(str, arguments)))
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: found {value!r}", "a list")
        return tuple(_convert(arguments[0], item, where) for item in value)
    if origin is not None:  # X | None
        options = [a for a in arguments if a is not type(None)]
        return _convert(options[0], value, where) if len(options) == 1 else value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise UserError(f"{where}: found {value!r}", f"a value of type {hint.__name__}")
    return value
