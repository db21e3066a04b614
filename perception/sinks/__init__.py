"""Where results go. Each sink runs in its own thread behind its own queue, so none can stall or kill another.

A new sink is one file with one subclass of `Sink`: `open`, `write`, `close`, and `event` where it cares. Its own
exceptions end it and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

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
        """One with its usual settings that writes below `folder`."""

    @abstractmethod
    def open(self, info: RunInfo) -> None:
        """Before the first result."""

    @abstractmethod
    def write(self, result: Result) -> None:
        """One result."""

    def event(self, event: HealthEvent) -> None:  # noqa: B027  (most don't care)
        """Something went wrong with a source or another sink, or is well again."""

    @abstractmethod
    def close(self) -> None:
        """After the last result, also where `open` or `write` failed. May be called twice."""

    def outputs(self) -> list[str]:
        """Files or addresses that the summary names."""
        return []
