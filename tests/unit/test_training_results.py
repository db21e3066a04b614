"""What a run says about itself, when it ends early, and in which numbers it computes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from training_runs import changed, kitti, tiny  # noqa: E402

from perception.errors import UserError  # noqa: E402
from training import loop  # noqa: E402
from training.checkpoint import load_checkpoint  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.data import batches  # noqa: E402
from training.models.network import Network  # noqa: E402
from training.sets import find_sets  # noqa: E402


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda run: run)


def scored(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Scorings give these values, one after the other."""
    left = iter(values)
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"score": next(left), "score_threshold": 0.4})


def test_a_run_ends_when_its_score_has_stopped_rising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, [10.0, 30.0, 20.0, 25.0, 99.0])
    config = tiny(kitti(tmp_path / "data"), steps=5, evaluate_every=1, patience=2)
    loop.train(config, tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert (results["best_step"], results["steps"], results["ended"]) == (2, 4, True)
    assert results["metrics"] == {"score": 30.0} and results["thresholds"] == {"car_score": 0.4}
    assert load_checkpoint(tmp_path / "run/best.pt")["step"] == 2
    assert load_checkpoint(tmp_path / "run/last.pt")["step"] == 4
    loop.train(config, tmp_path / "run", resume=True)
    assert load_checkpoint(tmp_path / "run/last.pt")["step"] == 4, "it has ended, and stays so"


def test_results_tell_config_data_time_and_metrics(tmp_path: Path) -> None:
    root = kitti(tmp_path / "data", road=5)
    loop.train(tiny(root), tmp_path / "a")
    results = json.loads((tmp_path / "a/results.json").read_text())
    described = json.loads((tmp_path / "a/config.json").read_text())
    assert results["config_hash"] == described["config_hash"] and len(results["config_hash"]) == 16
    assert results["commit"] == described["commit"]
    assert results["data_hash"] == described["data_hash"] != "synthetic"
    assert described["images"] == {"kitti/object": 7, "kitti/road": 12}
    assert described["held_out"] == {"objects": 5, "road": 3}
    assert {"car_moderate", "cyclist_hard", "road_max_f"} <= results["metrics"].keys()
    assert results["thresholds"]["road"] == int(results["thresholds"]["road"])
    assert results["seconds"] > 0 and results["images_per_s"] > 0 and 0 <= results["waiting_share"] <= 1
    assert results["processes"] == 1 and results["broken_samples"] == 0


def test_the_data_hash_sees_a_label_a_picture_and_the_split(tmp_path: Path) -> None:
    root = kitti(tmp_path / "data")
    data = tiny(root).data
    hashes = [find_sets(data).data_hash()]
    assert find_sets(data).data_hash() == hashes[0]
    label = root / "kitti/object/training/label_2/000001.txt"
    label.write_text(label.read_text().replace("Pedestrian", "Cyclist   "))
    hashes.append(find_sets(data).data_hash())
    picture = root / "kitti/object/training/image_2/000002.png"
    picture.write_bytes(picture.read_bytes() + b"\0")
    hashes.append(find_sets(data).data_hash())
    split = root / "kitti/object/ImageSets/val.txt"
    split.write_text("\n".join(split.read_text().split()[1:]))
    hashes.append(find_sets(data).data_hash())
    assert len(set(hashes)) == 4


def test_a_run_that_goes_on_with_other_data_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = kitti(tmp_path / "data")
    loop.train(tiny(root, steps=2, evaluate_every=2), tmp_path / "run")
    assert "the data has changed" not in capsys.readouterr().err
    (root / "kitti/object/training/label_2/000000.txt").write_text("")
    loop.train(tiny(root), tmp_path / "run", resume=True)
    assert "the data has changed since this run started" in capsys.readouterr().err


def test_the_board_shows_frames_with_truth_and_prediction(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loop.train(tiny(kitti(tmp_path / "data", road=5)), tmp_path / "run")
    board = EventAccumulator(str(tmp_path / "run/tensorboard"), size_guidance={"images": 0})
    board.Reload()
    shown = board.Tags()["images"]
    assert (
        sum(tag.startswith("objects/") for tag in shown) == 4 and sum(tag.startswith("road/") for tag in shown) == 3
    )
    image = board.Images(shown[0])[0]
    assert (image.width, image.height) == (208, 64)
    assert {"train/class", "validation/car_moderate", "validation/road_max_f"} <= set(board.Tags()["scalars"])


def test_the_board_of_a_resumed_run_shows_every_record_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer import event_file_writer

    # files of one second are read in the order of a number that counts all files of a process: 10 before 9
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    scored(monkeypatch, [10.0, 20.0, 30.0, 30.0, 40.0])
    config = tiny(steps=4, evaluate_every=1, checkpoint_every=2)

    def killed(step: int, *_: object) -> float:
        if step == 3:
            raise KeyboardInterrupt
        return 1e-3

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, tmp_path / "run")  # the third step was recorded, and comes again
    loop.train(config, tmp_path / "run", resume=True)
    board = EventAccumulator(str(tmp_path / "run/tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("validation/score")] == [
        (1, 10.0),
        (2, 20.0),
        (3, 30.0),
        (4, 40.0),
    ]


def gradients(config: TrainConfig, changes: dict[str, Any]) -> tuple[dict[str, float], torch.Tensor]:
    """Losses and one weight's gradient of a first step."""
    torch.manual_seed(0)
    config = changed(config, **changes)
    network = Network(config.model)
    for module in network.modules():  # batch norm of parts is not that of the whole
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
            module.forward = lambda x: x  # type: ignore[method-assign]
    batch = next(batches(None, config, 0))
    batch = replace(batch, images=batch.images[:1].expand_as(batch.images))
    targets = {f: getattr(batch.targets, f) for f in batch.targets.__dataclass_fields__}
    targets = {f: t[:1].expand_as(t) for f, t in targets.items()}
    batch = replace(batch, targets=type(batch.targets)(**targets), masks=batch.masks[:1].expand_as(batch.masks))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
    losses, _ = loop.train_step(network, batch, optimiser, config)
    gradient = network.detection.class_out.weight.grad
    assert gradient is not None
    return losses, gradient


def test_parts_of_a_batch_add_up_to_it() -> None:
    """Four times the same picture, so that the mean over parts is the whole."""
    config = tiny(clip_norm=1e9)
    whole, expected = gradients(config, {})
    parts, got = gradients(config, {"accumulate": 2})
    assert parts == pytest.approx(whole, rel=1e-3)
    assert torch.allclose(got, expected, rtol=1e-2, atol=1e-4)


def test_bf16_trains_on_a_cpu(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    network = Network(tiny().model)
    network.neck.register_forward_hook(lambda _module, _inputs, maps: seen.append(maps[0].dtype))
    batch = next(batches(None, tiny(), 0))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses, norm = loop.train_step(network, batch, optimiser, tiny(precision="bf16"))
    assert seen == [torch.bfloat16]
    assert all(value >= 0 for value in losses.values()) and 0 < norm < float("inf")
    loop.train_step(network, batch, optimiser, tiny())
    assert seen[1] is torch.float32


def test_precision_follows_the_device() -> None:
    cpu = torch.device("cpu")
    assert loop.choose_precision("auto", cpu) is torch.float32
    assert loop.choose_precision("bf16", cpu) is torch.bfloat16
    with pytest.raises(UserError, match="fp16 on a CPU"):
        loop.choose_precision("fp16", cpu)


@pytest.mark.gpu
def test_fp16_scales_its_gradients() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config = tiny(precision="fp16", device="cuda")
    network = Network(config.model).cuda()
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    before = [p.clone() for p in network.parameters()]
    batch = next(batches(None, config, 0)).to(torch.device("cuda"))
    loop.train_step(network, batch, torch.optim.AdamW(network.parameters()), config, scaler)
    assert scaler.get_scale() < 2.0**40, "the scale was too large and must fall"
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_both_heads_are_scored_and_the_last_checkpoint_knows_its_scores(tmp_path: Path) -> None:
    config = tiny(kitti(tmp_path / "data"), steps=2, evaluate_every=2, checkpoint_every=1)
    config = replace(config, model=replace(config.model, one_to_one=True))
    loop.train(config, tmp_path / "run")
    scores = load_checkpoint(tmp_path / "run" / "last.pt")["scores"]
    assert {"car_moderate", "many_car_moderate"} <= set(scores) and "many_car_easy" not in scores
    assert scores == load_checkpoint(tmp_path / "run" / "best.pt")["scores"]
