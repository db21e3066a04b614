"""Recipes: the shipped one makes its recorded commands, any one resumes, and mistakes are found before a run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from datasets.splits import HeldOut, Holdout  # noqa: E402
from perception.errors import UserError  # noqa: E402
from tools.recipes import run as runner  # noqa: E402
from tools.recipes.average import average, release  # noqa: E402
from tools.recipes.run import main, read_recipe  # noqa: E402
from training.checkpoint import (  # noqa: E402
    holdout_of,
    load_checkpoint,
    load_network,
    model_config_to_json,
    save_checkpoint,
)
from training.loop import _start_from  # noqa: E402
from training.models.network import ModelConfig, Network  # noqa: E402
from training.sets import TrainingSets  # noqa: E402

TINY = ModelConfig(channels=16)
NANO = Path(runner.__file__).with_name("nano.toml")
COMMANDS = Path(__file__).with_name("nano_recipe_commands.txt")
"""Every command of the shipped recipe, in order."""


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
    scores = average(paths, tmp_path / "mean.pt", tmp_path, sets=TrainingSets((), None, None))
    mean, state = load_network(tmp_path / "mean.pt")
    assert scores == {} and state["scores"] == {} and state["optimiser"] == {}
    for name, value in mean.state_dict().items():
        a, b = (network.state_dict()[name] for network in networks)
        torch.testing.assert_close(value, (a + b) / 2 if value.dtype.is_floating_point else b)


def test_checkpoints_of_different_networks_have_no_mean(tmp_path: Path):
    checkpoint(tmp_path / "e.pt", 0, replace(TINY, channels=24))
    checkpoint(tmp_path / "f.pt", 0)
    with pytest.raises(UserError, match=r"e\.pt: another network"):
        average([tmp_path / "e.pt", tmp_path / "f.pt"], tmp_path / "mean.pt", tmp_path)


def test_what_is_released_starts_another_run_and_names_no_folder_of_this_machine(tmp_path: Path):
    path, out = tmp_path / "last.pt", tmp_path / "nano.pt"
    config = replace(TINY, detection=replace(TINY.detection, class_weights=(1.0, 3.0, 2.0)))
    network = checkpoint(path, 0, config)
    data = {"root": "/home/me/kitti", "self_labels": "/home/me/self", "cache": None, "crop_hw": [256, 512]}
    teachers = {"teacher": ["/home/me/teacher.xml"]}
    description = json.dumps(
        {"config": {"data": data, "teachers": teachers}, "init": "/home/me/before.pt", "commit": "abc"}
    )
    save_checkpoint(path, {**load_checkpoint(path), "description": description})
    release(path, out)
    released, state = load_network(out)
    assert released.config == config
    for name, value in released.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    assert "/home" not in state["description"] and json.loads(state["description"])["commit"] == "abc"
    assert "network" not in state and "optimiser" not in state
    again = Network(TINY)
    _start_from(again, out)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))


def test_spreads_are_widened_by_the_factors_and_nothing_else_changes(tmp_path: Path):
    network = checkpoint(
        tmp_path / "last.pt", 0, replace(TINY, detection=replace(TINY.detection, distance=True, cuboid=True))
    )
    state = load_checkpoint(tmp_path / "last.pt")
    save_checkpoint(tmp_path / "last.pt", {**state, "description": "{}"})
    release(tmp_path / "last.pt", tmp_path / "out.pt", (2.0, 1.0, 3.0))
    before, after = network.state_dict(), load_network(tmp_path / "out.pt")[0].state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"detection.depth_out.bias", "detection.cuboid.out.bias"}
    depth = (after["detection.depth_out.bias"] - before["detection.depth_out.bias"]).exp()
    assert depth.tolist() == pytest.approx([1, 2])
    shape = (after["detection.cuboid.out.bias"] - before["detection.cuboid.out.bias"]).exp()
    assert shape[[5, 14]].tolist() == pytest.approx([1, 3]) and int((shape != 1).sum()) == 1


def test_a_mean_holds_out_what_all_of_its_parts_held_out(tmp_path: Path):
    paths = [tmp_path / "e.pt", tmp_path / "f.pt"]
    for seed, (path, names) in enumerate(zip(paths, ("ab", "bc"), strict=True)):
        checkpoint(path, seed)
        holdout = Holdout({"kitti/object": HeldOut(frozenset(names), "r")})
        save_checkpoint(path, {**load_checkpoint(path), "holdout": holdout.to_json()})
    average(paths, tmp_path / "mean.pt", tmp_path, sets=TrainingSets((), None, None))
    both = holdout_of(load_checkpoint(tmp_path / "mean.pt"))
    assert both == Holdout({"kitti/object": HeldOut(frozenset("b"), "r")})


class Recorder:
    """Records commands, means and releases instead of running them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> None:
        self.calls: list[list[str]] = []
        self.code = code
        monkeypatch.setattr(subprocess, "run", self.run)
        monkeypatch.setattr(runner, "average", self.average)
        monkeypatch.setattr(
            runner, "release", lambda part, out, widen: self.calls.append(["release", str(part), str(out)])
        )

    def run(self, command: list[str], check: bool) -> subprocess.CompletedProcess:
        words = command[2:]
        self.calls.append(words[1:] if words[0] == "perception.cli.main" else words)
        return subprocess.CompletedProcess(command, self.code)

    def average(self, parts: Sequence[Path], out: Path, root: Path, size_hw: tuple[int, int]) -> None:
        self.calls.append(["mean", *map(str, parts), "→", str(out), f"{size_hw[0]}x{size_hw[1]}"])


