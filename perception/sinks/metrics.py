"""Prometheus metrics of the run at `http://ADDRESS/metrics`."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from perception.access import Door, is_loopback_name, open_door, same
from perception.errors import UserError
from perception.sinks import RunInfo, Sink
from perception.timing import StageClock
from perception.types import CONFIRMED, MOMENTARY, HealthEvent, Result

QUANTILES = (0.5, 0.95, 0.99)
MOST_CONNECTIONS = 16
"""Open at once, each with a thread of its own."""


class MetricsSink(Sink):
    """Counters by source, latency and age as summaries, what is wrong right now. Scrapes don't touch the pipeline."""

    name = "metrics"
    lossless = False

    def __init__(self, address: str = "127.0.0.1:9090", token: str | None = None) -> None:
        """Name where to listen, and what a scraper must know.

        Args:
            address: HOST:PORT; port 0 takes a free one.
            token: required of every scraper. None: loopback requires none; any other address gets a generated one.
        """
        self.address, self.token = address, token
        self._server: _Server | None = None
        self._lock = threading.Lock()
        self._counters: dict[tuple[str, str], float] = {}
        self._active: dict[tuple[str, str], int] = {}
        self._clocks: dict[str, StageClock] = {}
        self._provider = ""

    @classmethod
    def in_folder(cls, folder: Path) -> MetricsSink:
        return cls("127.0.0.1:0")  # metrics live at an address, not in a folder

    def listen(self) -> Door:
        """Bind the address now, so that a mistake shows before the run begins. `open` does it otherwise.

        Raises:
            UserError: the address is taken or not one of this machine.
        """
        if self._server is None:
            self._server = _Server(
                open_door(*parse_address(self.address, 9090), self.token, "--metrics"), self.render
            )
            threading.Thread(target=self._server.serve_forever, name="metrics-server", daemon=True).start()
        return self._server.door

    def open(self, info: RunInfo) -> None:
        self.begin(info)
        self.listen()

    def begin(self, info: RunInfo) -> None:
        """Set the counters up without a server; `write`, `event` and `render` work from here on."""
        self._provider = info.provider
        self.sources_changed(info)

    def sources_changed(self, info: RunInfo) -> None:
        names = {source.name for source in info.sources}
        with self._lock:
            gone = {s for (c, s) in self._counters if c == "frames" and s not in names}
            self._counters = {key: value for key, value in self._counters.items() if key[1] not in gone}
            self._active = {key: value for key, value in self._active.items() if key[1] not in gone}
            self._clocks = {name: clock for name, clock in self._clocks.items() if name not in gone}
            for name in names:
                for counter in ("frames", "frames_dropped", "tracked_objects"):
                    self._counters.setdefault((counter, name), 0)

    def write(self, result: Result) -> None:
        source = result.frame.source
        with self._lock:
            self._add("frames", source, 1)
            self._add("frames_dropped", source, result.frame.dropped_before)
            confirmed = int((result.tracks.states == CONFIRMED).sum())
            self._counters["tracked_objects", source] = confirmed
            clock = self._clocks.setdefault(source, StageClock())
        clock.add_all(result.timings_ms)
        if result.age_ms is not None:
            clock.add("age", result.age_ms)

    def event(self, event: HealthEvent) -> None:
        with self._lock:
            key = (event.kind, event.source)
            self._add(f"event:{event.kind}", event.source, float(event.active))
            self._active[key] = int(event.active)

    def _add(self, name: str, source: str, value: float) -> None:
        self._counters[name, source] = self._counters.get((name, source), 0) + value

    def render(self) -> str:
        """All metrics in Prometheus's text format, version 0.0.4."""
        with self._lock:
            counters, active = dict(self._counters), dict(self._active)
            clocks = dict(self._clocks)
        lines = []
        for name, kind, text in (
            ("frames", "counter", "Frames that were processed."),
            ("frames_dropped", "counter", "Frames that were lost before the network."),
            ("tracked_objects", "gauge", "Confirmed tracks in the latest frame."),
        ):
            full = f"perception_{name}" + ("_total" if kind == "counter" else "")
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
            lines += [f"{full}{_labels(source=s)} {v:g}" for (n, s), v in sorted(counters.items()) if n == name]
        lines += [
            "# HELP perception_events_total Health events.",
            "# TYPE perception_events_total counter",
        ]
        for (name, source), value in sorted(counters.items()):
            if name.startswith("event:"):
                lines.append(f"perception_events_total{_labels(source=source, kind=name[6:])} {value:g}")
        lines += ["# HELP perception_unhealthy 1 while the condition holds.", "# TYPE perception_unhealthy gauge"]
        for (kind, source), state in sorted(active.items()):
            if kind not in MOMENTARY:
                lines.append(f"perception_unhealthy{_labels(source=source, kind=kind)} {state}")
        full = "perception_stage_seconds"
        lines += [
            f"# HELP {full} Time a frame spends in a stage; age is capture to result.",
            f"# TYPE {full} summary",
        ]
        for source, clock in sorted(clocks.items()):
            for stage in clock.stages():
                held = clock[stage]
                for quantile in QUANTILES:
                    labels = _labels(source=source, stage=stage, quantile=f"{quantile:g}")
                    lines.append(f"{full}{labels} {held.percentile(100 * quantile) / 1e3:.6f}")
                labels = _labels(source=source, stage=stage)
                lines += [f"{full}_sum{labels} {held.sum_ms / 1e3:.6f}", f"{full}_count{labels} {held.count}"]
        lines += ["# TYPE perception_info gauge", f"perception_info{_labels(provider=self._provider)} 1"]
        return "\n".join(lines) + "\n"

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def outputs(self) -> list[str]:
        if self._server is None:
            return []
        return [f"{self._server.door.url}metrics"]


