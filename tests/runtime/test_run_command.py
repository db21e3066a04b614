"""`perception run` as a user types it, in a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from perception.cli.main import main as front_door
from perception.cli.run import as_text


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "perception.cli.main", "run", *map(str, arguments)]


def play(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def decoded(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video_becomes_a_video_records_and_a_summary(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = ("--device", "cpu", "--json", "--kitti", "--mot", "--images")
    done = play(video_file, "--model", tiny_model, "--out", tmp_path / "o", *options)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["frames"], summary["dropped"], summary["tracks"]) == (20, 0, 2)
    assert summary["provider"].endswith("ExecutionProvider")
    lines = records(tmp_path / "o" / "tracks.jsonl")
    assert [r["frame_id"] for r in lines] == list(range(20))
    assert {t["class"] for r in lines for t in r["tracks"]} == {"Car", "Pedestrian"}
    assert lines[-1]["road"]["share"] == pytest.approx(0.5, abs=0.05)
    assert decoded(tmp_path / "o" / "annotated.mp4") == 20
    for written in summary["outputs"]:
        assert Path(written).exists()
    run = json.loads((tmp_path / "o" / "run.json").read_text())
    assert run["model"]["name"] == "tiny"
    assert run["options"]["sources"] == [str(video_file)]


def test_hindsight_reads_a_recording_twice(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = (video_file, "--model", tiny_model, "--no-video", "--kitti", "--json", "--set", "confirm_log_odds=9")
    online = play(*words, "--out", tmp_path / "a")
    offline = play(*words, "--out", tmp_path / "b", "--offline")
    assert online.returncode == offline.returncode == 0, offline.stderr
    first = [len(records(tmp_path / name / "tracks.jsonl")[0]["tracks"]) for name in ("a", "b")]
    assert first == [0, 2]  # on line, a track starts when it is confirmed
    assert json.loads(offline.stdout)["frames"] == 20 and json.loads(offline.stdout)["tracks"] == 2


def test_a_second_network_watches_and_margins_need_a_measured_model(
    video_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = (video_file, "--model", tiny_model, "--out", tmp_path / "o", "--quiet")
    done = play(*words, "--second", tiny_model, "--no-video")
    assert done.returncode == 0, done.stderr
    lines = records(tmp_path / "o" / "tracks.jsonl")
    assert all(r["disagreement"] == {"only_first": [], "only_second": []} for r in lines if r["type"] == "frame")
    assert json.loads((tmp_path / "o" / "run.json").read_text())["second"]["name"] == "tiny"
    done = play(*words, "--set", "video.margins=True")
    assert "perception export doubt MODEL" in done.stderr and "Traceback" not in done.stderr


def test_hindsight_needs_one_recording(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ("--model", tiny_model, "--out", tmp_path / "o", "--offline")
    done = play(f"a={video_file}", f"b={video_file}", *words)
    assert done.returncode == 2 and "--offline with 2 sources" in done.stderr
    assert not (tmp_path / "o").exists()


def test_any_sink_by_name_and_settings_of_tracker_and_sinks(
    video_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("--no-video", "--kitti", "--sink", "mot", "images", "--set", "lost_s=0.5", "images.quality=5")
    done = play(video_file, "--model", tiny_model, "--out", out, *words)
    assert done.returncode == 0, done.stderr
    assert (out / "mot").is_dir() and (out / "kitti").is_dir() and not (out / "annotated.mp4").exists()
    small = sum(path.stat().st_size for path in (out / "frames").rglob("*.jpg"))
    assert play(video_file, "--model", tiny_model, "--out", tmp_path / "b", "--no-video", "--images").returncode == 0
    assert 0 < small < sum(path.stat().st_size for path in (tmp_path / "b/frames").rglob("*.jpg"))
    run = json.loads((out / "run.json").read_text())
    assert run["options"]["set"] == ["lost_s=0.5", "images.quality=5"]
    assert run["options"]["source"]["every"] == 1 and run["options"]["pipeline"]["tracker"] == "drivetrack"
    assert run["command"] == "perception run" and run["commit"] and len(run["data_hash"]) == 16
    assert json.loads((tmp_path / "b/run.json").read_text())["data_hash"] == run["data_hash"], (
        "the same clip and model"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--sink", "mott"), "unknown sink 'mott'"),
        (("--set", "lost_z=1"), "has no option 'lost_z'"),
        (("--set", "lost_s"), "a name and a value"),
        (("--set", "mot.quality=3"), "--set mot.FIELD"),
        (("--images", "--set", "images.quality=300"), "from 1 to 100"),
        (("--images", "--set", "images.qualty=30"), "has no option 'qualty'"),
        (("--stalled", "nan"), "--stalled nan"),
        (("--queue", "0"), "queue 0"),
    ],
)
def test_settings_that_do_not_exist_are_named(
    video_file: Path, tiny_model: Path, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    done = play(video_file, "--model", tiny_model, "--out", tmp_path / "out", *words)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_two_named_sources(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    done = play(
        f"front={video_file}", f"rear={video_file}", "--model", tiny_model, "--out", out, "--no-video", "--json"
    )
    assert json.loads(done.stdout)["sources"].keys() == {"front", "rear"}
    lines = records(out / "tracks.jsonl")
    frames = [r for r in lines if "frame_id" in r]  # the first one through also leaves a line that it has ended
    assert [r["frame_id"] for r in frames if r["source"] == "rear"] == list(range(20))
    assert not (out / "annotated.mp4").exists()


def test_text_summary_names_the_files(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = play(video_file, "--model", tiny_model, "--no-video", "--duration", "1", cwd=tmp_path)
    assert done.stdout.startswith("10 frames")
    assert str(Path("runs") / "drive" / "tracks.jsonl") in done.stdout
    again = play(video_file, "--model", tiny_model, "--no-video", "--duration", "1", cwd=tmp_path)
    assert "drive-2" in again.stdout and "earlier run" not in again.stderr  # the first run is not overwritten
    words = (video_file, "--model", tiny_model, "--no-video", "--duration", "1", "--out", "runs/drive")
    assert "note: runs/drive holds an earlier run" in play(*words, cwd=tmp_path).stderr


def test_camera_file_gives_distances(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "camera.toml").write_text(
        "width = 320\nheight = 96\nfx = 700\nfy = 700\ncx = 160\ncy = 40\nheight_m = 1.5\n"
    )
    out = tmp_path / "o"
    play(video_file, "--model", tiny_model, "--out", out, "--no-video", "--camera", tmp_path / "camera.toml")
    assert records(out / "tracks.jsonl")[-1]["tracks"][0]["distance_m"] > 0


def test_a_pipe_on_standard_input(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    with video_file.open("rb") as file:
        done = subprocess.run(
            command("-", "--model", tiny_model, "--out", tmp_path / "o", "--no-video", "--json"),
            stdin=file, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert json.loads(done.stdout)["frames"] == 20, done.stderr


def test_realtime_takes_as_long_as_the_clip(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    play(video_file, "--model", tiny_model, "--out", out, "--no-video", "--realtime")
    lines = [r for r in records(out / "tracks.jsonl") if r["type"] == "frame"]
    assert all(r["age_ms"] is not None for r in lines)
    assert lines[-1]["frame_id"] == 19
    assert sum(r["dropped_before"] for r in lines) + len(lines) == 20


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no source given"),
        (["none.mp4"], "no such file"),
        (["{video}", "--model", "none.onnx"], "none.onnx: no such model file"),
        (["{video}", "--model", "{video}"], "not a model file"),
        (["{video}", "--model", "{model}", "--tracker", "bytetrak"], "bytetrack"),
        (["{video}", "--model", "{model}", "--every", "0"], "--every 0"),
        (["{video}", "--model", "{model}", "--queue", "0"], "queue 0"),
        (["{video}", "--model", "{model}", "--camera", "none.toml"], "none.toml"),
        (["a={video}", "a={video}", "--model", "{model}"], "same name"),
        (["{video}", "--model", "{model}", "--cuda-graph"], "--device cuda --cuda-graph"),
        (["{video}", "--model", "{model}", "--cuda-graph", "--device", "cpu"], "leave --cuda-graph out"),
        (["{video}", "--model", "{model}", "--precision", "bf16", "--device", "cpu"], "--device openvino"),
        (["{video}", "--model", "{model}", "--out", "{video}/x"], "--out"),
        (["{video}", "--model", "{model}", "--threads", "9999"], "--threads 9999"),
        (["{video}", "--model", "{model}", "--metrics", "127.0.0.1:99999"], "HOST:PORT"),
        (["camera:front"], "perception run camera:0"),
    ],
)
def test_mistakes_are_sentences(
    arguments: list[str], says: str, video_file: Path, tiny_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = [word.format(video=video_file, model=tiny_model) for word in arguments]
    assert front_door(["run", *words]) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert "try: " in shown  # what to type next
    assert "Traceback" not in shown
    assert not (tmp_path / "runs").exists()  # nothing is left behind
    assert not any(thread.name == "warm-up" for thread in threading.enumerate())  # it would abort the process


@pytest.mark.parametrize("word", ["{video}", "rtsp://me:secret@car/front"])
def test_a_source_without_the_command_is_told_which(
    word: str, video_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert front_door([word.format(video=video_file)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: unknown command") and "perception run SOURCE" in shown and "secret" not in shown


def test_a_start_behind_the_end_is_a_sentence(
    video_file: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", str(video_file), "--model", str(tiny_model), "--out", str(tmp_path / "o"), "--no-video"]
    assert front_door([*words, "--start", "1000"]) == 2
    assert "--start 1000: there is no frame" in capsys.readouterr().err


def test_metrics_at_a_free_port_say_which(
    video_file: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", str(video_file), "--model", str(tiny_model), "--out", str(tmp_path / "o"), "--no-video"]
    assert front_door([*words, "--duration", "0.3", "--metrics", "127.0.0.1:0"]) == 0
    told = re.search(r"metrics   http://127\.0\.0\.1:(\d+)/metrics", capsys.readouterr().err)
    assert told is not None and int(told[1]) > 0


def test_a_cuda_graph_is_asked_of_the_model(
    video_file: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import perception.backends

    asked = []

    def load(path: Path, device: str, threads: int, cuda_graph: bool, precision: str) -> object:
        asked.append((device, cuda_graph))
        return real(path, "cpu", threads)

    real = perception.backends.load_model
    monkeypatch.setattr(perception.backends, "load_model", load)
    words = ["run", str(video_file), "--model", str(tiny_model), "--no-video", "--quiet", "--json"]
    assert front_door([*words, "--out", str(tmp_path / "a"), "--device", "cuda", "--cuda-graph"]) == 0
    assert front_door([*words, "--out", str(tmp_path / "b")]) == 0
    assert asked == [("cuda", True), ("auto", False)]


def test_a_network_that_breaks_leaves_files_and_a_summary(
    video_file: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from perception.backends.onnxruntime import OnnxRuntimeBackend

    real, runs = OnnxRuntimeBackend.run, []

    def run(self: OnnxRuntimeBackend, inputs: dict) -> dict:
        runs.append(1)
        if len(runs) > 5:
            raise RuntimeError("out of memory at rtsp://me:secret@cam")
        return real(self, inputs)

    monkeypatch.setattr(OnnxRuntimeBackend, "run", run)
    words = ["run", str(video_file), "--model", str(tiny_model), "--out", str(tmp_path / "o"), "--json"]
    words += ["--device", "cpu"]  # where a processor computes BF16, auto would take OpenVINO
    assert front_door(words) == 1
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert (summary["frames"], summary["error"]) == (5, "RuntimeError: out of memory at rtsp://***@cam")
    assert "FAILED    RuntimeError" in as_text(summary)
    assert decoded(tmp_path / "o" / "annotated.mp4") == len(records(tmp_path / "o" / "tracks.jsonl")) == 5


def test_signals_are_handled_as_before_after_a_run(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    front_door(["run", str(video_file), "--model", str(tiny_model), "--no-video", "--out", str(tmp_path), "--json"])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_ends_the_wait_for_a_stream_that_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"rtsp://me:secret@127.0.0.1:{deaf.getsockname()[1]}/x"
        process = subprocess.Popen(
            command(url, "--timeout", "600", "--out", tmp_path / "o"), stderr=subprocess.PIPE, text=True
        )
        deaf.settimeout(60)
        connection, _ = deaf.accept()
        with connection:  # held: a connection that nobody keeps is closed at once, which is an answer
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)  # far below the 600 s
    assert process.returncode == -signal.SIGINT, stderr
    assert stderr == ""


def test_a_gpu_that_is_not_there_is_refused(video_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    import onnxruntime

    from perception.backends.onnxruntime import _cuda_present

    if _cuda_present() and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has a GPU")
    done = play(video_file, "--model", tiny_model, "--out", tmp_path / "o", "--device", "cuda")
    assert done.returncode == 2
    assert "perception doctor" in done.stderr


def test_one_broken_picture_among_good_ones(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        cv2.imwrite(
            str(folder / f"{i}.png"), np.random.default_rng(i).integers(0, 255, (60, 200, 3)).astype(np.uint8)
        )
    (folder / "2.png").write_bytes(b"broken")
    done = play(folder, "--model", tiny_model, "--out", tmp_path / "o", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["frames"], summary["corrupt"], summary["dropped"]) == (0, 3, 1, 1)
    assert "2.png" in done.stderr


# ---------------------------------------------------------------- signals


def start_long_run(video: Path, tiny_model: Path, out: Path) -> subprocess.Popen[str]:
    """A run that would go on for a minute; returns when it has written its first records and pictures."""
    process = subprocess.Popen(
        command(video, "--model", tiny_model, "--out", out, "--realtime", "--json"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    give_up = time.monotonic() + 60
    lines, video_out = out / "tracks.jsonl", out / "annotated.mp4"

    def begun() -> bool:
        if not (lines.exists() and video_out.exists()):
            return False
        return lines.read_text().count("\n") > 14 and video_out.stat().st_size > 5000  # more than the header

    while time.monotonic() < give_up and not begun():
        time.sleep(0.05)
    assert process.poll() is None, process.stderr and process.stderr.read()
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_order(number: int, long_video: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    process = start_long_run(long_video, tiny_model, out)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    summary = json.loads(stdout)
    lines = records(out / "tracks.jsonl")
    assert summary["frames"] == sum(r["type"] == "frame" for r in lines) < 600
    assert decoded(out / "annotated.mp4") > 0


def test_a_kill_loses_at_most_the_last_line(long_video: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    process = start_long_run(long_video, tiny_model, out)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    lines = (out / "tracks.jsonl").read_text().splitlines()
    for line in lines[:-1]:
        json.loads(line)
    assert len(lines) > 10
    assert decoded(out / "annotated.mp4") > 0
