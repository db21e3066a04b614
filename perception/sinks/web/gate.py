"""How many connections the live page holds, and whose goes first when there are too many.

uvicorn limits requests, not connections: one that never sends a request line stays open for ever and takes a
descriptor. Here every connection is counted when it opens, and has a few seconds for a request that the `Guard`
admits. When the page is full, the oldest connection without one makes room, from the address that has the most. So
strangers push each other out, and a token holder always gets in.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 128
MOST_OF_ONE_ADDRESS = 64
"""Half of all: no single address fills the page."""
REQUEST_S = 5.0
"""A connection without an admitted request is closed after this long."""


@dataclass(eq=False)
class Connection:
    """One open connection."""

    transport: asyncio.Transport
    address: str
    opened_s: float
    admitted: bool = False


class Gate:
    """All open connections of the page. Every method runs in the server's event loop."""

    def __init__(self, most: int = MOST_CONNECTIONS, most_of_one: int = MOST_OF_ONE_ADDRESS) -> None:
        self.most, self.most_of_one = most, most_of_one
        self._open: dict[tuple[Any, ...], Connection] = {}
        """By peer name, oldest first."""
        self.refused = 0
        """Connections closed because there were too many, or because no admitted request came."""

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, transport: asyncio.Transport) -> None:
        """A connection has opened; one of them may have to go for it."""
        self._open = {peer: c for peer, c in self._open.items() if not c.transport.is_closing()}
        peer = transport.get_extra_info("peername") or (id(transport),)
        entered = Connection(transport, str(peer[0]), time.monotonic())
        self._open[peer[:2]] = entered
        counts = Counter(c.address for c in self._open.values())
        if len(self._open) > self.most or counts[entered.address] > self.most_of_one:
            crowded = entered.address
            if counts[crowded] <= self.most_of_one:
                crowded = counts.most_common(1)[0][0]
            self._close(next((c for c in self._waiting() if c.address == crowded), entered))
        asyncio.get_running_loop().call_later(REQUEST_S, self._expire, entered)

    def admit(self, client: tuple[str, int] | None) -> None:
        """The `Guard` has let a request of this client through."""
        if client is not None and (connection := self._open.get(tuple(client))):
            connection.admitted = True

    def _waiting(self) -> list[Connection]:
        """Connections without an admitted request, oldest first."""
        return [c for c in self._open.values() if not c.admitted and not c.transport.is_closing()]

    def _expire(self, connection: Connection) -> None:
        if not connection.admitted and not connection.transport.is_closing():
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        self.refused += 1
        connection.transport.abort()


def gated_protocol(gate: Gate) -> type[H11Protocol]:
    """uvicorn's HTTP protocol, which tells the gate of each connection that opens."""

    class GatedProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            gate.enter(transport)

    return GatedProtocol
