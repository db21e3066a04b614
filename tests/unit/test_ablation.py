"""The ablation tool: its own AP by hand, its table, what a variant sees, and that it goes on where it was."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from datasets.sample import Sample
from perception.types import Detections
from tools.recipes import ablation


def frame(boxes: list[list[float]], ignore: list[list[float]] | None = None) -> Sample:
    """Cars."""
    regions = np.array(ignore or [], np.float32).reshape(-1, 4)
    return Sample(
        np.zeros((100, 200, 3), np.uint8),
        "frame",
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        class_ids=np.zeros(len(boxes), np.int64),
        ignore_boxes_xyxy=regions,
        ignore_class_ids=np.full(len(regions), -1),
    )


def found(boxes: list[list[float]], scores: list[float]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.zeros(len(boxes), np.int64)
    )


A, B, FAR = [0.0, 0.0, 40.0, 30.0], [100.0, 0.0, 140.0, 30.0], [150.0, 50.0, 190.0, 80.0]


def test_ap_of_one_hit_one_miss_and_one_false_alarm() -> None:
    """Hit at 0.9, false alarm at 0.8, hit at 0.7: precision 1, ½, ⅔ at recall ½, ½, 1: AP ½·1 + ½·⅔ = ⅚, F1 0.8."""
    ap, f1 = ablation.ap_and_f1([(frame([A, B]), found([A, FAR, B], [0.9, 0.8, 0.7]))], 0)
    assert ap == pytest.approx(5 / 6) and f1 == pytest.approx(0.8)


def test_every_object_counts_once() -> None:
    ap, f1 = ablation.ap_and_f1([(frame([A]), found([A, A], [0.9, 0.8]))], 0)
    assert ap == 1 and f1 == 1
    assert ablation.ap_and_f1([(frame([A, B]), found([A, A], [0.9, 0.8]))], 0)[0] == pytest.approx(0.5)


def test_low_objects_and_ignore_regions_neither_help_nor_harm() -> None:
    low = [0.0, 50.0, 40.0, 70.0]
    truth = frame([A, low], [[100, 0, 200, 100]])
    assert ablation.ap_and_f1([(truth, found([low, B, A], [0.9, 0.8, 0.7]))], 0) == (1.0, 1.0)
    assert ablation.ap_and_f1([(truth, found([], []))], 0) == (0.0, 0.0)


def test_what_is_far_or_of_unknown_distance_is_not_plainly_seen() -> None:
    truth = replace(frame([A, B, FAR]), distances_m=np.array([39.0, 41, np.nan], np.float32))
    plain = ablation.plainly_seen(truth)
    assert plain.boxes_xyxy is not None and plain.ignore_boxes_xyxy is not None
    assert plain.boxes_xyxy.tolist() == [A] and plain.ignore_boxes_xyxy.tolist() == [B, FAR]
    hits = found([A, B], [0.3, 0.9])
    assert ablation.found_from(0.3, [(plain, hits)], 0) == (1, 1)
    assert ablation.found_from(0.31, [(plain, hits)], 0) == (1, 0)


def test_the_table_compares_at_the_same_seeds() -> None:
    results = {
        "base": {1: {"car_moderate": 10.0}, 2: {"car_moderate": 20.0}},
        "no EMA": {2: {"car_moderate": 16.0}},
    }
    lines = ablation.table(results).splitlines()
    assert lines[2].startswith("| base | 2 | 15.0 (10.0–20.0) |") and lines[3].startswith(
        "| no EMA | 1 | 16.0, -4.0 |"
    )


def test_a_difference_counts_where_seeds_agree_and_it_exceeds_the_spread_of_base() -> None:
    base = {1: 10.0, 2: 12.0, 3: 11.0}
    assert ablation._change({1: 13.0, 2: 15.0, 3: 14.0}, base) == ", **+3.0**"
    assert ablation._change({1: 11.0, 2: 13.0, 3: 12.0}, base) == ", +1.0", "base alone varies by 2"
    assert ablation._change({1: 20.0, 2: 11.0, 3: 20.0}, base) == ", +9.0", "one seed disagrees"
    assert ablation._change({1: 5.0}, base) == ", -5.0", "one seed shows no spread"


def test_a_variant_without_a_set_sees_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for folder in ("kitti/object", "camvid/train", "extra/idd_lite", "extra/dawn_fog"):
        (root / folder).mkdir(parents=True)
    options = ablation.Options(root=root, out=tmp_path / "out")
    for _ in range(2):  # a study that goes on finds the links there
        seen = ablation.root_without(options, ("camvid", "extra/idd_lite"))
        assert sorted(p.name for p in seen.iterdir()) == ["extra", "kitti"]
        assert [p.name for p in (seen / "extra").iterdir()] == ["dawn_fog"] and (seen / "kitti/object").is_dir()
    assert ablation.root_without(options, ()) == root


def test_a_study_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def trained(command: list[str], **_: object) -> None:
        commands.append(command)
        if "--out" in command:
            Path(command[command.index("--out") + 1]).mkdir(parents=True)

    monkeypatch.setattr(ablation.subprocess, "run", trained)
    monkeypatch.setattr(ablation, "scores", lambda checkpoint, root, averaged=True: {"car_moderate": 5.0})
    call = [
        "--root",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--seeds",
        "1",
        "2",
        "--variants",
        "base",
        "no mosaic",
    ]
    done = ablation.result_path(tmp_path / "out", "base", 1)
    done.parent.mkdir(parents=True)
    done.write_text(json.dumps({"car_moderate": 7.0}))
    half = ablation.result_path(tmp_path / "out", "no mosaic", 1).parent
    half.mkdir()
    (half / "config.json").touch()  # killed, perhaps before its first checkpoint
    assert ablation.main(call) == 0
    assert len(commands) == 3, "base with seed 1 was done"
    assert commands[0][-2:] == ["--resume", str(half)]
    assert "--augment.mosaic" not in commands[1] and commands[2][-2:] == ["--augment.mosaic", "0"]
    assert "| base | 2 | 6.0" in (tmp_path / "out/table.md").read_text()
    assert ablation.main(call) == 0 and len(commands) == 3


def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *variants: str) -> tuple[list[list[str]], list[object]]:
    """Commands of a study of made-up runs, and what was scored."""
    commands: list[list[str]] = []
    scored: list[object] = []

    def trained(command: list[str], **_: object) -> None:
        commands.append(command)
        run = Path(command[command.index("--out") + 1])
        run.mkdir(parents=True)
        (run / "results.json").write_text('{"ended": true}')

    def scores(checkpoint: Path, root: Path, averaged: bool = True) -> dict[str, float]:
        scored.append((checkpoint.parent.name, averaged))
        return {"car_moderate": 5.0}

    monkeypatch.setattr(ablation.subprocess, "run", trained)
    monkeypatch.setattr(ablation, "scores", scores)
    out = ["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--seeds", "1", "--steps", "40"]
    assert ablation.main([*out, "--compile", "--variants", *variants]) == 0
    return commands, scored


def test_the_run_without_averaging_is_the_base_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, scored = study(tmp_path, monkeypatch, "no EMA")
    assert len(commands) == 1 and "--compile" in commands[0]
    assert scored == [("base-1", True), ("base-1", False)]
    assert ablation.result_path(tmp_path / "out", "no EMA", 1).exists()
    commands, scored = study(tmp_path, monkeypatch, "no EMA", "base")
    assert not commands and not scored, "all is there"


def test_checkpoints_can_be_scored_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        ablation.main(["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--score", str(tmp_path / "a.pt")])
        == 2
    )
    assert "no such file" in capsys.readouterr().err
    monkeypatch.setattr(ablation, "scores", lambda checkpoint, root: {"car_ap_mean": 78.123})
    assert ablation.main(["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--score", "a.pt", "b.pt"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"checkpoint": name, "car_ap_mean": 78.12} for name in ("a.pt", "b.pt")]


def test_more_options_go_to_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, _ = study(tmp_path, monkeypatch, "base", "no mosaic", "--more=--data.self-labels 'a b'")
    assert commands[0][-2:] == ["--data.self-labels", "a b"]
    assert commands[1][-4:] == ["--data.self-labels", "a b", "--augment.mosaic", "0"]


def test_a_first_part_leaves_its_weights_to_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, scored = study(tmp_path, monkeypatch, "synthetic street first")
    first, second = commands
    steps, share = "--steps", "--data.synthetic-share"
    assert first[first.index(steps) + 1] == "10" and second[second.index(steps) + 1] == "30"
    assert first[first.index(share) + 1] == "1" and second[second.index(share) + 1] == "0"
    run = Path(first[first.index("--out") + 1])
    assert second[-2:] == ["--init", str(run / "last.pt")] and "--init" not in first
    assert scored == [("synthetic-street-first-1", True)]
    assert list(ablation.read_results(tmp_path / "out")) == ["synthetic street first"]


def test_a_checkpoint_is_scored_at_its_own_size_with_either_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from training.checkpoint import model_config_to_json, save_checkpoint
    from training.models.network import ModelConfig, Network

    network = Network(ModelConfig(channels=16))
    raw = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    described = {"config": {"data": {"validation_hw": [192, 640]}}}
    save_checkpoint(
        tmp_path / "last.pt",
        {
            "ema": network.state_dict(),
            "network": raw,
            "model_config": model_config_to_json(network.config),
            "description": json.dumps(described),
        },
    )
    seen: list[tuple[bool, tuple[int, int]]] = []

    def measures(scored: Network, root: Path, size_hw: tuple[int, int], holdout: None) -> dict[str, float]:
        seen.append((bool(scored.detection.class_out.weight.any()), size_hw))
        return {}

    monkeypatch.setattr(ablation, "measures", measures)
    for averaged in (True, False):
        ablation.scores(tmp_path / "last.pt", tmp_path, averaged)
    assert seen == [(True, (192, 640)), (False, (192, 640))]


def test_every_variant_is_a_legal_command_line() -> None:
    """A renamed option must not be found out after an hour."""
    from typing import Annotated

    import tyro

    from training.config import TrainConfig

    for variant in ablation.VARIANTS.values():
        tyro.cli(Annotated[TrainConfig, tyro.conf.arg(name="")], args=list(variant.options))
        tyro.cli(Annotated[TrainConfig, tyro.conf.arg(name="")], args=list(variant.before))


def test_an_unknown_variant_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablation.main(["--out", str(tmp_path), "--variants", "no wheels"]) == 2
    assert "no EMA" in capsys.readouterr().err


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for arguments, said in (
        (["--out", str(tmp_path / "file/out")], "file/out: Not a directory"),
        (["--out", str(tmp_path / "out"), '--more=--a "'], "--more: No closing quotation"),
        (
            ["--out", str(tmp_path / "out"), "--root", str(tmp_path / "gone"), "--variants", "no mask sets"],
            "gone: no such",
        ),
    ):
        assert ablation.main(arguments) == 2
        assert said in capsys.readouterr().err


def test_ctrl_c_ends_a_study_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation.subprocess, "run", stopped)
    assert ablation.main(["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--variants", "base"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_run_that_fails_ends_the_study_with_its_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A folder without data: the sentence is that of `perception train`, and nothing is added to it."""
    arguments = ["--root", str(tmp_path / "nothing"), "--out", str(tmp_path / "out"), "--steps", "1"]
    assert ablation.main([*arguments, "--variants", "base", "--seeds", "1"]) == 2
    error = capfd.readouterr().err
    assert "no such folder" in error and "Traceback" not in error


