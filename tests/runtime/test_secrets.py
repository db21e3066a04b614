"""No output of any command shows a password, whatever its form, nor obeys an escape code in a name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perception.cli.main import main

SECRET = "hunter2xyz"
FORMS = [
    f"rtsp://me:{SECRET}@127.0.0.1:9/a",
    f"rtsp://me:a@{SECRET}@127.0.0.1:9/a",
    f"rtsp://me:a/{SECRET}#?x@127.0.0.1:9/a",
    f"rtsp://me:two words {SECRET}@127.0.0.1:9/a",
    f"http://127.0.0.1:9/v?pass={SECRET}",
    f"http://127.0.0.1:9/v?psw={SECRET}&size=2",
    f"http://127.0.0.1:9/v?p={SECRET}",
    f"srt://127.0.0.1:9?passphrase={SECRET}",
    f"rtsp://127.0.0.1:9/user=admin_password={SECRET}_channel=1_stream=0.sdp",
]
CALLS = {
    "the command forgotten": ["{}"],
    "a source that does not answer": ["run", "{}", "--timeout", "0.5", "--reconnects", "0", "--out", "out"],
    "a named source": ["run", "front={}", "--timeout", "0.5", "--reconnects", "0", "--out", "out"],
    "an unknown option behind it": ["run", "{}", "--bogus"],
    "a wrong value of an option": ["run", "{}", "--when-late", "{}"],
    "a number that is none": ["run", "clip.mp4", "--threads", "{}"],
    "a calibration": ["run", "clip.mp4", "--camera", "{}"],
    "a model": ["run", "clip.mp4", "--model", "{}"],
    "a tracker option": ["run", "clip.mp4", "--set", "{}"],
    "a config file": ["run", "clip.mp4", "--config", "{}"],
    "detections": ["track", "--detections", "{}", "--out", "out"],
    "labels": ["evaluate", "object", "--gt", "{}", "--results", "out"],
    "a data set": ["data", "check", "{}"],
    "a clip to calibrate with": ["calibrate", "--video", "{}", "--fov-deg", "60", "--height-m", "1.4"],
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("form", FORMS)
def test_no_output_shows_the_password(
    call: str,
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main([word.format(form) for word in CALLS[call]])
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capfd.readouterr()
    assert code != 0
    assert said.out + said.err, "a refusal says why"
    assert SECRET not in said.out + said.err
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_text(encoding="utf-8", errors="replace"), path


def test_logs_show_neither_passwords_nor_escape_codes() -> None:
    code = (
        "from perception.cli.main import main; main(['--version']); import logging\n"
        f"logging.getLogger('x').warning('rtsp://me:{SECRET}@cam/ %s', chr(27) + '[2J')\n"
        f"try: raise ValueError('rtsp://me:{SECRET}@cam/' + chr(27))\n"
        "except ValueError: logging.getLogger('x').exception('failed')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert SECRET not in done.stderr
    assert "\x1b" not in done.stderr
    assert "WARNING x: rtsp://***@cam/ \\x1b[2J" in done.stderr
