"""Read the options of every command: frozen dataclasses, from the command line, a TOML file, or both."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import io
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import MISSING, dataclass, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from perception.errors import FieldError, UserError
from perception.files import read_toml
from perception.redact import printable, redact

T = TypeVar("T")

FLAT = "flat"
"""Annotates a field that holds another config: `Annotated[ScheduleConfig, FLAT]`. The options of that config carry no
prefix, neither on the command line nor in TOML. `--help` shows them among the options of the config around it."""
GROUP = "group"
"""As `FLAT`, and `--help` always shows the options as a group of their own."""

HELP_ALL = "--help-all"


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What the options of every command share."""

    config: Path | None = None
    """TOML file with any of these options. The command line wins over the file."""


@dataclass(frozen=True)
class _Reader:
    """What `tyro` needs to know about the fields of a command."""

    flags: dict[tuple[type, str], str]
    """(Dataclass, field) → option without its dashes."""
    everyday: Collection[str] = ()
    """Options that `--help` shows; empty shows all."""


def parse_options(
    kind: type[T],
    argv: list[str],
    command: str,
    *,
    everyday: Collection[str] = (),
    names: Mapping[str, str] | None = None,
    begin: Callable[[dict[str, Any]], T] | None = None,
    early: tuple[str, ...] = (),
) -> T:
    """Read options of type `kind` from `argv`, over those of `--config FILE.toml`, over the defaults.

    Args:
        kind: a dataclass with a line of help under each field. With `CommandOptions` as its base it has `--config`.
        argv: what follows the command.
        command: as typed, for the help text.
        everyday: options that `--help` shows, in this order; `--help-all` shows the others too. Empty: all.
        names: field → its name on the command line and in TOML, where the two differ.
        begin: makes the defaults from the values of `early`, each None where it is not given.
        early: fields of `kind` (or of a flat config in it) that decide the defaults.

    Raises:
        UserError: the file is missing, is not TOML, or holds an unknown key or a value of the wrong type.
        SystemExit: from tyro, after `--help` or an option that does not exist or cannot be read.
    """
    import tyro

    asks_help = bool({"-h", "--help", HELP_ALL} & set(argv))
    flags = dict(_flags(kind, names or {}))
    decided = _read_early(kind, argv, ("config", *early), command)
    path = decided.pop("config", None)
    table = read_toml(path) if path is not None else {}
    if begin is not None:
        default = begin({name: table.get(name) if value is None else value for name, value in decided.items()})
    else:
        required = (f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)  # type: ignore[arg-type]
        default = kind(**dict.fromkeys(required, tyro.MISSING_NONPROP))
    shown = everyday if asks_help and HELP_ALL not in argv else ()
    try:
        return _without_secrets(
            tyro.cli,
            kind,
            args=["--help" if word == HELP_ALL else word for word in argv],
            prog=command,
            description=_description(kind, command, shown, len(flags)),
            default=overlay(default, table, str(path), names),
            registry=_registry(_Reader(flags, shown)),
        )
    except FieldError as error:
        raise _named_as_typed(error, flags) from None


def _named_as_typed(error: FieldError, flags: Mapping[tuple[type, str], str]) -> UserError:
    """The error with the option's name on the command line in place of the field's."""
    flag = flags.get((error.kind, error.field))
    if flag is None:
        return error
    try_this = f"--{flag} {error.default}" if error.default else f"leave out --{flag}"
    return UserError(f"--{flag} {error.value}", error.expected, try_this)