def options_of(words: list[str]) -> dict[str, list[str]]:
    """Options of a command line with their values; the later of two counts."""
    found: dict[str, list[str]] = {}
    values: list[str] = []
    for word in words:
        if word.startswith("--"):
            found[word] = values = []
        else:
            values.append(word)
    return found


def test_the_shipped_recipe_makes_the_commands_it_always_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recorder = Recorder(monkeypatch)
    assert main([str(NANO), "--root", "DATA", "--out", str(tmp_path)]) == 0
    expected = [shlex.split(line.replace("OUT/", f"{tmp_path}/")) for line in COMMANDS.read_text().splitlines()]
    assert len(recorder.calls) == len(expected) == 55
    for found, wanted in zip(recorder.calls, expected, strict=True):
        assert found[0] == wanted[0]
        if found[0] == "train":
            assert options_of(found[1:]) == options_of(wanted[1:])
        else:
            assert found == wanted


def test_shorter_divides_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recorder = Recorder(monkeypatch)
    main([str(NANO), "--root", "DATA", "--out", str(tmp_path), "--shorter", "100", "--compile"])
    steps = [options_of(call[1:])["--steps"][0] for call in recorder.calls if call[0] == "train"]
    assert steps[:4] == ["4", "36", "15", "75"]
    assert all("--compile" in call for call in recorder.calls if call[0] == "train")


