"""How a pipeline's stages are joined. Light: `perception run --help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perception.errors import FieldError

WhenLate = Literal["wait", "drop-oldest", "drop-newest"]


@dataclass(frozen=True)
class PipelineConfig:
    """Between the source and the outputs."""

    tracker: str = "drivetrack"
    """Tracker, by the name of its file in perception/trackers."""
    when_late: WhenLate | None = None
    """Rule for frames that the network has no time for. Default: files wait, live sources drop the oldest."""
    queue: int = 2
    """Frames of one source that may wait for the network."""
    batch: int = 4
    """Largest batch when several sources are ready and the model allows it."""
    health: bool = True
    """Watch for black, frozen, over-exposed and blurred frames."""
    stalled_s: float = 0.8
    """Report a live source without a frame for this long as stalled, seconds."""
    stay: bool = False
    """Go on without any source, and wait for those that are added while it runs."""
    anonymize: bool = False
    """Blur people and vehicles in everything that is recorded or shown."""
    drain_s: float = 1.0
    """Time to finish after a stop, seconds: a quarter for the network, a quarter for the sinks' queues, half for
    closing the sinks. What is not done by then is dropped and counted."""

    def __post_init__(self) -> None:
        for name in ("queue", "batch"):
            if getattr(self, name) < 1:
                raise FieldError(self, name, "at least 1 frame")
        for name in ("stalled_s", "drain_s"):
            if not 0 <= getattr(self, name) <= 3600:
                raise FieldError(self, name, "seconds from 0 to 3600")
