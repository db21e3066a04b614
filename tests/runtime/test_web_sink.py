"""The live page without a browser: what it keeps, what it draws, whom it lets in, what a slow viewer costs."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from perception.access import is_loopback_name
from perception.cameras.letterbox import plan_letterbox
from perception.cameras.pinhole import PinholeCamera
from perception.cli.main import main as front_door
from perception.errors import MissingDependencyError, UserError
from perception.model import ModelSpec
from perception.overlay import shrunk
from perception.sinks import RunInfo, SourceInfo
from perception.sinks.web import WebSink
from perception.sinks.web.board import HISTORY_S, Board
from perception.sinks.web.encoder import EncodedFrame, FrameEncoder
from perception.types import CLASS_NAMES, Detections, Frame, HealthEvent, Result, RoadMask, Track, Tracks

pytest.importorskip("starlette", reason="the extra 'web' is not installed (pip install -e '.[web]')")
pytest.importorskip("uvicorn", reason="the extra 'web' is not installed (pip install -e '.[web]')")
connect = pytest.importorskip("websockets.sync.client", reason="needs websockets (pip install -e '.[web]')").connect

SPEC = ModelSpec(CLASS_NAMES, (96, 320))
IMAGE = np.random.default_rng(0).integers(0, 255, (96, 320, 3)).astype(np.uint8)
TOKEN = "correct horse battery"


def info_of(*names: str, location: str = "cam.mp4") -> RunInfo:
    return RunInfo(SPEC, tuple(SourceInfo(n, location, "stream", True, (96, 320), 10.0) for n in names), "Replay")


def result(i: int, source: str = "front", tracks: tuple[Track, ...] = (), dropped: int = 0) -> Result:
    frame = Frame(np.roll(IMAGE, i, 1), i * 10**8, i, source, None, dropped)
    return Result(frame, Detections.empty(), Tracks.from_rows(tracks), None, {"decode": 1.0, "network": 19.0}, 30.0)


def track(track_id: int = 1, **more: Any) -> Track:
    return Track(track_id, 0, np.array([10, 20, 60, 50], np.float32), 0.9, **more)


def until(true: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The value once it is true. The long limit is for a busy machine."""
    end = time.monotonic() + timeout_s
    while not (value := true()):
        assert time.monotonic() < end, "never came true"
        time.sleep(0.005)
    return value


# ---------------------------------------------------------------- the board


def test_rate_drops_and_gaps_by_the_second() -> None:
    board = Board(info_of("front"), 100.0)
    for i in range(20):
        board.write(result(i, dropped=3 if i == 15 else 0), 100.0 + i / 10)  # ten in each of two seconds
    now = board.now("front", 102.0)["sources"][0]
    assert (now["rate_hz"], now["frames"], now["dropped"], now["state"]) == (10.0, 20, 3, "running")
    assert (now["latency_ms"], now["age_ms"]) == (20.0, 30.0)
    history = board.minutes("front", 104.5)["history"]
    assert history["frames"] == [10, 10, 0, 0]
    assert history["dropped"] == [0, 3, 0, 0]
    assert history["age_ms"] == [30.0, 30.0, None, None]
    assert board.now("front", 106.0)["sources"][0]["state"] == "silent"


def test_memory_is_bounded_by_the_length_of_the_charts() -> None:
    board = Board(info_of("front"), 0.0)
    for second in range(2 * HISTORY_S):
        board.write(result(second), second)
        board.event(HealthEvent("black", "front", second % 2 == 0, None, "dark"), second)
    board.write(result(0), 10 * HISTORY_S)  # and after a long silence
    said = board.minutes("front", 10.0 * HISTORY_S + 1)
    assert len(said["history"]["frames"]) == HISTORY_S
    assert len(said["events"]) <= 60
    assert len(json.dumps(said)) < 30_000


