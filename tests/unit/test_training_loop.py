"""A run that is killed and resumed equals one that was not; checkpoints survive; mistakes are sentences."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from training_runs import changed  # noqa: E402

from perception.errors import UserError  # noqa: E402
from training import loop  # noqa: E402
from training.checkpoint import load_checkpoint, load_network, save_checkpoint  # noqa: E402
from training.config import DataConfig, TrainConfig  # noqa: E402
from training.run_log import RunLog  # noqa: E402


def tiny(steps: int = 4) -> TrainConfig:
    data = DataConfig(real=False, synthetic_share=1.0, crop_hw=(64, 128), validation_hw=(64, 192), workers=0)
    return changed(
        TrainConfig(data=data),
        steps=steps,
        batch=2,
        warmup_steps=2,
        evaluate_every=4,
        checkpoint_every=2,
        threads=1,
        device="cpu",
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)["network"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("unbroken")
    loop.train(tiny(), run)
    return run


def test_a_run_leaves_config_metrics_curves_and_checkpoints(unbroken: Path) -> None:
    description = json.loads((unbroken / "config.json").read_text())
    assert description["config"]["schedule"]["steps"] == 4 and description["data_hash"] == "synthetic"
    for name in ("best.pt", "last.pt", "curves.png", "metrics.jsonl"):
        assert (unbroken / name).stat().st_size > 0
    records = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for record in records for value in record.values())


def test_a_run_without_held_out_frames_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path, tiny(), 0)
    log.scores(4, {})
    assert "validation: no validation frames" in capsys.readouterr().err
    log.scores(4, {"score": 1.0})
    assert "validation: score 1.00" in capsys.readouterr().err


def test_killed_and_resumed_equals_unbroken_to_the_bit(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.train_step
    calls = 0

    def dies_at_third(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", dies_at_third)
    with pytest.raises(KeyboardInterrupt):
        loop.train(tiny(), tmp_path)
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 2
    monkeypatch.setattr(loop, "train_step", step)
    loop.train(tiny(), tmp_path, resume=True)
    ours, theirs = weights(tmp_path / "last.pt"), weights(unbroken / "last.pt")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("perception.files.os.fsync", full_disk)
    with pytest.raises(UserError, match="No space left"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path)["step"] == 1 and not list(path.parent.glob(".*.part"))


def test_checkpoints_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("ran",))

    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "x": Evil()}, path)
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_a_damaged_checkpoint_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(path)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "train_step", lambda *_: ({"class": float("nan")}, 1.0))
    with pytest.raises(UserError, match="not finite"):
        loop.train(tiny(), tmp_path)


def test_no_data_is_a_sentence(tmp_path: Path) -> None:
    config = tiny()
    config = replace(config, data=replace(config.data, real=True, root=tmp_path))
    with pytest.raises(UserError, match="no labelled images"):
        loop.train(config, tmp_path / "run")


def test_learning_rate_warms_up_and_decays() -> None:
    config = changed(TrainConfig(), steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [loop.learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 0.02


def test_a_few_steps_on_one_picture_reduce_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.data import ImageStream, collate
    from training.models.network import Network

    torch.manual_seed(0)
    config = tiny()
    stream = ImageStream(None, config)
    pictures = [stream[n] for n in range(12)]
    batch = collate([p for p in pictures if len(p.boxes_xyxy)][:4])
    network = Network(config.model)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = [sum(loop.train_step(network, batch, optimiser, config)[0].values()) for _ in range(25)]
    assert np.mean(losses[-3:]) < 0.7 * losses[0]


def test_the_one_to_one_head_changes_no_step_of_the_rest() -> None:
    """Its gradient is cut by itself, so an untrained head does not shorten everyone else's steps."""
    from training.data import ImageStream, collate
    from training.models.network import Network

    config = changed(tiny(), clip_norm=0.5)  # shorter than any gradient here
    stream = ImageStream(None, config)
    batch = collate([p for p in (stream[n] for n in range(12)) if len(p.boxes_xyxy)][:2])
    torch.manual_seed(0)
    without = Network(config.model)
    beside = Network(replace(config.model, one_to_one=True))
    beside.load_state_dict(without.state_dict(), strict=False)
    for network in (without, beside):
        _, norm = loop.train_step(network, batch, torch.optim.SGD(network.parameters(), lr=0.1), config)
        assert norm > config.optimiser.clip_norm
    others = dict(beside.named_parameters())
    for name, parameter in without.named_parameters():
        torch.testing.assert_close(others[name], parameter, msg=name)


def test_export_of_a_run_carries_its_description(unbroken: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from export.checkpoint import export_checkpoint
    from perception.backends.onnxruntime import OnnxRuntimeBackend
    from perception.model import ModelSpec

    path = export_checkpoint(unbroken / "best.pt", tmp_path / "m.onnx", (64, 96), None, "test licence")
    spec = ModelSpec.from_metadata(OnnxRuntimeBackend(path, "cpu", 1).metadata, path)
    assert spec.licence == "test licence" and "step 4" in spec.training_run and spec.data_hash == "synthetic"
    network, _ = load_network(unbroken / "best.pt")
    assert not network.training
