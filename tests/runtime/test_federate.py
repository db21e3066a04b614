"""Federated training with real processes over gRPC and TLS, of which some are killed; and wrong command lines."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("flwr", reason="needs the extra 'federated'")

from perception.cli.main import main
from perception.errors import UserError
from tests.unit.training_runs import kitti, tiny
from training.federated.client import run_client
from training.federated.server import read_records


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True)
    return pem, key


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `perception federate …`, with its messages in a file; ends what is left."""
    started: list[subprocess.Popen[str]] = []

    def call(name: str, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "perception.cli.main", "federate", *words]
        with (tmp_path / f"{name}-{len(started)}.log").open("w") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, text=True))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.wait()


def wait(done: Callable[[], bool], tmp_path: Path, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not done():
        logs = {path.name: path.read_text()[-600:] for path in tmp_path.glob("*.log")}
        assert time.monotonic() < until, logs
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_client_and_a_killed_server_cost_no_round(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    (pem, key), (other, _) = certificate(tmp_path, "own"), certificate(tmp_path, "other")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"localhost:{free.getsockname()[1]}"
    run, encrypted = tmp_path / "run", ["--address", address, "--certificate", str(pem), "--key", str(key)]
    options = "--clients 2 --rounds 4 --local-steps 4 --batch 2 --data.crop-hw 64 128 --data.validation-hw 64 192"
    server = start("server", "server", "--out", str(run), *options.split(), "--model.no-pretrained", *encrypted)
    for i in range(2):
        kitti(tmp_path / f"drives{i}", frames=8 + 4 * i, held_out=2)

    def client(i: int) -> subprocess.Popen[str]:
        data = ["--data.root", str(tmp_path / f"drives{i}"), "--data.workers", "0", "--threads", "1"]
        return start(f"client{i}", "client", "--server", address, "--authority", str(pem), *data)

    clients = [client(0), client(1)]
    rounds = run / "rounds.jsonl"
    wait(rounds.exists, tmp_path)
    clients[1].send_signal(signal.SIGKILL)
    clients[1] = client(1)
    with pytest.raises(UserError, match="no server for"):  # a server with another certificate is no server
        run_client(tiny(tmp_path / "drives0"), address, other.read_bytes(), patience_s=0.0)
    wait(lambda: len(read_records(run)) >= 2, tmp_path)
    server.send_signal(signal.SIGKILL)
    server.wait()
    done = len(read_records(run))
    server = start("server", "server", "--resume", str(run), *encrypted)
    wait(lambda: server.poll() is not None, tmp_path)
    assert server.returncode == 0
    wait(lambda: all(c.poll() == 0 for c in clients), tmp_path)
    records = read_records(run)
    assert [record["round"] for record in records] == [1, 2, 3, 4] and done >= 2
    assert records[-1]["clients"] == 2 and sorted(records[-1]["frames"]) == [6, 10]
    assert records[-1]["bytes_sent"] > 1e6 and "score" in records[-1]["scores"]


def test_off_loopback_without_tls_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["server", "--out", str(tmp_path / "run"), "--address", "0.0.0.0:8080"],
        ["client", "--server", "example.org:8080", "--data.root", str(tmp_path)],
    ):
        assert main(["federate", *words]) == 2
        assert "without TLS" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("server --address nowhere", "HOST:PORT"),
        ("server --certificate C", "--certificate without --key"),
        ("server --certificate C --key K", "C: No such file"),
        ("server --noise -1", "--noise -1"),
        ("server --resume nothing", "nothing"),
        ("client --data.root nothing", "no such folder"),
        ("spread", "unknown command"),
    ],
)
def test_a_mistake_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["federate", *words.split()]) == 2
    assert text in capsys.readouterr().err


def test_a_run_that_is_done_is_not_begun_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"training": {"preset": "nano"}, "federated": {"rounds": 3}}))
    assert main(["federate", "server", "--out", str(tmp_path)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main(["federate", "server", "--resume", str(tmp_path), "--rounds", "5"]) == 2
    assert "with other options" in capsys.readouterr().err
