"""Self-supervised training: places of the views, a run that resumes bit for bit, and weights that training takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightly")

from perception.cli.main import main  # noqa: E402
from training import pretrain as pretraining  # noqa: E402
from training import views  # noqa: E402
from training.models.backbone import Backbone  # noqa: E402
from training.pretrain import PretrainConfig, learning_rate, pretrain  # noqa: E402

TINY = PretrainConfig("mobilenet_v3_small", steps=4, batch=2, crop_hw=(32, 64), workers=0, checkpoint_every=2)


def frames(folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        cv2.imwrite(str(folder / f"{k}.png"), rng.integers(0, 255, (60, 120, 3), np.uint8))
    return sorted(folder.glob("*.png"))


def test_a_place_is_where_the_cell_lies_in_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame's first two channels hold x and y, so a cell's mean colour is its place, mirrored or not."""
    monkeypatch.setattr(views, "vary", lambda image, rng, config: image)
    y, x = np.mgrid[:128, :256]
    frame = np.stack([x, y, 0 * x], -1).astype(np.uint8)
    mirrored = set()
    for seed in range(8):
        image, places = views.view(frame, (64, 128), (0.1, 0.5), np.random.default_rng(seed))
        cells = image.reshape(4, 16, 8, 16, 3).mean((1, 3))[..., :2] + 0.5
        assert image.shape == (64, 128, 3) and places.shape == (4, 8, 2)
        assert np.abs(cells - places * 256).max() < 1.5
        mirrored.add(bool(places[0, 0, 0] > places[0, 1, 0]))
    assert mirrored == {True, False}


def test_views_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    files = frames(tmp_path)
    one, other = (views.Views(files, (32, 64), (0.1, 0.5), seed=1) for _ in range(2))
    _ = one[3]
    assert all(np.array_equal(a, b) for a, b in zip(one[5][0], other[5][0], strict=True))
    assert not np.array_equal(one[5][0][0], one[6][0][0])
    assert not np.array_equal(one[5][0][0], views.Views(files, (32, 64), (0.1, 0.5), seed=2)[5][0][0])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, calls = frames(tmp_path / "frames"), 0
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    first = torch.load(pretrain(TINY, files, whole), weights_only=True)
    step = pretraining.train_step

    def killed(*arguments: object) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pretraining, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(TINY, files, parted)
    monkeypatch.setattr(pretraining, "train_step", step)
    second = torch.load(pretrain(TINY, files, parted), weights_only=True)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert (whole / "metrics.jsonl").read_text() == (parted / "metrics.jsonl").read_text()
    assert (parted / "curves.png").stat().st_size > 1000


def test_training_takes_every_tensor(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    weights = pretrain(TINY, frames(tmp_path / "frames"), run)
    torch.manual_seed(TINY.seed)
    start, taken = Backbone("mobilenet_v3_small"), Backbone("mobilenet_v3_small", weights=weights)
    assert taken.loaded.endswith("missing: none; not used: none")
    assert any(not torch.equal(a, b) for a, b in zip(start.parameters(), taken.parameters(), strict=True))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 4] and all(r["spread"] > 0 for r in records)


def test_equal_features_of_all_frames_cost_the_variance_term() -> None:
    """A collapse: no distance between views, no covariance, a standard deviation of √eps = 0.01 where 1 is wanted.

    Global: 25 · 0.99. Local: the same for matches by feature and by place, summed.
    """
    criterion = pretraining.make_loss(PretrainConfig(global_share=0.75))
    view = (torch.ones(2, 8), torch.ones(2, 4, 8, 8))
    places = torch.rand(2, 4, 8, 2)
    loss = criterion([view, (view[0].clone(), view[1].clone())], [places, places])
    assert float(loss) == pytest.approx(25 * 0.99 * (0.75 + 0.25 * 2))


def test_the_learning_rate_rises_and_falls() -> None:
    config = PretrainConfig(steps=1000, learning_rate=1.0)
    assert learning_rate(0, config) == pytest.approx(0.01) and learning_rate(100, config) == 1.0
    assert learning_rate(550, config) == pytest.approx(0.5) and learning_rate(999, config) < 1e-4


OPTIONS = "--backbone mobilenet_v3_small --steps 2 --batch 2 --crop-hw 32 64 --workers 0 --threads 1".split()


def test_the_command_trains_counts_broken_frames_and_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames(tmp_path / "frames", 2)
    (tmp_path / "frames/deep").mkdir()
    (tmp_path / "frames/deep/broken.jpg").write_bytes(b"no image")
    run = tmp_path / "run"
    assert main(["pretrain", str(tmp_path / "frames"), "--out", str(run), *OPTIONS, "--steps", "8"]) == 0
    said = capsys.readouterr()
    assert f"--model.backbone-weights {run / 'backbone.pt'}" in said.out
    assert "3 frames" in said.err and said.err.count("skipped: ") == 1 and "1 unreadable frames" in said.err
    assert main(["pretrain", "--resume", str(run)]) == 0, "a finished run has nothing to do"
    assert main(["pretrain", "--resume", str(run), "--steps", "9"]) == 2
    assert "with another steps" in capsys.readouterr().err
    assert main(["pretrain", str(tmp_path / "frames"), "--out", str(run), *OPTIONS]) == 2
    assert "already holds a run" in capsys.readouterr().err
    frames(tmp_path / "frames", 4)
    assert main(["pretrain", "--resume", str(run)]) == 2
    assert "as at the start of the run" in capsys.readouterr().err


def test_mistakes_are_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "config.json").write_text("[]")
    for words, said in (
        ([str(tmp_path / "gone")], "gone: no such folder"),
        ([str(tmp_path / "empty")], "0 images"),
        (["--resume", str(tmp_path)], "holds no run"),
        (["--area", "0.5", "0.1"], "rising shares"),
        (["--crop-hw", "33", "64"], "multiples of 32"),
        (["--batch", "1"], "at least 2"),
    ):
        assert main(["pretrain", *words]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "lightly.loss", None)
    assert main(["pretrain", str(tmp_path / "empty")]) == 2
    assert "perception-pipeline[pretrain]" in capsys.readouterr().err
