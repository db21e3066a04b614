"""A live server for Foxglove: what the `mcap` sink records, over its web socket, to viewers on this machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from perception.access import ipaddress_or_none
from perception.errors import MissingDependencyError, UserError
from perception.sinks import RunInfo, Sink
from perception.sinks.mcap.scene import Message
from perception.types import HealthEvent, Result

DEFAULT = "127.0.0.1:8765"
BACKLOG = 64
"""Messages that wait for one slow viewer; beyond it the oldest are dropped."""


class FoxgloveSink(Sink):
    """Loopback only: the protocol has no password, so over a network it goes through ssh."""

    name = "foxglove"
    lossless = False

    def __init__(self, address: str = DEFAULT, quality: int = 80) -> None:
        self.address, self.quality = address, quality
        self._server: Any = None
        self._channels: dict[str, Any] = {}

    @classmethod
    def in_folder(cls, folder: Path, quality: int = 80) -> FoxgloveSink:
        return cls("127.0.0.1:0", quality)  # it lives at an address, not in a folder

    def listen(self) -> str:
        """Bind the address now, so that a mistake shows before the run begins; returns what to open.

        Raises:
            UserError: the address is taken, or not a loopback one.
        """
        if self._server is None:
            try:
                import foxglove
            except ImportError:
                raise MissingDependencyError("foxglove-sdk", "ros", "--foxglove") from None
            host, port = _loopback(self.address)
            logging.getLogger("foxglove").setLevel(logging.WARNING)  # that it starts and stops is no news
            self._foxglove, self._context = foxglove, foxglove.Context()
            try:
                self._server = foxglove.start_server(
                    name="perception", host=host, port=port, context=self._context, message_backlog_size=BACKLOG
                )
            except (RuntimeError, OSError) as error:
                free = f"--foxglove {host}:{port + 1 if port < 65535 else 8766}"
                raise UserError(f"--foxglove: {self.address}: {error}", "a free port", free) from None
        return f"ws://{_loopback(self.address)[0]}:{self._server.port}"

    def open(self, info: RunInfo) -> None:
        self.listen()
        from perception.sinks.mcap.foxglove import FoxgloveMessages

        self._messages = FoxgloveMessages(info, self.quality)

    def sources_changed(self, info: RunInfo) -> None:
        self._messages.sources_changed(info)
        names = {source.name for source in info.sources}
        for topic in [t for t in self._channels if t.count("/") > 1 and t.split("/")[1] not in names]:
            self._channels.pop(topic).close()

    def write(self, result: Result) -> None:
        for message in self._messages.of_result(result):
            self._send(message)

    def event(self, event: HealthEvent) -> None:
        self._send(self._messages.of_event(event))

    def _send(self, message: Message) -> None:
        channel = self._channels.get(message.topic)
        if channel is None:
            schema = self._foxglove.Schema(
                name=message.schema, encoding=message.schema_encoding, data=message.schema_data
            )
            channel = self._channels[message.topic] = self._foxglove.Channel(
                message.topic, schema=schema, message_encoding=message.encoding, context=self._context
            )
        channel.log(message.data, log_time=message.log_ns)

    def close(self) -> None:
        server, self._server = self._server, None
        self._channels.clear()
        if server is not None:
            server.stop()

    def outputs(self) -> list[str]:
        return [] if self._server is None else [self.listen()]


def _loopback(address: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        UserError: not HOST:PORT, or not this machine alone.
    """
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UserError(f"--foxglove {address}", "HOST:PORT", f"--foxglove {DEFAULT}")
    known = ipaddress_or_none("127.0.0.1" if host == "localhost" else host)
    if known is None or not known.is_loopback:
        raise UserError(
            f"--foxglove {address}: not a loopback address",
            "127.0.0.1: Foxglove's protocol has no password",
            f"--foxglove {DEFAULT}, and from elsewhere  ssh -L 8765:127.0.0.1:8765 CAR",
        )
    return str(known), int(port)
