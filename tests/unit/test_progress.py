"""The one progress display: a bar on a terminal, lines elsewhere, and never an end to the job."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from perception import progress as module
from perception.progress import Progress, byte_count, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(Terminal):
    """A terminal, or a file on a full disk, that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_durations_and_bytes_for_people() -> None:
    assert [duration(s) for s in (0, 9.6, 75, 4000)] == ["0:00", "0:10", "1:15", "1:06:40"]
    counts = (0, 999, 1500, 5_601_213, 12_569_945_557)
    assert [byte_count(b) for b in counts] == ["0 B", "999 B", "1.5 kB", "5.6 MB", "12.57 GB"]


def test_a_terminal_gets_a_bar_that_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with Progress("fetching", 200, stream=stream) as progress:
        progress.update(50, note=", 3 dropped")
        assert "fetching" in stream.getvalue() and "50 of 200" in stream.getvalue()
        assert "3 dropped" in stream.getvalue()
        progress.print("front: black [0.5]")
    assert "front: black [0.5]\n" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[2K"), "the last thing is that the line is wiped"
    before = stream.getvalue()
    progress.update(60)
    progress.close()
    assert stream.getvalue() == before, "nothing after the end"


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    progress = Progress("fetching", 10, stream=stream)
    for done in range(11):
        progress.update(done)
    assert stream.getvalue() == "", "a short job is silent"
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 20)
    progress.update(5)
    progress.update(6)
    assert stream.getvalue().count("\n") == 1 and "fetching:  50%  5 of 10" in stream.getvalue()


def test_an_unknown_total_is_no_share() -> None:
    stream = Terminal()
    with Progress("frames", stream=stream) as progress:
        progress.update(7)
        assert "7, " in stream.getvalue() and "%" not in stream.getvalue()


def test_quiet_shows_nothing() -> None:
    stream = Terminal()
    with Progress("frames", 3, stream=stream, quiet=True) as progress:
        progress.update(1)
    assert stream.getvalue() == ""


def test_a_full_or_closed_stream_ends_the_display_and_not_the_job() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed):
        with Progress("frames", 3, stream=stream) as progress:
            for done in range(4):
                progress.update(done)
            progress.print("something")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_process_without_stderr_goes_on() -> None:
    code = (
        "from perception import progress; progress.LINE_S = 0.0\n"
        "with progress.Progress('frames', 2) as p:\n    p.update(1); p.update(2); p.print('x')\nprint('done')"
    )
    for redirect in ("2>/dev/full", "2>&-"):
        done = subprocess.run(
            f"{sys.executable} -c '{code.replace(chr(39), chr(34))}' {redirect}", shell=True, capture_output=True
        )
        assert done.returncode == 0 and done.stdout == b"done\n", redirect


def test_rich_is_imported_only_to_draw() -> None:
    code = "import sys; from perception.progress import Progress; Progress('x', 2).update(1); "
    code += "print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