LEVERS = Path(__file__).parents[2] / "tools/recipes/levers.toml"


def test_the_levers_are_legal_command_lines(tmp_path: Path) -> None:
    from perception.cli.options import parse_options
    from training.cli import train_options

    call = ["--config", str(LEVERS), "--root", str(tmp_path), "--out", str(tmp_path / "out")]
    options = parse_options(ablation.Options, call, "ablation")
    variants = ablation._variants(options)
    assert next(iter(variants)) == "base" and len(variants) == len(options.arms) >= 10
    more = ablation._filled(options.more, {"root": tmp_path, "out": tmp_path / "out"})
    for name, variant in variants.items():
        made = train_options(["--preset", options.preset, "--data.root", str(tmp_path), *more, *variant.options])
        assert "{" not in str(made), name
        assert (made.training.optimiser.frozen_stages == 4) == (name != "no start, all trained")


def test_a_study_measured_by_the_yardstick_trains_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []

    def trained(words: list[str], distinct: int) -> None:
        called.append(words)
        run = Path(words[words.index("--out") + 1])
        run.mkdir(parents=True)
        (run / "results.json").write_text('{"metrics": {"pedestrian_ap": 40.5, "other": 1.0}}')

    monkeypatch.setattr(ablation, "_train_here", trained)
    out = tmp_path / "out"
    call = ["--config", str(LEVERS), "--root", str(tmp_path), "--out", str(out), "--variants", "base", "hard labels"]
    assert ablation.main(call) == 0 and len(called) == 6
    assert called[1][-1] == "--data.no-soft-labels" and called[0][-1] != called[1][-1]
    assert json.loads((out / "base-1/scores.json").read_text()) == {"pedestrian_ap": 40.5}
    assert "| hard labels | 3 | 40.5 (40.5–40.5), +0.0 |" in (out / "table.md").read_text()


