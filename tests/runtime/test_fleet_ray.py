"""The fleet on Ray: one and two workers write equal bytes, a killed one costs an attempt, a second start nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra 'fleet'")

from tests.runtime.conftest import write_video

pytestmark = pytest.mark.slow


def digests(output: Path) -> dict[str, str]:
    found = sorted(output.rglob("*.parquet"))
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def command(drives: Path, output: Path, model: Path, workers: int) -> list[str]:
    words = [sys.executable, "-m", "perception.cli.main", "fleet", "run", str(drives), "--out", str(output)]
    return [*words, "--model", str(model), "--workers", str(workers), "--json", "--quiet"]


def test_one_and_two_workers_a_killed_one_and_a_second_start(tmp_path: Path, tiny_model: Path) -> None:
    drives = tmp_path / "drives"
    drives.mkdir()
    for i in range(2):
        write_video(drives / f"{i}.mp4", frames=400)
    (drives / "broken.mp4").write_bytes(b"nothing of the kind" * 10)
    one, two = tmp_path / "one", tmp_path / "two"
    done = subprocess.run(command(drives, one, tiny_model, 1), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # one drive is broken
    report = json.loads(done.stdout)
    assert (report["found"], report["done"], len(report["failed"])) == (3, 2, 1)
    assert report["frames"] == 800

    process = subprocess.Popen(command(drives, two, tiny_model, 2), stdout=subprocess.PIPE, text=True)
    killed = ""
    until = time.monotonic() + 240
    while not killed and process.poll() is None and time.monotonic() < until:
        for mark in two.glob("attempts/[01].mp4*.json"):
            pid = json.loads(mark.read_text())["pid"]
            os.kill(pid, signal.SIGKILL)
            killed = mark.stem
            break
        time.sleep(0.01)
    assert killed
    report = json.loads(process.communicate(timeout=240)[0])
    assert (report["done"], len(report["failed"])) == (2, 1)
    assert report["retried"] == 2  # the killed one, and the broken one
    assert json.loads((two / "drives" / f"{killed}.json").read_text())["attempts"] == 2
    assert digests(one) == digests(two)
    assert len(digests(one)) == 8
    assert not list(two.glob("attempts/*"))

    (drives / "broken.mp4").unlink()
    again = subprocess.run(command(drives, two, tiny_model, 2), capture_output=True, text=True, check=False)
    report = json.loads(again.stdout)
    assert (again.returncode, report["before"], report["done"]) == (0, 2, 0)
