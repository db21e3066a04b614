"""Where results go. Each sink runs in its own thread behind its own queue, so none can stall or kill another.

A new sink is one file with one subclass of `Sink`: `open`, `write`, `close`, and `event` where it cares. Its own
exceptions end it and nothing else. `perception run --sink NAME` finds it by its file's name. Keyword arguments of its
`in_folder` are its options: `--set NAME.ARGUMENT=VALUE`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from perception.errors import UserError
from perception.model import ModelSpec
from perception.types import HealthEvent, Result


@dataclass(frozen=True)
class SourceInfo:
    """What a sink may know about a source. Holds no password."""

    name: str
    location: str
    kind: str
    live: bool
    size_hw: tuple[int, int] | None = None
    rate_hz: float | None = None
    frame_count: int | None = None
    epoch_ns: int | None = None
    """Unix time at which `timestamp_ns` is 0, where the source knows it."""


@dataclass(frozen=True)
class RunInfo:
    """What every sink gets before the first result."""

    spec: ModelSpec
    """Class names and thresholds of the network."""
    sources: tuple[SourceInfo, ...]
    provider: str = ""
    """What runs the network, as `CPUExecutionProvider`."""

    @property
    def live(self) -> bool:
        return any(source.live for source in self.sources)

    def file_name(self, source: str, suffix: str, stem: str = "") -> str:
        """Name of a file that belongs to one source: `stem` alone where there is only one source."""
        return f"{stem}{suffix}" if stem and len(self.sources) == 1 else f"{stem and stem + '-'}{source}{suffix}"


class Sink(ABC):
    """Takes results in order. All methods are called from one thread, the sink's own."""

    name: ClassVar[str]
    """As the summary calls it."""
    lossless: bool = True
    """True: nothing may be lost, so the pipeline waits for it. False: it drops what is too much, and counts."""

    @classmethod
    @abstractmethod
    def in_folder(cls, folder: Path) -> Sink:
        """One that writes below `folder`. A sink's options are further keyword arguments with defaults."""

    @abstractmethod
    def open(self, info: RunInfo) -> None:
        """Before the first result."""

    @abstractmethod
    def write(self, result: Result) -> None:
        """One result."""

    def event(self, event: HealthEvent) -> None:  # noqa: B027  (most don't care)
        """Something went wrong with a source or another sink, or is well again."""

    def sources_changed(self, info: RunInfo) -> None:  # noqa: B027  (not all keep something by source)
        """Sources were added, or removed while others go on: a result of one that is missing here follows no more."""

    @abstractmethod
    def close(self) -> None:
        """After the last result, also where `open` or `write` failed. May be called twice."""

    def outputs(self) -> list[str]:
        """Files or addresses that the summary names."""
        return []


def sink_names() -> tuple[str, ...]:
    """List the sinks in this folder by file name, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def create_sink(name: str, folder: Path, **settings: Any) -> Sink:
    """Create a sink by its file's name.

    Args:
        name: as in `sink_names`.
        folder: where it writes.
        settings: its options, keyword arguments of its `in_folder`.

    Raises:
        UserError: no such sink, an option that it does not have, or a value of another type than the default.
    """
    names = sink_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise UserError(f"unknown sink '{name}'", "one of " + ", ".join(names), f"--sink {(near or ['images'])[0]}")
    module = importlib.import_module(f"{__name__}.{name}")
    kinds = [k for k in vars(module).values() if inspect.isclass(k) and issubclass(k, Sink)]
    kind = next(k for k in kinds if k.__module__ == module.__name__)
    options = {n: p.default for n, p in inspect.signature(kind.in_folder).parameters.items() if n != "folder"}
    for key, value in settings.items():
        if key not in options:
            near = difflib.get_close_matches(key, options, n=1) or list(options)[:1]
            do = f"--set {name}.{near[0]}={options[near[0]]}" if near else f"leave out --set {name}.{key}"
            raise UserError(f"sink '{name}' has no option '{key}'", "one of " + (", ".join(options) or "none"), do)
        if type(value) is not type(options[key]):
            kind_of = type(options[key]).__name__
            do = f"--set {name}.{key}={options[key]}"
            raise UserError(f"--set {name}.{key}={value!r}", f"a value of type {kind_of}", do)
    return kind.in_folder(folder, **settings)
