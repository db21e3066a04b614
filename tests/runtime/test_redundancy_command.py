"""`perception run` with several networks, several views and two cameras, as a user types it."""

import json
from pathlib import Path

import pytest

from perception.cli.main import main


def test_two_cameras_and_fused_networks_in_one_run(
    video_file: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", f"left={video_file}", f"right={video_file}", "--second-camera", "right", "--baseline", "0"]
    words += ["--model", str(tiny_model), "--ensemble", str(tiny_model), "--flip", "--scales", "0.5"]
    assert main([*words, "--no-video", "--json", "--quiet", "--out", str(tmp_path)]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["frames"] == 40 and summary["stages_ms"]["network"]
    files = sorted(tmp_path.rglob("tracks.jsonl"))
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    compared = [line["disagreement"] for line in lines if line.get("disagreement")]
    assert compared == [{"only_first": [], "only_second": []}] * 20  # one camera's frame completes each pair


@pytest.mark.parametrize(
    "words, message",
    [
        (["--second-camera", "right"], "a source after the first one (there is none)"),
        (["--baseline", "0.5"], "--baseline without --second-camera"),
        (["--second", "MODEL", "--second-camera", "right"], "--second with --second-camera"),
        (["--flip", "--offline"], "--offline with --ensemble"),
        (["--scales", "9"], "--scales 9"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str],
    message: str,
    video_file: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(tiny_model) if word == "MODEL" else word for word in words]
    out = tmp_path / "out"
    assert main(["run", str(video_file), "--model", str(tiny_model), "--out", str(out), *words]) == 2
    assert message in capsys.readouterr().err and not out.exists()
