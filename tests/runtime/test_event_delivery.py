"""Events to others: a webhook that fails, refuses or never answers; a real MQTT broker; clips; the whole command."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.cli.main import main
from perception.errors import UserError
from perception.model import ModelSpec
from perception.sinks import RunInfo, SourceInfo
from perception.sinks.events import EventsSink
from perception.sinks.events.config import EventConfig, Zone
from perception.sinks.events.delivery import Mqtt, Webhook, read_secret
from perception.types import CLASS_NAMES, Detections, Frame, Result, Track, Tracks

SECRET = b"0123456789abcdef-not-to-be-seen"
Requests = list[tuple[dict[str, str], bytes]]


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.fixture
def server() -> Iterator[Callable[[list[int]], tuple[str, Requests]]]:
    """A web server that answers with these codes in turn, the last one for ever."""
    servers = []

    def start(codes: list[int]) -> tuple[str, Requests]:
        got: Requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got.append((dict(self.headers), body))
                self.send_response(codes[min(len(got), len(codes)) - 1])
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(made)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{made.server_address[1]}/hook", got

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


def test_a_webhook_is_signed_and_tried_again(server: Any) -> None:
    url, got = server([500, 503, 200])
    hook = Webhook(url, SECRET, retry_s=0.02)
    hook.offer({"type": "enter", "name": "a"})
    assert wait_for(lambda: hook.delivered == 1)
    hook.offer({"type": "leave", "name": "a"})
    assert wait_for(lambda: hook.delivered == 2)
    assert hook.close(1) == 0
    assert [json.loads(body)["type"] for _, body in got] == ["enter"] * 3 + ["leave"]
    assert len({headers["X-Perception-Delivery"] for headers, _ in got}) == 2
    for headers, body in got:
        signed = headers["X-Perception-Timestamp"].encode() + b"." + body
        assert headers["X-Perception-Signature"] == "sha256=" + hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
        assert abs(int(headers["X-Perception-Timestamp"]) - time.time()) < 60


@pytest.mark.parametrize("code", [404, 401, 302])
def test_what_a_webhook_refuses_is_counted_and_not_repeated(code: int, server: Any) -> None:
    url, got = server([code])
    hook = Webhook(url, SECRET, retry_s=0.02)
    hook.offer({"name": "a"})
    assert wait_for(lambda: hook.refused == 1)
    time.sleep(0.1)
    assert len(got) == 1
    assert hook.close(0.1) == 1


def test_a_webhook_that_never_answers_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, caplog.at_level(logging.WARNING):
        hook = Webhook(f"http://me:pass-word@127.0.0.1:{silent.getsockname()[1]}/?token=abc", SECRET, 0.02, waiting=5)
        begin = time.monotonic()
        for i in range(50):
            hook.offer({"number": i})
        assert time.monotonic() - begin < 1
        assert hook.close(0.1) == 50
        assert time.monotonic() - begin < 2
    assert hook.dropped >= 44
    assert "further ones are dropped and counted" in caplog.text
    for secret in (SECRET.decode(), "pass-word", "abc"):
        assert secret not in caplog.text


def test_secrets_and_addresses_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--webhook without a secret"):
        read_secret(None)
    (tmp_path / "short").write_text("1234\n")
    with pytest.raises(UserError, match="a secret of 4 characters"):
        read_secret(tmp_path / "short")
    (tmp_path / "key").write_bytes(SECRET + b"\n")
    assert read_secret(tmp_path / "key") == SECRET
    for url in ("ftp://a/b", "nothing", "http://", "http://a:99999/"):
        with pytest.raises(UserError, match="--webhook"):
            Webhook(url, SECRET)
    pytest.importorskip("paho.mqtt", reason="needs the extra 'mqtt'")
    for url in ("http://a", "mqtt://", "mqtt://a:99999", "mqtt://a/pre/+/fix"):
        with pytest.raises(UserError, match="--mqtt"):
            Mqtt(url)


# ---------------------------------------------------------------- MQTT


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[int, Callable[[], None], Callable[[], None]]]:
    """A real mosquitto on loopback with a password: its port, and functions that start and kill it."""
    pytest.importorskip("paho.mqtt", reason="needs the extra 'mqtt'")
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
    maker = shutil.which("mosquitto_passwd")
    if program is None or maker is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    passwords = tmp_path / "passwords"
    subprocess.run([maker, "-b", "-c", str(passwords), "car", "pass-word"], check=True, capture_output=True)
    passwords.chmod(0o644)
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n")
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        running.append(subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL))
        assert wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)

    def kill() -> None:
        process = running.pop()
        process.kill()
        process.wait()

    yield port, start, kill
    for process in running:
        process.kill()
        process.wait()


def subscriber(port: int) -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
    import paho.mqtt.client as paho

    got: list[tuple[str, dict[str, Any]]] = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.username_pw_set("car", "pass-word")
    ready = threading.Event()
    client.on_connect = lambda c, *rest: c.subscribe("site/#", qos=1)
    client.on_subscribe = lambda *rest: ready.set()
    client.on_message = lambda c, data, message: got.append((message.topic, json.loads(message.payload)))
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(10)
    return client, got


def test_mqtt_through_a_real_broker_that_is_away_at_first(broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    port, start, _ = broker
    sender = Mqtt(f"mqtt://car:pass-word@127.0.0.1:{port}/site")  # nobody listens yet
    start()
    client, got = subscriber(port)
    for i in range(3):
        sender.offer({"source": "front", "name": "gate/1", "number": i})
    assert wait_for(lambda: len(got) == 3, 20)
    assert sender.close(2) == 0
    assert [(topic, body["number"]) for topic, body in got] == [("site/front/gate-1", i) for i in range(3)]
    assert "pass-word" not in caplog.text
    client.loop_stop()


def test_mqtt_counts_what_a_broker_never_took(broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    port, start, _ = broker
    start()
    sender = Mqtt(f"mqtt://car:wrong-word@127.0.0.1:{port}/site")
    with caplog.at_level(logging.WARNING):
        for i in range(1100):
            sender.offer({"source": "a", "name": "b", "number": i})
        assert wait_for(lambda: "refused" in caplog.text or "further ones" in caplog.text)
        assert sender.close(0.2) == 1100
    assert sender.dropped == 100
    assert "wrong-word" not in caplog.text


# ---------------------------------------------------------------- the sink and the command


def test_clips_hold_the_seconds_before_and_after(tmp_path: Path) -> None:
    import av

    zone = Zone("the gate", points=np.array([[0.0, 0], [100, 0], [100, 100], [0, 100]]))
    sink = EventsSink(tmp_path, EventConfig((zone,), clip_before_s=1.0, clip_after_s=1.0))
    source = SourceInfo("cam", "a.mp4", "video", False, (64, 96), 10.0, None, 10**18)
    sink.open(RunInfo(ModelSpec(CLASS_NAMES, (64, 96)), (source,)))
    for i in range(60):
        tracks = [Track(1, 0, np.array([10, 10, 30, 40], np.float32), 0.9)] if 30 <= i < 36 else []
        image = np.full((64, 96, 3), 4 * i, np.uint8)
        sink.write(Result(Frame(image, i * 10**8, i, "cam"), Detections.empty(), Tracks.from_rows(tracks), None))
    sink.close()
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(row["type"], row["unix_ns"]) for row in rows] == [
        ("enter", 10**18 + 3 * 10**9),
        ("leave", 10**18 + 35 * 10**8),
    ]
    with av.open(str(tmp_path / "clips" / rows[0]["clip"])) as video:
        greys = [round(float(frame.to_ndarray(format="gray").mean()) / 4) for frame in video.decode(video=0)]
    # confirmed in frame 33, which itself comes from memory; until one second after frame 30
    assert len(greys) == 18
    assert rows[1]["clip"] is None


def test_the_command_reports_events_everywhere(
    server: Any, video_file: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, got = server([200])
    (tmp_path / "key").write_bytes(SECRET)
    events = tmp_path / "events.toml"
    events.write_text('[[zone]]\nname = "all"\npoints_px = [[0, 0], [320, 0], [320, 96], [0, 96]]\n')
    out = tmp_path / "out"
    words = ["run", str(video_file), "--model", str(tiny_model), "--no-video", "--out", str(out), "--quiet"]
    more = [
        "--events",
        str(events),
        "--webhook",
        f"{url}?token=hidden-one",
        "--webhook-secret",
        str(tmp_path / "key"),
    ]
    assert main([*words, *more]) == 0
    rows = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    kinds = [row["type"] for row in rows]
    assert kinds.count("enter") == kinds.count("leave") == len(rows) / 2 >= 1
    assert [json.loads(body)["track_id"] for _, body in got] == [row["track_id"] for row in rows]
    record = (out / "run.json").read_text()
    assert "hidden-one" not in record
    assert SECRET.decode() not in record
    assert main([*words, "--webhook", url]) == 2
    assert "--webhook or --mqtt without --events" in capsys.readouterr().err
    events.write_text('[[zone]]\nname = "far"\npoints_px = [[900, 0], [920, 0], [920, 96]]\n')
    assert main([*words, "--events", str(events)]) == 2
    assert "lies outside the image" in capsys.readouterr().err


def test_the_page_of_the_command_shows_events(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra 'web'")
    from perception.cli.run import RunOptions
    from perception.cli.run_outputs import make_sinks
    from perception.sinks.web import WebSink
    from perception.sources import open_sources

    file = tmp_path / "events.toml"
    file.write_text('[[zone]]\nname = "all"\npoints_px = [[0, 0], [320, 0], [320, 96], [0, 96]]\n')
    options = RunOptions(sources=(str(video_file),), video=False, serve="127.0.0.1:0", events=file)
    sources = open_sources(options.sources)
    sinks = make_sinks(options, tmp_path / "out", {}, sources)
    events, page = (next(s for s in sinks if isinstance(s, kind)) for kind in (EventsSink, WebSink))
    info = RunInfo(ModelSpec(CLASS_NAMES, (96, 320)), (SourceInfo("drive", "a", "video", False, (96, 320), 10.0),))
    events.open(info)
    page.open(info)
    for i in range(6):
        tracks = Tracks.from_rows([Track(1, 0, np.array([10, 10, 30, 40], np.float32), 0.9)])
        image = np.zeros((96, 320, 3), np.uint8)
        events.write(Result(Frame(image, i * 10**8, i, "drive"), Detections.empty(), tracks, None))
    assert [(e["kind"], e["detail"]) for e in page._board.events] == [("enter", "all: Car 1, number 1")]
    for sink in (events, page):
        sink.close()
