"""A run survives what it runs in: a lost stderr, callbacks and libraries that leave, a taken folder, a full disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perception.backends.replay import ReplayBackend
from perception.cli.main import main
from perception.model import ModelSpec
from perception.runtime.pipeline import Pipeline
from perception.sinks import RunInfo, Sink
from perception.sources import Source, SourceOptions
from perception.types import CLASS_NAMES, Frame, HealthEvent, Result

ROOT = Path(__file__).parents[2]
SPEC = ModelSpec(CLASS_NAMES, (96, 320))
NOISE = np.random.default_rng(0).integers(0, 255, (96, 320, 3)).astype(np.uint8)
LEAVES = [SystemExit(3), KeyboardInterrupt(), ValueError("broken")]


class Script(Source):
    """Ten frames; raises `error` instead of frame `fail_at`."""

    kind = "script"

    def __init__(self, name: str = "a", fail_at: int = -1, error: BaseException | None = None) -> None:
        super().__init__(name, name, SourceOptions())
        self.size_hw, self.fail_at, self.error = (96, 320), fail_at, error

    def read(self) -> Iterator[Frame]:
        for i in range(10):
            if i == self.fail_at and self.error is not None:
                raise self.error
            yield Frame(np.roll(NOISE, i, 1), i * 10**8, i, self.name)


class Keep(Sink):
    """Keeps what it gets; raises `error` in `where`."""

    name = "keep"
    lossless = True

    def __init__(self, where: str = "", error: BaseException | None = None) -> None:
        self.where, self.error = where, error
        self.results: list[Result] = []

    @classmethod
    def in_folder(cls, folder: Path) -> Keep:
        return cls()

    def _maybe(self, where: str) -> None:
        if where == self.where and self.error is not None:
            raise self.error

    def open(self, info: RunInfo) -> None:
        self._maybe("open")

    def write(self, result: Result) -> None:
        self._maybe("write")
        self.results.append(result)

    def event(self, event: HealthEvent) -> None:
        self._maybe("event")

    def close(self) -> None:
        self._maybe("close")


class Leaving(ReplayBackend):
    """Raises `error` at the fourth batch."""

    error: BaseException = SystemExit(3)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:  # type: ignore[override]
        if self.played == 3:
            raise self.error
        return super().run(inputs)


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: type(error).__name__)
def test_what_a_source_raises_is_its_failure_alone(error: BaseException) -> None:
    run = Pipeline([Script("a", 4, error), Script("b")], (ReplayBackend(SPEC), SPEC))
    names = [result.frame.source for result in run]
    assert (names.count("a"), names.count("b")) == (4, 10)
    assert list(run.errors) == ["a"]
    assert type(error).__name__ in run.errors["a"] or "broken" in run.errors["a"]


@pytest.mark.parametrize("where", ["open", "write", "close"])
@pytest.mark.parametrize("error", LEAVES, ids=lambda error: type(error).__name__)
def test_what_a_sink_raises_is_its_failure_alone(error: BaseException, where: str) -> None:
    other = Keep()
    run = Pipeline([Script()], (ReplayBackend(SPEC), SPEC), [Keep(where, error), other])
    assert len(list(run)) == 10 and len(other.results) == 10
    assert type(error).__name__ in run.sinks[0].error and not run.sinks[1].error


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: type(error).__name__)
def test_what_a_backend_raises_ends_the_run_as_its_failure(error: BaseException) -> None:
    backend, sink = Leaving(SPEC), Keep()
    backend.error = error
    with pytest.raises((RuntimeError, ValueError), match=f"{type(error).__name__}|broken"):
        list(Pipeline([Script()], (backend, SPEC), [sink]))
    assert len(sink.results) == 3, "what was computed is published"


@pytest.mark.parametrize("error", LEAVES[::2], ids=lambda error: type(error).__name__)
def test_a_callback_that_raises_is_logged_once_and_ends_nothing(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def on_event(event: HealthEvent) -> None:
        raise error

    failing = [Script("a", 2, OSError("gone")), Script("b", 4, OSError("gone")), Script("c")]
    run = Pipeline(failing, (ReplayBackend(SPEC), SPEC), on_event=on_event)
    assert [result.frame.source for result in run].count("c") == 10
    assert len([r for r in caplog.records if "on_event failed" in r.getMessage()]) == 1
    assert set(run.errors) == {"a", "b"} and "gone" in run.errors["a"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", "2> >(true)"])
def test_a_lost_stderr_ends_no_run(stderr: str, video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = f"run {video_file} --model {tiny_model} --device cpu --threads 1 --no-video --json --out {tmp_path}/out"
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m perception.cli.main {words} {stderr}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 20, "and nothing else on stdout"
    assert len((tmp_path / "out/tracks.jsonl").read_text().splitlines()) == 20


def test_two_runs_do_not_write_in_one_folder(
    video_file: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("")
    holds = "import sys, time; from pathlib import Path; from perception.lock import alone_in\n"
    holds += "with alone_in(Path(sys.argv[1]), 'writing'): print('held', flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", holds, str(out)], stdout=subprocess.PIPE, cwd=ROOT)
    words = ["run", str(video_file), "--model", str(tiny_model), "--device", "cpu", "--no-video", "--out", str(out)]
    try:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        for command in (words, ["demo", "--frames", "2", "--out", str(out)]):
            assert main(command) == 2
            assert f"{out}: another process is writing in it" in capsys.readouterr().err
        assert sorted(path.name for path in out.iterdir()) == ["lock", "mine"]
    finally:
        child.kill()
        child.communicate()
    assert (out / "lock").exists() and main(words) == 0, "a lock whose holder is dead holds nothing up"
    assert not (out / "lock").exists() and (out / "tracks.jsonl").exists()


LEAVING = """
import sys, threading
import numpy as np
from perception.backends import load_model
from perception.model import default_model
from perception.runtime.pipeline import Pipeline
from perception.sources import Source, SourceOptions
from perception.types import Frame