def _without_secrets(cli: Callable[..., Any], kind: type, *, args: list[str], **more: Any) -> Any:
    """Call tyro so that its error messages repeat neither passwords nor escape codes of the command line.

    tyro wraps its text in a box, so what it prints cannot be searched. A command line that it refuses is read again
    with such words hidden, and that message is shown.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return cli(kind, args=args, **more)
    except SystemExit as stop:
        hidden = [printable(redact(word)) for word in args]
        if stop.code and hidden != args:
            cli(kind, args=hidden, **more)  # ends with the same message
            raise UserError("an option cannot be read", f"what {more['prog']} --help lists") from None
        sys.stderr.write(said.getvalue())  # as it was: `--help`, or nothing to hide
        raise


def _description(kind: type, command: str, shown: Collection[str], count: int) -> str:
    text = inspect.cleandoc(kind.__doc__ or "")
    return f"{text}\n\n{command} {HELP_ALL} shows all {count} options." if shown else text


def _flags(kind: type, names: Mapping[str, str], prefix: str = "") -> Iterator[tuple[tuple[type, str], str]]:
    """Every option of a dataclass and of the configs inside it."""
    for name, hint in _hints(kind).items():
        flag = names.get(name, name).replace("_", "-")
        if is_dataclass(inner := _bare(hint)):
            yield from _flags(inner, names, prefix if _is_flat(hint) else f"{prefix}{flag}.")  # type: ignore[arg-type]
        else:
            yield (kind, name), prefix + flag


def _read_early(kind: type, argv: list[str], wanted: tuple[str, ...], command: str) -> dict[str, Any]:
    """Values of the options that decide the defaults of all others; None where an option is not given."""
    import tyro

    hints = {name: hint for owner in _flat_owners(kind) for name, hint in _hints(owner).items() if name in wanted}
    given = [name for name in hints if any(word.split("=")[0] == f"--{name}" for word in argv)]
    if not given:
        return dict.fromkeys(hints)
    # every one is optional here, and whatever else stands on the line is for the second reading
    spec = [(name, typing.Optional[_bare(hint)], None) for name, hint in hints.items()]  # noqa: UP045
    early = make_dataclass("Early", spec)
    found: Any = _without_secrets(tyro.cli, early, args=argv, prog=command, return_unknown_args=True, add_help=False)[
        0
    ]
    return {name: getattr(found, name) for name in hints}


def _flat_owners(kind: type) -> list[type]:
    """A dataclass and those inside it whose options carry no prefix."""
    inner = [_bare(hint) for hint in _hints(kind).values() if _is_flat(hint)]
    return [kind, *(owner for one in inner for owner in _flat_owners(one))]


# ---------------------------------------------------------------- what tyro is told


def _registry(reader: _Reader) -> Any:
    """Our dataclasses as tyro reads them: names, groups, one paragraph of help for each field."""
    import tyro
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

    owners = {owner for owner, _ in reader.flags}
    registry = ConstructorRegistry()

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        kind: Any = info.type
        if not isinstance(kind, type) or not (kind in owners or is_dataclass(kind)):
            return None
        specs = []
        for field in fields(kind):
            hint = _hints(kind)[field.name]
            quick = _quick(hint)
            default = getattr(info.default, field.name, tyro.MISSING_NONPROP)
            flag = reader.flags.get((kind, field.name))
            marks = _marks(hint, default, flag.rpartition(".")[2] if flag else None, bool(reader.everyday))
            if reader.everyday and flag and flag not in reader.everyday:
                marks.append(tyro.conf.Suppress)
            if reader.everyday and default is False:
                marks.append(tyro.conf.FlagCreatePairsOff)  # one line: --json, without its --no-json
            help_text = functools.partial(_field_help, kind, field.name)
            annotated: Any = typing.Annotated[(quick, *marks)] if marks else quick  # type: ignore[arg-type]
            specs.append(StructFieldSpec(field.name, annotated, default, help_text))
        order = {flag: i for i, flag in enumerate(reader.everyday)}
        specs.sort(key=lambda spec: order.get(reader.flags.get((kind, spec.name), ""), len(order)))
        return StructConstructorSpec(kind, tuple(specs))

    return registry


def _quick(hint: Any) -> Any:
    """A type that tyro compares with its default by itself.

    For unions written with | and for tuples it imports typeguard, which takes an eighth of a second.
    """
    from tyro.conf import UseAppendAction
    from tyro.constructors import PrimitiveConstructorSpec

    bare, marks = _bare(hint), typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
    if isinstance(bare, types.UnionType):
        bare = typing.Union[typing.get_args(bare)]  # noqa: UP007
    elif (kind := _repeated(bare)) is not None and UseAppendAction not in marks:
        name = kind.__name__.upper()
        words: PrimitiveConstructorSpec[tuple[Any, ...]] = PrimitiveConstructorSpec(
            nargs="*",
            metavar=f"[{name} [{name} ...]]",
            instance_from_str=lambda words: tuple(map(kind, words)),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: list(map(str, value)),
        )
        bare, marks = tuple, (*marks, words)
    else:
        return hint
    return typing.Annotated[(bare, *marks)] if marks else bare  # type: ignore[arg-type]


def _repeated(hint: Any) -> Callable[[str], Any] | None:
    """The element of `tuple[str, ...]` and the like, where a word makes one; None for any other type."""
    return next((kind for kind in (str, Path, int, float) if hint == tuple[kind, ...]), None)  # type: ignore[valid-type]


def _marks(hint: Any, default: Any, name: str | None, merges: bool) -> list[Any]:
    """tyro's annotations of one field.

    Args:
        name: option without its prefix; None for a field that holds another config.
        merges: flat configs have no group of their own.
    """
    import tyro

    if name is None:
        if not _is_flat(hint):
            return []
        merges |= any(is_dataclass(_bare(inner)) for inner in _hints(_bare(hint)).values())
        # the second is a group; it takes the prefixes of all that lies inside away, too
        merged = merges and GROUP not in _metadata(hint)
        return [tyro.conf.arg(name="", prefix_name=False)] if merged else [tyro.conf.OmitArgPrefixes]
    inside = typing.get_args(_bare(hint))
    if typing.get_origin(_bare(hint)) is tuple and inside and is_dataclass(inside[0]):
        return [tyro.conf.Fixed, tyro.conf.Suppress]  # a list of tables is for TOML
    metadata = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
    if any(type(mark).__name__ == "_ArgConfig" for mark in metadata):
        return []  # its owner has said how it looks
    settings: dict[str, Any] = {"name": name}
    if default in (None, False, (), ""):
        settings["help_behavior_hint"] = ""
    choices = [one for one in typing.get_args(_bare(hint)) if one is not types.NoneType]
    if _is_union(_bare(hint)) and len(choices) == 1 and choices[0] in (Path, str, int, float):
        settings["metavar"] = choices[0].__name__.upper()
    return [tyro.conf.arg(**settings)]


def _field_help(kind: type, name: str) -> str | None:
    return next((docs[name] for owner in kind.__mro__ if name in (docs := _field_docs(owner))), None)


@functools.cache
def _field_docs(kind: type) -> Mapping[str, str]:
    """Field → the string under it, as one paragraph."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, TypeError, SyntaxError):
        return {}
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for above, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(above, ast.AnnAssign)
            and isinstance(above.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            docs[above.target.id] = " ".join(below.value.value.split())
    return docs


# ---------------------------------------------------------------- types


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    known = typing.get_type_hints(kind, include_extras=True)
    return {f.name: known[f.name] for f in fields(kind) if f.init}  # type: ignore[arg-type]


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _metadata(hint: Any) -> list[str]:
    return [mark for mark in typing.get_args(hint)[1:] if isinstance(mark, str)]


def _is_flat(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Annotated and bool({FLAT, GROUP} & set(_metadata(hint)))


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


# ---------------------------------------------------------------- tables of TOML and JSON


def overlay(config: T, table: Mapping[str, Any], where: str, names: Mapping[str, str] | None = None) -> T:
    """Replace the fields of a config that a table names. `-` and `_` in keys are the same.

    Args:
        config: a dataclass; configs inside it take tables of their own, flat ones the table's own keys too.
        table: from TOML or JSON.
        where: the file, for messages.
        names: as for `parse_options`.

    Raises:
        UserError: an unknown key, with the nearest known one, or a value of the wrong type.
    """
    if not table:
        return config
    kind: Any = type(config)
    names = names or {}
    places = _places(kind, names)
    values: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in table.items():
        word = key.replace("-", "_")
        if word not in places:
            near = difflib.get_close_matches(word, places, n=1)
            raise UserError(f"{where}: unknown key '{key}'", "one of " + ", ".join(sorted(places)), *near)
        field, is_inside = places[word]
        if is_inside:
            inner.setdefault(field, {})[key] = value
        elif not is_dataclass(_bare(_hints(kind)[field])):
            values[field] = _value(value, _hints(kind)[field], f"{where}: {key}")
        elif isinstance(value, Mapping):
            inner.setdefault(field, {}).update(value)
        else:
            raise UserError(f"{where}: {key} is {value!r}", f"a table: [{key}]")
    for field, part in inner.items():
        values[field] = overlay(getattr(config, field), part, f"{where} [{field}]", names)
    return replace(config, **values)  # type: ignore[type-var]


def _places(kind: type, names: Mapping[str, str]) -> dict[str, tuple[str, bool]]:
    """Key of a table → the field, and whether the key belongs to a flat config that the field holds."""
    places: dict[str, tuple[str, bool]] = {}
    for name, hint in _hints(kind).items():
        if _is_flat(hint):
            places |= dict.fromkeys(_places(_bare(hint), names), (name, True))
    for name in _hints(kind):
        if name != "config":
            places[names.get(name, name).replace("-", "_")] = (name, False)
    return places


def differences(a: Any, b: Any, prefix: str = "") -> Iterator[str]:
    """Name the fields in which two configs of one type differ, as TOML names them: `steps`, `data.root`."""
    kind: Any = type(a)
    for name, hint in _hints(kind).items():
        x, y = getattr(a, name), getattr(b, name)
        if is_dataclass(x):
            yield from differences(x, y, prefix if _is_flat(hint) else f"{prefix}{name}.")
        elif x != y:
            yield prefix + name


def _value(value: Any, hint: Any, where: str) -> Any:
    """A value of TOML or JSON as the type of its field."""
    hint = _bare(hint)
    kinds = typing.get_args(hint) if _is_union(hint) else (hint,)
    if value is None and types.NoneType in kinds:
        return None
    for kind in kinds:
        if is_dataclass(kind) and isinstance(value, Mapping):
            return _made(kind, value, where)
        if typing.get_origin(kind) is tuple and isinstance(value, list):
            inside = typing.get_args(kind)
            inside = inside[:1] * len(value) if inside[-1:] == (...,) else inside
            if len(inside) != len(value):
                raise UserError(f"{where} has {len(value)} values", f"{len(inside)}")
            return tuple(_value(one, of, where) for one, of in zip(value, inside, strict=True))
    if isinstance(value, str) and Path in kinds:
        if "\0" in value:
            raise UserError(f"{where} is {value!r}", "a path, without a zero byte")
        return Path(value)
    if type(value) is int and float in kinds:
        return float(value)
    if any(value in typing.get_args(k) if typing.get_origin(k) is Literal else type(value) is k for k in kinds):
        return value
    raise UserError(f"{where} is {value!r}", " or ".join(_named(kind) for kind in kinds))


def _made(kind: Any, table: Mapping[str, Any], where: str) -> Any:
    """A table as the dataclass that a field holds, such as one of a list of classes."""
    hints = _hints(kind)
    if unknown := [key for key in table if key not in hints]:
        raise UserError(f"{where}: unknown key '{unknown[0]}'", "one of " + ", ".join(hints))
    try:
        return kind(**{key: _value(value, hints[key], f"{where}: {key}") for key, value in table.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}", f"a table with {', '.join(hints)}") from None


def _named(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return "a list"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}.get(
        kind, getattr(kind, "__name__", str(kind))
    )