def _labels(**labels: str) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{key}="{escaped(value)}"' for key, value in labels.items()) + "}"


def parse_address(address: str, port: int) -> tuple[str, int]:
    """`host:port`, `:port`, `port` or `host`; without a host it is loopback.

    Raises:
        UserError: not an address.
    """
    host, _, tail = address.rpartition(":") if ":" in address else ("", "", address)
    if not host and not tail.isdigit():
        host, tail = tail, str(port)
    if not tail.isdigit() or int(tail) > 65535:
        raise UserError(f"address '{address}'", "HOST:PORT", f"127.0.0.1:{port}")
    return host.strip("[]") or "127.0.0.1", int(tail)


class _Server(ThreadingHTTPServer):
    """A thread a connection, and a cap: when there are too many, the oldest connection makes room for the newest.

    A scrape takes milliseconds, so it is the idle and the slow that are old.
    """

    daemon_threads = True

    def __init__(self, door: Door, render: Callable[[], str]) -> None:
        super().__init__((door.host, door.port), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = door.listener
        self.server_name, self.server_port = door.host, door.port
        self.door, self.render = door, render
        self._open: dict[socket.socket, None] = {}
        """Connections, oldest first."""
        self._open_lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > MOST_CONNECTIONS else None
            if oldest is not None:
                del self._open[oldest]
        if oldest is not None:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is no news
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    timeout = 5  # of one read
    server: _Server

    def do_GET(self) -> None:
        door, url = self.server.door, urlsplit(self.path)
        if door.loopback and not is_loopback_name(self.headers.get("Host", "")):
            self._answer(421, f"metrics are at {door.url}metrics\n")
        elif door.token is not None and not self._has_token(door.token, url.query):
            self._answer(401, "send the token: Authorization: Bearer TOKEN\n", {"WWW-Authenticate": "Bearer"})
        elif url.path in ("/metrics", "/"):
            self._answer(200, self.server.render())
        else:
            self._answer(404, "try /metrics\n")

    def _has_token(self, token: str, query: str) -> bool:
        given = self.headers.get("Authorization", "")
        if given[:7].lower() == "bearer ":
            return same(given[7:].strip(), token)
        return any(name == "token" and same(value, token) for name, value in parse_qsl(query))

    def _answer(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """A scrape every few seconds is no news."""
