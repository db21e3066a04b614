"""Force many reconnects of one RTSP stream and say what they leave behind: threads, descriptors, memory.

python -m tools.benchmarks.rtsp_reconnects --reconnects 100   (tests/runtime/rtsp_server.py says what it needs)

Every tenth time the server itself is killed and started again; in between, a proxy cuts the connection.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from export.bench_cli import rss_mb
from perception.backends.replay import ReplayBackend
from perception.model import ModelSpec
from perception.runtime.pipeline import Pipeline
from perception.source_options import SourceOptions
from perception.sources import open_source
from perception.types import CLASS_NAMES, Detections

SERVER = Path(__file__).parents[2] / "tests/runtime/rtsp_server.py"
CAR = Detections(np.array([[40, 30, 90, 70]], np.float32), np.array([0.9], np.float32), np.array([0]))


class Server:
    """GStreamer's RTSP server in the system's Python."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.start()

    def start(self) -> None:
        words = ["/usr/bin/python3", str(SERVER), str(self.port), "me", "secret"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            sys.exit("GStreamer's RTSP server does not start: see tests/runtime/rtsp_server.py for what to install")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Line:
    """A proxy in a process of its own, so that its threads and sockets are not counted; a line on stdin cuts it."""

    CODE = """
import socket, sys, threading
target = int(sys.argv[1]); pairs = []
listener = socket.create_server(("127.0.0.1", 0)); print(listener.getsockname()[1], flush=True)
def copy(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
    except OSError: pass
    a.close(); b.close()
def accept():
    while True:
        client, _ = listener.accept()
        try: server = socket.create_connection(("127.0.0.1", target))
        except OSError: client.close(); continue
        pairs.append((client, server))
        for ends in ((client, server), (server, client)):
            threading.Thread(target=copy, args=ends, daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
for _ in sys.stdin:
    for ends in pairs:
        for end in ends:
            try: end.shutdown(socket.SHUT_RDWR)
            except OSError: pass
    pairs.clear()
"""

    def __init__(self, target: int) -> None:
        words = [sys.executable, "-c", self.CODE, str(target)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None and self.process.stdin is not None
        self.port, self.cuts = int(self.process.stdout.readline()), self.process.stdin

    def cut(self) -> None:
        self.cuts.write("cut\n")
        self.cuts.flush()


def held() -> dict[str, float]:
    """What this process holds now."""
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "rss_mb": round(rss_mb() or 0, 1),
    }


def wait_for(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            sys.exit("the stream did not come back")
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reconnects", type=int, default=100)
    wanted = parser.parse_args().reconnects
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = Server(port)
    line = Line(server.port)
    source = open_source(f"cam=rtsp://me:secret@127.0.0.1:{line.port}/cam", SourceOptions(retry_s=0.02, timeout_s=5))
    spec = ModelSpec(CLASS_NAMES, (96, 320))
    pipeline = Pipeline([source], (ReplayBackend(spec, [CAR]), spec))
    stamps: list[int] = []
    ids: set[int] = set()

    def play() -> None:
        for result in pipeline:
            stamps.append(result.frame.timestamp_ns)
            ids.update(track.track_id for track in result.tracks)

    thread = threading.Thread(target=play)
    thread.start()
    rows = []
    try:
        for number in range(wanted + 1):
            seen = len(stamps)
            wait_for(lambda seen=seen: len(stamps) > seen + 3)
            if number % max(1, wanted // 10) == 0:
                rows.append({"reconnects": source.reconnects, **held()})
                print(rows[-1], file=sys.stderr)
            if number == wanted:
                break
            before = source.reconnects
            if number % 10 == 9:
                server.kill()
                server.start()
            line.cut()
            wait_for(lambda before=before: source.reconnects > before)
    finally:
        pipeline.stop()
        thread.join(20)
        server.kill()
        with suppress(OSError):
            line.process.kill()
    goes_on = bool((np.diff(stamps) > 0).all())
    print(json.dumps({"rows": rows, "frames": len(stamps), "time_goes_on": goes_on, "tracks": len(ids)}))


if __name__ == "__main__":
    main()
