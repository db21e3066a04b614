"""Drives from and tables to a bucket: moto's S3 server on loopback, which drops some requests and refuses others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="needs the extra 'fleet'")
pytest.importorskip("duckdb", reason="needs the extra 'fleet'")
pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("flask", reason="moto's server needs flask")

from perception.errors import UserError
from perception.fleet.ask import ask
from perception.fleet.drives import find_drives
from perception.fleet.run import run_here
from perception.fleet.storage import Store
from perception.fleet.worker import Job
from tests.runtime.conftest import write_video


class Server:
    """S3 that answers every n-th request with an error, or with nothing at all."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.app = DomainDispatcherApplication(create_backend_app)
        self.every, self.count, self.dropped = 0, 0, 0
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        self.count += 1
        if environ["PATH_INFO"].startswith("/closed"):
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        if self.every and self.count % self.every == 0:
            self.dropped += 1
            if self.dropped % 2:
                start("503 Slow Down", [])
                return [b""]
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return self.app(environ, start)

    def url(self, path: str) -> str:
        return f"s3://{path}?endpoint_override=127.0.0.1:{self.server.port}&scheme=http&region=us-east-1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made = Server()
    import pyarrow.fs

    fs, _ = pyarrow.fs.FileSystem.from_uri(made.url("fleet") + "&allow_bucket_creation=true")
    fs.create_dir("fleet")
    yield made
    made.server.shutdown()


def test_from_a_bucket_that_drops_requests_to_one(server: Server, tiny_model: Path, tmp_path: Path) -> None:
    uploads = Store(server.url("fleet/in"), first_wait_s=0.01)
    for i in range(2):
        uploads.write(f"day/{i}.mp4", write_video(tmp_path / f"{i}.mp4", frames=8))
    assert sorted(uploads.sizes()) == ["day/0.mp4", "day/1.mp4"]
    server.every = 3
    drives = find_drives(server.url("fleet/in"))
    assert [drive.path for drive in drives] == ["day/0.mp4", "day/1.mp4"]
    output = server.url("fleet/out")
    outcomes = list(run_here(Job(output, "key", str(tiny_model)), drives))
    assert [(o.status, o.frames, o.attempts) for o in outcomes] == [("done", 8, 1)] * 2
    assert ask(output, "SELECT drive, count(*) FROM frames GROUP BY drive ORDER BY drive").rows == [
        (drive.drive_id, 8) for drive in drives
    ]
    assert server.dropped > 5
    server.every = 0
    local = list(run_here(Job(str(tmp_path / "out"), "key", str(tiny_model)), drives))
    assert [outcome.rows for outcome in local] == [outcome.rows for outcome in outcomes]
    for path in (tmp_path / "out").rglob("*.parquet"):  # the same bytes as in the bucket
        assert Store(output).read(str(path.relative_to(tmp_path / "out"))) == path.read_bytes()


def test_a_bucket_without_rights_is_said_at_once(server: Server) -> None:
    store = Store(server.url("closed/in"), first_wait_s=0.01)
    with pytest.raises(UserError, match="a bucket that these credentials may use"):
        store.write("a", b"1")
    assert server.count < 20


def test_a_listing_that_fails_is_no_empty_bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"listing: .*ACCESS_DENIED"):
        find_drives(server.url("closed/in"))
    with pytest.raises(UserError, match="no drives"):  # a prefix with nothing below
        find_drives(server.url("fleet/nothing"))
    monkeypatch.setattr("perception.fleet.storage.ATTEMPTS", 1)
    with pytest.raises(UserError, match="listing failed"):  # nobody there
        find_drives("s3://fleet/in?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1")


def test_other_file_systems_list_below_the_root_alone() -> None:
    for path in ("fleet/in/a.mp4", "fleet/in/day/b.mp4", "fleet/other.mp4"):
        Store("memory://").write(path, b"12")
    assert Store("memory://fleet/in").sizes() == {"a.mp4": 2, "day/b.mp4": 2}


def test_what_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError):
        Store("nothing://a/b")
