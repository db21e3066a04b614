"""The server of the live page: starlette and uvicorn in a thread of their own, one web socket a viewer.

Nothing is ever queued for a viewer but the newest of each kind: it says when it has shown what it got, and gets more
only then. So a slow telephone sees fewer frames, not older ones, and costs the pipeline nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import wait
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from perception import __version__
from perception.access import Door
from perception.overlay import URGENT_S
from perception.sinks.metrics import MetricsSink
from perception.sinks.web.access import Guard
from perception.sinks.web.board import GONE, HISTORY_S, Board
from perception.sinks.web.encoder import EncodedFrame, FrameEncoder
from perception.sinks.web.gate import Gate, gated_protocol
from perception.sinks.web.sources import SourceApi

log = logging.getLogger("perception.sinks.web")

STATIC = Path(__file__).parent / "static"
TICK_S = 0.2
"""Numbers are sent this often; no one reads faster."""
TICKS_A_MINUTES = 5
"""Charts and events are sent at every so many ticks."""
FRAMES_IN_FLIGHT = 2
TEXTS_IN_FLIGHT = 4
MOST_VIEWERS = 32
MOST_MESSAGES = 400
"""A viewer that sends more messages in `MESSAGES_S` is disconnected; a page sends two for each frame it shows."""
MESSAGES_S = 2.0
SILENT_VIEWER_S = 30.0
"""A viewer that has not shown what it got for this long is let go."""
FAREWELL_S = 0.3
"""Viewers have this long to hear that the run has ended."""


class Viewer:
    """One open page: what it looks at, what it is owed, what is on its way."""

    def __init__(self) -> None:
        self.watching: frozenset[str] = frozenset()
        """Sources whose frame it shows."""
        self.detail: str | None = None
        """The source whose objects and charts it shows."""
        self.awake = False
        """A page in a hidden tab sleeps."""
        self.texts: dict[str, str] = {}
        self.frames: dict[str, bytes] = {}
        self.seen: dict[str, int] = {}
        """Number of the last frame by source; who was served last stands last."""
        self.texts_in_flight = self.frames_in_flight = 0
        self.heard_s = time.monotonic()
        self.wake = asyncio.Event()

    @property
    def may_get_frame(self) -> bool:
        return self.frames_in_flight + len(self.frames) < FRAMES_IN_FLIGHT

    def next_message(self) -> str | bytes | None:
        """The next to send; None where there is nothing, or enough is on its way."""
        if self.texts and self.texts_in_flight < TEXTS_IN_FLIGHT:
            self.texts_in_flight += 1
            return self.texts.pop(next(iter(self.texts)))
        if self.frames and self.frames_in_flight < FRAMES_IN_FLIGHT:
            self.frames_in_flight += 1
            return self.frames.pop(next(iter(self.frames)))
        return None


class Hub:
    """All viewers. Everything but `deliver` runs in the server's event loop."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.names = list(board.sources)
        self.viewers: set[Viewer] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.over = False
        self.encoder = FrameEncoder(board.info.spec, self.deliver)
        self._packets: dict[str, tuple[int, bytes]] = {}
        self._hello = self._greeting()

    def sources_changed(self) -> None:
        """Other sources, from the sink's thread: every page is greeted anew, with their numbers."""
        self.encoder.keep(frozenset(self.board.sources))
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._greet_all)

    def _greet_all(self) -> None:
        self.names = list(self.board.sources)
        self._hello = self._greeting()
        self._packets = {
            name: (number, struct.pack(">H", self.names.index(name)) + packet[2:])
            for name, (number, packet) in self._packets.items()
            if name in self.names
        }
        for viewer in self.viewers:
            viewer.frames.clear()
            viewer.texts = {"hello": self._hello}
            viewer.watching, viewer.detail = frozenset(), None
            viewer.wake.set()
        self.update_wanted()

    def deliver(self, frame: EncodedFrame) -> None:
        """A new frame, from the thread that made it."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._spread, frame.source, frame.number, frame.jpeg)

    def _spread(self, name: str, number: int, jpeg: bytes) -> None:
        if name not in self.names:  # removed in the meantime
            return
        packet = struct.pack(">H", self.names.index(name)) + jpeg
        self._packets[name] = number, packet
        for viewer in self.viewers:
            if name in viewer.watching and (name in viewer.frames or viewer.may_get_frame):
                self._owe(viewer, name)
        self.update_wanted()

    def _owe(self, viewer: Viewer, name: str) -> None:
        number, packet = self._packets[name]
        if viewer.seen.get(name) != number:
            viewer.seen.pop(name, None)
            viewer.seen[name], viewer.frames[name] = number, packet
            viewer.wake.set()

    def update_wanted(self) -> None:
        """Tell the encoder what is worth drawing."""
        wanted = {
            name
            for viewer in self.viewers
            for name in viewer.watching
            if viewer.may_get_frame and name not in viewer.frames
        }
        self.encoder.want(frozenset(wanted))

    # ------------------------------------------------------------ viewers

    def join(self, viewer: Viewer) -> None:
        self.viewers.add(viewer)
        viewer.texts["hello"] = self._hello
        viewer.wake.set()

    def leave(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)
        self.update_wanted()

    def heard(self, viewer: Viewer, text: str) -> None:
        """A message from a page: `{"done": "frame"}`, "text", or by source number `{"watch": [0, 2], "detail": 0}`.

        Raises:
            ValueError: anything else.
        """
        message = json.loads(text)
        if not isinstance(message, dict):
            raise ValueError("not an object")
        viewer.heard_s = time.monotonic()
        if message.get("done") == "frame":
            viewer.frames_in_flight = max(0, viewer.frames_in_flight - 1)
        elif message.get("done") == "text":
            viewer.texts_in_flight = max(0, viewer.texts_in_flight - 1)
        elif "watch" in message:
            watch, detail = message["watch"], message.get("detail")
            if not isinstance(watch, list):
                raise ValueError("watch is not a list")
            viewer.watching = frozenset(name for i, name in enumerate(self.names) if i in watch)
            viewer.seen = dict.fromkeys(sorted(viewer.watching), 0)
            viewer.detail = self.names[detail] if isinstance(detail, int) and 0 <= detail < len(self.names) else None
            viewer.awake = bool(message.get("awake", True))
            viewer.frames.clear()
            if viewer.awake:
                self._tell([viewer], "now")
                self._tell([viewer], "minutes")
        else:
            raise ValueError("unknown message")
        for name in list(viewer.seen):  # a frame that is ready need not be made again
            current = self.encoder.current(name)
            if current and viewer.may_get_frame and self._packets.get(name, (0,))[0] == current.number:
                self._owe(viewer, name)
        self.update_wanted()
        viewer.wake.set()

    async def tick(self) -> None:
        """Send the numbers round, for ever."""
        count = 0
        while True:
            await asyncio.sleep(TICK_S)
            count += 1
            awake = [viewer for viewer in self.viewers if viewer.awake]
            self._tell(awake, "now")
            if count % TICKS_A_MINUTES == 0:
                self._tell(awake, "minutes")

    async def end(self) -> None:
        """Tell all viewers that the run has ended, until they have heard it or time is up.

        The code with which a socket is closed does not say it surely: what a page has sent and nobody will read makes
        the system drop what is on its way to that page.
        """
        self.over = True
        for viewer in self.viewers:
            viewer.texts, viewer.frames = {"end": _json({"type": "end"})}, {}
            viewer.wake.set()
        end_s = time.monotonic() + FAREWELL_S
        while any(viewer.texts or viewer.texts_in_flight for viewer in self.viewers) and time.monotonic() < end_s:
            await asyncio.sleep(0.01)

    def _tell(self, viewers: list[Viewer], what: str) -> None:
        """Put the newest of one kind of message before each viewer; made once for all who look at the same source."""
        if self.over:
            return
        made: dict[str | None, str] = {}
        make = self.board.now if what == "now" else self.board.minutes
        for viewer in viewers:
            if viewer.detail not in made:
                made[viewer.detail] = _json(make(viewer.detail, time.monotonic()))
            viewer.texts[what] = made[viewer.detail]
            viewer.wake.set()

    def _greeting(self) -> str:
        info = self.board.info
        return _json(
            {
                "type": "hello",
                "version": __version__,
                "model": info.spec.name,
                "provider": info.provider,
                "urgent_s": URGENT_S,
                "history_s": HISTORY_S,
                "sources": [
                    {"name": s.name, "location": s.location, "kind": s.kind, "live": s.live, "size_hw": s.size_hw}
                    for s in info.sources
                ],
            }
        )

    # ------------------------------------------------------------ one web socket

    async def attend(self, socket: WebSocket) -> None:
        """Serve one viewer until it leaves."""
        await socket.accept()
        if len(self.viewers) >= MOST_VIEWERS:
            await socket.close(1013, "too many viewers")
            return
        viewer = Viewer()
        self.join(viewer)
        tasks = [asyncio.create_task(job) for job in (self._listen(socket, viewer), self._send(socket, viewer))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.leave(viewer)
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(outcome, (WebSocketDisconnect, RuntimeError)):
                    log.error("a viewer was lost: %s", outcome, exc_info=outcome)

    async def _listen(self, socket: WebSocket, viewer: Viewer) -> None:
        count, since_s = 0, time.monotonic()
        while (message := await socket.receive())["type"] == "websocket.receive":
            count += 1
            if (now_s := time.monotonic()) - since_s > MESSAGES_S:
                count, since_s = 1, now_s
            if count > MOST_MESSAGES:
                await socket.close(1008, "too many messages")
                return
            try:
                self.heard(viewer, message.get("text") or "")
            except (ValueError, RecursionError):
                await socket.close(1003, "not understood")
                return

    async def _send(self, socket: WebSocket, viewer: Viewer) -> None:
        while True:
            while (message := viewer.next_message()) is not None:
                if isinstance(message, str):
                    await socket.send_text(message)
                else:
                    await socket.send_bytes(message)
                    self.update_wanted()
            owes = viewer.texts_in_flight + viewer.frames_in_flight > 0
            if owes and time.monotonic() - viewer.heard_s > SILENT_VIEWER_S:
                await socket.close(1013, "nothing heard")
                return
            viewer.wake.clear()
            await viewer.wake.wait()  # `tick` sees to it that this is soon


class LiveServer:
    """The server in its thread."""

    def __init__(self, board: Board, metrics: MetricsSink, door: Door) -> None:
        self.hub = Hub(board)
        self.sources = SourceApi()
        self.gate = Gate()
        denied = (STATIC / "denied.html").read_text("utf-8")
        application = Guard(_application(self.hub, metrics, self.sources), door, denied, self.gate.admit)
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                loop="asyncio",
                http=gated_protocol(self.gate),
                ws="websockets-sansio",
                ws_max_size=4096,
                ws_per_message_deflate=False,  # a JPEG does not get smaller
                backlog=256,  # so many are accepted at once, before the gate can close any
                timeout_keep_alive=5,
                timeout_graceful_shutdown=0.3,  # type: ignore[arg-type]  # handed to asyncio as it is
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([door.listener],), name="web-server", daemon=True
        )

    def start(self) -> None:
        """Returns once requests are answered."""
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        if not self._server.started:
            raise RuntimeError("the server of the live page did not start")

    def close(self) -> None:
        """Let all viewers go; within a second."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a viewer that does not answer is no news now
        self.hub.encoder.close()
        if self.hub.loop is not None and self._thread.is_alive():
            wait([asyncio.run_coroutine_threadsafe(self.hub.end(), self.hub.loop)], FAREWELL_S)
        self._server.should_exit = True
        self._thread.join(0.7)
        self._server.force_exit = True


def _application(hub: Hub, metrics: MetricsSink, sources: SourceApi) -> Starlette:
    page = (STATIC / "index.html").read_text("utf-8")

    async def index(_: Request) -> HTMLResponse:
        return HTMLResponse(page)

    async def prometheus(_: Request) -> PlainTextResponse:
        return PlainTextResponse(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def health(_: Request) -> JSONResponse:
        states = hub.board.healthy(time.monotonic())
        well = not any(state in GONE for state in states.values())
        return JSONResponse({"status": "ok" if well else "unwell", "sources": states}, 200 if well else 503)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        hub.loop = asyncio.get_running_loop()
        ticker = asyncio.create_task(hub.tick())
        yield
        ticker.cancel()

    return Starlette(
        routes=[
            Route("/", index),
            Route("/metrics", prometheus),
            Route("/healthz", health),
            *sources.routes(),
            WebSocketRoute("/live", hub.attend),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        lifespan=lifespan,
    )


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