def test_a_lost_source_has_no_objects_and_says_why_without_the_password() -> None:
    board = Board(info_of("front"), 0.0)
    board.write(result(0, tracks=(track(),)), 0.1)
    assert len(board.now("front", 0.2)["objects"]) == 1
    board.event(HealthEvent("lost", "front", True, None, "rtsp://me:pass@word@cam/1?token=abc refused"), 0.3)
    said = board.now("front", 9.1)
    (line,) = said["sources"]
    assert (line["state"], line["count"], line["age_ms"], line["silent_s"]) == ("lost", 0, None, 9.0)
    assert "objects" not in said
    assert line["trouble"] == [["lost", "rtsp://***@cam/1?token=*** refused"]]
    assert board.minutes("front", 9.3)["spans"] == [["lost", 9.0, None]]
    board.event(HealthEvent("lost", "front", False, None, "back"), 10.0)
    board.write(result(1), 10.0)
    assert board.now("front", 10.1)["sources"][0]["state"] == "running"
    assert board.minutes("front", 10.3)["spans"] == [["lost", 10.0, 0.3]]


def test_what_only_happens_is_not_wrong_for_ever() -> None:
    board = Board(info_of("front"), 0.0)
    board.write(result(0), 0.1)
    board.event(HealthEvent("corrupt", "front", True, None, "one packet"), 0.2)
    board.event(HealthEvent("sink-failed", "video", True, None, "No space left on device"), 0.3)
    assert board.healthy(0.5) == {"front": "running"}
    assert [e["kind"] for e in board.minutes("front", 0.5)["events"]] == ["sink-failed", "corrupt"]
    board.event(HealthEvent("blurred", "front", True, None, ""), 0.4)
    assert board.healthy(0.5) == {"front": "impaired"}


def test_a_source_that_is_through_has_ended_and_is_not_lost() -> None:
    board = Board(info_of("front", "rear"), 0.0)
    board.write(result(0, tracks=(track(),)), 0.1)
    board.event(HealthEvent("stalled", "front", True, None, "no frame for 0.9 s"), 0.2)
    board.event(HealthEvent("ended", "front", True, None, "after 1 frames"), 0.3)
    assert board.healthy(99.0) == {"front": "ended", "rear": "waiting"}
    said = board.now("front", 99.0)
    line = said["sources"][0]
    assert (line["ended"], line["trouble"], line["count"], line["rate_hz"]) == ("after 1 frames", [], 0, None)
    assert "objects" not in said
    board.event(HealthEvent("lost", "rear", True, None, "refused"), 1.0)
    board.event(HealthEvent("ended", "rear", True, None, "after 0 frames; given up"), 2.0)
    assert board.healthy(99.0)["rear"] == "lost"  # a stream that was given up did not end by itself


def test_objects_nearest_first_and_never_nan() -> None:
    known = track(1, position_m=(3.0, 4.0), distance_m=5.0, velocity_mps=(-3.0, -4.0), ttc_s=1.0)
    broken = track(2, distance_m=float("nan"), velocity_mps=(float("inf"), 0.0), ttc_s=float("inf"))
    board = Board(info_of("front"), 0.0)
    board.write(result(0, tracks=(broken, known, track(3, state="tentative"))), 0.1)
    said = board.now("front", 0.2)["objects"]
    assert [o["id"] for o in said] == [1, 2]
    assert (said[0]["speed_mps"], said[0]["ttc_s"], said[0]["class"]) == (-5.0, 1.0, "Car")
    assert (said[1]["distance_m"], said[1]["speed_mps"], said[1]["ttc_s"]) == (None, None, None)
    json.dumps(said, allow_nan=False)


