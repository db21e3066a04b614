"""The chain of stages, and the mean of several checkpoints."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from perception.errors import UserError  # noqa: E402
from tools.recipes import reference_weights as reference  # noqa: E402
from training.checkpoint import load_checkpoint, load_network, model_config_to_json, save_checkpoint  # noqa: E402
from training.loop import _start_from  # noqa: E402
from training.models.network import ModelConfig, Network  # noqa: E402
from training.sets import TrainingSets  # noqa: E402

TINY = ModelConfig(channels=16)
STAGES = (
    *reference.STAGES,
    *reference.ENDS,
    reference.LAST,
    *reference.LONG,
    *(s for r in (*reference.ROUNDS, *reference.LIGHT_ROUNDS, reference.SEEN, *reference.SEEN_ROUNDS) for s in r),
    *reference.SHORT,
)


def checkpoint(path: Path, seed: int, config: ModelConfig = TINY) -> Network:
    torch.manual_seed(seed)
    network = Network(config)
    weights = network.state_dict()
    state = {"network": weights, "ema": weights, "optimiser": {"a": 1}, "scores": {"score": 1.0}, "description": "{}"}
    save_checkpoint(path, {**state, "model_config": model_config_to_json(config)})
    return network


def test_the_mean_lies_between(tmp_path: Path):
    paths = [tmp_path / "e.pt", tmp_path / "f.pt"]
    networks = [checkpoint(path, seed) for seed, path in enumerate(paths)]
    scores = reference.average(paths, tmp_path / "mean.pt", tmp_path, sets=TrainingSets((), None, None))
    mean, state = load_network(tmp_path / "mean.pt")
    assert scores == {} and state["scores"] == {} and state["optimiser"] == {}
    for name, value in mean.state_dict().items():
        a, b = (network.state_dict()[name] for network in networks)
        torch.testing.assert_close(value, (a + b) / 2 if value.dtype.is_floating_point else b)


def test_checkpoints_of_different_networks_have_no_mean(tmp_path: Path):
    checkpoint(tmp_path / "e.pt", 0, replace(TINY, channels=24))
    checkpoint(tmp_path / "f.pt", 0)
    with pytest.raises(UserError, match=r"e\.pt: another network"):
        reference.average([tmp_path / "e.pt", tmp_path / "f.pt"], tmp_path / "mean.pt", tmp_path)


def test_what_is_released_starts_another_run_and_names_no_folder_of_this_machine(tmp_path: Path):
    path, out = tmp_path / "last.pt", tmp_path / "nano.pt"
    config = replace(TINY, detection=replace(TINY.detection, class_weights=(1.0, 3.0, 2.0)))
    network = checkpoint(path, 0, config)
    data = {"root": "/home/me/kitti", "self_labels": "/home/me/self", "cache": None, "crop_hw": [256, 512]}
    description = json.dumps({"config": {"data": data}, "init": "/home/me/before.pt", "commit": "abc"})
    save_checkpoint(path, {**load_checkpoint(path), "description": description})
    reference.release(path, out)
    released, state = load_network(out)
    assert released.config == config
    for name, value in released.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    assert "/home" not in state["description"] and json.loads(state["description"])["commit"] == "abc"
    assert "network" not in state and "optimiser" not in state
    again = Network(TINY)
    _start_from(again, out)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))


def test_the_chain_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "runs"
    for name, ended in (("a", True), ("b", False)):  # a has ended, b was killed
        (out / name).mkdir(parents=True)
        (out / name / "config.json").touch()  # b had no checkpoint yet
        (out / name / "results.json").write_text(json.dumps({"ended": ended}))
    calls: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess:
        calls.append(command[2:] if command[2].startswith("tools.") else command[3:])
        return subprocess.CompletedProcess(command, 1 if "384x1248" in command and command[3] == "export" else 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(
        reference, "average", lambda paths, mean, root, size_hw: calls.append([str(p) for p in paths])
    )
    monkeypatch.setattr(reference, "release", lambda path, out: calls.append(["release", str(path), str(out)]))
    assert reference.main(["--out", str(out), "--root", str(tmp_path), "--shorter", "100"]) == 1  # one export said no
    assert calls[0] == ["train", "--resume", str(out / "b")]
    c = calls[1]
    assert c[c.index("--out") + 1] == str(out / "c") and c[c.index("--init") + 1] == str(out / "b" / "last.pt")
    assert c[c.index("--steps") + 1] == "15"
    folder = {stage.name: out / stage.name / "last.pt" for stage in STAGES}
    ends, last = [folder[stage.name] for stage in reference.ENDS], folder[reference.LAST.name]
    long = [folder[stage.name] for stage in reference.LONG]
    mean, half, later, all_of_them = (
        out / name / "mean.pt" for name in ("mean-h", "mean-h-i", "mean-j", "mean-h-i-j")
    )
    (k81, k82), (k83, k84) = ([folder[stage.name] for stage in stages] for stages in reference.ROUNDS)
    first, rounds, second = (out / name / "mean.pt" for name in ("mean-k81-k82", "mean-k", "mean-l101-l102"))
    few, more = ([folder[stage.name] for stage in stages] for stages in reference.LIGHT_ROUNDS)
    before_light, five = [all_of_them, k81, k82, k83, k84], [*few, *more]
    light, half_way, before_121, before_123 = (
        out / name / "mean.pt" for name in ("mean-l", "mean-k-l", "mean-before-m121", "mean-before-m123")
    )
    seen, drawn, last_two = (
        [folder[stage.name] for stage in stages] for stages in (reference.SEEN, *reference.SEEN_ROUNDS)
    )
    short, all_seen = [folder[stage.name] for stage in reference.SHORT], out / "mean-m/mean.pt"
    parts = [rounds, all_seen, all_seen, *short]
    means = [ends, [mean, last], long, [half, later], [k81, k82], before_light, few, five, [rounds, light]]
    means += [[light, *seen], [*seen, *drawn], [light, *seen, *drawn, *last_two]]
    means += [parts, parts]  # thresholds of two sizes
    assert [call for call in calls if call[0].endswith(".pt")] == [[str(path) for path in each] for each in means]
    trained = [call for call in calls if call[0] == "train"][len(reference.STAGES) - 1 :]  # a had ended
    looks = [call for call in calls if call[0] == "tools.recipes.self_labels"]
    assert [look[look.index("--checkpoint") + 1] for look in looks] == list(
        map(str, (folder["g"], all_of_them, light))
    )
    before = {**dict.fromkeys(ends, folder["g"]), last: mean, **dict.fromkeys(long, half)}
    before |= {**dict.fromkeys((k81, k82), all_of_them), **dict.fromkeys((k83, k84), first)}
    before |= {**dict.fromkeys(few, rounds), **dict.fromkeys(more, second)}
    before |= {**dict.fromkeys(seen[:2], half_way), seen[2]: seen[0], **dict.fromkeys(drawn, before_121)}
    before |= {**dict.fromkeys(last_two, before_123), **dict.fromkeys(short, all_seen)}
    for call, (path, init) in zip(trained, before.items(), strict=True):
        assert call[call.index("--out") + 1] == str(path.parent)
        assert call[call.index("--init") + 1] == str(init)
        look = looks[2 if path in (*seen, *drawn, *last_two, *short) else path in (k81, k82, k83, k84, *five)]
        assert call[call.index("--data.self-labels") + 1] == look[look.index("--out") + 1]
    exported = [(call[1], call[call.index("--size-hw") + 1]) for call in calls if call[0] == "export"]
    large, wide = str(out / "mean-480/mean.pt"), str(out / "mean-384/mean.pt")
    assert exported == [(large, "480x1568"), (wide, "384x1248"), (wide, "640x1152")]
    assert ["release", wide, str(out / "nano.pt")] in calls
    calls.clear()
    folder["h53"].parent.mkdir()
    k81.parent.mkdir()
    seen[0].parent.mkdir()
    reference.main(["--out", str(out), "--root", str(tmp_path)])
    assert "tools.recipes.self_labels" not in [call[0] for call in calls]  # what an end began with stays


def test_a_stage_that_fails_ends_the_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[list[str]] = []

    def fails(command: list[str], check: bool) -> subprocess.CompletedProcess:
        calls.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", fails)
    assert reference.main(["--out", str(tmp_path)]) == 1 and len(calls) == 1


def test_ctrl_c_and_a_mistake_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", stopped)
    assert reference.main(["--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert reference.main(["--out", str(tmp_path), "--shorter", "0"]) == 2


def test_the_options_of_every_stage_are_options():
    """Parsed as `perception train` parses them, without training."""
    import tyro

    from training.config import TrainConfig

    for stage in STAGES:
        config = tyro.cli(TrainConfig, args=stage.options.split())
        assert config.augment.copy_paste >= 0.4 and config.data.mask_boxes, stage.name