def test_kept_features_equal_computed_ones() -> None:
    import torch

    from training.models.network import ModelConfig, Network

    torch.manual_seed(0)
    kept, config = ablation.Kept(), ModelConfig(channels=16)
    network = kept.network(config, frozen=True).eval()
    plain = Network(config).eval()
    plain.load_state_dict(network.state_dict())
    images = torch.randint(0, 255, (3, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        for order in ([0, 1], [2, 1, 0]):  # the second call computes one image and remembers two
            got, want = network(images[order])["segmentation"], plain(images[order])["segmentation"]
            assert torch.allclose(got, want, atol=1e-5)
    assert len(kept._features[False]) == 3 and not kept._features[True]
    assert copy.deepcopy(network).backbone.forward.func.__self__ is kept


def test_batches_are_made_once_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    from training_runs import changed

    from training.config import TrainConfig

    made: list[int] = []
    monkeypatch.setattr(
        "training.data.batches", lambda sets, config, first: iter(lambda: made.append(1) or len(made), 0)
    )
    kept, config = ablation.Kept(), changed(TrainConfig(), steps=5, seed=1)
    assert list(kept.batches(2, None, config, 0)) == [1, 2, 1, 2, 1]
    assert list(kept.batches(2, None, config, 3)) == [2, 1] and len(made) == 2
    assert list(kept.batches(0, None, changed(config, seed=2), 0)) == [3, 4, 5, 6, 7]