class Endless(Source):
    kind = "script"
    def read(self):
        for i in range(10**6):
            yield Frame(np.full((375, 1242, 3), 90, np.uint8), i * 10**8, i, "a")

source = Endless("a", "a", SourceOptions())
source.size_hw = (375, 1242)
pipeline = Pipeline([source], load_model(default_model((375, 1242)), "cpu", 1))
if sys.argv[1] == "global":
    results = iter(pipeline)
    next(results)
else:
    begun = threading.Event()
    threading.Thread(target=lambda: [begun.set() for _ in pipeline], daemon=True).start()
    begun.wait()
sys.exit(3)
"""


@pytest.mark.parametrize("way", ["global", "daemon"])
def test_leaving_python_in_the_middle_of_a_run_keeps_the_exit_code(way: str) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVING, way], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (3, "")


def test_names_that_are_not_utf8_lose_no_record(
    video_file: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from perception.sinks.web.server import _json  # what is sent to pages

    try:
        video = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
        shutil.copy(video_file, video)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9"))
    words = ["run", str(video), "--model", str(tiny_model), "--device", "cpu", "--no-video", "--out", str(out)]
    assert main(words) == 0
    assert "tracks.jsonl" in capsys.readouterr().out
    assert len((out / "tracks.jsonl").read_text(encoding="utf-8").splitlines()) == 20
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["sources"][0]["location"] == str(video)
    assert json.loads(_json({"location": str(video)}).encode())["location"] == str(video)


def test_a_record_of_an_event_keeps_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    from perception.sinks.jsonl import JsonLinesSink

    sink = JsonLinesSink(tmp_path / "tracks.jsonl")
    sink.open(RunInfo(SPEC, ()))
    sink.event(HealthEvent("failed", "a", True, None, "caf\udce9.mp4: gone"))
    sink.close()
    assert json.loads((tmp_path / "tracks.jsonl").read_text(encoding="utf-8"))["detail"] == "caf\udce9.mp4: gone"


FULL = """
mount -t tmpfs -o size={size} tmpfs {folder} || exit 77
{python} -m perception.cli.main {words}
echo "rc $?"
find {folder} -name '*.part' -o -name '*.mp4'
"""


@pytest.mark.parametrize(
    "words",
    ["data street --frames 30 --out {} --video {}/clip.mp4", "data street --frames 30 --out {}", "demo --out {}"],
)
def test_a_full_disk_ends_in_one_sentence_and_leaves_no_part(words: str, tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    text = FULL.format(size="300k", folder=tmp_path, python=sys.executable, words=words.replace("{}", str(tmp_path)))
    done = subprocess.run(["unshare", "-m", "bash", "-c", text], capture_output=True, text=True, cwd=ROOT)
    if done.returncode == 77 or "rc" not in done.stdout:
        pytest.skip("no right to mount a small disk")
    assert done.stdout == "rc 2\n", done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "No space left on device" in done.stderr
