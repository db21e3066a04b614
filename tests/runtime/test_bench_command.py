import json
from pathlib import Path

import pytest

from perception.cli.main import main as front_door


def test_the_stages_of_a_short_clip(capsys: pytest.CaptureFixture[str], video_file: Path) -> None:
    words = ["bench", "pipeline", "--source", str(video_file), "--objects", "3", "--sources", "2", "--repeat", "2"]
    assert front_door([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["sources"], report["dropped"]) == (40, 2, 0)
    assert {"decode", "letterbox", "network", "track", "range"} <= set(report["stages_ms"])
    assert len(report["rss_mb_after_each_round"]) == 2
    assert "sink:jsonl" in report["stages_ms"]
    assert front_door(words) == 0
    shown = capsys.readouterr().out
    assert "without the network" in shown
    assert "drive.mp4: h264 320x96, 20 frames" in shown


def test_a_clip_is_made_where_none_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert front_door(["bench", "pipeline", "--frames", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 3


def test_overload_has_a_bounded_age(capsys: pytest.CaptureFixture[str], video_file: Path) -> None:
    front_door(["bench", "pipeline", "--source", str(video_file), "--realtime", "--delay-ms", "300", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["dropped"] > 0
    assert report["age_ms"]["count"] == report["frames"] < 20


def test_a_real_model_is_compared_with_itself(
    capsys: pytest.CaptureFixture[str], video_file: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export import bench_cli as bench

    monkeypatch.setattr(bench, "raw_fps", lambda pipeline: 100.0)
    words = ["bench", "pipeline", "--source", str(video_file), "--model", str(tiny_model), "--sources", "1", "2"]
    assert front_door(words) == 0
    shown = capsys.readouterr().out
    assert "network alone: 100.0 frames/s (batch 2)" in shown
    table = [line.split() for line in shown.splitlines() if line.startswith(" ")]
    assert [line[0] for line in table] == ["sources", "1", "2"]


def test_laps_leave_the_start_out() -> None:
    from export.bench_cli import LAP, lap_ms

    walls = [10.0, 11.0, 12.0, 22.0]
    assert lap_ms([(wall, 0.0) for wall in walls], 0) == pytest.approx(1000 / LAP)
    assert lap_ms([(10.0, 0.0)], 0) is None


def test_nonsense_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert front_door(["bench", "pipeline", "--sources", "0"]) == 2
    assert "a count below its minimum" in capsys.readouterr().err
