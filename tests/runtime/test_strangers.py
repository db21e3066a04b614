"""Idle, slow and noisy strangers take neither the page nor the metrics from whoever may see them."""

from __future__ import annotations

import http.client
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from perception.errors import UserError
from perception.model import ModelSpec
from perception.sinks import RunInfo, SourceInfo
from perception.sinks.metrics import MOST_CONNECTIONS as MOST_SCRAPERS
from perception.sinks.metrics import MetricsSink
from perception.types import CLASS_NAMES

pytest.importorskip("starlette", reason="the extra 'web' is not installed (pip install -e '.[web]')")
pytest.importorskip("uvicorn", reason="the extra 'web' is not installed (pip install -e '.[web]')")
connect = pytest.importorskip("websockets.sync.client", reason="needs websockets (pip install -e '.[web]')").connect

from perception.sinks.web import WebSink  # noqa: E402
from perception.sinks.web.gate import MOST_CONNECTIONS  # noqa: E402

INFO = RunInfo(ModelSpec(CLASS_NAMES, (96, 320)), (SourceInfo("front", "cam.mp4", "stream", True),), "Replay")
TOKEN = "correct horse battery"


@pytest.fixture
def page() -> Iterator[WebSink]:
    sink = WebSink("127.0.0.1:0", TOKEN)
    sink.open(INFO)
    yield sink
    sink.close()


@pytest.fixture
def metrics() -> Iterator[MetricsSink]:
    sink = MetricsSink("127.0.0.1:0", TOKEN)
    sink.open(INFO)
    yield sink
    sink.close()


def port_of(sink: WebSink | MetricsSink) -> int:
    return sink.listen().port


def status(port: int, path: str = "/metrics", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("count", [300, 1100])
@pytest.mark.parametrize("say", [b"", b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
@pytest.mark.parametrize("kind", ["page", "metrics"])
def test_a_token_holder_gets_in_past_idle_connections(
    count: int, say: bytes, kind: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 300:
        pytest.skip(f"this process may open {soft} files; the test needs {count + 300}")
    sink: WebSink | MetricsSink = request.getfixturevalue(kind)
    port = port_of(sink)
    with ExitStack() as stack:
        for _ in range(count):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            if say:
                try:
                    stranger.sendall(say)
                except OSError:  # it was sent away already
                    continue
        assert [status(port, **BEARER) for _ in range(5)] == [200] * 5
        limit = MOST_CONNECTIONS if isinstance(sink, WebSink) else MOST_SCRAPERS
        assert open_connections(port) <= limit + 16
    assert capfd.readouterr().err == ""


def open_connections(port: int) -> int:
    """Established connections whose server end is this port."""
    own = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table, encoding="ascii") as lines:
            for line in list(lines)[1:]:
                fields = line.split()
                own += int(fields[1].split(":")[1], 16) == port and fields[3] == "01"
    return own


def read_all(viewer: Any) -> None:
    with suppress(Exception):
        for _ in viewer:
            pass


def test_a_viewer_that_floods_the_page_is_disconnected(page: WebSink) -> None:
    port = port_of(page)
    with connect(f"ws://127.0.0.1:{port}/live", additional_headers=BEARER) as viewer:
        threading.Thread(target=read_all, args=(viewer,), daemon=True).start()
        with pytest.raises(Exception, match=r"1008|closed"):
            for _ in range(20_000):
                viewer.send('{"done":"text"}')
        assert viewer.protocol.close_code == 1008
    assert status(port, "/healthz", **BEARER) == 200


def test_an_ordinary_viewer_stays(page: WebSink) -> None:
    with connect(f"ws://127.0.0.1:{port_of(page)}/live", additional_headers=BEARER) as viewer:
        viewer.send('{"watch":[0],"detail":0}')
        end = time.monotonic() + 3
        while time.monotonic() < end:
            viewer.recv(timeout=10)
            viewer.send('{"done":"text"}')


def test_metrics_need_the_token_and_the_right_host(metrics: MetricsSink) -> None:
    port = port_of(metrics)
    assert status(port) == 401
    assert status(port, Authorization="Bearer wrong") == 401
    assert status(port, f"/metrics?token={TOKEN.replace(' ', '+')}") == 200
    assert status(port, **BEARER, Host="evil.example") == 421
    assert status(port, "/else", **BEARER) == 404


def test_metrics_off_loopback_always_have_a_token() -> None:
    sink = MetricsSink("0.0.0.0:0")
    try:
        door = sink.listen()
        assert door.token is not None and len(door.token) >= 20
        assert sink.outputs() == [f"{door.url}metrics"]
        assert status(door.port) == 401
    finally:
        sink.close()


def test_metrics_on_loopback_need_none() -> None:
    sink = MetricsSink("127.0.0.1:0")
    try:
        assert status(port_of(sink)) == 200
    finally:
        sink.close()


def test_a_short_token_is_refused() -> None:
    with pytest.raises(UserError, match="at least 12"):
        MetricsSink("127.0.0.1:0", "short").listen()
