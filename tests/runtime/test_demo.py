"""`perception demo` draws its clip, runs the shipped weights on it and scores the result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def demo(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perception.cli.main", "demo", "--out", str(folder), "--frames", "12", *more],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_length_that_cannot_be_meant_is_a_sentence(tmp_path: Path) -> None:
    done = demo(tmp_path, "--frames", "-1")
    assert done.returncode == 2 and "--frames -1" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_demo_leaves_video_tracks_and_scores(tmp_path: Path) -> None:
    import av

    done = demo(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "run.json").read_text())
    assert made["command"] == "perception demo" and made["options"]["frames"] == 12 and made["commit"]
    summary = json.loads(done.stdout)
    assert summary["frames"] == 12 and set(summary["scores"]) >= {"HOTA Car", "road MaxF"}
    assert all(0 <= value <= 100 for value in summary["scores"].values())
    lines = (tmp_path / "tracks.jsonl").read_text().splitlines()
    assert len(lines) >= 12 and all(json.loads(line) for line in lines)
    with av.open(str(tmp_path / "annotated.mp4")) as container:
        video = container.streams.video[0]
        assert video.codec_context.name == "h264" and video.codec_context.pix_fmt == "yuv420p"
        assert sum(1 for _ in container.decode(video=0)) == 12
    drawn = (tmp_path / "clip/training/image_02/0000/000000.jpg").stat().st_mtime_ns
    assert "frames" in demo(tmp_path).stdout
    assert (tmp_path / "clip/training/image_02/0000/000000.jpg").stat().st_mtime_ns == drawn, "the clip is drawn once"
