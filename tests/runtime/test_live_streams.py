"""Streams that stall, die and come back: over HTTP everywhere, over RTSP where GStreamer's server is installed."""

import importlib.util
import io
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from perception.backends.replay import ReplayBackend
from perception.errors import UserError
from perception.model import ModelSpec
from perception.runtime.pipeline import Pipeline, PipelineConfig
from perception.source_options import SourceOptions
from perception.sources import open_source
from perception.types import CLASS_NAMES, Detections, HealthEvent, Result

SPEC = ModelSpec(CLASS_NAMES, (96, 320))
CAR = Detections(np.array([[40, 30, 90, 70]], np.float32), np.array([0.9], np.float32), np.array([0]))
RATE = 30


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} within {seconds} s"
        time.sleep(0.02)


def transport_stream(frames: int) -> list[bytes]:
    """MPEG-TS of noise at 30 Hz, as the bytes of each frame."""
    held, parts = io.BytesIO(), []
    noise = np.random.default_rng(0)
    with av.open(held, "w", format="mpegts") as container:
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 96, "yuv420p"
        for _ in range(frames):
            image = noise.integers(0, 255, (96, 320, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
            parts.append(held.getvalue())
            held.seek(0)
            held.truncate()
    return parts


STREAM = transport_stream(150)


class HttpCamera:
    """Serves the stream at its pace to whoever asks, and does to it what a test wants."""

    def __init__(self) -> None:
        self.requests = 0
        self.cut_after: int | None = None
        """Frames after which a connection is closed."""
        self.silent = threading.Event()
        """While set, connections stay open and nothing comes."""
        self.damage: set[int] = set()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.requests += 1
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                for i, part in enumerate(STREAM[: camera.cut_after]):
                    while camera.silent.is_set() and not camera.closed:
                        time.sleep(0.02)
                    if camera.closed:
                        return
                    if i in camera.damage:
                        part = part[:188] + bytes(len(part) - 188)
                    try:
                        self.wfile.write(part)
                    except OSError:
                        return
                    time.sleep(1 / RATE)

            def log_message(self, *_: object) -> None:
                pass

        self.closed = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://me:secret@127.0.0.1:{self.server.server_address[1]}/live?token=hidden"

    def close(self) -> None:
        self.closed = True
        self.server.shutdown()
        self.server.server_close()


def test_arrival_decides_where_a_live_stream_has_no_clock() -> None:
    """FFmpeg makes 25 Hz up for JPEG images over HTTP; the truth is when they come: here every 150 ms or later."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    image = cv2.imencode(".jpg", noise)[1].tobytes()
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(image) + image + b"\r\n"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(part)
                    time.sleep(0.15)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = open_source(f"http://127.0.0.1:{server.server_address[1]}/", SourceOptions(timeout_s=20))
    assert (source.live, source.rate_hz) == (True, None)
    times_s = [frame.timestamp_ns / 1e9 for frame in islice(source, 20)]
    source.stop()
    server.shutdown()
    server.server_close()
    assert times_s[-1] - times_s[-9] > 0.6  # FFmpeg's stamps would say 0.32


@pytest.fixture
def http_camera() -> Iterator[HttpCamera]:
    camera = HttpCamera()
    yield camera
    camera.close()


class Watcher:
    """A pipeline on one stream, run in a thread until the test has seen enough."""

    def __init__(self, url: str, retry_s: float = 0.05, timeout_s: float = 2.0, **config: object) -> None:
        self.source = open_source(f"cam={url}", SourceOptions(retry_s=retry_s, timeout_s=timeout_s))
        self.results: list[Result] = []
        self.events: list[HealthEvent] = []
        self.pipeline = Pipeline(
            [self.source],
            (ReplayBackend(SPEC, [CAR]), SPEC),
            config=PipelineConfig(**config),  # type: ignore[arg-type]
            on_event=self.events.append,
        )
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        for result in self.pipeline:
            self.results.append(result)

    def count(self, kind: str, active: bool = True) -> int:
        return sum(e.kind == kind and e.active == active for e in self.events)

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


def stamps_go_forward(results: list[Result]) -> bool:
    return bool((np.diff([r.frame.timestamp_ns for r in results]) > 0).all())


def test_a_stream_without_end_is_live_and_keeps_its_own_time(http_camera: HttpCamera) -> None:
    with Watcher(http_camera.url) as watcher:
        assert watcher.source.live
        wait_for(lambda: len(watcher.results) > 40, "results")
    steps = np.diff([r.frame.timestamp_ns for r in watcher.results])
    whole = steps / (10**9 / RATE)
    assert np.abs(whole - whole.round()).max() < 0.01  # multiples of the frame time, however they arrived
    assert all(r.age_ms is not None and r.age_ms >= 0 for r in watcher.results)
    assert "secret" not in repr(watcher.pipeline.info) and "hidden" not in repr(watcher.pipeline.info)


def test_a_stream_that_ends_is_opened_again_and_tracks_go_on(http_camera: HttpCamera) -> None:
    http_camera.cut_after = 20
    with Watcher(http_camera.url) as watcher:
        wait_for(lambda: watcher.source.reconnects >= 3, "three reconnects", 60)
    assert watcher.count("lost") >= 3
    assert watcher.count("lost", active=False) >= 2
    assert stamps_go_forward(watcher.results)
    assert {t.track_id for r in watcher.results[5:] for t in r.tracks} == {1}
    assert not any("secret" in e.detail or "hidden" in e.detail for e in watcher.events)


def test_silence_is_noticed_within_a_second_and_survived(http_camera: HttpCamera) -> None:
    with Watcher(http_camera.url, timeout_s=10) as watcher:
        wait_for(lambda: len(watcher.results) > 10, "results")
        http_camera.silent.set()
        start = time.monotonic()
        wait_for(lambda: watcher.count("stalled"), "stalled event", 10)
        noticed_s = time.monotonic() - start
        http_camera.silent.clear()
        wait_for(lambda: watcher.count("stalled", active=False), "end of the stall", 10)
    assert noticed_s < 5  # 0.8 s by design; the rest is for a busy machine
    assert watcher.source.reconnects == 0


def test_a_stop_does_not_wait_for_a_silent_stream(http_camera: HttpCamera) -> None:
    with Watcher(http_camera.url, timeout_s=600) as watcher:
        wait_for(lambda: len(watcher.results) > 5, "results")
        http_camera.silent.set()
        wait_for(lambda: watcher.count("stalled"), "stalled event")
    # the way out of the block has joined the run, ten minutes before the source gives up
    assert watcher.source.reconnects == 0


def test_a_silent_stream_is_given_up_and_opened_again(http_camera: HttpCamera) -> None:
    with Watcher(http_camera.url, timeout_s=0.5) as watcher:
        wait_for(lambda: len(watcher.results) > 10, "results")
        http_camera.silent.set()
        wait_for(lambda: watcher.count("lost"), "lost event")
        http_camera.silent.clear()
        wait_for(lambda: watcher.count("lost", active=False), "return")


def test_damaged_packets_are_survived(http_camera: HttpCamera) -> None:
    http_camera.damage = {12, 13, 31}
    with Watcher(http_camera.url) as watcher:
        wait_for(lambda: len(watcher.results) > 60, "results")
    assert stamps_go_forward(watcher.results)


def test_reconnects_leave_nothing_behind(http_camera: HttpCamera) -> None:
    http_camera.cut_after = 6
    with Watcher(http_camera.url, retry_s=0.01, health=False) as watcher:
        wait_for(lambda: watcher.source.reconnects >= 3, "first reconnects", 60)
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        wait_for(lambda: watcher.source.reconnects >= 12, "reconnects", 120)
        # the server's own threads and sockets come and go: some slack, far below one for each reconnect
        assert threading.active_count() <= threads + 3
        assert len(os.listdir("/proc/self/fd")) <= files + 4


def test_a_stored_file_behind_http_ends(video_file: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = video_file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = open_source(f"http://127.0.0.1:{server.server_address[1]}/drive.mp4")
    assert not source.live
    assert len(list(source)) == 20
    server.shutdown()
    server.server_close()


# ---------------------------------------------------------------- RTSP

SYSTEM_PYTHON = "/usr/bin/python3"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RtspCamera:
    """GStreamer's RTSP server in a process of its own, that can be killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"rtsp://me:secret@127.0.0.1:{self.port}/cam"
        self.start()

    def start(self) -> None:
        script = Path(__file__).with_name("rtsp_server.py")
        words = [SYSTEM_PYTHON, str(script), str(self.port), "me", "secret"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def rtsp_camera() -> Iterator[RtspCamera]:
    probe = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0');"
        "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
        "assert Gst.ElementFactory.find('x264enc') and Gst.ElementFactory.find('rtph264pay')"
    )
    there = Path(SYSTEM_PYTHON).exists()
    if not there or subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, check=False).returncode:
        pytest.skip("no GStreamer RTSP server (apt-get install: see tests/runtime/rtsp_server.py)")
    camera = RtspCamera()
    yield camera
    camera.kill()


class Proxy:
    """Stands between client and server; cuts and delays."""

    def __init__(self, port: int) -> None:
        self.target, self.delay_s = port, 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            self.sockets = [client, server]
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    def _copy(self, a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(65536):
                time.sleep(self.delay_s)
                b.sendall(data)
        except OSError:
            pass
        for end in (a, b):
            end.close()

    def cut(self) -> None:
        for end in self.sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.listener.close()
        self.cut()


def test_rtsp_camera_that_is_killed_and_comes_back(rtsp_camera: RtspCamera) -> None:
    with Watcher(rtsp_camera.url) as watcher:
        wait_for(lambda: len(watcher.results) > 15, "results")
        before = watcher.results[-1].tracks[0].track_id
        rtsp_camera.kill()
        wait_for(lambda: watcher.count("lost"), "lost event")
        rtsp_camera.start()
        wait_for(lambda: watcher.count("lost", active=False), "return")
        seen = len(watcher.results)
        wait_for(lambda: len(watcher.results) > seen + 10, "results again")
    assert stamps_go_forward(watcher.results)
    assert before == 1
    assert not any("secret" in e.detail for e in watcher.events)


def test_rtsp_behind_a_line_that_cuts_and_delays(rtsp_camera: RtspCamera) -> None:
    proxy = Proxy(rtsp_camera.port)
    try:
        with Watcher(f"rtsp://me:secret@127.0.0.1:{proxy.port}/cam") as watcher:
            for number in range(3):
                seen = len(watcher.results)
                wait_for(lambda seen=seen: len(watcher.results) > seen + 10, "results")  # type: ignore[misc]
                proxy.cut()
                wait_for(lambda n=number: watcher.count("lost") > n, "lost event")  # type: ignore[misc]
                proxy.delay_s = 0.02
            wait_for(lambda: watcher.source.reconnects >= 3, "reconnects")
        assert stamps_go_forward(watcher.results)
    finally:
        proxy.close()


def test_rtsp_with_a_wrong_password_is_a_sentence(rtsp_camera: RtspCamera) -> None:
    with pytest.raises(UserError, match="password") as error:
        open_source(rtsp_camera.url.replace("secret", "wrong-one"))
    assert "wrong-one" not in str(error.value)


def test_an_address_that_never_answers_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(UserError) as error:
        open_source(f"rtsp://127.0.0.1:{deaf.getsockname()[1]}/x", SourceOptions(timeout_s=0.5))
    assert "no answer" in str(error.value)


def test_a_host_that_is_not_known_is_named_and_the_password_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *_: object) -> None:
        raise socket.gaierror(-2, f"Name or service not known: {host}")

    with pytest.raises(UserError) as error:  # a port that nobody has opened
        open_source(f"http://me:secret@localhost:{free_port()}/live?token=hidden")
    assert "no such host" not in str(error.value)
    monkeypatch.setattr("perception.video.opening.socket.getaddrinfo", unknown)
    with pytest.raises(UserError, match=r"no such host as cam\.invalid") as error:
        open_source("http://me:secret@cam.invalid/live?token=hidden", SourceOptions(timeout_s=2))
    assert "secret" not in str(error.value) and "hidden" not in str(error.value)


def test_gstreamer_bindings_are_not_ours() -> None:
    """The runtime needs none of it: only the test's camera does."""
    import perception

    root = Path(perception.__file__).parent
    assert not any("gi.repository" in path.read_text() for path in root.rglob("*.py"))
    assert importlib.util.find_spec("perception.sources.video") is not None
