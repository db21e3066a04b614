"""Sources that come and go while a run goes on: through Python, the page's API and SIGHUP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.backends.replay import ReplayBackend
from perception.errors import UserError
from perception.runtime.config import PipelineConfig
from perception.runtime.pipeline import Pipeline
from perception.runtime.source_control import SourceControl
from perception.source_options import SourceOptions
from perception.sources import Source
from perception.types import Frame
from tests.runtime.conftest import write_video
from tests.runtime.test_pipeline import CAR, NOISE, SPEC, Keep

TOKEN = "correct horse battery"


def until(true: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    end = time.monotonic() + timeout_s
    while not (value := true()):
        assert time.monotonic() < end, "never came true"
        time.sleep(0.005)
    return value


class Endless(Source):
    """A live camera at 50 Hz, until it is stopped."""

    kind = "endless"
    live = True

    def __init__(self, name: str) -> None:
        super().__init__(name, name, SourceOptions())
        self.size_hw = (96, 320)
        self.closed = False

    def read(self) -> Iterator[Frame]:
        number = 0
        while not self.stopped.wait(0.02):
            now_ns = time.monotonic_ns()
            yield Frame(np.roll(NOISE, number, 1), now_ns, number, self.name, None, 0, now_ns)
            number += 1

    def close(self) -> None:
        self.closed = True


def running(*sources: Source, stay: bool = False) -> tuple[Pipeline, Keep, threading.Thread]:
    sink = Keep()
    backend = ReplayBackend(SPEC, [CAR])
    made = Pipeline(sources, (backend, SPEC), [sink], PipelineConfig(stay=stay, health=False))
    thread = threading.Thread(target=lambda: [None for _ in made], daemon=True)
    thread.start()
    return made, sink, thread


def frames_of(sink: Keep, name: str) -> list[int]:
    return [result.frame.frame_id for result in list(sink.results) if result.frame.source == name]


def test_a_hundred_changes_leave_nothing_and_disturb_no_one() -> None:
    pipeline, sink, thread = running(Endless("a"))
    until(lambda: len(frames_of(sink, "a")) > 60)
    before = [r.age_ms for r in sink.results if r.age_ms is not None]
    begin, threads, gone = len(sink.results), threading.active_count(), []
    for _ in range(100):
        other = Endless("b")
        name = pipeline.add_source(other)
        gone.append(other)
        until(lambda name=name: frames_of(sink, name))
        pipeline.remove_source(name)
        until(lambda: len(pipeline.sources) == 1)
    assert [other.name for other in gone[:3]] == ["b", "b-2", "b-3"]
    assert all(other.closed for other in gone)
    until(lambda: threading.active_count() <= threads)
    assert list(pipeline._trackers) == ["a"]
    assert list(pipeline._buffer._queues) == list(pipeline._buffer._order) == ["a"]
    assert set(pipeline.stats._confirmed) <= {"a"}
    assert len(pipeline._threads) <= 4
    assert not pipeline._removed
    assert not pipeline._ended
    assert [source.name for source in pipeline.info.sources] == ["a"]
    during = [r.age_ms for r in sink.results[begin:] if r.frame.source == "a" and r.age_ms is not None]
    print(f"age of a: median {np.median(before):.2f} → {np.median(during):.2f} ms, most {max(during):.1f} ms")
    numbers = frames_of(sink, "a")
    dropped = sum(r.frame.dropped_before for r in sink.results if r.frame.source == "a")
    assert len(numbers) + dropped == numbers[-1] + 1  # every frame of the camera that stayed is there or counted
    assert len([event for event in sink.events if event.kind == "ended"]) == 100
    pipeline.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_what_was_queued_of_a_removed_source_is_counted() -> None:
    pipeline, sink, thread = running(Endless("a"))
    name = pipeline.add_source(Endless("b"))
    until(lambda: len(frames_of(sink, name)) > 5)
    pipeline.remove_source(name)
    until(lambda: len(pipeline.sources) == 1)
    count, dropped = (
        len(frames_of(sink, name)),
        pipeline.stats.dropped[name] + pipeline.stats.dropped_at_shutdown[name],
    )
    assert pipeline.stats.frames[name] == count
    assert count + dropped == frames_of(sink, name)[-1] + 1 + pipeline.stats.dropped_at_shutdown[name]
    pipeline.stop()
    thread.join(10)


def test_a_run_that_stays_outlives_its_last_source() -> None:
    pipeline, sink, thread = running(Endless("a"), stay=True)
    until(lambda: frames_of(sink, "a"))
    pipeline.remove_source("a")
    until(lambda: not pipeline.sources)
    assert thread.is_alive()
    assert pipeline.add_source(Endless("a")) == "a-2"
    until(lambda: frames_of(sink, "a-2"))
    pipeline.stop()
    thread.join(10)
    with pytest.raises(UserError, match="the run is ending"):
        pipeline.add_source(Endless("c"))
    ends, _, thread = running(Endless("a"))
    ends.remove_source("a")
    thread.join(10)
    assert not thread.is_alive()


def test_removing_what_is_not_there() -> None:
    pipeline, _, thread = running(Endless("a"))
    with pytest.raises(UserError, match="no source 'b'"):
        pipeline.remove_source("b")
    pipeline.stop()
    thread.join(10)


def test_a_list_is_followed_and_one_mistake_leaves_the_others(tmp_path: Path) -> None:
    video = write_video(tmp_path / "long.mp4", frames=100)
    pipeline, sink, thread = running(Endless("a"), stay=True)
    control = SourceControl(pipeline, SourceOptions(realtime=True), None, ["a=camera"])
    assert control.reload(["a=camera", f"b={video}", "c=no/such/file.mp4"]) == (["b"], [])
    until(lambda: frames_of(sink, "b"))
    assert control.reload([f"b={video}"]) == ([], ["a"])
    until(lambda: [source["name"] for source in control.sources()] == ["b"])
    for location in (str(video), "-", "file:///etc/passwd", f"x={video}", "concat:http://a"):
        with pytest.raises(UserError, match="not a stream or camera"):
            control.add_remote(location)
    pipeline.stop()
    thread.join(10)


# ---------------------------------------------------------------- the page


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text[:1] == b"{" else text.decode()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[int, Pipeline, Keep, Any]]:
    """A run with a page that has a token, and a control that opens files as if they were streams."""
    pytest.importorskip("starlette", reason="needs the extra 'web'")
    pytest.importorskip("uvicorn", reason="needs the extra 'web'")
    from perception.sinks.web import WebSink

    sink, web = Keep(), WebSink("127.0.0.1:0", TOKEN)
    door = web.listen()
    made = Pipeline([Endless("a")], (ReplayBackend(SPEC, [CAR]), SPEC), [sink, web], PipelineConfig(stay=True))

    class Control(SourceControl):
        def add_remote(self, location: str) -> str:
            if location.startswith("cam"):
                return made.add_source(Endless(location))
            return super().add_remote(location)

    web.control = Control(made, SourceOptions(timeout_s=0.5, reconnects=1), None, ["a"])
    thread = threading.Thread(target=lambda: [None for _ in made], daemon=True)
    thread.start()
    until(lambda: frames_of(sink, "a"))
    yield door.port, made, sink, web
    made.stop()
    thread.join(10)


def test_the_api_adds_and_removes_for_who_has_the_token_in_a_header(page: Any) -> None:
    port, _, sink, web = page
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(port, "POST", "/api/sources", {"location": "cam1"})[0] == 401
    assert ask(port, "POST", "/api/sources", {"location": "cam1"}, Authorization="Bearer wrong")[0] == 401
    cookie = f"{web.door.cookie_name}={web.door.cookie_value}"
    assert ask(port, "POST", "/api/sources", {"location": "cam1"}, Cookie=cookie)[0] == 401  # another site's doing
    assert ask(port, "GET", "/api/sources", Cookie=cookie)[0] == 200
    assert ask(port, "PUT", "/api/sources", {"location": "cam1"}, **bearer)[0] == 405
    assert ask(port, "POST", "/api/sources", {"location": "cam1"}, **bearer) == (201, {"name": "cam1"})
    until(lambda: frames_of(sink, "cam1"))
    names = [source["name"] for source in ask(port, "GET", "/api/sources", **bearer)[1]["sources"]]
    assert names == ["a", "cam1"]
    assert until(lambda: ask(port, "GET", "/healthz", **bearer)[1]["sources"].get("cam1")) == "running"
    assert ask(port, "DELETE", "/api/sources/cam1", **bearer)[0] == 204
    until(lambda: "cam1" not in ask(port, "GET", "/healthz", **bearer)[1]["sources"])
    assert 'source="cam1"' not in ask(port, "GET", "/metrics", **bearer)[1]
    assert ask(port, "DELETE", "/api/sources/cam1", **bearer)[0] == 404


def test_the_api_refuses_files_and_nonsense(page: Any) -> None:
    port, _, _, _ = page
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for location in ("/etc/passwd", "file:///etc/passwd", "-"):
        status, answer = ask(port, "POST", "/api/sources", {"location": location}, **bearer)
        assert status == 422
        assert "not a stream or camera" in answer["error"]
    status, answer = ask(port, "POST", "/api/sources", {"location": "rtsp://me:pass-word@127.0.0.1:9/x"}, **bearer)
    assert status == 422
    assert "pass-word" not in json.dumps(answer)
    assert ask(port, "POST", "/api/sources", {"location": 3}, **bearer)[0] == 400
    assert ask(port, "POST", "/api/sources", ["x"], **bearer)[0] == 400
    assert ask(port, "POST", "/api/sources", {"location": "x" * 9000}, **bearer)[0] == 413


def test_without_a_token_nothing_can_be_changed() -> None:
    pytest.importorskip("uvicorn", reason="needs the extra 'web'")
    from perception.sinks import RunInfo
    from perception.sinks.web import WebSink

    web = WebSink("127.0.0.1:0")
    web.open(RunInfo(SPEC, ()))
    port = web.listen().port
    assert ask(port, "POST", "/api/sources", {"location": "camera:0"})[0] == 403
    web.close()


def test_an_open_page_is_greeted_anew_with_all_sources(page: Any) -> None:
    connect = pytest.importorskip("websockets.sync.client").connect
    port, pipeline, _, _ = page
    with connect(f"ws://127.0.0.1:{port}/live", additional_headers={"Authorization": f"Bearer {TOKEN}"}) as socket:

        def hello() -> list[str]:
            while True:
                text = socket.recv(timeout=10)
                if isinstance(text, str):
                    socket.send('{"done": "text"}')
                    if (message := json.loads(text))["type"] == "hello":
                        return [source["name"] for source in message["sources"]]

        assert hello() == ["a"]
        pipeline.add_source(Endless("b"))
        assert hello() == ["a", "b"]
        socket.send('{"watch": [1], "detail": 1}')
        while isinstance(packet := socket.recv(timeout=10), str):
            socket.send('{"done": "text"}')
        assert packet[:2] == b"\x00\x01"
        pipeline.remove_source("a")
        assert hello() == ["b"]
        socket.send('{"watch": [0], "detail": 0}')
        while isinstance(packet := socket.recv(timeout=10), str) or packet[:2] == b"\x00\x01":
            socket.send('{"done": "text"}' if isinstance(packet, str) else '{"done": "frame"}')
        assert packet[:2] == b"\x00\x00"


# ---------------------------------------------------------------- SIGHUP


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_sighup_reads_the_list_again(tmp_path: Path, tiny_model: Path) -> None:
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", frames=600)
    config = tmp_path / "run.toml"

    def want(*names: str) -> None:
        listed = ", ".join(f'"{name}={tmp_path / name}.mp4"' for name in names)
        config.write_text(
            f'sources = [{listed}]\nmodel = "{tiny_model}"\nrealtime = true\nvideo = false\nstay = true\n'
        )

    want("a")
    words = ["run", "--config", str(config), "--out", str(tmp_path / "out"), "--kitti"]
    command = [sys.executable, "-m", "perception.cli.main", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    rows = tmp_path / "out" / "tracks.jsonl"

    def seen() -> set[str]:
        text = rows.read_text() if rows.exists() else ""
        return {json.loads(line)["source"] for line in text.splitlines()[-20:] if line.endswith("}")}

    try:
        until(lambda: seen() == {"a"}, 60)
        want("a", "b")
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: seen() == {"a", "b"}, 60)
        config.write_text("sources = 3\n")
        os.kill(process.pid, signal.SIGHUP)
        time.sleep(0.3)
        want("b")
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: seen() == {"b"}, 60)
    finally:
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert "sources is 3; the sources stay as they are" in errors
    assert sorted(path.name for path in (tmp_path / "out" / "kitti").iterdir()) == ["a.txt", "b.txt"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["frames"] > 0