def test_the_plan_view_gets_places_headings_and_the_field_of_view() -> None:
    known = track(
        1, position_m=(3.0, 4.0), position_std_m=(0.1, 0.254), distance_m=5.0, velocity_mps=(-3.0, -4.0),
        size_m=(4.0, 1.6, 1.5), heading_rad=-1.5, heading_std_rad=0.2,
    )  # fmt: skip
    board = Board(info_of("front"), 0.0)
    board.write(result(0, tracks=(known, track(2, position_m=(0.0, float("nan"))))), 0.1)
    said = board.now("front", 0.2)
    assert said["view"] is None  # not calibrated
    first, second = said["objects"]
    assert (first["position_m"], first["position_std_m"], first["velocity_mps"]) == ([3, 4], [0.1, 0.25], [-3, -4])
    assert (first["size_m"], first["heading_rad"], first["heading_std_rad"]) == ([4, 1.6, 1.5], -1.5, 0.2)
    assert [second[key] for key in ("position_m", "size_m", "heading_rad")] == [None] * 3
    width = IMAGE.shape[1]
    camera = PinholeCamera(np.array([[width / 2, 0, width / 2, 0], [0, width / 2, 9, 0], [0, 0, 1, 0]]))
    seen = result(1, tracks=(known,))
    board.write(replace(seen, frame=replace(seen.frame, camera=camera)), 0.3)
    assert board.now("front", 0.4)["view"] == [-0.785, 0.785]  # 45° to either side


# ---------------------------------------------------------------- frames