SMALL = """
[options]
slow = "--learning-rate 0.001"
[[stage]]
name = "a"
train = "{slow}"
steps = 10
batch = 2
[[stage]]
name = "b"
init = "a"
train = "--seed 2"
steps = 10
batch = 2
[[stage]]
name = "soup"
mean = ["a", "b"]
[[stage]]
name = "labels"
run = "some.module --checkpoint {soup} --out '{out}/my labels'"
until = "last"
[[stage]]
name = "last"
init = "soup"
train = "{slow} --seed 3"
steps = 10
batch = 2
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_a_recipe_resumes_where_it_was_interrupted(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, recorder = tmp_path / "runs", Recorder(monkeypatch)
    for name, ended in (("a", True), ("b", False)):
        (out / name).mkdir(parents=True)
        (out / name / "config.json").touch()  # b was killed before its first checkpoint
        (out / name / "results.json").write_text(json.dumps({"ended": ended}))
    assert main([str(small), "--root", "DATA", "--out", str(out)]) == 0
    resumed, mean, labels, last = recorder.calls
    assert resumed == ["train", "--resume", str(out / "b")]
    assert mean == ["mean", f"{out}/a/last.pt", f"{out}/b/last.pt", "→", f"{out}/soup/mean.pt", "384x1248"]
    assert labels == ["some.module", "--checkpoint", str(out / "soup/mean.pt"), "--out", f"{out}/my labels"]
    assert options_of(last[1:])["--init"] == [str(out / "soup/mean.pt")]
    assert options_of(last[1:])["--learning-rate"] == ["0.001"]
    for path in (out / "a/last.pt", out / "b/last.pt", out / "soup/mean.pt"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (out / "b/results.json").write_text('{"ended": true}')
    (out / "last").mkdir()
    recorder.calls.clear()
    assert main([str(small), "--root", "DATA", "--out", str(out)]) == 0
    assert [call[0] for call in recorder.calls] == ["train"], "a mean younger than its parts stays, and so do labels"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('init = "soup"', 'init = "soap"', "stage last: 'soap' is not known here"),
        ('mean = ["a", "b"]', 'mean = ["a", "last"]', "'last' is not known here"),
        ("{slow} --seed", "{fast} --seed", "'fast' is not known here"),
        ('name = "b"', 'name = "a"', "the name is taken"),
        ('batch = 2\n[[stage]]\nname = "soup"', '[[stage]]\nname = "soup"', "steps and batch"),
        ('mean = ["a", "b"]', 'mean = ["a", "b"]\nrun = "x"', "has mean, run"),
        ('mean = ["a", "b"]', "", "has no kind"),
        ('mean = ["a", "b"]', 'mean = "a"', "mean is 'a'"),
        ('mean = ["a", "b"]', 'mean = ["a", 3]', "mean is ['a', 3]"),
        ('mean = ["a", "b"]', 'mean = ["a"]\nsize_hw = [5]', "size_hw is [5]"),
        ("steps = 10", "steps = true", "steps is True"),
        ('until = "last"', 'until = "lost"', "until 'lost'"),
        ('until = "last"', "utnil = 1", "unknown key 'utnil'"),
        ("[options]", "[option]", "unknown key 'option'"),
        ("[options]", "[options", "small.toml: "),
        ('"--learning-rate 0.001"', "0.001", "options.slow is 0.001"),
    ],
)
def test_a_mistake_in_a_recipe_is_found_before_anything_runs(small: Path, before: str, after: str, said: str):
    text = small.read_text()
    assert before in text
    small.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=re.escape(said)):
        read_recipe(small)


def test_a_stage_that_fails_ends_the_recipe_unless_it_may(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recorder = Recorder(monkeypatch, code=1)
    assert main([str(small), "--out", str(tmp_path / "runs")]) == 1 and len(recorder.calls) == 1
    small.write_text('[[stage]]\nname = "x"\nrun = "m"\nmay_fail = true\n[[stage]]\nname = "y"\nrun = "n"\n')
    recorder.calls.clear()
    assert main([str(small), "--out", str(tmp_path / "runs")]) == 1 and recorder.calls == [["m"], ["n"]]


def test_ctrl_c_and_mistakes_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", stopped)
    assert main([str(NANO), "--out", str(tmp_path)]) == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert main([str(NANO), "--out", str(tmp_path), "--shorter", "0"]) == 2
    assert main([str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err


RECIPES = sorted(path for path in NANO.parent.glob("*.toml") if "[[stage]]" in path.read_text())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_options_of_every_stage_are_options(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Parsed as `perception train` parses them, without training."""
    from perception.cli.options import parse_options
    from training.cli import TrainOptions, _begin

    recorder = Recorder(monkeypatch)
    main([str(recipe), "--root", "DATA", "--out", str(tmp_path)])
    calls = [call for call in recorder.calls if call[0] == "train"]
    assert calls
    for call in calls:
        options = parse_options(TrainOptions, call[1:], "perception train", begin=_begin, early=("preset", "resume"))
        config = options.training
        assert config.augment.copy_paste > 0 and config.data.mask_boxes
        if "--distill.network" in call:
            teacher = config.distill.network
            assert teacher is not None and (teacher.is_relative_to(tmp_path) or teacher == Path("small.pt"))
