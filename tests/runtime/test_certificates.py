"""Encrypted sources: certificates must be valid for their names, also behind a playlist; the opt-out is explicit."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest
from clips import numbered, write_clip

from perception.errors import UserError
from perception.sources import SourceOptions, open_source
from perception.video.certificates import authorities, certificate_fault, is_encrypted

PATIENT = SourceOptions(timeout_s=20, reconnects=0)
TRUSTING = SourceOptions(timeout_s=20, reconnects=0, verify_tls=False)


class Server:
    """A folder behind https, with a certificate for `name`."""

    def __init__(self, folder: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl to make a certificate with")
        self.certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        command = (
            f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=DNS:{name}"
        )
        files = ["-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
        self.asked: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(handler, *args: object) -> None:
                self.asked.append(f"{handler.path} {handler.headers.get('Authorization')}")

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.address = f"localhost:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Server]]:
    """One whose certificate this machine trusts, and one whose certificate is for another name."""
    write_clip(tmp_path / "a.ts", (numbered(n) for n in range(10)))
    good, bad = Server(tmp_path, "localhost"), Server(tmp_path, "other.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(good.certificate))
    for name, part in (("good", "a.ts"), ("bad", f"https://{bad.address}/a.ts")):
        (tmp_path / f"{name}.m3u8").write_text(
            f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{part}\n#EXT-X-ENDLIST\n"
        )
    (tmp_path / "master.m3u8").write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nbad.m3u8\n")
    yield good, bad
    good.close()
    bad.close()


def count(url: str, options: SourceOptions) -> int:
    return sum(1 for _ in islice(open_source(url, options), 10))


def test_a_certificate_for_another_name_is_refused_before_the_password(servers: tuple[Server, Server]) -> None:
    good, bad = servers
    assert count(f"https://{good.address}/a.ts", PATIENT) == 10
    with pytest.raises(UserError, match=r"certificate is refused[\s\S]*--no-verify-tls") as error:
        open_source(f"https://me:secret@{bad.address}/a.ts", PATIENT)
    assert "secret" not in str(error.value)
    assert bad.asked == []
    assert count(f"https://{bad.address}/a.ts", TRUSTING) == 10


@pytest.mark.parametrize("playlist", ["bad.m3u8", "master.m3u8"])
def test_what_a_playlist_names_is_verified_too(playlist: str, servers: tuple[Server, Server]) -> None:
    good, _ = servers
    assert count(f"https://{good.address}/good.m3u8", PATIENT) == 10
    with pytest.raises(UserError, match="certificate is refused"):
        open_source(f"https://{good.address}/{playlist}", PATIENT)
    assert count(f"https://{good.address}/{playlist}", TRUSTING) == 10


@pytest.mark.parametrize("scheme", ["https", "rtsps", "rtmps", "tls"])
def test_every_encrypted_protocol_is_verified(scheme: str, servers: tuple[Server, Server]) -> None:
    _, bad = servers
    with pytest.raises(UserError, match="certificate is refused"):
        open_source(f"{scheme}://{bad.address}/a", PATIENT)
    assert bad.asked == []


def test_plain_protocols_have_no_certificate() -> None:
    assert [is_encrypted(f"{s}://h/") for s in ("http", "rtsp", "HTTPS", "rtsps")] == [False, False, True, True]
    assert certificate_fault("rtsp://127.0.0.1:9/", 1) is None
    assert certificate_fault("https://127.0.0.1:9/", 1) is None  # nobody answers
    assert Path(authorities()).is_file()