def test_nothing_is_drawn_while_nobody_looks_and_once_for_all_who_do() -> None:
    made: list[EncodedFrame] = []
    maker = FrameEncoder(
        SPEC, made.append, most_rate_hz=1e-3
    )  # the second frame would be due in a quarter of an hour
    for i in range(50):
        maker.offer(result(i))
    assert maker.made == 0
    maker.want(frozenset({"front"}))
    until(lambda: made)
    for i in range(50, 100):
        maker.offer(result(i))
    maker.close()
    assert [frame.number for frame in made] == [50]  # the newest of what had come
    decoded = cv2.imdecode(np.frombuffer(made[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == IMAGE.shape


def test_pictures_of_one_source_do_not_keep_those_of_another_waiting() -> None:
    made: list[EncodedFrame] = []
    maker = FrameEncoder(SPEC, made.append, most_rate_hz=1e-3)
    maker.want(frozenset({"front", "rear"}))
    for i in range(5):
        maker.offer(result(i, "front"))
    maker.offer(result(0, "rear"))
    until(lambda: len(made) == 2)
    maker.close()
    assert {frame.source for frame in made} == {"front", "rear"}


def test_large_frames_shrink_with_all_that_is_drawn_on_them() -> None:
    size_hw = (720, 2560)
    road = np.zeros((24, 80), np.uint8)
    road[12:] = 255
    frame = Frame(np.zeros((*size_hw, 3), np.uint8), 0, 0, "front")
    big = Result(
        frame, Detections.empty(), Tracks.from_rows([track()]), RoadMask(road, plan_letterbox(size_hw, SPEC.size_hw))
    )
    small = shrunk(big, 1280)
    assert small.frame.size_hw == (360, 1280)
    assert small.tracks[0].box_xyxy.tolist() == [5, 10, 30, 25]
    assert big.tracks[0].box_xyxy.tolist() == [10, 20, 60, 50]
    assert small.road is not None
    whole = cv2.resize(big.road.at_frame_size(), (1280, 360), interpolation=cv2.INTER_AREA)
    assert np.mean(np.abs(small.road.at_frame_size().astype(int) - whole) > 40) < 0.01
    assert shrunk(result(0), 1280).frame.size_hw == (96, 320)


# ---------------------------------------------------------------- the server


@pytest.fixture
def page() -> Iterator[WebSink]:
    sink = WebSink("127.0.0.1:0")
    sink.open(info_of("front", "rear"))
    yield sink
    sink.close()


@pytest.fixture(scope="module")
def guarded() -> Iterator[WebSink]:
    """On all addresses, with a token that the test knows."""
    sink = WebSink("0.0.0.0:0", TOKEN)
    sink.open(info_of("front"))
    yield sink
    sink.close()


def get(sink: WebSink, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    assert sink.door is not None
    connection = http.client.HTTPConnection("127.0.0.1", sink.door.port, timeout=30)
    connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    answer.body = answer.read().decode("utf-8", "replace")  # type: ignore[attr-defined]
    connection.close()
    return answer


class Visitor:
    """A page, as the server sees it."""

    def __init__(self, sink: WebSink, **options: Any) -> None:
        assert sink.door is not None
        self._open = ExitStack()
        address = f"ws://127.0.0.1:{sink.door.port}/live"
        self.socket = self._open.enter_context(connect(address, compression=None, **options))
        self.frames = 0
        self.last: dict[str, Any] = {}

    def close(self) -> None:
        self._open.close()

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def hear(self, answer: bool = True, timeout_s: float = 30.0) -> str:
        """Take one message; what kind it was."""
        message = self.socket.recv(timeout=timeout_s)
        if isinstance(message, str):
            said = json.loads(message)
            self.last[said["type"]] = said
            kind = said["type"]
        else:
            assert message[2:4] == b"\xff\xd8", "not a JPEG"
            self.frames += 1
            kind = f"frame {int.from_bytes(message[:2], 'big')}"
        if answer:
            self.say(done="frame" if kind.startswith("frame") else "text")
        return kind


def test_a_viewer_gets_pictures_and_numbers_of_what_it_looks_at(page: WebSink) -> None:
    visitor = Visitor(page)
    assert visitor.hear() == "hello"
    assert [s["name"] for s in visitor.last["hello"]["sources"]] == ["front", "rear"]
    page.write(result(0, "front"))
    page.write(result(0, "rear", (track(7),)))
    visitor.say(watch=[1], detail=1)
    heard = {visitor.hear() for _ in range(6)}
    assert heard == {"now", "minutes", "frame 1"}
    assert visitor.last["now"]["objects"][0]["id"] == 7
    visitor.say(watch=[0, 1], detail=None)
    until(lambda: visitor.hear() == "frame 0")
    visitor.close()
    until(lambda: not page._server.hub.viewers)  # type: ignore[union-attr]


def test_a_picture_is_made_once_for_many_viewers(page: WebSink) -> None:
    visitors = [Visitor(page) for _ in range(4)]
    for visitor in visitors:
        visitor.say(watch=[0], detail=0)
    page.write(result(0))
    for visitor in visitors:
        until(lambda v=visitor: v.hear() == "frame 0")
    assert page._server is not None
    assert page._server.hub.encoder.made == 1
    for visitor in visitors:
        visitor.close()


def test_a_viewer_that_does_not_answer_gets_little_and_holds_up_nobody(page: WebSink) -> None:
    stuck, quick = Visitor(page), Visitor(page)
    for visitor in (stuck, quick):
        visitor.say(watch=[0], detail=0)
    i = 0
    while quick.frames < 6:
        page.write(result(i := i + 1))
        quick.hear()
    heard = []
    with pytest.raises(TimeoutError):
        while True:
            heard.append(stuck.hear(answer=False, timeout_s=0.7))
    assert sum(kind.startswith("frame") for kind in heard) <= 2
    assert len(heard) <= 6
    stuck.say(done="frame")
    page.write(result(i + 1))
    until(lambda: stuck.hear(answer=False).startswith("frame"))
    stuck.close()
    quick.close()


def test_a_viewer_that_never_answers_is_let_go(page: WebSink, monkeypatch: pytest.MonkeyPatch) -> None:
    from websockets.exceptions import ConnectionClosed

    monkeypatch.setattr("perception.sinks.web.server.SILENT_VIEWER_S", 0.1)
    stuck = Visitor(page)
    stuck.say(watch=[0], detail=0)
    with pytest.raises(ConnectionClosed, match="nothing heard"):
        while True:
            stuck.hear(answer=False)
    until(lambda: not page._server.hub.viewers)  # type: ignore[union-attr]
    stuck.close()


def test_who_looks_on_hears_that_the_run_has_ended() -> None:
    from websockets.exceptions import ConnectionClosed

    sink = WebSink("127.0.0.1:0")
    sink.open(info_of("front"))
    viewer = Visitor(sink)
    viewer.say(watch=[0], detail=0)
    until(lambda: viewer.hear() == "minutes")
    closing = threading.Thread(target=sink.close)
    closing.start()
    until(lambda: viewer.hear() == "end")
    closing.join()
    with pytest.raises(ConnectionClosed):
        viewer.hear()
    viewer.close()


def test_closing_ends_all_threads_even_with_a_viewer_that_reads_nothing() -> None:
    before = {t.name for t in threading.enumerate()}
    sink = WebSink("127.0.0.1:0")
    sink.open(info_of("front"))
    assert sink.door is not None
    port = sink.door.port
    deaf = socket.create_connection(("127.0.0.1", port))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
    key = "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="
    deaf.sendall(f"GET /live HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n{key}\r\n\r\n".encode())
    until(lambda: sink._server.hub.viewers)  # type: ignore[union-attr]
    silent = socket.create_connection(("127.0.0.1", port))  # connects and never asks
    sink.close()
    until(lambda: {t.name for t in threading.enumerate()} <= before | {"MainThread"})
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
    deaf.close()
    silent.close()


@pytest.mark.parametrize("nonsense", ["", "[]", "{", '{"watch": 3}', '{"done": "dinner"}', "[" * 3000, "1" * 5000])
def test_nonsense_ends_only_the_viewer_who_talks_it(page: WebSink, nonsense: str) -> None:
    from websockets.exceptions import ConnectionClosed

    bad, good = Visitor(page), Visitor(page)
    bad.socket.send(nonsense)
    with pytest.raises(ConnectionClosed):
        while True:
            bad.hear(answer=False)
    bad.close()
    assert good.hear() == "hello"
    good.close()


def test_metrics_and_health(page: WebSink) -> None:
    for i in range(3):
        page.write(result(i, dropped=1))
    metrics = get(page, "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'perception_frames_total{source="front"} 3' in metrics.body
    assert 'perception_frames_dropped_total{source="front"} 3' in metrics.body
    assert 'stage="network",quantile="0.99"' in metrics.body
    assert get(page, "/healthz").status == 200
    page.event(HealthEvent("lost", "front", True, None, "gone"))
    sick = get(page, "/healthz")
    assert (sick.status, json.loads(sick.body)["sources"]) == (503, {"front": "lost", "rear": "waiting"})
    assert 'perception_unhealthy{source="front",kind="lost"} 1' in get(page, "/metrics").body


# ---------------------------------------------------------------- who comes in


def test_headers_shut_the_doors_of_the_browser(page: WebSink) -> None:
    for path in ("/", "/static/app.js", "/healthz", "/nowhere"):
        headers = get(page, path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert get(page, "/nowhere").status == 404


def test_nothing_on_the_page_comes_from_elsewhere(page: WebSink) -> None:
    for path in ("/", "/static/app.js", "/static/style.css"):
        text = get(page, path).body
        assert get(page, path).status == 200
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
    assert get(page, "/static/../__init__.py").status == 404
    assert get(page, "/static/%2e%2e/__init__.py").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(page: WebSink, method: str) -> None:
    assert get(page, "/", method).status == 405


def test_a_foreign_name_for_loopback_is_refused(page: WebSink) -> None:
    assert page.door is not None
    assert get(page, "/", Host=f"localhost:{page.door.port}").status == 200
    for host in ("evil.example", f"evil.example:{page.door.port}", "127.0.0.1.evil.example", "a@localhost", ""):
        assert get(page, "/", Host=host).status in (400, 421)


def test_a_foreign_page_opens_no_socket(page: WebSink) -> None:
    from websockets.exceptions import InvalidStatus

    assert page.door is not None
    Visitor(page, origin=f"http://127.0.0.1:{page.door.port}").close()
    for origin in ("http://evil.example", "null", f"http://localhost:{page.door.port + 1}"):
        with pytest.raises(InvalidStatus):
            Visitor(page, origin=origin)


@pytest.mark.parametrize(
    ("host", "own"),
    [("localhost", True), ("localhost:99", True), ("127.0.0.1:1", True), ("[::1]:8080", True), ("127.9.9.9", True),
     ("10.0.0.1", False), ("localhost.evil.example", False), ("127.0.0.1@evil.example", False), ("[::1", False)],
)  # fmt: skip
def test_names_of_loopback(host: str, own: bool) -> None:
    assert is_loopback_name(host) is own


def test_without_the_token_nothing_is_shown(guarded: WebSink) -> None:
    from websockets.exceptions import InvalidStatus

    for path in ("/", "/metrics", "/healthz", "/static/app.js"):
        refused = get(guarded, path)
        assert refused.status == 401
        assert "?token=" in refused.body  # what to do
        assert "front" not in refused.body
    assert get(guarded, "/static/style.css").status == 200
    with pytest.raises(InvalidStatus):
        Visitor(guarded)
    for wrong in ("/?token=correct%20horse%20batterz", "/?token=", "/?token=%F0%9F%90%8E", "/?token=%FF"):
        answer = get(guarded, wrong)
        assert (answer.status, "set-cookie" in answer.headers) == (401, False)
    assert get(guarded, "/", Cookie="perception-1=x; a").status == 401


def test_the_token_becomes_a_cookie_and_leaves_the_address(guarded: WebSink) -> None:
    answer = get(guarded, "/?a=1&token=correct%20horse%20battery")
    assert (answer.status, answer.headers["location"]) == (303, "/?a=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "horse" not in cookie
    pair = cookie.split(";")[0]
    assert get(guarded, "/", Cookie=pair).status == 200
    assert get(guarded, "/", Cookie=pair[:-1] + ("0" if pair[-1] != "0" else "1")).status == 401
    Visitor(guarded, additional_headers={"Cookie": pair}).close()
    away = get(guarded, "//evil.example/?token=correct%20horse%20battery")
    assert away.headers["location"] == "/evil.example/"


def test_a_scraper_brings_the_token_in_a_header(guarded: WebSink) -> None:
    assert get(guarded, "/metrics", Authorization=f"Bearer {TOKEN}").status == 200
    assert get(guarded, "/metrics", Authorization="Bearer nonsense").status == 401


def test_other_addresses_than_loopback_always_have_a_token() -> None:
    tokens = set()
    for _ in range(2):
        sink = WebSink("0.0.0.0:0")
        door = sink.listen()
        assert door.token is not None
        assert len(door.token) >= 20
        assert door.url_with_token().endswith(f"/?token={door.token}")
        assert door.token not in door.url + "".join(sink.outputs())
        tokens.add(door.token)
        sink.close()
    assert len(tokens) == 2
    sink = WebSink("localhost:0")
    assert sink.listen().token is None
    sink.close()


def test_a_token_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(UserError, match="at least 12"):
        WebSink("127.0.0.1:0", "1234").listen()


def test_a_taken_port_is_a_sentence_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1.*(?s:.)*--serve 127.0.0.1:"):
            WebSink(f"127.0.0.1:{port}").listen()
    with pytest.raises(UserError, match=r"'drive\.mp4' is not an address"):
        WebSink("drive.mp4").listen()


def test_without_the_extra_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.sinks.web.find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(MissingDependencyError, match=r"pip install 'perception-pipeline\[web\]'"):
        WebSink("127.0.0.1:0").listen()


# ---------------------------------------------------------------- the command


def test_the_command_serves_the_page_while_it_runs(long_video: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perception.cli.main", "run", str(long_video), "--model", str(tiny_model)]
    command += ["--out", str(tmp_path / "o"), "--no-video", "--realtime", "--serve", "127.0.0.1:0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        url = next(line.split()[-1] for line in run.stderr if line.startswith("live page http://127.0.0.1:"))
        with connect(url.replace("http", "ws") + "live", open_timeout=60) as viewer:
            viewer.send(json.dumps({"watch": [0], "detail": 0}))
            until(lambda: isinstance(viewer.recv(timeout=60), bytes))
            run.send_signal(signal.SIGINT)
            summary = json.loads(run.communicate(timeout=60)[0])
    assert run.returncode == 0
    assert summary["sinks"]["web"]["error"] is None
    assert summary["sinks"]["web"]["written"] > 0


def test_a_taken_port_ends_the_run_before_it_begins(
    video_file: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        words = ["run", str(video_file), "--model", str(tiny_model), "--out", str(tmp_path / "o"), "--serve", address]
        assert front_door(words) == 2
    said = capsys.readouterr().err
    assert f"port {address.split(':')[1]} on 127.0.0.1" in said
    assert "Traceback" not in said
