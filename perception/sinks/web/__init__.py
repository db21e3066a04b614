"""The live page: frame, objects, latency, drops and health of a run in a browser, and `/metrics` beside it."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from perception.access import Door, open_door
from perception.errors import MissingDependencyError
from perception.sinks import RunInfo, Sink
from perception.sinks.metrics import MetricsSink, parse_address
from perception.sinks.web.board import Board
from perception.types import HealthEvent, Result

if TYPE_CHECKING:
    from perception.sinks.events.engine import SceneEvent
    from perception.sinks.web.server import LiveServer
    from perception.sinks.web.sources import SourceControl

DEFAULT_PORT = 8080
NEEDED = ("starlette", "uvicorn", "websockets")


class WebSink(Sink):
    """Serves the page at an address. What viewers have no time for, they don't get; the pipeline never waits."""

    name = "web"
    lossless = False

    def __init__(self, address: str = f"127.0.0.1:{DEFAULT_PORT}", token: str | None = None) -> None:
        """Where to listen, and what a viewer must know.

        Args:
            address: HOST:PORT; port 0 takes a free one.
            token: asked of every viewer. None: loopback asks for none, for any other address one is made.
        """
        self.address, self.token = address, token
        self.door: Door | None = None
        self._server: LiveServer | None = None
        self.control: SourceControl | None = None
        """What changes the run's sources, for the API."""

    @classmethod
    def in_folder(cls, folder: Path) -> WebSink:
        return cls("127.0.0.1:0")  # a page lives at an address, not in a folder

    def listen(self) -> Door:
        """Bind the address now, so that a mistake shows before the run begins. `open` does it where it is left out.

        Raises:
            UserError: the address cannot be had.
            MissingDependencyError: the extra 'web' is not installed.
        """
        for package in NEEDED:
            if find_spec(package) is None:
                raise MissingDependencyError(package, "web", "the live page")
        if self.door is None:
            self.door = open_door(*parse_address(self.address, DEFAULT_PORT), self.token)
        return self.door

    def open(self, info: RunInfo) -> None:
        door = self.listen()
        from perception.sinks.web.server import LiveServer

        self._board = Board(info, time.monotonic())
        self._metrics = MetricsSink()
        self._metrics.begin(info)
        self._server = LiveServer(self._board, self._metrics, door)
        self._server.sources.control = self.control
        self._server.start()

    def write(self, result: Result) -> None:
        assert self._server is not None
        self._board.write(result, time.monotonic())
        self._metrics.write(result)
        encoder = self._server.hub.encoder
        encoder.offer(result)
        if encoder.error is not None:
            raise encoder.error

    def sources_changed(self, info: RunInfo) -> None:
        assert self._server is not None
        self._board.sources_changed(info)
        self._metrics.sources_changed(info)
        self._server.hub.sources_changed()

    def event(self, event: HealthEvent) -> None:
        self._board.event(event, time.monotonic())
        self._metrics.event(event)

    def scene_event(self, event: SceneEvent) -> None:
        """Show an event of a zone, line or alarm. Any thread may call it."""
        if self._server is not None:
            self._board.scene_event(event.kind, event.source, event.text(), time.monotonic())

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self.door is not None:
            self.door.listener.close()
            self.door = None

    def outputs(self) -> list[str]:
        return [self.door.url] if self.door is not None else []
